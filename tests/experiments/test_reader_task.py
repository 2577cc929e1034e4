"""What the attentive reader's task refuses, measures and draws."""

import functools
import importlib
import json

import jax
import numpy as np
import pytest
import references_reader as reference

from experiments import attentive_reader, launch
from experiments.reader import BASELINES
from lnrnn import export
from lnrnn.data import cloze, deeds, vocabulary
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib
from lnrnn.training import writers

SMALL = "smoke,eval_examples=0"
QUIET = "norm=layer,model.dropout=0"


@pytest.fixture(scope="module", autouse=True)
def few_questions():
  """The embedded data is a handful of questions."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(deeds, "SIZES", {"train": 40, "validation": 21, "test": 9})
    yield


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/attentive_reader.py"


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment, its first variables)."""

  @functools.cache
  def build(arguments=QUIET):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    experiment = attentive_reader.build(config)
    batch = experiment.train_data[0]
    init = jax.jit(lambda key: experiment.init(key, batch))
    return config, experiment, init(jax.random.key(0))

  return build


# --- The config ---


@pytest.mark.parametrize("source", ["cnn", "novels"])
def test_the_papers_settings_are_the_default_on_texts(path, source):
  config = config_lib.load_config(f"{path}:data.source={source}")
  model, optimizer = config.model, config.optimizer
  assert (model.features, model.dropout, config.batch_size) == (240, 0.5, 64)
  assert (optimizer.name, optimizer.learning_rate) == ("adam", 8e-5)
  assert (optimizer.clip, optimizer.clip_rule) == (10, "authors")
  assert (model.weight_init, model.bn_padding) == ("authors", "all")
  assert (model.similarity, model.skip, model.bidirectional) == (1, 1, 0)
  assert config.data.sentences == 4
  assert config.data.permute
  assert config.eval_every == 1000


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ("norm=layers", "norm='layers'"),
    ("data.source=novel", "data.source='novel'"),
    ("data.source=babi,data.permute=true", "data.permute=True: must be false"),
    ("data.task=21", "data.task=21"),
    ("model.weight_init=author", "model.weight_init='author'"),
    ("model.bn_padding=some", "model.bn_padding='some'"),
    ("model.dropout=1", "model.dropout=1.0"),
    ("model.features=1", "model.features=1"),
    ("model.form=summ", "model.form='summ'"),
    ("model.bn_momentum=1", "model.bn_momentum=1.0"),
    ("data.sentences=-1", "data.sentences=-1"),
    ("data.max_query=-1", "data.max_query=-1"),
    ("data.multiple=0", "data.multiple=0"),
    ("data.run=0", "data.run=0"),
    ("eval_bn_batches=-1", "eval_bn_batches=-1"),
    ("optimizer.clip_rule=author", "optimizer.clip_rule='author'"),
    ("best=validation/minibatch_error:min", "best="),
    ("best=test/error:min", "best="),
    ("data.source=babi,best=validation/entity_error:min", "best="),
    ("norm=batch,eval_examples=1", "eval_examples=1: batch norm needs"),
    ("model.eps=0", "model.eps=0.0: must be above 0"),
    ("norm=none,model.norm_everywhere=true", "model.norm_everywhere=True: "),
  ],
)
def test_a_fault_of_the_config_is_one_line(path, arguments, told):
  with pytest.raises(ConfigError) as caught:
    launch.load(f"{path}:{arguments}")
  (line,) = caught.value.faults
  assert line.startswith(told)


def test_a_batch_larger_than_the_data_is_refused(built):
  with pytest.raises(ConfigError, match="batch_size: 41 .* 1 to 40"):
    built("batch_size=41")


# --- What is measured ---


HOW = dict(
  norm="layer",
  form="separate",
  eps=1e-5,
  similarity=True,
  skip=True,
  bidirectional=False,
)


def _answers(variables, examples):
  """Scores of each question, by NumPy in float64."""
  params = jax.tree.map(np.float64, variables["params"])
  cut = lambda s, i: s.tokens[s.starts[i] : s.starts[i + 1]]
  return np.array(
    [
      reference.answer(
        params, cut(examples.passages, i), cut(examples.queries, i), HOW
      )[0]
      for i in range(len(examples.answers))
    ]
  )


def test_errors_are_counted_over_all_words_and_among_the_entities(built):
  config, experiment, variables = built()
  data = attentive_reader.load_data(config)
  first, last = data.entities
  examples = data.splits["validation"]
  scores = _answers(variables, examples)
  wrong, among, nll = [], [], []
  for i, (row, answer) in enumerate(zip(scores, examples.answers, strict=True)):
    passage = examples.passages
    words = set(passage.tokens[passage.starts[i] : passage.starts[i + 1]])
    own = sorted(w for w in words if first <= w < last)
    wrong.append(row.argmax() != answer)
    among.append(max(own, key=lambda w, row=row: row[w]) != answer)
    nll.append(reference.nll(row, answer))
  found = experiment.evals["reader"].fn(
    variables, "validation", jax.random.key(0)
  )
  assert found["error"] == pytest.approx(np.mean(wrong))
  assert found["entity_error"] == pytest.approx(np.mean(among))
  assert found["nll"] == pytest.approx(np.mean(nll), rel=1e-4)
  assert 0 < found["entity_error"] < found["error"]
  baselines = cloze.measured(examples, data.entities)
  assert found["floor"] == baselines.floor == 0
  assert found["most_frequent_error"] == baselines.most_frequent
  assert set(found) == {
    *attentive_reader.MEASURES,
    *BASELINES.values(),
  }


