"""Pixels in a row: what the task reads, refuses and measures."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import references
import references_bn

from experiments import launch, sequential_mnist
from lnrnn.data import batches, mnist
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib
from lnrnn.training import writers

# 4 steps; 100, 50 and 50 cases are no multiples of 8 nor of 16.
SMALL = "smoke,data.pool=14,eval_batch_size=16"
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/sequential_mnist.py"


def load(path, arguments=""):
  return config_lib.load_config(f"{path}:{arguments}")


# --- The config ---


def test_the_settings_are_those_of_cooijmans_et_al(path):
  config = load(path, "data.source=idx,data.pool=1")
  o = config.optimizer
  assert (o.name, o.learning_rate, o.b2, o.clip) == ("rmsprop", 1e-3, 0.9, 1)
  assert (config.batch_size, config.model.features) == (100, 100)
  assert (config.model.forget_bias, config.model.state_noise) == (1, 0.1)
  assert config.best == "validation/error:min"
  assert config.eval_every == config.checkpoint_every == 550
  assert config.train_steps == 200 * 550
  assert sequential_mnist.make_model(config).t_max == 784
  assert load(path).train_steps == 5 * 100


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import sequential_mnist as config_file

  runs = {launch.load(f"{path}:{a}").to_json() for a in config_file.sweep()}
  assert len(runs) == 6


FAULTS = [
  ("norm=layers", "norm='layers'"),
  ("norm=batch,batch_size=1", "batch_size=1: batch norm needs at least 2"),
  ("model.form=gate", "model.form='gate'"),
  ("model.eps=0", "model.eps=0.0: must be above 0"),
  ("model.eps=-1", "model.eps=-1.0"),
  ("model.gain_init=0", "model.gain_init=0.0"),
  ("model.features=1", "model.features=1"),
  ("model.forget_bias=inf", "model.forget_bias=inf"),
  ("model.state_noise=-0.1", "model.state_noise=-0.1: must be at least 0"),
  ("model.bn_momentum=1", "model.bn_momentum=1.0: must be at least 0 and"),
  ("data.source=mnist", "data.source='mnist': must be one of embedded, idx"),
  ("data.pool=3", "data.pool=3: must be one of 1, 2, 4, 7, 14"),
  ("data.pool=28", "data.pool=28"),
  ("data.train_cases=10001", "data.train_cases=10001"),
  ("batch_size=101,data.train_cases=100", "batch_size=101: is larger"),
  ("eval_batch_size=0", "eval_batch_size=0"),
  ("eval_bn_batches=-1", "eval_bn_batches=-1"),
  ("best=test/error:min", "best='test/error:min'"),
  ("optimizer.name=rms", "optimizer.name='rms'"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS)
def test_a_fault_is_one_line_before_any_data_is_read(
  path, arguments, told, monkeypatch
):
  def read(source, folder):
    raise AssertionError("data was read")

  monkeypatch.setattr(mnist, "load", read)
  with pytest.raises(ConfigError) as caught:
    sequential_mnist.build(load(path, arguments))
  (line,) = caught.value.faults
  assert line.startswith(told) and "\n" not in line


def test_without_a_norm_epsilon_may_be_zero(path):
  assert not sequential_mnist.check(load(path, "norm=none,model.eps=0"))


@pytest.mark.parametrize(
  "arguments",
  [
    "norm=rms,data.permuted=true",
    "norm=weight,batch_size=1",
    "norm=batch,accumulate=4,model.form=cell",
    "norm=layer,model.form=authors,model.state_noise=0,data.pool=1",
  ],
)
def test_what_is_allowed_can_be_built(path, arguments, few_digits):
  experiment = sequential_mnist.build(launch.load(f"{path}:smoke,{arguments}"))
  batch = experiment.train_data[0]
  variables = jax.eval_shape(experiment.init, KEY, batch)
  value, _ = jax.eval_shape(experiment.loss, variables, batch, KEY)
  assert value.shape == ()


# --- The pixels ---


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


def read(config, images):
  return np.asarray(sequential_mnist.sequences(config, images))


def test_pixels_are_means_of_squares_in_the_order_of_lines(path):
  picture = np.zeros((1, 28, 28), np.uint8)
  picture[0, 0, 13] = 100  # Of the square at the top left.
  picture[0, 13, 0] = 96
  picture[0, 0, 14] = 255  # Top right.
  picture[0, 14, 13] = 51  # Bottom left.
  found = read(load(path, "data.pool=14"), picture)
  wanted = np.array([196, 255, 51, 0]) / 255 / 14**2
  np.testing.assert_allclose(found, wanted[None, :, None], rtol=1e-6)
  found = read(load(path), picture)
  assert found.shape == (1, 196, 1)
  wanted = np.zeros(196)
  wanted[[6, 6 * 14, 7, 7 * 14 + 6]] = np.array([100, 96, 255, 51]) / 255 / 4
  np.testing.assert_allclose(found[0, :, 0], wanted, rtol=1e-6)


def test_every_pixel_is_read_where_none_are_pooled(path, images):
  found = read(load(path, "data.pool=1"), images)
  wanted = images.reshape(3, 784, 1) / 255
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  assert found.dtype == np.float32 and found.max() <= 1


def test_the_permutation_undone_gives_the_picture(path, images):
  for pool in (1, 2):
    plain = load(path, f"data.pool={pool}")
    permuted = load(path, f"data.pool={pool},data.permuted=true")
    order = sequential_mnist.order(permuted)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))
    moved = order != np.arange(len(order))
    assert moved.mean() > 0.9
    found = read(permuted, images)
    undone = np.empty_like(found)
    undone[:, order] = found
    np.testing.assert_array_equal(undone, read(plain, images))


def test_the_permutation_is_the_same_for_all_runs(path):
  orders = [
    sequential_mnist.order(load(path, f"data.permuted=true,{more}")).tolist()
    for more in ("seed=0", "seed=5,norm=batch", "data.source=idx,batch_size=7")
  ]
  assert orders[0] == orders[1] == orders[2]
  assert orders[0][:6] == [45, 70, 117, 133, 124, 175]


# --- What is measured ---


@pytest.fixture(scope="module")
def built(path, digits):
  """(arguments) -> (config, experiment, variables as after some training)."""

  def build(arguments=""):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(mnist, "load", lambda source, folder: digits)
      experiment = sequential_mnist.build(config)
    batch = experiment.train_data[0]
    rng = np.random.default_rng(1)
    variables = jax.jit(experiment.init)(KEY, batch)
    params = jax.tree.map(
      lambda v: np.float32(v + rng.normal(0, 0.3, v.shape)),
      variables["params"],
    )
    return config, experiment, {**variables, "params": params}

  return build


def states_of(config, variables, images, by=None):
  """What NumPy finds in float64, as of `references_bn.run`; the carry first."""
  cell = jax.tree.map(np.float64, variables["params"]["encoder"]["cell"])
  side = 28 // config.data.pool
  shape = (-1, side, config.data.pool, side, config.data.pool)
  x = images.reshape(shape).mean(axis=(2, 4)).reshape(len(images), -1) / 255
  xs = x[:, sequential_mnist.order(config)].T[:, :, None]
  carry = (np.zeros((len(images), config.model.features)),) * 2
  if config.norm == "batch":
    return references_bn.run("LSTM", cell, carry, xs, "separate", 1e-5, by=by)
  for x in xs:
    carry = references.lstm(cell, carry, x, config.norm, "separate", 1e-5)
  return (carry,)


def logits_of(config, variables, images, by=None):
  """[b, 10] by NumPy in float64; by: of `references_bn.run`."""
  (_, h), *_ = states_of(config, variables, images, by)
  out = jax.tree.map(np.float64, variables["params"]["output"])
  return h @ out["kernel"] + out["bias"]


def summary(logits, labels):
  top = logits.max(1, keepdims=True)
  nll = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
  nll -= logits[np.arange(len(labels)), labels]
  return {"nll": nll.mean(), "error": (logits.argmax(1) != labels).mean()}


def assert_found(found, wanted, prefix=""):
  for name, value in wanted.items():
    assert found[prefix + name] == pytest.approx(value, rel=1e-3), prefix + name


@pytest.mark.parametrize("size", [7, 50, 500])
def test_an_evaluation_is_over_every_case_once(built, digits, size):
  config, experiment, variables = built(
    f"norm=layer,eval_batch_size={size},data.permuted=true"
  )
  for name, split in (("classification", "validation"), ("test", "test")):
    found = experiment.evals[name].fn(variables, split, KEY)
    images, labels = digits.splits[split]
    assert set(found) == {"nll", "error"}
    wanted = summary(logits_of(config, variables, images), labels)
    assert_found(found, wanted)


def test_the_test_split_is_for_the_end_and_the_best_state(built):
  _, experiment, _ = built()
  evals = experiment.evals
  assert evals["classification"].splits == ("validation",)
  assert evals["test"].splits == ("test",) and evals["test"].of_best
  assert not evals["classification"].of_best


def moments(variables):
  table = jax.tree.map(np.float64, variables["batch_stats"])
  table = table["encoder"]["statistics"]
  return {s: (table[f"{s}_mean"], table[f"{s}_var"]) for s in "xhc"}


class Measured(NamedTuple):
  """Of batch norm, after three updates of its averages."""

  config: Any
  variables: Any
  batch: Any
  loss: Any  # Of the batch.
  found: Any  # By the evaluation of the validation split.


@pytest.fixture(scope="module")
def measured(built):
  config, experiment, variables = built(
    "norm=batch,model.gain_init=0.7,model.state_noise=0,seed=1"
  )
  step = jax.jit(experiment.loss)
  for i in range(3):
    batch = experiment.train_data[i]
    loss, (changed, metrics) = step(variables, batch, KEY)
    variables = {**variables, **jax.device_get(changed)}
    assert not metrics
  found = experiment.evals["classification"].fn(variables, "validation", KEY)
  return Measured(config, variables, batch, loss, found)


def test_the_loss_is_the_mean_of_a_batch(measured):
  config, variables, batch, loss, _ = measured
  logits = logits_of(config, variables, batch["image"], by="all")
  wanted = summary(logits, batch["label"])["nll"]
  np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_batch_norm_is_evaluated_by_its_averages(measured, digits):
  config, variables, *_, found = measured
  images, labels = digits.splits["validation"]
  logits = logits_of(config, variables, images, by=moments(variables))
  assert_found(found, summary(logits, labels), "running_")


def test_and_by_minibatches_of_the_size_of_those_in_training(measured, digits):
  config, variables, *_, found = measured
  images, labels = digits.splits["validation"]
  rows = batches.shuffled(50, 0, 0)
  logits = np.zeros((50, 10))
  # 50 = 6 x 8 + 2; the last two are seen with the six before them.
  for start in (*range(0, 48, 8), 42):
    block = rows[start : start + 8]
    new = block[6:] if start == 42 else block
    own = logits_of(config, variables, images[block], by="all")
    logits[new] = own[-len(new) :]
  assert_found(found, summary(logits, labels), "minibatch_")


def test_and_by_statistics_of_the_parameters_at_hand(measured, digits):
  """Which are means over `eval_bn_batches` = 3 minibatches."""
  config, variables, *_, found = measured
  train = digits.splits["train"].images
  rows = batches.shuffled(100, 0, 0)[:24].reshape(3, 8)
  seen = [states_of(config, variables, train[r], "all")[2] for r in rows]
  by = {
    site: tuple(
      np.mean([[step[part] for step in of[site]] for of in seen], axis=0)
      for part in (0, 1)
    )
    for site in "xhc"
  }
  images, labels = digits.splits["validation"]
  logits = logits_of(config, variables, images, by=by)
  assert_found(found, summary(logits, labels))
  assert found["running_nll"] != pytest.approx(found["nll"], rel=1e-3)


def test_the_loss_has_noise(built):
  config, experiment, variables = built("norm=none")
  batch = experiment.train_data[2]
  loss = jax.jit(experiment.loss)
  first, second = (
    float(loss(variables, batch, key)[0]) for key in jax.random.split(KEY, 2)
  )
  assert first != second
  logits = logits_of(config, variables, batch["image"])
  wanted = summary(logits, batch["label"])["nll"]
  assert first == pytest.approx(wanted, rel=0.1)


# --- Runs ---


def losses(workdir):
  return [r["loss"] for r in writers.read_metrics(workdir) if "loss" in r]


def test_a_run_resumes_by_the_bit(path, tmp_path, few_digits):
  # With few sites and one estimate less there is less to compile.
  spec = f"{path}:{SMALL},norm=batch,model.form=cell,eval_bn_batches=0"
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  launch.train(spec, whole)
  launch.train(f"{spec},train_steps=2", cut)
  launch.train(spec, cut)
  assert len(losses(whole)) == 4 and losses(cut) == losses(whole)
  rows = writers.read_metrics(whole)
  assert [r["step"] for r in rows if "validation/error" in r] == [2, 4]
  assert [r["step"] for r in rows if "test/error" in r] == [4]
  assert np.isfinite(rows[-1]["test/nll"])
  assert "test/minibatch_error" in rows[-1]
  assert "test/running_error" not in rows[-1]  # The averages of training.
