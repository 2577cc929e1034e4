"""Graves's network against NumPy in float64, its states and its samples."""

import functools
from typing import NamedTuple

import drawn_variables
from drawn_variables import paths, single, slopes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_handwriting

from lnrnn.models.handwriting import Handwriting, Text, joined

B, T, U, H, C = 3, 6, 4, 5, 7
EPS, MIN = 0.1, 0.05
LENGTHS = np.array([6, 4, 3])


class Variant(NamedTuple):
  norm: str = "layer"
  form: str = "separate"
  inputs: str = "together"
  peepholes: bool = False
  window: int = 2
  layers: int = 3

  def model(self, **fields):
    own = {"features": H, "characters": C, "mixtures": 3, "t_max": T}
    own |= {"eps": EPS, "min_deviation": MIN}
    return Handwriting(**own | self._asdict() | fields)

  @property
  def how(self):
    more = {"eps": EPS, "characters": C, "min_deviation": MIN}
    return self._asdict() | more

  @property
  def text(self):
    return TEXT if self.window else None


LAYER = Variant()
VARIANTS = [
  LAYER,
  Variant(inputs="apart"),
  Variant("rms", "sum"),
  Variant("none", peepholes=True, layers=2),
  Variant("weight"),
  Variant(window=0),
]


def named(variant):
  return "-".join(map(str, variant))


def ink(n=B, t=T):
  rng = np.random.default_rng(3)
  points = rng.normal(size=(n, t, 3))
  points[..., 2] = points[..., 2] > 0.5
  return points


TEXT = Text(
  np.random.default_rng(4).integers(0, C, (B, U)).astype(np.uint8),
  np.array([4, 2, 3]),
)


@functools.cache
def shapes(model):
  text = TEXT if model.window else None
  return jax.eval_shape(model.init, jax.random.key(0), ink(), LENGTHS, text)


def trained(model):
  return drawn_variables.trained(shapes(model))


def losses(model, variables, *args, **options):
  run = lambda v: model.apply(v, *args, train=True, **options)
  return jax.jit(run)(variables)


def reference(variant, params):
  text = variant.text and tuple(variant.text)
  return references_handwriting.run(params, ink(), LENGTHS, text, variant.how)


# --- Against NumPy ---


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_the_loss_agrees_with_numpy_in_float64(variant, x64):
  variables = trained(variant.model())
  _, nll = losses(variant.model(), variables, ink(), LENGTHS, variant.text)
  expected = reference(variant, variables["params"])["nll"]
  np.testing.assert_allclose(nll, expected, rtol=1e-9, atol=1e-9)


def test_the_loss_agrees_with_numpy_in_float32():
  variables = trained(LAYER.model())
  points = np.float32(ink())
  _, nll = losses(LAYER.model(), single(variables), points, LENGTHS, TEXT)
  assert nll.dtype == jnp.float32
  expected = reference(LAYER, variables["params"])["nll"]
  np.testing.assert_allclose(nll, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_takes_its_moments_from_the_unfinished_lines(x64):
  # Of fewer than 8 the statistics stay those of the step before (see
  # recurrent_bn), so here no line is shorter than the others.
  variant = Variant("batch", inputs="apart")
  variables = trained(variant.model())
  whole = np.full(B, T)
  _, nll = losses(variant.model(), variables, ink(), whole, TEXT)
  how = variant.how
  expected = references_handwriting.run(
    variables["params"], ink(), whole, tuple(TEXT), how
  )["nll"]
  np.testing.assert_allclose(nll, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
  "variant", [LAYER, Variant("none", peepholes=True)], ids=named
)
def test_gradients_are_the_finite_differences_of_numpy(variant, x64):
  model, weights = variant.model(), np.array([0.3, 1.2, -0.7])[:, None]
  params = trained(model)["params"]

  def value(params):
    _, nll = model.apply({"params": params}, ink(), LENGTHS, TEXT)
    return (nll * weights).sum()

  got = paths(jax.jit(jax.grad(value))(params))
  numpy = lambda params: (reference(variant, params)["nll"] * weights).sum()
  for name, direction, slope in slopes(numpy, params):
    assert abs(slope) > 1e-5, name
    np.testing.assert_allclose(
      (got[name] * direction).sum(), slope, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_the_papers_network_has_its_weights():
  def count(**fields):
    model = Handwriting(norm="none", **fields)
    text = Text(jnp.zeros((1, 2), jnp.uint8), jnp.ones(1, jnp.int32))
    points = jnp.zeros((1, 3, 3))
    made = jax.eval_shape(
      model.init, jax.random.key(0), points, jnp.ones(1, jnp.int32), text
    )
    return sum(leaf.size for leaf in jax.tree.leaves(made))

  # 3.7 M; Graves 2013, section 5.2.
  assert count() == 3_650_151
  assert count(peepholes=True) == 3_653_751


# --- Sequences ---


@pytest.mark.parametrize(
  "variant", [LAYER, Variant("none", window=0)], ids=named
)
def test_two_pieces_with_the_state_between_are_one_line(variant, x64):
  model, variables = variant.model(), trained(variant.model())
  last, whole = losses(model, variables, ink(), LENGTHS, variant.text)
  cut = 4
  first, second = np.minimum(LENGTHS, cut), np.maximum(LENGTHS - cut, 0)
  state, a = losses(model, variables, ink()[:, :cut], first, variant.text)
  end, b = losses(
    model, variables, ink()[:, cut:], second, variant.text, state=state
  )
  np.testing.assert_allclose(np.concatenate([a, b], axis=1), whole, rtol=1e-9)
  jax.tree.map(
    lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-9), end, last
  )


def test_what_stands_behind_a_line_or_a_text_does_not_matter(x64):
  model, variables = LAYER.model(), trained(LAYER.model())
  _, expected = losses(model, variables, ink(), LENGTHS, TEXT)
  points = np.where(
    np.arange(T)[:, None] < LENGTHS[:, None, None], ink(), np.nan
  )
  codes = np.where(np.arange(U) < TEXT.lengths[:, None], TEXT.codes, 1)
  _, nll = losses(model, variables, points, LENGTHS, Text(codes, TEXT.lengths))
  np.testing.assert_allclose(nll, expected, rtol=1e-12)
  value = lambda v: model.apply(v, points, LENGTHS, TEXT)[1].sum()
  gradients = jax.jit(jax.grad(value))(variables)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_both_ways_backward_have_the_same_gradients(x64):
  def gradients(backward):
    model = LAYER.model(backward=backward)
    value = lambda v: model.apply(v, ink(), LENGTHS, TEXT)[1].sum()
    return jax.jit(jax.grad(value))(trained(LAYER.model()))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11),
    gradients("plain"),
    gradients("fast"),
  )


