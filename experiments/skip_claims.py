"""The rules of docs/claims.md for skip-thoughts."""

from typing import Any

import numpy as np

from lnrnn import claims, metrics
from lnrnn.claims import Group, Row, Runs, Side
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

CHOSEN_BY = "validation/nll"  # The best rate.
# What Table 3 and Figure 3 show, the sign that the paper gives LN - none, and
# how it is written.
SCORES = {
  "sick_pearson": ("sick-r", "positive", "{:.3f}"),
  "sick_spearman": ("sick-rho", "positive", "{:.3f}"),
  "sick_mse": ("sick-mse", "negative", "{:.3f}"),
  "mr": ("mr", "positive", "{:.1f}"),
  "cr": ("cr", "positive", "{:.1f}"),
  "subj": ("subj", "positive", "{:.1f}"),
  "mpqa": ("mpqa", "positive", "{:.1f}"),
}
MIN_ROUNDS = 5  # Pairs of timings.
MIN_SEEDS = 3  # As of `metrics.verdict`.
Pairs = list[tuple[runs_lib.Curves, runs_lib.Curves]]


def judged(config: dict[str, Any]) -> bool:
  """Whether a run is of the paper's model and loss."""
  model = config["model"]
  return config["loss"]["softmax"] == "full" and (
    model["condition"],
    model["form"],
  ) == ("initial", "separate")


def is_papers(curves: runs_lib.Curves) -> bool:
  """Whether a run used the paper's data: no file tells BookCorpus apart."""
  del curves
  return False


level = claims.best_value  # By which trials are compared.


def judge(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> list[Row]:
  """The rows of section "Skip-thoughts" of docs/claims.md.

  Args:
    runs: the reported ones.
    chosen: of `claims.best_rates`; each norm is looked at at its own.

  Returns:
    A row a verdict; "skip.equal-time" is the benchmark's.

  Raises:
    UserError: if runs differ in what no rule looks at.
  """
  claims.check_equal(runs)
  claims.check_budgets(runs, ("train_steps", "eval_every"))
  pairs = _pairs(runs, chosen)
  gate = _trained(pairs)
  few = 0 < len(pairs) < MIN_SEEDS
  passed = gate.verdict == "holds" or (
    few and gate.verdict == f"undecided (n = {len(pairs)})"
  )
  told = "" if passed else "the gate skip.trained is not passed"
  rows = [gate, _nll(pairs if passed else [], told)]
  pairs = pairs if passed else []
  step = _last_shared(pairs)
  return rows + [_score(pairs, name, step, told) for name in SCORES]


def _pairs(runs: Runs, chosen: dict[Group, tuple[float, bool]]) -> Pairs:
  """(none, LN), seed by seed, of the seeds that have finished both."""
  rates = claims.rates(runs, chosen)
  found: Pairs = []
  for size in sorted({key.batch_size for key in runs}):
    sides = [Side(norm, size, CHOSEN_BY) for norm in ("none", "layer")]
    found += zip(*claims.paired(runs, rates, sides), strict=True)
  return found


def _trained(pairs: Pairs) -> Row:
  """Does training help at all?"""
  effects, beside = [], []
  for _, layer in pairs:
    steps, values = layer.get(CHOSEN_BY)
    before = layer.get("untrained/nll")[1]
    if len(steps) and len(before):
      last = np.nan if layer.diverged else values[-1]
      effects.append(last - before[-1])
      unigram = layer.get("validation/unigram")[1]
      beside.append([values[-1], before[-1], unigram[-1]])
  name = "skip.trained"
  if not effects:
    return claims.row(
      name, None, None, "negative", "nothing untrained measured"
    )
  after, before, unigram = np.mean(beside, axis=0)
  told = (
    f"{after:.3f} nats per word, untrained {before:.3f}, by the words'"
    f" frequencies {unigram:.3f}"
  )
  return claims.row(name, np.array(effects), None, "negative", told)


def _nll(pairs: Pairs, told: str) -> Row:
  """Is layer norm faster on held-out books?"""
  name = "skip.nll"
  if not pairs:
    return claims.row(name, None, None, "positive", told)
  effects, speed = claims.faster(pairs, CHOSEN_BY, CHOSEN_BY)
  ends = [np.mean([level(p[i], CHOSEN_BY) for p in pairs]) for i in (0, 1)]
  beside = f"{speed}; best {ends[1]:.3f} against {ends[0]:.3f} nats per word"
  return claims.row(name, effects, None, "positive", beside)


def timed(found: dict[str, Any]) -> list[Row]:
  """The row of what an update costs.

  Args:
    found: the JSON file of `scripts/benchmark.py skip_thoughts`.

  Returns:
    A row for each size, of at least `MIN_ROUNDS` rounds.

  Raises:
    UserError: there are no such timings.
  """
  rows = []
  by_size: dict[str, dict[str, list[float]]] = {}
  results = found.get("results", []) if isinstance(found, dict) else []
  for row in results:
    by_size.setdefault(row["size"], {})[row["contender"]] = row["rates"]
  for size, rates in by_size.items():
    if rates.get("lnrnn") and rates.get("lnrnn_none"):
      effects = np.log(rates["lnrnn_none"]) - np.log(rates["lnrnn"])
      v = metrics.equality(effects, low=np.log(0.9), high=np.log(1.1))
      if len(effects) < MIN_ROUNDS:
        v = v._replace(verdict="undecided")
      beside = f"{size}: {np.exp(np.mean(effects)):.3f} of the time"
      rows.append(claims.told("skip.equal-time", v, None, beside))
  if not rows:
    raise UserError("--timings: has no rounds of lnrnn and lnrnn_none")
  return rows


def _last_shared(pairs: Pairs) -> int:
  """The last step at which every run that did not diverge has all scores."""
  found: set[int] | None = None
  for curves in (c for pair in pairs for c in pair if not c.diverged):
    for metric in SCORES:
      steps = set(curves.get(f"downstream/{metric}")[0].tolist())
      found = steps if found is None else found & steps
  return max(found or {0})


def _score(pairs: Pairs, metric: str, step: int, told: str) -> Row:
  """Are layer norm's vectors better at the last checkpoint of all?"""
  name, sign, form = SCORES[metric]

  def score(curves):
    steps, values = curves.get(f"downstream/{metric}")
    there = values[steps == step]
    return there[-1] if len(there) and not curves.diverged else np.nan

  if not pairs or not step:
    told = told or "no step at which all runs have been evaluated"
    return claims.row(f"skip.{name}", None, None, sign, told)
  none, layer = np.array([[score(c) for c in pair] for pair in pairs]).T
  beside = f"{form.format(layer.mean())} against {form.format(none.mean())}"
  beside += f", after {step:,} updates"
  return claims.row(f"skip.{name}", layer - none, None, sign, beside)
