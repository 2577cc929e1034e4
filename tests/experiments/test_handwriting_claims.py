"""The judge of the handwriting claims, on curves with a known answer."""

import math

import pytest

from experiments import handwriting_claims
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib


def _run(norm, seed, pace, *, updates=1000, rate=3e-3):
  """A run whose likelihood after u updates is 500 log(1000 / (pace u))."""
  rows = [
    {"step": u, f"{split}/nll": 500 * math.log(1000 / (pace * u))}
    for u in range(100, updates + 1, 100)
    for split in ("train", "validation")
  ]
  config = {"train_steps": updates, "eval_every": 100}
  key = claims.Key(norm, 8, rate, seed)
  return key, runs_lib.Curves(rows, 1151, {"data": "", "config": config})


def _rows(runs, chosen=None):
  found = handwriting_claims.judge(dict(runs), chosen or {})
  return {row.id: row for row in found}


def _both(pace, seeds=3, **fields):
  return [
    _run(norm, seed, p, **fields)
    for norm, p in (("layer", pace), ("none", 1))
    for seed in range(seeds)
  ]


def test_twice_as_fast_holds_and_half_as_fast_is_contradicted():
  row = _rows(_both(2))["hand.faster"]
  assert row.verdict == "holds" and row.effect.startswith("+0.693")
  assert row.beside.count("speed-up 2.00, paired 2.00, 2.00, 2.00") == 2
  assert "LN - none -346.6 nats" in row.beside
  assert _rows(_both(0.5))["hand.faster"].verdict == "contradicted"


def test_another_rate_than_the_config_s_is_not_judged():
  runs = _both(2, rate=1e-2)
  assert _rows(runs)["hand.faster"].verdict == "not reached"
  rows = _rows([*runs, *_both(0.5)], {("layer", 8): (1e-2, False)})
  assert rows["hand.faster"].verdict == "contradicted"


def test_a_trial_that_ends_within_an_epoch_is_compared_by_its_best():
  (_, run) = _run("layer", 100, 2, updates=200)
  found = handwriting_claims.level(run, handwriting_claims.CHOSEN_BY)
  assert found == pytest.approx(500 * math.log(1000 / 400))


def test_two_seeds_decide_nothing():
  assert _rows(_both(2, seeds=2))["hand.faster"].verdict == "undecided (n = 2)"


def test_the_longer_runs_count_as_far_as_the_shorter_ones():
  runs = [_run("layer", s, 2, updates=600) for s in range(3)]
  runs += [_run("none", s, 1) for s in range(3)]
  row = _rows(runs)["hand.faster"]
  assert "to update 600" in row.beside and row.verdict == "holds"


def _at(points, b, paces, cases=3200, grain=160):
  """Runs at the reduced size, {seed: how much faster layer norm is}."""
  found = []
  for seed, pace in enumerate(paces):
    for norm, p in (("layer", pace), ("none", 1)):
      steps = range(grain // b, cases // b + 1, grain // b)
      rows = [
        {"step": u, "validation/nll": 500 * math.log(1000 / (p * u * b))}
        for u in steps
      ]
      model = {"features": 64, "layers": 3, "window": 10, "mixtures": 5}
      data = {"points": points, "source": "iam_ondb"}
      config = {"train_steps": cases // b, "eval_every": grain // b}
      config |= {"batch_size": b, "model": model, "data": data, "norm": norm}
      key = claims.Key(handwriting_claims.system(config), b, 3e-3, seed)
      found.append(
        (key, runs_lib.Curves(rows, 1151, {"data": "", "config": config}))
      )
  return found


def test_a_gain_that_grows_with_length_holds_and_one_that_shrinks_does_not():
  grows = _at(500, 8, (4, 4, 4.2)) + _at(100, 8, (2, 2, 2))
  row = _rows(grows)["hand.long"]
  assert row.verdict == "holds" and row.effect.startswith("+0.6")
  assert "500 points, batch 8: paired 4.00, 4.00" in row.beside
  assert "100 points, batch 8: paired 2.00, 2.00, 2.00" in row.beside
  shrinks = _at(500, 8, (2, 2, 2)) + _at(100, 8, (4, 4, 4.2))
  assert _rows(shrinks)["hand.long"].verdict == "contradicted"
  assert _rows(grows)["hand.small-batch"].verdict == "not reached"
  assert _rows(grows)["hand.faster"].verdict == "not reached"


def test_batch_sizes_are_compared_at_equal_cases():
  one = _at(500, 1, (4, 4, 4), cases=3200)
  many = _at(500, 32, (2, 2, 2), cases=6400)
  row = _rows(one + many)["hand.small-batch"]
  assert row.verdict == "holds" and row.effect.startswith("+0.693")
  assert "to 3,200 cases each" in row.beside
  # Twenty cases are no evaluation at a batch of 32.
  short = _at(500, 1, (4, 4, 4), cases=20, grain=2)
  assert _rows(short + many)["hand.small-batch"].verdict == "not reached"


def test_another_norm_of_the_papers_size_is_none_of_the_reduced():
  runs = _at(500, 8, (4, 4, 4)) + _at(100, 8, (2, 2, 2))
  rows = _rows([*runs, *_both(2), _run("batch", 0, 1)])
  assert rows["hand.faster"].verdict == "holds"
  assert rows["hand.long"].verdict == "holds"


def test_seeds_that_one_side_lacks_do_not_count():
  runs = _at(500, 8, (4, 4, 4)) + _at(100, 8, (2, 2))
  assert _rows(runs)["hand.long"].verdict == "undecided (n = 2)"


def test_reduced_runs_may_differ_in_length_and_batch_alone():
  runs = _at(500, 8, (4, 4, 4)) + _at(100, 8, (2, 2, 2))
  runs[-1][1].record["config"]["eval_cases"] = 7
  with pytest.raises(UserError, match="eval_cases"):
    _rows(runs)


def test_without_a_baseline_nothing_is_reached():
  runs = [_run("layer", s, 2) for s in range(3)]
  assert {row.verdict for row in _rows(runs).values()} == {"not reached"}


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("batch_size", 4),
    ("points", 250),
    ("pieces", "all"),
    ("form", "sum"),
    ("features", 64),
  ],
)
def test_the_paper_s_runs_are_judged(field, value):
  config = {
    "batch_size": 8,
    "data": {"points": 500, "pieces": "first", "source": "iam_ondb"},
    "model": {
      "form": "separate",
      "inputs": "together",
      "features": 400,
      "layers": 3,
      "window": 10,
      "mixtures": 20,
    },
  }
  assert handwriting_claims.judged(config)
  for part in (config, config["data"], config["model"]):
    if field in part:
      part[field] = value
  assert not handwriting_claims.judged(config)


@pytest.mark.parametrize(
  ("points", "b", "counts"),
  [
    (500, 8, True),
    (100, 8, True),
    (500, 1, True),
    (500, 32, True),
    (100, 1, False),
    (250, 8, False),
  ],
)
def test_the_reduced_runs_that_a_rule_names_are_judged(points, b, counts):
  config = {
    "norm": "layer",
    "batch_size": b,
    "data": {"points": points, "pieces": "first", "source": "iam_ondb"},
    "model": {
      "form": "separate",
      "inputs": "together",
      "features": 64,
      "layers": 3,
      "window": 10,
      "mixtures": 5,
    },
  }
  assert handwriting_claims.judged(config) == counts
  assert handwriting_claims.system(config) == f"layer, reduced, {points} points"
