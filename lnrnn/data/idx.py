"""The idx format of MNIST: a big-endian header, then the bytes of one array."""

import gzip
from importlib.resources.abc import Traversable
import io
import math
import os
import pathlib
from typing import IO
import zlib

import numpy as np

from lnrnn.errors import DataError, one_line

Source = str | os.PathLike[str] | Traversable

_File = IO[bytes] | io.BufferedIOBase

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08
_MAX_DIMS = 4
# A deflate stream never grows by more than this factor.
_MAX_GZIP_RATIO = 1032
# The largest published file of the family, EMNIST byclass, has 0.55 GB.
_MAX_BYTES = 1 << 30
_BLOCK = 1 << 20


def read_idx(path: Source) -> np.ndarray:
  """Reads an idx file of unsigned bytes, plain or compressed by gzip.

  What the header claims is held against the size of the file before anything
  of the claimed size is allocated, and a compressed file is never unpacked
  beyond its claim.

  Args:
    path: the file; gzip is recognised by its first bytes, not by the name.

  Returns:
    uint8 array of the shape that the header gives, 1 to 4 dimensions.

  Raises:
    DataError: the file is missing, damaged, or not an idx file of bytes.

  Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges,
  section "File formats".
  """
  if isinstance(path, (str, os.PathLike)):
    path = pathlib.Path(path)
  try:
    with path.open("rb") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(0)
      packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
      file.seek(0)
      if not packed:
        return _parse(file, path, size)
      with gzip.GzipFile(fileobj=file) as unpacked:
        return _parse(unpacked, path, size * _MAX_GZIP_RATIO)
  except FileNotFoundError as error:
    raise DataError(f"{path}: no such file") from error
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def idx_bytes(array: np.ndarray) -> bytes:
  """Makes the content of an idx file, not compressed.

  Args:
    array: uint8 array of 1 to 4 dimensions.

  Returns:
    The header followed by the elements, last dimension fastest.
  """
  magic = bytes([0, 0, _UINT8, array.ndim])
  return magic + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def _parse(file: _File, path: Traversable, room: int) -> np.ndarray:
  """Reads header and payload; `room` is the most bytes `file` can hold."""
  magic = file.read(4)
  if len(magic) < 4:
    raise DataError(f"{path}: only {len(magic)} bytes; idx needs 4 and more")
  zeros, dtype, ndim = magic[:2], magic[2], magic[3]
  if zeros != b"\0\0" or dtype != _UINT8 or not 1 <= ndim <= _MAX_DIMS:
    raise DataError(
      f"{path}: starts with 0x{magic.hex()}; an idx file of unsigned bytes "
      f"starts with 0x000008 and a number of dimensions, 01 to 0{_MAX_DIMS}"
    )
  header = file.read(4 * ndim)
  if len(header) < 4 * ndim:
    raise DataError(f"{path}: ends within its header of {ndim} dimensions")
  shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
  claimed = math.prod(shape)
  allowed = min(room - 4 - len(header), _MAX_BYTES)
  if claimed > allowed:
    whose = (
      "any file may" if allowed == _MAX_BYTES else "a file of this size can"
    )
    raise DataError(
      f"{path}: the header claims {list(shape)} = {claimed:,} bytes; {whose} "
      f"hold {max(allowed, 0):,} at most"
    )
  payload = _read_up_to(file, claimed + 1)
  if len(payload) != claimed:
    found = "more" if len(payload) > claimed else f"{len(payload):,}"
    raise DataError(
      f"{path}: the header claims {list(shape)} = {claimed:,} bytes, but "
      f"{found} follow"
    )
  return np.frombuffer(payload, np.uint8).reshape(shape)


def _read_up_to(file: _File, limit: int) -> bytearray:
  """Reads in blocks: memory grows with what is there, not what is claimed."""
  payload = bytearray()
  while len(payload) < limit:
    block = file.read(min(_BLOCK, limit - len(payload)))
    if not block:
      break
    payload += block
  return payload
