"""Files of the owners, in archives or trees, and what is kept of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import hashlib
import os
import pathlib
import zipfile

import numpy as np

from lnrnn import files
from lnrnn.data import batches, fetch
from lnrnn.errors import DataError, one_line


def contents(
  path: pathlib.Path, ending: str, *, max_bytes: int
) -> Iterator[tuple[str, str, bytes]]:
  """The files of one kind in an archive or a tree; hidden ones are passed by.

  Args:
    path: of the archive or the tree.
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
          yield str(file), file.name, file.read_bytes()
        except OSError as error:
          raise DataError(
            f"{file}: cannot be read: {one_line(error)}"
          ) from error
    return
  for name, content in fetch.contents(path, max_bytes=max_bytes):
    last = name.rpartition("/")[2]
    if last.endswith(ending) and last[0] != ".":
      yield f"{path}: {name}", last, content


def digest(paths: Iterable[pathlib.Path], *options: object) -> str:
  """Names files and what is to be made of them.

  Args:
    paths: of files, told apart by their bytes, and trees, told apart by the
      names, sizes and times of what is in them.
    *options: whatever else decides what is made; by their texts.

  Returns:
    16 hexadecimal digits.
  """
  found = hashlib.sha256("|".join(map(str, options)).encode())
  for path in paths:
    if path.is_dir():
      for name, entry in _entries(path):
        stat = entry.stat()
        line = f"{name}|{stat.st_size}|{stat.st_mtime_ns}|"
        found.update(line.encode("utf-8", "surrogateescape"))
    else:
      with path.open("rb") as file:
        found.update(hashlib.file_digest(file, "sha256").digest())
  return found.hexdigest()[:16]


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
  path = _folder() / f"{stem}-{key}.npz"
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
      np.savez(part, **made)
    with files.atomic(path.with_suffix(".sum")) as part:
      part.write_text(found, "ascii")
  return made, found


def _folder() -> pathlib.Path:
  root = os.environ.get("LNRNN_CACHE_DIR")
  try:
    return pathlib.Path(root or "~/.cache/lnrnn").expanduser()
  except RuntimeError as error:
    raise DataError(
      "LNRNN_CACHE_DIR: is not set, and there is no home directory; set it to"
      " a directory for what is kept"
    ) from error
