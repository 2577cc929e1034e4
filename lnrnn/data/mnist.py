"""MNIST digits from three sources: embedded subset, idx files, tfds."""

import dataclasses
import importlib.resources
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lnrnn.data import batches, idx
from lnrnn.errors import ConfigError, DataError

SOURCES = ("embedded", "idx", "tfds")
SPLITS = ("train", "validation", "test")
# The paper trains on 55,000 of the 60,000 training digits.
VALIDATION_SIZE = 5_000
TRAIN_SIZES = {"embedded": 10_000, "idx": 55_000, "tfds": 55_000}
# Fingerprints of MNIST as it was published, split as in the paper, and of the
# subset in the package.
WHOLE, EMBEDDED = "93a64820adc9399a", "b0b7be1f56495fa2"
_SIDE = 28
_CLASSES = 10


class Arrays(NamedTuple):
  """One split of the digits."""

  images: np.ndarray  # uint8 [n, 28, 28], 0 is paper and 255 is ink
  labels: np.ndarray  # int32 [n], 0 to 9


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The digits of a run, and what to say about them.

  Attributes:
    splits: what "train", "validation" and "test" hold: `Arrays` here.
    description: one line for the log: which data, how much of it.
    fingerprint: 16 hexadecimal digits that name the content.
  """

  splits: dict[str, Any]
  description: str
  fingerprint: str


def load(
  source: str = "embedded", data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
  """Loads the digits from one of the sources.

  "embedded" is a class-balanced sample that comes with the package. "idx"
  reads the four original files; the validation split is the last 5,000 of the
  60,000 training digits. "tfds" reads what `scripts/prepare_data.py` made.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory `mnist` in it;
      `$LNRNN_DATA_DIR` by default. Not used by "embedded".

  Returns:
    The three splits with their description and fingerprint.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing, damaged, or holds something else.

  Source: Ba et al. 2016, section 6.6; LeCun et al. 1998.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  if source == "embedded":
    splits, origin = _load_embedded(), "embedded class-balanced subset"
  else:
    folder = find_folder(data_dir, source, "mnist")
    splits = {"idx": _load_idx, "tfds": _load_tfds}[source](folder)
    origin = f"{source} files in {folder}"
  content = {
    f"{split}/{field}": array
    for split, arrays in splits.items()
    for field, array in arrays._asdict().items()
  }
  fingerprint = batches.fingerprint(content)
  return Dataset(splits, _describe(origin, splits, fingerprint), fingerprint)


def _read_pair(images_path: idx.Source, labels_path: idx.Source) -> Arrays:
  """Reads images and labels from two idx files, and checks them."""
  return _checked(
    idx.read_idx(images_path),
    idx.read_idx(labels_path),
    str(images_path),
    str(labels_path),
  )


