"""The sweep as its users call it."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def sweep(repo, tmp_path):
  """Runs the script on a config of two tiny runs."""
  path = tmp_path / "two.py"
  path.write_text(
    "from configs import common, mnist_mlp\n"
    "get_config = mnist_mlp.get_config\n"
    "def sweep():\n"
    "  return common.product({'norm': ('layer', 'none')})\n"
  )
  tiny = ":smoke,batch_size=16,data.train_cases=64,model.hidden=(8,8)"
  tiny += ",train_steps=2,steps_per_dispatch=2,log_every=2"

  def call(*arguments, common=tiny):
    return subprocess.run(
      [sys.executable, "scripts/sweep.py", f"{path}{common}", *arguments],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )

  return call


def test_a_sweep_trains_what_is_missing_and_nothing_twice(
  sweep, tmp_path, contents
):
  folder = tmp_path / "runs"
  names = ["norm=layer,seed=0", "norm=none,seed=0"]
  done = sweep(f"--workdir={folder}", "--dry_run")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[0] == f"{names[0]}: not begun"
  assert not folder.exists()

  done = sweep(f"--workdir={folder}", "--jobs=2")
  assert done.returncode == 0, done.stderr
  ends = [f"{name}: finished" for name in names] + ["of 2 runs: 2 finished"]
  assert done.stdout.splitlines()[-3:] == ends
  before = contents(folder)
  for name in names:
    assert b"finished" in before[f"{name}/log.txt"]

  done = sweep(f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == ends
  assert contents(folder) == before


def test_a_mistake_is_a_line_and_trains_nothing(sweep, tmp_path):
  folder = tmp_path / "runs"
  done = sweep(f"--workdir={folder}", common=":smoke,norm=rms,seed=3")
  assert done.returncode == 2 and not folder.exists()
  first, second = done.stderr.splitlines()
  assert first.startswith("error: ") and "norm= has no effect" in first
  assert second.startswith("error: ") and "seed= has no effect" in second
