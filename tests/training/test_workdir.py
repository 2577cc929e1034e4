"""Whose a workdir is: the lock, foreign folders, folders that refuse us."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments import launch
from lnrnn.errors import WorkdirError
from lnrnn.training import loop, workdir_lock
from lnrnn.training import workdir as workdir_lib

_HOLD = """
import sys, time
from lnrnn.errors import WorkdirError
from lnrnn.training import workdir_lock
print("ready", flush=True)
input()
try:
  with workdir_lock.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
except WorkdirError as e:
  print(e, flush=True)
"""


@pytest.fixture
def contenders(repo, tmp_path):
  """n -> processes that wait for a line before they take the lock."""
  started = []

  def start(n):
    for _ in range(n):
      command = [sys.executable, "-c", _HOLD, str(tmp_path)]
      pipe = subprocess.PIPE
      started.append(
        subprocess.Popen(command, cwd=repo, stdin=pipe, stdout=pipe, text=True)
      )
    for process in started:
      assert process.stdout.readline() == "ready\n"
    return started

  yield start
  for process in started:
    process.kill()
    process.communicate()


def _go(process):
  process.stdin.write("\n")
  process.stdin.flush()


def _answer(process):
  return process.stdout.readline().strip()


def test_of_two_starts_at_one_moment_one_wins_and_the_other_names_it(
  contenders, tmp_path
):
  processes = contenders(2)
  for process in processes:
    _go(process)
  answers = [_answer(process) for process in processes]
  assert sorted(a == "held" for a in answers) == [False, True]
  winner = processes[answers.index("held")]
  loser = answers[1 - answers.index("held")]
  assert loser.startswith(f"workdir {tmp_path} is in use by ")
  # One that comes later is refused too, at once, and told by whom.
  began = time.monotonic()
  with (
    pytest.raises(WorkdirError, match=f"in use by process {winner.pid} on "),
    workdir_lock.lock(tmp_path),
  ):
    pytest.fail("two hold the lock")
  assert time.monotonic() - began < 1
  # What a killed process leaves is no obstacle.
  winner.send_signal(signal.SIGKILL)
  winner.wait()
  assert (tmp_path / "lock.json").exists()
  with workdir_lock.lock(tmp_path):
    held = json.loads((tmp_path / "lock.json").read_text())
    assert held["pid"] == os.getpid()
  assert not (tmp_path / "lock.json").exists()


@pytest.mark.long
def test_of_twenty_starts_at_one_moment_one_wins(contenders):
  processes = contenders(20)
  for process in processes:
    _go(process)
  answers = [_answer(process) for process in processes]
  assert answers.count("held") == 1
  assert sum("is in use by" in answer for answer in answers) == 19
  print("\nlock: 1 of 20 starts at one moment went on")


@pytest.fixture
def quick_beats(monkeypatch):
  monkeypatch.setattr(workdir_lock, "_BEAT", 0.1)
  monkeypatch.setattr(workdir_lock, "_SILENCE", 0.6)


def _foreign(folder):
  """The lock of a run on another machine, whose own lock we cannot see."""
  path = folder / "lock.json"
  path.write_text('{"pid": 7, "host": "elsewhere", "since": "today"}')
  return path


def test_a_run_on_another_machine_that_lives_is_left_alone(
  tmp_path, quick_beats
):
  path, done = _foreign(tmp_path), threading.Event()

  def beat():
    while not done.wait(0.1):
      os.utime(path)

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    with (
      pytest.raises(WorkdirError, match="in use by process 7 on elsewhere, si"),
      workdir_lock.lock(tmp_path),
    ):
      pytest.fail("two work in one folder")
  finally:
    done.set()
    thread.join()
  assert json.loads(path.read_text())["pid"] == 7


def test_one_that_fell_silent_is_taken_over(tmp_path, quick_beats):
  path = _foreign(tmp_path)
  began = time.monotonic()
  with workdir_lock.lock(tmp_path):
    assert time.monotonic() - began > 0.4
    assert json.loads(path.read_text())["pid"] == os.getpid()
    first = path.stat().st_mtime_ns
    end = time.monotonic() + 30
    while path.stat().st_mtime_ns == first:  # Now we beat.
      assert time.monotonic() < end
      time.sleep(0.01)


def test_one_that_fell_silent_long_ago_costs_no_wait(tmp_path):
  os.utime(_foreign(tmp_path), (0, 0))
  began = time.monotonic()
  with workdir_lock.lock(tmp_path):
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0\0"])
def test_a_damaged_lock_file_is_no_obstacle(tmp_path, text):
  (tmp_path / "lock.json").write_text(text)
  with workdir_lock.lock(tmp_path):
    pass


def test_a_lock_is_free_again_after_an_error(tmp_path):
  with pytest.raises(ZeroDivisionError), workdir_lock.lock(tmp_path):
    _ = 1 / 0
  with workdir_lock.lock(tmp_path):
    pass


def test_a_folder_that_cannot_be_written_is_refused_with_nothing_in_it(
  tmp_path, monkeypatch
):
  def refuse(self, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(self))

  # Root may write where nobody else may, so chmod would not do.
  monkeypatch.setattr(pathlib.Path, "touch", refuse)
  with pytest.raises(WorkdirError, match="is not writable: .* denied"):
    workdir_lib.claim(tmp_path, "data", "made up")
  assert not list(tmp_path.iterdir())


def test_a_read_only_file_system_is_refused_before_anything_is_compiled(
  repo, tmp_path, monkeypatch
):
  monkeypatch.setattr(loop, "train", None)
  mount = ["mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("no right to mount a folder read-only")
  try:
    with pytest.raises(WorkdirError, match="is not writable: .* Read-only fil"):
      launch.train(f"{repo}/configs/mnist_mlp.py:smoke", tmp_path / "run")
  finally:
    subprocess.run(["umount", str(tmp_path)], check=True)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "under a file"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
  path = tmp_path / "taken"
  path.write_text("mine")
  workdir = path if kind == "file" else path / "run"
  with pytest.raises(WorkdirError, match="is not writable"):
    workdir_lib.claim(workdir, "data", "made up")
  assert path.read_text() == "mine"


@pytest.mark.parametrize(
  "text",
  ["", "{", "[1]", "null", '"a"', '{"config": {}}', "\xff", '{"config": null}'],
)
def test_a_config_that_is_not_ours_is_refused_and_left(
  tmp_path, settings, text
):
  path = tmp_path / "config.json"
  path.write_bytes(text.encode("latin-1"))
  for act in (
    lambda: workdir_lib.check(tmp_path, settings()),
    lambda: workdir_lib.claim(tmp_path, "data", "made up"),
  ):
    with pytest.raises(WorkdirError, match="is not the record of a run"):
      act()
  assert path.read_bytes() == text.encode("latin-1")
  assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_without_a_record_are_refused(tmp_path, settings):
  step = tmp_path / "checkpoints" / "5"
  step.mkdir(parents=True)
  (step / "commit_success.txt").touch()
  with pytest.raises(WorkdirError, match="holds checkpoints but no config.js"):
    workdir_lib.check(tmp_path, settings())


def test_other_files_in_a_workdir_are_left_alone(tmp_path, settings):
  (tmp_path / "notes.txt").write_text("mine")
  workdir_lib.check(tmp_path, settings())
  workdir_lib.claim(tmp_path, "data", "made up")
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_record_that_a_full_disk_refuses_leaves_the_old_one(
  tmp_path, settings, monkeypatch
):
  def write():
    workdir_lib.write_record(
      tmp_path,
      settings(),
      data="made up",
      fingerprint="data",
      steps_per_epoch=8,
      device="cpu",
      step=0,
    )

  write()
  old = (tmp_path / "config.json").read_text()

  def refuse(self, *args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_text", refuse)
  with pytest.raises(WorkdirError, match="config.json cannot be written: No s"):
    write()
  assert (tmp_path / "config.json").read_text() == old
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_assets_are_read_as_they_were_written(tmp_path):
  assert workdir_lib.read_assets(tmp_path) == {}
  workdir_lib.write_assets(tmp_path, {})
  assert not list(tmp_path.iterdir())
  assets = {"vocabulary": ["the", "naïve"], "preprocessing": {"sha256": "0"}}
  for _ in range(2):  # A resumed run writes them again.
    workdir_lib.write_assets(tmp_path, assets)
  assert workdir_lib.read_assets(tmp_path) == assets
  names = sorted(path.name for path in (tmp_path / "assets").iterdir())
  assert names == ["preprocessing.json", "vocabulary.json"]
  assert "naïve" in (tmp_path / "assets" / "vocabulary.json").read_text("utf-8")


@pytest.mark.parametrize("content", [b'["the", "na', b"", b"\xff"])
def test_a_damaged_asset_is_named(tmp_path, content):
  workdir_lib.write_assets(tmp_path, {"vocabulary": ["the"], "other": 1})
  path = tmp_path / "assets" / "vocabulary.json"
  path.write_bytes(content)
  with pytest.raises(WorkdirError) as caught:
    workdir_lib.read_assets(tmp_path)
  (line,) = str(caught.value).splitlines()
  assert line.startswith(f"{path} cannot be read: ")


def test_assets_that_cannot_be_written_are_one_line(tmp_path):
  (tmp_path / "assets").write_text("a file")
  with pytest.raises(WorkdirError) as caught:
    workdir_lib.write_assets(tmp_path, {"vocabulary": []})
  (line,) = str(caught.value).splitlines()
  assert line.startswith(f"{tmp_path / 'assets'} cannot be written: ")
