import gzip
import subprocess
import sys

import numpy as np
import pytest

from lnrnn.data import mnist
from lnrnn.data.idx import idx_bytes, read_idx
from lnrnn.errors import ConfigError, DataError

TRAIN, TEST = 10_000, 50


def write_idx(folder, *, dotted=False, **changes):
  """Writes small idx files; `changes` replaces arrays by name."""
  arrays = {
    "train-images-idx3": np.zeros((TRAIN, 28, 28), np.uint8),
    "train-labels-idx1": np.arange(TRAIN, dtype=np.uint8) % 10,
    "t10k-images-idx3": np.full((TEST, 28, 28), 255, np.uint8),
    "t10k-labels-idx1": np.arange(TEST, dtype=np.uint8) % 10,
  }
  # A number in the corner of each image, to follow it through the splits.
  arrays["train-images-idx3"][:, 0, 0] = np.arange(TRAIN) // 100
  arrays["train-images-idx3"][:, 0, 1] = np.arange(TRAIN) % 100
  folder.mkdir(exist_ok=True)
  for name, array in arrays.items():
    array = changes.get(name.replace("-", "_"), array)
    name = name.replace("-idx", ".idx") if dotted else name
    (folder / f"{name}-ubyte").write_bytes(idx_bytes(array))
  return folder


@pytest.fixture(scope="module")
def idx_dir(tmp_path_factory):
  return write_idx(tmp_path_factory.mktemp("idx") / "mnist")


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory, idx_dir):
  tfds_mnist = pytest.importorskip("lnrnn.data.tfds_mnist")
  return tfds_mnist.write(idx_dir, tmp_path_factory.mktemp("tfds"))


