"""DRAW against NumPy in float64, and what holds of any drawing."""

import functools
import itertools
import math
from typing import NamedTuple

import drawn_variables
from drawn_variables import paths, single, slopes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_draw

from lnrnn.models.draw import DRAW

T, H, Z, B = 3, 5, 4, 4
SIZE = {"glimpses": T, "features": H, "latents": Z, "height": 6, "width": 7}
# So large that it matters where it stands.
EPS = 0.1


class Variant(NamedTuple):
  norm: str
  form: str = "cell"
  normed: str = "both"
  read_size: int = 2
  write_size: int = 3

  def model(self, **fields):
    start = {"read_start": (1.5, 0.8), "write_start": (1.2, 0.7)}
    return DRAW(**SIZE | self._asdict() | start | {"eps": EPS} | fields)

  @property
  def how(self):
    return self._asdict() | {"eps": EPS}


LAYER = Variant("layer")
WHOLE = Variant("layer", read_size=0, write_size=0)
WITH_GRADIENTS = [
  (LAYER, {}),
  (Variant("weight", read_size=0, write_size=0), {"backward": "plain"}),
  (Variant("batch"), {}),
]
BOUND_ALONE = [
  Variant("layer", normed="encoder"),
  Variant("layer", form="separate"),
  Variant("layer", form="sum", normed="decoder", write_size=0),
  Variant("rms", read_size=0),
  Variant("none"),
  Variant("batch", form="separate", normed="encoder"),
]
# Of the cases, none the same.
WEIGHTS = np.array([0.3, 1.2, -0.7, 0.9])


def named(values):
  return "-".join(map(str, values))


def images(n=B, height=6, width=7):
  ink = np.random.default_rng(5).random((n, height, width)) < 0.4
  return ink.astype(np.uint8)


KEY = jax.random.key(3)


def noise():
  """The noise of the model with `KEY`, in the dtype at hand."""
  return np.float64(jax.random.normal(KEY, (T, B, Z)))


@functools.cache
def shapes(model):
  """The variables' shapes, computed without making them."""
  image = jnp.zeros((2, model.height, model.width), jnp.uint8)
  return jax.eval_shape(model.init, jax.random.key(0), image, KEY)


def trained(model, sd=0.4):
  """Variables as after some training."""
  return drawn_variables.trained(shapes(model), sd)


def wide(tree):
  return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


@functools.cache
def runner(variant):
  """The compiled (variables, image, key) -> terms, in training."""
  model = variant.model()
  return jax.jit(lambda v, *args: model.apply(v, *args, train=True))


@functools.cache
def gradients_of(variant, **options):
  """(terms, gradients of the weighted sum of the bounds), in float64."""
  model, image = variant.model(**options), images()

  def value(params, others):
    terms = model.apply({"params": params, **others}, image, KEY, train=True)
    return (terms.bound * WEIGHTS).sum(), terms

  variables = trained(model)
  params = variables.pop("params")
  run = jax.jit(jax.value_and_grad(value, has_aux=True))
  (_, terms), gradients = run(params, variables)
  return terms, gradients


def assert_terms(terms, expected, rtol):
  scale = np.abs(expected["nll"]).max()
  for name in ("nll", "kl", "log_weight"):
    np.testing.assert_allclose(
      getattr(terms, name),
      expected[name],
      rtol=rtol,
      atol=rtol * scale,
      err_msg=name,
    )
  bound = expected["nll"] + expected["kl"]
  np.testing.assert_allclose(terms.bound, bound, rtol=rtol)


def reference(variant, params, image, **given):
  return references_draw.run(params, image, noise(), variant.how, **given)


@pytest.fixture(scope="module")
def untrained():
  """Parameters as the model makes them."""
  model = LAYER.model(gain_init=0.3, forget_bias=1.5, init_sd=0.02)
  return jax.jit(model.init)(jax.random.key(0), images(2), KEY)["params"]


# --- Against NumPy ---


@pytest.mark.parametrize("variant", [LAYER, Variant("batch")])
def test_the_bound_agrees_with_numpy_in_float32(variant):
  variables = trained(variant.model())
  terms = runner(variant)(single(variables), images(), KEY)
  assert terms.nll.dtype == jnp.float32
  expected = reference(variant, variables["params"], images())
  assert_terms(terms, expected, 1e-4)


