"""The judge of the MNIST claims, on curves with a known answer."""

import json
import math
import shutil

import numpy as np
import pytest

from experiments import mnist_claims as task
from lnrnn import claims
from lnrnn.data import mnist
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

ERROR = task.CHOSEN_BY


def _run(norm, batch_size, seed, decay, *, epochs=10, rate=1e-3, error=0.02):
  """A run whose training NLL at epoch e is exp(-decay e)."""
  rows = [
    {
      "step": 100 * e,
      "train/nll": math.exp(-decay * e),
      "train/nll_minibatch": math.exp(-2 * decay * e),
      "test/error": error,
      "validation/error": error + rate,
    }
    for e in range(1, epochs + 1)
  ]
  config = {"train_steps": 100 * epochs, "eval_every": 100}
  record = {"data": "", "config": config}
  key = claims.Key(norm, batch_size, rate, seed)
  return key, runs_lib.Curves(rows, 100, record)


def _rows(runs, chosen=None):
  return {row.id: row for row in task.judge(dict(runs), chosen or {})}


def test_a_faster_variant_holds_and_a_slower_one_is_contradicted():
  speed = {"layer": 1.0, "batch": 0.4, "none": 3.0}
  runs = [
    _run(norm, 128, seed, decay)
    for norm, decay in speed.items()
    for seed in range(3)
  ]
  rows = _rows(runs)
  found = rows["mnist.faster-than-bn.b128"]
  assert (found.verdict, found.epoch) == ("holds", 10)
  # The baseline's best is exp(-4), which layer norm passes at epoch 4.
  assert found.beside.startswith("speed-up 2.50; gap +3.30;")
  assert found.beside.endswith("0.1: 600 / 300; 0.01: - / 500; 0.001: - / 700")
  assert found.effect.startswith("+0.916")  # ln(10 / 4)
  assert rows["mnist.faster-than-none.b128"].verdict == "contradicted"
  assert rows["mnist.faster-than-bn.b4"].verdict == "not reached"


def test_minibatch_rows_use_batch_norms_minibatch_statistics():
  runs = [
    _run(norm, 128, seed, decay)
    for norm, decay in (("layer", 1.0), ("batch", 0.9))
    for seed in range(3)
  ]
  rows = _rows(runs)
  assert rows["mnist.faster-than-bn.b128"].effect.startswith("+0")
  assert rows["mnist.faster-than-bn.b128.minibatch"].verdict == "contradicted"


def test_robustness_compares_the_loss_of_level_from_batch_128_to_4():
  decays = {("layer", 128): 1.0, ("layer", 4): 0.9}
  decays |= {("batch", 128): 1.0, ("batch", 4): 0.5}
  runs = [
    _run(norm, b, seed, decay + 0.01 * seed)
    for (norm, b), decay in decays.items()
    for seed in range(3)
  ]
  row = _rows(runs)["mnist.batch-robust"]
  assert row.verdict == "holds"
  # Mean of e over the last five of ten epochs is 8: 0.1 * 8 - 0.5 * 8.
  assert row.effect.startswith("-3.2")
  rows = _rows(
    [
      _run(n, b, s, 1.0, error=0.02 if b == 128 else 0.03 + s / 1e4)
      for n in ("layer", "batch")
      for b in (128, 4)
      for s in range(3)
    ]
  )
  assert rows["mnist.batch-robust.absolute"].verdict == "contradicted"
  assert rows["mnist.batch-robust.error"].verdict == "undecided"


def test_few_seeds_and_short_runs_decide_nothing():
  two = [_run(n, 128, s, 1.0) for n in ("layer", "batch") for s in (0, 1)]
  assert _rows(two)["mnist.faster-than-bn.b128"].verdict == "undecided (n = 2)"
  short = [
    _run(n, 128, s, 1.0, epochs=9) for n in ("layer", "batch") for s in range(3)
  ]
  assert _rows(short)["mnist.faster-than-bn.b128"].verdict == "not reached"


