"""A run that is stopped and started again, and one that is finished."""

import shutil

import jax
import numpy as np
import pytest

from experiments import launch, mnist_mlp
from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoints, loop, writers


def state_of(spec, workdir):
  """The last state of a run."""
  config = launch.load(spec)
  return loop.restore(config, mnist_mlp.build(config), workdir, "latest")


def rows_of(workdir):
  """The rows of a run without what its clock decides."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(
  tmp_path, spec, few_digits, norm
):
  spec = f"{spec},norm={norm}"
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  launch.train(spec, whole)
  launch.train(f"{spec},train_steps=10", parts)
  # As if killed while it wrote.
  with (parts / "metrics.jsonl").open("a") as file:
    file.write('{"step": 15, "loss": 0.3}\n{"step": 20, "lo')
  launch.train(spec, parts)
  jax.tree.map(
    np.testing.assert_array_equal, state_of(spec, parts), state_of(spec, whole)
  )
  assert rows_of(parts) == rows_of(whole)
  seconds = [
    row["time/train_seconds"]
    for row in writers.read_metrics(parts)
    if "loss" in row
  ]
  assert seconds == sorted(seconds)


def test_a_finished_run_is_a_no_op_and_a_grown_schedule_is_refused(
  tmp_path, spec, few_digits, contents, monkeypatch, capfd
):
  spec += ",optimizer.schedule=cosine,train_steps=4,eval_every=2"
  workdir = tmp_path / "run"
  launch.train(spec, workdir)
  before = contents(workdir)
  monkeypatch.setattr(loop, "train", None)
  monkeypatch.setattr(mnist_mlp, "build", None)
  launch.train(spec, workdir)
  assert "finished at step 4" in capfd.readouterr().out
  with pytest.raises(WorkdirError, match="train_steps: 4 -> 6"):
    launch.train(f"{spec},train_steps=6", workdir)
  assert contents(workdir) == before


def test_a_run_goes_on_from_the_checkpoint_before_one_that_was_cut_off(
  tmp_path, spec, few_digits
):
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  launch.train(spec, whole)
  shutil.copytree(whole, cut)
  (cut / "checkpoints" / "20" / "commit_success.txt").unlink()
  shutil.rmtree(cut / "checkpoints" / "20" / "state")
  launch.train(spec, cut)
  assert checkpoints.committed_steps(cut) == [10, 20]
  jax.tree.map(
    np.testing.assert_array_equal, state_of(spec, cut), state_of(spec, whole)
  )
  assert rows_of(cut) == rows_of(whole)
