"""Early stopping: when a run has stopped getting better."""

import math
from typing import Any


def is_spent(
  rows: list[dict[str, Any]], best: str, patience: int, step: int | None = None
) -> bool:
  """Whether the evaluations so far used up a run's patience.

  Args:
    rows: of metrics.jsonl.
    best: "split/metric:min" or ":max", as `config.best`.
    patience: evaluations without a new best value after which a run stops; 0
      is never.
    step: later rows are left out; None for none.

  Returns:
    Whether the last `patience` evaluations, or more, brought no new best one.
    A value that is not finite is never the best.
  """
  if not patience:
    return False
  metric, _, mode = best.partition(":")
  sign = -1.0 if mode == "min" else 1.0
  highest, since = -math.inf, 0
  for row in rows:
    if metric not in row or (step is not None and row["step"] > step):
      continue
    value = sign * row[metric]
    since += 1
    if math.isfinite(value) and value > highest:
      highest, since = value, 0
  return since >= patience
