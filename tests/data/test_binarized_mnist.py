"""The binary digits: the published files, and what is not them."""

import gzip
import io
import shutil

import numpy as np
from PIL import Image
import pytest

from lnrnn.data import binarized_mnist, mnist
from lnrnn.data.binarized_mnist import load, read_amat
from lnrnn.errors import ConfigError, DataError

ROWS = {"train": 5, "valid": 3, "test": 2}
PIXELS = 28 * 28


def digits(n, seed=0):
  ink = np.random.default_rng(seed).random((n, 28, 28)) < 0.3
  return ink.astype(np.uint8)


def amat(images, blank=b" ", end=b"\n"):
  """The text of a file as it was published, or with other blanks."""
  rows = images.reshape(len(images), -1)
  return b"".join(
    blank.join(b"%d" % value for value in row) + end for row in rows
  )


@pytest.fixture
def small(monkeypatch, tmp_path):
  """A folder of the three files, a few rows each; `load` expects no more."""
  files = {
    split: (f"binarized_mnist_{name}.amat", ROWS[name])
    for split, name in zip(mnist.SPLITS, ROWS, strict=True)
  }
  monkeypatch.setattr(binarized_mnist, "_FILES", files)
  for i, (name, rows) in enumerate(files.values()):
    (tmp_path / name).write_bytes(amat(digits(rows, i)))
  return tmp_path


def refused(path, rows):
  """What is said of a file; one line that begins with its name."""
  with pytest.raises(DataError) as caught:
    read_amat(path, rows)
  said = str(caught.value)
  assert said.startswith(f"{path}: ") and "\n" not in said
  return said.removeprefix(f"{path}: ")


# --- One file ---


