"""Vectors of words that others have trained: GloVe and word2vec.

Source: Pennington et al. 2014; Mikolov et al. 2013, whose `word2vec.c` writes
the two formats of that name.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import gzip
import itertools
import os
import pathlib
from typing import BinaryIO, NamedTuple, cast
import zlib

import numpy as np

from lnrnn import arrays
from lnrnn.errors import DataError, one_line

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 1 << 20
# Bounds that damaged files are held against; ours, far above what is in use.
_MOST_COLUMNS = 100_000
_LONGEST_WORD = 10_000  # Bytes.
_LONGEST_LINE = 1 << 22  # Bytes.
_LARGEST = float(np.finfo(np.float32).max)


class WordVectors(NamedTuple):
  """Words with a vector each.

  Attributes:
    words: n words, each once, mostly the more frequent first.
    vectors: float32 [n, d].
    twice: how many rows were left out, as their word had one before.
  """

  words: tuple[str, ...]
  vectors: np.ndarray
  twice: int = 0

  @property
  def row_of(self) -> dict[str, int]:
    """The row of each word, made once."""
    return _rows(self.words)

  def rows(self, words: Sequence[str]) -> np.ndarray:
    """int64 [m] the rows of words, -1 for one that is unknown."""
    known = self.row_of
    return np.array([known.get(word, -1) for word in words], np.int64)


@functools.lru_cache(maxsize=2)
def _rows(words: tuple[str, ...]) -> dict[str, int]:
  return {word: i for i, word in enumerate(words)}


def load(path: str | os.PathLike[str], most: int = 0) -> WordVectors:
  """Reads words and their vectors.

  The formats:

  * GloVe's text: a word, a blank, and d numbers with a blank between, a line
    each. A word may have blanks in it.
  * word2vec's text: the same after a line of two whole numbers, how many words
    there are, and d.
  * word2vec's binary form, by the name `.bin` or `.bin.gz`: that line, then
    each word, a blank, and d float32, perhaps a line end.
  * A folder with one file of these.
  * An .npy file [n, d] of floats, or a folder with one; a .txt file beside it
    names the rows, a word a line. If there are several, it is the one that has
    n lines.

  Args:
    path: the file, or the folder. All but .npy may be compressed by gzip.
    most: rows to read from the start; 0 reads all.

  Returns:
    The words in the order of the file. Of rows for the same word the first is
    kept.

  Raises:
    DataError: what is there is missing, damaged, or of another format, or a
      number is not finite.
  """
  path = pathlib.Path(path)
  if most < 0:
    raise DataError(f"{path}: most={most}: 0 or more rows can be read")
  if path.is_dir() and not list(path.glob("*.npy")):
    path = _only(path)
  if path.is_dir() or path.suffix == ".npy":
    return _from_matrix(path, most)
  binary = path.name.endswith((".bin", ".bin.gz"))
  read = _binary_rows if binary else _text_rows
  try:
    with path.open("rb") as file:
      packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
      file.seek(0)
      if not packed:
        return _gather(read, file, path, most)
      with gzip.GzipFile(fileobj=file) as unpacked:
        return _gather(read, cast(BinaryIO, unpacked), path, most)
  except FileNotFoundError:
    raise DataError(f"{path}: no such file or folder") from None
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def _only(folder: pathlib.Path) -> pathlib.Path:
  """The one file of vectors in a folder."""
  endings = (".txt", ".bin", ".vec", ".txt.gz", ".bin.gz", ".vec.gz")
  found = sorted(p for p in folder.iterdir() if p.name.endswith(endings))
  if len(found) != 1:
    listed = ", ".join(p.name for p in found) or "none"
    raise DataError(
      f"{folder}: one file of vectors is needed (.npy, {', '.join(endings)});"
      f" there are: {listed}"
    )
  return found[0]


# (where it stands, the word, its vector as float32 in the machine's order)
_Row = tuple[str, bytes, np.ndarray]
_Reader = Callable[[BinaryIO, pathlib.Path, int], Iterator[_Row]]


def _gather(
  read: _Reader, file: BinaryIO, path: pathlib.Path, most: int
) -> WordVectors:
  """Keeps the first row of each word."""
  rows: dict[str, int] = {}
  # It grows with what is there, whatever a header claims.
  data = bytearray()
  twice, width = 0, 0
  for place, name, vector in read(file, path, most):
    word = _word(name, place)
    if word in rows:
      twice += 1
      continue
    rows[word] = len(rows)
    data += vector.tobytes()
    width = len(vector)
  vectors = np.frombuffer(data, np.float32).reshape(len(rows), width)
  return WordVectors(tuple(rows), vectors, twice)


def _word(name: bytes, place: str) -> str:
  if not name:
    raise DataError(f"{place}: has no word")
  try:
    return name.decode("utf-8")
  except UnicodeDecodeError as error:
    raise DataError(f"{place}: the word {name[:60]!r} is not UTF-8") from error


def _text_rows(file: BinaryIO, path: pathlib.Path, most: int) -> Iterator[_Row]:
  """Rows of GloVe's text, or of word2vec's."""
  # A line of bytes ends at LF alone; words may have other signs that end
  # lines, or blanks that are not of ASCII.
  # A bound, as a damaged file may have one line of gigabytes.
  numbered = enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1)
  number, line = next(numbered, (1, b""))
  parts = line.split()
  claimed, width = _header(parts), len(parts) - 1
  if claimed:
    _, width = claimed
  else:
    numbered = itertools.chain([(number, line)], numbered)
  if not 0 < width <= _MOST_COLUMNS:
    raise DataError(
      f"{path}, line 1: a word and its numbers are needed, or how many words"
      f" and numbers there are, not {line[:60]!r}"
    )
  read = 0
  for number, line in numbered:
    if most and read == most:
      return
    place = f"{path}, line {number}"
    # word2vec.c ends its lines with a blank.
    name, *fields = line.rstrip(b" \r\n").rsplit(b" ", width)
    if len(fields) < width or not name:
      raise DataError(
        f"{place}: has {len(line.split())} columns; a word and {width} numbers"
        " are needed"
      )
    last = name.rpartition(b" ")[2]
    if last != name and _is_number(last):
      raise DataError(f"{place}: has more than a word and {width} numbers")
    try:
      values = [float(field) for field in fields]
    except ValueError:
      bad = next(field for field in fields if not _is_number(field))
      told = repr(bad[:30])[1:]  # Without the b of bytes.
      raise DataError(f"{place}: {told} is no number") from None
    # One pass; NaN is not smaller either.
    if not sum(map(abs, values)) < _LARGEST:
      raise DataError(f"{place}: the numbers are not all finite")
    yield place, name, np.array(values, np.float32)
    read += 1
  if claimed and read != claimed[0]:
    # With fewer rows asked for, the end was not reached.
    raise DataError(
      f"{path}: has {read:,} words; its first line claims {claimed[0]:,}"
    )
  if not read:
    raise DataError(f"{path}: has no word")


def _binary_rows(
  file: BinaryIO, path: pathlib.Path, most: int
) -> Iterator[_Row]:
  """Rows of word2vec's binary form."""
  line = file.readline(100)
  claimed = _header(line.split())
  if not claimed or not line.endswith(b"\n") or claimed[1] > _MOST_COLUMNS:
    raise DataError(
      f"{path}: how many words and numbers there are must be in the first"
      f" line, not {line[:60]!r}"
    )
  n, width = claimed
  size = 4 * width
  buffer, at = b"", 0
  for row in range(min(n, most or n)):
    place = f"{path}, word {row + 1:,} of {n:,}"
    blank = buffer.find(b" ", at)
    while blank < 0 or len(buffer) < blank + 1 + size:
      if blank < 0 and len(buffer) - at > _LONGEST_WORD:
        raise DataError(f"{place}: has no blank after it")
      more = file.read(max(_BLOCK, size))
      if not more:
        raise DataError(f"{path}: is cut short at word {row + 1:,} of {n:,}")
      buffer, at = buffer[at:] + more, 0
      blank = buffer.find(b" ")
    vector = np.frombuffer(buffer, "<f4", width, blank + 1)
    if not np.isfinite(vector).all():
      raise DataError(f"{place}: the numbers are not all finite")
    yield place, buffer[at:blank].lstrip(b"\n"), vector.astype(np.float32)
    at = blank + 1 + size
  if most and most < n:
    return
  rest = (buffer[at:] + file.read(_BLOCK)).strip(b"\n")
  if rest:
    raise DataError(f"{path}: goes on after the {n:,} words that it claims")


