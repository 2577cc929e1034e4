"""The convnet task: what it refuses, trains on and measures."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import drawn_variables
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_convnet

from experiments import convnet, launch, mnist_mlp
import lnrnn
from lnrnn import export
from lnrnn.data import batches, cifar10, mnist
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib
from lnrnn.training import distributed, loop, optim, writers
from lnrnn.training import step as step_lib
from lnrnn.variables import Example

KEY = jax.random.key(7)
# 6 steps. 40 cases train; of 30, 23 and 17 that are evaluated none is a
# multiple of 16, and 30 are not whole minibatches of 8.
SMALL = (
  "smoke,batch_size=8,data.train_cases=40,eval_train_cases=30,"
  "eval_batch_size=16,eval_bn_batches=3,model.widths=(4,6),model.groups=2"
)


@pytest.fixture(scope="module")
def pictures() -> mnist.Dataset:
  """Learnable colour pictures of 12 x 12: 50, 23 and 17."""
  rng = np.random.default_rng(0)
  kinds = rng.integers(0, 256, (10, 12, 12, 3))
  splits = {}
  for name, n in (("train", 50), ("validation", 23), ("test", 17)):
    labels = np.arange(n, dtype=np.int32) % 10
    noise = rng.integers(-60, 60, (n, 12, 12, 3))
    images = np.clip(kinds[labels] + noise, 0, 255).astype(np.uint8)
    splits[name] = mnist.Arrays(images, labels)
  content = {k: v.images for k, v in splits.items()}
  return mnist.Dataset(
    splits, "made up: 50 train / 40", batches.fingerprint(content)
  )


@pytest.fixture(scope="module", autouse=True)
def few_pictures(pictures):
  """The task loads `pictures`, whatever its config says."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cifar10, "load", lambda source, folder: pictures)
    yield


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/convnet.py"


