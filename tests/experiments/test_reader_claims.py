"""The rules of docs/claims.md for the attentive reader, on made-up runs."""

import json

import numpy as np
import pytest

from experiments import reader_claims as task
from lnrnn import claims
from lnrnn.errors import UserError

SEEDS = (0, 1, 2)


def config(system, seed, rate, **model):
  norm = {"everywhere": "batch", task.SMALL_GAIN: "layer"}.get(system, system)
  own = {
    "form": "separate",
    "norm_everywhere": system == "everywhere",
    "gain_init": 0.1 if system == task.SMALL_GAIN else None,
    **model,
  }
  return {
    "experiment": "attentive_reader",
    "norm": norm,
    "seed": seed,
    "batch_size": 32,
    "train_steps": 40,
    "eval_every": 10,
    "optimizer": {"learning_rate": rate, "schedule": "constant"},
    "model": own,
    "data": {"source": "novels"},
    "eval_bn_batches": 50,
  }


@pytest.fixture
def write(tmp_path):
  """(system, errors of four evaluations, ...) writes a run for each seed."""

  def write(
    system, errors, *, nll=None, minibatch=None, rate=1e-3, seeds=SEEDS
  ):
    for seed in seeds:
      folder = tmp_path / f"{system}{rate}{seed}"
      folder.mkdir()
      record = {
        "config": config(system, seed, rate),
        "data": "made up",
        "fingerprint": "0",
        "steps_per_epoch": 10,
        "starts": [],
      }
      (folder / "config.json").write_text(json.dumps(record))
      rows = []
      for i, error in enumerate(errors):
        row = {
          "step": 10 * (i + 1),
          "validation/error": error + 0.001 * seed,
          "validation/nll": 2 * error,
          "train/nll": (nll or errors)[i],
          "validation/most_frequent_error": 0.7,
          "validation/random_error": 0.6,
          "time/train_seconds": float(i + 1),
        }
        if system in ("batch", "everywhere"):
          row["validation/minibatch_error"] = (minibatch or errors)[i]
          row["train/minibatch_nll"] = (nll or errors)[i]
        rows.append(json.dumps(row))
      (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")

  return write


def judged(folder, chosen=None):
  runs = claims.read(folder, task.judged, task.system)
  return {row.id: row for row in task.judge(runs, chosen or {})}


def test_each_system_of_figure_2_is_a_side_of_its_own():
  for name in ("layer", "none", "batch", "everywhere", task.SMALL_GAIN):
    assert task.system(config(name, 0, 1e-3)) == name
    assert task.judged(config(name, 0, 1e-3))
  assert task.system(config("layer", 0, 1e-3, gain_init=1.0)) == "layer"
  for other in (
    config("weight", 0, 1e-3),
    config("layer", 0, 1e-3, norm_everywhere=True),
    config("layer", 0, 1e-3, form="sum"),
    config("layer", 0, 1e-3, gain_init=0.5),
    config("batch", 0, 1e-3, gain_init=1.0),
    {**config("batch", 0, 1e-3), "eval_bn_batches": 0},
  ):
    assert not task.judged(other)


def test_where_a_system_reads_the_rows_are_on_error(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  write("none", [0.7, 0.7, 0.6, 0.5])
  write("batch", [0.6, 0.3, 0.3, 0.2], minibatch=[0.7, 0.7, 0.7, 0.6])
  rows = judged(tmp_path)
  assert rows["reader.faster.lstm"].verdict == "holds"
  assert rows["reader.lower.lstm"].verdict == "holds"
  assert rows["reader.lower.lstm"].effect.startswith("-0.2")
  assert rows["reader.faster.bn-lstm"].verdict == "contradicted"
  assert rows["reader.lower.bn-lstm"].verdict == "contradicted"
  # By the statistics of minibatches it is the other way round.
  assert rows["reader.lower.bn-lstm.minibatch"].verdict == "holds"
  assert rows["reader.lower.bn-everywhere"].verdict == "not reached"
  assert rows["reader.gain"].verdict == "not reached"
  assert not any(name.endswith(".nll") for name in rows)


def test_where_none_reads_the_rows_are_on_training_nll(write, tmp_path):
  write("layer", [0.7, 0.65, 0.6, 0.56], nll=[2.3, 2.0, 1.8, 1.5])
  write("none", [0.7, 0.7, 0.65, 0.6], nll=[2.3, 2.3, 2.2, 2.1])
  rows = judged(tmp_path)
  assert rows["reader.lower.lstm"].verdict == "not reached"
  assert "best guess 60.0%" in rows["reader.lower.lstm"].beside
  assert rows["reader.lower.lstm.nll"].verdict == "holds"
  assert rows["reader.lower.lstm.nll"].effect.startswith("-0.6")
  assert rows["reader.faster.lstm.nll"].verdict == "holds"


def test_the_gate_is_five_points_below_the_best_guess(write, tmp_path):
  write("layer", [0.7, 0.56, 0.56, 0.5485])  # 0.549 over the seeds.
  write("none", [0.7, 0.7, 0.65, 0.6])
  assert "reader.lower.lstm.nll" not in judged(tmp_path)


def test_the_gain_is_judged_by_error(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  write(task.SMALL_GAIN, [0.7, 0.4, 0.3, 0.2])
  rows = judged(tmp_path)
  assert rows["reader.gain"].verdict == "contradicted"
  assert rows["reader.gain"].effect.startswith("+0.1")


def test_each_system_is_judged_at_the_rate_its_trials_chose(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3], rate=1e-3)
  write("none", [0.7, 0.7, 0.6, 0.5], rate=3e-3)
  chosen = {("layer", 32): (1e-3, False), ("none", 32): (3e-3, True)}
  rows = judged(tmp_path, chosen)
  assert rows["reader.lower.lstm.tuned"].verdict == "holds"


def test_what_no_trial_tuned_is_not_reached(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  write("none", [0.7, 0.7, 0.6, 0.5])
  rows = judged(tmp_path, {("layer", 32): (1e-3, False)})
  assert rows["reader.lower.lstm.tuned"].verdict == "not reached"


def test_runs_that_are_not_done_are_left_out(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  write("none", [0.7, 0.7, 0.6, 0.5])
  path = tmp_path / "none0.0010" / "metrics.jsonl"
  path.write_text("".join(path.read_text().splitlines(True)[:2]))
  row = judged(tmp_path)["reader.lower.lstm"]
  assert row.verdict == "undecided (n = 2)"
  path.write_text("")
  assert judged(tmp_path)["reader.lower.lstm"].verdict == row.verdict


def test_runs_of_other_lengths_are_refused(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  path = tmp_path / "layer0.0010" / "config.json"
  record = json.loads(path.read_text())
  record["config"]["train_steps"] = 80
  path.write_text(json.dumps(record))
  with pytest.raises(UserError, match=r"differ in train_steps: \[40, 80\]"):
    judged(tmp_path)


def test_a_trial_is_as_good_as_its_best_value(write, tmp_path):
  write("layer", [0.7, 0.4, 0.5, 0.6], seeds=(9,))
  runs = claims.read(tmp_path, task.judged, task.system)
  (curves,) = runs.values()
  assert task.level(curves, task.CHOSEN_BY) == pytest.approx(0.8)
  assert np.isinf(task.level(curves, "validation/absent"))


def test_runs_on_other_words_are_not_compared(write, tmp_path):
  write("layer", [0.7, 0.5, 0.4, 0.3])
  write("none", [0.7, 0.7, 0.6, 0.5])
  path = tmp_path / "none0.0010" / "config.json"
  record = json.loads(path.read_text())
  record["config"]["data"]["source"] = "babi"
  path.write_text(json.dumps(record))
  with pytest.raises(UserError, match=r"differ in data\.source"):
    judged(tmp_path)