def test_tuned_rows_use_the_rate_that_the_trials_choose():
  trials = dict(
    _run(norm, 128, 100, 1.0, rate=rate, error=error)
    for norm in ("layer", "batch")
    for rate, error in ((3e-4, 0.05), (1e-3, 0.01), (3e-3, 0.04))
  )
  chosen = claims.best_rates(trials, ERROR)
  assert chosen[("layer", 128)] == (1e-3, False)
  runs = [
    _run(norm, 128, seed, decay, rate=rate)
    for norm, decay, rate in (("layer", 1.0, 3e-4), ("batch", 0.4, 1e-3))
    for seed in range(3)
  ]
  chosen[("layer", 128)] = 3e-4, False
  rows = _rows(runs, chosen)
  assert rows["mnist.faster-than-bn.b128.tuned"].verdict == "holds"
  assert rows["mnist.faster-than-bn.b128"].verdict == "not reached"
  # The best rate at the edge of the grid may not be the best there is.
  chosen[("layer", 128)] = 3e-4, True
  row = _rows(runs, chosen)["mnist.faster-than-bn.b128.tuned"]
  assert row.verdict == "not reached"


def _dead(run, after, *, evaluated=True):
  """The run, its loss infinite after an epoch."""
  key, curves = run
  rows = [r for r in curves.rows if r["step"] <= 100 * after]
  rows = rows if evaluated else []
  rows.append(
    {"step": 100 * after + 1, "loss": math.nan, "nonfinite": ["loss"]}
  )
  return key, runs_lib.Curves(rows, 100, curves.record)


def test_a_trial_that_diverged_is_never_the_best():
  bad = _dead(_run("layer", 4, 100, 1.0, rate=3e-4, error=0.0), 8)
  trials = dict([bad, _run("layer", 4, 100, 1.0, error=0.5)])
  assert claims.best_rates(trials, ERROR)[("layer", 4)][0] == 1e-3


def test_trials_that_are_not_equal_choose_nothing():
  layer = [_run("layer", 4, 100, 1.0, rate=r) for r in (1e-3, 3e-3)]
  batch = [_run("batch", 4, 100, 1.0, rate=r) for r in (1e-3, 1e-2)]
  with pytest.raises(UserError, match="not equal"):
    claims.best_rates(dict(layer + batch), ERROR)
  longer = _run("layer", 4, 100, 1.0, rate=1e-2, epochs=11)
  with pytest.raises(UserError, match="not equal"):
    claims.best_rates(dict([*layer, longer]), ERROR)
  key, curves = layer[0]
  half = key, runs_lib.Curves(curves.rows[:5], 100, curves.record)
  with pytest.raises(UserError, match="at step 500 of 1000"):
    claims.best_rates(dict([half, layer[1]]), ERROR)


def test_a_seed_that_diverged_moves_no_epoch_and_takes_the_interval():
  runs = [
    _run(norm, 128, seed, decay, epochs=20)
    for norm, decay in (("layer", 1.0), ("batch", 0.4))
    for seed in range(3)
  ]
  runs[3] = _dead(runs[3], 12)
  assert _rows(runs)["mnist.faster-than-bn.b128"].epoch == 20
  runs[3:] = [_dead(run, 0, evaluated=False) for run in runs[3:]]
  row = _rows(runs)["mnist.faster-than-bn.b128"]
  assert (row.verdict, row.epoch) == ("holds", 20)
  levels = [
    _run(n, b, s, 1.0, epochs=10, error=0.02)
    for n in ("layer", "batch")
    for b in (4, 128)
    for s in range(3)
  ]
  levels[6] = _dead(levels[6], 7)
  assert _rows(levels)["mnist.batch-robust"].verdict == "undecided"


def test_online_counts_a_run_that_ends_non_finite_as_all_wrong():
  runs = [_run("layer", 1, s, 1.0, epochs=3, error=0.05) for s in range(3)]
  assert _rows(runs)["mnist.online"].verdict == "holds"
  runs[0] = _dead(runs[0], 1)
  row = _rows(runs)["mnist.online"]
  assert row.verdict == "undecided"
  assert row.effect.startswith(f"{(0.9 - 0.05 - 0.05) / 3:+.3g}")
  runs[1] = runs[1][0], runs_lib.Curves([], 100, runs[1][1].record)
  assert _rows(runs)["mnist.online"].verdict == "not reached"


