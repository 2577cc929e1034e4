"""Arrays in .npy and .npz files, which may be damaged or hostile.

`numpy.load` takes the header at its word: it reserves the memory that this
claims before it looks at what follows. Here every claim is held against the
bytes that are there. Numbers alone are read, never a pickle.

Source of the format: NEP 1, "A simple file format for NumPy arrays".
"""

from collections.abc import Generator, Sequence
import contextlib
import math
import os
import re
import struct
from typing import IO, Literal, NamedTuple
import zipfile
import zlib

import numpy as np

from lnrnn.errors import DataError, one_line

# Our choice; the largest array of a task, MS-COCO's features, has 1.9 GB.
MAX_BYTES = 1 << 31

_MAGIC = b"\x93NUMPY"
# Bytes of the field that tells the length of the header, by version.
_LENGTH = {1: 2, 2: 4, 3: 4}
_MAX_HEADER = 10_000
_DTYPE = re.compile(
  r"""['"]descr['"]: *['"]([<>|=]?(b1|[iu][1248]|f[248]|c8|c16|O\d?))['"]"""
)
_ORDER = re.compile(r"""['"]fortran_order['"]: *(True|False)\b""")
# Python 2 has whole numbers that end in L.
_SHAPE = re.compile(r"""['"]shape['"]: *\(((?:\d{1,19}L?(?:, *|(?=\))))*)\)""")
_BLOCK = 1 << 20
# A deflate stream never grows by more than this factor.
_MAX_RATIO = 1032
_PACKED_AS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What reading a damaged archive raises, our own ValueErrors among it.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, OverflowError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error, struct.error)


class _Header(NamedTuple):
  """What an .npy file says of its array, and where the array starts."""

  dtype: np.dtype
  shape: tuple[int, ...]
  order: Literal["C", "F"]
  start: int


def load_npy(
  path: str | os.PathLike[str],
  *,
  mmap: bool = False,
  max_bytes: int = MAX_BYTES,
) -> np.ndarray:
  """Reads one array of numbers.

  Args:
    path: an .npy file.
    mmap: leave the array on the disk and read what is used of it; it is
      read-only then, and may have any size.
    max_bytes: the most memory that the array may take.

  Raises:
    DataError: the file is missing, damaged, too large, or holds no numbers.
  """
  with _named(path), open(path, "rb") as file:
    size = os.fstat(file.fileno()).st_size
    if not mmap:
      return _read(file, size, max_bytes)
    header = _checked_header(file, size)
    if not math.prod(header.shape):  # Nothing to map.
      return np.empty(header.shape, header.dtype)
    return np.memmap(
      file, header.dtype, "r", header.start, header.shape, header.order
    )


def load_npz(
  path: str | os.PathLike[str],
  names: Sequence[str] | None = None,
  *,
  max_bytes: int = MAX_BYTES,
) -> dict[str, np.ndarray]:
  """Reads arrays of numbers from one archive.

  Args:
    path: an .npz file, compressed or not.
    names: of the arrays to read; all by default.
    max_bytes: the most memory that they may take together.

  Returns:
    The arrays by name, in the order asked for.

  Raises:
    DataError: the file is missing, damaged, too large, lacks an array, or
      holds no numbers under one of the names.
  """
  found, left = {}, max_bytes
  with _named(path), _opened(path) as (archive, size):
    held = _members(archive)
    names = list(held) if names is None else names
    if missing := [name for name in names if name not in held]:
      there = ", ".join(sorted(held)) or "none"
      raise DataError(
        f"{path}: has no array {', '.join(missing)}; it has: {there}"
      )
    for name in names:
      with _named(path, f"{name} "):
        _check_member(held[name], size)
        with archive.open(held[name]) as file:
          found[name] = _read(file, held[name].file_size, left)
        left -= found[name].nbytes
  return found


def npz_names(path: str | os.PathLike[str]) -> list[str]:
  """The names of the arrays in an .npz file, as they were stored.

  Raises:
    DataError: the file is missing, or no archive.
  """
  with _named(path), _opened(path) as (archive, _):
    return list(_members(archive))


@contextlib.contextmanager
def _named(path: str | os.PathLike[str], name: str = "") -> Generator[None]:
  """Says in one line which file, and which array in it, cannot be read."""
  try:
    yield
  except FileNotFoundError as error:
    raise DataError(f"{path}: no such file") from error
  except MemoryError as error:
    raise DataError(f"{path}: {name}does not fit into memory") from error
  except _UNREADABLE as error:
    reason = one_line(error)
    raise DataError(f"{path}: {name}cannot be read: {reason}") from error


