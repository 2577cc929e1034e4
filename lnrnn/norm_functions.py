"""The equations of layer, batch, weight and RMS normalisation.

Pure functions on arrays; `lnrnn.norms` has the modules that own gain and bias.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Affine(NamedTuple):
  """Gain and bias of one normaliser."""

  gain: jax.Array  # [n]
  bias: jax.Array | None  # [n]; None is zero


class Moments(NamedTuple):
  """Mean and variance of each summed input over the cases of a batch."""

  mean: jax.Array  # [n]
  var: jax.Array  # [n]


def widened(a: jax.Array) -> jax.Array:
  """In float32 or wider, as statistics and what is added up are."""
  return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _scaled(
  a: jax.Array, axes: tuple[int, ...], eps: float, centre: bool
) -> tuple[jax.Array, ...]:
  """`standardised` and the factor 1 / sqrt(variance + eps) in it."""
  mean = functools.partial(jnp.mean, axis=axes, keepdims=True)
  if not centre:
    scale = jax.lax.rsqrt(mean(jnp.square(a)) + eps)
    return a * scale, scale
  centred = a - mean(a)
  # A mean of 1e4 is itself rounded, by up to 5e-4: what it left comes out
  # here. The variance is of `centred`: E[a^2] - E[a]^2 would cancel.
  rest = mean(centred)
  var = mean(jnp.square(centred)) - jnp.square(rest)
  scale = jax.lax.rsqrt(jnp.maximum(var, 0) + eps)
  return (centred - rest) * scale, scale


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def standardised(
  a: jax.Array, axes: tuple[int, ...], eps: float, centre: bool
) -> jax.Array:
  """Divides by the root of the mean square, after taking out the mean.

  Args:
    a: of any shape; float32 or wider.
    axes: of `a` that the means are over.
    eps: added to the mean square, in squared units of `a`.
    centre: whether the mean is taken out first.

  Returns:
    The like of `a`.
  """
  return _scaled(a, axes, eps, centre)[0]


@standardised.defjvp
def _standardised_jvp(axes, eps, centre, primals, tangents):
  # In this form the way back needs two sums over a row. JAX's own derivative
  # of the lines above needs more, and recurrent layers spend their time there.
  (a,), (d,) = primals, tangents
  n, scale = _scaled(a, axes, eps, centre)
  mean = functools.partial(jnp.mean, axis=axes, keepdims=True)
  d_centred = d - mean(d) if centre else d
  return n, scale * (d_centred - n * mean(n * d))


def affine_of(n, gain, bias, dtype) -> jax.Array:
  """Applies gain and bias; in `dtype`, unless that has integers alone."""
  y = n * gain if bias is None else n * gain + bias
  return y.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else y


def layer_norm(
  a: jax.Array, gain: jax.Array, bias: jax.Array | None, *, eps: float = 1e-5
) -> jax.Array:
  """Normalises the summed inputs of one layer, each case by itself.

  Args:
    a: [..., h] summed inputs, h > 1.
    gain: [h] gain g.
    bias: [h] bias b; None is zero.
    eps: added to the variance, in squared units of `a`; the paper has none,
      the authors' code 1e-5.

  Returns:
    [..., h] normalised inputs, in the dtype of `a`.

  Raises:
    ValueError: for h = 1, where the result would be `bias` whatever `a` is.

  Source: Ba et al. 2016, eq. (3); the variance divides by h.
  """
  if a.shape[-1] == 1:
    raise ValueError(
      "layer norm over one unit is the constant `bias`; it needs at least 2"
    )
  n = standardised(widened(a), (-1,), eps, True)
  return affine_of(n, gain, bias, a.dtype)


def rms_norm(
  a: jax.Array, gain: jax.Array, bias: jax.Array | None, *, eps: float = 1e-5
) -> jax.Array:
  """Divides the summed inputs of each case by their root mean square.

  Layer norm without re-centring; not in the paper, kept beside it.

  Args:
    a: [..., h] summed inputs.
    gain: [h] gain g.
    bias: [h] bias b, which Zhang & Sennrich leave out; here so that the norms
      differ in the normalisation alone. None is zero.
    eps: added to the mean square, in squared units of `a`.

  Returns:
    [..., h] normalised inputs, in the dtype of `a`.

  Source: Zhang & Sennrich 2019, eq. (4).
  """
  n = standardised(widened(a), (-1,), eps, False)
  return affine_of(n, gain, bias, a.dtype)


def batch_moments(
  a: jax.Array, *, live: jax.Array | None = None, unbiased: bool = False
) -> Moments:
  """Mean and variance of each unit over all the cases of a minibatch.

  Args:
    a: [..., n] summed inputs; every axis but the last counts cases.
    live: [...] booleans of the cases that count; None for all.
    unbiased: divide the sum of squares by cases - 1 instead of cases, as the
      paper does where the batch is small (section 6.6); not with `live`.

  Returns:
    Moments of [n], float32 or wider; zero where no case counts.

  Raises:
    ValueError: for a single case, whose variance is zero.

  Source: Ioffe & Szegedy 2015, algorithm 1; Ba et al. 2016, eq. (2).
  """
  cases = math.prod(a.shape[:-1])
  if cases < 2:
    raise ValueError(
      "statistics over a minibatch need at least 2 cases: the variance over"
      f" {cases} is zero"
    )
  axes = tuple(range(a.ndim - 1))
  wide = widened(a)
  if live is None:
    average = lambda v: v.mean(axis=axes)
  else:
    # Selected, not multiplied: 0 * inf is no number.
    count = jnp.maximum(live.sum(), 1).astype(wide.dtype)
    over = live[..., None]
    average = lambda v: jnp.where(over, v, 0).sum(axis=axes) / count
    wide = jnp.where(over, wide, 0)
  mean = average(wide)
  centred = wide - mean
  # What a sum of many large numbers has lost comes out here.
  rest = average(centred)
  var = average(jnp.square(centred)) - jnp.square(rest)
  var = jnp.maximum(var, 0) * (cases / (cases - 1) if unbiased else 1)
  return Moments(mean + rest, var)


def running_average(
  old: jax.Array, new: jax.Array, seen: jax.Array, momentum: float
) -> jax.Array:
  """Takes the statistics of one more minibatch into an average.

  It is the plain mean of the minibatches until that many have been seen, and
  exponential from then on, so that no initial value has to be forgotten.

  Args:
    old: the average of `seen` - 1 minibatches.
    new: the statistics of this one.
    seen: how many there are now, this one counted.
    momentum: weight of the past, in [0, 1).

  Returns:
    The average of `seen` minibatches, in the dtype of `old`.
  """
  weight = jnp.maximum(1 - momentum, 1 / seen.astype(old.dtype))
  return (1 - weight) * old + weight * new


def batch_norm(
  a: jax.Array,
  gain: jax.Array,
  bias: jax.Array | None,
  moments: Moments,
  *,
  eps: float = 1e-5,
) -> jax.Array:
  """Normalises each summed input by moments taken over many cases.

  Args:
    a: [..., n] summed inputs.
    gain: [n] gain g.
    bias: [n] bias b; None is zero.
    moments: [n] each: of the minibatch in training (`batch_moments`), running
      averages of those at test.
    eps: added to the variance, in squared units of `a`.

  Returns:
    [..., n] normalised inputs, in the dtype of `a`.

  Source: Ioffe & Szegedy 2015, algorithms 1 and 2; Ba et al. 2016, eq. (2).
  """
  y = (widened(a) - moments.mean) * jax.lax.rsqrt(moments.var + eps)
  return affine_of(y, gain, bias, a.dtype)


def direction_norm(v: jax.Array) -> jax.Array:
  """Length of each unit's weight vector, [..., n] -> [n], float32 or wider."""
  axes = tuple(range(v.ndim - 1))
  square = jnp.square(widened(v)).sum(axis=axes)
  # The paper has no epsilon. The floor keeps a zero vector's value (zero) and
  # gradient finite and touches no vector longer than 1e-12.
  return jnp.sqrt(jnp.maximum(square, 1e-24))


def weight_norm(v: jax.Array, gain: jax.Array) -> jax.Array:
  """Weights of length |gain| along the directions v.

  Args:
    v: [..., n] directions, one for each of the n units of the last axis.
    gain: [n] length g of each unit's weight vector.

  Returns:
    [..., n] weights g v / ||v||, in the dtype of `v`.

  Source: Salimans & Kingma 2016, eq. (2).
  """
  return (widened(v) * (gain / direction_norm(v))).astype(v.dtype)
