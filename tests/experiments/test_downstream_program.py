"""experiments.downstream: what the vectors of a run are worth on tiny tasks.

Also what runs beside a training, and the sentences that `evaluate` answers.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import time

import numpy as np
import pytest

from experiments import beside, encoders, launch, skip_thoughts
from lnrnn import downstream, report
from lnrnn.data import sentence_tasks
from lnrnn.errors import DataError, UserError
from lnrnn.sentence_encoder import SkipThoughtEncoder
from lnrnn.training import checkpoints, runs, writers
from lnrnn.training import workdir as workdir_lib

CLASSES = sentence_tasks.CLASSIFICATION
EACH = 20  # Sentences of each class.
PAIRS = {"train": 30, "trial": 12, "test": 18}
KINDS = (
  ("the rabbit was very late", "she ran after it", "it said so to alice"),
  ("alice thought of the cat", "and they had a zebra", "but i do not know"),
)
ROWS = "metrics_downstream.jsonl"


def texts(rng, kind, n):
  """Sentences that tell their class, more or less."""
  found = []
  for _ in range(n):
    words = rng.choice(KINDS[kind ^ (rng.random() < 0.2)]).split()
    found.append(" ".join(rng.permutation(words)) + " .")
  return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A folder with all tasks, in the formats of their owners."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  for name in ("sick", "sentence_classification"):
    (folder / name).mkdir()
  for names in CLASSES.values():
    for kind, name in enumerate(names):
      lines = "\n".join(texts(rng, kind, EACH)) + "\n"
      (folder / "sentence_classification" / name).write_text(lines)
  for part, n in PAIRS.items():
    lines = ["pair_ID\tsentence_A\tsentence_B\trelatedness_score\tother"]
    for i in range(n):
      a, b = rng.integers(2, size=2)
      score = f"{(4 if a == b else 2) + rng.random():.2f}"
      both = [texts(rng, kind, 1)[0] for kind in (a, b)]
      lines.append("\t".join([str(i), *both, score, "NEUTRAL"]))
    path = folder / "sick" / sentence_tasks.SICK[part]
    path.write_text("\r\n".join(lines) + "\r\n", newline="")
  return folder


@pytest.fixture
def data_there(data, monkeypatch):
  monkeypatch.setenv("LNRNN_DATA_DIR", str(data))
  # A fit takes some ten milliseconds, and a choice makes hundreds.
  monkeypatch.setattr(downstream.classes, "TOLERANCE", 0.01)
  few = functools.partial(downstream.classification, cs=(1, 4), inner_folds=2)
  monkeypatch.setattr(downstream, "classification", few)


@pytest.fixture(scope="module")
def spec(repo):
  small = "smoke,data.vocabulary=60,downstream.every=2"
  tasks = "downstream.tasks=('sick','mr')"
  return f"{repo}/configs/skip_thoughts.py:{small},{tasks}"


@pytest.fixture(scope="module")
def trained(spec, repo, data, tmp_path_factory):
  """A run with its evaluations beside, and what it printed."""
  folder = tmp_path_factory.mktemp("runs") / "run"
  out = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(repo)
    patch.setenv("LNRNN_DATA_DIR", str(data))
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # Of the other process.
    with contextlib.redirect_stdout(out):
      launch.train(spec, folder)
  return folder, out.getvalue()


@pytest.fixture
def evaluated(trained, tmp_path, data_there):
  """A copy of the run with its evaluations."""
  return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def run(evaluated):
  """A copy of the run that was never evaluated."""
  (evaluated / ROWS).unlink()
  shutil.rmtree(evaluated / "downstream")
  return evaluated


def rows_of(run):
  return writers.read_rows(run / ROWS)


def files_of(run):
  return {path.name for path in (run / "downstream").iterdir()}


def measured(folder, name):
  return json.loads((folder / "downstream" / f"{name}.json").read_text())


def names(*classes):
  """Of all that is measured on SICK and some classifications."""
  return {
    *(f"sick_{name}" for name in ("pearson", "spearman", "mse", "unknown")),
    *(f"{name}{end}" for name in classes for end in ("", "_sd", "_unknown")),
  }


# --- Beside the training ---


def test_a_training_waits_until_every_checkpoint_is_evaluated(trained):
  run, out = trained
  assert out.splitlines()[-1] == "waiting for experiments.downstream"
  assert checkpoints.committed_steps(run) == [2, 4]
  seconds = {
    row["step"]: row["time/train_seconds"]
    for row in writers.read_rows(run / "metrics.jsonl")
    if "validation/nll" in row
  }
  assert [row["step"] for row in rows_of(run)] == [2, 4]
  for row in rows_of(run):
    assert row["time/train_seconds"] == seconds[row["step"]]
    found = {k: v for k, v in row.items() if k.startswith("downstream/")}
    assert found.keys() == {f"downstream/{name}" for name in names("mr")}
    assert np.isfinite(list(found.values())).all()
    of_file = measured(run, f"{row['step']:08d}")
    assert found == {f"downstream/{k}": v for k, v in of_file.items()}
    with np.load(run / "downstream" / f"{row['step']:08d}.npz") as cases:
      assert cases["sick"].shape == (PAIRS["test"],)
      assert cases["mr"].shape == (2 * EACH,)
      # Folds of one size.
      assert of_file["mr"] == pytest.approx(100 * cases["mr"].mean())
  assert rows_of(run)[0]["downstream/mr_unknown"] > 0  # There are no zebras.


def test_the_rows_are_read_with_those_of_the_training(trained):
  curves = runs.Curves.read(trained[0])
  steps = [row["step"] for row in curves.rows]
  assert steps == sorted(steps) and not curves.unfinished
  at, values = curves.get("downstream/sick_mse")
  assert at.tolist() == [2, 4] and np.isfinite(values).all()
  assert curves.get("validation/nll")[0].tolist() == [2, 4]
  seconds = curves.abscissa("downstream/mr", "seconds")
  assert (seconds == curves.abscissa("validation/nll", "seconds")).all()


def test_the_regularisation_is_chosen_once_and_kept(evaluated, program):
  path = evaluated / "downstream" / "regularisation.json"
  kept = json.loads(path.read_text())
  assert kept.keys() == {"mr"} and len(kept["mr"]) == downstream.FOLDS
  assert set(kept["mr"]) <= set(downstream.CS)
  kept = {"mr": [0.5] * downstream.FOLDS, "subj": [2.0] * downstream.FOLDS}
  path.write_text(json.dumps(kept))
  call = ("downstream", f"--workdir={evaluated}", "--checkpoint=4")
  assert program(*call, "--tasks=mr").code == 0
  assert json.loads(path.read_bytes()) == kept
  # That is what the fixed numbers give.
  encoder, step = encoders.restored(evaluated, "4")
  folder = os.path.join(os.environ["LNRNN_DATA_DIR"], "sentence_classification")
  mr = sentence_tasks.read_labelled(folder, "mr")
  expected = downstream.classification(
    encoder.encode(mr.texts, end=False),
    mr.labels,
    how="fixed",
    fixed=[0.5] * 10,
  )
  row = rows_of(evaluated)[-1]
  assert row["step"] == step == 4
  assert row["downstream/mr"] == pytest.approx(100 * expected.accuracy)


def test_what_fails_beside_a_training_is_told_and_stops_nothing(
  run, spec, monkeypatch, capfd
):
  shutil.rmtree(run / "checkpoints" / "4")
  arguments = ["not_a_module_of_ours", "--of=it"]
  monkeypatch.setattr(skip_thoughts, "beside", lambda *_: arguments)
  launch.train(spec, run)
  assert checkpoints.committed_steps(run) == [2, 4]
  lines = [
    line for line in capfd.readouterr().err.splitlines() if "exit" in line
  ]
  assert lines == [
    "not_a_module_of_ours ended with exit code 1; again by python -m"
    " not_a_module_of_ours --of=it"
  ]


def test_what_runs_beside_waits_for_this_start_of_the_run(
  evaluated, spec, data, monkeypatch
):
  config = launch.load(spec)
  found = skip_thoughts.beside(evaluated, config)
  assert found == [
    "experiments.downstream",
    f"--workdir={evaluated}",
    *("--follow", "--after=1"),
  ]
  assert skip_thoughts.beside(evaluated / "new", config)[-1] == "--after=0"
  config.downstream.every = 0
  assert skip_thoughts.beside(evaluated, config) is None
  config.downstream.every = 2
  monkeypatch.delenv("LNRNN_DATA_DIR")
  with pytest.raises(DataError, match="the task sick"):
    skip_thoughts.beside(evaluated, config)


@pytest.fixture
def module(tmp_path, monkeypatch):
  """A text -> arguments of `python -m` that run it."""
  monkeypatch.chdir(tmp_path)

  def write(text):
    (tmp_path / "program.py").write_text(text)
    return ["program", "--first", "second"]

  return write


def _appears(path):
  end = time.monotonic() + 60
  while not path.exists() and time.monotonic() < end:
    time.sleep(0.01)
  return path.exists()


def test_a_program_beside_knows_its_parent_and_is_waited_for(
  module, tmp_path, capfd
):
  text = """
