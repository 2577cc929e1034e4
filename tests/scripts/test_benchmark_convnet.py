"""The task convnet of scripts/benchmark.py."""

import json
import os
import subprocess
import sys

import pytest

NORMS = [
  "none",
  "layer",
  "layer_maps",
  "layer_channels",
  "batch",
  "weight",
  "group",
]
SMALL = (
  "--batch_size=4",
  "--widths=8,16",
  "--depth=1",
  "--threads=1",
  "--rounds=1",
  "--seconds=0.01",
)


@pytest.fixture
def benchmark(repo):
  """Runs the task as its users do."""

  def start(*arguments, **environment):
    return subprocess.run(
      [sys.executable, "scripts/benchmark.py", "convnet", *arguments],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | environment,
    )

  return start


def test_ours_is_timed_alone_where_pytorch_is_missing(benchmark, tmp_path):
  (tmp_path / "torch.py").write_text("raise ImportError")
  out = tmp_path / "out.json"
  done = benchmark(
    "--norms=batch", f"--out={out}", *SMALL, PYTHONPATH=str(tmp_path)
  )
  assert done.returncode == 0, done.stderr
  assert "PyTorch is not installed" in done.stderr
  (row,) = json.loads(out.read_text())["results"]
  assert row["contender"] == "lnrnn" and row["widths"] == [8, 16]
  assert row["ms"][1] == pytest.approx(1e3 / row["rates"][0])
  assert row["memory_mib"] > 0 and row["compile_s"] > 0
  told = "norm batch, batch_size 4, widths [8, 16], depth 1"
  assert f"| {told} | lnrnn |" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--norms=rms"], "'rms' is not one of none, layer, layer_maps, "),
    (["--contenders=keras"], "'keras' is not one of lnrnn, torch_nhwc, "),
    (["--depth=0"], "0 is not above 0"),
    (["--widths=16,0"], "0 is not 1 or more"),
    (
      ["--norms=group", "--widths=12", "--contenders=lnrnn"],
      "model.groups=8: must divide model.widths=(12,)",
    ),
  ],
)
def test_a_users_mistake_is_told_in_one_line(benchmark, arguments, told):
  done = benchmark(*arguments)
  assert done.returncode == 2
  assert told in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.torch
def test_pytorch_computes_our_losses_and_gradients(benchmark, tmp_path):
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  out = tmp_path / "out.json"
  done = benchmark(f"--out={out}", f"--torch_python={python}", *SMALL)
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())["results"]
  names = ["lnrnn", "torch_nhwc", "torch_nchw"]
  assert [(row["norm"], row["contender"]) for row in rows] == [
    (norm, name) for norm in NORMS for name in names
  ]
  for row in rows:
    assert row["gradient_difference"] < 1e-4 > row["loss_difference"]
