"""The soft window against NumPy, and what holds of it."""

import jax
import numpy as np
import references_handwriting

from lnrnn.models import soft_window


def test_the_window_is_that_of_the_equations(x64):
  rng = np.random.default_rng(0)
  raw, place = rng.normal(size=(3, 12)), rng.uniform(0, 5, (3, 4))
  w = soft_window.window(raw, place)
  weight, sharpness, step = np.split(np.exp(raw), 3, axis=1)
  np.testing.assert_allclose(w.place, place + step, rtol=1e-12)
  np.testing.assert_allclose(
    soft_window.attention(w, 6),
    references_handwriting.attention(weight, sharpness, place + step, 6),
    rtol=1e-9,
  )


def test_the_window_only_moves_on():
  raw = np.random.default_rng(0).normal(scale=50, size=(20, 3)).astype("f")
  place = np.zeros((20, 1), np.float32)
  w = soft_window.window(raw, place)
  assert (w.place > place).all() and np.isfinite(w.place).all()


def test_a_sharp_gaussian_sees_the_character_it_stands_on():
  raw = np.float32([[0, 3, np.log(3)]])
  w = soft_window.window(raw, np.zeros((1, 1), np.float32))
  phi = soft_window.attention(w, 5)
  np.testing.assert_allclose(phi, [[0, 0, 1, 0, 0]], atol=1e-5)


def test_gradients_are_finite_however_large_the_outputs():
  raw = np.random.default_rng(0).normal(scale=100, size=(9, 6)).astype("f")

  def total(raw):
    w = soft_window.window(raw, np.full((9, 2), 700.0, np.float32))
    return soft_window.attention(w, 5).sum()

  value, gradient = jax.value_and_grad(total)(raw)
  assert np.isfinite(value) and np.isfinite(gradient).all()
