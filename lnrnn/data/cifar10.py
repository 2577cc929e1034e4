"""CIFAR-10 in its binary version or from tfds; the embedded digits by default.

A record of the binary version is a byte for the label and 3,072 for the
picture: the red, the green and the blue plane, each 32 rows of 32.
"""

from collections.abc import Mapping
import os
import pathlib
import re
from typing import Any

import numpy as np

from lnrnn.data import batches, cached, mnist
from lnrnn.data.mnist import Arrays, Dataset
from lnrnn.errors import ConfigError, DataError

SOURCES = ("embedded", "binary", "tfds")
SPLITS = mnist.SPLITS
_SIDE, _CHANNELS, _CLASSES = 32, 3, 10
_RECORD = 1 + _CHANNELS * _SIDE * _SIDE  # Bytes.
_SIZES = (50_000, 10_000)  # Of CIFAR-10 as it was published.
_HELD_OUT = 10  # A tenth of the training pictures.
_MAX_BYTES = 1 << 29  # The whole unpacks to 184 MB.
_VERSION = 1
_TREE = "cifar-10-batches-bin"
_BATCH = re.compile(r"data_batch_(\d+)\.bin")


def load(
  source: str = "embedded", data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
  """Loads pictures and their classes.

  "binary" reads the owners' binary version, packed or not, with any number of
  training files. "tfds" reads what tensorflow-datasets makes. In both the last
  tenth of the training pictures is the validation split. "embedded" are the
  digits that come with the package.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory `cifar10` in it;
      `$LNRNN_DATA_DIR` by default. Not used by "embedded".

  Returns:
    The splits, images as uint8 [n, h, w, d], with description and fingerprint.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing, damaged, or holds something else.

  Source: Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html
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
    return Dataset(splits, digits.description, digits.fingerprint)
  folder = mnist.find_folder(data_dir, source, "cifar10")
  train, test = {"binary": _load_binary, "tfds": _load_tfds}[source](folder)
  n = len(train.labels)
  keep = n - n // _HELD_OUT
  splits = {
    "train": Arrays(train.images[:keep], train.labels[:keep]),
    "validation": Arrays(train.images[keep:], train.labels[keep:]),
    "test": test,
  }
  content = {
    f"{split}/{field}": array
    for split, arrays in splits.items()
    for field, array in arrays._asdict().items()
  }
  counts = " / ".join(
    f"{len(split.labels):,} {name}" for name, split in splits.items()
  )
  whole = (n, len(test.labels)) == _SIZES
  what = "all of it" if whole else "not all of it"
  return Dataset(
    splits,
    f"CIFAR-10, {source} files in {folder}: {counts} pictures ({what}; the"
    " paper names no data)",
    batches.fingerprint(content),
  )


def _load_binary(folder: pathlib.Path) -> tuple[Arrays, Arrays]:
  source = _source(folder)
  found, _ = cached.arrays(
    "cifar10", cached.digest([source], _VERSION), lambda: _parse(source)
  )
  return tuple(
    Arrays(found[f"{part}_images"], found[f"{part}_labels"])
    for part in ("train", "test")
  )  # type: ignore


def _source(folder: pathlib.Path) -> pathlib.Path:
  """The tree, or the archive."""
  for tree in (folder / _TREE, folder):
    if any(tree.glob("data_batch_*.bin")):
      return tree
  found = sorted(p for p in folder.glob("*.t*") if p.is_file())
  if len(found) > 1:
    names = ", ".join(path.name for path in found)
    raise DataError(f"{folder}: has {names}; one archive is allowed")
  if found:
    return found[0]
  raise DataError(
    f"{folder}: has no data_batch_N.bin and no archive of them; the binary"
    " version is needed: `python scripts/prepare_data.py cifar10 --out DIR`"
  )


def _parse(source: pathlib.Path) -> Mapping[str, np.ndarray]:
  """Images and labels of the training and the test files."""
  train: dict[int, Arrays] = {}
  test = None
  for where, name, content in cached.contents(
    source, ".bin", max_bytes=_MAX_BYTES
  ):
    if match := _BATCH.fullmatch(name):
      train[int(match[1])] = _records(where, content)
    elif name == "test_batch.bin":
      test = _records(where, content)
  if not train or test is None:
    lacks = "test_batch.bin" if train else "data_batch_N.bin"
    raise DataError(f"{source}: has no {lacks}; the binary version is needed")
  parts: Any = [train[number] for number in sorted(train)]
  images, labels = (np.concatenate(field) for field in zip(*parts, strict=True))
  if len(labels) < 100:
    raise DataError(
      f"{source}: {len(labels)} training pictures; 100 are needed"
    )
  return {
    "train_images": images,
    "train_labels": labels,
    "test_images": test.images,
    "test_labels": test.labels,
  }


def _records(where: str, content: bytes) -> Arrays:
  """The pictures of one file."""
  if not content or len(content) % _RECORD:
    raise DataError(
      f"{where}: has {len(content):,} bytes; a multiple of {_RECORD:,} is needed"
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
  labels = records[:, 0].astype(np.int32)
  if wrong := np.flatnonzero(labels >= _CLASSES).tolist():
    raise DataError(
      f"{where}: label {labels[wrong[0]]} at position {wrong[0]}; labels are 0"
      f" to {_CLASSES - 1}"
    )
  planes = records[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
  return Arrays(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _load_tfds(folder: pathlib.Path) -> tuple[Arrays, Arrays]:
  pictures = mnist.import_tfds("binary", "tfds_pictures")
  found = pictures.read(folder)
  return found["train"], found["test"]
