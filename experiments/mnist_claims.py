"""The rules of docs/claims.md for permutation-invariant MNIST."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Curve, Group, Row, Runs, Side
from lnrnn.data import mnist
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/error"  # The best rate.
SHARED_RATE = 1e-3
MARKS = (1e-1, 1e-2, 1e-3)  # NLL whose updates are told beside, nats.
NLL, MINIBATCH_NLL = "train/nll", "train/nll_minibatch"
ERROR = "test/error"


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the paper's: its norm where the paper has it."""
  everywhere = config["norm"] in ("batch", "weight")
  return config["model"]["norm_output"] == everywhere


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data, all of it."""
  whole = curves.record["fingerprint"] == mnist.WHOLE
  return whole and curves.record["config"]["data"]["train_cases"] == 55_000


def _faster(
  name: str,
  runs: Runs,
  rates: dict[Group, float],
  baseline: Side,
  variant: Side,
) -> Row:
  """A row of kind "faster", with what docs/claims.md wants beside it."""
  sides = (baseline, variant)
  chosen, epoch = claims.aligned(runs, rates, sides)
  if epoch is None:
    return claims.row(name, None, None, "positive")
  a, b = (
    [
      (steps, np.maximum(values, claims.FLOOR))
      for steps, values in (
        claims.cut(c, side.metric, epoch) for c in side_runs
      )
    ]
    for side, side_runs in zip(sides, chosen, strict=True)
  )
  number = metrics.speed_up(a, b)
  ratio = "not reached" if number.ratio is None else f"{number.ratio:.2f}"
  best = [
    [np.log(metrics.running_best(v, mode="min")) for _, v in c] for c in (a, b)
  ]
  gap = np.mean([x - y for x, y in zip(*best, strict=True)])
  marks = "; ".join(
    f"{mark:g}: {_updates_to(a, mark)} / {_updates_to(b, mark)}"
    for mark in MARKS
  )
  beside = f"speed-up {ratio}; gap {gap:+.2f}; updates to NLL {marks}"
  found = metrics.paired_log_speed_ups(a, b)
  return claims.row(name, found, epoch, "positive", beside)


def _updates_to(curves: Sequence[Curve], target: float) -> str:
  """Median updates over the seeds; "-" where a seed does not get there."""
  found = [metrics.updates_to(s, v, target, mode="min") for s, v in curves]
  reached = [f for f in found if f is not None]
  return f"{np.median(reached):.0f}" if len(reached) == len(found) else "-"


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "MNIST" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `best_rates`; {} where there were no trials.

  Returns:
    A row a verdict.
  """
  shared = {key[:2]: SHARED_RATE for key in runs}
  # A rate at the edge of the grid is not known to be the best: the grid grows.
  tuned = {group: rate for group, (rate, edge) in chosen.items() if not edge}
  rows = [
    _robust("mnist.batch-robust", runs, shared, NLL, NLL, log=True),
    _robust(
      "mnist.batch-robust.minibatch",
      runs,
      shared,
      NLL,
      MINIBATCH_NLL,
      log=True,
    ),
    _robust("mnist.batch-robust.error", runs, shared, ERROR, ERROR, log=False),
    _lower(
      "mnist.batch-robust.absolute",
      runs,
      shared,
      Side("layer", 4, ERROR),
      Side("layer", 128, ERROR),
      threshold=0.002,
    ),
  ]
  for rates, suffix in ((shared, ""), (tuned, ".tuned")):
    for norm, word in (("batch", "bn"), ("none", "none")):
      for b in (128, 4):
        name, variant = f"mnist.faster-than-{word}.b{b}", Side("layer", b, NLL)
        rows.append(
          _faster(name + suffix, runs, rates, Side(norm, b, NLL), variant)
        )
        if norm == "batch" and not suffix:
          baseline = Side(norm, b, MINIBATCH_NLL)
          name += ".minibatch"
          rows.append(_faster(name, runs, rates, baseline, variant))
    rows.append(
      _lower(
        f"mnist.error-vs-bn.b4{suffix}",
        runs,
        rates,
        Side("layer", 4, ERROR),
        Side("batch", 4, ERROR),
      )
    )
  return [*rows, _online(runs), _online_faster(runs, shared)]


def _robust(
  name: str,
  runs: Runs,
  rates: dict[Group, float],
  metric: str,
  bn_metric: str,
  *,
  log: bool,
) -> Row:
  """What batch 4 instead of 128 costs layer norm, less what it costs BN."""
  sides = [Side("layer", 4, metric), Side("layer", 128, metric)]
  sides += [Side("batch", 4, bn_metric), Side("batch", 128, bn_metric)]
  chosen, epoch = claims.aligned(runs, rates, sides)
  if epoch is None:
    return claims.row(name, None, None, "negative")
  ln4, ln128, bn4, bn128 = (
    claims.ends(c, side.metric, epoch, log=log)
    for c, side in zip(chosen, sides, strict=True)
  )
  return claims.row(name, (ln4 - ln128) - (bn4 - bn128), epoch, "negative")


def _lower(
  name: str,
  runs: Runs,
  rates: dict[Group, float],
  variant: Side,
  baseline: Side,
  *,
  threshold: float = 0.0,
) -> Row:
  """The variant's error level less the baseline's."""
  beside = f"threshold {threshold:g}" if threshold else ""
  chosen, epoch = claims.aligned(runs, rates, (variant, baseline))
  if epoch is None:
    return claims.row(name, None, None, "negative", beside)
  a, b = (claims.ends(c, ERROR, epoch, log=False) for c in chosen)
  return claims.row(name, a - b - threshold, epoch, "negative", beside)


def _online(runs: Runs) -> Row:
  """Layer norm at batch 1, by its evaluations at the end of epochs."""
  name, beside = "mnist.online", "threshold 0.1"
  found = claims.of_side(runs, Side("layer", 1, ERROR), SHARED_RATE).values()
  points = [claims.at_epochs(c, ERROR) for c in found]
  if not points or not all(len(epochs) for epochs, _ in points):
    return claims.row(name, None, None, "negative", beside)
  ends = [
    0.9 if c.diverged else float(values[-5:].mean()) - 0.1
    for c, (_, values) in zip(found, points, strict=True)
  ]
  last = min(int(epochs[-1]) for epochs, _ in points)
  return claims.row(name, ends, last, "negative", beside)


def _online_faster(runs: Runs, rates: dict[Group, float]) -> Row:
  """Faster at batch 1, by all that both evaluated: a run may be one epoch."""
  name = "mnist.online.faster-than-none"
  sides = Side("none", 1, NLL), Side("layer", 1, NLL)
  chosen, _ = claims.aligned(runs, rates, sides)
  curves = [[claims.curve(c, NLL) for c in side] for side in chosen]
  lengths = [len(steps) for side in curves for steps, _ in side]
  if min(lengths, default=0) < 3:
    return claims.row(name, None, None, "positive")
  last = min(
    int(claims.at_epochs(c, NLL)[0][-1]) for side in chosen for c in side
  )
  found = metrics.paired_log_speed_ups(*curves)
  return claims.row(name, found, int(last), "positive")
