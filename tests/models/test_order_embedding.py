"""Order embeddings against NumPy in float64: loss, gradients, padding."""

import functools
from typing import NamedTuple

import drawn_variables
from drawn_variables import paths, single, slopes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_order as reference

from lnrnn import losses, ranking
from lnrnn.models.order_embedding import OrderEmbedding, l2_normalised

B, T, V, H, D, F = 4, 6, 9, 5, 3, 7
EPS, MARGIN = 0.1, 0.3
LENGTHS = np.array([6, 1, 4, 3])
rng = np.random.default_rng(0)
WORDS = rng.integers(0, V, (B, T)).astype(np.int32)
IMAGE = np.abs(rng.normal(size=(B, F)))


class Variant(NamedTuple):
  norm: str = "layer"
  form: str = "separate"
  loss: str = "order"

  def model(self, **fields):
    return OrderEmbedding(
      V,
      features=H,
      word_features=D,
      absolute=self.loss == "order",
      norm=self.norm,
      form=self.form,
      eps=EPS,
      t_max=T,
      **fields,
    )


VARIANTS = [
  Variant(),
  Variant("none"),
  Variant("none", loss="cosine"),
  Variant("layer", "sum"),
  Variant("rms"),
  Variant("weight"),
]


def named(variant):
  return "-".join(variant)


@functools.cache
def variables(variant):
  model = variant.model()
  shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE, WORDS, LENGTHS)
  return drawn_variables.trained(shapes)


def loss_of(variant, params, words=WORDS, **fields):
  model = variant.model(**fields)
  placed = model.apply({"params": params}, IMAGE, words, LENGTHS)
  errors = ranking.ERRORS[variant.loss](*placed)
  return losses.contrastive_hinge(errors, MARGIN)


@functools.cache
def loss_and_gradients(variant, backward="fast"):
  """Compiled (params, words) -> (loss, gradients)."""
  of = functools.partial(loss_of, variant, backward=backward)
  return jax.jit(jax.value_and_grad(of))


def expected_loss(variant, params):
  absolute = variant.loss == "order"
  images = reference.images(params, IMAGE, absolute)
  captions = reference.sentences(
    params, WORDS, LENGTHS, variant.norm, variant.form, EPS, absolute
  )
  return reference.hinge(
    reference.errors(variant.loss, images, captions), MARGIN
  )


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_loss_is_that_of_numpy(variant):
  params = variables(variant)["params"]
  expected = expected_loss(variant, params)
  assert expected > 0
  narrow, _ = loss_and_gradients(variant)(single(params), WORDS)
  np.testing.assert_allclose(narrow, expected, rtol=1e-4)
  with jax.enable_x64(True):
    wide, _ = loss_and_gradients(variant)(params, WORDS)
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS[:3], ids=named)
def test_gradients_are_central_differences(variant, x64):
  params = variables(variant)["params"]
  both = loss_and_gradients(variant)
  gradients = paths(both(params, WORDS)[1])
  value = lambda params: both(params, WORDS)[0]
  for name, direction, slope in slopes(value, params):
    found = float((np.asarray(gradients[name]) * direction).sum())
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8, err_msg=name)


def test_images_and_captions_are_not_exchangeable():
  """With the arguments of the penalty swapped the loss is another one."""
  params = variables(Variant())["params"]
  images = reference.images(params, IMAGE)
  captions = reference.sentences(
    params, WORDS, LENGTHS, "layer", "separate", EPS
  )
  right = reference.hinge(reference.errors("order", images, captions), MARGIN)
  swapped = reference.hinge(
    reference.errors("order", captions, images).T, MARGIN
  )
  found, _ = loss_and_gradients(Variant())(single(params), WORDS)
  np.testing.assert_allclose(found, right, rtol=1e-4)
  assert abs(found - swapped) > 0.05 * right


