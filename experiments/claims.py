"""Judges the paper's claims on MNIST by the rules of docs/claims.md.

  python -m experiments.claims --workdir=runs/mnist --trials=runs/mnist_trials

reads every run under the two folders and prints one row a claim. The trials
are the runs of the rate grid, with a seed of their own; the "tuned" rows need
the reported runs to have been made at the rates that the trials choose.
"""

from collections.abc import Callable, Iterable
import json
import math
import pathlib
from typing import Any, NamedTuple

from absl import flags
import numpy as np

from experiments import launch
from lnrnn import metrics
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the reported runs", required=True
)
_TRIALS = flags.DEFINE_string("trials", None, "folder of the rate grid's runs")

SHARED_RATE = 1e-3
EPOCHS = (60, 40, 20, 10)  # Where a row may look; the largest that is there.
FLOOR = 1e-7  # Where the figure's axis ends, nats.
NLL, MINIBATCH_NLL = "train/nll", "train/nll_minibatch"


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
  metric: str = NLL


Runs = dict[Key, runs_lib.Curves]
Curve = tuple[np.ndarray, np.ndarray]


def read(folder: str) -> Runs:
  """Every run under a folder.

  Raises:
    UserError: if two runs differ in something that no rule looks at.
  """
  found: Runs = {}
  for path in sorted(pathlib.Path(folder).glob("*/config.json")):
    curves = runs_lib.Curves.read(path.parent)
    c = curves.record["config"]
    model = c["model"]
    if model["norm_output"] != (c["norm"] in ("batch", "weight")):
      continue  # Shown beside the claims, not judged.
    key = Key(
      c["norm"], c["batch_size"], c["optimizer"]["learning_rate"], c["seed"]
    )
    if key in found:
      raise UserError(f"{folder}: two runs of {key}")
    found[key] = curves
  if not found:
    raise UserError(f"{folder}: no runs there")
  return found


def best_rates(trials: Runs) -> dict[tuple[str, int], tuple[float, bool]]:
  """The rate of each norm and batch size that the trials choose.

  Args:
    trials: of the grid.

  Returns:
    {(norm, batch size): (rate, whether it is at the edge of the grid)}: the
    least mean validation error over the last five epochs, ties going to the
    smaller rate; a value that is not finite is never the least.
  """
  errors: dict[tuple[str, int], dict[float, float]] = {}
  for key, curves in trials.items():
    _, values = curves.get("validation/error")
    mean = float(values[-5:].mean()) if len(values) else math.nan
    group = errors.setdefault((key.norm, key.batch_size), {})
    group[key.rate] = mean if math.isfinite(mean) else math.inf
  chosen = {}
  for group, found in errors.items():
    rate = min(sorted(found), key=lambda r, found=found: found[r])
    chosen[group] = rate, rate in (min(found), max(found))
  return chosen


def curves_of(runs: Runs, side: Side, rate: float) -> dict[int, Curve]:
  """{seed: (epochs [n], values [n])} of one side."""
  found = {}
  for key, curves in runs.items():
    if (key.norm, key.batch_size, key.rate) == (*side[:2], rate):
      steps, values = curves.get(side.metric)
      found[key.seed] = steps / curves.steps_per_epoch, values
  return found


class Row(NamedTuple):
  """One verdict."""

  id: str
  verdict: str
  effect: str  # mean [low, high]
  epoch: int | None
  beside: str


def _effects(
  runs: Runs,
  rates: dict[tuple[str, int], float],
  sides: Iterable[Side],
  effect: Callable[..., Any],
  epochs: Iterable[int] = EPOCHS,
) -> tuple[Any, int | None]:
  """Cuts all sides to one epoch and applies `effect` to them."""
  cut = []
  for side in sides:
    rate = rates.get(side[:2])
    cut.append({} if rate is None else curves_of(runs, side, rate))
  seeds = sorted(set.intersection(*(set(c) for c in cut)))
  lengths = [c[s][0][-1] if len(c[s][0]) else 0 for c in cut for s in seeds]
  last = next((e for e in epochs if lengths and min(lengths) >= e), None)
  if last is None:
    return None, None
  chosen = [
    [
      tuple(a[: np.searchsorted(c[s][0], last, "right")] for a in c[s])
      for s in seeds
    ]
    for c in cut
  ]
  return effect(*chosen), last


def _level(curve: Curve) -> float:
  """Mean log NLL over the last five epochs."""
  return float(np.log(np.maximum(curve[1], FLOOR))[-5:].mean())


def _error(curve: Curve) -> float:
  """Mean test error over the last five epochs."""
  return float(np.mean(np.asarray(curve[1])[-5:]))


def _row(
  name: str, found: Any, epoch: int | None, claimed: Any, beside: str = ""
) -> Row:
  if found is None:
    return Row(name, "not reached", "", None, beside)
  v = metrics.verdict(found, claimed=claimed)
  effect = "" if v.mean is None else f"{v.mean:+.3g}"
  if v.low is not None:
    effect += f" [{v.low:+.3g}, {v.high:+.3g}]"
  return Row(name, v.verdict, effect, epoch, beside)


def _faster(
  name: str, runs: Runs, rates: dict, baseline: Side, variant: Side
) -> Row:
  """A row of kind "faster", the speed-up number beside it."""

  def effect(a, b):
    floored = [[(s, np.maximum(v, FLOOR)) for s, v in side] for side in (a, b)]
    number = metrics.speed_up(*floored)
    return metrics.paired_log_speed_ups(*floored), number

  both, epoch = _effects(runs, rates, (baseline, variant), effect)
  if both is None:
    return _row(name, None, None, "positive")
  found, number = both
  ratio = "not reached" if number.ratio is None else f"{number.ratio:.2f}"
  return _row(name, found, epoch, "positive", f"speed-up {ratio}")


