"""kill -9 at many points, many of them proven to be in the midst of a save."""

import contextlib
import pathlib
import random
import signal
import time
from typing import NamedTuple

import numpy as np
import pytest
import toy

from experiments import launch
from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoints, writers
from lnrnn.training.step import TrainState

INTERVAL = 5
CHAIN = 5  # Kills of one run, before it may come to its end.


class Folder(NamedTuple):
  """What a run has left so far."""

  starts: list[int]
  committed: list[int]
  cut: list[int]  # Steps whose checkpoint is not committed.


def _look(workdir: pathlib.Path) -> Folder:
  committed, cut = [], []
  folder = workdir / "checkpoints"
  # One may vanish under our eyes.
  with contextlib.suppress(OSError):
    for path in folder.iterdir():
      if path.name.isdigit():
        whole = (path / "commit_success.txt").exists()
        (committed if whole else cut).append(int(path.name))
  return Folder(toy.starts(workdir), sorted(committed), sorted(cut))


def _wait_for_save(child, workdir, begun: int, n: int) -> None:
  """Waits for the n-th save of a child, or its end.

  Args:
    child: the process.
    workdir: of its run.
    begun: starts before its own. A start is recorded when what earlier ones
      left of a save has been removed, so a cut save after that is its own.
    n: from 1.
  """
  seen = set()
  while child.poll() is None and len(seen) < n:
    now = _look(workdir)
    if len(now.starts) > begun:
      seen.update(now.cut)
    time.sleep(0.001)


class _Chain:
  """One run, killed several times and then let go to its end."""

  def __init__(self, server, spec, workdir, rng, seconds):
    self._server, self._spec, self._rng = server, spec, rng
    self._seconds = seconds
    self.workdir = workdir
    self.kills = self.in_a_save = 0
    self.lost: list[int] = []  # Steps done that the next start does again.

  def go_on(self, *, kill: bool) -> bool:
    """Starts the run once more; whether it came to its end."""
    rng, workdir = self._rng, self.workdir
    before = _look(workdir)
    # Now a save takes longer than the steps up to the next, now less.
    pace = rng.choice([0.0, 0.002, 0.01, 0.03]) if kill else 0.0
    child = self._server.start(workdir, self._spec, SECONDS_A_BATCH=pace)
    if kill and rng.random() < 0.8:
      _wait_for_save(child, workdir, len(before.starts), rng.randint(1, 3))
      time.sleep(rng.choice([0.0, rng.uniform(0, 0.03)]))
    elif kill:
      time.sleep(rng.uniform(0, self._seconds))
    code = child.kill() if kill else child.wait()
    after = _look(workdir)
    own = after.starts[len(before.starts) :]
    # Where the last commit was, never behind; unless killed before that.
    assert own in ([], [max(before.committed, default=0)])
    if code == 0:
      return True
    assert code == -signal.SIGKILL, (workdir / "said").read_text()
    self.kills += 1
    if own:
      last = max(after.committed, default=0)
      self.in_a_save += max(after.cut, default=0) > last
      done = [row["step"] for row in toy.rows(workdir) if "loss" in row]
      self.lost.append(max([*done, own[0]]) - last)
    return False


def _campaign(server, folder, *, kills, seed, **task):
  """Kills runs in chains and checks all that they leave."""
  rng = random.Random(seed)
  spec = toy.spec(
    train_steps=60,
    checkpoint_every=INTERVAL,
    eval_every=12,
    steps_per_dispatch=1,
    checkpoints_kept=2,
    **task,
  )
  config = launch.load(spec)
  experiment = toy.build(config)
  whole = folder / "whole"
  began = time.monotonic()
  assert server.start(whole, spec).wait() == 0
  seconds = (time.monotonic() - began) / 2  # The first one compiles.
  state = toy.final(config, experiment, whole)

  chains: list[_Chain] = []
  made = proven = 0
  while made < kills or proven < kills / 2:
    assert made < 3 * kills, f"{proven} of {made} kills were in a save"
    workdir = folder / f"chain{len(chains)}"
    chain = _Chain(server, spec, workdir, rng, seconds)
    chains.append(chain)
    while not chain.go_on(kill=chain.kills < CHAIN):
      pass
    assert toy.final(config, experiment, workdir) == state
    assert toy.rows(workdir) == toy.rows(whole)
    assert _look(workdir)[1:] == _look(whole)[1:]
    assert not (workdir / "damaged").exists()
    rows = [r for r in writers.read_metrics(workdir) if "loss" in r]
    for name in ("time/train_seconds", "time/wall_seconds"):
      values = [row[name] for row in rows]
      assert values == sorted(values) and values[0] > 0
    made += chain.kills
    proven += chain.in_a_save
  lost = [steps for chain in chains for steps in chain.lost]
  # One save may be under way, and the next wait for it.
  assert max(lost) <= 2 * INTERVAL
  print(
    f"\nkill -9: {made} kills, {proven} of them in a save; {len(chains)} of"
    f" {len(chains)} runs ended as the unbroken one; steps lost at a kill:"
    f" {sum(lost) / len(lost):.1f} on average, {max(lost)} at most, with a"
    f" checkpoint every {INTERVAL}"
  )


def test_killed_runs_end_as_one_that_was_not(server, toy_task, tmp_path):
  # Without the recurrent network, which takes a second to trace.
  task = {"model__hidden": "()", "eval_batch_size": 50_000}
  _campaign(server, tmp_path, kills=10, seed=0, **task)


def test_a_checkpoint_stays_until_what_replaces_it_is_whole(
  tmp_path, monkeypatch
):
  state = TrainState(np.int32(1), {"params": {"w": np.ones(3)}}, ())
  identity = {"config": {"optimizer": {"schedule": "constant"}}}
  identity["fingerprint"] = "none"

  def opened():
    saver = checkpoints.Checkpoints(tmp_path, identity, kept=2, best="v/e:min")
    return contextlib.closing(saver)

  def killed(saver):
    del saver
    raise OSError

  with opened() as saver:  # Stopped before the evaluation of its last step.
    saver.save(state, {"evaluated": False})
    saver.wait()
  with monkeypatch.context() as patch, contextlib.suppress(WorkdirError):
    patch.setattr(checkpoints.Checkpoints, "_before_commit", killed)
    with opened() as saver:
      saver.save(state, {"evaluated": True}, -0.5)
      saver.wait()
  assert checkpoints.committed_steps(tmp_path) == []
  for evaluated in (False, True):
    with opened() as saver:
      found = saver.restore_latest(state)
      assert found and found[1] == {"evaluated": evaluated}
      saver.save(state, {"evaluated": True}, -0.5)
      saver.wait()
  hidden = {p.name for p in (tmp_path / "checkpoints").glob(".*")}
  assert hidden == {".begun"} and not (tmp_path / "damaged").exists()


@pytest.mark.long
def test_a_hundred_kills_lose_nothing_that_was_committed(
  server, toy_task, tmp_path
):
  _campaign(server, tmp_path, kills=100, seed=1, eval_batch_size=500_000)