def test_the_loss_is_the_mean_over_the_batch(built):
  """At first it is near the logarithm of the number of words."""
  config, experiment, variables = built()
  batch = experiment.train_data[1]
  loss = jax.jit(experiment.loss)
  value, (_, metrics) = loss(variables, batch, jax.random.key(0))
  params = jax.tree.map(np.float64, variables["params"])
  nll, wrong = [], []
  for i in range(len(batch["answer"])):
    scores, _ = reference.answer(
      params,
      batch["passage"][i, : batch["passage_length"][i]],
      batch["query"][i, : batch["query_length"][i]],
      HOW,
    )
    nll.append(reference.nll(scores, batch["answer"][i]))
    wrong.append(scores.argmax() != batch["answer"][i])
  np.testing.assert_allclose(value, np.mean(nll), rtol=1e-4)
  np.testing.assert_allclose(metrics["error"], np.mean(wrong), rtol=1e-5)
  words = len(attentive_reader.load_data(config).vocabulary)
  assert float(value) == pytest.approx(np.log(words), rel=0.1)


def test_batch_norm_is_measured_by_statistics_of_its_own_parameters(built):
  """Whatever the averages kept in training are; and by minibatches."""
  config, experiment, variables = built("norm=batch,eval_bn_batches=3")
  measure = experiment.evals["reader"].fn
  found = measure(variables, "validation", jax.random.key(0))
  assert {"error", "minibatch_error", "nll", "minibatch_nll"} <= set(found)
  stale = jax.tree.map(lambda a: a + 5, variables["batch_stats"])
  other = measure(
    {**variables, "batch_stats": stale}, "validation", jax.random.key(0)
  )
  for name in ("nll", "minibatch_nll"):
    assert other[name] == pytest.approx(found[name], rel=1e-5)
  assert found["nll"] != pytest.approx(found["minibatch_nll"], rel=1e-6)


def test_every_question_is_counted_once(built):
  """With 21 in blocks of 8, the last of which overlaps."""
  config, experiment, variables = built()
  data = attentive_reader.load_data(config)
  examples = data.splits["validation"]
  reader = attentive_reader.Reader(
    config,
    attentive_reader.make_model(config, data),
    data,
    experiment.train_data,
  )
  apart = [
    reader.answer(variables, cloze.Examples(*parts))["nll"][0]
    for parts in _one_by_one(examples)
  ]
  found = reader.answer(variables, examples)["nll"]
  np.testing.assert_allclose(found[: len(apart)], apart, rtol=1e-5)


def _one_by_one(examples):
  def cut(s, i):
    tokens = s.tokens[s.starts[i] : s.starts[i + 1]]
    return vocabulary.Sentences(tokens, np.array([0, len(tokens)]), 0)

  for i in range(3):
    yield (
      cut(examples.passages, i),
      cut(examples.queries, i),
      examples.answers[i : i + 1],
    )


# --- Runs ---


@pytest.fixture(scope="module")
def trained(path, tmp_path_factory):
  folder = tmp_path_factory.mktemp("reader") / "run"
  launch.train(f"{path}:{SMALL},norm=layer", folder)
  return folder


def test_a_run_measures_validation_and_at_its_end_the_test(trained):
  rows = writers.read_metrics(trained)
  measured = [row for row in rows if "validation/error" in row]
  assert [row["step"] for row in measured] == [2, 4]
  assert "train/nll" in measured[0]
  assert "test/error" not in measured[0]
  assert "test/error" in measured[1]
  record = json.loads((trained / "config.json").read_text())
  assert record["data"].startswith("generated deeds: 40 train")
  assert "floor 0.0%" in record["data"]


def test_where_a_reader_looked_is_drawn(trained, program):
  done = program("evaluate", f"--workdir={trained}", "--examples=2")
  paths = done.out.split()
  assert len(paths) == 2
  from PIL import Image

  for name in paths:
    with Image.open(name) as picture:
      pixels = np.asarray(picture.convert("L"))
    assert (pixels < 128).any()  # There is ink.


def test_attention_is_for_readers_alone(trained, program, path, tmp_path):
  other = path.replace("attentive_reader", "mnist_mlp")
  launch.train(f"{other}:smoke", tmp_path / "mnist")
  folder = tmp_path / "mnist"
  done = program("evaluate", f"--workdir={folder}", "--examples=1")
  assert done.code
  assert "--examples: " in done.err
  assert "mnist_mlp" in done.err


def test_an_exported_reader_has_its_words(trained, tmp_path, repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  script = importlib.import_module("export")
  assert script.main([str(trained), str(tmp_path / "out")]) == 0
  found = export.load(tmp_path / "out")
  assert found.assets["vocabulary"][0] == cloze.PLACEHOLDER
  assert found.assets["preprocessing"]["entities"] == [3, 13]
  read = found.model.apply(
    found.variables,
    np.array([[3, 20, 21]]),
    np.array([3]),
    np.array([[2, 20]]),
    np.array([2]),
  )
  assert read.logits.shape == (1, len(found.assets["vocabulary"]) + 2)