def load(path, arguments=""):
  return config_lib.load_config(f"{path}:{arguments}")


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment)."""

  def build(arguments):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    return config, convnet.build(config)

  return build


def drawn(experiment):
  """Variables as after some training, float32."""
  shapes = jax.eval_shape(experiment.init, KEY, experiment.train_data[0])
  variables = drawn_variables.trained(shapes, sd=0.25)
  variables.pop("intermediates", None)
  if "batch_stats" in variables:
    rng = np.random.default_rng(1)
    variables["batch_stats"] = jax.tree.map(
      lambda v: v + 3 if v.dtype == np.int32 else rng.uniform(0.5, 2, v.shape),
      variables["batch_stats"],
    )
  narrow = lambda v: v if v.dtype == np.int32 else np.float32(v)
  return jax.tree.map(narrow, variables)


# --- The config ---


def test_derived_fields_follow_the_data(path):
  config = load(path)
  assert (config.data.train_cases, config.data.flip) == (10_000, False)
  assert config.train_steps == 3 * 100 and config.eval_every == 100
  config = load(path, "data.source=binary")
  assert (config.data.train_cases, config.data.flip) == (45_000, True)
  assert config.train_steps == 15 * 450 and config.eval_every == 450
  assert not convnet.check(config) and not convnet.check(load(path))


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import convnet as config_file

  runs = {launch.load(f"{path}:{a}").to_json() for a in config_file.sweep()}
  assert len(runs) == 9


FAULTS = [
  ("norm=grop", "norm='grop': must be one of layer, batch, weight, rms, none,"),
  ("norm=grop", "group; did you mean 'group'?"),
  ("norm=batch,batch_size=1", "batch_size=1: batch norm needs at least 2"),
  ("norm=batch,batch_size=4,accumulate=4", "(accumulate=4)"),
  (
    "norm=weight,model.wn_data_dependent_init=true,batch_size=1",
    "model.wn_data_dependent_init=True: needs at least 2 cases",
  ),
  ("model.widths=()", "model.widths=(): needs widths of at least 1"),
  ("model.widths=(8,0)", "model.widths=(8, 0): needs widths of at least 1"),
  ("model.widths=(65536,)", "needs widths of at least 1 and below 65536"),
  ("model.widths=(8,8,8,8)", "4 halvings of 28 x 28 leave less than 3 x 3"),
  (
    "model.widths=(8,8,8,8),data.source=tfds",
    "4 halvings of 32 x 32 leave less than 3 x 3",
  ),
  ("norm=group,model.widths=(8,12)", "model.groups=8: must divide"),
  # The last maps are of one place.
  ("norm=group,model.widths=(8,8,8)", "model.groups=8: leaves one unit"),
  ("model.widths=(8,8,1)", "model.widths=(8, 8, 1): leaves one unit"),
  ("model.groups=0", "model.groups=0: must be at least 1"),
  ("model.ln_border=-1", "model.ln_border=-1: must be at least 0"),
  ("model.ln_border=3", "model.ln_border=3: leaves nothing of the last 5"),
  ("norm=rms,model.ln_border=3", "model.ln_border=3: leaves nothing"),
  (
    "model.ln_border=1,model.ln_form=channels",
    "model.ln_border=1: has no meaning with model.ln_form='channels'",
  ),
  ("model.ln_form=channels,model.widths=(8,1)", "over one channel"),
  ("model.ln_form=unit", "model.ln_form='unit': must be one of units, maps"),
  ("model.ln_form=chanels", "did you mean 'channels'?"),
  ("model.padding=circlar", "did you mean 'circular'?"),
  ("model.dtype=float16", "did you mean 'bfloat16'?"),
  ("model.dropout=1", "model.dropout=1.0: must be at least 0 and below 1"),
  ("model.slope=2", "model.slope=2.0: must be at least 0 and at most 1"),
  ("model.depth=0", "model.depth=0: must be at least 1"),
  ("model.eps=-1", "model.eps=-1.0: must be at least 0"),
  ("model.gain_init=0", "model.gain_init=0.0: must be above 0"),
  ("model.bn_average_cases=0", "model.bn_average_cases=0"),
  ("data.source=idx", "must be one of embedded, binary, tfds"),
  ("data.train_cases=10001", "data.train_cases=10001: must be at least 1"),
  ("data.shift=9", "data.shift=9: must be at least 0 and at most 8"),
  ("batch_size=101,data.train_cases=100", "batch_size=101: is larger"),
  ("eval_batch_size=0", "eval_batch_size=0: must be at least 1"),
  ("eval_train_cases=0", "eval_train_cases=0: must be at least 1"),
  ("norm=batch,eval_train_cases=99", "eval_train_cases=99: must be at least"),
  ("eval_bn_batches=-1", "eval_bn_batches=-1: must be at least 0"),
  ("best=train/loss:min", "must be one of train/nll, train/error"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS)
def test_a_fault_is_one_line_before_any_data_is_read(
  path, arguments, told, monkeypatch
):
  def read(source, folder):
    raise AssertionError("data was read")

  monkeypatch.setattr(cifar10, "load", read)
  with pytest.raises(ConfigError) as caught:
    convnet.build(load(path, arguments))
  (line,) = caught.value.faults
  assert told in line and "\n" not in line


def test_every_fault_is_told_at_once(path):
  arguments = "norm=grop,model.padding=x,model.dropout=1,data.shift=9"
  with pytest.raises(ConfigError) as caught:
    convnet.build(load(path, arguments))
  assert len(caught.value.faults) == 4


def test_more_cases_than_there_are_is_told_with_their_number(path):
  arguments = f"{SMALL},data.source=binary,data.train_cases=51"
  with pytest.raises(ConfigError) as caught:
    convnet.build(load(path, arguments))
  (line,) = caught.value.faults
  assert line == (
    "data.train_cases=51: this data has 50; say data.train_cases=50"
  )


@pytest.mark.parametrize(
  "arguments",
  [
    "norm=layer,model.ln_border=2",
    "norm=rms,model.ln_form=maps,model.ln_border=1",
    "norm=layer,model.ln_form=channels,model.padding=circular",
    "norm=group,model.widths=(8,8,16)",
    "norm=layer,model.widths=(1,8,2)",
    "norm=none,model.widths=(1,1),model.dtype=bfloat16",
    "norm=weight,batch_size=1,model.dropout=0.5",
    "norm=batch,accumulate=4,model.dropout=0.5",
    "norm=batch,eval_train_cases=20",
  ],
)
def test_what_is_allowed_can_be_built(path, arguments, monkeypatch):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (50, 28, 28, 1), np.uint8)
  split = mnist.Arrays(images, np.arange(50, dtype=np.int32) % 10)
  data = mnist.Dataset(dict.fromkeys(cifar10.SPLITS, split), "made up", "0")
  monkeypatch.setattr(cifar10, "load", lambda source, folder: data)
  config = launch.load(f"{path}:smoke,data.train_cases=50,{arguments}")
  experiment = convnet.build(config)
  batch = experiment.train_data[0]
  variables = jax.eval_shape(experiment.init, KEY, batch)
  value, (others, metrics) = jax.eval_shape(
    experiment.loss, variables, batch, KEY
  )
  assert value.shape == () and value.dtype == jnp.float32
  assert set(others) == set(variables) - {"params"} and not metrics


# --- The pictures ---


def test_scaled_channels_have_mean_0_and_variance_1(pictures):
  images = pictures.splits["train"].images
  images = np.concatenate([images, np.full_like(images[..., :1], 9)], axis=-1)
  x = np.float64(convnet.Scaling.of(images)(jnp.asarray(images)))
  axes = (0, 1, 2)
  np.testing.assert_allclose(x.mean(axes), 0, atol=1e-6)
  # A channel that is the same everywhere says nothing.
  np.testing.assert_allclose(x.var(axes), [1, 1, 1, 0], rtol=1e-5)


def test_scaling_is_by_the_pictures_of_training_alone(built, pictures):
  config, experiment = built("norm=none")
  used = np.float64(pictures.splits["train"].images[:40])
  mean, deviation = used.mean((0, 1, 2)), used.std((0, 1, 2))
  found = experiment.assets["preprocessing"]
  np.testing.assert_allclose(found["mean"], mean, rtol=1e-12)
  np.testing.assert_allclose(found["deviation"], deviation, rtol=1e-12)
  x = convnet.inputs(config, "test", 5)
  expected = (pictures.splits["test"].images[:5] - mean) / deviation
  np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


X = np.random.default_rng(1).uniform(1, 2, (60, 7, 6, 2)).astype(np.float32)


def moved(picture, down, right):
  """The picture with zeros where nothing comes in."""
  h, w, _ = picture.shape
  wide = np.pad(picture, ((h, h), (w, w), (0, 0)))
  return wide[h - down : 2 * h - down, w - right : 2 * w - right]


def test_a_shift_is_by_whole_places_and_fills_with_zeros():
  y = np.asarray(convnet.augmented(X, KEY, shift=2, flip=False))
  ways = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
  found = []
  for picture, result in zip(X, y, strict=True):
    same = [np.array_equal(moved(picture, *way), result) for way in ways]
    assert sum(same) == 1
    found.append(ways[same.index(True)])
  for axis in (0, 1):  # 60 pictures meet each of 5 places, on each axis.
    assert {way[axis] for way in found} == set(range(-2, 3))
  assert len(set(found)) > 10  # And not the same one on both.


def test_a_flip_mirrors_left_and_right_half_of_the_pictures():
  y = np.asarray(convnet.augmented(X, KEY, shift=0, flip=True))
  mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(X, y, strict=True)]
  kept = [np.array_equal(a, b) for a, b in zip(X, y, strict=True)]
  assert all(a != b for a, b in zip(mirrored, kept, strict=True))
  assert 15 < sum(mirrored) < 45


def test_augmentation_follows_its_key_alone():
  y, again, other = (
    np.asarray(convnet.augmented(X, key, shift=1, flip=True))
    for key in (KEY, KEY, jax.random.key(8))
  )
  np.testing.assert_array_equal(y, again)
  assert (y != other).any(axis=(1, 2, 3)).sum() > 30
  none = convnet.augmented(X, KEY, shift=0, flip=False)
  np.testing.assert_array_equal(none, X)


# --- What is measured ---


def passed(config, variables, images, stats=None):
  """By NumPy in float64, of bytes: `references_convnet.Passed`."""
  train = np.float64(cifar10.load("", None).splits["train"].images[:40])
  x = (images - train.mean((0, 1, 2))) / train.std((0, 1, 2))
  m = config.model
  return references_convnet.network(
    jax.tree.map(np.float64, variables["params"]),
    x,
    norm=config.norm,
    depth=m.depth,
    padding=m.padding,
    slope=m.slope,
    form=m.ln_form,
    groups=m.groups,
    border=m.ln_border,
    eps=m.eps,
    stats=stats,
  )


def summary(config, variables, split, stats=None):
  images, labels = split
  logits = passed(config, variables, images, stats).logits
  nll = references_convnet.cross_entropy(logits, labels)
  return {"nll": nll.mean(), "error": (logits.argmax(1) != labels).mean()}


def assert_found(found, wanted, prefix=""):
  for name, value in wanted.items():
    assert found[prefix + name] == pytest.approx(value, rel=1e-4), prefix + name


class Measured(NamedTuple):
  """An experiment, variables of it, and what is found of them."""

  config: Any
  experiment: Any
  variables: Any
  found: dict[str, Any]  # By split.


@pytest.fixture(scope="module")
def measured(built):
  """(norm) -> Measured, without what is random; kept."""

  @functools.cache
  def measure(norm):
    config, experiment = built(f"norm={norm},data.shift=0")
    variables = drawn(experiment)
    ev = experiment.evals["classify"]
    found = {split: ev.fn(variables, split, KEY) for split in ev.splits}
    return Measured(config, experiment, variables, found)

  return measure


def splits_of(pictures):
  splits = dict(pictures.splits)
  splits["train"] = mnist.Arrays(*(v[:30] for v in splits["train"]))
  return splits


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_an_evaluation_is_over_every_case_once(measured, pictures, norm):
  config, _, variables, found = measured(norm)
  assert set(found) == {"train", "validation", "test"}
  for name, split in splits_of(pictures).items():
    assert set(found[name]) == {"nll", "error"}
    assert_found(found[name], summary(config, variables, split))


def test_batch_norm_is_evaluated_by_its_averages(measured, pictures):
  config, _, variables, found = measured("batch")
  stats = jax.tree.map(np.float64, variables["batch_stats"])
  for name, split in splits_of(pictures).items():
    wanted = summary(config, variables, split, stats)
    assert_found(found[name], wanted, "running_")


def rows_of_minibatches(n):
  """Of the training cases that are evaluated, in a fixed random order."""
  order = np.random.default_rng(0).permutation(30)
  return order[: 8 * n].reshape(n, 8)


def test_and_by_statistics_of_the_parameters_at_hand(measured, pictures):
  """Which are means over `eval_bn_batches` = 3 minibatches."""
  config, _, variables, found = measured("batch")
  images = pictures.splits["train"].images
  seen = [
    passed(config, variables, images[rows]).moments
    for rows in rows_of_minibatches(3)
  ]
  mean = jax.tree.map(lambda *parts: np.mean(parts, axis=0), *seen)
  stats = {name: {"norm": moments} for name, moments in mean.items()}
  for name, split in splits_of(pictures).items():
    assert_found(found[name], summary(config, variables, split, stats))
    lags = found[name]["running_nll"]
    assert lags != pytest.approx(found[name]["nll"], rel=1e-3)


def test_and_by_minibatches_of_the_size_of_those_in_training(
  measured, pictures
):
  config, _, variables, found = measured("batch")
  has = {s for s, metrics in found.items() if "nll_minibatch" in metrics}
  assert has == {"train"}
  # Two in a group of `eval_batch_size`; 14 cases do not fill another.
  images, labels = pictures.splits["train"]
  each = [
    summary(config, variables, (images[rows], labels[rows]))["nll"]
    for rows in rows_of_minibatches(2)
  ]
  wanted = pytest.approx(np.mean(each), rel=1e-4)
  assert found["train"]["nll_minibatch"] == wanted


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_loss_is_the_mean_over_the_batch(measured, norm):
  config, experiment, variables, _ = measured(norm)
  batch = experiment.train_data[3]
  loss = jax.jit(experiment.loss)
  value, (changed, metrics) = loss(variables, batch, KEY)
  wanted = summary(config, variables, (batch["image"], batch["label"]))["nll"]
  np.testing.assert_allclose(value, wanted, rtol=1e-4)
  assert set(changed) == ({"batch_stats"} if norm == "batch" else set())
  assert not metrics
  # Nothing else is random without shifts, flips and dropout.
  again = loss(variables, batch, jax.random.key(8))[0]
  np.testing.assert_array_equal(value, again)


@pytest.mark.parametrize("random", ["shift=1", "flip=true", "dropout=0.5"])
def test_what_is_random_is_random_in_training_alone(built, random):
  field = f"{'model' if 'dropout' in random else 'data'}.{random}"
  shift = "" if "shift" in random else "data.shift=0,"
  _, experiment = built(f"norm=none,{shift}{field},model.widths=(4,)")
  variables, batch = drawn(experiment), experiment.train_data[0]
  loss = jax.jit(lambda key: experiment.loss(variables, batch, key)[0])
  assert loss(KEY) == loss(KEY) != loss(jax.random.key(8))
  fn = experiment.evals["classify"].fn
  both = [fn(variables, "test", key) for key in (KEY, jax.random.key(8))]
  assert both[0] == both[1]


def test_batch_norm_counts_the_cases_of_a_microbatch(path):
  for accumulate, momentum in ((1, 0.95), (4, 0.9875)):
    config = load(path, f"norm=batch,accumulate={accumulate}")
    model = convnet.make_model(config)
    assert model.options.momentum == pytest.approx(momentum)


def test_the_network_is_the_one_the_config_describes(path):
  arguments = (
    "norm=rms,model.widths=(5,6,7),model.depth=4,model.ln_form=maps,"
    "model.ln_border=2,model.groups=3,model.padding=circular,model.slope=0.2,"
    "model.dropout=0.3,model.dtype=bfloat16,model.eps=0.01,model.gain_init=2,"
    "model.bn_unbiased=true,model.wn_data_dependent_init=true"
  )
  model = convnet.make_model(load(path, arguments))
  assert (model.widths, model.depth, model.norm) == ((5, 6, 7), 4, "rms")
  assert (model.padding, model.slope) == ("circular", 0.2)
  assert (model.dropout, model.dtype) == (0.3, "bfloat16")
  o = model.options
  assert (o.form, o.border, o.groups, o.eps) == ("maps", 2, 3, 0.01)
  assert (o.gain_init, o.unbiased, o.data_dependent) == (2, True, True)


# --- The programs ---


def rows(workdir):
  """The rows of a run without what its clock decides."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


