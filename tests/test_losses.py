"""Cross entropy against hand values and float64, above all where it is tiny."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from lnrnn import losses

hessian = jax.jit(jax.hessian(losses.cross_entropy))
slope_of = jax.jit(jax.value_and_grad(losses.cross_entropy))


def reference(logits, labels):
  """-log softmax at the label, the textbook way, [b, k] float64 -> [b]."""
  top = logits.max(-1, keepdims=True)
  log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(-1))
  return log_sum - np.take_along_axis(logits, labels[:, None], 1)[:, 0]


def draw(shape=(6, 5), scale=3.0, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, shape[-1], shape[:-1])
  return rng.normal(0, scale, shape), labels


def test_cross_entropy_by_hand():
  logits = jnp.log(jnp.array([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]]))
  nats = losses.cross_entropy(logits, jnp.array([2, 0]))
  np.testing.assert_allclose(nats, [np.log(8 / 5), np.log(4)], rtol=1e-6)
  even = losses.cross_entropy(jnp.full((10,), 7.0), jnp.array(3))
  np.testing.assert_allclose(even, np.log(10), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3, 30])
def test_cross_entropy_is_minus_log_softmax(scale):
  logits, labels = draw((64, 10), scale)
  expected = reference(logits, labels)
  narrow = losses.cross_entropy(jnp.asarray(logits, jnp.float32), labels)
  np.testing.assert_allclose(narrow, expected, rtol=1e-4, atol=1e-13)
  with jax.enable_x64(True):
    wide = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    assert wide.dtype == jnp.float64
    # The reference itself loses what is below 1e-14.
    np.testing.assert_allclose(wide, expected, rtol=1e-12, atol=1e-13)


def test_any_number_of_leading_axes_will_do():
  logits, labels = draw((2, 3, 4))
  nats = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
  assert nats.shape == (2, 3)
  flat = reference(logits.reshape(6, 4), labels.reshape(6))
  np.testing.assert_allclose(nats.reshape(6), flat, rtol=1e-5)


@pytest.mark.parametrize("nats", [1e-7, 1e-8, 1e-12, 1e-20, 1e-30, 1e-36])
@pytest.mark.parametrize("others", [1, 9])
def test_what_float32_log_softmax_takes_for_zero_is_resolved(nats, others):
  right = 1.7 + np.log(others / nats)
  logits = jnp.array([right] + [1.7] * others, jnp.float32)
  gaps = np.float64(logits[1:]) - np.float64(logits[0])
  expected = np.log1p(np.exp(gaps).sum())
  got, slope = slope_of(logits, jnp.array(0))
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  np.testing.assert_allclose(got, nats, rtol=1e-4)
  np.testing.assert_allclose(slope[0], -expected, rtol=2e-5)
  np.testing.assert_allclose(slope[1:], expected / others, rtol=2e-5)
  if nats < 2e-8:
    assert jax.nn.log_softmax(logits)[0] == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f", "b"])
def test_extreme_logits_are_exact_and_differentiable(dtype):
  rows = jnp.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [0, 0, -1e4]], dtype)
  labels = jnp.array([1, 1, 0])
  nats = losses.cross_entropy(rows, labels)
  assert nats.dtype == jnp.float32
  expected = [np.float64(rows[0, 0]) - np.float64(rows[0, 1]), 0, np.log(2)]
  np.testing.assert_allclose(nats, expected, rtol=1e-6)
  slope = jax.grad(lambda a: losses.cross_entropy(a, labels).sum())(rows)
  assert slope.dtype == dtype
  np.testing.assert_array_equal(
    slope.astype(jnp.float32), [[1, -1, 0], [0, 0, 0], [-0.5, 0.5, 0]]
  )


def test_bfloat16_logits_give_the_float32_loss():
  logits, labels = draw()
  half = jnp.asarray(logits, jnp.bfloat16)
  np.testing.assert_array_equal(
    losses.cross_entropy(half, labels),
    losses.cross_entropy(half.astype(jnp.float32), labels),
  )


def test_a_shift_of_all_logits_changes_nothing():
  logits = jnp.asarray(np.round(draw()[0]), jnp.float32)
  labels = jnp.array(draw()[1])
  np.testing.assert_array_equal(
    losses.cross_entropy(logits + 1024, labels),
    losses.cross_entropy(logits, labels),
  )


def test_the_gradient_is_softmax_minus_one_hot():
  logits, labels = draw()
  weights = np.random.default_rng(1).normal(size=6)
  with jax.enable_x64(True):
    nats, vjp = jax.vjp(
      lambda a: losses.cross_entropy(a, jnp.asarray(labels)),
      jnp.asarray(logits),
    )
    (slope,) = vjp(jnp.asarray(weights))
    assert nats.dtype == slope.dtype == jnp.float64
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  expected = weights[:, None] * (p - np.eye(5)[labels])
  np.testing.assert_allclose(slope, expected, atol=1e-12)
  differences = np.zeros_like(logits)
  for at in np.ndindex(logits.shape):
    step = np.zeros_like(logits)
    step[at] = 1e-5
    up, down = (
      reference(logits + step, labels),
      reference(logits - step, labels),
    )
    differences[at] = (weights * (up - down)).sum() / 2e-5
  np.testing.assert_allclose(slope, differences, atol=1e-8)


def test_second_derivatives_are_right():
  logits, labels = draw((3, 4))
  with jax.enable_x64(True):
    f = jax.jit(lambda a: losses.cross_entropy(a, jnp.asarray(labels)))
    check_grads(
      f, (jnp.asarray(logits),), order=2, modes=["rev"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("gap", [0.0, 1.0, 40.0, 200.0, 2e4])
@pytest.mark.parametrize("label", [0, 1])
def test_second_derivatives_are_finite_and_p_times_1_minus_p(gap, label):
  logits = jnp.array([gap, 0.0])
  second = hessian(logits, jnp.array(label))
  small = np.exp(-gap) if gap < 87 else 0.0  # Below, float32 has no more.
  expected = small / (1 + small) ** 2
  # Of a hopeless label the slope is 1 - p, and float32 rounds it to 1.
  np.testing.assert_allclose(
    second,
    [[expected, -expected], [-expected, expected]],
    rtol=1e-4,
    atol=1e-7 if label else 1e-38,
  )


def test_a_class_ruled_out_by_minus_infinity_costs_nothing():
  logits, labels = jnp.array([[1.0, -jnp.inf, 3.0]]), jnp.array([0])
  value = lambda a: losses.cross_entropy(a, labels).sum()
  expected = losses.cross_entropy(jnp.array([[1.0, 3.0]]), labels)
  nats, slope = jax.value_and_grad(value)(logits)
  np.testing.assert_allclose(nats, expected[0], rtol=1e-6)
  assert np.isfinite(slope).all() and slope[0, 1] == 0


@pytest.mark.parametrize("label", [0, 1])
def test_nan_is_not_hidden(label):
  nats = losses.cross_entropy(jnp.array([0.0, jnp.nan]), jnp.array(label))
  assert np.isnan(nats)


def test_jit_and_vmap_change_nothing():
  logits, labels = map(jnp.asarray, draw())
  expected = losses.cross_entropy(logits, labels)
  several = jax.jit(jax.vmap(losses.cross_entropy))(logits, labels)
  np.testing.assert_allclose(several, expected, rtol=1e-6)


# --- Order embeddings ---


def test_order_violation_by_hand():
  image = jnp.array([0.5, 0.2, 0.0])
  caption = jnp.array([0.1, 0.5, 0.4])
  # Only where the caption is above: 0.3^2 + 0.4^2; swapped: 0.4^2.
  np.testing.assert_allclose(
    losses.order_violation(image, caption), 0.25, rtol=1e-6
  )
  np.testing.assert_allclose(
    losses.order_violation(caption, image), 0.16, rtol=1e-6
  )
  assert losses.order_violation(image, image / 2) == 0


def test_all_violations_are_those_of_the_pairs():
  rng = np.random.default_rng(0)
  images, captions = rng.random((3, 8)), rng.random((5, 8))
  expected = np.square(np.maximum(captions[None] - images[:, None], 0)).sum(-1)
  found = losses.order_violations(jnp.asarray(images), jnp.asarray(captions))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_violations_have_the_slope_of_the_pairs():
  rng = np.random.default_rng(1)
  args = [jnp.asarray(rng.random(shape)) for shape in ((3, 4), (5, 4))]
  weights = jnp.asarray(rng.normal(size=(3, 5)))
  with jax.enable_x64(True):
    check_grads(
      lambda i, c: (losses.order_violations(i, c) * weights).sum(),
      [np.asarray(a, np.float64) for a in args],
      order=1,
      modes=["rev"],
    )


def test_the_tensor_of_all_pairs_is_not_made():
  b, h = 64, 512
  shape = jax.ShapeDtypeStruct((b, h), jnp.float32)
  slope = jax.grad(
    lambda i, c: losses.contrastive_hinge(losses.order_violations(i, c), 0.05),
    argnums=(0, 1),
  )
  compiled = jax.jit(slope).lower(shape, shape).compile()
  whole = 4 * b * b * h
  assert compiled.memory_analysis().temp_size_in_bytes < whole / 8


def test_contrastive_hinge_by_hand():
  errors = jnp.array([[0.1, 0.3], [0.12, 0.0]])
  # Margin 0.05, captions: (0.1 - 0.3) and (0 - 0.12) leave nothing; images:
  # of caption 0, 0.05 - 0.12 + 0.1 = 0.03; of caption 1, nothing.
  np.testing.assert_allclose(
    losses.contrastive_hinge(errors, 0.05), 0.03, rtol=1e-5
  )
  # All alike: the margin for each wrong pair, both ways, none on the diagonal.
  np.testing.assert_allclose(
    losses.contrastive_hinge(jnp.ones((3, 3)), 0.05), 12 * 0.05, rtol=1e-6
  )
  assert losses.contrastive_hinge(jnp.ones((1, 1)), 0.05) == 0


def test_contrastive_hinge_needs_a_square():
  with pytest.raises(ValueError, match=r"\(2, 3\) must be square"):
    losses.contrastive_hinge(jnp.ones((2, 3)), 0.05)