@pytest.mark.parametrize("variant", BOUND_ALONE, ids=named)
def test_the_bound_agrees_with_numpy_in_float64(variant, x64):
  variables = trained(variant.model())
  terms = runner(variant)(variables, images(), KEY)
  expected = reference(variant, variables["params"], images())
  assert_terms(terms, expected, 1e-9)


def test_each_source_of_the_encoder_is_drawn_by_its_own_width():
  model = DRAW(glimpses=1, norm="none")
  image = np.zeros((1, 28, 28), np.uint8)
  params = jax.jit(model.init)(jax.random.key(0), image, KEY)["params"]
  w_x = np.asarray(params["encoder"]["w_x"])
  assert w_x[:8].std() == pytest.approx(8**-0.5, rel=0.03)
  assert w_x[8:].std() == pytest.approx(256**-0.5, rel=0.03)


def test_the_bound_of_an_untrained_model_agrees_with_numpy(untrained, x64):
  params = wide(untrained)
  terms = runner(LAYER)({"params": params}, images(), KEY)
  assert_terms(terms, reference(LAYER, params, images()), 1e-9)


@pytest.mark.parametrize("variant, options", WITH_GRADIENTS, ids=named)
def test_gradients_are_the_finite_differences_of_numpy(variant, options, x64):
  params = trained(variant.model())["params"]
  terms, gradients = gradients_of(variant, **options)
  assert_terms(terms, reference(variant, params, images()), 1e-9)

  def value(params):
    out = reference(variant, params, images())
    return ((out["nll"] + out["kl"]) * WEIGHTS).sum()

  got = paths(gradients)
  for name, direction, slope in slopes(value, params):
    assert abs(slope) > 1e-5, name
    np.testing.assert_allclose(
      (got[name] * direction).sum(), slope, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_both_ways_backward_have_the_same_gradients(x64):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
    gradients_of(LAYER, backward="plain"),
    gradients_of(LAYER),
  )


@pytest.mark.parametrize("variant", [LAYER, WHOLE], ids=named)
def test_generate_is_the_decoder_alone_on_latents_of_the_prior(variant, x64):
  model = variant.model()
  params = trained(model)["params"]
  draw = jax.jit(
    lambda p: model.apply({"params": p}, KEY, B, method="generate")
  )
  drawn = draw(params)
  expected = reference(variant, params, None)
  np.testing.assert_allclose(drawn.canvas, expected["canvas"], rtol=1e-9)
  assert 0 <= drawn.canvas.min() < drawn.canvas.max() <= 1
  moved = {
    name: jax.tree.map(lambda v: v + 1, value)
    for name, value in params.items()
    if name.startswith(("encoder", "latent", "read"))
  }
  assert len(moved) == (7 if variant.read_size else 5)
  jax.tree.map(np.testing.assert_array_equal, draw(params | moved), drawn)
  if not variant.write_size:
    assert drawn.window is None
    return
  windows = [
    [references_draw.window(raw, 3, 6, 7) for raw in row]
    for row in expected["window"]
  ]
  np.testing.assert_allclose(
    np.stack(drawn.window, axis=-1), windows, rtol=1e-9
  )


# --- Batch norm ---


def test_the_averages_of_batch_norm_are_those_of_numpy(x64):
  variant = Variant("batch", form="separate")
  model = variant.model()
  state = trained(model)
  params = state.pop("params")
  train = jax.jit(
    lambda state, image: model.apply(
      {"params": params, **state}, image, KEY, train=True, mutable="batch_stats"
    )
  )
  test = jax.jit(
    lambda state, image: model.apply({"params": params, **state}, image, KEY)
  )
  seen = images(), 1 - images()
  found = [reference(variant, params, image)["moments"] for image in seen]
  sites = {f"{p}_{s}" for p in ("encoder", "decoder") for s in "xhc"}
  assert {site for site, _ in found[0]} == sites
  averages = found[0]
  for i, image in enumerate(seen):
    terms, state = train(state, image)
    assert_terms(terms, reference(variant, params, image), 1e-9)
    if i:  # The plain mean of the first two.
      averages = {
        at: np.mean([moments, found[1][at]], axis=0)
        for at, moments in averages.items()
      }
    kept = state["batch_stats"]["statistics"]
    assert kept.keys() == {"seen"} | {
      f"{site}_{name}" for site in sites for name in ("mean", "var")
    }
    np.testing.assert_array_equal(kept["seen"], [i + 1] * T)
    for (site, t), moments in averages.items():
      for name, value in zip(("mean", "var"), moments, strict=True):
        np.testing.assert_allclose(
          kept[f"{site}_{name}"][t], value, rtol=1e-9, atol=1e-12
        )
    expected = reference(variant, params, image, moments=averages)
    assert_terms(test(state, image), expected, 1e-9)


