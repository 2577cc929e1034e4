"""Text files a line an entry, and matrices whose rows such a file names."""

from collections.abc import Mapping, Sequence
import os
import pathlib

import numpy as np

from lnrnn import arrays
from lnrnn.errors import DataError, one_line

NAMES_FILE = "feature_names.txt"


def lines(path: str | os.PathLike[str]) -> list[str]:
  """The lines of a text file, without blanks around them.

  Raises:
    DataError: the file is missing, no UTF-8, has an empty line, or none.
  """
  try:
    data = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise DataError(f"{path}: no such file") from None
  except OSError as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    number = data[: error.start].count(b"\n") + 1
    raise DataError(f"{path}, line {number}: is not UTF-8") from error
  # Not splitlines(), which cuts at signs that occur within lines.
  found = [line.strip() for line in text.removesuffix("\n").split("\n")]
  for number, line in enumerate(found, 1):
    if not line:
      raise DataError(f"{path}, line {number}: is empty")
  return found


def matrix(
  folder: pathlib.Path, name: str = "", apart: Sequence[str] = ()
) -> pathlib.Path:
  """The .npy file of features in a folder.

  Args:
    folder: to look in.
    name: of the file; "" where there is but one.
    apart: names of .npy files that hold something else.

  Raises:
    DataError: there are none or several.
  """
  if name:
    return folder / name
  there = sorted(p for p in folder.glob("*.npy") if p.name not in apart)
  if len(there) != 1:
    listed = ", ".join(p.name for p in there) or "none"
    raise DataError(
      f"{folder}: one .npy file of features is needed; there are: {listed}."
      " Name one by data.features"
    )
  return there[0]


class NamedRows:
  """A matrix on the disk, each row of which has a name.

  Args:
    path: an .npy file [m, f]; `feature_names.txt` beside it has m lines.

  Raises:
    DataError: a file is missing or damaged, or they do not fit.
  """

  def __init__(self, path: pathlib.Path):
    self._matrix = arrays.load_npy(path, mmap=True)
    self._file = path.with_name(NAMES_FILE)
    names = lines(self._file)
    if self._matrix.ndim != 2 or len(names) != len(self._matrix):
      raise DataError(
        f"{path}: has shape {list(self._matrix.shape)}; {self._file} names"
        f" {len(names):,} rows"
      )
    self._rows: Mapping[str, int] = {}
    for row, name in enumerate(names):
      if name in self._rows:
        raise DataError(
          f"{self._file}, line {row + 1}: {name!r} is there twice"
        )
      self._rows[name] = row

  def __contains__(self, name: str) -> bool:
    return name in self._rows

  def of(self, names: Sequence[str]) -> np.ndarray:
    """The rows of these names, [n, f].

    Raises:
      DataError: a name has no row.
    """
    missing = [name for name in names if name not in self._rows]
    if missing:
      more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
      raise DataError(
        f"{self._file}: has no row for image {missing[0]!r}{more}"
      )
    rows = [self._rows[name] for name in names]
    return self._matrix[np.array(rows, np.int64)]