def test_a_smoke_run_trains_and_evaluates(program, path, tmp_path):
  folder = tmp_path / "run"
  config = f"--config={path}:{SMALL},norm=group,train_steps=4,eval_every=2"
  result = program("train", config, f"--workdir={folder}")
  assert result.code == 0, result.err
  assert "data: made up: 50 train, of which the first 40 are used / 40" in (
    result.out
  )
  assert [r["step"] for r in rows(folder) if "loss" in r] == [1, 2, 3, 4]
  evaluated = [r for r in rows(folder) if "test/error" in r]
  assert [r["step"] for r in evaluated] == [2, 4]
  assert not any("minibatch" in name for r in evaluated for name in r)
  names = {p.name.partition(".")[0] for p in folder.iterdir()}
  assert names >= {"config", "metrics", "events", "checkpoints"}
  result = program("evaluate", f"--workdir={folder}")
  assert result.code == 0, result.err
  found = json.loads(result.out)
  assert found["test/nll"] == evaluated[-1]["test/nll"]
  result = program("train", config, f"--workdir={folder}")
  assert result.code == 0 and "finished at step 4" in result.out


def test_a_fault_is_exit_code_2_and_makes_no_folder(program, path, tmp_path):
  folder = tmp_path / "run"
  config = f"--config={path}:{SMALL},norm=grop"
  result = program("train", config, f"--workdir={folder}")
  assert result.code == 2 and not folder.exists()
  (line,) = result.lines
  assert line.endswith("did you mean 'group'?")


