"""The judge of the order claims, on curves with a known answer."""

import numpy as np
import pytest

from experiments import order_claims
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

EVERY = 25


def _run(norm, seed, pace, *, top=200.0, length=60, rate=1e-3, seconds=1.0):
  """A run that reaches `top` after 1000 / pace updates, and then loses."""
  rows = []
  for step in EVERY * np.arange(1, length + 1):
    share = pace * step / 1000
    value = top * min(share, 1) if share <= 1 else top - 1
    row = {"step": int(step), "time/train_seconds": seconds * int(step)}
    row |= {"validation/recall_sum": value + 0.1 * seed}
    row |= {"validation/image_recall_sum": value / 2}
    row |= {f"validation/image_r{k}": value / 6 for k in (1, 5, 10)}
    rows.append(row)
  rows[-1]["test/recall_sum"] = top - seed
  for name in order_claims.COLUMNS:
    rows[-1][f"test/{name}"] = top / 6
  config = {
    "train_steps": EVERY * length,
    "eval_every": EVERY,
    "patience": 0,
    "best": "validation/recall_sum:max",
    "model": {"loss": "order", "form": "separate"},
    "data": {"source": "flickr8k"},
  }
  key = claims.Key(norm, 128, rate, seed)
  return key, runs_lib.Curves(rows, 46, {"data": "", "config": config})


def _rows(runs):
  return {row.id: row for row in order_claims.judge(dict(runs), {})}


def _both(pace, seeds=3, **fields):
  return [
    _run(norm, seed, p, **(fields if norm == "layer" else {}))
    for norm, p in (("layer", pace), ("none", 1))
    for seed in range(seeds)
  ]


def _stopped(runs):
  """The runs as of one budget, which their patience has ended."""
  for _, curves in runs:
    curves.record["config"] |= {"train_steps": 100 * EVERY, "patience": 3}
  return runs


def test_twice_as_fast_to_the_same_value_holds():
  rows = _rows(_both(2, seconds=1.5))
  best = rows["order.own-best"]
  assert best.verdict == "holds" and best.effect.startswith("-0.693")
  assert best.beside.startswith(
    "ratio 0.50 [0.50, 0.50], does not contain 0.60"
  )
  assert "in seconds 0.75" in best.beside
  faster = rows["order.faster"]
  assert faster.verdict == "holds" and faster.effect.startswith("+0.693")
  assert faster.beside.startswith("speed-up 2.00")
  assert "an update takes 1.50 of the time" in faster.beside
  assert "paired 2.00, in seconds 1.33" in faster.beside
  for k in (1, 5, 10):
    row = rows[f"order.curve.r{k}"]
    # Higher until both are at their best, equal after that.
    assert row.verdict == "holds" and "at 65% of 60" in row.beside


def test_half_as_fast_is_contradicted():
  rows = _rows(_stopped(_both(0.5, length=100)))
  verdicts = {name: row.verdict for name, row in rows.items()}
  assert verdicts.pop("order.table") == "undecided"
  assert set(verdicts.values()) == {"contradicted"}


def test_a_better_table_holds_and_shows_its_columns():
  row = _rows(_both(1, top=212.0))["order.table"]
  assert row.verdict == "holds" and row.effect.startswith("+12")
  assert "caption R@1 35.3 / 33.3" in row.beside
  assert "image mean rank 35.3 / 33.3" in row.beside


def test_a_run_that_stopped_early_keeps_its_best():
  """The variant stops at step 600, at the baseline's best."""
  runs = _stopped(_both(2, length=24))
  rows = _rows(runs)
  assert rows["order.faster"].verdict == "holds"
  assert "of 60 evaluations" in rows["order.curve.r5"].beside
  assert rows["order.curve.r5"].verdict == "holds"


def test_a_seed_that_is_not_done_is_left_out():
  runs = dict(_both(2, seeds=4))
  key = claims.Key("layer", 128, 1e-3, 3)
  del runs[key].rows[40:]
  rows = _rows(runs)
  assert rows["order.faster"].verdict == "holds"
  del runs[claims.Key("none", 128, 1e-3, 0)].rows[40:]
  assert _rows(runs)["order.faster"].verdict == "undecided (n = 2)"


def test_without_a_baseline_nothing_is_reached():
  rows = _rows([_run("layer", s, 2) for s in range(3)])
  assert {row.verdict for row in rows.values()} == {"not reached"}


def test_other_rates_are_not_judged():
  runs = [
    _run(norm, s, 1, rate=2e-3) for norm in ("none", "layer") for s in range(3)
  ]
  assert {row.verdict for row in _rows(runs).values()} == {"not reached"}


def test_unequal_runs_are_refused():
  runs = dict(_both(1))
  runs[claims.Key("none", 128, 1e-3, 1)].record["config"]["model"]["loss"] = "x"
  with pytest.raises(UserError, match=r"runs differ in model\.loss"):
    _rows(runs)


@pytest.mark.parametrize("field", ["train_steps", "eval_every", "patience"])
def test_unequal_budgets_are_refused(field):
  runs = dict(_both(1))
  runs[claims.Key("none", 128, 1e-3, 1)].record["config"][field] += 1
  with pytest.raises(UserError, match=f"runs differ in {field}"):
    _rows(runs)


def test_a_run_that_diverged_is_judged_by_what_it_had():
  runs = dict(_both(1))
  curves = runs[claims.Key("layer", 128, 1e-3, 1)]
  curves.rows[20:] = [{"step": 510, "fault": "loss is not finite at step 510"}]
  rows = _rows(runs)
  assert "an update takes 1.00 of the time" in rows["order.faster"].beside
  assert rows["order.table"].verdict == "undecided"


def test_the_best_rate_has_the_best_value_of_all_updates():
  trials = dict(
    _run(norm, 100, 1, rate=rate, top=top)
    for norm, tops in (("layer", (210, 220, 215)), ("none", (220, 210, 200)))
    for rate, top in zip((5e-4, 1e-3, 2e-3), tops, strict=True)
  )
  found = claims.best_rates(trials, order_claims.CHOSEN_BY, order_claims.level)
  assert found == {("layer", 128): (1e-3, False), ("none", 128): (5e-4, True)}


def test_which_runs_are_judged_and_whose_data_is_the_paper_s():
  config = {"model": {"loss": "cosine", "form": "separate"}}
  assert not order_claims.judged(config)
  _, curves = _run("layer", 0, 1)
  assert order_claims.judged(curves.record["config"])
  assert not order_claims.is_papers(curves)
  curves.record["config"]["data"]["source"] = "coco"
  assert order_claims.is_papers(curves)
  curves.record["data"] = "MS-COCO: 8 train (not all of the paper's images)"
  assert not order_claims.is_papers(curves)
