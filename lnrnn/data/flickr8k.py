"""Flickr8k: 8,091 photographs with five captions each.

Source: Hodosh, Young and Hockenmaier 2013.
"""

import os
import pathlib

import numpy as np

from lnrnn import arrays
from lnrnn.data.image_captions import (
  CAPTIONS,
  Split,
  by_name,
)
from lnrnn.errors import DataError, one_line

CAPTION_FILE = "Flickr8k.token.txt"
_LISTS = {
  "train": "Flickr_8k.trainImages.txt",
  "validation": "Flickr_8k.devImages.txt",
  "test": "Flickr_8k.testImages.txt",
}
NAMES_FILE = "feature_names.txt"


def read(
  folder: pathlib.Path, features: str = ""
) -> tuple[dict[str, Split], dict[str, int]]:
  """Reads captions, official splits, and a matrix of features.

  Args:
    folder: of the files.
    features: name of an .npy file [m, f] in the folder, whose rows are named
      by `feature_names.txt`, a line each; "" is the only one there is.

  Returns:
    {split: its images}, and {what: how many} was left out.

  Raises:
    DataError: a file is missing, damaged, or does not fit the others.
  """
  captions, strange = read_captions(folder / CAPTION_FILE)
  matrix, rows, where = named_features(folder, features)
  splits, seen = {}, {}
  for split, name in _LISTS.items():
    names = lines(folder / name)
    for image in names:
      if image in seen:
        raise DataError(
          f"{folder / name}: image {image!r} is in {seen[image]} too"
        )
      seen[image] = name
      found = captions.get(image, {})
      if len(found) != CAPTIONS:
        raise DataError(
          f"{folder / CAPTION_FILE}: image {image!r} has {len(found)} captions;"
          f" {CAPTIONS} are needed"
        )
    texts = [captions[i][k] for i in names for k in sorted(captions[i])]
    splits[split] = Split(names, by_name(names, rows, matrix, where), texts)
  unused = len(captions.keys() - seen.keys() - strange)
  return splits, {
    "images in no split": unused,
    "captions of no image": CAPTIONS * len(strange),
  }


def read_captions(
  path: pathlib.Path,
) -> tuple[dict[str, dict[int, str]], set[str]]:
  """Reads `image.jpg#n<TAB>caption`, a line each.

  Args:
    path: the file.

  Returns:
    {image: {n: caption}}, and those keys that name no picture, as the
    published file has one.

  Raises:
    DataError: a line is of another form, or a key is there twice.
  """
  found: dict[str, dict[int, str]] = {}
  for number, line in enumerate(lines(path), 1):
    key, tab, text = line.partition("\t")
    image, mark, nth = key.rpartition("#")
    if not (tab and mark and image and nth.isdecimal()):
      raise DataError(
        f"{path}, line {number}: must read image.jpg#0, a tab and the caption,"
        f" not {line[:60]!r}"
      )
    if not text.strip():
      raise DataError(f"{path}, line {number}: the caption is empty")
    own = found.setdefault(image, {})
    if int(nth) in own:
      raise DataError(f"{path}, line {number}: {key!r} is there twice")
    own[int(nth)] = text.strip()
  pictures = (".jpg", ".jpeg", ".png")
  strange = {image for image in found if not image.lower().endswith(pictures)}
  return found, strange


def named_features(
  folder: pathlib.Path, name: str = ""
) -> tuple[np.ndarray, dict[str, int], pathlib.Path]:
  """A matrix of features, and whose each row is.

  Args:
    folder: of the matrix and of `feature_names.txt`.
    name: of the .npy file; "" is the only one there is.

  Returns:
    The matrix [m, f], left on the disk; {image: row}; the file of the names.

  Raises:
    DataError: a file is missing, or they do not fit.
  """
  path = _matrix(folder, name)
  matrix = arrays.load_npy(path, mmap=True)
  names = lines(folder / NAMES_FILE)
  if matrix.ndim != 2 or len(names) != len(matrix):
    raise DataError(
      f"{path}: has shape {list(matrix.shape)}; {folder / NAMES_FILE} names"
      f" {len(names):,} rows"
    )
  rows = {image: row for row, image in enumerate(names)}
  if len(rows) != len(names):
    twice = next(n for row, n in enumerate(names) if rows[n] != row)
    raise DataError(f"{folder / NAMES_FILE}: {twice!r} is there twice")
  return matrix, rows, folder / NAMES_FILE


def _matrix(folder: pathlib.Path, name: str) -> pathlib.Path:
  if name:
    return folder / name
  there = sorted(folder.glob("*.npy"))
  if len(there) != 1:
    listed = ", ".join(p.name for p in there) or "none"
    raise DataError(
      f"{folder}: one .npy file of features is needed; there are: {listed}."
      " Name it by data.features"
    )
  return there[0]


def lines(path: str | os.PathLike[str]) -> list[str]:
  """The lines of a text file, without blanks around them.

  Raises:
    DataError: the file is missing, no UTF-8, or has an empty line.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError:
    raise DataError(f"{path}: no such file") from None
  except OSError as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  except UnicodeDecodeError as error:
    number = path.read_bytes()[: error.start].count(b"\n") + 1
    raise DataError(f"{path}, line {number}: is not UTF-8") from error
  # Not splitlines(), which cuts at signs that occur within lines.
  found = [line.strip() for line in text.removesuffix("\n").split("\n")]
  for number, line in enumerate(found, 1):
    if not line:
      raise DataError(f"{path}, line {number}: is empty")
  return found
