"""Sets of runs: naming them, training what is missing, reading them back."""

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import re
from typing import Any

import numpy as np

from lnrnn.errors import DivergedError
from lnrnn.training import workdir as workdir_lib
from lnrnn.training import writers


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
    folder: the runs' workdirs are made in it, named for what varies.

  Returns:
    The runs, the seeds in the outer loop.
  """
  runs = []
  for seed in seeds:
    for values in itertools.product(*(values for _, values in varied)):
      variant = tuple(zip((f for f, _ in varied), values, strict=True))
      args = ",".join(f"{k}={v}" for k, v in (*variant, ("seed", seed)))
      name = re.sub(r"[^\w=.,()+-]", "_", args)
      joined = f"{spec}{',' if ':' in spec else ':'}{args}"
      runs.append(Run(variant, seed, joined, pathlib.Path(folder, name)))
  return runs


def run_missing(
  runs: Sequence[Run], train: Callable[[Run], None], *, jobs: int = 1
) -> dict[Run, str]:
  """Trains the runs that are not finished, resuming those that were begun.

  Args:
    runs: to train; they have passed their checks.
    train: trains one; a finished run must be a no-op.
    jobs: how many at a time; with more than one, `train` is called from
      threads, so it should start a process.

  Returns:
    {run: "finished" or why it is not}; one run that diverges does not keep
    the others from running.
  """

  def attempt(run: Run) -> str:
    try:
      train(run)
    except DivergedError as e:
      return str(e)
    return "finished"

  if jobs == 1:
    return {run: attempt(run) for run in runs}
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    return dict(zip(runs, pool.map(attempt, runs), strict=True))


@dataclasses.dataclass(frozen=True)
class Curves:
  """What a finished run measured.

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
  def diverged(self) -> bool:
    """Whether it ended in a loss or parameters that are not finite."""
    ends = ("loss", "params")
    return any(set(ends) & set(row.get("nonfinite", ())) for row in self.rows)

  @property
  def unfinished(self) -> str:
    """How far a run has come that did not reach its end; else ""."""
    step = max((row["step"] for row in self.rows), default=0)
    stop = self.record["config"]["train_steps"]
    if self.diverged:
      return f"diverged at step {step} of {stop}"
    return "" if step >= stop else f"at step {step} of {stop}"

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