# --- Samples ---


def sample(variant, seed=0, steps=T, variables=None, **options):
  model = variant.model()
  variables = variables or single(trained(model))
  return jax.jit(
    lambda v, key: model.apply(
      v, key, variant.text, n=B, steps=steps, method="sample", **options
    )
  )(variables, jax.random.key(seed))


@pytest.mark.parametrize("variant", [LAYER, Variant("batch")], ids=named)
def test_sampled_points_follow_the_network_that_was_trained(variant):
  """The attention of a sample is that of the network run over it."""
  model, variables = variant.model(), single(trained(variant.model()))
  got = sample(variant, variables=variables)
  if variant.norm == "batch":
    # Its sampler takes the averages; so must the reference, which has none.
    _, nll = jax.jit(model.apply)(variables, got.ink, got.lengths, TEXT)
    assert np.isfinite(nll).all()
    return
  params = jax.tree.map(np.float64, variables["params"])
  expected = references_handwriting.run(
    params, np.float64(got.ink), np.asarray(got.lengths), tuple(TEXT), LAYER.how
  )["attention"]
  for row, n in enumerate(np.asarray(got.lengths)):
    u = TEXT.lengths[row]
    np.testing.assert_allclose(
      got.attention[row, :n, :u], expected[row, :n, :u], rtol=1e-3, atol=1e-5
    )


def test_a_line_ends_when_the_window_is_past_its_text():
  model = LAYER.model()
  variables = single(trained(model))
  params = variables["params"]
  # One sharp Gaussian that moves a character in three points.
  start = np.float32(np.log([1, 1e-4, 4, 4, 1 / 3, 1 / 3]))
  params["window_kernel"] = np.zeros_like(params["window_kernel"])
  params["window_bias"] = start
  got = sample(LAYER, steps=40, variables=variables)
  # Past the middle between the last character and what follows it.
  expected = [1 + int((u + 0.5) * 3) - 1 for u in TEXT.lengths]
  np.testing.assert_array_equal(got.lengths, expected)
  for row, n in enumerate(expected):
    assert (got.ink[row, :n, :2] != 0).all()
    assert (got.ink[row, n:] == 0).all() and (got.attention[row, n:] == 0).all()
    at = got.attention[row, :n].argmax(axis=1)
    assert at[0] == 0 and at[-1] == TEXT.lengths[row] - 1
    assert (np.diff(at) >= 0).all()


def test_the_prediction_network_writes_until_it_is_stopped():
  got = sample(Variant(window=0), steps=9)
  assert got.attention is None
  np.testing.assert_array_equal(got.lengths, [9] * B)


def test_a_bias_makes_points_more_alike():
  spread = [
    np.std(sample(Variant(window=0), steps=200, bias=bias).ink[..., :2])
    for bias in (0.0, 3.0)
  ]
  assert spread[1] < 0.8 * spread[0]


def test_priming_goes_on_where_a_line_has_ended(x64):
  """The first point has the density that it has after the line in one piece."""
  model, variables = LAYER.model(), trained(LAYER.model())
  prime = (ink(), LENGTHS, TEXT)
  got = sample(LAYER, variables=variables, steps=1, prime=prime)
  again = sample(LAYER, variables=variables, steps=1)
  assert np.abs(got.ink - again.ink).max() > 1e-3
  apply, text = jax.jit(model.apply), joined(TEXT, TEXT)
  state, _ = apply(variables, ink(), LENGTHS, text)
  _, nll = apply(variables, got.ink, np.ones(B, int), text, state=state)
  whole = np.zeros((B, T + 1, 3))
  whole[:, :T] = ink()
  for row, n in enumerate(LENGTHS):
    whole[row, n] = got.ink[row, 0]
  _, expected = apply(variables, whole, LENGTHS + 1, text)
  np.testing.assert_allclose(
    nll[:, 0], expected[np.arange(B), LENGTHS], rtol=1e-9
  )


def test_texts_are_joined_where_the_first_ends():
  first = Text(np.array([[1, 2, 0], [3, 0, 0]]), np.array([2, 1]))
  second = Text(np.array([[4, 5], [6, 0]]), np.array([2, 1]))
  both = joined(first, second)
  np.testing.assert_array_equal(both.lengths, [4, 2])
  np.testing.assert_array_equal(both.codes[0, :4], [1, 2, 4, 5])
  np.testing.assert_array_equal(both.codes[1, :2], [3, 6])