def test_the_embedded_digits_are_balanced_and_say_what_they_are():
  data = mnist.load()
  sizes = {"train": 10_000, "validation": 1_000, "test": 2_000}
  assert list(data.splits) == list(sizes)
  for split, (images, labels) in data.splits.items():
    assert images.shape == (sizes[split], 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    assert set(np.bincount(labels)) == {sizes[split] // 10}
  assert data.description == (
    "MNIST, embedded class-balanced subset: 10,000 train / 1,000 validation / "
    "2,000 test digits (a sample of the paper's data)"
  )
  assert data.fingerprint == "b0b7be1f56495fa2"


def test_the_embedded_files_stay_small(repo):
  files = (repo / "lnrnn/data/embedded").glob("*.gz")
  assert sum(file.stat().st_size for file in files) < 2_500_000


def test_the_embedded_files_are_what_their_script_makes(
  repo, mnist_dir, tmp_path
):
  script = repo / "scripts/make_embedded_mnist.py"
  subprocess.run(
    [sys.executable, script, f"--from={mnist_dir}", f"--out={tmp_path}"],
    check=True,
    cwd=repo,
    env={"PYTHONPATH": str(repo)},
  )
  shipped = sorted((repo / "lnrnn/data/embedded").glob("*.gz"))
  assert len(shipped) == 6
  for path in shipped:
    # The content: compressed bytes depend on the zlib at hand.
    made = gzip.decompress((tmp_path / path.name).read_bytes())
    assert made == gzip.decompress(path.read_bytes())


def test_the_idx_files_are_split_as_in_the_paper(mnist_dir):
  data = mnist.load("idx", mnist_dir)
  sizes = {split: len(arrays.labels) for split, arrays in data.splits.items()}
  assert sizes == {"train": 55_000, "validation": 5_000, "test": 10_000}
  labels = read_idx(mnist_dir / "train-labels-idx1-ubyte.gz")
  np.testing.assert_array_equal(
    data.splits["validation"].labels, labels[-5_000:]
  )
  assert "the paper's data and split sizes" in data.description
  assert data.fingerprint == "93a64820adc9399a"


def test_the_embedded_digits_come_from_their_own_split(mnist_dir):
  whole = mnist.load("idx", mnist_dir).splits
  for split, (images, labels) in mnist.load().splits.items():
    digits = {
      (image.tobytes(), label)
      for image, label in zip(*whole[split], strict=True)
    }
    assert digits.issuperset(
      (image.tobytes(), label)
      for image, label in zip(images, labels, strict=True)
    )


def test_validation_is_the_end_of_the_training_file(idx_dir):
  splits = mnist.load("idx", idx_dir).splits
  numbers = {
    split: images[:, 0, 0].astype(int) * 100 + images[:, 0, 1]
    for split, (images, _) in splits.items()
  }
  np.testing.assert_array_equal(numbers["train"], np.arange(5_000))
  np.testing.assert_array_equal(numbers["validation"], np.arange(5_000, 10_000))
  assert len(splits["test"].labels) == TEST


def test_a_small_idx_set_is_not_called_the_papers(idx_dir):
  assert (
    "not MNIST as it was published" in mnist.load("idx", idx_dir).description
  )


def test_names_with_a_dot_and_the_parent_directory_are_found(
  idx_dir, tmp_path, monkeypatch
):
  expected = mnist.load("idx", idx_dir).fingerprint
  write_idx(tmp_path / "dotted", dotted=True)
  assert mnist.load("idx", tmp_path / "dotted").fingerprint == expected
  assert mnist.load("idx", idx_dir.parent).fingerprint == expected
  monkeypatch.setenv("LNRNN_DATA_DIR", str(idx_dir.parent))
  assert mnist.load("idx").fingerprint == expected


def test_tfds_holds_the_same_digits_in_the_same_order(idx_dir, tfds_dir):
  expected = mnist.load("idx", idx_dir).fingerprint
  assert mnist.load("tfds", tfds_dir.parents[1]).fingerprint == expected


def test_tfds_is_read_without_tensorflow(tfds_dir, repo):
  code = (
    "import sys; from lnrnn.data import mnist; "
    f"mnist.load('tfds', {str(tfds_dir.parent)!r}); "
    "print('tensorflow' in sys.modules)"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=repo,
  )
  assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
  ("changes", "reason"),
  [
    (
      {"t10k_labels_idx1": np.array([3, 10], np.uint8)},
      r"shape \[2\]; the 50 images of .* need as many labels",
    ),
    (
      {"t10k_labels_idx1": np.full(TEST, 10, np.uint8)},
      "label 10 at position 0; labels are 0 to 9",
    ),
    (
      {"t10k_labels_idx1": np.zeros((TEST, 1), np.uint8)},
      r"shape \[50, 1\]",
    ),
    (
      {"t10k_images_idx3": np.zeros((TEST, 28, 27), np.uint8)},
      r"shape \[50, 28, 27\]; images must be \[n, 28, 28\]",
    ),
    (
      {"t10k_images_idx3": np.zeros((0, 28, 28), np.uint8)},
      "holds no image",
    ),
    (
      {
        "train_images_idx3": np.zeros((9_999, 28, 28), np.uint8),
        "train_labels_idx1": np.zeros(9_999, np.uint8),
      },
      "9,999 training digits; 10,000 at least",
    ),
  ],
)
def test_files_that_do_not_fit_are_one_line(tmp_path, changes, reason):
  with pytest.raises(DataError, match=reason) as error:
    mnist.load("idx", write_idx(tmp_path, **changes))
  assert str(tmp_path) in str(error.value)
  assert "\n" not in str(error.value)


def test_a_missing_file_says_how_to_get_it(tmp_path):
  with pytest.raises(DataError, match=r"train-images-idx3-ubyte\[.gz\]; get"):
    mnist.load("idx", tmp_path)
  with pytest.raises(DataError, match="no such directory"):
    mnist.load("idx", tmp_path / "nowhere")


@pytest.mark.parametrize("source", ["idx", "tfds"])
def test_no_directory_says_what_to_set(monkeypatch, source):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  with pytest.raises(DataError, match="set LNRNN_DATA_DIR"):
    mnist.load(source)


def test_an_unknown_source_lists_the_known_ones():
  with pytest.raises(ConfigError, match="'web' .* embedded, idx, tfds"):
    mnist.load("web")


def copy_of(tfds_dir, folder):
  for path in tfds_dir.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  return folder


def test_tfds_that_is_not_there_says_how_to_make_it(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(DataError, match=f"not found under {tmp_path}; `python"):
    mnist.load("tfds", tmp_path)


def test_tfds_in_tfrecord_format_is_refused(tfds_dir, tmp_path):
  info = copy_of(tfds_dir, tmp_path) / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(DataError, match="format tfrecord; only array_record"):
    mnist.load("tfds", tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "json"])
def test_a_damaged_tfds_directory_is_one_line(tfds_dir, tmp_path, damage):
  copy_of(tfds_dir, tmp_path)
  record = next(tmp_path.glob("*-train.array_record-*"))
  content = bytearray(record.read_bytes())
  if damage == "cut":
    record.write_bytes(content[: len(content) // 2])
  elif damage == "gone":
    record.unlink()
  elif damage == "flipped":
    content[len(content) // 3 : len(content) // 3 + 200] = bytes(200)
    record.write_bytes(content)
  else:
    (tmp_path / "dataset_info.json").write_text("{")
  with pytest.raises(DataError, match="cannot be read") as error:
    mnist.load("tfds", tmp_path)
  assert "\n" not in str(error.value)
