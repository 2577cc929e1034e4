"""Downloads that are checked before they get their name, and safe unpacking."""

import bz2
from collections.abc import Iterator, Sequence
import contextlib
import filecmp
import gzip
import hashlib
import http.client
import io
import lzma
import pathlib
import shutil
import tarfile
from typing import IO
import urllib.request
import zlib

from lnrnn import files
from lnrnn.errors import DataError, one_line

_File = IO[bytes] | io.BufferedIOBase

# Our choices: no file of a task comes near the first, and what describes one
# member of an archive, its name above all, nears the second.
MAX_BYTES = 1 << 36
_MAX_HEADER = 1 << 20
# xz packs with a window of 64 MiB at most, but a file may ask for 4 GiB.
_MAX_XZ_MEMORY = 1 << 27
_BLOCK = 1 << 20
# What damage raises: tarfile checks little of what a header says.
_UNREADABLE = (tarfile.TarError, OSError, EOFError, ValueError, RecursionError)
_UNREADABLE += (zlib.error, lzma.LZMAError)


def fetch(
  urls: Sequence[str],
  path: pathlib.Path,
  sha256: str,
  *,
  timeout: float = 60.0,
  max_bytes: int = MAX_BYTES,
) -> None:
  """Downloads one file, unless it is there already.

  Nothing appears under `path` before its hash is right. Mirrors are tried in
  the order given. Where a URL ends in .gz and `path` does not, what it sends
  is unpacked.

  Args:
    urls: mirrors of the file; `file://` works too.
    path: where to put it; missing directories are made.
    sha256: expected hash, 64 hexadecimal digits.
    timeout: seconds to wait for a mirror that sends nothing.
    max_bytes: a mirror that sends more is given up.

  Raises:
    DataError: no mirror sent the file that is expected.
  """
  if path.is_file():
    with path.open("rb") as file:
      if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
        return
  path.parent.mkdir(parents=True, exist_ok=True)
  reasons = []
  for url in urls:
    try:
      with files.atomic(path, sync=True) as part:
        _download(url, part, sha256, timeout=timeout, max_bytes=max_bytes)
      return
    except (*_UNREADABLE, http.client.HTTPException) as error:
      reasons.append(f"{url}: {one_line(error)}")
  raise DataError(f"{path.name}: cannot be had: {'; '.join(reasons)}")


def extract(
  archive: pathlib.Path, out: pathlib.Path, *, max_bytes: int = MAX_BYTES
) -> None:
  """Unpacks a tar archive, plain or compressed by gzip, bzip2 or xz.

  Only files and folders are unpacked: members that would land outside of
  `out`, links and devices are refused. `out` appears when all is unpacked, or
  not at all.

  Args:
    archive: the tar file.
    out: directory to make; it must not exist.
    max_bytes: the most that the members may take together.

  Raises:
    DataError: the archive is damaged, unsafe or too large, or `out` exists.
  """
  if out.exists():
    raise DataError(f"{out}: exists already; {archive.name} is not unpacked")
  out.parent.mkdir(parents=True, exist_ok=True)
  with _told(archive), files.atomic(out) as tree:
    tree.mkdir()
    for tar, member in _members(archive, max_bytes):
      tar.extract(member, tree, set_attrs=False, filter="data")


def contents(
  archive: pathlib.Path, *, max_bytes: int = MAX_BYTES
) -> Iterator[tuple[str, bytes]]:
  """Reads the files in a tar archive one by one; nothing is unpacked.

  Args:
    archive: the tar file, plain or compressed by gzip, bzip2 or xz.
    max_bytes: the most that the members may take together.

  Yields:
    (name, content) of each file, in the archive's order. A name may be
    anything.

  Raises:
    DataError: the archive is damaged, has links or devices, or is too large.
  """
  with _told(archive):
    for tar, member in _members(archive, max_bytes):
      file = tar.extractfile(member)
      if file is not None:
        yield member.name, file.read()


@contextlib.contextmanager
def _told(archive: pathlib.Path) -> Iterator[None]:
  """Says what is wrong with an archive in one line."""
  try:
    yield
  except (_UnsafeError, tarfile.FilterError) as error:
    raise DataError(f"{archive}: unsafe archive: {one_line(error)}") from error
  except _UNREADABLE as error:
    raise DataError(
      f"{archive}: cannot be unpacked: {one_line(error)}"
    ) from error


