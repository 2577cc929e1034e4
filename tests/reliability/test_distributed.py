"""Several processes, several devices: the same run, and one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import launch, mnist_mlp
from lnrnn.training import checkpoints, loop, writers

SPEC = "configs/mnist_mlp.py:smoke,log_every=5,train_steps={},checkpoint_every="


def _free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def _start(repo, spec, workdir, *flags, devices=1):
  """A process of `experiments.train`."""
  count = f"--xla_force_host_platform_device_count={devices}"
  flags_of_xla = f"{os.environ.get('XLA_FLAGS', '')} {count}"
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.train"]
    + [f"--config={spec}", f"--workdir={workdir}", *flags],
    cwd=repo,
    env=os.environ | {"XLA_FLAGS": flags_of_xla},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _start_two(repo, spec, workdir):
  """Two processes that train together."""
  port = _free_port()
  return [
    _start(
      repo,
      spec,
      workdir,
      "--distributed",
      f"--coordinator=127.0.0.1:{port}",
      "--num_processes=2",
      f"--process_id={i}",
    )
    for i in range(2)
  ]


def _ends(process, timeout):
  """(exit code, its errors), the process being killed if it hangs."""
  try:
    _, err = process.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    process.kill()
    _, err = process.communicate()
    raise AssertionError(f"still there after {timeout} s: {err}") from None
  return process.returncode, err


def _state(spec, workdir):
  config = launch.load(spec)
  return loop.restore(config, mnist_mlp.build(config), workdir, "latest")


def _rows(workdir):
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


def _wait_for_step(workdir, step, processes):
  end = time.monotonic() + 120
  while not any(s >= step for s in checkpoints.committed_steps(workdir)):
    for process in processes:
      assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.05)


def _equal(a, b):
  return all(
    jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))
  )


def test_two_processes_equal_two_devices_and_one_to_rounding(repo, tmp_path):
  # With batch norm: its moments are those of a whole microbatch.
  spec = f"{repo}/{SPEC.format(50)}25,eval_every=25,norm=batch,accumulate=2"
  pair = tmp_path / "pair"
  processes = _start_two(repo, spec, pair)
  processes.append(_start(repo, spec, tmp_path / "devices_2", devices=2))
  launch.train(spec, tmp_path / "devices_1")  # In this process.
  for process in processes:
    code, err = _ends(process, 240)
    assert code == 0, err
  states = [
    _state(spec, tmp_path / name) for name in ("pair", "devices_2", "devices_1")
  ]
  assert _equal(states[0], states[1])
  gaps = jax.tree.map(
    lambda a, b: float(np.abs(np.subtract(a, b, dtype=np.float64)).max()),
    states[0].variables,
    states[2].variables,
  )
  largest = max(jax.tree.leaves(gaps))
  print(f"2 processes against 1 device after 50 steps: {largest:.1e}")
  assert 0 < largest < 1e-5
  assert _rows(pair) == _rows(tmp_path / "devices_2")
  record = json.loads((pair / "config.json").read_text())
  assert len(record["starts"]) == 1  # Process 0 alone writes.
  assert record["starts"][0]["processes"] == 2


def test_sigterm_to_one_process_stops_both_at_one_step_saved(repo, tmp_path):
  spec = f"{repo}/{SPEC.format(200_000)}5,eval_every=200000"
  pair = tmp_path / "pair"
  processes = _start_two(repo, spec, pair)
  _wait_for_step(pair, 5, processes)
  processes[1].send_signal(signal.SIGTERM)
  for process in processes:
    code, err = _ends(process, 30)
    assert code == 143, err
    assert "Traceback" not in err
  last = _rows(pair)[-1]["step"]
  assert checkpoints.committed_steps(pair)[-1] == last


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_both_resume(
  repo, tmp_path, victim
):
  spec = f"{repo}/{SPEC.format(200_000)}5,eval_every=200000"
  pair, whole = tmp_path / "pair", tmp_path / "whole"
  processes = _start_two(repo, spec, pair)
  _wait_for_step(pair, 15, processes)
  processes[victim].kill()
  began = time.monotonic()
  code, err = _ends(processes[1 - victim], 60)
  took = time.monotonic() - began
  processes[victim].communicate()
  print(f"process {victim} killed: the other ended with {code} in {took:.1f} s")
  assert code != 0 and took < 30, err
  common = checkpoints.committed_steps(pair)[-1]
  end = common + 10
  spec = spec.replace("train_steps=200000", f"train_steps={end}")
  for process in _start_two(repo, spec, pair):
    code, err = _ends(process, 120)
    assert code == 0, err
  starts = json.loads((pair / "config.json").read_text())["starts"]
  assert [start["step"] for start in starts] == [0, common]
  code, err = _ends(_start(repo, spec, whole, devices=2), 120)
  assert code == 0, err
  assert _equal(_state(spec, pair), _state(spec, whole))
  losses = [[r for r in _rows(d) if "loss" in r] for d in (pair, whole)]
  assert losses[0] == losses[1]


@pytest.mark.long
def test_a_user_error_in_process_0_ends_all_of_them_in_one_line(repo, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text("{}")
  spec = f"{repo}/{SPEC.format(50)}25"
  for i, process in enumerate(_start_two(repo, spec, workdir)):
    code, err = _ends(process, 120)
    assert code == 2, err
    assert "is not the record of a run" in err
    assert ("process 0" in err) == (i == 1)
    assert "Traceback" not in err
