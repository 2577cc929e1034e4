import importlib
import json
import os
import subprocess
import sys

import pytest

SMALL = ("--cases=lstm:2:6:3:8,gru:2:6:3:8", "--rounds=1", "--seconds=0.01")
JAX = ("naive", "hoist", "lnrnn_none", "chain_jax", "bulk_jax")


@pytest.fixture
def benchmark(repo):
  """Runs the task as its users do."""

  def start(*arguments, **environment):
    return subprocess.run(
      [sys.executable, "scripts/benchmark.py", "rnn", *map(str, arguments)],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | environment,
    )

  return start


@pytest.fixture
def task(repo, monkeypatch):
  """The module of the task."""
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  return importlib.import_module("benchmark_rnn")


def test_contenders_are_timed_where_pytorch_is_missing(benchmark, tmp_path):
  (tmp_path / "torch.py").write_text("raise ImportError")
  out = tmp_path / "out.json"
  done = benchmark(
    f"--out={out}",
    f"--contenders={','.join(JAX)},torch_eager",
    *SMALL,
    PYTHONPATH=str(tmp_path),
  )
  assert done.returncode == 0, done.stderr
  assert "PyTorch is not installed" in done.stderr
  told, found = done.stdout, json.loads(out.read_text())
  assert "lstm:2:6:3:8: lstm, batch 2, 6 steps, 3 -> 8\n" in told
  assert "| case | lnrnn / naive |" in told and "\n| gru:2:6:3:8 |" in told
  assert found["threads"] == 1 and "commit" in found["machine"]
  assert (found["device"], found["precision"]) == ("cpu", "float32")
  rows = found["results"]
  names = [row["contender"] for row in rows]
  assert names == 2 * ["lnrnn", *JAX]
  for row in rows:
    assert row["case"]["kind"] in ("lstm", "gru")
    assert row["ms"][1] == pytest.approx(1e3 / row["rates"][0])
    assert row["temporaries_mib"] >= 0 and row["compile_s"] > 0
    assert {"jax", "flax", "device"} <= row["versions"].keys()
    if row["contender"] in ("naive", "hoist"):
      assert row["gradient_difference"] < 1e-5 > row["loss_difference"]
  for summary in found["summaries"]:
    assert summary["lnrnn / GEMM floor"][1] > 0
    assert summary["temporaries, lnrnn / hoist"] > 0
    assert summary["lnrnn / best PyTorch LN"] is None


@pytest.mark.parametrize(
  ("argument", "told"),
  [
    ("--cases=lstm:8", "'lstm:8' is not one of handwriting, "),
    ("--cases=lstm:2:6:0:8", "KIND:BATCH:STEPS:INPUT:HIDDEN"),
    ("--cases=draw,rnn:2:6:3:8", "with KIND lstm or gru"),
    ("--contenders=naive,keras", "'keras' is not one of lnrnn, "),
    ("--device=tpu", "--device"),
    ("--precision=tensorfloat32", "needs --device=gpu"),
    ("--torch_python=/none", "--torch_python=/none"),
    ("--norms=layer", "--norms"),
  ],
)
def test_a_users_mistake_is_told_in_one_line(benchmark, argument, told):
  done = benchmark(argument)
  assert done.returncode == 2
  assert told in done.stderr and len(done.stderr.splitlines()) == 1
  assert not done.stdout


def test_a_missing_gpu_is_told_in_one_line(benchmark):
  done = benchmark("--device=gpu", "--contenders=naive", *SMALL)
  assert done.returncode == 2
  assert "--device=gpu: JAX has none here" in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ("loss", "difference"),
  [(2.001, 0.0), (2.0, 0.01), (float("nan"), 0.0), (2.0, float("nan"))],
)
def test_other_work_than_ours_is_refused(task, loss, difference):
  ours = {"loss": 2.0, "gradient_difference": 0.0}
  task._check({"contender": "naive", **ours}, ours)
  its = {"loss": loss, "gradient_difference": difference}
  with pytest.raises(task.Fault, match="^naive does other work than ours"):
    task._check({"contender": "naive", **its}, ours)


def test_ratios_are_medians_over_the_rounds_of_times(task):
  seconds = {
    "lnrnn": (2, 3, 4),
    "naive": (4, 4, 4),
    "torch_eager": (9, 9, 9),
    "torch_fn": (6, 3, 2),  # The best PyTorch LN, by its median.
    "chain_jax": (1, 1, 1),
    "chain_torch": (2, 2, 2),
    "bulk_torch": (0, 1, 3),
  }
  rows = [
    {
      "contender": name,
      "rates": [1 / s if s else float("inf") for s in times],
      "ms": [0, 1e3 * sorted(times)[1], 0],
      "temporaries_mib": size,
    }
    for size, (name, times) in enumerate(seconds.items(), 1)
  ]
  found = task._summary(rows)
  assert found["lnrnn / naive"] == pytest.approx([0.625, 0.75, 0.875])
  assert found["best PyTorch LN"] == "torch_fn"
  assert found["lnrnn / best PyTorch LN"][1] == pytest.approx(1)
  assert found["lnrnn / GEMM floor"][1] == pytest.approx(1.5)
  assert found["temporaries, lnrnn / naive"] == 0.5
  assert found["lnrnn / hoist"] is None


@pytest.mark.torch
def test_pytorch_computes_our_losses_and_gradients(benchmark, tmp_path):
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  names = "torch_eager,torch_script,torch_fn,torch_nn,chain_torch,bulk_torch"
  out = tmp_path / "out.json"
  done = benchmark(
    f"--out={out}",
    f"--contenders={names}",
    f"--torch_python={python}",
    *SMALL,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())
  rows = found["results"]
  assert [row["contender"] for row in rows] == 2 * ["lnrnn", *names.split(",")]
  checked = [row for row in rows if "loss_difference" in row]
  assert len(checked) == 2 * 4
  for row in checked:
    assert row["loss_difference"] < 1e-5 > row["gradient_difference"]
    assert row["environment"] in ("plain", "cpu_env.sh")
  for summary in found["summaries"]:
    assert summary["best PyTorch LN"] in names
