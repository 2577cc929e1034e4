"""Selective attention against hand values and NumPy in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import references_draw

from lnrnn.models import glimpse

# Not square, either way round.
SIZES = [(6, 7), (9, 4)]
RAW = [
  [0.0, 0.0, 0.0, 0.0, 0.0],
  [0.3, -0.2, 0.4, -0.7, 0.5],
  [-0.9, 0.8, -0.6, -0.3, -1.2],
]


# What is not compiled as a whole is compiled operation by operation.
_window = jax.jit(glimpse.window, static_argnames=("n", "height", "width"))
_read = jax.jit(glimpse.read, static_argnames="n")
_write = jax.jit(glimpse.write, static_argnames=("height", "width"))


def window(raw, n, height, width):
  return _window(jnp.asarray(raw), n=n, height=height, width=width)


def read(image, w, n):
  return _read(jnp.asarray(image), w, n=n)


def write(patch, w, height, width):
  return _write(jnp.asarray(patch), w, height=height, width=width)


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(0.2, 1, shape)


# --- Values ---


def test_a_filterbank_by_hand():
  # Filters on pixels 1 and 3. A pixel away exp(-1 / (2 variance)) is 1/2, two
  # away its fourth power; 1 + 1/2 + 1/16 = 25/16.
  variance = jnp.array(1 / (2 * math.log(2)))
  two = jnp.array(2.0)
  filters = jax.jit(glimpse.filters, static_argnames=("n", "pixels"))
  got = filters(two, two, variance, n=2, pixels=3)
  expected = np.array([[16, 8, 1], [1, 8, 16]]) / 25
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_read_and_a_write_by_hand():
  w = glimpse.Window(
    x=jnp.array(2.0),
    y=jnp.array(2.0),
    stride=jnp.array(2.0),
    variance=jnp.array(1 / (2 * math.log(2))),
    intensity=jnp.array(5.0),
  )
  # One dot in the first row and the last column, the filterbanks as above.
  image = jnp.zeros((3, 3)).at[0, 2].set(1)
  got = read(image, w, n=2)
  expected = np.outer([16, 1], [1, 16]) / 125
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  patch = jnp.zeros((2, 2)).at[0, 1].set(1)
  got = write(patch, w, height=3, width=3)
  expected = np.outer([16, 8, 1], [1, 8, 16]) / 3125
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("height, width", SIZES)
def test_zeros_ask_for_the_longer_side_from_border_to_border(height, width):
  longer = max(height, width)
  w = window(np.zeros(5), 4, height, width)
  expected = ((width + 1) / 2, (height + 1) / 2, (longer - 1) / 3, 1, 1)
  np.testing.assert_allclose(w, expected, rtol=1e-6)
  assert float(max(w.x, w.y) - 1.5 * w.stride) == pytest.approx(1)
  assert float(max(w.x, w.y) + 1.5 * w.stride) == pytest.approx(longer)


def test_the_five_outputs_stand_in_gregor_s_order():
  raw = np.array([1.0, -1, 2, 3, -4])
  w = window(raw, 5, 3, 9)
  np.testing.assert_allclose(
    [w.x, w.y, w.variance, w.stride, w.intensity],
    [10, 0, math.exp(2), 2 * math.exp(3), math.exp(-4)],
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize("height, width, n", [(6, 7, 3), (9, 4, 2)])
def test_reads_and_writes_agree_with_numpy(height, width, n, x64):
  images = random(len(RAW), height, width)
  patches = random(len(RAW), n, n, seed=1)
  w = window(RAW, n, height, width)
  got = read(images, w, n=n)
  expected = [
    references_draw.read(*case, n) for case in zip(images, RAW, strict=True)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
  got = write(patches, w, height=height, width=width)
  expected = [
    references_draw.write(*case, height, width)
    for case in zip(patches, RAW, strict=True)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


# --- Properties ---


def test_the_filters_of_a_window_inside_sum_to_one():
  banks = jax.jit(glimpse.banks, static_argnames=("n", "height", "width"))
  f_y, f_x = banks(window(RAW, 5, 28, 20), n=5, height=28, width=20)
  assert f_y.shape == (3, 5, 28) and f_x.shape == (3, 5, 20)
  for f in (f_y, f_x):
    assert (f >= 0).all()
    np.testing.assert_allclose(f.sum(axis=-1), 1, atol=1e-3)


def test_no_window_however_far_or_wide_makes_nan():
  image = jnp.asarray(random(28, 20), jnp.float32)

  def run(raw):
    w = glimpse.window(raw, n=3, height=28, width=20)
    patch = glimpse.read(image, w, n=3)
    drawn = glimpse.write(jnp.ones((3, 3)), w, height=28, width=20)
    rows = [f.sum(axis=-1) for f in glimpse.banks(w, n=3, height=28, width=20)]
    return patch.sum() + drawn.sum(), (patch, drawn, rows)

  every = jax.jit(jax.vmap(jax.grad(run, has_aux=True)))
  for big in (3.0, 1e3):
    raw = np.stack(np.meshgrid(*[[-big, 0, big]] * 5), axis=-1).reshape(-1, 5)
    gradients, (patch, drawn, rows) = every(jnp.asarray(raw, jnp.float32))
    for v in (gradients, patch, drawn):
      assert np.isfinite(v).all()
    for v in rows:
      np.testing.assert_allclose(v, 1, atol=1e-3)


def test_a_fine_window_of_stride_one_reads_the_very_pixels():
  image = jnp.asarray(random(9, 8), jnp.float32)
  # Centred between pixels 3 and 6 of the columns, on pixel 5 of the rows.
  w = glimpse.Window(*map(jnp.array, (4.5, 5.0, 1.0, 1e-3, 1.0)))
  got = read(image, w._replace(y=jnp.array(5.5)), n=4)
  np.testing.assert_allclose(got, image[3:7, 2:6], rtol=1e-6)
  got = read(image, w._replace(x=jnp.array(4.0)), n=3)
  np.testing.assert_allclose(got, image[3:6, 2:5], rtol=1e-6)
  drawn = write(got, w._replace(x=jnp.array(4.0)), height=9, width=8)
  expected = np.zeros((9, 8))
  expected[3:6, 2:5] = got
  np.testing.assert_allclose(drawn, expected, rtol=1e-6)


@pytest.mark.parametrize("height, width", SIZES)
def test_to_write_is_the_transpose_of_to_read(height, width, x64):
  raw = np.array(RAW)
  raw[:, 4] = 0  # Where gamma is not 1, read and write undo each other's.
  w = window(raw, 3, height, width)
  x, p = random(3, height, width), random(3, 3, 3, seed=1)
  seen = read(x, w, n=3)
  written = write(p, w, height=height, width=width)
  np.testing.assert_allclose(
    (p * seen).sum(axis=(1, 2)), (written * x).sum(axis=(1, 2)), rtol=1e-12
  )


def test_gamma_multiplies_what_is_read_and_divides_what_is_written(x64):
  raw = np.array(RAW)
  plain = window(raw * [1, 1, 1, 1, 0], 2, 6, 7)
  strong = plain._replace(intensity=jnp.full(3, 4.0))
  x, p = jnp.asarray(random(3, 6, 7)), jnp.asarray(random(3, 2, 2))
  np.testing.assert_allclose(
    read(x, strong, n=2), 4 * read(x, plain, n=2), rtol=1e-12
  )
  drawn = lambda w: write(p, w, height=6, width=7)
  np.testing.assert_allclose(drawn(strong), drawn(plain) / 4, rtol=1e-12)


def test_several_images_through_one_window_are_as_one_by_one(x64):
  w = window(RAW, 3, 6, 7)
  both = random(2, len(RAW), 6, 7)
  got = read(both, w, n=3)
  assert got.shape == (2, len(RAW), 3, 3)
  for image, patch in zip(both, got, strict=True):
    np.testing.assert_allclose(patch, read(image, w, n=3), rtol=1e-12)


def test_float32_stays_float32(x64):
  like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  w = jax.eval_shape(lambda raw: window(raw, 3, 6, 7), like(3, 5))
  assert {v.dtype for v in w} == {jnp.dtype("float32")}
  patch = jax.eval_shape(lambda *args: _read(*args, n=3), like(3, 6, 7), w)
  drawn = jax.eval_shape(lambda *args: write(*args, 6, 7), patch, w)
  assert patch.dtype == drawn.dtype == jnp.float32


# --- Derivatives ---


def test_gradients_are_the_finite_differences_of_numpy(x64):
  read = lambda x, raw: _read(x, _window(raw, n=3, height=6, width=7), n=3)
  write = lambda x, raw: _write(
    x, _window(raw, n=3, height=6, width=7), height=6, width=7
  )
  cases = [
    (read, lambda x, raw: references_draw.read(x, raw, 3), (6, 7), (3, 3)),
    (write, lambda x, raw: references_draw.write(x, raw, 6, 7), (3, 3), (6, 7)),
  ]
  for ours, reference, shape, out in cases:
    x, cotangent = random(*shape), random(*out, seed=1)
    vjp = jax.jit(lambda x, raw, f=ours, c=cotangent: jax.vjp(f, x, raw)[1](c))
    for raw in np.array(RAW):
      got = vjp(x, raw)
      expected = references.central_differences(reference, (x, raw), cotangent)
      for g, e in zip(got, expected, strict=True):
        assert np.abs(e).max() > 1e-2
        np.testing.assert_allclose(g, e, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [2, 5])
def test_windows_at_every_corner_of_their_range_are_finite(n):
  values = [-10.0, 0.0, 3.61, 10.0]
  places = [-50.0, 0.0, 0.3, 50.0]
  raw = np.float32(
    [
      (x, y, *logs)
      for x, y in zip(places, places[::-1], strict=True)
      for logs in itertools.product(values, repeat=3)
    ]
  )
  image = np.float32(np.random.default_rng(0).random((28, 28)))

  def total(raw):
    w = glimpse.window(raw, n=n, height=28, width=28)
    seen = glimpse.read(jnp.broadcast_to(image, (len(raw), 28, 28)), w, n=n)
    drawn = glimpse.write(seen[:, :n, :n], w, height=28, width=28)
    return jnp.tanh(seen).sum() + jnp.tanh(drawn).sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(raw)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  w = glimpse.window(raw, n=n, height=28, width=28)
  for bank in jax.jit(lambda w: glimpse.banks(w, n=n, height=28, width=28))(w):
    np.testing.assert_allclose(bank.sum(axis=-1), 1, rtol=1e-5)