# --- What holds of any model ---


@pytest.fixture(scope="module")
def params():
  """The parameters of the model `LAYER`, in float32."""
  return single(trained(LAYER.model())["params"])


def run(params, image=None, key=KEY):
  image = images() if image is None else image
  return runner(LAYER)({"params": params}, image, key)


def test_the_kl_is_never_negative_and_zero_for_the_prior(params):
  terms = run(params)
  assert (terms.kl > 0).all() and (terms.nll > 0).all()
  flat = {k: 0 * v for k, v in params.items() if k.startswith("latent")}
  terms = run(params | flat)
  np.testing.assert_allclose(terms.kl, 0, atol=1e-6)
  # Then the latents are the noise, and the weight is p(x | z).
  np.testing.assert_allclose(terms.log_weight, -terms.nll, rtol=1e-6)


def test_the_kl_is_the_closed_form(params):
  mean, log_sd = np.linspace(-1, 2, Z), np.linspace(-0.5, 0.5, Z)
  fixed = {
    "latent_kernel": 0 * params["latent_kernel"],
    "latent_bias": jnp.asarray([*mean, *log_sd], jnp.float32),
  }
  one = 0.5 * (mean**2 + np.exp(2 * log_sd) - 2 * log_sd - 1).sum()
  np.testing.assert_allclose(run(params | fixed).kl, T * one, rtol=1e-5)


def test_the_bound_is_the_mean_of_the_negative_log_weights(params):
  n = 5000
  terms = run(params, np.repeat(images(1), n, axis=0))
  difference = np.asarray(terms.bound + terms.log_weight, np.float64)
  error = difference.std() / np.sqrt(n)
  assert 0.005 < error < 0.2
  assert abs(difference.mean()) < 4 * error


def test_the_mean_weights_of_all_images_sum_to_one():
  """Since the mean of p(x, z) / q(z | x) is p(x)."""
  model = LAYER.model(height=2, width=2, glimpses=2)
  variables = single(trained(model, sd=0.3))
  every_image = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8)
  n = 4000
  repeated = np.repeat(every_image.reshape(16, 2, 2), n, axis=0)
  terms = jax.jit(lambda v: model.apply(v, repeated, KEY))(variables)
  weights = np.exp(np.float64(terms.log_weight)).reshape(16, n)
  error = np.sqrt((weights.var(axis=1) / n).sum())
  assert error < 0.03
  assert abs(weights.mean(axis=1).sum() - 1) < 4 * error


def test_the_last_canvas_of_a_reconstruction_has_the_nll_of_the_terms(params):
  model, x = LAYER.model(), images()
  seen = jax.jit(
    lambda p: model.apply({"params": p}, x, KEY, method="reconstruct")
  )(params)
  assert seen.canvas.shape == (T, B, 6, 7)
  assert (seen.canvas >= 0).all() and (seen.canvas <= 1).all()
  ink = np.float64(seen.canvas[-1])
  nll = -np.log(np.where(x, ink, 1 - ink)).sum(axis=(1, 2))
  np.testing.assert_allclose(run(params).nll, nll, rtol=1e-4)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_case_sees_the_others_in_training_with_batch_norm_alone(norm):
  variant = Variant(norm)
  variables = single(trained(variant.model()))
  x, others = images(), images()
  others[1:] = 1 - others[1:]

  def apart(run):
    first, second = (run(variables, x, KEY).bound for x in (x, others))
    apart = np.abs(second - first) / first
    assert apart[1:].min() > 1e-4
    return apart[0] > 1e-5

  assert apart(runner(variant)) == (norm == "batch")
  if norm == "batch":
    assert not apart(jax.jit(variant.model().apply))


def test_the_key_decides_on_the_latents(params):
  np.testing.assert_array_equal(run(params).bound, run(params).bound)
  other = run(params, key=jax.random.key(4))
  assert np.abs(run(params).bound - other.bound).min() > 1e-3


# --- Parameters ---


def count(params):
  return sum(math.prod(v.shape) for v in jax.tree.leaves(params))


def lstm_size(d, h=256):
  """w_x, w_h and b."""
  return 4 * h * (d + h + 1)


