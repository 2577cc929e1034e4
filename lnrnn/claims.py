"""From runs to the effects and verdicts of docs/claims.md.

A task's own rules stand in `experiments/`; here is what they share: reading
the runs, the rates that the trials choose, and cutting both sides of a
comparison to the same epoch.
"""

from collections.abc import Callable, Collection, Sequence
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lnrnn import metrics
from lnrnn.errors import UserError
from lnrnn.training import config as config_lib
from lnrnn.training import runs as runs_lib

EPOCHS = (60, 40, 20, 10)  # Where a row may look; the largest that is there.
FLOOR = 1e-7  # Where the figure's axis ends, nats.


class Key(NamedTuple):
  """What tells one reported run from another."""

  norm: str
  batch_size: int
  rate: float
  seed: int


class Side(NamedTuple):
  """One side of a comparison: the runs of one norm and batch size."""

  norm: str
  batch_size: int
  metric: str


Runs = dict[Key, runs_lib.Curves]
Group = tuple[str, int]  # Norm and batch size.
Curve = tuple[np.ndarray, np.ndarray]


def read(
  folder: str | os.PathLike[str],
  judged: Callable[[dict[str, Any]], bool],
  system: Callable[[dict[str, Any]], str] = lambda config: config["norm"],
) -> Runs:
  """The runs under a folder that are judged.

  Args:
    folder: of `experiments.compare`.
    judged: config -> whether it is; the others are shown beside, at most.
    system: config -> what stands for the norm where that alone does not tell
      a side of a comparison.

  Returns:
    The runs.

  Raises:
    UserError: if there is none, or if two differ in something that no rule
      looks at.
  """
  found: Runs = {}
  paths = sorted(pathlib.Path(folder).glob("*/config.json"))
  for path in paths:
    curves = runs_lib.Curves.read(path.parent)
    c = curves.record["config"]
    if not judged(c):
      continue
    key = Key(
      system(c), c["batch_size"], c["optimizer"]["learning_rate"], c["seed"]
    )
    if key in found:
      raise UserError(f"{folder}: two runs of {key}, one in {path.parent.name}")
    found[key] = curves
  if not found:
    there = f"the rules are for none of its {len(paths)} runs"
    raise UserError(f"{folder}: {there if paths else 'no runs there'}")
  return found


def check_equal(runs: Runs, free: Collection[str] = ()) -> None:
  """Refuses runs that differ in more than norm, rate and seed.

  Fields that may change when a run resumes may differ too: a comparison stops
  where the shorter run does.

  Args:
    runs: to compare.
    free: other fields in which they may differ.

  Raises:
    UserError: naming the first field that differs, and the runs.
  """
  free = {
    *config_lib.RESUMABLE,
    *("norm", "seed", "optimizer.learning_rate"),
    *free,
  }
  pairs = list(runs.items())
  flat = [config_lib.flatten(c.record["config"]) for _, c in pairs]
  for (key, _), config in zip(pairs[1:], flat[1:], strict=True):
    for field in sorted(flat[0].keys() | config.keys()):
      if field not in free and flat[0].get(field) != config.get(field):
        raise UserError(
          f"runs differ in {field}: {flat[0].get(field)!r} of {pairs[0][0]},"
          f" {config.get(field)!r} of {key}; they cannot be compared"
        )


def check_budgets(runs: Runs, fields: Sequence[str]) -> None:
  """Refuses runs of other budgets, for rules that carry running bests on.

  Args:
    runs: to compare.
    fields: of the config, at its top.

  Raises:
    UserError: naming the first field that differs, and its values.
  """
  for field in fields:
    found = {c.record["config"].get(field) for c in runs.values()}
    if len(found) > 1:
      raise UserError(f"runs differ in {field}: {sorted(found, key=str)}")


def seconds_per_update(curves: runs_lib.Curves) -> float:
  """Training seconds of an update; a fault's row, the last one, has none."""
  timed = [row for row in curves.rows if row.get("time/train_seconds")]
  return (
    timed[-1]["time/train_seconds"] / timed[-1]["step"] if timed else np.nan
  )


def rates(
  runs: Runs, chosen: dict[Group, tuple[float, bool]]
) -> dict[Group, float]:
  """The rate at which each norm and batch size is judged.

  Args:
    runs: the reported ones.
    chosen: of `best_rates`; where it has none, all runs must have one rate.

  Raises:
    UserError: if they have several.
  """
  found = {group: rate for group, (rate, _) in chosen.items()}
  for group in {key[:2] for key in runs} - found.keys():
    own = sorted({key.rate for key in runs if key[:2] == group})
    if len(own) > 1:
      raise UserError(
        f"norm {group[0]} has runs at the rates {own}: name the trials that"
        " choose one"
      )
    found[group] = own[0]
  return found


