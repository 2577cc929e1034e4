"""The rules of docs/claims.md for convnets, on made-up runs."""

import json

import pytest

from experiments import convnet_claims as task
from lnrnn import claims
from lnrnn.errors import UserError

SEEDS = (0, 1, 2)


def config(norm, seed, rate, **model):
  return {
    "experiment": "convnet",
    "norm": norm,
    "seed": seed,
    "batch_size": 100,
    "train_steps": 60,
    "eval_every": 10,
    "optimizer": {"learning_rate": rate, "schedule": "constant"},
    "model": {
      "padding": "zero",
      "ln_border": 0,
      "ln_form": "units",
      "widths": [16, 32],
      **model,
    },
    "data": {"source": "binary"},
  }


@pytest.fixture
def write(tmp_path):
  """(norm, test errors of six epochs, ...) writes a run for each seed."""

  def write(norm, errors, *, nll=None, rate=3e-3, seeds=SEEDS, **model):
    for seed in seeds:
      folder = tmp_path / f"{norm}{rate}{seed}{model}"
      folder.mkdir()
      record = {
        "config": config(norm, seed, rate, **model),
        "data": "made up",
        "fingerprint": "0",
        "steps_per_epoch": 10,
        "starts": [],
      }
      (folder / "config.json").write_text(json.dumps(record))
      rows = [
        {
          "step": 10 * (i + 1),
          "test/error": error + 0.001 * seed,
          "validation/error": error,
          "train/nll": (nll or errors)[i],
          "time/train_seconds": float(i + 1),
        }
        for i, error in enumerate(errors)
      ]
      text = "\n".join(map(json.dumps, rows)) + "\n"
      (folder / "metrics.jsonl").write_text(text)

  return write


def judged(folder, chosen=None):
  runs = claims.read(folder, task.judged, task.system)
  return {row.id: row for row in task.judge(runs, chosen or {})}


def falling(end):
  return [end + 0.05 * k for k in (5, 4, 3, 2, 1, 0)]


def test_each_intervention_is_a_side_of_its_own():
  names = [
    task.system(config("layer", 0, 1.0)),
    task.system(config("layer", 0, 1.0, ln_border=1)),
    task.system(config("batch", 0, 1.0, padding="circular")),
  ]
  assert names == ["layer", "layer interior 1", "batch circular"]
  assert not task.judged(config("layer", 0, 1.0, ln_form="maps"))


def test_the_papers_claims_are_judged_by_loss_and_accuracy(write, tmp_path):
  write("none", falling(0.5), nll=[6, 5, 4, 3, 2, 1])
  write("layer", falling(0.4), nll=[3, 2, 1, 0.9, 0.8, 0.7])
  write("batch", falling(0.3))
  rows = judged(tmp_path)
  assert rows["conv.ln-faster-than-none"].verdict == "holds"
  assert "speed-up 2.00" in rows["conv.ln-faster-than-none"].beside
  assert rows["conv.bn-best"].verdict == "holds"
  # The mean of the last five epochs of each, 0.1 and 0.2 apart.
  assert rows["conv.bn-best (layer)"].effect.startswith("+0.1 ")
  assert rows["conv.bn-best (none)"].effect.startswith("+0.2 ")
  assert rows["conv.border"].verdict == "not reached"
  assert rows["conv.bn-best.tuned"].verdict == "not reached"


@pytest.mark.parametrize(
  ("layer", "none", "verdict"),
  [(0.4, 0.2, "contradicted"), (0.3, 0.5, "undecided"), (0.4, 0.5, "holds")],
)
def test_batch_norm_has_to_be_ahead_of_both(
  layer, none, verdict, write, tmp_path
):
  write("none", falling(none))
  write("batch", falling(0.3))
  # Of equal means; seeds differ, so that an interval around 0 has a width.
  for seed, more in zip(SEEDS, (-0.01, 0.0, 0.01), strict=True):
    write("layer", falling(layer + more), seeds=(seed,))
  assert judged(tmp_path)["conv.bn-best"].verdict == verdict


def test_the_gap_narrows_by_what_interior_statistics_gain(write, tmp_path):
  write("none", falling(0.5))
  write("layer", falling(0.4))
  write("batch", falling(0.3))
  write("layer", falling(0.37), ln_border=1)
  write("layer", falling(0.36), padding="circular")
  write("batch", falling(0.32), padding="circular")
  row = judged(tmp_path)["conv.border"]
  assert row.verdict == "holds" and row.effect.startswith("+0.03 ")
  assert "gap +0.1000" in row.beside
  assert "circular padding +0.0400, narrower by +0.0600" in row.beside


def test_tuned_rows_are_at_the_rates_that_trials_choose(write, tmp_path):
  for norm, end in (("none", 0.5), ("layer", 0.4), ("batch", 0.3)):
    write(norm, falling(end))
    write(norm, falling(end - 0.1), rate=1e-2)
  chosen = {(n, 100): (1e-2, False) for n in ("none", "layer", "batch")}
  rows = judged(tmp_path, chosen)
  assert rows["conv.bn-best.tuned"].verdict == "holds"
  assert "accuracy 0.6990, 0.5990" in rows["conv.bn-best.tuned (layer)"].beside
  edge = {group: (1e-2, True) for group in chosen}
  rows = judged(tmp_path, edge)
  assert rows["conv.bn-best.tuned"].verdict == "not reached"


def test_runs_that_differ_in_more_are_refused(write, tmp_path):
  write("none", falling(0.5))
  write("layer", falling(0.4), widths=[8, 8])
  with pytest.raises(UserError, match="differ in model.widths"):
    judged(tmp_path)


def test_an_unfinished_run_is_not_judged(write, tmp_path):
  write("none", falling(0.5))
  write("layer", falling(0.4)[:3])
  rows = judged(tmp_path)
  assert rows["conv.ln-faster-than-none"].verdict == "not reached"