def judge(
  runs: Runs, chosen: dict[tuple[str, int], tuple[float, bool]]
) -> list[Row]:
  """The rows of section "MNIST" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `best_rates`; {} where there were no trials.

  Returns:
    A row a verdict.
  """
  shared = {key[:2]: SHARED_RATE for key in runs}
  tuned = {group: rate for group, (rate, _) in chosen.items()}
  rows = []

  def drop(level, sign=1):
    def effect(ln4, ln128, bn4, bn128):
      pairs = zip(ln4, ln128, bn4, bn128, strict=True)
      return [
        sign * ((level(a) - level(b)) - (level(c) - level(d)))
        for a, b, c, d in pairs
      ]

    return effect

  for suffix, metric in (("", NLL), (".minibatch", MINIBATCH_NLL)):
    sides = [Side("layer", 4), Side("layer", 128)]
    sides += [Side("batch", 4, metric), Side("batch", 128, metric)]
    found = _effects(runs, shared, sides, drop(_level))
    rows.append(_row(f"mnist.batch-robust{suffix}", *found, "negative"))
  error = "test/error"
  sides = [Side(n, b, error) for n in ("layer", "batch") for b in (4, 128)]
  found = _effects(runs, shared, sides, drop(_error))
  rows.append(_row("mnist.batch-robust.error", *found, "negative"))
  found = _effects(
    runs,
    shared,
    sides[:2],
    lambda a, b: [
      _error(x) - _error(y) - 0.002 for x, y in zip(a, b, strict=True)
    ],
  )
  rows.append(
    _row("mnist.batch-robust.absolute", *found, "negative", "threshold 0.002")
  )
  for rates, suffix in ((shared, ""), (tuned, ".tuned")):
    for norm, word in (("batch", "bn"), ("none", "none")):
      for b in (128, 4):
        name = f"mnist.faster-than-{word}.b{b}"
        sides = Side(norm, b), Side("layer", b)
        rows.append(_faster(name + suffix, runs, rates, *sides))
        if norm == "batch" and not suffix:
          sides = Side(norm, b, MINIBATCH_NLL), Side("layer", b)
          rows.append(_faster(f"{name}.minibatch", runs, rates, *sides))
    found = _effects(
      runs,
      rates,
      (Side("layer", 4, error), Side("batch", 4, error)),
      lambda a, b: [_error(x) - _error(y) for x, y in zip(a, b, strict=True)],
    )
    rows.append(_row(f"mnist.error-vs-bn.b4{suffix}", *found, "negative"))
  rows.append(_online(runs))
  name = "mnist.online.faster-than-none"
  rows.append(_online_faster(name, runs, shared))
  return rows


def _online(runs: Runs) -> Row:
  """Layer norm at batch 1, by its evaluations at the end of epochs."""
  ends, last = [], []
  found = curves_of(runs, Side("layer", 1, "test/error"), SHARED_RATE)
  for epochs, values in found.values():
    whole = values[epochs == np.floor(epochs)][-5:]
    if len(whole):
      finite = np.isfinite(values[-1])
      ends.append(float(whole.mean()) - 0.1 if finite else 0.9)
      last.append(int(epochs[-1]))
  name, beside = "mnist.online", "threshold 0.1"
  return _row(name, ends or None, min(last, default=None), "negative", beside)


def _online_faster(name: str, runs: Runs, rates: dict) -> Row:
  """Faster at batch 1, where a run may be short: by all it evaluated."""
  sides = Side("none", 1), Side("layer", 1)
  found = [curves_of(runs, side, rates.get(side[:2], 0)) for side in sides]
  seeds = sorted(set(found[0]) & set(found[1]))
  curves = [[side[seed] for seed in seeds] for side in found]
  if not seeds or min(len(c[0]) for side in curves for c in side) < 3:
    return _row(name, None, None, "positive")
  last = min(int(c[0][-1]) for side in curves for c in side)
  return _row(name, metrics.paired_log_speed_ups(*curves), last, "positive")


def main() -> None:
  """Prints and writes the verdicts."""
  runs = read(_WORKDIR.value)
  chosen = best_rates(read(_TRIALS.value)) if _TRIALS.value else {}
  rows = judge(runs, chosen)
  paper = all("the paper's data" in c.record["data"] for c in runs.values())
  suffix = "" if paper else " on substitute data"
  lines = ["| claim | verdict | effect | at epoch | beside |"]
  lines.append("| --- | --- | --- | --- | --- |")
  for row in rows:
    lines.append(
      f"| `{row.id}` | {row.verdict}{suffix} | {row.effect} |"
      f" {row.epoch or ''} | {row.beside} |"
    )
  if chosen:
    lines += ["", "| norm | batch size | best rate of the grid |"]
    lines += ["| --- | --- | --- |"]
    lines += [
      f"| {norm} | {b} | {rate:g}{' (edge of the grid)' if edge else ''} |"
      for (norm, b), (rate, edge) in sorted(chosen.items())
    ]
  text = "\n".join(lines) + "\n"
  path = pathlib.Path(_WORKDIR.value, "claims.md")
  path.write_text(text, encoding="utf-8")
  path.with_suffix(".json").write_text(
    json.dumps([row._asdict() for row in rows], indent=2) + "\n"
  )
  print(f"{text}\nwritten: {path}, {path.with_suffix('.json')}")


if __name__ == "__main__":
  launch.run(main)
