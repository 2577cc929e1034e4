"""The judge of the DRAW claims, on curves with a known answer."""

import pytest

from experiments import draw_claims
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib


def _run(norm, seed, pace, *, epochs=6, rate=4e-3, end=80.0):
  """A run whose bounds at epoch e are end + 100 / (pace e)."""
  bounds = {e: end + 100 / (pace * e) for e in range(1, epochs + 1)}
  rows = [
    {"step": 390 * e, "test/bound": b, "validation/bound": b + 1}
    for e, b in bounds.items()
  ]
  config = {"train_steps": 390 * epochs, "eval_every": 390}
  key = claims.Key(norm, 128, rate, seed)
  return key, runs_lib.Curves(rows, 390, {"data": "", "config": config})


def _rows(runs, chosen=None):
  return {row.id: row for row in draw_claims.judge(dict(runs), chosen or {})}


def _both(pace, **fields):
  return [
    _run(norm, seed, p, **fields)
    for norm, p in (("layer", pace), ("none", 1))
    for seed in range(3)
  ]


def test_twice_as_fast_holds_and_half_as_fast_is_contradicted():
  # At epoch 6 none is where layer norm was at epoch 3.
  row = _rows(_both(2))["draw.faster"]
  assert (row.verdict, row.epoch) == ("holds", 6)
  assert row.effect.startswith("+0.693")
  assert "validation/bound: speed-up 2.00 (paired 2.00" in row.beside
  assert row.beside.count("contains 2") == 2
  assert _rows(_both(0.5))["draw.faster"].verdict == "contradicted"


def test_before_the_fifth_epoch_nothing_is_said():
  assert _rows(_both(2, epochs=4))["draw.faster"].verdict == "not reached"
  assert _rows(_both(2, epochs=5))["draw.faster"].verdict == "holds"


def test_the_bound_is_judged_at_the_paper_s_last_epoch_alone():
  row = _rows(_both(2))["draw.bound"]
  assert row.verdict == "not reached"
  assert row.beside == "gap -8.33 nats at epoch 6"
  row = _rows(_both(2, epochs=200))["draw.bound"]
  assert (row.verdict, row.epoch) == ("holds", 200)


def test_the_rate_that_the_trials_chose_is_judged():
  slow = [_run("layer", seed, 0.5, rate=1e-3) for seed in range(3)]
  runs = [*_both(2), *slow]
  chosen = {("layer", 128): (1e-3, False), ("none", 128): (4e-3, False)}
  assert _rows(runs, chosen)["draw.faster"].verdict == "contradicted"


def test_runs_that_differ_in_what_no_rule_looks_at_are_refused():
  runs = dict(_both(2))
  config = next(iter(runs.values())).record["config"]
  config["model"] = {"glimpses": 8}
  with pytest.raises(UserError, match="runs differ in model.glimpses: 8 of"):
    draw_claims.judge(runs, {})


def test_of_several_rates_the_trials_must_choose_one():
  runs = [*_both(2), _run("layer", 3, 1, rate=1e-3)]
  with pytest.raises(UserError, match=r"layer has runs at the rates \[0.001, "):
    _rows(runs)


def test_the_gap_has_the_error_of_its_latents_beside():
  runs = dict(_both(2))
  for curves in runs.values():
    curves.rows[-1]["test/bound_latent_error"] = 0.05
  assert "by its latents +-0.07 a seed" in _rows(runs)["draw.bound"].beside


@pytest.mark.parametrize("normed", ["both", "decoder"])
def test_the_paper_s_form_is_judged(normed):
  config = {"model": {"form": "cell", "normed": normed}}
  assert draw_claims.judged(config) == (normed == "both")
