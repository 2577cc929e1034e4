"""CIFAR-10 as its owners pack it, from tensorflow-datasets, and damaged."""

import io
import json
import pickle

from cifar_files import BIN, RECORD, parts, records, write_tar, write_tree
import numpy as np
import pytest

from lnrnn.data import cifar10, mnist
from lnrnn.errors import ConfigError, DataError


def refused(folder, source="binary"):
  """The line with which a folder is refused."""
  with pytest.raises(DataError) as error:
    cifar10.load(source, folder)
  line = str(error.value)
  assert str(folder) in line and "\n" not in line
  return line


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  return write_tree(tmp_path_factory.mktemp("tree") / "cifar10")


# --- The binary version ---


def test_a_record_is_a_label_and_three_planes_of_rows(tmp_path):
  planes = np.zeros((100, 3, 32, 32), np.uint8)
  planes[:, 0] = np.arange(32)[:, None]  # Red is the row,
  planes[:, 1] = np.arange(32)  # green the column,
  planes[:, 2] = np.arange(100)[:, None, None]  # blue the picture.
  labels = np.arange(100, dtype=np.uint8) % 10
  rows = np.concatenate([labels[:, None], planes.reshape(100, -1)], axis=1)
  content = rows.tobytes()
  files = {"data_batch_1.bin": content, "test_batch.bin": content}
  images, found = cifar10.load("binary", write_tree(tmp_path, files)).splits[
    "test"
  ]
  assert images.shape == (100, 32, 32, 3) and images.dtype == np.uint8
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, labels)
  for picture, row, column in ((0, 0, 0), (7, 3, 29), (99, 31, 2)):
    assert images[picture, row, column].tolist() == [row, column, picture]


def test_files_are_in_numeric_order_and_the_last_tenth_validates(tree):
  rows = np.concatenate([records(80, 1), records(60, 2), records(60, 10)])
  splits = cifar10.load("binary", tree).splits
  assert list(splits) == list(cifar10.SPLITS)
  for split, part in (("train", rows[:180]), ("validation", rows[180:])):
    images, labels = splits[split]
    np.testing.assert_array_equal(labels, part[:, 0])
    planes = images.transpose(0, 3, 1, 2).reshape(len(part), -1)
    np.testing.assert_array_equal(planes, part[:, 1:])
  assert len(splits["test"].labels) == 30


@pytest.mark.parametrize(
  ("name", "within"),
  [
    ("cifar-10-binary.tar.gz", f"{BIN}/"),
    ("cifar.tgz", "./"),
    ("cifar.tar", ""),
    ("cifar-10-binary-subset.tar.xz", f"{BIN}/"),
  ],
)
def test_archives_hold_the_same_pictures_as_a_tree(
  tree, tmp_path, name, within
):
  expected = cifar10.load("binary", tree)
  folder = write_tar(tmp_path / "cifar10" / name, within=within)
  (folder / "README.txt").write_text("not an archive")
  data = cifar10.load("binary", tmp_path)
  assert data.fingerprint == expected.fingerprint
  for split, arrays in expected.splits.items():
    for got, wanted in zip(data.splits[split], arrays, strict=True):
      np.testing.assert_array_equal(got, wanted)
      assert got.dtype == wanted.dtype


def test_a_tree_goes_before_archives(tree, tmp_path):
  expected = cifar10.load("binary", tree).fingerprint
  (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not read")
  (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not read")
  line = refused(tmp_path)
  assert "has cifar-10-binary.tar.gz, cifar-10-python.tar.gz: leave" in line
  write_tree(tmp_path / BIN)
  assert cifar10.load("binary", tmp_path).fingerprint == expected
  files = cifar10.owners_files(tmp_path)
  assert sorted(p.name for p in files) == sorted(
    name for name in parts() if name.endswith(".bin")
  )


def test_an_archive_is_unpacked_once(tmp_path, monkeypatch):
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(tmp_path / "cache"))
  folder = write_tar(tmp_path / "a" / "cifar.tar.xz")
  expected = cifar10.load("binary", folder)
  with monkeypatch.context() as patch:
    patch.setattr(cifar10, "_parse", None)
    again = cifar10.load("binary", folder)
  assert again.fingerprint == expected.fingerprint
  assert again.description == expected.description
  np.testing.assert_array_equal(
    again.splits["validation"].images, expected.splits["validation"].images
  )
  # Other bytes under the same name are other pictures.
  write_tar(folder / "cifar.tar.xz", parts(data_batch_2=None))
  assert len(cifar10.load("binary", folder).splits["train"].labels) == 126


def test_what_changes_in_a_tree_is_seen(tmp_path):
  write_tree(tmp_path)
  first = cifar10.load("binary", tmp_path).fingerprint
  write_tree(tmp_path, parts(test_batch=records(30, 4).tobytes()))
  assert cifar10.load("binary", tmp_path).fingerprint != first


# --- What is refused ---


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
  ("changes", "reason"),
  [
    ({"data_batch_2": bytes(RECORD - 1)}, "data_batch_2.bin: has 3,072 bytes"),
    ({"test_batch": bytes(RECORD + 1)}, "test_batch.bin: has 3,074 bytes"),
    (
      {"data_batch_2": b"\0" * RECORD + b"\x0a" + bytes(RECORD - 1)},
      "data_batch_2.bin: label 10 at position 1; labels are 0 to 9",
    ),
    ({"test_batch": None}, "has no test_batch.bin; the binary version"),
    ({"data_batch_01": bytes(RECORD)}, "is there more than once"),
    (
      {"data_batch_1": None, "data_batch_2": records(39).tobytes()},
      "99 training pictures; 100 at least are needed",
    ),
  ],
)
def test_files_that_are_wrong_are_one_line(tmp_path, packed, changes, reason):
  if packed:
    write_tar(tmp_path / "cifar.tgz", parts(**changes))
  else:
    write_tree(tmp_path, parts(**changes))
  assert reason in refused(tmp_path)


