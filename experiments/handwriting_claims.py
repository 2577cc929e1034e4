"""The rules of docs/claims.md for handwriting."""

from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/nll"  # The best rate.
BATCH_SIZE, POINTS = 8, 500  # Paper.


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the paper's: sizes, length, norm in all LSTMs."""
  model = config["model"]
  sizes = [model[k] for k in ("features", "layers", "window", "mixtures")]
  return sizes == [400, 3, 10, 20] and (
    config["batch_size"],
    config["data"]["points"],
    config["data"]["pieces"],
    config["model"]["form"],
    config["model"]["inputs"],
  ) == (BATCH_SIZE, POINTS, "first", "separate", "together")


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data, whatever was held out."""
  return curves.record["config"]["data"]["source"] == "iam_ondb"


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Handwriting" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; {} where there were no trials.

  Returns:
    A row a verdict. Those on length and batch size have other runs, at a
    reduced size, which are shown in docs/results/handwriting.md.

  Raises:
    UserError: if runs differ in what no rule looks at, or in their rates
      though no trials chose one.
  """
  claims.check_equal(runs)
  rates = claims.rates(runs, chosen)
  rest = ("hand.long", "hand.small-batch")
  return [
    _faster(runs, rates),
    *(claims.row(name, None, None, "positive") for name in rest),
  ]


def _faster(runs: Runs, rates: dict[Group, float]) -> Row:
  name, beside, effects = "hand.faster", [], None
  for metric in ("train/nll", "validation/nll"):
    sides = [
      claims.of_side(
        runs,
        Side(norm, BATCH_SIZE, metric),
        rates.get((norm, BATCH_SIZE), np.nan),
      )
      for norm in ("none", "layer")
    ]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    curves = [[claims.curve(s[seed], metric) for seed in seeds] for s in sides]
    lasts = [max(steps, default=0) for side in curves for steps, _ in side]
    last = min(lasts, default=0)
    if not last:
      return claims.row(name, None, None, "positive")
    a, b = (
      [(steps[steps <= last], v[steps <= last]) for steps, v in side]
      for side in curves
    )
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
