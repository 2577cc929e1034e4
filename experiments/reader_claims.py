"""The rules of docs/claims.md for the attentive reader."""

from typing import Any, NamedTuple

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/nll"  # The best rate.
ERROR, NLL = "validation/error", "train/nll"
BASELINES = tuple(
  f"validation/{name}_error" for name in ("most_frequent", "first", "random")
)
GATE = 0.05  # The best system has to be so far below the best of those.
# What layer norm is compared with, as the rows call it.
OTHERS = {"none": "lstm", "batch": "bn-lstm", "everywhere": "bn-everywhere"}
SMALL_GAIN = "layer, gain 0.1"
# The fields in which runs may differ besides norm, rate and seed.
FREE = ("model.norm_everywhere", "model.gain_init")


def system(config: dict[str, Any]) -> str:
  """What a run is in Figure 2; "" for none of it."""
  model, norm = config["model"], config["norm"]
  everywhere, gain = model["norm_everywhere"], model["gain_init"]
  if everywhere:
    return "everywhere" if norm == "batch" and gain is None else ""
  if norm == "layer":
    return {None: "layer", 1.0: "layer", 0.1: SMALL_GAIN}.get(gain, "")
  return norm if norm in OTHERS and gain is None else ""


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is one of the paper's systems, measured as told."""
  anew = config["norm"] != "batch" or config["eval_bn_batches"] > 0
  separate = config["model"]["form"] == "separate"
  return bool(system(config)) and separate and anew


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data."""
  return curves.record["config"]["data"]["source"] == "cnn"


level = claims.best_value  # By which trials are compared.


class _Sides(NamedTuple):
  """The runs of each system, at the rate it is judged at."""

  of: dict[str, dict[int, runs_lib.Curves]]

  def pairs(self, first: str, second: str) -> list[tuple[Any, Any]]:
    """The runs of two systems, seed by seed."""
    a, b = self.of.get(first, {}), self.of.get(second, {})
    return [(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Attentive reader" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; with it the rows are "tuned".

  Returns:
    A row a verdict.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  claims.check_equal(runs, free=FREE)
  # Running bests are compared, so that budgets have to be equal here.
  claims.check_budgets(runs, ("train_steps", "eval_every"))
  rates = claims.rates(runs, chosen)
  sides = _Sides(
    {
      name: {
        seed: curves
        for seed, curves in claims.of_side(
          runs, Side(name, size, ERROR), rate
        ).items()
        if claims.done(curves)
      }
      for (name, size), rate in rates.items()
      # With trials, what had none is not tuned.
      if not chosen or (name, size) in chosen
    }
  )
  end = ".tuned" if chosen else ""
  passed, told = _gate(sides)
  rows = []
  for other, words in OTHERS.items():
    ways = [("", "")]
    if other != "none":
      ways.append((".minibatch", "minibatch_"))
    for suffix, prefix in ways:
      name = f".{words}{suffix}{end}"
      metric = ERROR.replace("/", f"/{prefix}")
      pairs = sides.pairs(other, "layer")
      rows += _both(name, pairs if passed else [], metric, ERROR, told)
      if pairs and not passed:
        nll = NLL.replace("/", f"/{prefix}")
        rows += _both(f"{name}.nll", pairs, nll, NLL, "")
  pairs = sides.pairs(SMALL_GAIN, "layer")
  rows.append(_gain(end, pairs if passed else [], ERROR, told))
  if pairs and not passed:
    rows.append(_gain(f"{end}.nll", pairs, NLL, ""))
  return rows


def _gain(end, pairs, metric, told) -> Row:
  """Is an initial gain of 1 better than one of 0.1?"""
  row = _lower(f"reader.gain{end}", pairs, metric, metric, told)
  if not pairs:
    return row
  faster = _both(end, pairs, metric, metric, "")[0].beside
  return row._replace(beside=f"{row.beside}; {faster}")


def _gate(sides: _Sides) -> tuple[bool, str]:
  """Whether a system has learnt to read, and how that is told."""
  found = {}
  for name, held in sides.of.items():
    ends = [level(curves, ERROR) for curves in held.values()]
    if ends:
      found[name] = float(np.mean(ends))
  baselines = [
    float(values[-1])
    for held in sides.of.values()
    for curves in held.values()
    for values in (curves.get(name)[1] for name in BASELINES)
    if len(values)
  ]
  if not found or not baselines:
    return False, "no baseline was measured"
  best, baseline = min(found.values()), min(baselines)
  told = f"best system {best:.1%} of errors, best guess {baseline:.1%}"
  return best <= baseline - GATE, told


def _both(name, pairs, metric, own, told) -> list[Row]:
  """Is layer norm faster, and does it end lower?

  Args:
    name: end of the rows' ids.
    pairs: (other, layer norm), seed by seed; [] where the runs do not get
      there.
    metric: of the other.
    own: of layer norm.
    told: beside.
  """
  if not pairs:
    return [
      claims.row(f"reader.{kind}{name}", None, None, "positive", told)
      for kind in ("faster", "lower")
    ]
  effects, speed = claims.faster(pairs, metric, own)
  return [
    claims.row(
      f"reader.faster{name}",
      effects,
      None,
      "positive",
      "; ".join(filter(None, [speed, told])),
    ),
    _lower(f"reader.lower{name}", pairs, metric, own, told),
  ]


def _lower(name, pairs, metric, own, told) -> Row:
  """The second's running best at the last shared update, less the first's."""
  if not pairs:
    return claims.row(name, None, None, "negative", told)
  effects, ends = [], []
  for a, b in pairs:
    (steps, values), (own_steps, own_values) = (
      claims.curve(a, metric),
      claims.curve(b, own),
    )
    last = min(max(steps, default=0), max(own_steps, default=0))
    end = [
      metrics.running_best(v[s <= last], mode="min")[-1]
      for s, v in ((steps, values), (own_steps, own_values))
    ]
    ends.append(end)
    effects.append(end[1] - end[0])
  first, second = np.mean(ends, axis=0)
  beside = f"{second:.3g} against {first:.3g}"
  beside += f"; {told}" if told else ""
  return claims.row(name, np.array(effects), None, "negative", beside)
