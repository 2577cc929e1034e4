"""A long run: memory, open files, threads and disk do not grow."""

import contextlib
import json
import os
import pathlib
import statistics
import threading
from typing import NamedTuple

import child
import jax
import pytest

from lnrnn.training import checkpoints, loop
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment


class Use(NamedTuple):
  """What the process and the run take up.

  Attributes:
    memory: resident bytes.
    files: open ones.
    threads: of Python; some end when a save does.
    disk: bytes of checkpoints.
    steps: of checkpoints.
  """

  memory: int
  files: int
  threads: int
  disk: int
  steps: int


def _use(workdir: pathlib.Path) -> Use:
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  disk = 0
  for path in (workdir / "checkpoints").rglob("*"):
    with contextlib.suppress(FileNotFoundError):  # It was just deleted.
      disk += path.stat().st_size
  return Use(
    pages * os.sysconf("SC_PAGE_SIZE"),
    len(os.listdir("/proc/self/fd")),
    threading.active_count(),
    disk,
    len(checkpoints.committed_steps(workdir)),
  )


def _soak(workdir: pathlib.Path, steps: int, every: int) -> dict[int, Use]:
  """Trains, and looks at the evaluations, which come before the saves."""
  spec = child.spec(
    train_steps=steps,
    steps_per_dispatch=50,
    log_every=10,
    eval_every=every,
    checkpoint_every=every,
    checkpoints_kept=2,
  )
  config = config_lib.load_config(spec)
  task, found = child.build(config), {}

  def look(variables, split, key):
    metrics = task.evals["score"].fn(variables, split, key)
    found[int(variables["count"]["steps"])] = _use(workdir)
    return metrics

  experiment = Experiment(
    init=task.init,
    loss=task.loss,
    train_data=task.train_data,
    evals={"look": Eval(every, look, ("validation",))},
    data=task.data,
  )
  loop.train(config, experiment, workdir)
  return found


def _report(found: dict[int, Use], first: int) -> tuple[float, str]:
  """The growth of memory since a step, and all figures."""
  start, (last, end) = found[first], max(found.items())
  growth = end.memory / start.memory - 1
  figures = {
    "steps": last,
    "memory_MB": [round(u.memory / 2**20) for u in (start, end)],
    "growth": round(growth, 4),
    "most_files": max(u.files for s, u in found.items() if s >= first),
    "most_threads": max(u.threads for s, u in found.items() if s >= first),
    "most_checkpoints": max(u.steps for u in found.values()),
    "disk_kB": [round(u.disk / 1000) for u in (start, end)],
  }
  print("\nsoak:", json.dumps(figures))
  return growth, json.dumps(figures)


def _check(found: dict[int, Use], first: int, most: float) -> None:
  growth, figures = _report(found, first)
  assert growth <= most, figures
  later = [use for step, use in found.items() if step >= first]
  # One save may be under way, or not.
  assert max(u.files for u in later) <= found[first].files + 8, figures
  assert max(u.threads for u in later) <= found[first].threads + 8, figures
  # Two are kept, the best beside them, and one is being written or deleted.
  assert max(u.steps for u in later) <= 4, figures
  one = min(u.disk / max(u.steps, 1) for u in later)
  assert max(u.disk for u in later) <= 5 * one, figures
  half = len(later) // 2
  for kind in ("files", "threads"):  # The second half is as the first.
    old, new = (
      [getattr(u, kind) for u in part] for part in (later[:half], later[half:])
    )
    assert statistics.mean(new) <= statistics.mean(old) + 1, figures


def test_a_run_of_two_thousand_steps_takes_up_no_more_and_more(tmp_path):
  _check(_soak(tmp_path, 2000, 200), 1000, 0.05)


@pytest.mark.long
def test_a_run_of_twenty_thousand_steps_takes_up_no_more_and_more(tmp_path):
  _check(_soak(tmp_path, 20_000, 200), 1000, 0.05)


def test_nothing_is_left_open_after_a_run(tmp_path):
  _soak(tmp_path / "first", 20, 10)
  jax.clear_caches()
  before = len(os.listdir("/proc/self/fd")), threading.active_count()
  for i in range(3):
    _soak(tmp_path / str(i), 20, 10)
  after = len(os.listdir("/proc/self/fd")), threading.active_count()
  print("\nleft open: files, threads", before, after)
  assert after[0] <= before[0] + 3 and after[1] <= before[1] + 3
