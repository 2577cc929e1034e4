"""A file has its old content or its new one under its name, never a part."""

import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from lnrnn import files


class Stopped(BaseException):
  """No Exception, as a signal's is none."""


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_the_name_appears_when_the_body_is_done(tmp_path):
  path = tmp_path / "table.csv"
  with files.atomic(path) as part:
    part.write_text("new")
    assert not path.exists()
  assert path.read_text() == "new"
  assert names(tmp_path) == ["table.csv"]


def test_the_temporary_name_is_hidden_beside_it_and_keeps_the_suffix(tmp_path):
  with files.atomic(tmp_path / "a.b.npy") as part:
    assert part.parent == tmp_path
    assert part.name.startswith(".a.b.") and part.suffix == ".npy"
    assert str(os.getpid()) in part.name
    np.save(part, np.ones(3))  # Adds .npy to any other suffix.
  np.testing.assert_array_equal(np.load(tmp_path / "a.b.npy"), np.ones(3))


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.parametrize(
  "error", [ValueError, KeyboardInterrupt, SystemExit, Stopped, GeneratorExit]
)
def test_whatever_the_body_raises_leaves_what_was_there(tmp_path, error, old):
  path = tmp_path / "file"
  if old:
    path.write_text(old)
  with pytest.raises(error), files.atomic(path) as part:
    part.write_text("half")
    raise error
  assert names(tmp_path) == (["file"] if old else [])
  assert not old or path.read_text() == old


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_after_the_body_leaves_what_was_there(
  tmp_path, monkeypatch, call, error
):
  path = tmp_path / "file"
  path.write_text("old")

  def fail(*arguments):
    raise error("the disk is full")

  monkeypatch.setattr(os, call, fail)
  with pytest.raises(error), files.atomic(path, sync=True) as part:
    part.write_text("new")
  assert names(tmp_path) == ["file"]
  assert path.read_text() == "old"


def test_the_first_fault_is_told_though_nothing_can_be_removed(
  tmp_path, monkeypatch
):
  def fail(*arguments, **options):
    raise PermissionError

  monkeypatch.setattr("pathlib.Path.unlink", fail)
  with pytest.raises(ValueError), files.atomic(tmp_path / "file") as part:
    part.write_text("half")
    raise ValueError


def test_a_folder_too_is_whole_or_not_there(tmp_path):
  def write(fail):
    with files.atomic(tmp_path / "set") as part:
      (part / "deep").mkdir(parents=True)
      (part / "deep" / "file").write_text("new")
      if fail:
        raise Stopped

  with pytest.raises(Stopped):
    write(fail=True)
  assert names(tmp_path) == []
  (tmp_path / "set").mkdir()
  write(fail=False)
  assert (tmp_path / "set/deep/file").read_text() == "new"
  assert names(tmp_path) == ["set"]


def test_what_cannot_be_replaced_is_said_before_the_body_runs(tmp_path):
  (tmp_path / "set").mkdir()
  (tmp_path / "set/file").touch()
  os.mkfifo(tmp_path / "pipe")
  for name in ("set", "pipe", os.devnull):
    with pytest.raises(FileExistsError, match=name):
      files.atomic(tmp_path / name).__enter__()
  assert names(tmp_path) == ["pipe", "set"]


def test_a_body_that_writes_nothing_keeps_the_old_file(tmp_path):
  (tmp_path / "file").write_text("old")
  with pytest.raises(FileNotFoundError), files.atomic(tmp_path / "file"):
    pass
  assert (tmp_path / "file").read_text() == "old"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
  path = tmp_path / "file"
  with files.atomic(path) as first, files.atomic(path) as second:
    first.write_text("first")
    second.write_text("second")
  assert path.read_text() == "first"  # Left last.
  assert names(tmp_path) == ["file"]


def test_the_file_may_be_read_by_whom_others_may(tmp_path):
  with files.atomic(tmp_path / "ours") as part:
    part.touch()
  (tmp_path / "theirs").touch()
  ours, theirs = (tmp_path / n for n in ("ours", "theirs"))
  assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(
    theirs.stat().st_mode
  )


def test_sync_brings_the_content_to_the_disk_before_the_name(
  tmp_path, monkeypatch
):
  done, replace = [], os.replace

  def fsync(descriptor):
    done.append(os.stat(descriptor).st_ino)

  def rename(old, new):
    done.append("replace")
    replace(old, new)

  monkeypatch.setattr(os, "fsync", fsync)
  monkeypatch.setattr(os, "replace", rename)
  with files.atomic(tmp_path / "set", sync=True) as part:
    part.mkdir()
    (part / "file").touch()
    inner = [(part / "file").stat().st_ino, part.stat().st_ino]
  assert done == [*inner, "replace", tmp_path.stat().st_ino]
  done.clear()
  with files.atomic(tmp_path / "file") as part:
    part.touch()
  assert done == ["replace"]


def test_a_killed_writer_leaves_the_old_file(repo, tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  # files.py by itself: importing lnrnn takes a second.
  code = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
with files.atomic(sys.argv[2]) as part:
  part.write_text("half")
  os.kill(os.getpid(), signal.SIGKILL)
"""
  done = subprocess.run(
    [sys.executable, "-c", code, repo / "lnrnn/files.py", path], check=False
  )
  assert done.returncode == -signal.SIGKILL
  assert path.read_text() == "old"
  (left,) = set(names(tmp_path)) - {"file"}
  assert left.startswith(".file.")
