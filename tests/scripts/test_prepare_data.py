import hashlib
import os
import subprocess
import sys

import pytest

from lnrnn.data import mnist

# The script, for other files than the published ones.
WITH_HASHES = """
import sys
from absl import app
from scripts import prepare_data
prepare_data._MNIST_SHA256 = {hashes}
app.run(prepare_data.main)
"""


@pytest.fixture
def run(repo):
  """Runs Python in the repository."""

  def start(*arguments):
    return subprocess.run(
      [sys.executable, *map(str, arguments)],
      capture_output=True,
      text=True,
      cwd=repo,
      env=os.environ | {"PYTHONPATH": str(repo)},
    )

  return start


@pytest.fixture
def prepare(run):
  """Runs the script as its users do."""
  return lambda *arguments: run("scripts/prepare_data.py", *arguments)


@pytest.fixture
def small_dir(repo, tmp_path):
  """The embedded digits under the names of the original files."""
  folder = tmp_path / "small"
  folder.mkdir()
  for split, part in (("train", "train"), ("test", "t10k")):
    for kind in ("images-idx3", "labels-idx1"):
      name = f"mnist-{split}-{kind}-ubyte.gz"
      content = (repo / "lnrnn/data/embedded" / name).read_bytes()
      (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)
  return folder


def test_what_is_prepared_holds_the_files_and_the_dataset(
  run, small_dir, tmp_path
):
  pytest.importorskip("tensorflow_datasets")
  out = tmp_path / "out"
  hashes = {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in small_dir.iterdir()
  }
  code = WITH_HASHES.format(hashes=hashes)
  result = run("-c", code, "mnist", f"--from={small_dir}", "--out", out)
  assert result.returncode == 0, result.stderr
  assert f"export LNRNN_DATA_DIR={out}" in result.stdout
  assert "python -m experiments.train" in result.stdout

  expected = mnist.load("idx", small_dir).fingerprint
  assert mnist.load("idx", out).fingerprint == expected
  assert mnist.load("tfds", out).fingerprint == expected
  assert {path.name for path in (out / "mnist").iterdir()} == {
    *hashes,
    "lnrnn_mnist",
  }

  made = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
  # Nothing is left to fetch: done without the network and without --from.
  assert run("-c", code, "mnist", "--out", out).returncode == 0
  assert made == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


@pytest.mark.long
def test_the_published_files_pass(prepare, mnist_dir, tmp_path):
  pytest.importorskip("tensorflow_datasets")
  result = prepare("mnist", f"--from={mnist_dir}", f"--out={tmp_path}")
  assert result.returncode == 0, result.stderr
  expected = mnist.load("idx", mnist_dir).fingerprint
  assert mnist.load("tfds", tmp_path).fingerprint == expected


def test_a_file_with_another_hash_is_refused(prepare, tmp_path):
  source = tmp_path / "source"
  source.mkdir()
  (source / "train-images-idx3-ubyte.gz").write_bytes(b"not the digits")
  out = tmp_path / "out"
  result = prepare("mnist", f"--from={source}", f"--out={out}")
  assert result.returncode == 2
  assert "train-images-idx3-ubyte.gz: cannot be had" in result.stderr
  assert len(result.stderr.splitlines()) == 1
  assert not list((out / "mnist").iterdir())


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ([], "TASK: nothing is not allowed: one of mnist"),
    (["mnits", "--out=o"], "TASK: mnits is not allowed: one of mnist"),
    (["mnist"], "--out: a directory to put the data in is needed"),
    (["mnist", "--out=o", "--from=/no/where"], "/no/where is not a directory"),
  ],
)
def test_a_mistake_is_one_line(prepare, arguments, reason):
  result = prepare(*arguments)
  assert result.returncode == 2
  assert reason in result.stderr
  assert len(result.stderr.splitlines()) == 1
