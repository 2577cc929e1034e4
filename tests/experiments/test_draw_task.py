"""What the DRAW task refuses, measures and shows, on a handful of digits."""

import json
import math

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import draw, launch
from lnrnn.data import batches, binarized_mnist, mnist
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib
from lnrnn.training import writers


@pytest.fixture(scope="module")
def digits():
  """Binary pictures: 70 train, 25 validation, 23 test, of much and no ink."""
  rng = np.random.default_rng(0)
  splits = {}
  for name, n in (("train", 70), ("validation", 25), ("test", 23)):
    ink = rng.random((n, 28, 28)) < np.linspace(0.1, 0.9, n)[:, None, None]
    ink[:, :, 0], ink[:, :, 1] = False, True
    splits[name] = ink.astype(np.uint8)
  return mnist.Dataset(
    splits, "made up: 70 train / 48", batches.fingerprint(splits)
  )


@pytest.fixture(scope="module", autouse=True)
def few_digits(digits):
  """The task loads `digits`, whatever its config says."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(binarized_mnist, "load", lambda source, folder: digits)
    yield


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/draw.py"


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment, its first variables)."""

  def build(arguments=""):
    config = launch.load(f"{path}:smoke,{arguments}")
    experiment = draw.build(config)
    batch = experiment.train_data[0]
    init = jax.jit(lambda key: experiment.init(key, batch))
    return config, experiment, init(jax.random.key(0))

  return build


@pytest.fixture(scope="module")
def smoke(built):
  return built()


