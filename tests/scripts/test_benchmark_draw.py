"""The task draw of scripts/benchmark.py."""

import importlib
import json
import os
import subprocess
import sys

import pytest

SMALL = ("--batch_sizes=2", "--glimpses=3", "--rounds=1", "--seconds=0.01")


@pytest.fixture
def benchmark(repo):
  """Runs the task as its users do."""

  def start(*arguments, **environment):
    return subprocess.run(
      [sys.executable, "scripts/benchmark.py", "draw", *map(str, arguments)],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | environment,
    )

  return start


@pytest.fixture
def task(repo, monkeypatch):
  """What the tasks of this kind share."""
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  return importlib.import_module("benchmark_update")


def test_ours_is_timed_alone_where_pytorch_is_missing(benchmark, tmp_path):
  (tmp_path / "torch.py").write_text("raise ImportError")
  out = tmp_path / "out.json"
  done = benchmark(
    "--norms=layer", f"--out={out}", *SMALL, PYTHONPATH=str(tmp_path)
  )
  assert done.returncode == 0, done.stderr
  assert "PyTorch is not installed" in done.stderr
  rows = json.loads(out.read_text())["results"]
  assert [row["contender"] for row in rows] == ["lnrnn", "lnrnn_plain"]
  for row in rows:
    assert (row["norm"], row["batch_size"], row["glimpses"]) == ("layer", 2, 3)
    assert row["ms"][1] == pytest.approx(1e3 / row["rates"][0])
    assert row["gradient_difference"] < 1e-5 > row["loss_difference"]
    assert row["memory_mib"] > 0 and row["compile_s"] > 0
    told = "norm layer, batch_size 2, glimpses 3"
    assert f"| {told} | {row['contender']} |" in done.stdout


@pytest.mark.parametrize(
  ("argument", "told"),
  [
    ("--norms=batch", "'batch' is not one of layer, none"),
    ("--contenders=keras", "'keras' is not one of lnrnn, "),
    ("--glimpses=0", "0 is not above 0"),
  ],
)
def test_a_users_mistake_is_told_in_one_line(benchmark, argument, told):
  done = benchmark(argument)
  assert done.returncode == 2
  assert told in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ("loss", "difference"),
  [(2.001, 0.0), (2.0, 0.01), (float("nan"), 0.0), (2.0, float("nan"))],
)
def test_other_work_than_ours_is_refused(task, loss, difference):
  ours = {"loss": 2.0, "gradient_difference": 0.0, "worst": "decoder/b"}
  task.check({"contender": "torch_eager", **ours}, ours)
  its = {"loss": loss, "gradient_difference": difference, "worst": "decoder/b"}
  with pytest.raises(task.Fault, match="^torch_eager does other work than"):
    task.check({"contender": "torch_eager", **its}, ours)


@pytest.mark.torch
def test_pytorch_computes_our_bounds_and_gradients(benchmark, tmp_path):
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  out = tmp_path / "out.json"
  done = benchmark(f"--out={out}", f"--torch_python={python}", *SMALL)
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())["results"]
  names = ["lnrnn", "lnrnn_plain", "torch_eager", "torch_script"]
  assert [row["contender"] for row in rows] == 2 * names
  for row in rows:
    assert row["gradient_difference"] < 1e-4 > row["loss_difference"]
    assert row["environment"] in ("plain", "cpu_env.sh")
