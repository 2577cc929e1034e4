"""What the handwriting task refuses, measures and writes, on a few lines."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import handwriting, launch
from lnrnn.data import iam_ondb
from lnrnn.errors import ConfigError
from lnrnn.models.handwriting import Text
from lnrnn.training import config as config_lib
from lnrnn.training import writers

SMALL = "smoke,data.points=12,model.features=6,sample_points=8"


@pytest.fixture(scope="module", autouse=True)
def few_lines():
  """The embedded data is a handful of lines."""
  with pytest.MonkeyPatch.context() as patch:
    sizes = {"train": 9, "validation": 7}
    patch.setattr(iam_ondb, "EMBEDDED_LINES", sizes)
    yield


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/handwriting.py"


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment, its first variables)."""

  def build(arguments=""):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    experiment = handwriting.build(config)
    batch = experiment.train_data[0]
    init = jax.jit(lambda key: experiment.init(key, batch))
    return config, experiment, init(jax.random.key(0))

  return build


@pytest.fixture(scope="module")
def smoke(built):
  return built()


# --- The config ---


def test_the_paper_s_network_is_the_default_on_the_paper_s_data(path):
  config = config_lib.load_config(f"{path}:data.source=iam_ondb")
  assert (config.batch_size, config.data.points) == (8, 500)
  model = handwriting.make_model(config)
  assert (model.features, model.layers, model.window) == (400, 3, 10)
  assert (model.mixtures, model.characters) == (20, 57)
  assert (model.norm, model.form, model.inputs) == (
    "layer",
    "separate",
    "together",
  )
  assert not model.peepholes


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import handwriting as config_file

  for arguments in config_file.sweep():
    assert launch.load(f"{path}:{arguments},data.source=iam_ondb")


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ("norm=layers", "norm='layers'"),
    ("data.source=iam", "data.source='iam'"),
    ("data.splitting=all", "data.splitting='all'"),
    ("data.pieces=some", "data.pieces='some'"),
    ("data.points=0", "data.points=0"),
    ("norm=batch,data.pieces=all", "data.pieces='all': batch norm"),
    ("batch_size=4,accumulate=2,data.pieces=all", "accumulate=2: data.pieces"),
    ("model.inputs=alone", "model.inputs='alone'"),
    ("model.inputs=apart,model.form=sum", "model.inputs='apart': apart goes"),
    ("model.window=-1", "model.window=-1"),
    ("model.mixtures=0", "model.mixtures=0"),
    ("model.pace=0", "model.pace=0.0"),
    ("model.min_deviation=0", "model.min_deviation=0.0"),
    ("model.gain_init=0", "model.gain_init=0.0"),
    ("norm=batch,batch_size=1", "batch_size=1: batch norm"),
    ("best=test/bound:min", "best='test/bound:min'"),
    ("data.pieces=all,epochs=1", "epochs=1.0: data.pieces='all'"),
  ],
)
def test_a_fault_of_the_config_is_one_line(path, arguments, told):
  with pytest.raises(ConfigError) as caught:
    launch.load(f"{path}:{arguments}")
  (line,) = caught.value.faults
  assert line.startswith(told)


# --- What is measured ---


def test_the_loss_is_the_mean_over_lines_of_their_points(smoke):
  _, experiment, variables = smoke
  batch = experiment.train_data[3]
  value, (_, metrics) = jax.jit(experiment.loss)(
    variables, batch, jax.random.key(0)
  )
  text = Text(batch["text"], batch["text_length"])
  total, apply = 0, jax.jit(experiment.model.apply)
  for row in range(len(batch["ink"])):
    one = slice(row, row + 1)
    n = batch["length"][row]
    _, nll = apply(
      variables,
      batch["ink"][one, :n],
      batch["length"][one],
      Text(text.codes[one], text.lengths[one]),
    )
    total += nll.sum()
  np.testing.assert_allclose(value, total / len(batch["ink"]), rtol=1e-5)
  np.testing.assert_allclose(
    metrics["nll_per_point"], total / batch["length"].sum(), rtol=1e-5
  )


def test_an_evaluation_is_over_all_its_lines_and_no_padding(built, smoke):
  _, experiment, variables = smoke
  config, whole, _ = built("eval_cases=0,eval_batch_size=4")
  del config
  got = whole.evals["nll"].fn(variables, "validation", jax.random.key(0))
  data = iam_ondb.load()
  rows = iam_ondb.padded(data.splits["validation"], 12)
  _, nll = jax.jit(experiment.model.apply)(
    variables,
    rows["ink"],
    rows["length"],
    Text(rows["text"], rows["text_length"]),
  )
  assert got["nll"] == pytest.approx(float(nll.sum(axis=1).mean()), rel=1e-5)
  assert got["nll_per_point"] == pytest.approx(
    float(nll.sum() / rows["length"].sum()), rel=1e-5
  )


