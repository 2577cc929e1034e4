"""evaluate: the numbers of a trained run, from its checkpoints."""

import json

import pytest

from experiments import launch
from lnrnn.training import writers


@pytest.fixture(scope="module")
def run(tmp_path_factory, spec, digits):
  """A workdir trained with batch norm."""
  from lnrnn.data import mnist

  folder = tmp_path_factory.mktemp("evaluate")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mnist, "load", lambda source, path: digits)
    # The wrong way round, so that the first evaluation is the best one.
    launch.train(f"{spec},norm=batch,best=validation/nll:max", folder)
  return folder


def _evals(run):
  rows = [row for row in writers.read_metrics(run) if "test/nll" in row]
  return {
    row["step"]: {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in rows
  }


def test_latest_gives_the_last_row_of_the_run(
  program, few_digits, run, contents
):
  before = contents(run)
  result = program("evaluate", f"--workdir={run}")
  assert result.code == 0, result.err
  assert json.loads(result.out) == _evals(run)[20]
  assert "train/nll_minibatch" in result.out
  assert contents(run) == before


def test_best_gives_the_row_that_decides_on_one_split(program, few_digits, run):
  result = program(
    "evaluate", f"--workdir={run}", "--checkpoint=best", "--split=validation"
  )
  assert result.code == 0, result.err
  found = json.loads(result.out)
  rows = _evals(run)
  assert rows[10]["validation/nll"] > rows[20]["validation/nll"]
  best = max(rows, key=lambda step: rows[step]["validation/nll"])
  assert found == {
    k: v
    for k, v in rows[best].items()
    if k == "step" or k.startswith("validation/")
  }


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (["--split=tset"], ["--split='tset'", "test", "train", "validation"]),
    (["--checkpoint=11"], ["'11'", "latest", "10, 20"]),
    (["--checkpoint=newest"], ["'newest'", "latest"]),
  ],
)
def test_a_split_or_checkpoint_that_is_not_there_is_said(
  program, few_digits, run, arguments, parts
):
  result = program("evaluate", f"--workdir={run}", *arguments)
  assert result.code == 2
  for part in parts:
    assert part in result.lines[0]


def test_a_folder_without_a_run_is_said(program, tmp_path):
  for folder in (tmp_path, tmp_path / "nothing"):
    result = program("evaluate", f"--workdir={folder}")
    assert result.code == 2 and "no run is here" in result.lines[0]
  assert not list(tmp_path.iterdir())


def test_a_run_that_was_begun_and_saved_nothing_is_said(
  program, few_digits, run, tmp_path
):
  (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
  result = program("evaluate", f"--workdir={tmp_path}")
  assert result.code == 2 and "no checkpoint was" in result.lines[0]
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_other_data_than_the_runs_is_refused(program, run):
  # The config says embedded; the run was trained on a handful of digits.
  result = program("evaluate", f"--workdir={run}")
  assert result.code == 2 and "trained on other data" in result.lines[0]


def test_only_a_run_on_sentences_answers_one(program, few_digits, run):
  result = program("evaluate", f"--workdir={run}", "--sentence=a dog .")
  assert result.code == 2
  (line,) = result.lines
  assert line.startswith(f"--sentence: {run} is a run of mnist_mlp;")
  assert line.endswith("for sentences for skip_thoughts")