def test_an_empty_file_is_one_line(tmp_path):
  write_tree(tmp_path)
  (tmp_path / "data_batch_2.bin").write_bytes(b"")
  assert "data_batch_2.bin: has 0 bytes" in refused(tmp_path)


def test_an_archive_without_training_files_is_one_line(tmp_path):
  write_tar(tmp_path / "cifar-100-binary.tar.gz", {"train.bin": bytes(3_074)})
  assert "has no data_batch_N.bin; the binary" in refused(tmp_path)


@pytest.mark.parametrize("name", ["cifar.tar.gz", "cifar.tar.xz", "cifar.tar"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive"])
def test_a_damaged_archive_is_one_line(tmp_path, name, damage):
  path = write_tar(tmp_path / name) / name
  content = bytearray(path.read_bytes())
  if damage == "cut":
    content = content[: len(content) // 2]
  elif damage == "flipped":
    content[:300] = bytes(255 - byte for byte in content[:300])
  else:
    content = b"<html>404</html>"
  path.write_bytes(content)
  assert f"{path}: cannot be unpacked" in refused(tmp_path)


class Plant:
  """Whoever unpickles it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return self.path.touch, ()


@pytest.mark.parametrize("where", ["top", "tree", "archive"])
def test_the_python_version_is_refused_and_not_unpickled(tmp_path, where):
  planted = tmp_path / "came-up"
  pickled = pickle.dumps(Plant(planted))
  files = {"data_batch_1": pickled, "test_batch": pickled}
  folder, name = tmp_path / "cifar10", "cifar-10-batches-py"
  if where == "archive":
    write_tar(folder / "cifar-10-python.tar.gz", files, f"{name}/")
  else:
    write_tree(folder if where == "top" else folder / name, files)
  line = refused(folder)
  assert "is the Python version, of pickles; the binary version is" in line
  assert not planted.exists()


def test_a_missing_folder_or_file_says_how_to_get_it(tmp_path, monkeypatch):
  assert "prepare_data.py cifar10 --out DIR" in refused(tmp_path)
  assert "no such directory" in refused(tmp_path / "nowhere")
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  with pytest.raises(DataError, match=r"LNRNN_DATA_DIR .* cifar10 --out"):
    cifar10.load("binary")


def test_an_unknown_source_lists_the_known_ones():
  with pytest.raises(ConfigError, match="'web' .* embedded, binary, tfds"):
    cifar10.load("web")


# --- What is said ---


def test_the_default_is_digits_with_a_channel():
  data, digits = cifar10.load(), mnist.load()
  assert data.splits["train"].images.shape == (10_000, 28, 28, 1)
  for split in cifar10.SPLITS:
    np.testing.assert_array_equal(
      data.splits[split].images[..., 0], digits.splits[split].images
    )
  assert data.fingerprint == digits.fingerprint
  assert data.description == (
    "MNIST, embedded class-balanced subset: 10,000 train / 1,000 validation / "
    "2,000 test digits (the paper names no data)"
  )


def test_only_the_published_numbers_of_each_class_are_called_cifar10(
  tree, tmp_path, monkeypatch
):
  said = cifar10.load("binary", tree).description
  assert said == (
    f"CIFAR-10, binary files in {tree}: 180 train / 20 validation / 30 test "
    "pictures (not all of CIFAR-10; the paper names no data)"
  )
  monkeypatch.setattr(cifar10, "_SIZES", {"training": 200, "test": 30})
  said = cifar10.load("binary", tree).description
  assert "(CIFAR-10 as published, by the numbers of each class; the" in said
  uneven = records(60, 2)
  uneven[0, 0] = 1
  write_tree(tmp_path, parts(data_batch_2=uneven.tobytes()))
  assert "not all" in cifar10.load("binary", tmp_path).description


# --- Real pictures ---


@pytest.fixture(scope="module")
def real(data_dir):
  if not (data_dir / "cifar10").is_dir():
    pytest.skip(f"no {data_dir}/cifar10: no real CIFAR-10")
  return cifar10.load("binary", data_dir)


def test_the_splits_of_real_pictures_are_about_balanced(real):
  counts = {
    split: np.bincount(arrays.labels, minlength=10)
    for split, arrays in real.splits.items()
  }
  n = {split: count.sum() for split, count in counts.items()}
  assert n["validation"] == (n["train"] + n["validation"]) // 10
  assert len(set(counts["test"])) == 1
  assert len(set(counts["train"] + counts["validation"])) == 1
  # Four deviations of a random tenth.
  width = 4 * np.sqrt(n["validation"] * 0.1 * 0.9 * 0.9)
  assert np.abs(counts["validation"] - n["validation"] / 10).max() < width


def test_real_rows_columns_and_colours_are_where_they_belong(real):
  images, labels = (field[:2_000] for field in real.splits["test"])
  x = images.astype(np.float32)
  # Neighbours are alike, and so are the colours of a place.
  spread = x.std()
  for axis in (1, 2):
    assert np.abs(np.diff(x, axis=axis)).mean() < spread / 4
  assert np.abs(np.diff(x, axis=3)).mean() < spread / 3
  name = dict(zip(cifar10.NAMES, range(10), strict=True))
  red, green, blue = x[labels == name["airplane"]].mean(axis=(0, 1, 2))
  assert red < green < blue  # The sky,
  red, green, blue = x[labels == name["deer"]].mean(axis=(0, 1, 2))
  assert blue < min(red, green)  # and the grass.
  ships = x[labels == name["ship"]].mean(axis=(0, 2, 3))
  assert ships[:8].mean() > ships[-8:].mean() + 10  # The sky is above.


def test_the_real_subset_says_what_it_is(real):
  if len(real.splits["test"].labels) != 4_000:
    pytest.skip("another part of CIFAR-10")
  assert real.fingerprint == cifar10.SUBSET
  assert "14,400 train / 1,600 validation / 4,000 test" in real.description
  assert "(a class-balanced subset of CIFAR-10; the" in real.description


# --- tensorflow-datasets ---


@pytest.fixture(scope="module")
def tfds_dir(tree, tmp_path_factory):
  tfds_cifar10 = pytest.importorskip("lnrnn.data.tfds_cifar10")
  return tfds_cifar10.write(tree, tmp_path_factory.mktemp("tfds"))


def test_tfds_holds_the_same_pictures_in_the_same_order(tree, tfds_dir):
  expected = cifar10.load("binary", tree).fingerprint
  root = tfds_dir.parents[1]
  assert tfds_dir == root / "lnrnn_cifar10" / "1.0.0"
  for folder in (root, tfds_dir.parent, tfds_dir):
    data = cifar10.load("tfds", folder)
    assert data.fingerprint == expected
    assert f"CIFAR-10, tfds files in {folder}: 180 train" in data.description


@pytest.fixture
def theirs(tmp_path):
  """Writes what tensorflow-datasets makes: ids, and no validation split."""
  pytest.importorskip("lnrnn.data.tfds_cifar10")
  from array_record.python import array_record_module
  from PIL import Image
  from tensorflow_datasets.proto import tf_example_pb2

  def example(image, label) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    found = tf_example_pb2.Example()
    feature = found.features.feature
    feature["id"].bytes_list.value.append(b"train_00001")
    feature["image"].bytes_list.value.append(file.getvalue())
    feature["label"].int64_list.value.append(label)
    return found.SerializeToString()

  def write(splits):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    held = []
    for split, rows in splits.items():
      path = folder / f"cifar10-{split}.array_record-00000-of-00001"
      writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
      for image, label in zip(*rows, strict=True):
        writer.write(example(image, int(label)))
      writer.close()
      held.append({"name": split, "shardLengths": [str(len(rows[1]))]})
    info = {"name": "cifar10", "fileFormat": "array_record", "splits": held}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path

  return write


def test_the_dataset_of_tensorflow_datasets_is_split_as_the_files(theirs, tree):
  expected = cifar10.load("binary", tree)
  train, validation, test = (expected.splits[s] for s in cifar10.SPLITS)
  whole = [
    np.concatenate(field) for field in zip(train, validation, strict=True)
  ]
  folder = theirs({"train": whole, "test": test})
  data = cifar10.load("tfds", folder)
  assert data.fingerprint == expected.fingerprint


@pytest.mark.parametrize(
  ("shape", "label", "reason"),
  [
    ((32, 31, 3), 3, r"(31, 32) pixels of mode RGB; (32, 32) of mode RGB"),
    ((32, 32), 3, "of mode L; (32, 32) of mode RGB"),
    ((32, 32, 3), 10, "label 10 at position 0; labels are 0 to 9"),
    ((32, 32, 3), -1, "label -1 at position 0"),
    ((32, 32, 3), 9, "99 training pictures; 100 at least"),
  ],
)
def test_what_is_no_picture_of_cifar10_is_refused(theirs, shape, label, reason):
  images = np.zeros((99, *shape), np.uint8)
  rows = (images, np.full(99, label))
  assert reason in refused(theirs({"train": rows, "test": rows}), "tfds")


def test_a_dataset_that_is_not_there_says_how_to_make_it(tmp_path):
  pytest.importorskip("lnrnn.data.tfds_cifar10")
  line = refused(tmp_path, "tfds")
  assert "prepare_data.py cifar10" in line and "array_record" in line
