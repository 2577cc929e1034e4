"""scripts/export.py: from a workdir to a folder that lnrnn alone can load."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import launch, mnist_mlp
import lnrnn
from lnrnn.training import loop, writers
from lnrnn.training import workdir as workdir_lib
from lnrnn.variables import Example

SMOKE = (
  "smoke,data.train_cases=64,batch_size=16,train_steps=4,eval_every=2,"
  "checkpoint_every=2,steps_per_dispatch=2,log_every=1,model.hidden=(8,8),"
  "eval_batch_size=2000"  # The splits compile as one shape.
)
# Run where experiments/ and configs/ cannot be imported.
FRESH = """
import importlib.util
import numpy as np
{code}
assert importlib.util.find_spec("experiments") is None
assert logits.shape == (2, 10)
there = np.load("there.npz")
for train in (False, True):
  logits = found.model.apply(found.variables, there["x"], train=train)
  np.testing.assert_array_equal(logits, there[str(train)])
"""


@pytest.fixture(scope="module")
def workdir(repo, tmp_path_factory):
  """A run with batch norm, which has more than parameters to keep."""
  folder = tmp_path_factory.mktemp("runs") / "batch"
  # The wrong way round, so that the best checkpoint is not the last.
  best = "best=validation/nll:max"
  path = f"{repo}/configs/mnist_mlp.py"
  launch.train(f"{path}:{SMOKE},norm=batch,{best}", folder)
  return folder


@pytest.fixture
def script(repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  yield importlib.import_module("export")
  for name in ("export", "export_card", "export_usage"):
    sys.modules.pop(name, None)


@pytest.fixture
def export(script, capfd):
  """Runs the script here: (exit code, lines of stderr)."""

  def call(*arguments):
    capfd.readouterr()
    try:
      code = script.main([str(argument) for argument in arguments])
    except SystemExit as e:
      code = e.code
    return code, capfd.readouterr().err.splitlines()

  return call


def state_of(workdir, checkpoint="latest"):
  config = workdir_lib.read_config(workdir)
  experiment = mnist_mlp.build(config)
  return experiment, loop.restore(config, experiment, workdir, checkpoint)


def python_of(readme):
  (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
  return code


def test_a_fresh_process_without_the_experiments_computes_the_same_bits(
  workdir, export, tmp_path
):
  assert export(workdir, tmp_path / "out") == (0, [])
  experiment, state = state_of(workdir)
  x = experiment.train_data[0]["image"].astype(np.float32) / 255
  logits = {
    str(train): experiment.model.apply(state.variables, x, train=train)
    for train in (False, True)
  }
  np.savez(tmp_path / "there.npz", x=x, **logits)
  readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
  env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  code = FRESH.format(code=python_of(readme))
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    cwd=tmp_path,
    env=env,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


def test_the_folder_says_what_the_run_was(workdir, export, tmp_path):
  assert export(workdir, tmp_path / "out", "--checkpoint=best") == (0, [])
  _, state = state_of(workdir, "best")
  found = lnrnn.load_exported(tmp_path / "out")
  assert found.model == mnist_mlp.make_model(workdir_lib.read_config(workdir))
  jax.tree.map(np.testing.assert_array_equal, found.variables, state.variables)
  record, run = workdir_lib.read_record(workdir), found.config["run"]
  assert record is not None
  assert run["config"] == record["config"]
  assert (run["step"], run["checkpoint"]) == (2, "best")
  assert (run["data"], run["fingerprint"]) == (
    record["data"],
    record["fingerprint"],
  )
  rows = writers.read_metrics(workdir)
  (row,) = (r for r in rows if r["step"] == 2 and "test/nll" in r)
  assert run["metrics"]["test/nll"] == row["test/nll"]
  assert not any(name.startswith("time/") for name in run["metrics"])

  card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
  for part in (
    "---\nlicense: apache-2.0\nlibrary_name: lnrnn\ntags:\n- jax\n",
    "# mnist_mlp with batch norm\n",
    "section 6.6, Figure 6",
    f"| data | {record['data']} |",
    f"| fingerprint of the data | {record['fingerprint']} |",
    "| updates | 2 of 4 |",
    "| epochs | 0.5 |",
    "| seed | 0 |",
    "| checkpoint | the best by validation/nll:max |",
    f"jax {jax.__version__}",
    "After update 2:",
    f"| test/nll | {row['test/nll']:.5g} |",
  ):
    assert part in card


def test_the_script_runs_from_any_folder(workdir, repo, tmp_path):
  done = subprocess.run(
    [sys.executable, str(repo / "scripts/export.py"), str(workdir), "out"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert done.stdout == f"out: exported from {workdir}\n"
  assert lnrnn.load_exported(tmp_path / "out").model.norm == "batch"


def test_assets_go_with_the_model(workdir, export, tmp_path, monkeypatch):
  build = mnist_mlp.build
  more = {"assets": {"vocabulary": ["nul", "één"]}}
  monkeypatch.setattr(
    mnist_mlp, "build", lambda c: dataclasses.replace(build(c), **more)
  )
  assert export(workdir, tmp_path / "out") == (0, [])
  text = (tmp_path / "out" / "vocabulary.json").read_text(encoding="utf-8")
  assert "één" in text and json.loads(text) == ["nul", "één"]
  assert lnrnn.load_exported(tmp_path / "out").assets == more["assets"]
  card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
  assert "`vocabulary.json`" in card


@pytest.mark.parametrize(
  ("arguments", "part"),
  [
    (["{run}"], "OUT"),
    (["{run}", "{out}", "--chekpoint=best"], "--chekpoint"),
    (["{run}", "{out}", "--checkpoint=3"], "checkpoint '3' is not in"),
    (["{run}", "{out}", "--license=GPL 3"], "--license='GPL 3'"),
    (["{run}", "{run}"], "exists, and is no empty folder"),
    (["{out}", "{out}"], "no run is here"),
  ],
)
def test_what_is_wrong_is_said_in_one_line(
  workdir, export, tmp_path, arguments, part
):
  names = {"run": workdir, "out": tmp_path / "out"}
  code, lines = export(*(a.format(**names) for a in arguments))
  assert code == 2 and len(lines) == 1
  assert lines[0].startswith("error: ") and part in lines[0]
  assert list(tmp_path.iterdir()) == []


def test_a_run_of_other_data_or_without_a_model_is_refused(
  workdir, export, tmp_path, monkeypatch
):
  build = mnist_mlp.build
  monkeypatch.setattr(
    mnist_mlp, "build", lambda c: dataclasses.replace(build(c), model=None)
  )
  code, lines = export(workdir, tmp_path / "out")
  assert code == 2 and "experiment='mnist_mlp': has no model" in lines[0]

  def other(config):
    experiment = build(config)
    experiment.train_data.fingerprint = "0" * 16
    return experiment

  monkeypatch.setattr(mnist_mlp, "build", other)
  code, lines = export(workdir, tmp_path / "out")
  assert code == 2 and "trained on other data" in lines[0]


def test_folders_of_the_machine_are_not_told(script):
  record = {
    "config": {"data": {"dir": "/home/me/data", "source": "idx"}},
    "data": "MNIST, idx files in /home/me/data/mnist: 1 / 2 digits",
    "fingerprint": "f",
    "steps_per_epoch": 1,
    "starts": [{"device": "cpu"}],
  }
  rows = [
    {"step": 1, "test/nll": float("nan"), "test/text": "a", "time/s": 1.0},
    {"step": 2, "loss": 1.0},
    {"step": 3, "test/nll": 1.0},
  ]
  run = script.run_record(record, rows, {"test"}, checkpoint="2", step=2)
  assert "home" not in json.dumps(run)
  assert run["config"]["data"] == {"dir": "", "source": "idx"}
  assert run["data"] == "MNIST, idx files in mnist: 1 / 2 digits"
  assert (run["metrics"], run["metrics_step"]) == ({"test/nll": None}, 1)


def test_the_code_of_the_card_is_for_any_call(script):
  """Where the task is not known."""
  call = script.export_card.export_usage.call
  usage = script.export_card.export_usage.usage
  shape = jax.ShapeDtypeStruct((2, 3), jnp.int32)
  found = Example(
    ({"a": (shape,)},), {"train": True}, "encode", ("params", "sample")
  )
  assert usage({"experiment": "mine"}, "my model", found).splitlines() == [
    "import jax",
    "import jax.numpy as jnp",
    "import lnrnn",
    "",
    'found = lnrnn.load_exported("my model")',
    "y = found.model.apply(found.variables,"
    " {'a': (jnp.zeros((2, 3), \"int32\"), )}, train=True, method='encode',"
    " rngs={'sample': jax.random.key(0)})",
  ]
  assert call('"m"', None).endswith("help(type(found.model).__call__)")
