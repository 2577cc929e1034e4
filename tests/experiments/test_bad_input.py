"""Bad input: clear lines, a non-zero exit, no compile, nothing written."""

import gzip
import json
import os
import shutil

import numpy as np
import pytest

from lnrnn.data import idx
from lnrnn.training import step as step_lib


@pytest.fixture(autouse=True)
def no_compile(monkeypatch):
  """Fails where a run gets as far as its first compile."""

  def init_state(*args):
    raise AssertionError("the run compiles")

  monkeypatch.setattr(step_lib, "init_state", init_state)


@pytest.fixture
def refused(program, tmp_path, repo, contents):
  """(arguments of the config, flags) -> the lines the binary answers."""

  def call(arguments, *more, workdir=None):
    folder = workdir or tmp_path / "run"
    before = contents(folder) if folder.is_dir() else {}
    config = f"--config={repo}/configs/mnist_mlp.py:{arguments}"
    result = program("train", config, f"--workdir={folder}", *more)
    assert result.code == 2, result
    assert (contents(folder) if folder.is_dir() else {}) == before
    return result.lines

  return call


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    ("nrom=layer", ["unknown config field 'nrom'", "did you mean 'norm'"]),
    ("optimizer.learning=1", ["did you mean 'optimizer.learning_rate'"]),
    ("smok", ["unknown config field 'smok'", "did you mean 'smoke'"]),
    ("smoke=yes", ["smoke='yes'", "true or false"]),
    ("norm=lyer", ["norm='lyer'", "layer, batch", "did you mean 'layer'"]),
    ("batch_size=0", ["batch_size=0", "at least 1"]),
    ("batch_size=-4", ["batch_size=-4", "at least 1"]),
    ("batch_size=20000", ["batch_size=20000", "larger than", "10000"]),
    ("smoke,batch_size=2000", ["batch_size=2000", "train_cases = 1000"]),
    ("norm=batch,batch_size=1", ["batch_size=1", "at least 2", "variance"]),
    ("norm=layer,model.hidden=(1000,1)", ["model.hidden", "at least 2"]),
    ("model.hidden=()", ["model.hidden=()", "at least one"]),
    ("norm=none,model.hidden=(0,)", ["model.hidden", "at least 1"]),
    ("model.hidden=(10,1.5)", ["model.hidden='(10,1.5)'", "list such as"]),
    ("optimizer.learning_rate=nan", ["optimizer.learning_rate=nan", "above 0"]),
    ("optimizer.learning_rate=inf", ["optimizer.learning_rate=inf", "above 0"]),
    ("optimizer.learning_rate=0", ["optimizer.learning_rate=0.0", "above 0"]),
    ("optimizer.learning_rate=-1", ["optimizer.learning_rate=-1.0", "above 0"]),
    ("optimizer.b1=1", ["optimizer.b1=1.0", "below 1"]),
    ("optimizer.name=adm", ["optimizer.name='adm'", "did you mean 'adam'"]),
    ("optimizer.schedule=step", ["optimizer.schedule='step'", "cosine"]),
    ("optimizer.weight_decay=0.1", ["optimizer.weight_decay=0.1", "adamw"]),
    ("optimizer.warmup_steps=50,train_steps=9", ["warmup_steps=50", "9"]),
    ("train_steps=1.5", ["train_steps='1.5'", "a whole number"]),
    ("train_steps=99999999999", ["train_steps=99999999999", "at most"]),
    ("epochs=nan", ["epochs=nan", "at least 0"]),
    ("epochs=inf", ["epochs=inf", "at least 0"]),
    ("epochs=-1", ["epochs=-1.0", "at least 0"]),
    ("seed=-1", ["seed=-1", "at least 0"]),
    ("best=validation/error", ["best='validation/error'", ":min"]),
    ("experiment=mnist_mpl", ["experiment='mnist_mpl'", "mnist_mlp"]),
    ("data.source=indx", ["data.source='indx'", "did you mean 'idx'"]),
    ("norm=", ["norm=''", "layer"]),
  ],
)
def test_a_wrong_value_gets_one_line_with_field_value_and_what_is_allowed(
  refused, arguments, parts
):
  (line,) = refused(arguments)
  for part in parts:
    assert part in line


