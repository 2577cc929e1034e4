"""The rules of docs/claims.md for convnets."""

from typing import Any

import numpy as np

from lnrnn import claims
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/error"  # The best rate.
SHARED_RATE, BATCH_SIZE = 3e-3, 100  # The config's.
LOSS, ERROR = "train/nll", "test/error"
CIRCULAR, INTERIOR = "circular", "interior"
# Fields in which an intervention differs from the network as it is.
_FREE = ("model.padding", "model.ln_border")


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the rules': layer norm read literally."""
  return config["model"]["ln_form"] == "units"


def system(config: dict[str, Any]) -> str:
  """Norm and intervention of a run, as "layer" or "layer circular"."""
  model = config["model"]
  words = [config["norm"]]
  if model["padding"] == "circular":
    words.append(CIRCULAR)
  if model["ln_border"]:
    words.append(f"{INTERIOR} {model['ln_border']}")
  return " ".join(words)


def is_papers(curves: runs_lib.Curves) -> bool:
  """No data is: the paper names none."""
  del curves
  return False


level = claims.best_value


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Convnets" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; {} where there were no trials.

  Returns:
    A row a verdict.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  claims.check_equal(runs, free=_FREE)
  claims.check_budgets(runs, ("train_steps", "eval_every"))
  shared = {key[:2]: SHARED_RATE for key in runs}
  # A rate at the edge of the grid is not known to be the best: the grid grows.
  tuned = {group: rate for group, (rate, edge) in chosen.items() if not edge}
  rows = []
  for rates, suffix in ((shared, ""), (tuned, ".tuned")):
    rows.append(_faster(f"conv.ln-faster-than-none{suffix}", runs, rates))
    rows += _best(f"conv.bn-best{suffix}", runs, rates)
  return [*rows, _border(runs, shared)]


def _sides(
  runs: Runs, rates: dict[Group, float], *systems: str
) -> list[list[runs_lib.Curves]]:
  """As `claims.paired`, of systems."""
  sides = [Side(system, BATCH_SIZE, ERROR) for system in systems]
  return claims.paired(runs, rates, sides)


def _epoch(curves: runs_lib.Curves) -> int:
  return int(max(claims.at_epochs(curves, ERROR)[0], default=0))


def _accuracies(side: list[runs_lib.Curves]) -> np.ndarray:
  """[seeds] test accuracy, mean of the last five epochs."""
  return np.array([1 - claims.last_epochs(c, ERROR) for c in side])


def _faster(name: str, runs: Runs, rates: dict[Group, float]) -> Row:
  none, layer = _sides(runs, rates, "none", "layer")
  if not none:
    return claims.row(name, None, None, "positive")
  pairs = list(zip(none, layer, strict=True))
  effects, beside = claims.faster(pairs, LOSS, LOSS)
  return claims.row(name, effects, _epoch(none[0]), "positive", beside)


def _best(name: str, runs: Runs, rates: dict[Group, float]) -> list[Row]:
  """The row, and one for each of its two parts."""
  parts = []
  for other in ("layer", "none"):
    batch, less = _sides(runs, rates, "batch", other)
    part = f"{name} ({other})"
    if not batch:
      parts.append(claims.row(part, None, None, "positive"))
      continue
    a, b = _accuracies(batch), _accuracies(less)
    beside = f"accuracy {a.mean():.4f}, {b.mean():.4f}"
    epoch = _epoch(batch[0])
    parts.append(claims.row(part, a - b, epoch, "positive", beside))
  verdicts = [part.verdict for part in parts]
  for found in ("contradicted", "not reached"):
    if found in verdicts:
      verdict = found
      break
  else:
    verdict = "holds" if set(verdicts) == {"holds"} else "undecided"
  whole = Row(name, verdict, "", parts[0].epoch, "all of the next two")
  return [whole, *parts]


def _border(runs: Runs, rates: dict[Group, float]) -> Row:
  """By how much the gap BN - LN narrows with interior statistics.

  Batch norm is the same on both sides, so it is what layer norm gains.
  """
  name, interior = "conv.border", f"layer {INTERIOR} 1"
  layer, inside = _sides(runs, rates, "layer", interior)
  if not layer:
    return claims.row(name, None, None, "positive")
  beside = []
  batch, plain = _sides(runs, rates, "batch", "layer")
  if batch:
    gap = _accuracies(batch) - _accuracies(plain)
    beside.append(f"gap {gap.mean():+.4f}")
  sides = _sides(
    runs, rates, "batch", "layer", f"batch {CIRCULAR}", f"layer {CIRCULAR}"
  )
  if sides[0]:
    bn, ln, bn_circular, ln_circular = map(_accuracies, sides)
    narrower = (bn - ln) - (bn_circular - ln_circular)
    beside.append(
      f"with circular padding {(bn_circular - ln_circular).mean():+.4f},"
      f" narrower by {narrower.mean():+.4f}"
    )
  return claims.row(
    name,
    _accuracies(inside) - _accuracies(layer),
    _epoch(layer[0]),
    "positive",
    "; ".join(beside),
  )