def test_padding_changes_no_bit():
  params = single(variables(Variant())["params"])
  loss = loss_and_gradients(Variant())
  live = np.arange(T) < LENGTHS[:, None]
  other = np.where(live, WORDS, (WORDS + 4) % V)
  assert (other != WORDS).any()
  for a, b in zip(
    jax.tree.leaves(loss(params, WORDS)),
    jax.tree.leaves(loss(params, other)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_a_caption_is_placed_alike_in_any_length_of_padding():
  params = single(variables(Variant())["params"])
  longer = np.pad(WORDS, ((0, 0), (0, 5)))
  both = loss_and_gradients(Variant())
  np.testing.assert_allclose(
    both(params, longer)[0], both(params, WORDS)[0], rtol=1e-6
  )


def test_the_plain_scan_has_the_same_gradient():
  params = single(variables(Variant())["params"])
  found = [
    loss_and_gradients(Variant(), how)(params, WORDS)[1]
    for how in ("fast", "plain")
  ]
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_the_norm_stands_in_the_gru_alone():
  for norm, own in (("layer", {"ln_x", "ln_h"}), ("none", {"b"})):
    params = variables(Variant(norm))["params"]
    assert params.keys() == {"embeddings", "encoder", "image_map"}
    assert params["encoder"]["cell"].keys() == {"w_x", "w_h"} | own
    assert params["image_map"].keys() == {"kernel", "bias"}


def test_initial_weights_are_those_of_the_authors():
  model = OrderEmbedding(500, features=64, word_features=30)
  batch = np.ones((2, 100)), np.ones((2, 3), int), np.ones(2, int)
  params = jax.jit(model.init)(jax.random.key(0), *batch)["params"]
  cell = params["encoder"]["cell"]
  for drawn in (params["embeddings"], cell["w_x"]):
    assert 0.095 < np.abs(drawn).max() <= 0.1
  edge = np.sqrt(6 / (100 + 64))
  assert 0.95 * edge < np.abs(params["image_map"]["kernel"]).max() <= edge
  for block in np.split(np.asarray(cell["w_h"]), 3, axis=1):
    np.testing.assert_allclose(block @ block.T, np.eye(64), atol=1e-5)


def test_what_is_placed_has_length_one_and_for_the_order_no_negative_part():
  def placed(variant):
    params = single(variables(variant)["params"])
    apply = jax.jit(variant.model().apply)
    return apply({"params": params}, IMAGE, WORDS, LENGTHS)

  for part in placed(Variant()):
    np.testing.assert_allclose(jnp.linalg.norm(part, axis=1), 1, rtol=1e-6)
    assert (part >= 0).all()
  assert all(
    (part < 0).any() for part in placed(Variant("none", loss="cosine"))
  )


def test_batch_norm_trains_and_is_tested_by_its_averages():
  model = Variant("batch").model()
  state = jax.jit(model.init)(jax.random.key(0), IMAGE, WORDS, LENGTHS)

  @jax.jit
  def train(state, words):
    return model.apply(
      state, IMAGE, words, LENGTHS, train=True, mutable=["batch_stats"]
    )

  for words in (WORDS, (WORDS + 1) % V):
    (_, captions), changed = train(state, words)
    state = {**state, **changed}
  _, tested = jax.jit(model.apply)(state, IMAGE, words, LENGTHS)
  assert np.isfinite(captions).all() and np.isfinite(tested).all()
  assert not np.allclose(tested, captions, atol=1e-3)


# --- Length 1 ---


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 1e15])
def test_length_is_one_at_any_scale(scale):
  v = jnp.asarray(np.random.default_rng(1).normal(size=(3, 8)) * scale)
  unit = l2_normalised(v)
  np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), 1, rtol=1e-6)
  np.testing.assert_allclose(
    unit, reference.unit(np.asarray(v, np.float64)), rtol=1e-5
  )


def test_zero_stays_zero_and_has_a_finite_gradient():
  v = jnp.zeros((2, 4)).at[1].set(jnp.array([3.0, 0, 4, 0]))
  np.testing.assert_array_equal(
    l2_normalised(v), np.array([[0, 0, 0, 0], [0.6, 0, 0.8, 0]], np.float32)
  )
  slope = jax.grad(lambda v: (l2_normalised(v) * jnp.arange(4.0)).sum())(v)
  assert np.isfinite(slope).all() and (slope[0] == 0).all()


def test_the_gradient_of_length_one_is_tangent(x64):
  v = np.random.default_rng(2).normal(size=(1, 5))
  jacobian = jax.jacrev(lambda v: l2_normalised(v)[0])(v)[:, 0]
  length = np.linalg.norm(v)
  n = v[0] / length
  np.testing.assert_allclose(
    jacobian, (np.eye(5) - np.outer(n, n)) / length, atol=1e-12
  )