def _download(
  url: str, part: pathlib.Path, sha256: str, *, timeout: float, max_bytes: int
) -> None:
  """Writes what the URL sends to `part`; raises ValueError if it is wrong."""
  digest, left = hashlib.sha256(), max_bytes
  with (
    urllib.request.urlopen(url, timeout=timeout) as response,
    part.open("wb") as file,
  ):
    # Not `read`, which waits for a whole block, and for that time is deaf to
    # Ctrl-C.
    content = response
    if url.endswith(".gz") and part.suffix != ".gz":
      content = gzip.GzipFile(fileobj=response)
    while block := content.read1(_BLOCK):
      left -= len(block)
      if left < 0:
        raise ValueError(f"sends more than the {max_bytes:,} bytes allowed")
      digest.update(block)
      file.write(block)
  if digest.hexdigest() != sha256:
    raise ValueError(f"has sha256 {digest.hexdigest()}, not {sha256}")


class _UnsafeError(Exception):
  """An archive wants what no archive of data needs."""


class _Forward:
  """What tarfile reads: from front to end, and no more than is granted.

  tarfile itself reads a header of any length into memory, follows sizes below
  zero backwards for ever, and takes damage in a later header for the end.
  """

  def __init__(self, file: _File):
    self.granted = 0
    self.last = b""
    self._file = file
    self._at = 0

  def tell(self) -> int:
    return self._at

  def read(self, size: int) -> bytes:
    if not 0 <= size <= self.granted:
      raise tarfile.ReadError(
        f"a header asks for {size:,} bytes; {self.granted:,} are allowed"
      )
    self.granted -= size
    self.last = self._file.read(size)
    self._at += len(self.last)
    return self.last

  def seek(self, position: int) -> None:
    self.read(position - self._at)


def _members(
  archive: pathlib.Path, max_bytes: int
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
  """Yields what is safe to unpack, at once, and raises for all else."""
  left = max_bytes
  with contextlib.ExitStack() as stack:
    packed = stack.enter_context(archive.open("rb"))
    source = _Forward(_unpacked(packed))
    source.granted = _MAX_HEADER
    tar = tarfile.open(fileobj=source, mode="r:")  # type: ignore  # noqa: SIM115
    stack.enter_context(tar)
    while member := tar.next():
      # Else a list of all members is kept, and an archive may have millions.
      tar.members.clear()
      if not (member.isdir() or member.isreg()) or member.issparse():
        raise _UnsafeError(
          f"{member.name!r} is a link, a device or has holes; files and folders"
          " are allowed"
        )
      left -= tarfile.BLOCKSIZE + member.size
      if member.size < 0 or left < 0:
        raise _UnsafeError(
          f"{member.name!r} has {member.size:,} bytes; {max_bytes:,} are"
          " allowed for the whole archive"
        )
      source.granted = member.size
      yield tar, member
      source.granted = _MAX_HEADER
    if source.last.count(0) != tarfile.BLOCKSIZE:
      raise tarfile.ReadError("it is damaged, or ends before its end marker")
    # Only at the end of the file are its check sums compared.
    source.granted = _MAX_HEADER
    if len(source.read(_MAX_HEADER)) == _MAX_HEADER:
      raise tarfile.ReadError(f"{_MAX_HEADER:,} bytes and more follow its end")


def _unpacked(file: IO[bytes]) -> _File:
  """What a compressed file holds, told by its first bytes."""
  start = file.read(6)
  file.seek(0)
  if start.startswith(b"\x1f\x8b"):
    return gzip.open(file)
  if start.startswith(b"BZh"):
    return bz2.open(file)
  if start == b"\xfd7zXZ\0":
    return io.BufferedReader(_Xz(file), _BLOCK)
  return file


class _Xz(io.RawIOBase):
  """Unpacks xz in bounded memory, which `lzma.open` cannot be told to."""

  def __init__(self, file: IO[bytes]):
    self._file = file
    self._decoder = self._start()

  def _start(self) -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)

  def readable(self) -> bool:
    return True

  def readinto(self, buffer) -> int:
    while True:
      packed = b""
      if self._decoder.eof:  # One stream may follow another.
        packed = self._decoder.unused_data or self._file.read(_BLOCK)
        if not packed:
          return 0
        self._decoder = self._start()
      elif self._decoder.needs_input:
        packed = self._file.read(_BLOCK)
        if not packed:
          raise EOFError("it is cut short")
      data = self._decoder.decompress(packed, len(buffer))
      if data:
        buffer[: len(data)] = data
        return len(data)


def copy(
  paths: Sequence[pathlib.Path],
  out: pathlib.Path,
  root: pathlib.Path | None = None,
) -> None:
  """Copies files and folders that are not there yet, each whole or not at all.

  Args:
    paths: of them; a folder that is there already stays as it is.
    out: directory for them.
    root: whose inner folders are kept; by default none are.
  """
  for path in paths:
    to = out / (path.relative_to(root) if root else path.name)
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
      if not to.exists():
        with files.atomic(to) as part:
          shutil.copytree(path, part)
    elif not (to.is_file() and filecmp.cmp(path, to, shallow=False)):
      with files.atomic(to) as part:
        shutil.copyfile(path, part)