def last_epochs(curves: runs_lib.Curves, metric: str) -> float:
  """The mean of a metric over the last five epochs."""
  _, values = at_epochs(curves, metric)
  return float(values[-5:].mean()) if len(values) else math.inf


def best_rates(
  trials: Runs,
  metric: str,
  level: Callable[[runs_lib.Curves, str], float] = last_epochs,
) -> dict[Group, tuple[float, bool]]:
  """The rate of each norm and batch size that the trials choose.

  Args:
    trials: of the grid.
    metric: on validation data.
    level: (trial, metric) -> how good it is, the less the better.

  Returns:
    {(norm, batch size): (rate, whether it is at the edge of the grid)}: the
    least level, ties going to the smaller rate; a trial that diverged is never
    the least.

  Raises:
    UserError: if the trials of a batch size are not equal: another length,
      other rates for some norm, or one that is not done.
  """
  errors: dict[Group, dict[float, float]] = {}
  for key, curves in trials.items():
    name = f"trial {key.norm}, batch {key.batch_size}, rate {key.rate:g}"
    if not done(curves):
      raise UserError(f"{name} is {curves.unfinished}: finish it first")
    value = math.inf if curves.diverged else level(curves, metric)
    group = errors.setdefault((key.norm, key.batch_size), {})
    group[key.rate] = value if math.isfinite(value) else math.inf
  for batch_size in {b for _, b in errors}:
    grids = {
      tuple(sorted(g)) for (_, b), g in errors.items() if b == batch_size
    }
    lengths = {
      curves.record["config"]["train_steps"]
      for key, curves in trials.items()
      if key.batch_size == batch_size
    }
    if len(grids) > 1 or len(lengths) > 1:
      raise UserError(
        f"trials at batch size {batch_size} are not equal: grids"
        f" {sorted(grids)}, updates {sorted(lengths)}"
      )
  chosen = {}
  for group, found in errors.items():
    rate = min(sorted(found), key=lambda r, found=found: found[r])
    chosen[group] = rate, rate in (min(found), max(found))
  return chosen


def curve(curves: runs_lib.Curves, metric: str) -> Curve:
  """Updates [n] and values [n]; a run that diverged is NaN to its budget."""
  steps, values = curves.get(metric)
  config = curves.record["config"]
  if curves.diverged:
    rest = np.arange(
      (steps[-1] if len(steps) else 0) + config["eval_every"],
      config["train_steps"] + 1,
      config["eval_every"],
    )
    steps = np.concatenate([steps, rest])
    values = np.concatenate([values, np.full(len(rest), np.nan)])
  return steps, values


def at_epochs(curves: runs_lib.Curves, metric: str) -> Curve:
  """Epochs [n] and values [n] of the evaluations at the end of epochs."""
  steps, values = curve(curves, metric)
  whole = steps % curves.steps_per_epoch == 0
  return steps[whole] // curves.steps_per_epoch, values[whole]


def of_side(runs: Runs, side: Side, rate: float) -> dict[int, runs_lib.Curves]:
  """{seed: run} of one side."""
  wanted = (side.norm, side.batch_size, rate)
  return {key.seed: c for key, c in runs.items() if key[:3] == wanted}


def done(curves: runs_lib.Curves) -> bool:
  """Whether a run will say no more: it has finished, or diverged."""
  return not curves.unfinished or curves.diverged


def paired(
  runs: Runs, rates: dict[Group, float], sides: Sequence[Side]
) -> list[list[runs_lib.Curves]]:
  """The runs of each side that are done, by the seeds that all sides have.

  Args:
    runs: the reported ones.
    rates: {(norm, batch size): rate} to look at.
    sides: to compare.

  Returns:
    For each side its runs, seed by seed.
  """
  found = [of_side(runs, s, rates.get(s[:2], math.nan)) for s in sides]
  seeds = [
    seed
    for seed in sorted(set.intersection(*(set(side) for side in found)))
    if all(done(side[seed]) for side in found)
  ]
  return [[side[seed] for seed in seeds] for side in found]


def cut(curves: runs_lib.Curves, metric: str, epoch: int) -> Curve:
  """Updates [n] and values [n] up to the end of an epoch."""
  steps, values = curve(curves, metric)
  there = steps <= epoch * curves.steps_per_epoch
  return steps[there], values[there]


