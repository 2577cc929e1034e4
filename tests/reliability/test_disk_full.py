"""A disk that fills up: one line, nothing lost, and the next start goes on."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import child
import jax
import numpy as np
import pytest

from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoints, tensorboard, writers
from lnrnn.training import config as config_lib

WORDS = 100_000  # 400 kB a checkpoint; two stay and one is being written.
DISK = 4_000  # kB.
SLOW = 4.0


@pytest.fixture(scope="module")
def server():
  with child.Server() as server:
    yield server


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
  """(spec, final state, rows) of a run that had space enough."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  spec = child.spec(eval_batch_size=WORDS)
  server.finish(folder, spec)
  return spec, _state(spec, folder), _rows(folder)


@pytest.fixture
def disk(tmp_path):
  """A folder on a small disk of its own."""
  folder = tmp_path / "disk"
  folder.mkdir()
  options = ["-t", "tmpfs", "-o", f"size={DISK}k", "none", str(folder)]
  try:
    subprocess.run(["mount", *options], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as e:
    pytest.skip(f"no right to mount a small disk: {e}")
  yield folder
  subprocess.run(["umount", str(folder)], check=True)


def _state(spec, workdir):
  return child.final(config_lib.load_config(spec), workdir)


def _rows(workdir):
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


def _fill(disk: pathlib.Path, left: int) -> None:
  """Takes all the space but some bytes."""
  with (disk / "ballast").open("ab", buffering=0) as file:
    with contextlib.suppress(OSError):
      while file.write(bytes(1 << 16)):
        pass
    size = file.tell()
    file.truncate(max(0, size - left))


def _check_failed(end, cause, workdir, last):
  """It has ended with one line that names the cause; a good step is there."""
  assert end.code == 2, end.err
  assert "Traceback" not in end.err, end.err
  errors = [x for x in end.err.splitlines() if x.startswith("error: ")]
  assert len(errors) == 1 and cause in errors[0], end.err
  assert str(workdir) in errors[0]
  steps = checkpoints.committed_steps(workdir)
  assert max(steps, default=0) == last, steps
  for step in steps:
    checkpoints.check_files(workdir / "checkpoints" / str(step))
  done = [row["step"] for row in _rows(workdir) if "loss" in row]
  # A save in the background fails at the latest where the next begins.
  assert max(done, default=0) <= last + 10


def _check_end(server, whole, workdir, spec=None):
  """With space again the run ends as if nothing had been."""
  _, state, rows = whole
  spec = spec or whole[0]
  server.finish(workdir, spec)
  jax.tree.map(np.testing.assert_array_equal, _state(spec, workdir), state)
  assert _rows(workdir) == rows
  found = {path.name for path in (workdir / "checkpoints").iterdir()}
  steps = set(map(str, checkpoints.committed_steps(workdir)))
  assert {name for name in found if name[0] != "."} == steps
  assert not list(workdir.glob(".*")) and not (workdir / "damaged").exists()


def test_a_file_that_may_not_grow_ends_the_run_with_one_line(
  server, whole, tmp_path
):
  # A quota, in effect; needs no right to mount anything.
  workdir = tmp_path / "run"
  end = server.start(workdir, whole[0], largest_file=100_000).wait()
  _check_failed(end, "File too large", workdir, 0)
  _check_end(server, whole, workdir)


@pytest.mark.long
@pytest.mark.parametrize(
  ("spot", "left", "last"),
  [
    ("before save 10", 0, 5),  # Before the save.
    ("before save 10", 40_000, 5),  # While it writes.
    ("before save 10", 200_000, 5),
    ("before save 10", 400_000, 5),
    ("save 10", 0, 5),  # When all but the list of files is there.
    ("before save 5", 200_000, 0),  # The first save of all.
    ("before save 20", 200_000, 15),  # And the last.
  ],
)
def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(
  server, whole, disk, spot, left, last
):
  workdir = disk / "run"
  program = server.start(workdir, whole[0], {spot: SLOW})
  program.reach(f"@{spot}")
  time.sleep(1.5)  # Old checkpoints are being deleted.
  _fill(disk, left)
  end = program.wait()
  _check_failed(end, "No space left on device", workdir, last)
  print(f"\ndisk full at {spot!r}: {end.err.splitlines()[-1]}")
  # Started again before there is space, but for that of the save cut off.
  _fill(disk, 0)
  end = server.start(workdir, whole[0]).wait()
  last = max(checkpoints.committed_steps(workdir), default=0)
  _check_failed(end, "No space left on device", workdir, last)
  (disk / "ballast").unlink()
  _check_end(server, whole, workdir)


@pytest.mark.long
def test_metrics_that_cannot_be_written_end_the_run(server, disk, whole):
  # No save for long, so that the metrics are the first to meet the end.
  workdir, spec = (
    disk / "run",
    child.spec(
      eval_batch_size=WORDS,
      train_steps=400,
      checkpoint_every=400,
      eval_every=400,
    ),
  )
  program = server.start(workdir, spec, {"data 7": SLOW})
  program.reach("@data 7")
  _fill(disk, 0)
  end = program.wait()
  assert end.code == 2 and "Traceback" not in end.err, end.err
  assert "cannot be written: No space left on device" in end.err
  (disk / "ballast").unlink()
  server.finish(workdir, spec)
  rows = [row["step"] for row in _rows(workdir) if "loss" in row]
  assert rows == list(range(1, 401))


@pytest.mark.parametrize("kind", [writers.JsonlWriter, "tensorboard"])
def test_what_a_writer_cannot_write_is_one_line_and_no_wait(
  tmp_path, monkeypatch, kind
):
  if kind == "tensorboard":
    kind = lambda folder: tensorboard.TensorBoardWriter(folder, step=0)
  writer = writers.MultiWriter(kind(tmp_path))
  (path,) = tmp_path.iterdir()
  full = os.open("/dev/full", os.O_WRONLY)
  (held,) = writer._writers
  os.dup2(full, held._file._file.fileno())
  for step in range(30):  # More than tensorboardX's queue would take.
    with pytest.raises(WorkdirError, match=f"{path.name} cannot be written: N"):
      writer.write(step, {"loss": 1.0})
  writer.close()
  os.close(full)


@pytest.mark.long
def test_a_start_on_a_full_disk_is_one_line(server, disk, whole):
  _fill(disk, 0)
  end = server.start(disk / "run", whole[0]).wait()
  assert end.code == 2, end.err
  assert end.err.startswith("error: ") and len(end.err.splitlines()) == 1
  assert "No space left on device" in end.err
  print("\nstart on a full disk:", json.dumps(end.err))
  (disk / "ballast").unlink()
  _check_end(server, whole, disk / "run")