def test_all_faults_are_listed_at_once(refused):
  lines = refused("nrom=batch,train_steps=1.5,batch_size=0,norm=lyer,smoke=2")
  fields = ("smoke", "nrom", "train_steps", "batch_size", "norm=")
  assert len(lines) == len(fields)
  for field in fields:
    assert any(field in line for line in lines), field


@pytest.mark.parametrize(
  ("path", "parts"),
  [
    ("configs/mnist_mpl.py", ["did you mean", "mnist_mlp.py"]),
    ("configs", ["'configs' not found"]),
    ("mnist_mlp", ["'mnist_mlp' not found", "configs/mnist_mlp.py"]),
    ("nowhere/mnist_mlp.py", ["configs/mnist_mlp.py"]),
    ("configs/common.py", ["no function get_config"]),
  ],
)
def test_an_unknown_config_file_is_answered_with_those_there_are(
  program, tmp_path, monkeypatch, repo, path, parts
):
  monkeypatch.chdir(repo)
  workdir = tmp_path / "run"
  result = program("train", f"--config={path}:smoke", f"--workdir={workdir}")
  (line,) = result.lines
  assert result.code == 2 and not workdir.exists()
  for part in parts:
    assert part in line


def test_a_fault_in_an_override_is_found_too(refused):
  (line,) = refused("smoke", "--config.norm=lyer")
  assert "norm='lyer'" in line


@pytest.mark.parametrize(
  ("arguments", "part"),
  [
    (["--config=configs/mnist_mlp.py"], "--workdir"),
    (["--workdir=/nowhere/run"], "--config"),
    (["--config=c.py", "--workdir=/nowhere", "--wrong=1"], "wrong"),
    (["--config=c.py", "--workdir=/nowhere", "word"], "word"),
    (["--workdir=/nowhere/run", "--config.norm=layer"], "config"),
    (["--config=configs/mnist_mlp.py", "--workdir="], "workdir"),
  ],
)
def test_wrong_flags_get_one_line_and_exit_code_2(
  program, repo, monkeypatch, arguments, part
):
  monkeypatch.chdir(repo)
  result = program("train", *arguments)
  assert result.code == 2
  (line,) = result.lines
  assert part in line


def test_an_override_for_a_program_without_config_is_not_swallowed(
  program, tmp_path
):
  result = program("evaluate", f"--workdir={tmp_path}", "--config.norm=batch")
  assert result.code == 2 and "config.norm" in result.lines[0]


@pytest.fixture
def idx_dir(tmp_path):
  """A whole and valid set of idx files, of blank digits."""
  folder = tmp_path / "data" / "mnist"
  folder.mkdir(parents=True)
  for part, n in (("train", 10_000), ("t10k", 10)):
    for name, array in (
      ("images-idx3", np.zeros((n, 28, 28), np.uint8)),
      ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
    ):
      path = folder / f"{part}-{name}-ubyte.gz"
      path.write_bytes(gzip.compress(idx.idx_bytes(array), 1))
  return folder


def _edit(path, change):
  raw = change(gzip.decompress(path.read_bytes()))
  path.write_bytes(gzip.compress(raw, 1))


@pytest.mark.parametrize(
  ("damage", "part"),
  [
    (lambda f: _edit(f, lambda raw: raw[:-100]), "follow"),
    (lambda f: f.write_bytes(f.read_bytes()[:-100]), "cannot be read"),
    (lambda f: _edit(f, lambda raw: b"\0\0\x0d\3" + raw[4:]), "0x00000d03"),
    (lambda f: f.unlink(), "prepare_data.py"),
    (lambda f: shutil.rmtree(f.parents[1]), "no such directory"),
  ],
  ids=[
    "truncated",
    "cut gzip",
    "wrong magic",
    "missing file",
    "missing folder",
  ],
)
def test_damaged_or_missing_data_is_named(refused, idx_dir, damage, part):
  damage(idx_dir / "train-images-idx3-ubyte.gz")
  (line,) = refused(f"data.source=idx,data.dir={idx_dir.parent}")
  assert part in line and str(idx_dir.parent) in line


