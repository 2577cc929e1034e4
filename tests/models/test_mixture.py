"""The density of a point against scipy, its integral, its edges, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_handwriting
from scipy import stats

from lnrnn.models import mixture


def outputs(m=4, n=5, scale=1.0):
  rng = np.random.default_rng(0)
  return scale * rng.normal(size=(n, mixture.width(m)))


def test_the_density_is_that_of_scipy(x64):
  mix = mixture.mixture(outputs(), min_deviation=0.1)
  x = np.random.default_rng(1).normal(size=(5, 2))
  expected = np.zeros(5)
  for row in range(5):
    for j in range(4):
      s1, s2 = np.asarray(mix.deviation[row, j])
      cross = float(mix.correlation[row, j]) * s1 * s2
      component = stats.multivariate_normal(
        np.asarray(mix.mean[row, j]), [[s1**2, cross], [cross, s2**2]]
      )
      weight = np.exp(float(mix.log_weight[row, j]))
      expected[row] += weight * component.pdf(x[row])
  np.testing.assert_allclose(
    mixture.log_density(mix, x), np.log(expected), rtol=1e-9
  )


def test_the_likelihood_is_that_of_the_equations(x64):
  a = outputs()
  points = np.random.default_rng(1).normal(size=(5, 3))
  points[:, 2] = [0, 1, 0, 1, 1]
  mix = mixture.mixture(a, min_deviation=0.1)
  expected = [
    -references_handwriting.point_loss(row, point, 0.1)
    for row, point in zip(a, points, strict=True)
  ]
  np.testing.assert_allclose(
    mixture.log_likelihood(mix, points), expected, rtol=1e-9
  )


def test_the_density_integrates_to_one(x64):
  mix = mixture.mixture(outputs(n=1, scale=0.7), min_deviation=0.1)
  axis = np.arange(-25, 25, 0.05)
  grid = np.stack(np.meshgrid(axis, axis), axis=-1)[..., None, :]
  density = jnp.exp(jax.jit(mixture.log_density)(mix, grid))
  assert float(density.sum()) * 0.05**2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_no_outputs_make_a_loss_or_gradient_that_is_not_finite(size):
  a = np.float32(outputs(n=50, scale=size))
  points = np.float32(np.random.default_rng(1).normal(size=(50, 3)))
  points[:, 2] = points[:, 2] > 0
  loss = lambda a: mixture.log_likelihood(
    mixture.mixture(a, min_deviation=0.02), points
  ).sum()
  value, gradient = jax.jit(jax.value_and_grad(loss))(a)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_density_has_the_bound_that_the_floor_gives():
  a = np.zeros((1, mixture.width(1)), np.float32)
  a[0, 4:6] = -1e4  # Deviations of 0.
  mix = mixture.mixture(a, min_deviation=0.02)
  top = mixture.log_density(mix, np.zeros((1, 2), np.float32))
  np.testing.assert_allclose(top, -np.log(2 * np.pi * 0.02**2), rtol=1e-5)


def test_samples_have_the_moments_of_the_mixture():
  a = np.float32(outputs(m=2, n=1))
  many = np.repeat(a, 20_000, axis=0)
  mix = mixture.mixture(many, min_deviation=0.1)
  points = np.asarray(jax.jit(mixture.sample)(mix, jax.random.key(0)))
  weight = np.exp(np.asarray(mix.log_weight[0]))
  mean = np.asarray(mix.mean[0])
  s, rho = np.asarray(mix.deviation[0]), np.asarray(mix.correlation[0])
  first = weight @ mean
  second = sum(
    w * (np.outer(m, m) + np.diag(d**2) + r * d.prod() * (1 - np.eye(2)))
    for w, m, d, r in zip(weight, mean, s, rho, strict=True)
  )
  np.testing.assert_allclose(points[:, :2].mean(axis=0), first, atol=0.05)
  np.testing.assert_allclose(
    points[:, :2].T @ points[:, :2] / len(points), second, rtol=0.05, atol=0.05
  )
  expected = 1 / (1 + np.exp(a[0, 0]))
  assert points[:, 2].mean() == pytest.approx(expected, abs=0.02)


def test_a_bias_sharpens_weights_and_deviations():
  a = np.float32(outputs())
  plain = mixture.mixture(a, min_deviation=0.0)
  tidy = mixture.mixture(a, min_deviation=0.0, bias=np.float32([0, 1, 2, 3, 4]))
  np.testing.assert_allclose(
    tidy.deviation,
    plain.deviation * np.exp(-np.arange(5.0))[:, None, None],
    rtol=1e-5,
  )
  np.testing.assert_allclose(tidy.log_weight[0], plain.log_weight[0], rtol=1e-6)
  assert tidy.log_weight[4].max() > plain.log_weight[4].max()
  np.testing.assert_array_equal(tidy.mean, plain.mean)
  np.testing.assert_array_equal(tidy.end, plain.end)
