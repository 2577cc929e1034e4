"""compare: trains what is missing, draws, and writes the table."""

import csv
import json
import shutil

import numpy as np
import pytest

from lnrnn import metrics
from lnrnn.data import mnist
from lnrnn.errors import WorkdirError
from lnrnn.training import loop, runs, writers


def _table(folder):
  with (folder / "table.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def _fake(folder, name, values, *, spe=10):
  """A run that measured `values` once an epoch."""
  run = folder / name
  run.mkdir(parents=True)
  record = {
    "config": {
      "experiment": "mnist_mlp",
      "train_steps": spe * len(values),
      "optimizer": {"schedule": "constant"},
    },
    "starts": [],
    "fingerprint": "",
    "data": "made up",
    "steps_per_epoch": spe,
  }
  (run / "config.json").write_text(json.dumps(record))
  writer = writers.MultiWriter(writers.JsonlWriter(run))
  for i, value in enumerate(values, 1):
    row = {"train/nll": value, "test/error": value / 2}
    clock = {"time/train_seconds": 0.5 * i, "time/steps_per_s": 20.0}
    writer.write(spe * i, row | clock)
  writer.close()


ARGUMENTS = ("--vary=norm=none,layer", "--vary=batch_size=16,4", "--seeds=0,1")


@pytest.fixture
def short(spec):
  return f"--config={spec},train_steps=4,eval_every=2,steps_per_dispatch=2"


_TRAINED = []  # Folder and result: trained once, by the test that comes first.


@pytest.fixture
def trained(program, few_digits, short, tmp_path_factory):
  """Folder and result of a comparison that has been trained."""
  if not _TRAINED:
    folder = tmp_path_factory.mktemp("compare")
    result = program("compare", short, *ARGUMENTS, f"--workdir={folder}")
    _TRAINED.extend((folder, result))
  return _TRAINED


def test_it_trains_every_combination_and_draws(trained):
  trained, result = trained
  assert result.code == 0, result.err
  assert (trained / "figure_epochs.png").read_bytes()[:4] == b"\x89PNG"
  assert (trained / "figure_epochs.png").stat().st_size > 5_000
  rows = _table(trained)
  variants = [(row["norm"], row["batch_size"], row["seeds"]) for row in rows]
  assert variants == [
    (norm, batch, "2") for batch in ("16", "4") for norm in ("none", "layer")
  ]
  markdown = (trained / "table.md").read_text()
  assert markdown in result.out and "made up" in result.out
  assert markdown.count("\n| ") == 1 + len(rows)
  told = "Speed-up: updates to the best train/nll of none, over"
  assert markdown.splitlines()[-1].startswith(told)
  found = {
    run.workdir.name: runs.Curves.read(run.workdir)
    for run in runs.product(
      "c",
      [("norm", ("none", "layer")), ("batch_size", ("16", "4"))],
      (0, 1),
      trained,
    )
  }
  assert len(found) == 8
  for row in rows:
    curves = {
      norm: [
        found[f"norm={norm},batch_size={row['batch_size']},seed={seed}"].get(
          "train/nll"
        )
        for seed in (0, 1)
      ]
      for norm in ("none", "layer")
    }
    last = [values[-1] for _, values in curves[row["norm"]]]
    mean, spread = row["train/nll"].split(" ± ")
    assert float(mean) == pytest.approx(np.mean(last), rel=1e-3)
    assert float(spread) == pytest.approx(np.std(last, ddof=1), rel=0.05)
    if row["norm"] == "none":
      assert row["speed-up"] == "1 (baseline)"
      continue
    want = metrics.speed_up(curves["none"], curves["layer"])
    text = "not reached" if want.ratio is None else f"{want.ratio:.2f}"
    assert row["speed-up"] == f"{text} [{want.low:.2f}, {want.high:.2f}]"


def test_a_second_call_trains_nothing_and_draws_the_same(
  program, few_digits, trained, short, monkeypatch, contents
):
  trained, _ = trained
  monkeypatch.setattr(loop, "train", None)
  before = contents(trained)
  result = program("compare", short, *ARGUMENTS, f"--workdir={trained}")
  assert result.code == 0, result.err
  after = contents(trained)
  same = [k for k in before if k != "figure_epochs.png"]
  assert {k: after[k] for k in same} == {k: before[k] for k in same}


def test_fresh_trains_anew(
  program, few_digits, trained, short, monkeypatch, tmp_path
):
  folder = tmp_path / "copy"
  shutil.copytree(trained[0], folder)
  calls = []
  monkeypatch.setattr(loop, "train", lambda *args: calls.append(args))
  result = program(
    "compare", short, *ARGUMENTS, f"--workdir={folder}", "--fresh"
  )
  assert len(calls) == 8
  assert result.code == 2 and "no run has been trained" in result.lines[0]


def test_speed_up_baseline_and_abscissa(program, spec, tmp_path):
  curves = {"none": [9, 4, 2, 2], "layer": [3, 1, 1, 1], "batch": [9, 9, 8, 8]}
  for norm, values in curves.items():
    _fake(tmp_path, f"norm={norm},seed=0", values)
  base = (f"--config={spec}", f"--workdir={tmp_path}", "--draw_only")
  vary = "--vary=norm=layer,batch,none"

  def speeds():
    return {row["norm"]: row["speed-up"] for row in _table(tmp_path)}

  assert program("compare", *base, vary, "--x=updates").code == 0
  assert speeds() == {
    "none": "1 (baseline)",
    "layer": "1.50",  # 30 updates to 2; 20 to 1.
    "batch": "not reached",
  }
  assert (tmp_path / "figure_updates.png").stat().st_size > 5_000
  result = program("compare", *base, vary, "--x=seconds", "--baseline=layer")
  assert result.code == 0
  assert speeds() == {
    "none": "not reached",
    "layer": "1 (baseline)",
    "batch": "not reached",
  }
  assert (tmp_path / "figure_seconds.png").stat().st_size > 5_000
  assert program("compare", *base, vary, "--last=2").code == 0
  (row,) = (row for row in _table(tmp_path) if row["norm"] == "layer")
  assert float(row["train/nll"]) == 1 and float(row["steps/s"]) == 20
  assert "note" not in row


def test_what_is_missing_is_marked(program, spec, tmp_path, monkeypatch):
  monkeypatch.setattr(loop, "train", None)
  _fake(tmp_path, "norm=none,seed=0", [3, 2])
  result = program(
    "compare",
    f"--config={spec}",
    f"--workdir={tmp_path}",
    "--vary=norm=none,layer",
    "--draw_only",
  )
  assert result.code == 0, result.err
  none, layer = _table(tmp_path)
  assert (none["seeds"], none["note"]) == ("1", "")
  assert (layer["seeds"], layer["note"]) == ("0", "missing")
  assert layer["train/nll"] == layer["speed-up"] == "missing"


def test_a_run_that_diverges_is_shown_and_stops_no_other(
  program, few_digits, tmp_path, short, monkeypatch
):
  arguments = (
    short,
    f"--workdir={tmp_path}",
    "--vary=optimizer.learning_rate=1e38,0.001",
    "--vary=norm=none",
    "--seeds=0,1",
  )
  result = program("compare", *arguments)
  assert result.code == 0, result.err
  first = _table(tmp_path)
  bad, good = first
  assert bad["train/nll"] == "missing" and "at step 2" in bad["note"]
  assert good["note"] == "" and float(good["train/nll"].split(" ")[0]) > 0
  # It would again, so the same is shown without training.
  monkeypatch.setattr(loop, "train", None)
  result = program("compare", *arguments)
  assert result.code == 0, result.err
  assert _table(tmp_path) == first and "--fresh" in result.out


def test_a_run_that_fails_is_told_and_stops_no_other(
  program, few_digits, tmp_path, short, monkeypatch
):
  train = loop.train

  def fail_once(config, experiment, workdir):
    if config.norm == "none":
      raise WorkdirError(f"{workdir}: the disk is full")
    train(config, experiment, workdir)

  monkeypatch.setattr(loop, "train", fail_once)
  result = program(
    "compare", short, f"--workdir={tmp_path}", "--vary=norm=none,layer"
  )
  assert result.code == 2
  assert "norm=none,seed=0: the disk is full" in result.err.splitlines()[-1]
  none, layer = _table(tmp_path)
  assert "the disk is full" in none["note"] and none["train/nll"] == "missing"
  assert float(layer["train/nll"]) > 0


def test_one_seed_without_a_curve_does_not_hide_the_other(
  program, spec, tmp_path
):
  _fake(tmp_path, "norm=none,seed=0", [3, 2])
  _fake(tmp_path, "norm=none,seed=1", [])
  writer = writers.JsonlWriter(tmp_path / "norm=none,seed=1")
  writer.write_scalars(2, {"loss": float("nan")})
  writer.close()
  result = program(
    "compare",
    f"--config={spec}",
    f"--workdir={tmp_path}",
    "--vary=norm=none",
    "--seeds=0,1",
    "--draw_only",
  )
  assert result.code == 0, result.err
  assert _table(tmp_path)[0]["train/nll"] == "2"


def test_runs_in_processes_of_their_own_are_told_apart_too(
  program, spec, tmp_path
):
  small = spec.replace("data.train_cases=100", "data.train_cases=64")
  result = program(
    "compare",
    f"--config={small},train_steps=2,steps_per_dispatch=1",
    f"--workdir={tmp_path}",
    "--vary=optimizer.learning_rate=1e38,0.001",
    "--jobs=2",
  )
  assert result.code == 0, result.err
  bad, good = _table(tmp_path)
  assert "at step 2" in bad["note"] and good["note"] == ""
  assert float(good["train/nll"]) > 0


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (["--vary=norm"], ["--vary='norm'", "field=value"]),
    (["--vary=nrom=layer"], ["'nrom'", "did you mean 'norm'"]),
    (["--vary=norm=layer,bach"], ["norm='bach'", "'batch'"]),
    (["--vary=norm=none,layer", "--vary=norm=rms"], ["each field once"]),
    (["--vary=seed=0,1"], ["--seeds"]),
    (["--seeds=0,x"], ["--seeds=0,x", "whole numbers"]),
    (["--seeds="], ["--seeds=", "whole numbers"]),
    (["--seeds=-1"], ["seed=-1", "at least 0"]),
    (["--vary=norm=none,layer", "--baseline=rms"], ["--baseline='rms'"]),
    (["--metrics=train/nll:lg"], ["'lg' is not log or max"]),
    (["--x=hours"], ["--x", "hours"]),
    (["--jobs=0"], ["--jobs", "positive"]),
    (["--fresh", "--draw_only"], ["--fresh", "--draw_only"]),
    (["--draw_only"], ["no run has been trained there"]),
  ],
)
def test_wrong_arguments_are_answered_before_any_training(
  program, spec, tmp_path, monkeypatch, arguments, parts
):
  monkeypatch.setattr(loop, "train", None)
  monkeypatch.setattr(mnist, "load", None)
  folder = tmp_path / "runs"
  result = program(
    "compare", f"--config={spec}", f"--workdir={folder}", *arguments
  )
  assert result.code == 2 and not folder.exists()
  for part in parts:
    assert part in result.lines[0]


def test_a_metric_that_no_run_has_is_answered_with_those_there_are(
  program, spec, tmp_path
):
  _fake(tmp_path, "seed=0", [3, 2])
  result = program(
    "compare",
    f"--config={spec}",
    f"--workdir={tmp_path}",
    "--draw_only",
    "--metrics=train/nll,test/eror",
  )
  assert result.code == 2
  assert "'test/eror'" in result.lines[0] and "test/error" in result.lines[0]
