"""The rules of docs/claims.md for the forms of layer norm: beyond the paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/nll"  # The best rate, of the attentive reader.
REFERENCE, UNNORMED = "separate", "no norm"
# {experiment: what its rows are called, the metric, which way is better}.
OF: dict[str, tuple[str, str, metrics.Mode]] = {
  "attentive_reader": ("reader", "validation/error", "min"),
  "order_embedding": ("order", "validation/recall_sum", "max"),
}
# Each form has its own place for the norm; no norm has none.
FREE = ("model.form",)


def system(config: dict[str, Any]) -> str:
  """The form that a run has."""
  return config["model"]["form"] if config["norm"] == "layer" else UNNORMED


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is of layer norm or of no norm, on one of the tasks."""
  return config["experiment"] in OF and config["norm"] in ("layer", "none")


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether the verdict is on the paper's data: the paper has no such claim."""
  del curves
  return True


level = claims.best_value  # By which trials are compared.


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Beyond the paper" of docs/claims.md.

  Args:
    runs: of one task, each form and, beside, no norm.
    chosen: of `claims.best_rates`; {} where all forms have one rate.

  Returns:
    Two rows a form, `forms.<task>.<form>` and the same with `.faster`.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  claims.check_equal(runs, free=FREE)
  claims.check_budgets(runs, ("experiment", "train_steps", "eval_every"))
  first = next(iter(runs.values())).record["config"]
  word, metric, mode = OF[first["experiment"]]
  rates = claims.rates(runs, chosen)
  rows = []
  for form in dict.fromkeys(key.norm for key in runs):
    if form == REFERENCE:
      continue
    sides = [Side(f, first["batch_size"], metric) for f in (REFERENCE, form)]
    pairs = list(zip(*claims.paired(runs, rates, sides), strict=True))
    name = f"forms.{word}.{form.replace(' ', '-')}"
    rows += _both(name, pairs, metric, mode)
  return rows


def _both(
  name: str,
  pairs: Sequence[tuple[runs_lib.Curves, runs_lib.Curves]],
  metric: str,
  mode: metrics.Mode,
) -> list[Row]:
  """Is it better in the end, and does it come there faster?"""
  claimed = "positive" if mode == "max" else "negative"
  if not pairs:
    return [
      claims.row(name, None, None, claimed),
      claims.row(f"{name}.faster", None, None, "positive"),
    ]
  ends = np.array([[_best(c, metric, mode) for c in pair] for pair in pairs])
  reference, own = ends.mean(axis=0)
  effects, told = claims.faster(pairs, metric, metric, mode=mode)
  return [
    claims.row(
      name,
      ends[:, 1] - ends[:, 0],
      None,
      claimed,
      f"{own:.4g}, {REFERENCE} {reference:.4g}",
    ),
    claims.row(f"{name}.faster", effects, None, "positive", told),
  ]


def _best(curves: runs_lib.Curves, metric: str, mode: metrics.Mode) -> float:
  """The best value up to the last update; NaN for a run that diverged."""
  if curves.diverged:
    return np.nan
  return float(metrics.running_best(curves.get(metric)[1], mode=mode)[-1])
