import json
import os
import subprocess
import sys

import pytest

SMALL = ("--hidden=16,16", "--rounds=1", "--seconds=0.05", "--threads=1")


@pytest.fixture
def benchmark(repo):
  """Runs the script as its users do, in an environment without PyTorch."""

  def start(*arguments, **environment):
    return subprocess.run(
      [sys.executable, "scripts/benchmark.py", *map(str, arguments)],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | environment,
    )

  return start


@pytest.fixture
def no_torch(tmp_path):
  """A PYTHONPATH on which `import torch` fails."""
  (tmp_path / "torch.py").write_text("raise ImportError")
  return str(tmp_path)


def test_ours_is_timed_alone_where_pytorch_is_missing(
  benchmark, no_torch, tmp_path
):
  out = tmp_path / "out.json"
  done = benchmark(
    "mnist_mlp",
    "--norms=layer",
    "--batch_sizes=4",
    f"--out={out}",
    *SMALL,
    PYTHONPATH=no_torch,
  )
  assert done.returncode == 0, done.stderr
  assert "PyTorch is not installed" in done.stderr
  assert "| layer | 4 | lnrnn |" in done.stdout
  found = json.loads(out.read_text())
  (row,) = found["results"]
  assert row["contender"] == "lnrnn" and row["hidden"] == [16, 16]
  assert row["steps_per_s"][1] == row["rates"][0] > 0
  assert {"jax", "flax", "optax"} <= row["versions"].keys()
  assert "commit" in found["machine"] and found["threads"] == 1


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ([], "TASK"),
    (["mnist"], "mnist_mlp"),
    (["mnist_mlp", "--norms=lyer"], "none, layer, batch"),
    (["mnist_mlp", "--batch_sizes=0"], "0 is not 1 or more"),
    (["mnist_mlp", "--batch_sizes=x"], "--batch_sizes"),
    (["mnist_mlp", "--norms=batch", "--batch_sizes=4,1"], "--batch_sizes"),
    (["mnist_mlp", "--rounds=0"], "0 is not above 0"),
    (["mnist_mlp", "--threads=100000"], "--threads=100000"),
    (["mnist_mlp", "--torch_python=/none"], "--torch_python=/none"),
    (["mnist_mlp", "--out=/none/out.json"], "no such folder"),
    (["mnist_mlp", "--fast"], "--fast"),
  ],
)
def test_a_users_mistake_is_told_in_one_line(benchmark, arguments, told):
  done = benchmark(*arguments)
  assert done.returncode == 2
  assert told in done.stderr and len(done.stderr.splitlines()) == 1
  assert not done.stdout


@pytest.mark.torch
def test_pytorch_computes_our_losses(benchmark, tmp_path):
  out = tmp_path / "out.json"
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  done = benchmark(
    "mnist_mlp", f"--torch_python={python}", f"--out={out}", *SMALL
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())["results"]
  cases = {(row["norm"], row["batch_size"]) for row in rows}
  assert len(cases) == 6 and len(rows) == 3 * len(cases)
  for ours, *others in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
    assert ours["contender"] == "lnrnn" and len(ours["losses"]) == 3
    for its in others:
      assert its["losses"] == pytest.approx(ours["losses"], rel=2e-5), its