def _header(parts: list[bytes]) -> tuple[int, int] | None:
  """(words, numbers) of word2vec's first line; None if it is none."""
  if len(parts) != 2 or not all(p.isdigit() and len(p) < 19 for p in parts):
    return None
  n, width = map(int, parts)
  return (n, width) if n and width else None


def _is_number(field: bytes) -> bool:
  try:
    float(field)
  except ValueError:
    return False
  return True


def _from_matrix(path: pathlib.Path, most: int) -> WordVectors:
  """Reads an .npy file, and the list of words beside it."""
  folder = path
  if path.is_dir():
    there = sorted(path.glob("*.npy"))
    if len(there) != 1:
      listed = ", ".join(p.name for p in there) or "none"
      raise DataError(
        f"{path}: one .npy file of vectors is needed; there are: {listed}"
      )
    (path,) = there
  else:
    folder = path.parent
  # On the disk: of a large matrix the first rows may be all that is wanted.
  matrix = arrays.load_npy(path, mmap=True)
  if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
    raise DataError(
      f"{path}: is {matrix.dtype} {list(matrix.shape)}; floats [words, numbers]"
      " are needed"
    )
  names, lines = _list(folder, len(matrix))
  n = min(most or len(matrix), len(matrix))
  with np.errstate(over="ignore"):  # It is told below.
    vectors = np.array(matrix[:n], np.float32)
  rows: dict[str, int] = {}
  for row, line in enumerate(lines[:n]):
    place = f"{names}, line {row + 1}"
    word = _word(line.rstrip(b"\r"), place)
    if not np.isfinite(vectors[row]).all():
      raise DataError(
        f"{path}: the numbers of {word!r} (row {row}) are not all finite"
      )
    rows.setdefault(word, row)
  kept = vectors if len(rows) == n else vectors[list(rows.values())]
  return WordVectors(tuple(rows), kept, n - len(rows))


def _list(folder: pathlib.Path, n: int) -> tuple[pathlib.Path, list[bytes]]:
  """The .txt file of n lines in a folder, and its lines."""
  fit, told = [], []
  for path in sorted(folder.glob("*.txt")):
    try:
      lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as error:
      raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
    told.append(f"{path.name} ({len(lines):,} lines)")
    if len(lines) == n:
      fit.append((path, lines))
  if len(fit) != 1:
    listed = ", ".join(told) or "none"
    raise DataError(
      f"{folder}: one .txt file of {n:,} lines, a word each, is needed; there"
      f" are: {listed}"
    )
  return fit[0]
