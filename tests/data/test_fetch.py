import hashlib
import io
import tarfile
from typing import Any

import pytest

from lnrnn.data.fetch import extract, fetch
from lnrnn.errors import DataError

CONTENT = b"digits"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def mirror(tmp_path):
  """Makes files and returns their addresses."""
  folder = tmp_path / "mirror"
  folder.mkdir()

  def make(name, content=None):
    if content is not None:
      (folder / name).write_bytes(content)
    return (folder / name).as_uri()

  return make


def test_a_file_is_fetched_from_the_first_mirror_that_has_it(mirror, tmp_path):
  path = tmp_path / "new" / "file"
  urls = [mirror("gone"), mirror("wrong", b"<html>"), mirror("good", CONTENT)]
  fetch(urls, path, SHA256)
  assert path.read_bytes() == CONTENT
  assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_there_is_not_fetched_again(mirror, tmp_path):
  path = tmp_path / "file"
  path.write_bytes(CONTENT)
  fetch([mirror("gone")], path, SHA256)


def test_a_damaged_file_is_replaced(mirror, tmp_path):
  path = tmp_path / "file"
  path.write_bytes(CONTENT[:3])
  fetch([mirror("good", CONTENT)], path, SHA256)
  assert path.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_no_file_and_names_both(mirror, tmp_path):
  path = tmp_path / "out" / "file"
  with pytest.raises(DataError, match=f"has sha256 .*, not {SHA256}") as error:
    fetch([mirror("gone"), mirror("wrong", b"cut")], path, SHA256)
  assert "gone" in str(error.value)
  assert "\n" not in str(error.value)
  assert not list(path.parent.iterdir())


def test_an_address_that_is_none_is_reported(tmp_path):
  with pytest.raises(DataError, match="no-address: unknown url type"):
    fetch(["no-address"], tmp_path / "file", SHA256)


def tar(path, *members, mode: Any = "w"):
  """Writes an archive of (name, content or link target) members."""
  with tarfile.open(path, mode) as archive:
    for name, content in members:
      member = tarfile.TarInfo(name)
      if isinstance(content, str):
        member.type, member.linkname = tarfile.SYMTYPE, content
        archive.addfile(member)
      else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
  return path


@pytest.mark.parametrize("kind", ["", "gz", "xz"])
def test_an_archive_is_unpacked_whatever_packs_it(tmp_path, kind):
  archive = tar(tmp_path / "a.tar", ("d/file", CONTENT), mode=f"w:{kind}")
  extract(archive, tmp_path / "out")
  assert (tmp_path / "out/d/file").read_bytes() == CONTENT
  assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "out"}


@pytest.mark.parametrize(
  "members",
  [
    [("../escaped", CONTENT)],
    [("fine", CONTENT), ("d/../../escaped", CONTENT)],
    [("link", "/etc")],
    [("link", "../../.."), ("link/escaped", CONTENT)],
  ],
)
def test_an_archive_that_leads_outside_is_refused_whole(tmp_path, members):
  archive = tar(tmp_path / "a.tar", *members)
  with pytest.raises(DataError, match=r"a\.tar: unsafe archive"):
    extract(archive, tmp_path / "out")
  assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("kind", ["gz", "xz"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_archive_is_one_line_and_leaves_nothing(
  tmp_path, kind, damage
):
  noise = hashlib.shake_256(b"").digest(50_000)
  archive = tar(tmp_path / "a.tar", ("file", noise), mode=f"w:{kind}")
  content = archive.read_bytes()
  archive.write_bytes(
    {"cut": content[:30_000], "noise": noise, "empty": b""}[damage]
  )
  with pytest.raises(DataError, match=r"a\.tar: cannot be unpacked") as error:
    extract(archive, tmp_path / "out")
  assert "\n" not in str(error.value)
  assert list(tmp_path.iterdir()) == [archive]


def test_what_is_there_already_is_not_overwritten(tmp_path):
  archive = tar(tmp_path / "a.tar", ("file", CONTENT))
  (tmp_path / "out").mkdir()
  with pytest.raises(DataError, match="exists already"):
    extract(archive, tmp_path / "out")


def test_a_missing_archive_is_reported(tmp_path):
  with pytest.raises(DataError, match="cannot be unpacked"):
    extract(tmp_path / "none.tar", tmp_path / "out")
