"""Files of the owners, in archives or trees, and what is kept of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import hashlib
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from lnrnn import files
from lnrnn.data import batches, fetch
from lnrnn.errors import DataError, one_line

# What reading a damaged zip raises; RuntimeError is of its flags or methods.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, OverflowError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error, struct.error)


def contents(
  path: pathlib.Path, ending: str, *, max_bytes: int
) -> Iterator[tuple[str, str, bytes]]:
  """The files of one kind in an archive or a tree; hidden ones are passed by.

  Args:
    path: of a tar archive, a zip (`.zip`) or a tree.
    ending: of the files' names.
    max_bytes: that an archive may unpack to.

  Yields:
    (what to call it in messages, its name without folders, its bytes).

  Raises:
    DataError: something cannot be read, or the archive is damaged.
  """
  if path.is_dir():
    for file in sorted(path.rglob(f"*{ending}")):
      if file.name[0] != ".":
        try:
          content = file.read_bytes()
        except OSError as error:
          raise DataError(
            f"{_shown(file)}: cannot be read: {one_line(error)}"
          ) from error
        yield _shown(file), file.name, content
    return
  packed = _zipped if path.suffix == ".zip" else fetch.contents
  for name, content in packed(path, max_bytes=max_bytes):
    last = name.rpartition("/")[2]
    if last.endswith(ending) and last[0] != ".":
      yield f"{path}: {_shown(name)}", last, content


def _shown(name: object) -> str:
  """Names in archives, and of files, may hold anything, line breaks too."""
  text = str(name)
  return text if text.isprintable() else repr(text)


def _zipped(
  path: pathlib.Path, *, max_bytes: int
) -> Iterator[tuple[str, bytes]]:
  """As `fetch.contents`, of a zip."""
  left = max_bytes
  try:
    with zipfile.ZipFile(path) as archive:
      for entry in archive.infolist():
        if entry.compress_type not in (
          zipfile.ZIP_STORED,
          zipfile.ZIP_DEFLATED,
        ):
          raise ValueError(f"{entry.filename!r} is packed by another method")
        with archive.open(entry) as file:
          content = file.read(left + 1)
        left -= len(content)
        if left < 0:
          raise ValueError(f"its files have more than {max_bytes:,} bytes")
        yield entry.filename, content
  except _UNREADABLE as error:
    raise DataError(f"{path}: cannot be unpacked: {one_line(error)}") from error


def digest(paths: Iterable[pathlib.Path], *options: object) -> str:
  """Names files and what is to be made of them.

  Args:
    paths: of files, told apart by their bytes, and trees, told apart by the
      names, sizes and times of what is in them.
    *options: whatever else decides what is made; by their texts.

  Returns:
    16 hexadecimal digits.

  Raises:
    DataError: something cannot be read.
  """
  found = hashlib.sha256("|".join(map(str, options)).encode())
  for path in paths:
    try:
      _update(found, path)
    except OSError as error:
      raise DataError(
        f"{_shown(path)}: cannot be read: {one_line(error)}"
      ) from error
  return found.hexdigest()[:16]


def _update(found, path: pathlib.Path) -> None:
  """Takes what names one path into a digest."""
  if not path.is_dir():
    with path.open("rb") as file:
      found.update(hashlib.file_digest(file, "sha256").digest())
    return
  for name, entry in _entries(path):
    stat = entry.stat()
    line = f"{name}|{stat.st_size}|{stat.st_mtime_ns}|"
    found.update(line.encode("utf-8", "surrogateescape"))
  # Else a file could go from the end of a tree to the next one's beginning.
  found.update(b"/")


def _entries(path: pathlib.Path, prefix: str = ""):
  """(name, entry) of each file in a tree; by scandir, as there may be many."""
  with os.scandir(path) as found:
    entries = sorted(found, key=lambda entry: entry.name)
  for entry in entries:
    if entry.is_dir():
      yield from _entries(pathlib.Path(entry.path), f"{prefix}{entry.name}/")
    elif entry.is_file():
      yield prefix + entry.name, entry


def arrays(
  stem: str, key: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], str]:
  """Arrays that were made before, or are made now and kept.

  They are kept in `$LNRNN_CACHE_DIR`, or `~/.cache/lnrnn`.

  Args:
    stem: of the file's name.
    key: of `digest`.
    make: makes the arrays.

  Returns:
    The arrays, and the fingerprint of their content, by which it was checked.

  Raises:
    DataError: there is no place to keep them; and what `make` raises.
  """
  path = folder() / f"{stem}-{key}.npz"
  # RuntimeError is what a damaged zip's flags or method raise.
  with contextlib.suppress(
    OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile
  ):
    # NumPy does not close what it opened and found damaged.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
      kept = {name: file[name] for name in file.files}
    found = batches.fingerprint(kept)
    if found == path.with_suffix(".sum").read_text("ascii"):
      return kept, found
  made = dict(make())
  found = batches.fingerprint(made)
  # A cache that cannot be written only costs time.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as part:
      np.savez(part, **made)  # type: ignore
    with files.atomic(path.with_suffix(".sum")) as part:
      part.write_text(found, "ascii")
  return made, found


def folder() -> pathlib.Path:
  """Where derived arrays are kept: `$LNRNN_CACHE_DIR`, or `~/.cache/lnrnn`.

  Raises:
    DataError: there is no such place.
  """
  root = os.environ.get("LNRNN_CACHE_DIR")
  try:
    return pathlib.Path(root or "~/.cache/lnrnn").expanduser()
  except RuntimeError as error:
    raise DataError(
      "LNRNN_CACHE_DIR: is not set, and there is no home directory; set it to"
      " a directory for what is kept"
    ) from error
