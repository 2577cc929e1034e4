import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time

import caption_files
import cifar_files
import iam_files
import pytest

from lnrnn.data import captions, cifar10, mnist, question_files, reading

# The script, for other files than the published ones.
WITH_HASHES = """
import signal, sys
from absl import app
from scripts import prepare_data
# A test run in the background ignores Ctrl-C, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
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


def hashes(folder):
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.iterdir())
  }


def test_what_is_prepared_holds_the_files_and_the_dataset(
  run, small_dir, tmp_path
):
  pytest.importorskip("tensorflow_datasets")
  out = tmp_path / "out"
  code = WITH_HASHES.format(hashes=hashes(small_dir))
  result = run("-c", code, "mnist", f"--from={small_dir}", "--out", out)
  assert result.returncode == 0, result.stderr
  assert f"export LNRNN_DATA_DIR={out}" in result.stdout
  assert "python -m experiments.train" in result.stdout

  expected = mnist.load("idx", small_dir).fingerprint
  assert mnist.load("idx", out).fingerprint == expected
  assert mnist.load("tfds", out).fingerprint == expected
  assert {path.name for path in (out / "mnist").iterdir()} == {
    *hashes(small_dir),
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


@pytest.fixture
def started(repo, small_dir, tmp_path):
  """Runs the script on the small files, to be interrupted."""
  code = WITH_HASHES.format(hashes=hashes(small_dir))
  command = [sys.executable, "-c", code, "mnist", f"--from={small_dir}"]

  @contextlib.contextmanager
  def start():
    with subprocess.Popen(
      [*command, f"--out={tmp_path / 'out'}"],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=repo,
      env=os.environ | {"PYTHONPATH": str(repo)},
    ) as process:
      try:
        yield process
      finally:
        process.kill()

  return start


def wait_until(process, true):
  end = time.monotonic() + 60
  while not (found := true()):
    assert process.poll() is None, "it ended too early"
    assert time.monotonic() < end
    time.sleep(0.01)
  return found


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
def test_a_download_that_is_interrupted_leaves_the_whole_files_alone(
  small_dir, tmp_path, started, number
):
  complete, out = hashes(small_dir), tmp_path / "out" / "mnist"
  *before, name, _ = complete
  content = (small_dir / name).read_bytes()
  (small_dir / name).unlink()
  # A mirror that has sent a part, and is silent as long as we like.
  os.mkfifo(small_dir / name)

  def connected():
    with contextlib.suppress(OSError):
      return os.open(small_dir / name, os.O_WRONLY | os.O_NONBLOCK)

  with started() as process:
    descriptor = wait_until(process, connected)
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as mirror:
      mirror.write(content[:1_500_000])
      mirror.flush()
      (part,) = wait_until(process, lambda: list(out.glob(f".{name[:5]}*")))
      wait_until(process, lambda: part.stat().st_size)
      process.send_signal(number)
      assert process.wait(60) == 128 + number
  assert hashes(out) == {name: complete[name] for name in before}


@SIGNALS
def test_a_conversion_that_is_interrupted_leaves_no_dataset(
  small_dir, tmp_path, started, number
):
  pytest.importorskip("tensorflow_datasets")
  out = tmp_path / "out" / "mnist"
  with started() as process:
    wait_until(process, lambda: list(out.glob("lnrnn_mnist/*/*record*")))
    process.send_signal(number)
    assert process.wait(60) == 128 + number
  assert hashes(out) == hashes(small_dir)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_is_copied_read_and_converted(prepare, tmp_path, packed):
  pytest.importorskip("tensorflow_datasets")
  source, out = tmp_path / "source", tmp_path / "out"
  if packed:  # The folder is found as the runs find it.
    cifar_files.write_tar(source / "cifar10" / "some.tar.xz")
  else:
    cifar_files.write_tree(source / cifar_files.BIN)
  done = prepare("cifar10", f"--from={source}", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert "180 train / 20 validation / 30 test pictures (not" in done.stdout
  config = "configs/convnet.py:data.source=binary,data.train_cases=180 "
  assert f"--config={config}" in done.stdout
  expected = cifar10.load("binary", source).fingerprint
  for kind in ("binary", "tfds"):
    assert cifar10.load(kind, out).fingerprint == expected
  if not packed:
    return
  made = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
  # The second time there is nothing to do.
  done = prepare("cifar10", f"--from={source}", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert made == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_cifar10_that_is_damaged_gets_no_name(prepare, tmp_path):
  source, out = tmp_path / "source", tmp_path / "out"
  cifar_files.write_tar(source / "some.tgz")
  whole = (source / "some.tgz").read_bytes()
  (source / "some.tgz").write_bytes(whole[:-100])
  done = prepare("cifar10", f"--from={source}", f"--out={out}")
  assert done.returncode == 2 and "some.tgz: cannot be unpacked" in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert not (out / "cifar10" / "some.tgz").exists()


def test_cifar10_is_not_mixed_with_other_pictures(prepare, tmp_path):
  tfds_cifar10 = pytest.importorskip("lnrnn.data.tfds_cifar10")
  source, out = tmp_path / "source", tmp_path / "out"
  cifar_files.write_tree(source)
  fewer = cifar_files.parts(data_batch_10=None)
  others = cifar_files.write_tree(tmp_path / "fewer", fewer)
  tfds_cifar10.write(others, out / "cifar10")
  done = prepare("cifar10", f"--from={source}", f"--out={out}")
  assert done.returncode == 2
  assert "1.0.0: has other pictures than the files in" in done.stderr
  done = prepare("cifar10", f"--from={others}", f"--out={out}")
  assert done.returncode == 2
  assert "has other files of CIFAR-10 beside data_batch_1" in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_a_cifar10_that_is_not_the_published_one_is_not_fetched(run, tmp_path):
  cifar_files.write_tar(tmp_path / "cifar-10-binary.tar.gz")
  code = f"""