def _find_idx(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Finds an original file under any of the names it goes by."""
  dotted = name.replace("-idx", ".idx")
  for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
    if (folder / candidate).is_file():
      return folder / candidate
  raise DataError(
    f"{folder}: has no {name}[.gz]; get it with "
    "`python scripts/prepare_data.py mnist --out DIR`"
  )


def _load_embedded() -> dict[str, Arrays]:
  folder = importlib.resources.files("lnrnn.data") / "embedded"
  return {
    split: _read_pair(
      folder / f"mnist-{split}-images-idx3-ubyte.gz",
      folder / f"mnist-{split}-labels-idx1-ubyte.gz",
    )
    for split in SPLITS
  }


def _load_idx(folder: pathlib.Path) -> dict[str, Arrays]:
  train, test = (
    _read_pair(
      _find_idx(folder, f"{part}-images-idx3-ubyte"),
      _find_idx(folder, f"{part}-labels-idx1-ubyte"),
    )
    for part in ("train", "t10k")
  )
  return _hold_out(train, test, folder)


def _load_tfds(folder: pathlib.Path) -> dict[str, Arrays]:
  tfds_mnist = import_tfds("idx")
  splits = {
    split: _checked(images, labels, *[f"{folder}, split {split}"] * 2)
    for split, (images, labels) in tfds_mnist.read(folder).items()
  }
  if "validation" in splits:
    return splits
  return _hold_out(splits["train"], splits["test"], folder)


def import_tfds(instead: str, module: str = "tfds_mnist") -> Any:
  """A module that needs more packages than the others.

  Args:
    instead: a source that does without them.
    module: its name in `lnrnn.data`.
  """
  try:
    return importlib.import_module(f"lnrnn.data.{module}")
  except ImportError as error:
    raise DataError(
      f"data.source=tfds needs the package {error.name}: "
      f"pip install -r requirements.txt, or use data.source={instead}"
    ) from error


def find_folder(
  data_dir: str | os.PathLike[str] | None,
  source: str,
  name: str,
  *,
  embedded: bool = True,
) -> pathlib.Path:
  """The directory of the files, from the argument or the environment.

  Args:
    data_dir: it, or one with a directory `name` in it; `$LNRNN_DATA_DIR` by
      default.
    source: for the message: of the data, or what needs it.
    name: of the data set.
    embedded: whether there is a default that needs no files.

  Raises:
    DataError: there is none.
  """
  root = data_dir or os.environ.get("LNRNN_DATA_DIR")
  tasks = {"binarized_mnist": "draw", "iam_ondb": "handwriting"}
  task = tasks.get(name, name)
  filled = f"that `python scripts/prepare_data.py {task} --out DIR` has filled"
  if name in ("cnn_questions", "books", "sentences"):  # Of no owner.
    filled = f"with a folder {name}"
  if not root:
    raise DataError(
      f"{'data.source=' if embedded else ''}{source} needs a directory: set"
      f" LNRNN_DATA_DIR to one {filled}"
      + (", or use data.source=embedded" if embedded else "")
    )
  folder = pathlib.Path(root).expanduser()
  if (folder / name).is_dir():
    folder = folder / name
  if not folder.is_dir():
    raise DataError(f"{folder}: no such directory; {name} files are needed")
  return folder


def _hold_out(
  train: Arrays, test: Arrays, folder: pathlib.Path
) -> dict[str, Arrays]:
  """Makes the last 5,000 training digits the validation split."""
  n = len(train.labels)
  if n < 2 * VALIDATION_SIZE:
    raise DataError(
      f"{folder}: {n:,} training digits; {2 * VALIDATION_SIZE:,} at least are "
      f"needed, as {VALIDATION_SIZE:,} become the validation split"
    )
  keep = n - VALIDATION_SIZE
  return {
    "train": Arrays(train.images[:keep], train.labels[:keep]),
    "validation": Arrays(train.images[keep:], train.labels[keep:]),
    "test": test,
  }


def _checked(
  images: np.ndarray, labels: np.ndarray, images_name: str, labels_name: str
) -> Arrays:
  if images.ndim != 3 or images.shape[1:] != (_SIDE, _SIDE):
    raise DataError(
      f"{images_name}: has shape {list(images.shape)}; images must be "
      f"[n, {_SIDE}, {_SIDE}]"
    )
  if not len(images):
    raise DataError(f"{images_name}: holds no image; 1 at least is needed")
  if labels.shape != images.shape[:1]:
    raise DataError(
      f"{labels_name}: has shape {list(labels.shape)}; the {len(images):,} "
      f"images of {images_name} need as many labels"
    )
  wrong = np.flatnonzero((labels < 0) | (labels >= _CLASSES))
  if len(wrong):
    raise DataError(
      f"{labels_name}: label {labels[wrong[0]]} at position {wrong[0]}; "
      f"labels are 0 to {_CLASSES - 1}"
    )
  return Arrays(images, labels.astype(np.int32))


def _describe(origin: str, splits: dict[str, Arrays], fingerprint: str) -> str:
  """One line that says which data this is, and whether it is the paper's."""
  sizes = [len(splits[split].labels) for split in SPLITS]
  counts = " / ".join(
    f"{size:,} {split}" for size, split in zip(sizes, SPLITS, strict=True)
  )
  verdict = {
    WHOLE: "the paper's data and split sizes",
    EMBEDDED: "a sample of the paper's data",
  }.get(fingerprint, "not MNIST as it was published")
  return f"MNIST, {origin}: {counts} digits ({verdict})"