import os, pathlib, sys, time
time.sleep(0.3)
told = [*sys.argv[1:], os.environ["JAX_PLATFORMS"], str(os.getsid(0))]
pathlib.Path("told").write_text(" ".join(told))
"""
  with beside.running(module(text)):
    assert not (tmp_path / "told").exists()
  *told, session = (tmp_path / "told").read_text().split()
  assert told == ["--first", "second", f"--parent={os.getpid()}", "cpu"]
  assert int(session) != os.getsid(0)  # Ctrl-C does not reach it.
  assert capfd.readouterr() == ("waiting for program\n", "")


def test_an_exception_ends_the_program_beside(module, tmp_path, capfd):
  text = """
import os, pathlib, time
pathlib.Path("part").write_text(str(os.getpid()))
pathlib.Path("part").rename("pid")
time.sleep(600)
"""
  began = time.monotonic()
  with pytest.raises(KeyboardInterrupt), beside.running(module(text)):
    assert _appears(tmp_path / "pid")
    raise KeyboardInterrupt
  assert time.monotonic() - began < 100
  with pytest.raises(ProcessLookupError):
    os.kill(int((tmp_path / "pid").read_text()), 0)
  assert capfd.readouterr() == ("", "")


def test_nothing_runs_beside_where_there_is_nothing_to_do(capfd):
  with beside.running(None):
    pass
  assert capfd.readouterr() == ("", "")


@pytest.fixture
def no_waiting(monkeypatch):
  """No time passes, and this process keeps its priority."""
  monkeypatch.setattr(time, "sleep", lambda seconds: None)
  monkeypatch.setattr(os, "nice", lambda by: 0)


@pytest.mark.parametrize("after", [0, 1])
def test_what_follows_a_training_ends_with_it(
  evaluated, tmp_path, program, no_waiting, after
):
  # In the one folder no run begins, in the other none begins again.
  folder = evaluated if after else tmp_path / "never"
  result = program(
    *("downstream", f"--workdir={folder}", "--follow"),
    *(f"--after={after}", "--parent=1000000000"),
  )
  assert result.code == 2
  assert result.lines == ["the training has ended before its end"]


# --- By itself ---


def test_each_checkpoint_is_evaluated_once(evaluated, program, contents):
  before = contents(evaluated)
  for more in ([], ["--follow"]):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(os, "nice", lambda by: 0)
      result = program("downstream", f"--workdir={evaluated}", *more)
    assert result == (0, "", "")
  assert contents(evaluated) == before


def test_what_is_missing_is_evaluated_as_beside_the_training(
  evaluated, program, trained
):
  first, second = (evaluated / ROWS).read_text().splitlines(True)
  (evaluated / ROWS).write_text(first)
  result = program("downstream", f"--workdir={evaluated}")
  assert result.code == 0, result.err
  (line,) = result.out.splitlines()
  assert line.startswith(f"{evaluated}: step 4: sick_pearson ")
  assert "unknown" not in line and "_sd" not in line
  found = rows_of(evaluated)
  assert [row["step"] for row in found] == [2, 4]
  assert found[1] == pytest.approx(json.loads(second), rel=0.05)


def test_one_checkpoint_is_evaluated_anew(run, program):
  call = ("downstream", f"--workdir={run}", "--tasks=mr", "--checkpoint=best")
  assert program(*call).code == 0
  (first,) = rows_of(run)
  assert program(*call).code == 0
  assert rows_of(run) == [first] and first["step"] == 4
  assert {name for name in first if "/" in name} == {
    *("downstream/mr", "downstream/mr_sd", "downstream/mr_unknown"),
    "time/train_seconds",
  }
  kept = json.loads((run / "downstream" / "regularisation.json").read_text())
  assert kept.keys() == {"mr"}


def test_the_untrained_model_decides_nothing_for_the_trained(run, program):
  call = ("downstream", f"--workdir={run}", "--untrained", "--tasks=mr")
  result = program(*call)
  assert result.code == 0, result.err
  (row,) = rows_of(run)
  assert row["step"] == 0 and row["time/train_seconds"] == 0
  # Of 60 words it knows nothing yet.
  assert row["untrained/nll"] == pytest.approx(np.log(60), abs=0.1)
  found = runs.Curves.read(run)
  assert row["untrained/nll"] > found.get("validation/nll")[1][-1]
  assert files_of(run) == {"00000000_untrained.json", "00000000_untrained.npz"}
  # It is no point of the curves of trained models.
  assert not len(found.get("downstream/mr")[0])
  one = runs.Run((), 0, "", run)
  metric = report.Metric("untrained/mr", "max", False)
  comparison = report.Comparison([one], {one: found}, [], [metric])
  assert report.points(comparison)[0]["updates"] == 0
  assert found.abscissa("untrained/mr", "seconds").tolist() == [0]


def test_the_untrained_model_is_that_before_the_first_update(trained, spec):
  encoder = encoders.untrained_encoder(trained[0])
  config = launch.load(spec)
  experiment = skip_thoughts.build(config)
  from lnrnn.training import step as step_lib

  key = step_lib.Keys.of(config.seed).init
  variables = experiment.init(key, experiment.train_data[0])
  expected = SkipThoughtEncoder.of(
    experiment.model, variables, experiment.assets
  )
  assert encoder.words == expected.words
  np.testing.assert_allclose(encoder.vectors, expected.vectors, rtol=1e-6)


def test_other_ways_to_choose_have_no_part_in_the_curves(run, program):
  call = ("downstream", f"--workdir={run}", "--tasks=mr", "--choice=nested")
  # What was kept is for another way.
  kept = run / "downstream" / "regularisation.json"
  kept.parent.mkdir()
  kept.write_text(json.dumps({"mr": [2.0] * downstream.FOLDS}))
  result = program(*call, "--checkpoint=4")
  assert result.code == 0, result.err
  assert not (run / ROWS).exists()
  name = "00000004_nested"
  assert files_of(run) == {kept.name, f"{name}.json", f"{name}.npz"}
  # Of all checkpoints the other is missing, and then none.
  result = program(*call)
  assert result.code == 0 and f"{run}: step 2: mr " in result.out
  assert len(result.out.splitlines()) == 1
  assert program(*call) == (0, "", "")
  assert not (run / ROWS).exists()
  assert json.loads(kept.read_text()) == {"mr": [2.0] * downstream.FOLDS}


def test_a_split_is_chosen_by_anew_and_kept_for_none(run, program):
  call = ("downstream", f"--workdir={run}", "--tasks=mr", "--checkpoint=4")
  assert program(*call, "--choice=split").code == 0
  assert files_of(run) == {"00000004_split.json", "00000004_split.npz"}
  assert not (run / ROWS).exists()
  assert program(*call).code == 0  # Which now is chosen by a split too.
  assert measured(run, "00000004") == measured(run, "00000004_split")
  assert "regularisation.json" in files_of(run)


# --- Word vectors and exported models ---


@pytest.fixture
def vectors(trained, tmp_path):
  """Word vectors in GloVe's format: of the model's words, and a zebra."""
  words = workdir_lib.read_assets(trained[0])["vocabulary"]
  rng = np.random.default_rng(0)
  path = tmp_path / "glove.txt"
  lines = [
    " ".join([word, *map("{:.4f}".format, rng.normal(size=3))])
    for word in (*words[:50], "zebra", "late")
  ]
  path.write_text("\n".join(lines) + "\n")
  return path


def test_the_vocabulary_of_a_run_is_enlarged(run, vectors, program):
  call = ("downstream", f"--workdir={run}", "--tasks=mr")
  assert program(*call, "--checkpoint=4").code == 0
  result = program(*call, f"--expand={vectors}")
  assert result.code == 0, result.err
  assert len(result.out.splitlines()) == 2  # A line a checkpoint.
  assert program(*call, f"--expand={vectors}") == (0, "", "")
  assert len(rows_of(run)) == 1
  plain = measured(run, "00000004")
  larger = measured(run, "00000004_expanded")
  assert 0 < larger["mr_unknown"] < plain["mr_unknown"]


def test_the_mean_of_word_vectors_is_evaluated(
  vectors, data_there, data, tmp_path, program, contents
):
  call = ("downstream", f"--vectors={vectors}", f"--out={tmp_path / 'bag'}")
  result = program(*call)
  assert result.code == 0, result.err
  found = json.loads(result.out)
  assert found.keys() == names(*CLASSES)
  assert found == measured(tmp_path / "bag", "00000000")
  first = contents(tmp_path / "bag")
  assert set(first) == {
    f"downstream/{name}"
    for name in ("00000000.json", "00000000.npz", "regularisation.json")
  }
  # Nothing but the known words has a part in it.
  known = {line.split()[0] for line in vectors.read_text().splitlines()}
  folder = data / "sentence_classification"
  words = " ".join(sentence_tasks.read_labelled(folder, "mr").texts).split()
  unknown = np.mean([word not in known for word in words])
  assert found["mr_unknown"] == pytest.approx(unknown)
  result = program(*call, "--tasks=mr", "--choice=nested")
  assert result.code == 0 and json.loads(result.out).keys() == {
    *("mr", "mr_sd", "mr_unknown")
  }
  assert contents(tmp_path / "bag").items() >= first.items()


def test_an_exported_model_is_evaluated_as_the_run_is(
  evaluated, vectors, tmp_path, program, repo, monkeypatch
):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  script = importlib.import_module("export")
  out = tmp_path / "exported"
  assert script.main([str(evaluated), str(out)]) == 0
  # The same vectors, with nothing but the folder.
  texts = ["the rabbit ran.", "", "a zebra!"]
  own = encoders.load_encoder(evaluated).encode(texts)
  loaded = SkipThoughtEncoder.load(out)
  np.testing.assert_allclose(loaded.encode(texts), own, rtol=1e-6)
  call = ("downstream", f"--model={out}", f"--out={tmp_path / 'model'}")
  result = program(*call, "--tasks=sick,mr")
  assert result.code == 0, result.err
  found = json.loads(result.out)
  expected = measured(evaluated, "00000004")
  assert found.keys() == expected.keys()
  for name in ("sick_unknown", "mr_unknown"):
    assert found[name] == expected[name]
  # The run keeps what its first checkpoint chose, the model chooses itself.
  assert found["sick_mse"] == pytest.approx(expected["sick_mse"], rel=0.05)
  result = program(*call, "--tasks=mr", f"--expand={vectors}")
  assert json.loads(result.out)["mr_unknown"] < found["mr_unknown"]


@pytest.mark.parametrize(
  ("change", "told"),
  [
    (lambda words: [*words[:-1], "zzz"], "has other words than those of the"),
    (lambda words: words[:-1], "has other words than those of the training"),
    (lambda words: words[::-1], "has other words than those of the training"),
    (lambda words: {w: w for w in words}, "has no vocabulary, a list of"),
  ],
)
def test_the_vocabulary_of_another_run_is_refused(evaluated, change, told):
  path = evaluated / "assets" / "vocabulary.json"
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  with pytest.raises(UserError, match=told) as caught:
    encoders.load_encoder(evaluated)
  assert "\n" not in str(caught.value) and str(evaluated) in str(caught.value)


def test_a_run_that_lost_its_vocabulary_is_refused(evaluated):
  (evaluated / "assets" / "vocabulary.json").unlink()
  with pytest.raises(UserError, match="has no vocabulary, a list of words"):
    encoders.load_encoder(evaluated)


# --- What is refused ---


@pytest.fixture
def nothing_computed(monkeypatch):
  """No model is restored, so nothing is compiled."""

  def fail(*_):
    raise AssertionError("a model was restored")

  for name in ("restored", "untrained_encoder"):
    monkeypatch.setattr(encoders, name, fail)
  monkeypatch.setattr(SkipThoughtEncoder, "load", fail)


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ([], "one of --workdir, --vectors and --model is needed"),
    (["--workdir=a", "--model=b"], "one of --workdir, --vectors and --model"),
    (["--vectors=a", "--model=b", "--out=c"], "one of --workdir, --vectors"),
    (["--vectors=a"], "--out: a folder for the results is needed"),
    (["--model=a"], "--out: a folder for the results is needed"),
    (
      ["--workdir={run}", "--tasks=mrr"],
      "--tasks=mrr: must be one of sick, mr",
    ),
    (["--model=a", "--out=b", "--tasks=mr,x"], "--tasks=x: must be one of"),
    (["--vectors=no.txt", "--out=b"], "no.txt: no such file or folder"),
    (["--workdir={run}", "--expand=no.txt"], "no.txt: no such file or folder"),
    (["--workdir={run}", "--choice=best"], "flag --choice=best: value should"),
    (["--workdir={run}", "--data_dir={run}/no"], "/no: no such directory"),
    (["--workdir={run}/no"], "no run is here"),
  ],
)
def test_what_cannot_be_done_is_one_line(
  run, program, nothing_computed, arguments, told
):
  result = program("downstream", *(a.format(run=run) for a in arguments))
  assert result.code == 2
  assert len(result.lines) == 1 or "--choice" in told
  assert told in result.lines[0]
  assert not (run / ROWS).exists()


def test_without_a_folder_of_data_it_is_said(
  run, program, nothing_computed, monkeypatch, spec, tmp_path
):
  monkeypatch.delenv("LNRNN_DATA_DIR")
  result = program("downstream", f"--workdir={run}")
  assert result.code == 2
  (line,) = result.lines
  assert "sick" in line and "LNRNN_DATA_DIR" in line
  # A training that would need it says so before it begins.
  new = tmp_path / "new"
  result = program("train", f"--config={spec}", f"--workdir={new}")
  assert result.code == 2
  (line,) = result.lines
  assert "sick" in line and "LNRNN_DATA_DIR" in line
  assert not (new / "metrics.jsonl").exists()


def test_a_file_of_another_format_is_named(
  run, program, nothing_computed, data, tmp_path
):
  copy = shutil.copytree(data, tmp_path / "data")
  path = copy / "sick" / "SICK_trial.txt"
  path.write_text(path.read_text().replace("relatedness_score", "score", 1))
  call = ("downstream", f"--workdir={run}", f"--data_dir={copy}")
  result = program(*call)
  assert result.code == 2
  (line,) = result.lines
  assert line.startswith(f"{path}, line 1: has no column relatedness_score;")
  (copy / "sentence_classification" / "custrev.pos").unlink()
  result = program(*call, "--tasks=cr")
  assert result.code == 2
  assert result.lines[0].endswith("custrev.pos: no such file")


def test_a_run_of_another_experiment_is_refused(repo, tmp_path, program):
  config = launch.load(f"{repo}/configs/mnist_mlp.py:smoke")
  workdir_lib.write_record(
    tmp_path,
    config,
    **{"data": "", "fingerprint": "", "steps_per_epoch": 1},
    **{"device": "", "step": 0},
  )
  result = program("downstream", f"--workdir={tmp_path}")
  assert result.code == 2
  assert result.lines == [
    f"workdir {tmp_path}: is a run of mnist_mlp; sentence vectors are those of"
    " skip_thoughts"
  ]
  with pytest.raises(UserError, match="is a run of mnist_mlp, not of skip_th"):
    encoders.load_encoder(tmp_path)


@pytest.mark.parametrize("checkpoint", ["3", "newest"])
def test_a_checkpoint_that_is_not_there_is_said(run, program, checkpoint):
  result = program(
    *("downstream", f"--workdir={run}", f"--checkpoint={checkpoint}")
  )
  assert result.code == 2
  (line,) = result.lines
  assert f"'{checkpoint}' is not in" in line and "2, 4" in line


# --- evaluate --sentence ---


def test_evaluate_tells_the_neighbours_of_sentences_and_the_nearest(
  trained, program
):
  call = ("evaluate", f"--workdir={trained[0]}", "--split=validation")
  texts = ["Alice was very late.", "the zebra"]
  result = program(*call, *(f"--sentence={t}" for t in texts), "--top=3")
  assert result.code == 0, result.err
  lines = result.out.splitlines()
  assert len(lines) == 2 * (1 + 2 + 3)
  for i, text in enumerate(texts):
    head, previous, following, *near = lines[6 * i : 6 * i + 6]
    assert head == repr(text)
    assert previous.startswith("  previous: ")
    assert following.startswith("  next:     ")
    cosines = [float(line.split()[0]) for line in near]
    assert cosines == sorted(cosines, reverse=True) and cosines[0] <= 1.0001
    assert len({line.split(maxsplit=1)[1] for line in near}) == 3
  # A sentence of the split is the nearest to itself.
  nearest = lines[3].split(maxsplit=1)[1]
  if "<unk>" not in nearest:
    result = program(*call, f"--sentence={nearest}", "--top=1")
    assert result.out.splitlines()[-1] == f"  {1:9.4f}   {nearest}"


@pytest.mark.parametrize("text", ["", "...", "  ?! "])
def test_a_sentence_without_a_word_is_refused(trained, program, text):
  result = program("evaluate", f"--workdir={trained[0]}", f"--sentence={text}")
  assert result.code == 2
  assert result.lines == [f"--sentence={text!r}: has no word"]


def test_a_disk_that_refuses_is_told_in_one_line(
  vectors, data_there, tmp_path, program, monkeypatch
):
  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  out = tmp_path / "bag"
  call = ("downstream", f"--vectors={vectors}", f"--out={out}", "--tasks=mr")
  result = program(*call)
  assert result.code == 2
  assert result.lines == [f"{out} cannot be written: No space left on device"]