@pytest.fixture(scope="module")
def moved(smoke):
  """Variables as after some training, NumPy arrays."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda v: np.float32(v + rng.normal(0, 0.3, v.shape)),
    jax.device_get(smoke[2]),
  )


KEY = jax.random.key(7)


def chosen(digits, n):
  """Some images of the test split, as the task chooses them."""
  images = digits.splits["test"]
  return images[batches.shuffled(len(images), 0, 0)[:n]]


# --- The config ---


def load(path, arguments):
  return config_lib.load_config(f"{path}:{arguments}")


def test_the_paper_s_config_is_the_default_on_the_paper_s_data(path):
  config = load(path, "data.source=amat")
  assert launch.load(f"{path}:data.source=amat") == config
  assert config.data.train_cases == 50_000 and config.epochs == 200
  epoch = 50_000 // 128
  assert config.train_steps == 200 * epoch
  assert config.eval_every == config.checkpoint_every == epoch
  model = draw.make_model(config)
  assert (model.glimpses, model.features, model.latents) == (64, 256, 100)
  assert (model.read_size, model.write_size) == (2, 5)
  assert (model.norm, model.form, model.normed) == ("layer", "cell", "both")


def test_derived_fields_follow_the_arguments(path):
  config = load(path, "")
  assert config.data.train_cases == 10_000 and config.epochs == 1
  assert config.train_steps == config.eval_every == 10_000 // 128
  config = load(path, "epochs=2.5,batch_size=100,norm=batch")
  assert (config.train_steps, config.eval_every) == (250, 100)
  assert config.model.gain_init == 0.1
  config = load(path, "norm=batch,model.gain_init=0.5,train_steps=7")
  assert config.model.gain_init == 0.5
  assert config.train_steps == 7


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import draw as config_file

  arguments = config_file.sweep()
  assert len(arguments) == 2
  for argument in arguments:
    assert draw.check(load(path, argument)) == []


FAULTS = [
  ("norm=lyer", "did you mean 'layer'"),
  ("data.source=idx", "embedded, amat, tfds"),
  ("batch_size=65", "is larger than the training set"),
  ("model.normed=encodr", "did you mean 'encoder'"),
  ("model.form=cells", "did you mean 'cell'"),
  ("model.glimpses=0", "at least 1"),
  ("model.features=1", "at least 2"),
  ("model.latents=0", "at least 1"),
  ("model.read_size=1", "2 to 28, or 0"),
  ("model.write_size=29", "2 to 28, or 0"),
  ("model.read_start=(1.0,)", "must be stride and standard"),
  ("model.write_start=(0.0,1.0)", "must be stride and standard"),
  ("model.eps=-1", "at least 0"),
  ("model.gain_init=0", "above 0"),
  ("model.init_sd=-1", "at least 0"),
  ("eval_batch_size=0", "at least 1"),
  ("eval_cases=-1", "at least 0"),
  ("importance_samples=0", "at least 1"),
  ("importance_cases=1", "at least 2"),
  ("best=train/bound:min", "validation/bound"),
]


@pytest.mark.parametrize("argument, part", FAULTS)
def test_a_wrong_value_is_one_line_with_field_and_what_is_allowed(
  path, argument, part
):
  (line,) = draw.check(load(path, f"smoke,{argument}"))
  assert part in line and argument.partition("=")[0] in line
  assert "\n" not in line


def test_build_lists_every_fault_at_once(path):
  config = load(path, ",".join(["smoke", *(a for a, _ in FAULTS)]))
  with pytest.raises(ConfigError) as caught:
    draw.build(config)
  faults = caught.value.faults
  assert len(faults) == len(FAULTS)
  for argument, _ in FAULTS:
    field = argument.partition("=")[0]
    assert any(field in fault for fault in faults), field


@pytest.mark.parametrize(
  "arguments, part",
  [
    ("norm=batch,batch_size=1", "at least 2 cases"),
    ("norm=batch,model.form=per_gate", "model.form='per_gate'"),
    ("norm=none,model.form=authors", "model.form='authors'"),
    ("data.source=amat,data.train_cases=50001", "data.train_cases=50001"),
  ],
)
def test_what_does_not_go_together_is_refused(path, arguments, part):
  (line,) = draw.check(load(path, f"smoke,{arguments}"))
  assert part in line


@pytest.mark.parametrize(
  "arguments",
  [
    "norm=batch",
    "norm=weight,model.form=separate",
    "norm=rms,model.normed=decoder",
    "norm=layer,model.form=authors,model.read_size=0,model.write_size=0",
    "norm=batch,model.form=sum,model.normed=encoder",
  ],
)
def test_what_is_allowed_can_be_built(path, arguments):
  config = launch.load(f"{path}:smoke,{arguments}")
  experiment = draw.build(config)
  batch = experiment.train_data[0]
  variables = jax.eval_shape(experiment.init, KEY, batch)
  value, _ = jax.eval_shape(experiment.loss, variables, batch, KEY)
  assert value.shape == ()


# --- The first canvas ---


def test_the_first_canvas_is_the_log_odds_of_the_training_pixels(smoke, digits):
  canvas = np.float64(smoke[2]["params"]["canvas_start"])
  images = digits.splits["train"][:64]  # data.train_cases of smoke.
  ink = 1 / (1 + np.exp(-canvas))
  np.testing.assert_allclose(ink * 65, images.sum(axis=0) + 0.5, rtol=1e-4)
  # Finite where there was never ink, or always.
  np.testing.assert_allclose(ink[:, 0], 0.5 / 65, rtol=1e-4)
  np.testing.assert_allclose(ink[:, 1], 64.5 / 65, rtol=1e-4)


def test_without_data_the_first_canvas_is_empty(path):
  config = launch.load(f"{path}:smoke,model.canvas_from_data=false")
  experiment = draw.build(config)
  batch = experiment.train_data[0]
  # Nothing else is computed.
  init = jax.jit(lambda: experiment.init(KEY, batch)["params"]["canvas_start"])
  np.testing.assert_array_equal(init(), np.zeros((28, 28)))


# --- What is measured ---


@pytest.mark.parametrize("cases, size", [(0, 20), (9, 7)])
def test_the_bound_is_the_mean_over_the_images_whatever_the_chunks(
  path, moved, digits, cases, size
):
  """By a model whose canvas and posterior are the same in every pass."""
  params = dict(moved["params"])
  for name in ("patch_kernel", "patch_bias", "latent_kernel"):
    params[name] = 0 * params[name]
  canvas = np.float64(params["canvas_start"])
  mean, log_sd = np.split(np.float64(params["latent_bias"]), 2)
  kl = 4 * ((mean**2 + np.exp(2 * log_sd) - 1) / 2 - log_sd).sum()
  images = chosen(digits, cases or 23)
  nll = (np.log1p(np.exp(canvas)) - images * canvas).sum(axis=(1, 2))
  config = launch.load(
    f"{path}:smoke,eval_cases={cases},eval_batch_size={size}"
  )
  fn = draw.build(config).evals["bound"].fn
  found = fn({"params": params}, "test", KEY)
  assert set(found) == set(draw.METRICS)
  assert found["reconstruction"] == pytest.approx(nll.mean(), rel=1e-5)
  assert found["kl"] == pytest.approx(kl, rel=1e-5)
  assert found["bound"] == pytest.approx(nll.mean() + kl, rel=1e-5)


@pytest.fixture(scope="module")
def weigh(smoke):
  """(variables, images, key) -> log weights, of one chunk."""
  model = smoke[1].model
  return jax.jit(lambda *args: model.apply(*args).log_weight)


@pytest.mark.parametrize("samples, cases", [(1, 23), (3, 10)])
def test_the_importance_estimate_is_that_of_its_weights(
  path, moved, digits, weigh, samples, cases
):
  config = launch.load(
    f"{path}:smoke,importance_samples={samples},importance_cases={cases}"
  )
  fn = draw.build(config).evals["importance"].fn
  found = fn(moved, "test", KEY)
  chunks, _ = batches.padded(chosen(digits, cases), min(20, cases))
  weights = []
  for key in jax.random.split(KEY, samples):
    keys = jax.random.split(key, len(chunks))
    rows = [weigh(moved, *case) for case in zip(chunks, keys, strict=True)]
    weights.append(np.float64(np.concatenate(rows))[:cases])
  weights = np.array(weights)
  nll = np.array(
    [-math.log(math.fsum(np.exp(w - w[0])) / samples) - w[0] for w in weights.T]
  )
  bound = -weights.mean(axis=0)
  for name, nats in (("nll", nll), ("bound", bound)):
    assert found[f"importance_{name}"] == pytest.approx(nats.mean(), rel=1e-5)
    error = nats.std(ddof=1) / math.sqrt(cases)
    assert found[f"importance_{name}_error"] == pytest.approx(error, rel=1e-3)
  # Jensen; with one sample they are one.
  if samples == 1:
    assert found["importance_nll"] == found["importance_bound"]
    assert "bound_latent_error" not in found
  else:
    variances = [np.var(w, ddof=1) for w in weights.T]
    error = math.sqrt(np.mean(variances) / len(digits.splits["test"]))
    assert found["bound_latent_error"] == pytest.approx(error, rel=1e-3)
    assert found["importance_nll"] < found["importance_bound"] - 1e-3


def test_a_trained_run_is_evaluated_in_other_ways(path, program, tmp_path):
  launch.train(f"{path}:smoke,train_steps=1", tmp_path)
  given = ("--override=importance_samples=4", "--override=eval_cases=7")
  result = program("evaluate", f"--workdir={tmp_path}", *given)
  assert result.code == 0, result.err
  found = json.loads(result.out)
  last = writers.read_metrics(tmp_path)[-1]
  name = "test/importance_nll"
  assert found[name] != pytest.approx(last[name], rel=1e-9)
  for wrong, told in (
    ("norm=none", "eval_batch_size"),
    ("eval_cases=x", "a whole number"),
    ("eval_cases=-1", "at least 0"),
  ):
    result = program("evaluate", f"--workdir={tmp_path}", f"--override={wrong}")
    assert result.code == 2 and told in result.lines[0]


def test_the_importance_of_an_untrained_model_is_below_its_bound(smoke):
  _, experiment, variables = smoke
  found = experiment.evals["importance"].fn(variables, "test", KEY)
  assert found["importance_nll"] <= found["importance_bound"]
  assert all(map(math.isfinite, found.values()))


def test_the_loss_is_the_mean_bound_of_the_batch(smoke):
  _, experiment, variables = smoke
  batch = experiment.train_data[0]
  value, (others, metrics) = jax.jit(experiment.loss)(variables, batch, KEY)
  terms = jax.jit(lambda v: experiment.model.apply(v, batch["image"], KEY))(
    variables
  )
  assert others == {}
  assert float(value) == pytest.approx(float(terms.bound.mean()), rel=1e-5)
  total = float(metrics["reconstruction"] + metrics["kl"])
  assert float(value) == pytest.approx(total, rel=1e-5)


# --- What is shown ---


@pytest.mark.parametrize("write_size", [5, 0])
def test_pictures_are_in_0_to_1_and_of_their_size(built, write_size, digits):
  _, experiment, variables = built(f"model.write_size={write_size}")
  found = experiment.evals["pictures"].fn(variables, "validation", KEY)
  shapes = {
    "samples": (8 * 29 - 1, 8 * 29 - 1),
    # Of 8 images the 4 glimpses and the original, thrice as large.
    "drawing": (8 * 87 - 3, 5 * 87 - 3, 3),
    "animation": (4, 4 * 87 - 3, 4 * 87 - 3, 3),
  }
  assert {name: image.shape for name, image in found.items()} == shapes
  for image in found.values():
    assert image.min() >= 0 and image.max() <= 1
  images = digits.splits["validation"]
  first = images[batches.shuffled(len(images), 0, 0)[0]]
  original = found["drawing"][:84, 4 * 87 :, 0][::3, ::3]
  np.testing.assert_array_equal(original, 1 - first)
  red = np.abs(found["animation"] - np.array([214, 39, 40]) / 255).max(axis=-1)
  assert (red < 1e-3).any() == bool(write_size)


def test_figures_of_nan_are_black_and_beyond_the_range_are_cut(tmp_path):
  still = np.array([[np.nan, 2.0, -1.0, 0.2]])
  moving = np.full((3, 4, 5, 3), np.nan)
  writer = writers.FigureWriter(tmp_path)
  writer.write_images(12, {"test/still": still, "test/moving": moving})
  with Image.open(tmp_path / "figures/test-still-000012.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), [[0, 255, 0, 51]])
  with Image.open(tmp_path / "figures/test-moving-000012.gif") as picture:
    assert picture.size == (5, 4)
    assert not np.asarray(picture.convert("RGB")).any()


# --- The programs ---


def test_a_smoke_run_trains_evaluates_and_draws(program, path, tmp_path):
  folder = tmp_path / "run"
  config = f"--config={path}:smoke,train_steps=2,checkpoint_every=1"
  result = program("train", config, f"--workdir={folder}")
  assert result.code == 0, result.err
  assert "data: made up: 70 train, of which the first 64 are used / 48" in (
    result.out
  )
  rows = writers.read_metrics(folder)
  (evaluated,) = [row for row in rows if "test/bound" in row]
  assert evaluated["step"] == 2
  for split in ("validation", "test"):
    parts = evaluated[f"{split}/reconstruction"] + evaluated[f"{split}/kl"]
    assert evaluated[f"{split}/bound"] == pytest.approx(parts, rel=1e-5)
  assert evaluated["test/importance_nll"] <= evaluated["test/importance_bound"]
  figures = folder / "figures"
  names = {
    f"validation-{name}-000002.{kind}"
    for name, kind in (
      ("samples", "png"),
      ("drawing", "png"),
      ("animation", "gif"),
    )
  }
  assert {p.name for p in figures.iterdir()} == names
  for file in figures.iterdir():
    with Image.open(file) as picture:
      frames = 4 if file.suffix == ".gif" else 1  # A frame for each glimpse.
      assert getattr(picture, "n_frames", 1) == frames
      picture.load()
  before = {p.name: p.read_bytes() for p in figures.iterdir()}
  for file in figures.iterdir():
    file.unlink()
  result = program("evaluate", f"--workdir={folder}")
  assert result.code == 0, result.err
  found = json.loads(result.out)
  assert found["test/bound"] == evaluated["test/bound"]
  assert found["test/importance_nll"] == evaluated["test/importance_nll"]
  assert {p.name: p.read_bytes() for p in figures.iterdir()} == before
