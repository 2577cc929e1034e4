"""The task handwriting of scripts/benchmark.py."""

import json
import os
import subprocess
import sys

import pytest

SMALL = (
  *("--batch_size=2", "--points=5", "--features=6", "--sample_points=4"),
  *("--rounds=1", "--seconds=0.01", "--norms=layer"),
)


@pytest.fixture
def benchmark(repo):
  """Runs the task as its users do."""

  def start(*arguments, **environment):
    return subprocess.run(
      [
        *(sys.executable, "scripts/benchmark.py", "handwriting"),
        *map(str, arguments),
      ],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | environment,
    )

  return start


def test_ours_are_timed_alone_where_pytorch_is_missing(benchmark, tmp_path):
  (tmp_path / "torch.py").write_text("raise ImportError")
  out = tmp_path / "out.json"
  done = benchmark(f"--out={out}", *SMALL, PYTHONPATH=str(tmp_path))
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())["results"]
  assert [row["contender"] for row in rows] == ["lnrnn", "one_scan"]
  for row in rows:
    assert (row["batch_size"], row["points"]) == (2, 5)
    assert row["gradient_difference"] < 1e-5 > row["loss_difference"]


@pytest.mark.torch
def test_pytorch_computes_our_losses_and_samples_too(benchmark, tmp_path):
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  names = "lnrnn,torch_eager,torch_script"
  out = tmp_path / "out.json"
  done = benchmark(
    f"--out={out}",
    f"--torch_python={python}",
    f"--contenders={names}",
    "--parts=update,sample",
    *SMALL,
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())["results"]
  assert [row["contender"] for row in rows] == 2 * names.split(",")
  assert [row["part"] for row in rows] == ["update"] * 3 + ["sample"] * 3
  for row in rows:
    assert row["gradient_difference"] < 1e-4 > row["loss_difference"]
