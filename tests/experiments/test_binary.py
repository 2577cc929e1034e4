"""The binary as a process: killed, started again, diverging, misused."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np

from experiments import launch, mnist_mlp
from lnrnn.training import checkpoints, loop, writers

SMALL = "smoke,batch_size=16,model.hidden=(8,8),norm=batch,train_steps={}"


def _start(repo, arguments, workdir):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.train"),
      f"--config=configs/mnist_mlp.py:{arguments}",
      f"--workdir={workdir}",
    ],
    cwd=repo,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_a_killed_run_ends_as_one_that_was_not(repo, tmp_path):
  steps = 300  # Far from done when the first of 15 checkpoints is there.
  arguments = SMALL.format(steps) + ",eval_every=100,checkpoint_every=20"
  killed, whole = tmp_path / "killed", tmp_path / "whole"
  process = _start(repo, arguments, killed)
  end = time.monotonic() + 120
  while not checkpoints.committed_steps(killed) and time.monotonic() < end:
    time.sleep(0.01)
    assert process.poll() is None, process.communicate()
  process.kill()
  process.communicate()
  at = checkpoints.committed_steps(killed)
  assert at and at[-1] < steps
  again = _start(repo, arguments, killed)
  _, err = again.communicate(timeout=240)
  assert again.returncode == 0, err
  spec = f"{repo}/configs/mnist_mlp.py:{arguments}"
  launch.train(spec, whole)  # In this process, never stopped.
  config = launch.load(spec)
  experiment = mnist_mlp.build(config)
  states = [
    loop.restore(config, experiment, folder, "latest")
    for folder in (killed, whole)
  ]
  jax.tree.map(np.testing.assert_array_equal, *states)
  rows = [
    [
      {k: v for k, v in row.items() if not k.startswith("time/")}
      for row in writers.read_metrics(folder)
    ]
    for folder in (killed, whole)
  ]
  assert rows[0] == rows[1]
  record = json.loads((killed / "config.json").read_text())
  assert [start["step"] for start in record["starts"]] == [0, at[-1]]


def test_divergence_is_exit_code_3_with_the_step(
  program, few_digits, spec, tmp_path
):
  result = program(
    "train",
    f"--config={spec},norm=none,optimizer.learning_rate=1e38",
    f"--workdir={tmp_path}",
  )
  assert result.code == 3
  assert "Traceback" not in result.err
  assert "loss is not finite at step 2" in result.err.splitlines()[-1]
  row, fault = writers.read_metrics(tmp_path)[-2:]
  assert row["step"] == 2 and "loss" in row["nonfinite"]
  assert fault == {"step": 2, "fault": "loss is not finite at step 2"}


def test_misuse_is_exit_code_2_without_a_traceback(repo, tmp_path):
  process = _start(repo, "smoke,norm=lyer,batch_size=0", tmp_path / "run")
  out, err = process.communicate(timeout=60)
  assert process.returncode == 2 and out == ""
  assert all(line.startswith("error: ") for line in err.splitlines())
  assert len(err.splitlines()) == 2
  assert not os.path.exists(tmp_path / "run")
