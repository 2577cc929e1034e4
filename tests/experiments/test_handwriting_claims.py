"""The judge of the handwriting claims, on curves with a known answer."""

import math

import pytest

from experiments import handwriting_claims
from lnrnn import claims
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


def test_two_seeds_decide_nothing():
  assert _rows(_both(2, seeds=2))["hand.faster"].verdict == "undecided (n = 2)"


def test_the_longer_runs_count_as_far_as_the_shorter_ones():
  runs = [_run("layer", s, 2, updates=600) for s in range(3)]
  runs += [_run("none", s, 1) for s in range(3)]
  row = _rows(runs)["hand.faster"]
  assert "to update 600" in row.beside and row.verdict == "holds"


def test_without_a_baseline_nothing_is_reached():
  runs = [_run("layer", s, 2) for s in range(3)]
  assert {row.verdict for row in _rows(runs).values()} == {"not reached"}


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("batch_size", 4),
    ("points", 100),
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