class Row(NamedTuple):
  """One verdict."""

  id: str
  verdict: str
  effect: str  # mean [low, high]
  epoch: int | None
  beside: str


def aligned(
  runs: Runs,
  rates: dict[Group, float],
  sides: Sequence[Side],
  epochs: Sequence[int] = EPOCHS,
) -> tuple[list[list[runs_lib.Curves]], int | None]:
  """The runs of each side, seed by seed, and the epoch E of the row.

  Args:
    runs: the reported ones.
    rates: {(norm, batch size): rate} to look at.
    sides: of the row.
    epochs: where the row may look, descending.

  Returns:
    For each side its runs in the order of the seeds that all sides have, and
    the first of `epochs` that every one of these runs has; None for none.
  """
  found = [of_side(runs, s, rates.get(s[:2], math.nan)) for s in sides]
  seeds = sorted(set.intersection(*(set(side) for side in found)))
  chosen = [[side[seed] for seed in seeds] for side in found]
  lengths = [
    max(at_epochs(c, side.metric)[0], default=0)
    for side, runs_of in zip(sides, chosen, strict=True)
    for c in runs_of
  ]
  last = min(lengths, default=0)
  return chosen, next((e for e in epochs if last >= e), None)


def ends(
  curves: Sequence[runs_lib.Curves], metric: str, epoch: int, *, log: bool
) -> np.ndarray:
  """[seeds] mean of the metric (or its log) over epochs E-4 ... E."""
  means = []
  for c in curves:
    epochs, values = at_epochs(c, metric)
    values = values[(epochs > epoch - 5) & (epochs <= epoch)]
    means.append((np.log(np.maximum(values, FLOOR)) if log else values).mean())
  return np.array(means)


def row(
  name: str, found: Any, epoch: int | None, claimed: Any, beside: str = ""
) -> Row:
  """The verdict on one effect.

  Args:
    name: id of the claim.
    found: [seeds] effects; None where the runs do not get there.
    epoch: E of the row.
    claimed: "negative" or "positive", the sign that the claim gives it.
    beside: what is told and decides nothing.

  Returns:
    The row.
  """
  if found is None:
    return Row(name, "not reached", "", None, beside)
  return told(name, metrics.verdict(found, claimed=claimed), epoch, beside)


def told(
  name: str, v: metrics.Verdict, epoch: int | None, beside: str = ""
) -> Row:
  """The row of a verdict; as of `row`."""
  effect = "" if v.mean is None else f"{v.mean:+.3g}"
  if v.low is not None:
    effect += f" [{v.low:+.3g}, {v.high:+.3g}]"
  return Row(name, v.verdict, effect, epoch, beside)


def exact(name: str, met: bool, effect: str, beside: str = "") -> Row:
  """The row of a computation that meets its tolerance, or does not.

  Args:
    name: id of the claim.
    met: whether it does, in every case tried.
    effect: what came out, in words and numbers.
    beside: what is told and decides nothing.
  """
  return Row(name, "holds" if met else "contradicted", effect, None, beside)


def best_value(curves: runs_lib.Curves, metric: str) -> float:
  """How good a trial is, the less the better: its best value."""
  best = metrics.running_best(curves.get(metric)[1], mode="min")
  return float(best[-1]) if len(best) else math.inf


def faster(
  pairs: Sequence[tuple[runs_lib.Curves, runs_lib.Curves]],
  metric: str,
  own: str,
  *,
  mode: metrics.Mode = "min",
) -> tuple[np.ndarray, str]:
  """How much faster the second of each pair is.

  Args:
    pairs: (the other, the variant), seed by seed; one at least.
    metric: of the other.
    own: of the variant.
    mode: "min" where less is better, else "max".

  Returns:
    [seeds] effects, and what is told beside: the speed-up, the mean effect as
    a ratio, and that in seconds.
  """
  base = [curve(a, metric) for a, _ in pairs]
  variant = [curve(b, own) for _, b in pairs]
  effects = metrics.paired_log_speed_ups(base, variant, mode=mode)
  number = metrics.speed_up(base, variant, mode=mode)
  ratio = "not reached" if number.ratio is None else f"{number.ratio:.2f}"
  costs = [seconds_per_update(b) / seconds_per_update(a) for a, b in pairs]
  paired = np.exp(np.mean(effects))
  return effects, (
    f"speed-up {ratio}, paired {paired:.2f}, in seconds"
    f" {paired / np.mean(costs):.2f}"
  )
