"""The rules of docs/claims.md for order embeddings."""

from typing import Any, NamedTuple

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/recall_sum"  # The best rate.
AUTHORS = "validation/image_recall_sum"  # By which their code saves.
SHARED_RATE, BATCH_SIZE = 1e-3, 128  # Authors' code.
CLAIMED = 0.60  # Of the baseline's time.
# The columns of Table 2, and what the paper leaves out.
COLUMNS = tuple(
  f"{side}_{name}"
  for side in ("caption", "image")
  for name in ("r1", "r5", "r10", "median_rank", "mean_rank")
)


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the paper's: its loss, its place of the norm."""
  model = config["model"]
  return (model["loss"], model["form"]) == ("order", "separate")


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data; features are taken on trust."""
  source = curves.record["config"]["data"]["source"]
  whole = "not all of the paper's images" not in curves.record["data"]
  return source in ("coco", "coco_ids", "tfds") and whole


def level(curves: runs_lib.Curves, metric: str) -> float:
  """How good a trial is, the less the better: its best value, negative."""
  best = metrics.running_best(curves.get(metric)[1], mode="max")
  return -float(best[-1]) if len(best) else np.inf


class _Pairs(NamedTuple):
  """The runs without and with layer norm, seed by seed."""

  none: list[runs_lib.Curves]
  layer: list[runs_lib.Curves]

  def carried(self, metric: str) -> tuple[list, list]:
    """Running bests of both sides, to the end of the longest run of all."""
    found = metrics.carried(
      [claims.curve(c, metric) for c in (*self.none, *self.layer)], mode="max"
    )
    return found[: len(self.none)], found[len(self.none) :]


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Order embeddings" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; no row here is judged at those rates.

  Returns:
    A row a verdict.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  del chosen
  claims.check_equal(runs)
  # Running bests are carried on, so that budgets have to be equal here.
  claims.check_budgets(runs, ("train_steps", "eval_every", "patience"))
  sides = [Side(norm, BATCH_SIZE, CHOSEN_BY) for norm in ("none", "layer")]
  rates = {side[:2]: SHARED_RATE for side in sides}
  pairs = _Pairs(*claims.paired(runs, rates, sides))
  return [
    _own_best(pairs),
    _faster(pairs),
    *(_curve(pairs, k) for k in (1, 5, 10)),
    _table(pairs),
  ]


def _times_of_best(curves: runs_lib.Curves, metric: str) -> tuple[float, float]:
  """Updates and training seconds to a run's own best value; NaN for none."""
  steps, values = curves.get(metric)
  best = metrics.running_best(values, mode="max")
  if not len(best) or not np.isfinite(best[-1]):
    return np.nan, np.nan
  at = int(np.argmax(best == best[-1]))
  return steps[at], curves.abscissa(metric, "seconds")[at]


def _own_best(pairs: _Pairs) -> Row:
  name, beside, effects = "order.own-best", [], None
  if not pairs.none:
    return claims.row(name, None, None, "negative")
  for metric, words in ((AUTHORS, "by image retrieval"), (CHOSEN_BY, "")):
    times = np.log(
      [[_times_of_best(c, metric) for c in side] for side in pairs]
    )
    in_updates, in_seconds = (times[1] - times[0]).T
    effects = in_updates
    found = metrics.verdict(effects, claimed="negative")
    told = f"{words} " if words else ""
    told += f"ratio {np.exp(np.mean(in_updates)):.2f}"
    if found.low is not None and found.high is not None:
      low, high = np.exp([found.low, found.high])
      holds = "contains" if low <= CLAIMED <= high else "does not contain"
      told += f" [{low:.2f}, {high:.2f}], {holds} {CLAIMED:.2f}"
    told += f", in seconds {np.exp(np.mean(in_seconds)):.2f}"
    beside.append(told)
  return claims.row(name, effects, None, "negative", "; ".join(beside[::-1]))


def _faster(pairs: _Pairs) -> Row:
  name, beside, effects = "order.faster", [], None
  if not pairs.none:
    return claims.row(name, None, None, "positive")
  per_update = [
    np.mean([claims.seconds_per_update(c) for c in side]) for side in pairs
  ]
  cost = per_update[1] / per_update[0]
  for metric, words in ((AUTHORS, "by image retrieval"), (CHOSEN_BY, "")):
    none, layer = pairs.carried(metric)
    effects = metrics.paired_log_speed_ups(none, layer, mode="max")
    number = metrics.speed_up(none, layer, mode="max")
    told = f"{words} " if words else ""
    told += "speed-up "
    told += "not reached" if number.ratio is None else f"{number.ratio:.2f}"
    if number.low is not None:
      told += f" [{number.low:.2f}, {number.high:.2f}]"
    paired = np.exp(np.mean(effects))
    told += f", paired {paired:.2f}, in seconds {paired / cost:.2f}"
    beside.append(told)
  beside.insert(0, f"an update takes {cost:.2f} of the time")
  return claims.row(name, effects, None, "positive", "; ".join(beside[::-1]))


def _curve(pairs: _Pairs, k: int) -> Row:
  name = f"order.curve.r{k}"
  if not pairs.none:
    return claims.row(name, None, None, "positive")
  none, layer = (
    np.stack([values for _, values in side])
    for side in pairs.carried(f"validation/image_r{k}")
  )
  gaps = layer - none  # [seeds, evaluations]
  higher = (gaps.mean(axis=0) > 0).mean()
  beside = f"the mean is higher at {higher:.0%} of {gaps.shape[1]} evaluations"
  return claims.row(name, gaps.mean(axis=1), None, "positive", beside)


def _table(pairs: _Pairs) -> Row:
  name = "order.table"

  def last(curves, column):
    values = curves.get(f"test/{column}")[1]
    return values[-1] if len(values) else np.nan

  if not pairs.none:
    return claims.row(name, None, None, "positive")
  beside = []
  for column in COLUMNS:
    none, layer = (np.array([last(c, column) for c in side]) for side in pairs)
    words = column.replace("_", " ").replace(" r", " R@", 1)
    words = words.replace("R@ank", "rank")
    beside.append(f"{words} {layer.mean():.1f} / {none.mean():.1f}")
  none, layer = (
    np.array([last(c, "recall_sum") for c in side]) for side in pairs
  )
  return claims.row(
    name, layer - none, None, "positive", "LN / none: " + "; ".join(beside)
  )
