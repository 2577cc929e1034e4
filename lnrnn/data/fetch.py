"""Downloads that are checked before they get their name, and safe unpacking."""

from collections.abc import Sequence
import hashlib
import http.client
import lzma
import os
import pathlib
import shutil
import tarfile
import tempfile
import urllib.request
import zlib

from lnrnn.errors import DataError


def fetch(
  urls: Sequence[str], path: pathlib.Path, sha256: str, *, timeout: float = 60.0
) -> None:
  """Downloads one file, unless it is there already.

  Nothing appears under `path` before its hash is right. Mirrors are tried in
  the order given.

  Args:
    urls: mirrors of the file; `file://` works too.
    path: where to put it; missing directories are made.
    sha256: expected hash, 64 hexadecimal digits.
    timeout: seconds to wait for a mirror that sends nothing.

  Raises:
    DataError: no mirror sent the file that is expected.
  """
  if path.is_file():
    with path.open("rb") as file:
      if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
        return
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  reasons = []
  try:
    for url in urls:
      try:
        found = _download(url, part, timeout)
      except (OSError, ValueError, http.client.HTTPException) as error:
        reasons.append(f"{url}: {error}")
        continue
      if found == sha256:
        part.replace(path)
        return
      reasons.append(f"{url}: has sha256 {found}, not {sha256}")
  finally:
    part.unlink(missing_ok=True)
  raise DataError(f"{path.name}: cannot be had: {'; '.join(reasons)}")


def extract(archive: pathlib.Path, out: pathlib.Path) -> None:
  """Unpacks a tar archive, plain or compressed by gzip, bzip2 or xz.

  Members that would land outside of `out`, links that lead there and device
  files are refused. `out` appears when all is unpacked, or not at all.

  Args:
    archive: the tar file.
    out: directory to make; it must not exist.

  Raises:
    DataError: the archive is damaged or unsafe, or `out` exists.
  """
  if out.exists():
    raise DataError(f"{out}: exists already; {archive.name} is not unpacked")
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent, prefix=".unpack-") as room:
    tree = pathlib.Path(room) / "tree"
    tree.mkdir()
    try:
      with tarfile.open(archive) as tar:
        tar.extractall(tree, filter="data")
    except tarfile.FilterError as error:
      raise DataError(f"{archive}: unsafe archive: {error}") from error
    except (
      tarfile.TarError,
      OSError,
      EOFError,
      zlib.error,
      lzma.LZMAError,
    ) as error:
      reason = str(error).partition("\n")[0]
      raise DataError(f"{archive}: cannot be unpacked: {reason}") from error
    tree.rename(out)


def _download(url: str, part: pathlib.Path, timeout: float) -> str:
  """Writes what the URL sends to `part` and returns its sha256."""
  with (
    urllib.request.urlopen(url, timeout=timeout) as response,
    part.open("w+b") as file,
  ):
    shutil.copyfileobj(response, file)
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
