"""CIFAR-10 in its binary version or from tfds; the embedded digits by default.

A record of the binary version is a byte for the label and 3,072 for the
picture: the red, the green and the blue plane, each 32 rows of 32.

Source: Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html
"""

from collections.abc import Iterator, Mapping
import os
import pathlib
import re

import numpy as np

from lnrnn.data import batches, cached, fetch, mnist
from lnrnn.data.mnist import Arrays, Dataset
from lnrnn.errors import ConfigError, DataError, one_line

SOURCES = ("embedded", "binary", "tfds")
SPLITS = mnist.SPLITS
# By label; those of "embedded" are digits.
NAMES = ("airplane", "automobile", "bird", "cat", "deer")
NAMES += ("dog", "frog", "horse", "ship", "truck")
# Fingerprint of the subset that the results in docs/ are of, as it is split.
SUBSET = "d46110fc98545d59"
_SIZES = {"training": 50_000, "test": 10_000}  # As it was published.
_SIDE, _CHANNELS = 32, 3
_RECORD = 1 + _CHANNELS * _SIDE * _SIDE  # Bytes.
_HELD_OUT = 10  # A tenth of the training pictures; our choice.
_MIN_TRAIN = 100  # Our choice: fewer are a mistake.
_MAX_BYTES = 1 << 29  # The whole unpacks to 184 MB.
_VERSION = 2  # To be raised when what is made of the files changes.
_TREES = ("cifar-10-batches-bin", "")
_PACKED = (".tar", ".tar.gz", ".tgz", ".tar.xz")
_BATCH = re.compile(r"data_batch_([0-9]{1,9})\.bin")
_PICKLED = re.compile(r"data_batch_[0-9]{1,9}")
_TEST = "test_batch.bin"
_HOW = (
  "the binary version is needed: `python scripts/prepare_data.py cifar10 --out"
  " DIR` gets it"
)


