"""The norms of feature maps against hand values and NumPy in float64."""

import functools
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import central_differences
import references_convnet

from lnrnn import map_norms, norms
from lnrnn.map_norms import MapNorm, standardised_maps

EIGHT = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]  # Mean 5, deviation 2.
SHAPE = (2, 6, 5, 4)

fitted = functools.partial(
  jax.jit, static_argnames=("groups", "border", "centre", "eps")
)(standardised_maps)
# Border 2 leaves one column of two rows.
every_way = pytest.mark.parametrize(
  ("groups", "border", "centre"),
  list(itertools.product((1, 2, 4), (0, 1, 2), (True, False))),
)

some_ways = pytest.mark.parametrize(
  ("groups", "border", "centre"),
  [(1, 0, True), (1, 2, False), (2, 0, False), (2, 1, True), (4, 1, False)],
)


def draw(shape=SHAPE, seed=0):
  """Nothing is centred or of unit size, and channels differ."""
  rng = np.random.default_rng(seed)
  return rng.normal(0.7, 1.8, shape) + rng.normal(0, 1, shape[-1])


def random_affine(module, a, seed=1):
  """Parameters of a norm, none of them 1 or 0."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(module.init, jax.random.key(0), a)["params"]
  return {
    k: jnp.asarray(rng.normal(1, 0.5, v.shape)) for k, v in shapes.items()
  }


# --- Values ---


def test_a_layer_by_hand():
  a = jnp.array(EIGHT).reshape(1, 2, 2, 2)
  y = fitted(a, eps=0)
  wanted = [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2]
  np.testing.assert_allclose(y.ravel(), wanted, rtol=1e-6)
  # Channels 2, 4, 5, 7 and 4, 4, 5, 9.
  y = fitted(a, groups=2, eps=0)
  first = (np.array([2, 4, 5, 7]) - 4.5) / np.sqrt(3.25)
  second = (np.array([4, 4, 5, 9]) - 5.5) / np.sqrt(4.25)
  np.testing.assert_allclose(y[0, ..., 0].ravel(), first, rtol=1e-6)
  np.testing.assert_allclose(y[0, ..., 1].ravel(), second, rtol=1e-6)


def test_a_border_by_hand():
  a = jnp.arange(12.0).at[5].set(10).at[6].set(14).reshape(3, 4, 1)
  y = fitted(a, border=1, eps=0)  # Inside 10 and 14.
  np.testing.assert_allclose(y, (a - 12) / 2, rtol=1e-6)
  y = fitted(a, border=1, centre=False, eps=0)
  np.testing.assert_allclose(y, a / np.sqrt(148), rtol=1e-6)


@every_way
def test_a_layer_agrees_with_numpy(groups, border, centre):
  ways = dict(groups=groups, border=border, centre=centre)
  a = draw()
  expected = references_convnet.standardised(a, **ways)
  narrow = fitted(jnp.asarray(a, jnp.float32), **ways)
  assert narrow.dtype == jnp.float32
  np.testing.assert_allclose(narrow, expected, rtol=1e-5, atol=1e-5)
  with jax.enable_x64(True):
    wide = fitted(jnp.asarray(a), **ways)
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("border", [0, 1])
def test_a_large_mean_costs_no_more_than_its_own_rounding(border):
  a = np.float32(1e4 + np.random.default_rng(0).normal(size=(3, 9, 9, 16)))
  y = fitted(jnp.asarray(a), border=border)
  expected = references_convnet.standardised(np.float64(a), border=border)
  assert np.abs(y - expected).max() <= 2e-3


@pytest.mark.parametrize("form", map_norms.FORMS)
def test_bfloat16_is_the_float32_result_rounded_once(form):
  a = jnp.asarray(draw((2, 8, 8, 16)), jnp.bfloat16)
  assert standardised_maps(a).dtype == jnp.float32
  module = MapNorm(form=form)
  params = jax.tree.map(np.float32, random_affine(module, a))
  y = module.apply({"params": params}, a)
  wide = module.apply({"params": params}, a.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16 and wide.dtype == jnp.float32
  rounded = wide.astype(jnp.bfloat16)
  np.testing.assert_array_equal(np.float32(y), np.float32(rounded))


def test_statistics_of_bfloat16_are_taken_in_float32():
  # In bfloat16 this sum of squares would stop growing at 2^8 of 2^12.
  a = jnp.full((64, 64, 1), 256, jnp.bfloat16)
  y = fitted(a, centre=False)
  np.testing.assert_allclose(y, 1, rtol=1e-6)


# --- Derivatives ---


@some_ways
def test_gradients_are_the_finite_differences_of_numpy(
  groups, border, centre, x64
):
  ways = dict(groups=groups, border=border, centre=centre)
  a = draw((1, 6, 5, 4))
  cotangent = np.random.default_rng(1).normal(size=a.shape)
  reference = functools.partial(references_convnet.standardised, **ways)
  (expected,) = central_differences(reference, [a], cotangent)
  _, vjp = jax.vjp(functools.partial(fitted, **ways), jnp.asarray(a))
  (actual,) = vjp(jnp.asarray(cotangent))
  assert np.abs(expected).max() > 1e-2  # A test of zeros would test nothing.
  # Over two units the variance may be small, and differences are rounded.
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7 * scale)


# --- The forms ---


@pytest.mark.parametrize("centre", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("form", map_norms.FORMS)
def test_a_form_is_the_norm_of_a_dense_layer_of_its_units(form, centre, x64):
  a = jnp.asarray(draw())
  module = MapNorm(form=form, centre=centre)
  params = random_affine(module, a)
  y = module.apply({"params": params}, a)
  dense = norms.layer_norm if centre else norms.rms_norm
  own = a.shape[1:] if form == "units" else a.shape[-1:]
  assert {k: v.shape for k, v in params.items()} == {"gain": own, "bias": own}
  if form == "channels":
    expected = dense(a, **params)
  else:
    each = {k: jnp.broadcast_to(v, a.shape[1:]) for k, v in params.items()}
    flat = {k: v.ravel() for k, v in each.items()}
    expected = dense(a.reshape(len(a), -1), **flat).reshape(a.shape)
  np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_group_norm_of_one_group_is_layer_norm_over_maps(x64):
  a = jnp.asarray(draw())
  conv = nn.Conv(4, (1, 1), param_dtype=jnp.float64)
  one = map_norms.Options(groups=1, form="maps")
  layer = map_norms.normed(conv, "layer", one)
  variables = jax.jit(layer.init)(jax.random.key(0), a)
  group = map_norms.normed(conv, "group", one)
  np.testing.assert_array_equal(
    group.apply(variables, a), layer.apply(variables, a)
  )
  two = map_norms.normed(conv, "group", map_norms.Options(groups=2))
  assert np.abs(two.apply(variables, a) - group.apply(variables, a)).max() > 0.1


def test_group_norm_of_a_group_for_each_channel_is_instance_norm(x64):
  a = draw()
  mean, sd = a.mean((1, 2), keepdims=True), a.std((1, 2), keepdims=True)
  y = fitted(jnp.asarray(a), groups=4, eps=0)
  np.testing.assert_allclose(y, (a - mean) / sd, rtol=1e-10, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_agrees_with_torch(groups, x64):
  torch = pytest.importorskip("torch")
  a, cotangent = draw(), draw(seed=1)
  module = MapNorm(form="maps", groups=groups)
  params = random_affine(module, jnp.asarray(a))
  y, vjp = jax.vjp(
    lambda a: module.apply({"params": params}, a), jnp.asarray(a)
  )
  theirs = torch.tensor(a.transpose(0, 3, 1, 2), requires_grad=True)
  gain, bias = (torch.tensor(np.asarray(params[k])) for k in ("gain", "bias"))
  expected = torch.nn.functional.group_norm(theirs, groups, gain, bias, 1e-5)
  expected.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))
  back = lambda v: v.detach().numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(y, back(expected), atol=1e-10)
  (got,) = vjp(jnp.asarray(cotangent))
  np.testing.assert_allclose(got, back(theirs.grad), atol=1e-10)


@pytest.mark.parametrize("name", map_norms.NAMES)
def test_a_norm_s_parameters_stand_where_the_convolution_s_bias_did(name):
  options = map_norms.Options(groups=2, gain_init=0.5)
  conv = nn.Conv(4, (3, 3), bias_init=nn.initializers.constant(0.25))
  module = map_norms.normed(conv, name, options)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.ones(SHAPE))
  params = dict(variables["params"])
  kernel = params["layer"].pop("kernel")
  assert kernel.shape == (3, 3, 4, 4)
  if name == "none":
    np.testing.assert_array_equal(params["layer"]["bias"], np.full(4, 0.25))
    return
  # Of each unit in the literal reading, else of each channel.
  own = SHAPE[1:] if name in ("layer", "rms") else (4,)
  gain, bias = params["norm"]["gain"], params["norm"]["bias"]
  assert not params["layer"] and set(params["norm"]) == {"gain", "bias"}
  np.testing.assert_array_equal(bias, np.full(own, 0.25))
  length = np.sqrt((np.float64(kernel) ** 2).sum((0, 1, 2)))
  start = length if name == "weight" else np.full(own, 0.5)
  np.testing.assert_allclose(gain, start, rtol=1e-6)
  assert ("batch_stats" in variables) == (name == "batch")


@pytest.mark.parametrize("name", ["layer", "rms", "group"])
def test_a_named_norm_is_the_reference_with_its_options(name, x64):
  options = map_norms.Options(form="maps", groups=2, border=1, eps=0.3)
  conv = nn.Conv(4, (1, 1), param_dtype=jnp.float64)
  module = map_norms.normed(conv, name, options)
  a = draw()
  params = jax.jit(module.init)(jax.random.key(0), jnp.asarray(a))["params"]
  ways = {
    "layer": dict(border=1),
    "rms": dict(border=1, centre=False),
    "group": dict(groups=2),  # Has no border.
  }
  summed = a @ np.asarray(params["layer"]["kernel"])[0, 0]
  wanted = references_convnet.standardised(summed, eps=0.3, **ways[name])
  y = module.apply({"params": params}, jnp.asarray(a))
  np.testing.assert_allclose(y, wanted, rtol=1e-9, atol=1e-9)


# --- What the statistics are of ---


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("border", [1, 2])
def test_border_units_leave_the_statistics_alone(border, centre, x64):
  a, other = draw((2, 7, 6, 4)), 50 * draw((2, 7, 6, 4), seed=1)
  inside = (slice(None), slice(border, -border), slice(border, -border))
  other[inside] = a[inside]
  ways = dict(groups=2, border=border, centre=centre)
  y, moved = (fitted(jnp.asarray(v), **ways) for v in (a, other))
  np.testing.assert_array_equal(moved[inside], y[inside])
  # Theirs are the same line: one scale and shift for a case and group.
  for case, group in itertools.product(range(2), ([0, 1], [2, 3])):
    part = (case, slice(None), slice(None), group)
    line = np.polyfit(a[part].ravel(), np.asarray(y)[part].ravel(), 1)
    expected = np.polyval(line, other[part])
    np.testing.assert_allclose(np.asarray(moved)[part], expected, rtol=1e-8)
  without = fitted(jnp.asarray(other), groups=2, centre=centre)
  assert np.abs(without[inside] - y[inside]).max() > 0.1


@some_ways
def test_scale_never_matters_and_shift_not_where_it_is_centred(
  groups, border, centre, x64
):
  ways = dict(groups=groups, border=border, centre=centre, eps=0)
  a = jnp.asarray(draw())
  y = fitted(a, **ways)
  np.testing.assert_allclose(fitted(1e3 * a, **ways), y, rtol=1e-9)
  shifted = np.abs(fitted(a + 3, **ways) - y).max()
  assert (shifted < 1e-9) if centre else (shifted > 1e-2)


@pytest.mark.parametrize("border", [0, 1])
def test_each_case_is_normalised_by_itself(border):
  a = jnp.asarray(draw((3, 2, 6, 5, 4)), jnp.float32)  # Of several axes too.
  y = fitted(a, groups=2, border=border)
  for i, j in itertools.product(range(3), range(2)):
    alone = fitted(a[i, j], groups=2, border=border)
    np.testing.assert_allclose(alone, y[i, j], rtol=1e-5, atol=1e-6)


# --- Errors ---


def init(module, shape=(1, 4, 4, 6)):
  return jax.eval_shape(module.init, jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(
  ("shape", "ways", "told"),
  [
    ((4, 4, 6), {"groups": 4}, "groups=4: must divide the 6 channels"),
    ((4, 5, 6), {"border": 2}, "border=2: leaves 0 units of a layer of 4 x 5"),
    ((4, 9, 6), {"border": 9}, "border=9: leaves 0 units"),
    ((3, 3, 4), {"border": 1, "groups": 4}, "leaves 1 units of a layer"),
    ((1, 1, 1), {}, "border=0: leaves 1 units of a layer of 1 x 1"),
  ],
)
def test_what_leaves_no_statistics_is_refused_in_a_line(shape, ways, told):
  with pytest.raises(ValueError) as caught:
    standardised_maps(jnp.ones(shape), **ways)
  assert told in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(ValueError, match=told.split(":")[0]):
    init(MapNorm(form="maps", **ways), (1, *shape))


def test_a_form_and_a_norm_that_do_not_exist_are_refused_by_name():
  with pytest.raises(ValueError, match="form='map': must be.*mean 'maps'"):
    init(MapNorm(form="map"))
  names = ", ".join(map_norms.NAMES)
  with pytest.raises(ValueError, match=f"norm='groups': .*{names}.*'group'"):
    map_norms.normed(nn.Conv(4, (1, 1)), "groups")


def test_norms_of_other_layers_have_no_group_norm():
  assert "group" not in norms.NAMES and map_norms.NAMES[:-1] == norms.NAMES
  with pytest.raises(ValueError, match="norm='group': must be one of"):
    norms.normed(nn.Dense(4), "group")