def test_a_data_folder_that_is_not_set_is_said(refused, monkeypatch):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  (line,) = refused("data.source=idx")
  assert "LNRNN_DATA_DIR" in line


def test_more_training_cases_than_the_data_holds_are_refused(refused, idx_dir):
  # 10,000 digits, of which 5,000 become the validation split.
  (line,) = refused(f"data.source=idx,data.dir={idx_dir}")
  assert "data.train_cases=55000" in line and "data.train_cases=5000" in line


def test_a_batch_larger_than_the_training_cases_is_refused(refused, idx_dir):
  spec = f"data.source=idx,data.dir={idx_dir},data.train_cases=5000"
  (line,) = refused(f"{spec},batch_size=6000")
  assert "batch_size" in line and "6000" in line and "5000" in line


def test_a_workdir_that_is_a_file_is_refused(refused, tmp_path):
  file = tmp_path / "file"
  file.write_text("mine")
  for path in (file, file / "below"):
    (line,) = refused("smoke", workdir=path)
    assert str(path) in line and "not writable" in line
  assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workdir_is_refused(refused, tmp_path):
  folder = tmp_path / "run"
  folder.mkdir(mode=0o500)
  (line,) = refused("smoke", workdir=folder)
  assert "not writable" in line


def test_a_folder_that_no_one_may_write_is_refused(refused, monkeypatch):
  import pathlib

  def touch(self, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(self))

  monkeypatch.setattr(pathlib.Path, "touch", touch)
  (line,) = refused("smoke")
  assert "not writable" in line and "Permission denied" in line


@pytest.mark.parametrize(
  "text",
  ["", "{", "[]", "null", '{"config": 3, "starts": []}', '{"config": {}}'],
)
def test_a_damaged_record_is_named(refused, tmp_path, text):
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "config.json").write_text(text)
  (line,) = refused("smoke", workdir=folder)
  assert "config.json" in line and "not the record of a run" in line


def test_checkpoints_without_a_record_are_left_alone(refused, tmp_path):
  folder = tmp_path / "run"
  step = folder / "checkpoints" / "10"
  step.mkdir(parents=True)
  (step / "commit_success.txt").touch()
  (line,) = refused("smoke", workdir=folder)
  assert "no config.json" in line


def test_the_workdir_of_another_config_is_refused_with_the_differences(
  refused, tmp_path, repo
):
  from lnrnn.training import config as config_lib

  folder = tmp_path / "run"
  folder.mkdir()
  stored = config_lib.load_config(
    f"{repo}/configs/mnist_mlp.py:smoke,norm=layer"
  )
  record = {
    "config": config_lib.to_dict(stored),
    "data": "",
    "fingerprint": "",
    "steps_per_epoch": 1,
    "starts": [],
  }
  (folder / "config.json").write_text(json.dumps(record))
  (line,) = refused(
    "smoke,norm=none,optimizer.learning_rate=0.5,log_every=7", workdir=folder
  )
  assert "norm: 'layer' -> 'none'" in line
  assert "optimizer.learning_rate: 0.001 -> 0.5" in line
  assert "log_every" not in line  # It may change.


@pytest.mark.parametrize(
  ("schedule", "allowed"), [("constant", True), ("cosine", False)]
)
def test_a_run_may_grow_where_its_schedule_does_not_depend_on_its_length(
  tmp_path, repo, schedule, allowed
):
  from lnrnn.errors import WorkdirError
  from lnrnn.training import config as config_lib
  from lnrnn.training import workdir

  path = f"{repo}/configs/mnist_mlp.py:optimizer.schedule={schedule}"
  old = config_lib.load_config(f"{path},train_steps=10")
  new = config_lib.load_config(f"{path},train_steps=20")
  record = {
    "config": config_lib.to_dict(old),
    "data": "",
    "fingerprint": "",
    "steps_per_epoch": 1,
    "starts": [],
  }
  (tmp_path / "config.json").write_text(json.dumps(record))
  workdir.check(tmp_path, old)
  if allowed:
    workdir.check(tmp_path, new)
  else:
    with pytest.raises(WorkdirError, match="train_steps: 10 -> 20"):
      workdir.check(tmp_path, new)