def test_rows_are_read_as_they_stand(tmp_path):
  path = tmp_path / "two.amat"
  images = np.zeros((2, 28, 28), np.uint8)
  images[0, 0, 1] = images[1, 27, 26] = 1  # Row by row, from the left.
  lines = [["0"] * PIXELS, ["0"] * PIXELS]
  lines[0][1] = lines[1][27 * 28 + 26] = "1"
  path.write_text("".join(" ".join(line) + "\n" for line in lines))
  got = read_amat(path, 2)
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize(
  "change",
  [
    lambda text: text,
    lambda text: text[:-1],
    lambda text: text + b"\n\n",
    lambda text: text.replace(b" ", b"\t"),
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"\n", b" \n"),
  ],
  ids=["as published", "no end", "blank end", "tabs", "windows", "spaces"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_other_blanks_and_compression_are_the_same_digits(
  tmp_path, change, packed
):
  path, images = tmp_path / "some.amat", digits(4)
  text = change(amat(images))
  path.write_bytes(gzip.compress(text) if packed else text)
  np.testing.assert_array_equal(read_amat(path, 4), images)


def lines_with(row, values):
  """A file of four rows, one of which has these values."""
  lines = amat(digits(4)).splitlines(keepends=True)
  lines[row - 1] = b" ".join(values) + b"\n"
  return b"".join(lines)


ROW = [b"0"] * PIXELS


@pytest.mark.parametrize(
  "text, said",
  [
    (lines_with(3, ROW[1:]), "row 3 has 783 values; 784 are needed"),
    (lines_with(1, [*ROW, b"1"]), "row 1 has 785 values"),
    (
      lines_with(2, [*ROW[:9], b"2", *ROW[10:]]),
      "row 2 has '2' at position 10",
    ),
    (lines_with(4, [*ROW[1:], b"1.0"]), "row 4 has '1.0' at position 784"),
    (lines_with(4, [b"-1", *ROW[1:]]), "row 4 has '-1' at position 1"),
    (
      lines_with(2, [b"x" * 900, *ROW[1:]]),
      "row 2 has 'xxxxxxxxxxxxxxxxxxxx' at",
    ),
    (lines_with(2, [b"\xff", *ROW[1:]]), "row 2 has"),
    (amat(digits(4), blank=b","), "row 1 has 1 values"),
    (amat(digits(4))[: 2 * PIXELS * 3], "has 3 rows; 4 were published"),
    (amat(digits(4))[: 2 * PIXELS * 3 - 101], "row 3 has 734 values"),
    (amat(digits(4))[: 2 * PIXELS * 3 + 1], "row 4 has 1 values"),
    (b"", "has 0 rows; 4 were published: is it whole?"),
    (amat(digits(5)), "row"),
  ],
  ids=[
    "narrow",
    "wide",
    "a two",
    "a fraction",
    "negative",
    "long value",
    "no text",
    "commas",
    "cut between rows",
    "cut in a row",
    "cut after a value",
    "empty",
    "too long",
  ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_file_is_one_line_with_its_row(tmp_path, text, said, packed):
  path = tmp_path / "wrong.amat"
  path.write_bytes(gzip.compress(text) if packed else text)
  assert said in refused(path, 4)


@pytest.mark.parametrize("damage", ["cut", "flipped", "header"])
def test_a_damaged_compressed_file_is_one_line(tmp_path, damage):
  path = tmp_path / "damaged.amat.gz"
  packed = bytearray(gzip.compress(amat(digits(40))))
  if damage == "cut":
    packed = packed[: len(packed) // 2]
  elif damage == "flipped":
    middle = len(packed) // 2
    packed[middle : middle + 50] = bytes(50)
  else:
    packed = packed[:5]
  path.write_bytes(packed)
  said = refused(path, 40)
  assert said.startswith("cannot be read: ") or "row " in said


def test_a_whole_file_with_a_wrong_checksum_is_refused(tmp_path):
  path = tmp_path / "checksum.amat.gz"
  packed = bytearray(gzip.compress(amat(digits(4))))
  packed[-8] ^= 1
  path.write_bytes(packed)
  assert "cannot be read: " in refused(path, 4)


def test_a_file_that_is_not_there_or_a_folder_is_one_line(tmp_path):
  for path in (tmp_path / "nowhere.amat", tmp_path):
    assert refused(path, 4).startswith("cannot be read: ")


def test_a_file_that_unpacks_to_much_is_not_unpacked(tmp_path):
  path = tmp_path / "bomb.gz"
  path.write_bytes(gzip.compress(b"0 " * (1 << 24)))  # 32 MB of 32 kB.
  assert "row 1 has" in refused(path, 2)


# --- The folder ---


def test_the_three_files_are_the_splits(small):
  data = load("amat", small)
  assert list(data.splits) == list(mnist.SPLITS)
  for i, split in enumerate(data.splits):
    expected = digits([*ROWS.values()][i], i)
    np.testing.assert_array_equal(data.splits[split], expected)
  assert data.description == (
    f"binarised MNIST, amat files in {small}: 5 train / 3 validation / 2 test"
    " digits (not the binarisation that was published)"
  )


def test_compressed_files_and_the_folder_above_are_the_same(
  small, tmp_path_factory, monkeypatch
):
  expected = load("amat", small).fingerprint
  root = tmp_path_factory.mktemp("packed")
  folder = root / "binarized_mnist"
  folder.mkdir()
  for path in small.iterdir():
    (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
  assert load("amat", folder).fingerprint == expected
  assert load("amat", root).fingerprint == expected
  monkeypatch.setenv("LNRNN_DATA_DIR", str(root))
  assert load("amat").fingerprint == expected


def test_a_missing_file_says_how_to_get_it(small):
  (small / "binarized_mnist_valid.amat").unlink()
  with pytest.raises(DataError) as caught:
    load("amat", small)
  said = str(caught.value)
  assert f"{small}: has no binarized_mnist_valid.amat[.gz]" in said
  assert "scripts/prepare_data.py draw" in said and "\n" not in said
  shutil.rmtree(small)
  with pytest.raises(DataError, match=f"{small}: no such directory"):
    load("amat", small)


@pytest.mark.parametrize("source", ["amat", "tfds"])
def test_no_directory_says_what_to_set(monkeypatch, source):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  with pytest.raises(DataError, match="set LNRNN_DATA_DIR.*py draw --out"):
    load(source)


def test_an_unknown_source_lists_the_known_ones():
  with pytest.raises(ConfigError, match="'idx' .* embedded, amat, tfds"):
    load("idx")


def test_the_real_files_are_those_that_were_published(data_dir):
  if not (data_dir / "binarized_mnist").is_dir():
    pytest.skip(f"no binarized_mnist in {data_dir}")
  data = load("amat", data_dir)
  assert data.fingerprint == binarized_mnist.WHOLE
  assert "the paper's data and splits" in data.description
  sizes = {"train": 50_000, "validation": 10_000, "test": 10_000}
  for split, n in sizes.items():
    images = data.splits[split]
    assert images.shape == (n, 28, 28) and images.dtype == np.uint8
    assert images.max() == 1
    assert 0.12 < images.mean() < 0.14


# --- Embedded ---


@pytest.fixture(scope="module")
def embedded():
  return load()


def test_the_embedded_digits_are_binarised_by_their_grey(embedded):
  grey = mnist.load().splits
  for split, images in embedded.splits.items():
    levels = grey[split].images
    assert images.shape == levels.shape and images.dtype == np.uint8
    assert images.max() == 1
    # Paper stays paper, and full ink is ink.
    assert not images[levels == 0].any() and images[levels == 255].all()
    middle = (levels > 0) & (levels < 255)
    # Five standard errors of the mean of independent draws.
    p = levels[middle] / 255
    error = np.sqrt((p * (1 - p)).mean() / middle.sum())
    assert abs(images[middle].mean() - p.mean()) < 5 * error
    light = (levels > 50) & (levels < 80)
    assert images[light].mean() == pytest.approx(64 / 255, abs=0.02)


def test_the_embedded_binarisation_is_always_the_same_and_ours(embedded):
  assert embedded.fingerprint == load().fingerprint == "5c46a272a6d2d93c"
  assert embedded.description == (
    "binarised MNIST, embedded digits: 10,000 train / 1,000 validation / "
    "2,000 test digits (a sample of MNIST, binarised by us with a fixed seed)"
  )


# --- tensorflow-datasets ---


@pytest.fixture(scope="module")
def make_tfds(tmp_path_factory):
  """({split: images}) -> folder of an array_record dataset of them."""
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("lnrnn.data.tfds_mnist")
  tfds.disable_progress_bar()

  def make(splits):
    # tensorflow-datasets has one of this name.
    class BinarizedMnist(
      tfds.core.GeneratorBasedBuilder, skip_registration=True
    ):
      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        image = tfds.features.Image(shape=(28, 28, 1))
        return tfds.core.DatasetInfo(
          builder=self,
          features=tfds.features.FeaturesDict({"image": image}),
          disable_shuffling=True,
        )

      def _split_generators(self, dl_manager):
        return {
          split: self._generate_examples(images)
          for split, images in splits.items()
        }

      def _generate_examples(self, images):
        for row, image in enumerate(images):
          png = io.BytesIO()
          Image.fromarray(image).save(png, "PNG")
          png.seek(0)
          yield row, {"image": png}

    out = tmp_path_factory.mktemp("tfds")
    builder = BinarizedMnist(data_dir=out, file_format="array_record")
    builder.download_and_prepare()
    return out

  return make


def test_tfds_holds_the_same_digits_as_the_text_files(small, make_tfds):
  expected = load("amat", small)
  folder = make_tfds(expected.splits)
  found = [*folder.glob("binarized_mnist/1.0.0/*.array_record-*")]
  assert len(found) == 3
  for path in (folder, folder / "binarized_mnist", found[0].parent):
    data = load("tfds", path)
    assert data.fingerprint == expected.fingerprint
    assert "(not the binarisation that was published)" in data.description


def test_tfds_of_grey_digits_is_refused(make_tfds):
  folder = make_tfds(
    {"train": digits(3), "validation": digits(2), "test": 255 * digits(2)}
  )
  with pytest.raises(DataError) as caught:
    load("tfds", folder)
  said = str(caught.value)
  assert "split test: has a pixel of 255; 0 or 1 is allowed" in said
  assert str(folder) in said and "\n" not in said


def test_tfds_without_validation_is_refused(make_tfds):
  folder = make_tfds({"train": digits(3), "test": digits(2)})
  with pytest.raises(DataError, match="has no split validation"):
    load("tfds", folder)


def test_tfds_that_is_not_there_says_how_to_make_it(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(
    DataError, match=f"binarized_mnist: not found.*{tmp_path}"
  ):
    load("tfds", tmp_path)
