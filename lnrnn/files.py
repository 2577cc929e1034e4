"""Files and folders that are there whole, or not at all."""

from collections.abc import Generator
import contextlib
import errno
import hashlib
import os
import pathlib
import secrets
import shutil

from lnrnn.errors import WorkdirError, one_line


@contextlib.contextmanager
def writing(where: str | os.PathLike[str]) -> Generator[None]:
  """Turns what a disk refuses into one line.

  Args:
    where: the file or folder that the body writes, for the line.

  Raises:
    WorkdirError: the body raised an OSError.
  """
  try:
    yield
  except OSError as error:
    reason = one_line(error.strerror or error)
    raise WorkdirError(f"{where} cannot be written: {reason}") from error


@contextlib.contextmanager
def atomic(
  path: str | os.PathLike[str], *, sync: bool = False
) -> Generator[pathlib.Path]:
  """Yields a temporary name, which becomes `path` when the body is done.

  The body makes a file or a folder of that name. If it raises anything, a
  KeyboardInterrupt included, what it made is removed, and what `path` named
  before is as it was.

  Args:
    path: its folder must exist. A file of that name is replaced, and an empty
      folder if the body makes one; nothing else is.
    sync: bring the content to the disk first, so that a power cut too leaves
      the old or the new and not an empty file.

  Yields:
    A hidden path beside `path`, of the same suffix, for writers that go by it.

  Raises:
    FileExistsError: `path` cannot be replaced; raised before the body runs.
    FileNotFoundError: the body has made nothing.
  """
  path = pathlib.Path(path)
  empty = path.is_dir() and not any(path.iterdir())
  if path.exists() and not (path.is_file() or empty):
    # Nor a device: root could make a file of /dev/null.
    reason = "Only a file or an empty folder is replaced"
    raise FileExistsError(errno.EEXIST, reason, str(path))
  # Processes on several machines may share the folder, and the process id.
  mark = f"{os.getpid()}-{secrets.token_hex(3)}"
  part = path.with_name(f".{path.stem}.{mark}{path.suffix}")
  try:
    yield part
    if sync:
      for made in (*part.rglob("*"), part):
        _sync(made)
    os.replace(part, path)
    if sync:
      _sync(path.parent)
  except BaseException:
    # What went wrong first is what the user needs to know.
    with contextlib.suppress(OSError):
      if part.is_dir():
        shutil.rmtree(part)
      else:
        part.unlink(missing_ok=True)
    raise


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sha256(path: pathlib.Path) -> str:
  """The sha256 of a file's content, in hexadecimal digits."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