def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(path, tmp_path):
  spec = f"{path}:{SMALL},norm=batch,data.flip=true,model.dropout=0.5"
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  launch.train(spec, whole)
  launch.train(f"{spec},train_steps=3", parts)
  launch.train(spec, parts)
  config = launch.load(spec)
  experiment = convnet.build(config)
  jax.tree.map(
    np.testing.assert_array_equal,
    *(loop.restore(config, experiment, w, "latest") for w in (whole, parts)),
  )
  assert rows(parts) == rows(whole) and rows(whole)[-1]["step"] == 6


def in_loops(jaxpr, looped=False):
  """The names of what is computed in compiled loops."""
  for equation in jaxpr.eqns:
    inner = looped or equation.primitive.name in ("while", "scan")
    if looped:
      yield equation.primitive.name
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda v: hasattr(v, "eqns")
    ):
      if own := getattr(value, "jaxpr", value if hasattr(value, "eqns") else 0):
        yield from in_loops(own, inner)


def test_on_a_cpu_no_convolution_is_in_a_compiled_loop(built):
  config, experiment = built("norm=batch")
  assert not experiment.looped  # This is a CPU.
  variables = drawn(experiment)
  tx = optim.make(config.optimizer, config.train_steps)
  state = step_lib.TrainState(
    jnp.int32(0), variables, tx.init(variables["params"])
  )
  batch = jax.tree.map(lambda a: a[None], experiment.train_data[0])
  for looped in (False, True):
    own = dataclasses.replace(experiment, looped=looped)
    dispatch = step_lib.dispatcher(own, tx, distributed.mesh())
    key_data = np.asarray(jax.random.key_data(KEY))
    traced = dispatch.trace(state, batch, np.int32(1), key_data)
    found = set(in_loops(traced.jaxpr.jaxpr))
    assert ("conv_general_dilated" in found) == looped