# Patches of 2 x 2 of the image and of its error, and the decoder's state.
ENCODER, DECODER = lstm_size(2 * 2 * 2 + 256), lstm_size(100)
LINEAR = 257 * (2 * 100 + 5 * 5 + 5 + 5)
STARTS = 28 * 28 + 4 * 256
BARE = ENCODER + DECODER + LINEAR + STARTS


@pytest.mark.parametrize(
  "fields, own",
  [
    ({"norm": "none"}, 0),
    ({"norm": "layer"}, 4 * 256),
    ({"norm": "rms"}, 4 * 256),
    ({"norm": "batch"}, 4 * 256),
    ({"normed": "encoder"}, 2 * 256),
    ({"normed": "decoder"}, 2 * 256),
    ({"form": "separate"}, 2 * 2 * (1024 + 1024 + 256)),
    ({"norm": "weight"}, 2 * 2 * 1024),
    # A whole image and its error are read, or a whole canvas is written.
    ({"norm": "none", "read_size": 0}, 2 * (784 - 4) * 1024 - 257 * 5),
    ({"norm": "none", "write_size": 0}, 257 * (784 - 25 - 5)),
  ],
)
def test_the_paper_s_model_has_its_number_of_parameters(fields, own):
  variables = shapes(DRAW(**fields))
  assert BARE == 961_275
  assert count(variables["params"]) == BARE + own
  if fields.get("norm") == "batch":  # Of each glimpse, and the counts.
    assert count(variables["batch_stats"]) == 64 * (2 * 2 * 256 + 1)
  else:
    assert set(variables) == {"params"}


@pytest.mark.parametrize("normed", ["both", "encoder", "decoder"])
@pytest.mark.parametrize(
  "norm, form, names",
  [
    ("layer", "cell", {"ln_c"}),
    ("rms", "sum", {"ln_h", "ln_c"}),
    ("layer", "separate", {"ln_x", "ln_h", "ln_c"}),
    ("batch", "cell", {"ln_c"}),
    ("weight", "cell", {"wn_x", "wn_h"}),
    ("none", "cell", set()),
  ],
)
def test_norms_stand_where_form_and_normed_say(norm, form, names, normed):
  params = shapes(Variant(norm, form, normed).model())["params"]
  for part in ("encoder", "decoder"):
    own = names if normed in ("both", part) else set()
    assert set(params[part]) == {"w_x", "w_h", "b"} | own


def test_an_untrained_model_starts_as_its_fields_say(untrained):
  for part in ("encoder", "decoder"):
    np.testing.assert_allclose(untrained[part]["ln_c"]["gain"], 0.3)
    np.testing.assert_allclose(untrained[part]["b"], [1.5] * H + [0] * 3 * H)
    for n in "ch":
      np.testing.assert_array_equal(untrained[f"{part}_start_{n}"], 0)
  names = ["latent", "patch", "read_window", "write_window"]
  kernels = [untrained[f"{name}_kernel"].ravel() for name in names]
  assert np.concatenate(kernels).std() == pytest.approx(0.02, rel=0.2)
  for name, (stride, sd), n in (
    ("read", (1.5, 0.8), 2),
    ("write", (1.2, 0.7), 3),
  ):
    raw = np.float64(untrained[f"{name}_window_bias"])
    got = references_draw.window(raw, n, 6, 7)
    np.testing.assert_allclose(got, (4, 3.5, stride, sd**2, 1), rtol=1e-5)
  for name in ("canvas_start", "latent_bias", "patch_bias"):
    np.testing.assert_array_equal(untrained[name], 0)


@pytest.mark.parametrize(
  "image",
  [
    np.zeros((2, 6, 7), np.float32),
    np.zeros((2, 6, 7), np.int32),
    np.zeros((2, 7, 6), np.uint8),
  ],
)
def test_other_images_than_binary_ones_of_the_size_are_refused(image):
  model = LAYER.model()
  with pytest.raises(ValueError, match=r"uint8 or booleans \[b, 6, 7\]"):
    jax.eval_shape(model.init, jax.random.key(0), image, KEY)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("normed", "decodr"),
    ("read_size", 1),
    ("write_size", -2),
    ("glimpses", 0),
    ("latents", 0),
  ],
)
def test_fields_that_make_no_model_are_refused(field, value):
  with pytest.raises(ValueError, match=f"DRAW: {field}="):
    LAYER.model(**{field: value})
