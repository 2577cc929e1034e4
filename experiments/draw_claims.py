"""The rules of docs/claims.md for DRAW."""

from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.data import binarized_mnist
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/bound"  # The best rate.
BATCH_SIZE = 128
LAST = 200  # Epochs of the paper.
FEWEST = 5


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the paper's: the norm on both cells."""
  model = config["model"]
  return (model["form"], model["normed"]) == ("cell", "both")


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data, all of it."""
  whole = curves.record["fingerprint"] == binarized_mnist.WHOLE
  return whole and curves.record["config"]["data"]["train_cases"] == 50_000


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "DRAW" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; {} where there were no trials.

  Returns:
    A row a verdict.

  Raises:
    UserError: if runs differ in what no rule looks at, or in their rates
      though no trials chose one.
  """
  claims.check_equal(runs)
  rates = claims.rates(runs, chosen)
  return [_faster(runs, rates), _bound(runs, rates)]


def _sides(metric: str) -> tuple[Side, Side]:
  return Side("none", BATCH_SIZE, metric), Side("layer", BATCH_SIZE, metric)


def _faster(runs: Runs, rates: dict[Group, float]) -> Row:
  name, beside = "draw.faster", []
  effects, epoch = None, None
  for metric in ("test/bound", "validation/bound"):
    sides = _sides(metric)
    chosen, epoch = claims.aligned(runs, rates, sides, range(LAST, 0, -1))
    if epoch is None or epoch < FEWEST:
      return claims.row(name, None, None, "positive")
    a, b = ([claims.cut(c, metric, epoch) for c in side] for side in chosen)
    effects = metrics.paired_log_speed_ups(a, b)
    number = metrics.speed_up(a, b)
    ratio = "not reached" if number.ratio is None else f"{number.ratio:.2f}"
    found = metrics.verdict(effects, claimed="positive")
    times = "" if found.mean is None else f" (paired {np.exp(found.mean):.2f}"
    if found.low is not None and found.high is not None:
      low, high = np.exp([found.low, found.high])
      holds = "contains" if low <= 2 <= high else "does not contain"
      times += f", [{low:.2f}, {high:.2f}], {holds} 2"
    beside.append(f"{metric}: speed-up {ratio}{times}{')' if times else ''}")
  return claims.row(name, effects, epoch, "positive", "; ".join(beside))


def _bound(runs: Runs, rates: dict[Group, float]) -> Row:
  name, metric = "draw.bound", "test/bound"
  chosen, epoch = claims.aligned(
    runs, rates, _sides(metric), range(LAST, 0, -1)
  )
  if epoch is None:
    return claims.row(name, None, None, "negative")
  none, layer = (
    np.array([claims.cut(c, metric, epoch)[1][-1] for c in side])
    for side in chosen
  )
  gap = layer - none
  beside = f"gap {gap.mean():+.2f} nats at epoch {epoch}"
  errors = [
    v[-1]
    for side in chosen
    for c in side
    if len(v := c.get("test/bound_latent_error")[1])
  ]
  if errors:
    # Of two bounds' difference, each with latents of its own.
    beside += f", by its latents +-{np.sqrt(2) * np.mean(errors):.2f} a seed"
  if epoch < LAST:
    return claims.row(name, None, None, "negative", beside)
  return claims.row(name, gap, epoch, "negative", beside)