@contextlib.contextmanager
def _opened(
  path: str | os.PathLike[str],
) -> Generator[tuple[zipfile.ZipFile, int]]:
  """The archive, and the size of its file."""
  with open(path, "rb") as file:
    if file.read(len(_MAGIC)) == _MAGIC:
      raise DataError(f"{path}: is a single array; expected an .npz file")
    try:
      archive = zipfile.ZipFile(file)
    except _UNREADABLE as error:
      raise DataError(
        f"{path}: is no .npz file, or is cut short: {one_line(error)}"
      ) from error
    with archive:
      yield archive, os.fstat(file.fileno()).st_size


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
  """The members that are arrays, by their name without .npy."""
  return {
    member.filename.removesuffix(".npy"): member
    for member in archive.infolist()
    if member.filename.endswith(".npy") and member.filename.isprintable()
  }


def _check_member(member: zipfile.ZipInfo, size: int) -> None:
  """Holds what the archive's directory claims against its file's size."""
  if member.compress_type not in _PACKED_AS:
    raise ValueError(
      f"it is packed by method {member.compress_type}; NumPy packs by"
      f" {' or '.join(map(str, _PACKED_AS))}"
    )
  stored = member.compress_type == zipfile.ZIP_STORED
  room = min(member.compress_size, size) * (1 if stored else _MAX_RATIO)
  if member.file_size > room:
    raise ValueError(
      f"the archive claims {member.file_size:,} bytes for it, which are"
      f" {room:,} at most"
    )


def _read(file: IO[bytes], size: int, max_bytes: int) -> np.ndarray:
  """Reads the array of an .npy file of so many bytes."""
  header = _checked_header(file, size)
  claimed = size - header.start
  if claimed > max_bytes:
    raise ValueError(
      f"{list(header.shape)} of {header.dtype} = {claimed:,} bytes;"
      f" {max_bytes:,} are allowed"
    )
  content = np.empty(claimed, np.uint8)
  room = content.data
  at = 0
  # In blocks: memory is only touched for what is really there.
  while at < claimed and (n := _fill(file, room[at : at + _BLOCK])):
    at += n
  # The read past the end is the one that compares the check sum.
  if at < claimed or file.read(1):
    raise EOFError(f"it is cut short: {at:,} of {claimed:,} bytes follow")
  array = content.view(header.dtype)
  if not array.dtype.isnative:  # JAX takes no other.
    array = array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
  return array.reshape(header.shape, order=header.order)


def _fill(file: IO[bytes], room: memoryview) -> int:
  data = file.read(len(room))
  room[: len(data)] = data
  return len(data)


def _checked_header(file: IO[bytes], size: int) -> _Header:
  """Reads the header, and compares it with the size of the file."""
  header = _header(file)
  claimed = math.prod(header.shape) * header.dtype.itemsize
  if header.start + claimed != size:
    raise ValueError(
      f"the header claims {list(header.shape)} of {header.dtype} ="
      f" {claimed:,} bytes, but {max(size - header.start, 0):,} follow"
    )
  return header


def _header(file: IO[bytes]) -> _Header:
  start = file.read(8)
  version = start[6] if len(start) == 8 else 0
  if not start.startswith(_MAGIC) or version not in _LENGTH:
    raise ValueError(
      f"it starts with 0x{start[:7].hex()}; an .npy file starts with"
      f" 0x{_MAGIC.hex()} and 01, 02 or 03"
    )
  length = int.from_bytes(file.read(_LENGTH[version]), "little")
  if length > _MAX_HEADER:
    raise ValueError(
      f"its header has {length:,} bytes; {_MAX_HEADER:,} are allowed"
    )
  text = file.read(length).decode("latin-1")
  if len(text) < length:
    raise EOFError("it ends within its header")
  dtype, order, shape = (x.search(text) for x in (_DTYPE, _ORDER, _SHAPE))
  if dtype and dtype[2].startswith("O"):
    raise ValueError(
      "it holds Python objects; these are pickles, which can run code and are"
      " never loaded (allow_pickle=False)"
    )
  if not (dtype and order and shape):
    raise ValueError(
      "booleans and numbers are read, and this header is of something else:"
      f" {text.strip()}"
    )
  return _Header(
    np.dtype(dtype[1]),
    tuple(map(int, re.findall(r"\d+", shape[1]))),
    "F" if order[1] == "True" else "C",
    8 + _LENGTH[version] + length,
  )


def unit(rows: np.ndarray) -> np.ndarray:
  """Rows [n, f] scaled to length 1, as float32; zero stays zero."""
  wide = rows.astype(np.float32)
  # The square of a float32 may be beyond it.
  length = np.linalg.norm(wide.astype(np.float64), axis=1, keepdims=True)
  return (wide / np.where(length > 0, length, 1)).astype(np.float32)
