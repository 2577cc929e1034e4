"""Sets of runs: naming them, training what is missing, reading them back."""

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import re
import threading
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from lnrnn.errors import DivergedError, UserError
from lnrnn.training import config as config_lib
from lnrnn.training import early, writers
from lnrnn.training import workdir as workdir_lib

_POLL = 0.5  # Seconds.
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a set.

  Attributes:
    variant: ((field, value), ...), what distinguishes it apart from the seed.
    seed: of the run.
    spec: `path.py:key=value,...`, which names it wholly.
    workdir: where it lives.
  """

  variant: tuple[tuple[str, str], ...]
  seed: int
  spec: str
  workdir: pathlib.Path


def named(
  spec: str,
  variant: Iterable[tuple[str, str]],
  seed: int,
  folder: str | os.PathLike[str],
) -> Run:
  """One run of a set, in a folder named for what distinguishes it.

  Args:
    spec: `path.py` or `path.py:key=value,...`, common to all.
    variant: fields and their values, as in the spec; see `apart`.
    seed: of the run.
    folder: the run's workdir is in it.

  Returns:
    The run.
  """
  variant = tuple(variant)
  pairs = [pair for field, value in variant for pair in apart(field, value)]
  args = ",".join(f"{k}={v}" for k, v in (*pairs, ("seed", seed)))
  name = re.sub(r"[^\w=.,()+-]", "_", args)
  joined = f"{spec}{',' if ':' in spec else ':'}{args}"
  return Run(variant, seed, joined, pathlib.Path(folder, name))


def apart(field: str, value: str) -> list[tuple[str, str]]:
  """Fields that vary together, joined by +, each with its own value.

  Args:
    field: "norm", or "norm+model.norm_everywhere".
    value: "batch", or "batch+true".

  Returns:
    (field, value) of each.

  Raises:
    UserError: there are more fields than values, or fewer.
  """
  fields = field.split("+")
  values = value.split("+") if len(fields) > 1 else [value]
  if len(fields) != len(values):
    raise UserError(
      f"{field}={value}: {len(fields)} fields vary together, with"
      f" {len(values)} values"
    )
  return list(zip(fields, values, strict=True))


def product(
  spec: str,
  varied: Sequence[tuple[str, Sequence[str]]],
  seeds: Iterable[int],
  folder: str | os.PathLike[str],
) -> list[Run]:
  """Every combination of the varied fields, for every seed.

  Args:
    spec: `path.py` or `path.py:key=value,...`, common to all.
    varied: fields and their values, as in the spec.
    seeds: of the runs.
    folder: of `named`.

  Returns:
    The runs, the seeds in the outer loop.
  """
  fields = [field for field, _ in varied]
  return [
    named(spec, zip(fields, values, strict=True), seed, folder)
    for seed in seeds
    for values in itertools.product(*(values for _, values in varied))
  ]


class Status(NamedTuple):
  """How a run of a set stands.

  Attributes:
    kind: "missing" or "begun", if it is to be trained; "finished"; "diverged",
      which it would do again; "failed", for a reason to be mended; "queued",
      if something else will train it.
    text: the same in words.
  """

  kind: str
  text: str


FINISHED = Status("finished", "finished")


def standing(run: Run) -> Status:
  """How far a run has come, by what its workdir holds."""
  record = workdir_lib.read_record(run.workdir)
  if record is None:
    return Status("missing", "not begun")
  config = config_lib.load_config(run.spec)
  if workdir_lib.is_finished(run.workdir, config):
    return FINISHED
  curves = Curves.read(run.workdir)
  if curves.diverged:
    return Status("diverged", curves.unfinished)
  return Status("begun", f"at step {curves.step} of {config.train_steps}")


def run_missing(
  runs: Sequence[Run],
  train: Callable[[Run], Status | None],
  *,
  jobs: int = 1,
  stop: Callable[[], None] | None = None,
) -> dict[Run, Status]:
  """Trains the runs that are not finished, resuming those that were begun.

  A run that diverged before is left alone: it would end the same. One that
  diverges or fails does not keep the others from running.

  Args:
    runs: to train; they have passed their checks.
    train: trains one, and returns how it stands if that is not finished.
    jobs: how many at a time, where there is `stop`.
    stop: ends what `train` does, in every thread, and lets it begin nothing
      more; called on a signal. With it, `train` is called from threads, so it
      should start a process; without it, from this thread, one by one.

  Returns:
    How each run stands.

  Raises:
    Interrupted: when all that was begun has ended.
  """
  found = {run: standing(run) for run in runs}
  missing = [run for run in runs if found[run].kind in ("missing", "begun")]

  def attempt(run: Run) -> Status:
    try:
      return train(run) or FINISHED
    except DivergedError as e:
      return Status("diverged", str(e))
    except UserError as e:
      return Status("failed", str(e))

  if stop is None:
    return found | {run: attempt(run) for run in missing}
  ends = in_threads(missing, attempt, jobs=jobs, stop=stop)
  return found | dict(zip(missing, ends, strict=True))


def in_threads(
  items: Sequence[_T],
  do: Callable[[_T], _R],
  *,
  jobs: int,
  stop: Callable[[], None],
) -> list[_R]:
  """Does something with each item, a few at a time, in threads.

  Args:
    items: to be done, in this order.
    do: starts a process and waits for it, say.
    jobs: how many at a time.
    stop: ends what `do` does, in every thread; called on a signal.

  Returns:
    What `do` returned for each.

  Raises:
    Interrupted: when all that was begun has ended.
  """
  # None begins before all threads stand: a signal while the pool starts one
  # would make the pool forget to wait for it.
  gate, stopping = threading.Event(), threading.Event()

  def begin(item: _T) -> _R | None:
    gate.wait()
    return None if stopping.is_set() else do(item)

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    try:
      ends = [pool.submit(begin, item) for item in items]
      gate.set()
      # Not forever: a signal that comes just before this thread falls asleep
      # sets its flag and wakes nobody.
      while concurrent.futures.wait(ends, timeout=_POLL).not_done:
        pass
      return [cast(_R, end.result()) for end in ends]
    except BaseException:
      # A signal, say. Leaving the pool waits for what was begun.
      stopping.set()
      gate.set()
      pool.shutdown(wait=False, cancel_futures=True)
      stop()
      raise


@dataclasses.dataclass(frozen=True)
class Curves:
  """What a run has measured.

  Attributes:
    rows: of its metrics.jsonl.
    steps_per_epoch: updates in one pass over its data.
    record: its config.json.
  """

  rows: list[dict[str, Any]]
  steps_per_epoch: int
  record: dict[str, Any]

  @classmethod
  def read(cls, workdir: str | os.PathLike[str]) -> "Curves":
    """Reads them from a workdir in which a run has been started."""
    record = workdir_lib.read_record(workdir)
    if record is None:
      raise FileNotFoundError(workdir)
    rows = writers.read_metrics(workdir)
    return cls(rows, record["steps_per_epoch"], record)

  @property
  def step(self) -> int:
    """Of the last row."""
    return max((row["step"] for row in self.rows), default=0)

  @property
  def diverged(self) -> bool:
    """Whether it ended in something that is not finite."""
    # The loop's last word is a fault. Older runs have the flagged row alone.
    ends = {"loss", "params"}
    return any(
      "fault" in row or ends & set(row.get("nonfinite", ()))
      for row in self.rows
    )

  @property
  def unfinished(self) -> str:
    """How far a run has come that did not reach its end; else ""."""
    config = self.record["config"]
    stop = config["train_steps"]
    if self.diverged:
      faults = [row["fault"] for row in self.rows if "fault" in row]
      where = f"diverged at step {self.step} of {stop}"
      return f"{where}: {faults[-1]}" if faults else where
    best, patience = config.get("best", ""), config.get("patience", 0)
    if self.step >= stop or early.is_spent(self.rows, best, patience):
      return ""
    return f"at step {self.step} of {stop}"

  def get(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates [n] and values [n] of a metric."""
    return writers.curve(self.rows, metric)

  def abscissa(self, metric: str, x: str) -> np.ndarray:
    """Where the values of a metric stand, [n].

    Args:
      metric: of `get`.
      x: "updates", "epochs" or "seconds" (of training, evaluation excluded).
    """
    if x == "seconds":
      rows = [row for row in self.rows if metric in row]
      return np.array([row["time/train_seconds"] for row in rows])
    steps, _ = self.get(metric)
    return steps / self.steps_per_epoch if x == "epochs" else steps