def test_without_the_loop_a_run_is_the_same(
  spec, tmp_path, few_digits, monkeypatch
):
  build = mnist_mlp.build
  launch.train(f"{spec},norm=batch", tmp_path / "looped")
  monkeypatch.setattr(
    mnist_mlp,
    "build",
    lambda config: dataclasses.replace(build(config), looped=False),
  )
  launch.train(f"{spec},norm=batch", tmp_path / "single")
  both = [rows(tmp_path / name) for name in ("looped", "single")]
  assert len(both[0]) == len(both[1]) > 3
  for looped, single in zip(*both, strict=True):
    assert single == pytest.approx(looped, rel=1e-5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_an_exported_model_gives_the_same_logits(
  measured, norm, tmp_path, pictures
):
  config, experiment, variables, _ = measured(norm)
  x = convnet.inputs(config, "test", 5)
  export.save(
    tmp_path / "out",
    experiment.model,
    variables,
    assets=experiment.assets,
    example=Example((x,)),
  )
  found = lnrnn.load_exported(tmp_path / "out")
  assert found.model == experiment.model
  scaling = found.assets["preprocessing"]
  images = pictures.splits["test"].images[:5]
  scaled = (images - np.array(scaling["mean"])) / scaling["deviation"]
  np.testing.assert_allclose(x, scaled, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(
    jax.jit(found.model.apply)(found.variables, x),
    jax.jit(experiment.model.apply)(variables, x),
  )
