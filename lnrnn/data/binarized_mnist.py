"""Larochelle and Murray's fixed binarisation of MNIST, from three sources."""

import gzip
import os
import pathlib
import zlib

import numpy as np

from lnrnn.data import batches, mnist
from lnrnn.errors import ConfigError, DataError, one_line

SOURCES = ("embedded", "amat", "tfds")
SPLITS = mnist.SPLITS
TRAIN_SIZES = {"embedded": 10_000, "amat": 50_000, "tfds": 50_000}
# Of the data as it was published, in any of its forms.
WHOLE = "de90e14ebfd560fc"
SIDE = 28
_PIXELS = SIDE * SIDE
_FILES = {
  "train": ("binarized_mnist_train.amat", 50_000),
  "validation": ("binarized_mnist_valid.amat", 10_000),
  "test": ("binarized_mnist_test.amat", 10_000),
}
_SEED = 0  # Of the embedded digits' binarisation.


def load(
  source: str = "embedded", data_dir: str | os.PathLike[str] | None = None
) -> mnist.Dataset:
  """Loads the binary digits from one of the sources.

  "embedded" is the embedded sample of MNIST, each pixel drawn once with its
  grey level as probability, from a fixed seed: not the published binarisation.
  "amat" reads the three published text files, plain or compressed by gzip.
  "tfds" reads `binarized_mnist` of tensorflow-datasets in array_record form.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory
      `binarized_mnist` in it; `$LNRNN_DATA_DIR` by default. Not used by
      "embedded".

  Returns:
    The splits, uint8 [n, 28, 28] of 0 and 1 each, with their description and
    fingerprint. The published test split is sorted by digit.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing, damaged, or holds something else.

  Source: Larochelle and Murray 2011, section 6.1; Ba et al. 2016, section 6.4.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  if source == "embedded":
    splits, origin = _binarize_embedded(), "embedded digits"
  else:
    folder = mnist.find_folder(data_dir, source, "binarized_mnist")
    read = {"amat": _read_amat_files, "tfds": _read_tfds}[source]
    splits, origin = read(folder), f"{source} files in {folder}"
  fingerprint = batches.fingerprint(splits)
  return mnist.Dataset(
    splits, _describe(origin, splits, fingerprint), fingerprint
  )


def read_amat(path: str | os.PathLike[str], rows: int) -> np.ndarray:
  """Reads a text file of binary images, a line each, 0 and 1 apart by spaces.

  Args:
    path: the file; gzip is recognised by its first bytes.
    rows: that it must have.

  Returns:
    uint8 [rows, 28, 28].

  Raises:
    DataError: the file is missing, damaged or holds something else; the line
      names the first row that is wrong.
  """
  text = _text(path, rows * 2 * _PIXELS)
  # As published: a digit and a space or a newline, 784 times a row.
  if len(text) == rows * 2 * _PIXELS:
    table = np.frombuffer(text, np.uint8).reshape(rows, 2 * _PIXELS)
    pixels = table[:, ::2] - ord("0")
    if (
      (pixels <= 1).all()
      and (table[:, 1:-1:2] == ord(" ")).all()
      and (table[:, -1] == ord("\n")).all()
    ):
      return np.ascontiguousarray(pixels).reshape(rows, SIDE, SIDE)
  return _read_slowly(path, text, rows)


def _read_slowly(path, text: bytes, rows: int) -> np.ndarray:
  """The same with other blanks; finds the row that is wrong."""
  images = np.zeros((rows, _PIXELS), np.uint8)
  row = 0
  for line in text.splitlines():
    values = line.split()
    if not values:
      continue
    row += 1
    if row > rows:
      raise DataError(f"{path}: has more than the {rows:,} rows published")
    if len(values) != _PIXELS:
      raise DataError(
        f"{path}: row {row} has {len(values)} values; {_PIXELS} are needed"
      )
    for at, value in enumerate(values):
      if value not in (b"0", b"1"):
        shown = value[:20].decode(errors="replace")
        raise DataError(
          f"{path}: row {row} has {shown!r} at position {at + 1}; 0 or 1 is"
          " allowed"
        )
    images[row - 1] = np.array(values, np.uint8)
  if row != rows:
    raise DataError(
      f"{path}: has {row:,} rows; {rows:,} were published: is it whole?"
    )
  return images.reshape(rows, SIDE, SIDE)


def _text(path: str | os.PathLike[str], size: int) -> bytes:
  """The bytes of a file, unpacked, no more than some beyond those expected."""
  # Other blanks than the published ones take room too; so much more is no
  # such file.
  most = 4 * size
  try:
    with open(path, "rb") as file:
      packed = file.read(2) == b"\x1f\x8b"
      file.seek(0)
      if not packed:
        return file.read(most)
      with gzip.GzipFile(fileobj=file) as unpacked:
        return unpacked.read(most)
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def _read_amat_files(folder: pathlib.Path) -> dict[str, np.ndarray]:
  splits = {}
  for split, (name, rows) in _FILES.items():
    paths = [folder / name, folder / f"{name}.gz"]
    there = [path for path in paths if path.is_file()]
    if not there:
      raise DataError(
        f"{folder}: has no {name}[.gz]; get it with "
        "`python scripts/prepare_data.py draw --out DIR`"
      )
    splits[split] = read_amat(there[0], rows)
  return splits


def _read_tfds(folder: pathlib.Path) -> dict[str, np.ndarray]:
  tfds_mnist = mnist.import_tfds("amat")
  splits = {
    split: images
    for split, (images, _) in tfds_mnist.read(
      folder, "binarized_mnist", labelled=False
    ).items()
  }
  for split, images in splits.items():
    if images.max() > 1:
      raise DataError(
        f"{folder}, split {split}: has a pixel of {images.max()}; 0 or 1 is"
        " allowed"
      )
  if missing := set(SPLITS).difference(splits):
    raise DataError(f"{folder}: has no split {', '.join(sorted(missing))}")
  return splits


def _binarize_embedded() -> dict[str, np.ndarray]:
  """Draws each pixel once, with its grey level / 255 as probability."""
  splits = {}
  for i, split in enumerate(SPLITS):
    grey = mnist.load("embedded").splits[split].images
    # The raw stream is the same with every version of NumPy (NEP 19).
    bits = np.random.Philox(np.random.SeedSequence([_SEED, i]))
    draws = (bits.random_raw(grey.size) >> 32) / 2.0**32
    splits[split] = (draws.reshape(grey.shape) < grey / 255).astype(np.uint8)
  return splits


def _describe(origin, splits, fingerprint) -> str:
  counts = " / ".join(f"{len(splits[s]):,} {s}" for s in SPLITS)
  verdict = "not the binarisation that was published"
  if fingerprint == WHOLE:
    verdict = "the paper's data and splits"
  elif origin == "embedded digits":
    verdict = "a sample of MNIST, binarised by us with a fixed seed"
  return f"binarised MNIST, {origin}: {counts} digits ({verdict})"