def test_runs_are_read_by_what_distinguishes_them(tmp_path):
  config = {
    "experiment": "mnist_mlp",
    "norm": "layer",
    "batch_size": 4,
    "seed": 2,
    "optimizer": {"learning_rate": 1e-3},
    "model": {"norm_output": False},
  }
  record = {"starts": [], "steps_per_epoch": 10}
  record |= {"config": config, "data": "", "fingerprint": ""}

  def write(name, **changed):
    folder = tmp_path / name
    folder.mkdir()
    record["config"] = config | changed
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text('{"step": 10, "train/nll": 1.5}\n')

  write("a")
  write("b", model={"norm_output": True})  # Not the paper's: shown, unjudged.
  runs = claims.read(tmp_path, task.judged)
  assert list(runs) == [claims.Key("layer", 4, 1e-3, 2)]
  steps, values = runs[claims.Key("layer", 4, 1e-3, 2)].get("train/nll")
  np.testing.assert_array_equal([steps, values], [[10], [1.5]])
  write("c")
  with pytest.raises(UserError, match="two runs"):
    claims.read(tmp_path, task.judged)
  for name in "ac":
    shutil.rmtree(tmp_path / name)
  with pytest.raises(UserError, match="the rules are for none of its 1 runs"):
    claims.read(tmp_path, task.judged)
  shutil.rmtree(tmp_path / "b")
  with pytest.raises(UserError, match="no runs there"):
    claims.read(tmp_path, task.judged)


def test_one_epoch_evaluated_often_is_enough_online():
  runs = [
    _run(norm, 1, seed, decay, epochs=10)
    for norm, decay in (("layer", 1.0), ("none", 0.4))
    for seed in range(3)
  ]
  runs = [  # Ten evaluations in one epoch; all but the last are worthless.
    (
      key,
      runs_lib.Curves(
        [
          row | {"test/error": 0.05 if row["step"] == 1000 else 0.9}
          for row in curves.rows
        ],
        1000,
        curves.record,
      ),
    )
    for key, curves in runs
  ]
  rows = _rows(runs)
  assert rows["mnist.online"].verdict == "holds"
  assert rows["mnist.online"].effect.startswith("-0.05")
  found = rows["mnist.online.faster-than-none"]
  assert found.verdict == "holds" and found.effect.startswith("+0.916")
  short = [(k, runs_lib.Curves(c.rows[:2], 1000, c.record)) for k, c in runs]
  rows = _rows(short)
  assert rows["mnist.online"].verdict == "not reached"
  assert rows["mnist.online.faster-than-none"].verdict == "not reached"


@pytest.mark.parametrize("cases", [55_000, 1_000])
def test_the_program_says_where_the_data_is_not_the_papers(
  program, tmp_path, cases
):
  for seed in range(3):
    for norm, decay in (("layer", 1.0), ("batch", 0.4)):
      _, curves = _run(norm, 128, seed, decay)
      config = curves.record["config"] | {
        "experiment": "mnist_mlp",
        "norm": norm,
        "batch_size": 128,
        "seed": seed,
        "optimizer": {"learning_rate": 1e-3},
        "model": {"norm_output": norm == "batch"},
        "data": {"train_cases": cases},
      }
      record = {
        "config": config,
        "data": "",
        "fingerprint": mnist.WHOLE,
        "steps_per_epoch": 100,
        "starts": [{"git_commit": "0123456789"}],
      }
      folder = tmp_path / f"{norm}{seed}"
      folder.mkdir()
      (folder / "config.json").write_text(json.dumps(record))
      text = "".join(json.dumps(row) + "\n" for row in curves.rows)
      (folder / "metrics.jsonl").write_text(text)
  result = program("claims", f"--workdir={tmp_path}")
  assert result.code == 0, result.err
  found = {
    row["id"]: row["verdict"]
    for row in json.loads((tmp_path / "claims.json").read_text())
  }
  suffix = "" if cases == 55_000 else " on substitute data"
  assert found["mnist.faster-than-bn.b128"] == "holds" + suffix
  assert "6 runs, by commits 01234567." in result.out
  result = program("claims", f"--workdir={tmp_path}", f"--trials={tmp_path}")
  assert result.code == 2 and "in the trials and reported" in result.err
