"""The rules of docs/claims.md for handwriting."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Curve, Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = HELD_OUT = "validation/nll"  # The first is of the best rate.
BATCH_SIZE, POINTS = 8, 500  # Paper.
# (points, batch size) of both sides of the rules on length and batch size.
LENGTHS = ((500, 8), (100, 8))
BATCHES = ((500, 1), (500, 32))
RATE = 3e-3  # The config's: no row is at another.
level = claims.best_value  # By which trials are compared.
# Units, LSTMs, Gaussians of window and output; and at which places each counts.
_PAPERS, _REDUCED = (400, 3, 10, 20), (64, 3, 10, 5)
_AT: dict[tuple[int, ...], Sequence[tuple[int, int]]] = {
  _PAPERS: ((POINTS, BATCH_SIZE),),
  _REDUCED: (*LENGTHS, *BATCHES),
}
_OF_REDUCED = ", reduced, "  # In what stands for the norm.

Pairs = dict[int, tuple[Curve, Curve]]  # {seed: (no norm's, layer norm's)}.


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one that a rule is for: sizes, norm in all LSTMs."""
  place = config["data"]["points"], config["batch_size"]
  return place in _AT.get(_sizes(config), ()) and (
    config["data"]["pieces"],
    config["model"]["form"],
    config["model"]["inputs"],
  ) == ("first", "separate", "together")


def system(config: dict[str, Any]) -> str:
  """The norm, of the reduced size with its length."""
  if _sizes(config) == _PAPERS:
    return config["norm"]
  return _reduced(config["norm"], config["data"]["points"])


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data, whatever was held out."""
  return curves.record["config"]["data"]["source"] == "iam_ondb"


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Handwriting" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`.

  Returns:
    A row a verdict.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  reduced = {k: c for k, c in runs.items() if _OF_REDUCED in k.norm}
  papers = {k: c for k, c in runs.items() if k not in reduced}
  claims.check_equal(papers)
  claims.check_equal(reduced, free=("batch_size", "data.points"))
  del chosen  # Told beside the verdicts.
  return [
    _faster(runs),
    _more("hand.long", runs, LENGTHS),
    _more("hand.small-batch", runs, BATCHES),
  ]


def _sizes(config: dict[str, Any]) -> tuple[int, ...]:
  names = ("features", "layers", "window", "mixtures")
  return tuple(config["model"][name] for name in names)


def _reduced(norm: str, points: int) -> str:
  return f"{norm}{_OF_REDUCED}{points} points"


def _pairs(
  runs: Runs,
  metric: str,
  batch_size: int,
  systems: Sequence[str] = ("none", "layer"),
) -> Pairs:
  """The curves of the seeds that both systems have."""
  none, layer = (
    claims.of_side(runs, Side(name, batch_size, metric), RATE)
    for name in systems
  )
  return {
    seed: (claims.curve(none[seed], metric), claims.curve(layer[seed], metric))
    for seed in sorted(none.keys() & layer.keys())
  }


def _last(pairs: Pairs) -> int:
  """The last update that all curves have; 0 if one has none."""
  return min(
    (int(max(c[0], default=0)) for both in pairs.values() for c in both),
    default=0,
  )


def _up_to(pairs: Pairs, last: int) -> tuple[list[Curve], list[Curve]]:
  """The curves of no norm and of layer norm, as far as an update."""
  cut = [
    [(steps[steps <= last], v[steps <= last]) for steps, v in both]
    for both in pairs.values()
  ]
  return [none for none, _ in cut], [layer for _, layer in cut]


def _faster(runs: Runs) -> Row:
  name, beside, effects = "hand.faster", [], None
  for metric in ("train/nll", HELD_OUT):
    pairs = _pairs(runs, metric, BATCH_SIZE)
    last = _last(pairs)
    if not last:
      return claims.row(name, None, None, "positive")
    a, b = _up_to(pairs, last)
    effects = metrics.paired_log_speed_ups(a, b)
    number = metrics.speed_up(a, b)
    ratio = "not reached" if number.ratio is None else f"{number.ratio:.2f}"
    gap = np.mean([y[-1] - x[-1] for (_, x), (_, y) in zip(a, b, strict=True)])
    beside.append(
      f"{metric} to update {last}: speed-up {ratio}, paired"
      f" {', '.join(f'{e:.2f}' for e in np.exp(effects))}; at the end LN - none"
      f" {gap:+.1f} nats"
    )
  return claims.row(name, effects, None, "positive", "; ".join(beside))


def _more(name: str, runs: Runs, places: Sequence[tuple[int, int]]) -> Row:
  """Whether layer norm is faster by more at the first (points, batch size)."""
  pairs = {
    (points, b): _pairs(
      runs, HELD_OUT, b, [_reduced(n, points) for n in ("none", "layer")]
    )
    for points, b in places
  }
  seeds = set.intersection(*(set(side) for side in pairs.values()))
  pairs = {
    at: {seed: side[seed] for seed in sorted(seeds)}
    for at, side in pairs.items()
  }
  cases = min(_last(side) * b for (_, b), side in pairs.items())
  effects, beside = [], []
  for (points, b), side in pairs.items():
    none, layer = _up_to(side, cases // b)
    if not all(len(steps) for steps, _ in (*none, *layer)) or not seeds:
      return claims.row(name, None, None, "positive")
    effects.append(metrics.paired_log_speed_ups(none, layer))
    ratios = ", ".join(f"{e:.2f}" for e in np.exp(effects[-1]))
    beside.append(f"{points} points, batch {b}: paired {ratios}")
  told = f"{'; '.join(beside)}; to {cases:,} cases each"
  with np.errstate(invalid="ignore"):  # Where both sides failed alike.
    more = effects[0] - effects[1]
  return claims.row(name, more, None, "positive", told)