def test_the_state_of_pieces_is_that_of_whole_lines(built):
  """A line in pieces has the loss that it has in one."""
  _, experiment, variables = built("data.pieces=all,data.points=9")
  assert variables["carry"]["c_0"].shape == (4, 6)
  data = iam_ondb.load()
  lines = data.splits["train"]
  rows = iam_ondb.padded(lines, 300)
  _, expected = jax.jit(experiment.model.apply)(
    {"params": variables["params"]},
    rows["ink"],
    rows["length"],
    Text(rows["text"], rows["text_length"]),
  )
  loss = jax.jit(experiment.loss)
  points = 0.0
  total = 0.0
  seen = np.zeros(len(rows["length"]), bool)
  for step in range(experiment.train_data.steps_per_epoch):
    batch = experiment.train_data[step]
    value, (changed, _) = loss(variables, batch, jax.random.key(0))
    variables = {**variables, **changed}
    total += float(value) * 4
    points += batch["length"].sum()
  # In the first epoch the first stream begins with whole lines; the others
  # may begin within one, and what is cut there has no points.
  assert np.isfinite(total) and points <= rows["length"].sum()
  del seen
  # A stream alone, against its lines in one piece.
  codes = [tuple(t) for t in rows["text"]]
  fresh = {
    **variables,
    "carry": jax.tree.map(np.zeros_like, variables["carry"]),
  }
  row_nll, current = [], None
  for step in range(experiment.train_data.steps_per_epoch):
    batch = experiment.train_data[step]
    one = {
      name: (np.where(np.arange(4) == 0, a, 0) if name == "length" else a)
      for name, a in batch.items()
    }
    value, (changed, _) = loss(fresh, one, jax.random.key(0))
    fresh = {**fresh, **changed}
    if batch["begins"][0]:
      current = codes.index(tuple(batch["text"][0]))
      row_nll.append([current, 0.0, 0])
    row_nll[-1][1] += 4 * float(value)
    row_nll[-1][2] += int(batch["length"][0])
  whole = [r for r in row_nll if r[2] == rows["length"][r[0]]]
  assert len(whole) >= 1
  for line, nll, _ in whole:
    assert nll == pytest.approx(float(expected[line].sum()), rel=1e-4)


# --- The programs ---


@pytest.fixture(scope="module")
def trained(path, tmp_path_factory):
  """A workdir of a run of four updates."""
  folder = tmp_path_factory.mktemp("run") / "run"
  launch.train(f"{path}:{SMALL}", folder)
  return folder


def test_a_run_measures_both_splits_and_shows_writing(trained):
  last = writers.read_metrics(trained)[-1]
  assert {"train/nll", "validation/nll", "validation/nll_per_point"} <= set(
    last
  )
  with Image.open(trained / "figures/validation-writing-000004.png") as image:
    assert image.width > 300


def test_pieces_resume_with_their_state(path, tmp_path):
  spec = f"{path}:{SMALL},data.pieces=all"
  launch.train(f"{spec},train_steps=4", tmp_path / "whole")
  launch.train(f"{spec},train_steps=2", tmp_path / "parts")
  launch.train(f"{spec},train_steps=4", tmp_path / "parts")
  rows = [
    [
      {k: v for k, v in row.items() if not k.startswith("time/")}
      for row in writers.read_metrics(tmp_path / name)
      if "loss" in row
    ]
    for name in ("whole", "parts")
  ]
  assert rows[0] == rows[1]


def test_evaluate_repeats_what_training_measured(trained, program):
  result = program("evaluate", f"--workdir={trained}", "--split=validation")
  assert result.code == 0, result.err
  found = json.loads(result.out)
  last = writers.read_metrics(trained)[-1]
  assert found["validation/nll"] == pytest.approx(last["validation/nll"])


def test_sample_writes_pictures_and_points(trained, program, tmp_path):
  texts = ["Some $words", "more; 2", "more; 2"]
  result = program(
    "sample",
    f"--workdir={trained}",
    *(f"--text={text}" for text in texts),
    "--bias=0.7",
    "--prime=train-0003",
    f"--out={tmp_path}",
  )
  assert result.code == 0, result.err
  names = sorted(path.name for path in tmp_path.iterdir())
  stems = {name.rpartition(".")[0] for name in names}
  assert len(stems) == 3 and len(names) == 9
  assert "one sign stands for each of $2;" in result.out
  for stem in stems:
    points = np.load(tmp_path / f"{stem}.npy")
    assert points.shape[1] == 3 and len(points) <= 8
    assert (tmp_path / f"{stem}.svg").read_text().startswith("<?xml")
  assert result.out.count(" points") == 3


def test_sample_draws_the_same_for_a_seed(trained, program, tmp_path):
  def points(folder, seed):
    arguments = (f"--out={tmp_path / folder}", f"--seed={seed}")
    program("sample", f"--workdir={trained}", "--text=a b", *arguments)
    (path,) = (tmp_path / folder).glob("*.npy")
    return np.load(path)

  np.testing.assert_array_equal(points("a", 1), points("b", 1))
  assert points("c", 2).tolist() != points("a", 1).tolist()


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ([], "--text: what to write is needed"),
    (["--text="], "text '': is empty"),
    (["--text=a1", "--unknown=refuse"], "text 'a1': '1' cannot be written"),
    (["--text=a", "--prime=z99-01"], "--prime='z99-01': there is no such line"),
    (["--text=a", "--bias=-1"], "bias"),
    (["--text=a\nb"], "has what cannot be printed"),
    (["--text=a", f"--out={__file__}"], "is no folder"),
    (["--text=a", "--checkpoint=7"], "7"),
  ],
)
def test_sample_answers_a_mistake_in_one_line(
  trained, program, arguments, told
):
  result = program("sample", f"--workdir={trained}", *arguments)
  assert result.code == 2
  (line,) = result.lines
  assert told in line


def test_sampling_is_for_handwriting(program, spec, few_digits, tmp_path):
  launch.train(spec, tmp_path / "mnist")
  result = program("sample", f"--workdir={tmp_path / 'mnist'}", "--text=a")
  assert result.code == 2 and "is a run of mnist_mlp" in result.lines[0]


def test_the_prediction_network_trains_and_writes(path, program, tmp_path):
  launch.train(f"{path}:{SMALL},model.window=0,train_steps=2", tmp_path / "run")
  result = program("sample", f"--workdir={tmp_path / 'run'}", "--text=name")
  assert result.code == 0, result.err