from absl import app
from scripts import prepare_data
prepare_data._CIFAR10_URL = "{tmp_path.as_uri()}/cifar-10-binary.tar.gz"
app.run(prepare_data.main)
"""
  done = run("-c", code, "cifar10", f"--out={tmp_path / 'out'}")
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert "not c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddd" in done.stderr
  assert not list((tmp_path / "out" / "cifar10").iterdir())


def test_handwriting_is_copied_and_read(prepare, tmp_path, monkeypatch):
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(tmp_path / "cache"))
  source = iam_files.write(tmp_path / "source")
  out = tmp_path / "out"
  for _ in range(2):  # The second time there is nothing to do.
    done = prepare("handwriting", f"--from={source}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "4 train / 1 validation lines" in done.stdout
    assert "--config.data.source=iam_ondb" in done.stdout
    names = {path.name for path in (out / "iam_ondb").iterdir()}
    assert names == {path.name for path in source.iterdir()}


@pytest.mark.parametrize("old", [False, True])
def test_handwriting_that_was_damaged_is_mended_by_a_second_call(
  prepare, tmp_path, monkeypatch, old
):
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(tmp_path / "cache"))
  source, out = iam_files.write(tmp_path / "source"), tmp_path / "out"
  path, copy = (d / "ascii-all.tar.xz" for d in (source, out / "iam_ondb"))
  whole = path.read_bytes()
  if old:  # A damaged copy is there already.
    copy.parent.mkdir(parents=True)
    copy.write_bytes(whole[:200])
  else:
    path.write_bytes(whole[:200])
    done = prepare("handwriting", f"--from={source}", f"--out={out}")
    assert done.returncode == 2 and f"{path}: cannot be" in done.stderr
    assert not copy.exists()
    path.write_bytes(whole)
  done = prepare("handwriting", f"--from={source}", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert copy.read_bytes() == whole


def test_handwriting_says_where_its_files_are_to_be_had(prepare, tmp_path):
  done = prepare("handwriting", f"--out={tmp_path / 'out'}")
  assert done.returncode == 2 and "registered researchers" in done.stderr
  (tmp_path / "empty").mkdir()
  done = prepare(
    "handwriting", f"--from={tmp_path / 'empty'}", f"--out={tmp_path}"
  )
  assert done.returncode == 2 and "has no lineStrokes-all.tar" in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("task", ["flickr8k", "coco"])
def test_captions_and_features_are_copied_and_read(prepare, tmp_path, task):
  write = {
    "flickr8k": caption_files.write_flickr8k,
    "coco": caption_files.write_coco,
  }
  source, out = write[task](tmp_path / "owners"), tmp_path / "out"
  done = prepare(task, "--from", source, "--out", out)
  assert done.returncode == 0, done.stderr
  assert "8 train / 4 validation / 5 test images" in done.stdout
  assert f"--config.data.source={task}" in done.stdout
  data = captions.load(task, out)
  assert data.fingerprint == captions.load(task, source).fingerprint


@pytest.mark.parametrize(
  ("task", "counted"),
  [("cnn", "2 train / 2 validation / 2 test"), ("babi", "9 train / 1")],
)
def test_questions_are_copied_and_read(
  prepare, tmp_path, monkeypatch, task, counted
):
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(tmp_path / "cache"))
  source, out = tmp_path / "owners", tmp_path / "out"
  _write_questions(source, task)
  done = prepare(task, "--from", source, "--out", out)
  assert done.returncode == 0, done.stderr
  assert counted in done.stdout
  assert f"--config.data.source={task}" in done.stdout
  found = reading.load(task, out)
  assert found.fingerprint == reading.load(task, source).fingerprint


def _write_questions(folder, task):
  if task == "cnn":
    for split in question_files.SPLITS:
      place = folder / "questions" / split
      place.mkdir(parents=True)
      for i in range(2):
        text = f"u\n\n@entity{i} sat .\n\n@placeholder sat\n\n@entity{i}\n\n"
        (place / f"{i}.question").write_text(f"{text}@entity{i}:Ann\n")
  else:
    (folder / "en").mkdir(parents=True)
    story = "1 Ann went home.\n2 Where is Ann? \thome\t1\n"
    for part in ("train", "test"):
      path = folder / "en" / f"qa1_single-supporting-fact_{part}.txt"
      path.write_text(10 * story)


@pytest.mark.parametrize("task", ["flickr8k", "coco", "cnn", "novels", "babi"])
def test_captions_say_where_they_are_to_be_had(prepare, tmp_path, task):
  done = prepare(task, "--out", tmp_path)
  assert done.returncode == 2 and "--from" in done.stderr
  assert "http" in done.stderr and done.stderr.count("\n") == 1
