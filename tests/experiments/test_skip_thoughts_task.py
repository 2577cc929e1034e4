"""What the skip-thoughts task refuses, measures and learns, on one novel."""

import functools
import importlib
import json
import shutil

import drawn_variables
from drawn_variables import single
import jax
import numpy as np
import optax
import pytest
import references_skip as reference

from experiments import launch, skip_thoughts
from lnrnn import export
from lnrnn.data import vocabulary
from lnrnn.errors import ConfigError
from lnrnn.models.skip_thoughts import SIDES
from lnrnn.training import checkpoints, writers
from lnrnn.training import config as config_lib
from lnrnn.training import step as step_lib

SMALL = "smoke,data.vocabulary=40"
STEPS = 30  # Of time, in each batch of a smoke run.


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/skip_thoughts.py"


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment, variables as after some training)."""

  @functools.cache
  def build(arguments="norm=layer"):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    experiment = skip_thoughts.build(config)
    batch = experiment.train_data[0]
    shapes = jax.eval_shape(experiment.init, jax.random.key(0), batch)
    drawn = drawn_variables.trained(shapes)
    return config, experiment, {**drawn, "params": single(drawn["params"])}

  return build


def how(config):
  """The options of a config, as the reference wants them."""
  model = config.model
  return {
    "norm": config.norm,
    "condition": model.condition,
    "form": model.form,
    "eps": model.eps,
  }


# --- The config ---


@pytest.mark.parametrize("source", ["novels", "text", "lines"])
def test_the_authors_settings_are_the_default_on_books(path, source):
  config = config_lib.load_config(f"{path}:data.source={source}")
  model, optimizer = config.model, config.optimizer
  assert (model.features, model.word_features) == (2400, 620)
  assert (model.condition, model.form) == ("initial", "separate")
  assert (config.data.vocabulary, config.data.max_words) == (20_000, 29)
  assert (optimizer.name, optimizer.learning_rate) == ("adam", 2e-4)
  assert (optimizer.clip, config.batch_size) == (5, 64)
  assert config.train_steps == 1_000_000
  assert config.loss.softmax == "full"
  assert config.best == "validation/nll:min"


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import skip_thoughts as config_file

  assert config_file.sweep()
  for arguments in config_file.sweep():
    assert launch.load(f"{path}:{arguments}")


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ("norm=layers", "norm='layers'"),
    ("data.source=foo", "data.source='foo': must be one of embedded, novels"),
    ("model.condition=first", "model.condition='first': must be one of init"),
    ("loss.softmax=foo", "loss.softmax='foo': must be one of full, sampled"),
    ("loss.softmax=ful", "loss.softmax='ful'"),
    ("model.form=cell", "model.form='cell': a GRU has no form cell"),
    ("model.form=summ", "model.form='summ'"),
    ("model.features=1", "model.features=1: must be at least 2"),
    ("model.word_features=0", "model.word_features=0"),
    ("model.embedding_scale=0", "model.embedding_scale=0.0"),
    ("model.bn_momentum=1", "model.bn_momentum=1.0"),
    ("model.eps=-1", "model.eps=-1.0"),
    ("norm=layer,model.eps=0", "model.eps=0.0: must be above 0"),
    ("norm=rms,model.eps=0", "model.eps=0.0: must be above 0"),
    ("norm=batch,batch_size=1", "batch_size=1: batch norm needs"),
    ("norm=batch,eval_batch_size=1", "eval_batch_size=1: must be at least 2"),
    ("batch_size=9,accumulate=2", "accumulate=2: must divide batch_size=9"),
    ("loss.samples=0", "loss.samples=0"),
    ("loss.chunk=0", "loss.chunk=0"),
    ("data.vocabulary=2", "data.vocabulary=2: must be at least 3"),
    ("data.max_words=0", "data.max_words=0"),
    ("data.multiple=0", "data.multiple=0"),
    ("data.run=0", "data.run=0"),
    ("data.held_out=0", "data.held_out=0.0: must be above 0"),
    ("data.held_out=0.5", "data.held_out=0.5"),
    ("eval_triples=-1", "eval_triples=-1"),
    ("eval_batch_size=0", "eval_batch_size=0"),
    ("best=test/nll:min", "best='test/nll:min'"),
    ("best=validation/recall:max", "best='validation/recall:max'"),
    ("best=validation/nll", "best='validation/nll'"),
    ("checkpoint_every=0", "checkpoint_every=0"),
    ("downstream.every=30,checkpoint_every=20", "downstream.every=30: must"),
    ("downstream.every=-1", "downstream.every=-1"),
    ('downstream.tasks=("sick","mrr")', "downstream.tasks=('sick', 'mrr')"),
    ("best=,patience=3", "patience=3: needs best"),
  ],
)
def test_a_fault_of_the_config_is_one_line(path, arguments, told):
  with pytest.raises(ConfigError) as caught:
    launch.load(f"{path}:{arguments}")
  (line,) = caught.value.faults
  assert line.startswith(told)


@pytest.mark.parametrize(
  "arguments",
  [
    "norm=none,model.eps=0",
    "norm=weight,model.eps=0",
    "best=validation/nll_previous:min",
    "best=train/nll_next:min",
    "model.form=authors",
    "model.condition=each_step",
    "loss.softmax=sampled,loss.samples=1",
  ],
)
def test_what_makes_sense_is_allowed(path, arguments):
  assert launch.load(f"{path}:{arguments}")


def test_a_batch_larger_than_the_data_is_refused(built):
  with pytest.raises(ConfigError, match="batch_size: 100000 is not allowed"):
    built("batch_size=100000")


# --- The loss ---


def words_of(batch):
  return sum(int(batch[f"{side}_length"].sum()) for side in SIDES)


@pytest.fixture(scope="module")
def losses_of():
  """(experiment, variables) -> compiled key -> (loss, metrics) of step 1."""

  def of(experiment, variables):
    def loss(variables, batch, key):
      value, (_, metrics) = experiment.loss(variables, batch, key)
      return value, metrics

    return functools.partial(jax.jit(loss), variables, experiment.train_data[1])

  return of


def test_the_loss_is_the_sum_over_the_words_of_both_sides(built, losses_of):
  config, experiment, variables = built()
  batch = experiment.train_data[1]
  value, metrics = losses_of(experiment, variables)(jax.random.key(0))
  params = jax.tree.map(np.float64, variables["params"])
  expected = reference.total(params, reference.triples(batch), how(config))
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  words = sum(int(batch[f"{side}_length"].sum()) for side in SIDES)
  np.testing.assert_allclose(metrics["nll"], expected / words, rtol=1e-4)
  for side in SIDES:  # END is the last of each sentence, and counts.
    ends = batch[f"{side}_length"] - 1
    assert (batch[side][np.arange(len(ends)), ends] == vocabulary.END).all()


def test_microbatches_make_the_same_sum_and_its_gradient(built):
  config, experiment, variables = built("norm=none,accumulate=4")
  batch = experiment.train_data[1]
  state = step_lib.TrainState(np.int32(0), variables, None)
  of = functools.partial(step_lib.gradients, experiment, m=4)
  (value, _, _), slopes = jax.jit(of)(state, batch, jax.random.key(0))
  triples = reference.triples(batch)
  params, slopes = jax.tree.map(np.float64, (variables["params"], slopes))
  total = lambda params: reference.total(params, triples, how(config))
  np.testing.assert_allclose(value, total(params), rtol=1e-4)
  # All parameters at once, along the gradient: its length.
  length = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(slopes)))
  move = lambda by: jax.tree.map(
    lambda p, g: p + by * g / length, params, slopes
  )
  slope = (total(move(1e-4)) - total(move(-1e-4))) / 2e-4
  np.testing.assert_allclose(slope, length, rtol=1e-4)


def test_batch_norm_takes_a_step_by_a_sampled_loss(built):
  _, experiment, variables = built("norm=batch,loss.softmax=sampled")
  tx = optax.sgd(1e-4)
  state = step_lib.TrainState(
    np.int32(0), variables, tx.init(variables["params"])
  )
  batch, key = experiment.train_data[1], jax.random.key(0)
  update = jax.jit(functools.partial(step_lib.update, experiment, tx))
  found = []
  for _ in range(3):
    state, metrics = update(state, batch, key)
    found.append(float(metrics["loss"]))
    assert np.isfinite(metrics["nll"]) and np.isfinite(metrics["grad_norm"])
  assert found[2] < found[0]
  assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.variables))
  for part in SIDES:
    seen = state.variables["batch_stats"][part]["statistics"]["seen"]
    assert seen.shape == (STEPS,) and seen[0] == 3


def test_a_sampled_loss_is_near_the_whole_and_by_the_key(built, losses_of):
  exact, _ = losses_of(*built()[1:])(jax.random.key(0))
  arguments = "norm=layer,loss.softmax=sampled,loss.samples=4000"
  sampled = losses_of(*built(arguments)[1:])
  found = [float(sampled(jax.random.key(k))[0]) for k in (0, 0, 1)]
  assert found[0] == found[1] != found[2]
  np.testing.assert_allclose(found, exact, rtol=0.02)


# --- What is measured ---


def expected_nll(config, variables, split, most):
  """Nats per word, of all and of each side, one triple after the other."""
  triples = skip_thoughts.load_data(config).splits[split]
  params = jax.tree.map(np.float64, variables["params"])
  nats, words = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0)
  for position in triples.spread(most):
    (one,) = reference.triples(triples.batch(np.array([position]), STEPS))
    for side in SIDES:
      nats[side] += reference.side_nats(params, one, side, how(config))
      words[side] += len(one[side])
  return {
    "nll": sum(nats.values()) / sum(words.values()),
    **{f"nll_{side}": nats[side] / words[side] for side in SIDES},
  }


def measured(experiment, variables, name, split):
  found = experiment.evals[name].fn(variables, split, jax.random.key(0))
  return {key: found[key] for key in skip_thoughts.MEASURES}


def test_an_evaluation_is_over_the_words_of_each_triple_once(built):
  # Blocks of 7 of 16 triples: the last has 5 that were there before.
  arguments = "norm=layer,eval_batch_size=7,loss.chunk=50"
  config, experiment, variables = built(arguments)
  for name, split, most in (
    ("likelihood", "validation", 16),
    ("likelihood", "train", 16),
    ("test", "test", 0),  # All of them.
  ):
    found = measured(experiment, variables, name, split)
    expected = expected_nll(config, variables, split, most)
    assert found == pytest.approx(expected, rel=1e-4), split


def test_all_triples_are_in_one_block_where_that_is_large(built):
  arguments = "norm=none,model.condition=each_step,eval_triples=0"
  config, experiment, variables = built(f"{arguments},eval_batch_size=500")
  found = measured(experiment, variables, "likelihood", "validation")
  expected = expected_nll(config, variables, "validation", 0)
  assert found == pytest.approx(expected, rel=1e-4)


# --- The programs ---


@pytest.fixture(scope="module")
def run(path):
  """Forty updates that learn; what `launch.train` reads."""
  spec = f"{path}:{SMALL},train_steps=40,eval_every=20,checkpoint_every=20"
  return f"{spec},steps_per_dispatch=20,optimizer.learning_rate=2e-2"


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
  """A workdir of the run."""
  folder = tmp_path_factory.mktemp("run") / "run"
  launch.train(run, folder)
  return folder


def test_some_updates_learn_more_than_chance(trained):
  rows = writers.read_metrics(trained)
  per_word = [row["nll"] for row in rows if "nll" in row]
  assert len(per_word) == 40
  assert np.mean(per_word[-5:]) < 0.8 * np.mean(per_word[:3])
  found = [r["validation/nll"] for r in rows if "validation/nll" in r]
  assert found[1] < found[0] < 0.9 * np.log(40)


def test_a_run_resumes_by_the_bit(run, trained, tmp_path):
  cut = tmp_path / "run"
  shutil.copytree(trained, cut)
  assert checkpoints.committed_steps(cut) == [20, 40]
  shutil.rmtree(cut / "checkpoints" / "40")
  launch.train(run, cut)
  rows = [
    [
      {k: v for k, v in row.items() if not k.startswith("time/")}
      for row in writers.read_metrics(folder)
    ]
    for folder in (cut, trained)
  ]
  assert rows[0] == rows[1]
  starts = json.loads((cut / "config.json").read_text())["starts"]
  assert [start["step"] for start in starts] == [0, 20]


def test_the_test_split_is_looked_at_once_at_the_best_state(trained):
  rows = writers.read_metrics(trained)
  found = {
    r["step"]: r["validation/nll"] for r in rows if "validation/nll" in r
  }
  assert list(found) == [20, 40]
  (at,) = (r["step"] for r in rows if "test/nll" in r)
  assert at == min(found, key=found.get)


def test_evaluate_repeats_what_training_measured(trained, program):
  result = program(
    "evaluate", f"--workdir={trained}", "--split=test", "--checkpoint=best"
  )
  assert result.code == 0, result.err
  found = json.loads(result.out)
  (row,) = (r for r in writers.read_metrics(trained) if "test/nll" in r)
  for name in skip_thoughts.MEASURES:
    assert found[f"test/{name}"] == pytest.approx(row[f"test/{name}"])


def test_an_exported_model_has_its_words(trained, tmp_path, repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  script = importlib.import_module("export")
  assert script.main([str(trained), str(tmp_path / "out")]) == 0
  found = export.load(tmp_path / "out")
  words = vocabulary.Vocabulary(tuple(found.assets["vocabulary"]))
  data = skip_thoughts.load_data(launch.config_of(trained))
  assert words == data.vocabulary
  made = found.assets["preprocessing"]
  assert made["special"] == ["<eos>", "<unk>"]
  assert made["vocabulary"] == len(words) == 40
  sentence = np.array([words.encode(["the", "rabbit"])], np.int32)
  thought = jax.jit(
    functools.partial(found.model.apply, method="encode"),
  )(found.variables, sentence, np.array([3], np.int32))
  params = jax.tree.map(np.float64, found.variables["params"])
  np.testing.assert_allclose(
    thought[0],
    reference.thought(params, sentence[0], {"norm": "layer", "eps": 1e-5}),
    rtol=1e-3,
    atol=1e-5,
  )