def load(
  source: str = "embedded", data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
  """Loads pictures and their classes.

  "binary" reads the owners' binary version, a tar archive or unpacked, with
  any number of training files. "tfds" reads what `scripts/prepare_data.py`
  made, or tensorflow-datasets' own `cifar10`. The last tenth of the training
  pictures is the validation split. What takes seconds to unpack is kept in
  `$LNRNN_CACHE_DIR`, or `~/.cache/lnrnn`. "embedded" are the digits that come
  with the package.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory `cifar10` in it;
      `$LNRNN_DATA_DIR` by default. Not used by "embedded".

  Returns:
    The three splits, images uint8 [n, 32, 32, 3] (rows from the top; red,
    green, blue), or [n, 28, 28, 1] of "embedded", with their description and
    fingerprint.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing, damaged, or holds something else.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  if source == "embedded":
    digits = mnist.load("embedded")
    splits = {
      name: Arrays(split.images[..., None], split.labels)
      for name, split in digits.splits.items()
    }
    origin, verdict = "MNIST, embedded class-balanced subset", ""
    return _dataset(splits, digits.fingerprint, origin, "digits", verdict)
  folder = mnist.find_folder(data_dir, source, "cifar10")
  read = {"binary": _load_binary, "tfds": _load_tfds}[source]
  splits, fingerprint = read(folder)
  origin = f"CIFAR-10, {source} files in {folder}"
  verdict = f"{_verdict(splits, fingerprint)}; "
  return _dataset(splits, fingerprint, origin, "pictures", verdict)


def owners_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The archive, or the files of an unpacked tree, that "binary" reads.

  Args:
    folder: where to look.

  Raises:
    DataError: there is none, or more than one archive.
  """
  source = _source(folder)
  if source.is_file():
    return [source]
  return [path for path in _listed(source) if _is_part(path.name)]


def _dataset(
  splits: dict[str, Arrays], fingerprint: str, origin, noun: str, verdict: str
) -> Dataset:
  counts = " / ".join(f"{len(splits[s].labels):,} {s}" for s in SPLITS)
  description = f"{origin}: {counts} {noun} ({verdict}the paper names no data)"
  return Dataset(splits, description, fingerprint)


def _verdict(splits: Mapping[str, Arrays], fingerprint: str) -> str:
  """Whether this is CIFAR-10: as far as sizes tell, for want of a hash."""
  if fingerprint == SUBSET:
    return "a class-balanced subset of CIFAR-10"
  parts = {"training": ("train", "validation"), "test": ("test",)}
  for part, names in parts.items():
    labels = np.concatenate([splits[name].labels for name in names])
    counts = np.bincount(labels, minlength=len(NAMES))
    if set(counts.tolist()) != {_SIZES[part] // len(NAMES)}:
      return "not all of CIFAR-10"
  return "CIFAR-10 as published, by the numbers of each class"


def _held_out(train: Arrays, test: Arrays, where: object) -> dict[str, Arrays]:
  """Makes the last tenth of the training pictures the validation split."""
  n = len(train.labels)
  if n < _MIN_TRAIN:
    raise DataError(
      f"{where}: {n} training pictures; {_MIN_TRAIN} at least are needed"
    )
  keep = n - n // _HELD_OUT
  return {
    "train": Arrays(train.images[:keep], train.labels[:keep]),
    "validation": Arrays(train.images[keep:], train.labels[keep:]),
    "test": test,
  }


def _checked(images: np.ndarray, labels: np.ndarray, where: str) -> Arrays:
  wrong = np.flatnonzero((labels < 0) | (labels >= len(NAMES)))
  if len(wrong):
    raise DataError(
      f"{where}: label {labels[wrong[0]]} at position {wrong[0]}; labels are"
      f" 0 to {len(NAMES) - 1}"
    )
  return Arrays(images, labels.astype(np.int32))


def _flat(splits: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
  return {
    f"{split}/{field}": array
    for split, arrays in splits.items()
    for field, array in arrays._asdict().items()
  }


def _kept(path: pathlib.Path, make) -> tuple[dict[str, Arrays], str]:
  """The splits that `make` made before of a path, or makes now."""
  found, fingerprint = cached.arrays(
    "cifar10", cached.digest([path], _VERSION), lambda: _flat(make())
  )
  splits = {
    split: Arrays(*(found[f"{split}/{field}"] for field in Arrays._fields))
    for split in SPLITS
  }
  return splits, fingerprint


# --- The owners' files ---


def _load_binary(folder: pathlib.Path) -> tuple[dict[str, Arrays], str]:
  source = _source(folder)
  if source.is_file():
    return _kept(source, lambda: _parse(source))
  splits = _parse(source)
  return splits, batches.fingerprint(_flat(splits))


def _source(folder: pathlib.Path) -> pathlib.Path:
  """The tree if there is one, else the archive."""
  for name in _TREES:
    if any(_BATCH.fullmatch(path.name) for path in _listed(folder / name)):
      return folder / name
  found = [path for path in _listed(folder) if path.name.endswith(_PACKED)]
  if len(found) > 1:
    names = ", ".join(path.name for path in found)
    raise DataError(
      f"{folder}: has {names}: leave the one with the binary version there"
    )
  if found:
    return found[0]
  for tree in (folder, folder / "cifar-10-batches-py"):
    if any(_PICKLED.fullmatch(path.name) for path in _listed(tree)):
      raise DataError(f"{tree}: is the Python version, of pickles; {_HOW}")
  raise DataError(
    f"{folder}: has no data_batch_N.bin and no archive of them; {_HOW}"
  )


def _listed(tree: pathlib.Path) -> list[pathlib.Path]:
  """The files at the top of a tree that are not hidden; none if it is none."""
  return sorted(
    path for path in tree.glob("*") if path.name[0] != "." and path.is_file()
  )


def _is_part(name: str) -> bool:
  return name == _TEST or _BATCH.fullmatch(name) is not None


def _files(source: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  """(name, content) of the files in an archive or at the top of a tree."""
  if source.is_file():
    for name, content in fetch.contents(source, max_bytes=_MAX_BYTES):
      yield name.rpartition("/")[2], content
    return
  for path in _listed(source):
    if not _is_part(path.name):
      continue
    try:
      with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    except OSError as error:
      raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
    if len(content) > _MAX_BYTES:
      raise DataError(f"{path}: has more than {_MAX_BYTES:,} bytes")
    yield path.name, content


def _parse(source: pathlib.Path) -> dict[str, Arrays]:
  """Reads all files, the training files in the order of their numbers."""
  parts: dict[int | str, Arrays] = {}
  pickled = False
  for name, content in _files(source):
    pickled |= _PICKLED.fullmatch(name) is not None
    if not _is_part(name):
      continue
    match = _BATCH.fullmatch(name)
    part = int(match[1]) if match else _TEST
    where = f"{source}{'/' if source.is_dir() else ': '}{name}"
    if part in parts:
      raise DataError(f"{where}: is there more than once")
    parts[part] = _records(where, content)
  test = parts.pop(_TEST, None)
  if pickled and not parts:
    raise DataError(f"{source}: is the Python version, of pickles; {_HOW}")
  if not parts or test is None:
    lacking = _TEST if parts else "data_batch_N.bin"
    raise DataError(f"{source}: has no {lacking}; {_HOW}")
  train = [arrays for _, arrays in sorted(parts.items())]
  images, labels = (np.concatenate(field) for field in zip(*train, strict=True))
  return _held_out(Arrays(images, labels), test, source)


def _records(where: str, content: bytes) -> Arrays:
  """The pictures of one file."""
  if not content or len(content) % _RECORD:
    raise DataError(
      f"{where}: has {len(content):,} bytes; {_RECORD:,} for each picture, and"
      " 1 picture at least, are needed"
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
  planes = records[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
  images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
  return _checked(images, records[:, 0], where)


# --- tensorflow-datasets ---


def _load_tfds(folder: pathlib.Path) -> tuple[dict[str, Arrays], str]:
  tfds_cifar10 = mnist.import_tfds("binary", "tfds_cifar10")
  version = tfds_cifar10.find(folder)

  def make() -> dict[str, Arrays]:
    splits = {
      split: _checked(images, labels, f"{version}, split {split}")
      for split, (images, labels) in tfds_cifar10.read(version).items()
    }
    if "validation" in splits:
      return splits
    return _held_out(splits["train"], splits["test"], version)

  return _kept(version, make)
