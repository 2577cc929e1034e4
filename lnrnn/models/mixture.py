"""A mixture of bivariate Gaussians, and whether the pen is lifted.

Source: Graves 2013, section 4.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Correlations stay within it, so that no Gaussian becomes a line.
MAX_CORRELATION = 0.999
# Deviations stay below exp of it, in units of the data: no overflow.
_MAX_LOG_DEVIATION = 10.0


class Mixture(NamedTuple):
  """What is predicted of the next point; m components.

  Attributes:
    log_weight: [..., m], sums to one as exponentials.
    mean: [..., m, 2] of the offset.
    deviation: [..., m, 2] of the offset.
    correlation: [..., m] of its two parts.
    end: [...] log-odds that a stroke ends with the point.
  """

  log_weight: jax.Array
  mean: jax.Array
  deviation: jax.Array
  correlation: jax.Array
  end: jax.Array


def width(m: int) -> int:
  """How many outputs describe a mixture of m components."""
  return 6 * m + 1


def mixture(
  a: jax.Array, *, min_deviation: float, bias: jax.Array | float = 0.0
) -> Mixture:
  """The mixture that a network's outputs stand for.

  Args:
    a: [..., 6m + 1]: end, then m weights, 2m means (of dx, then of dy), 2m
      deviations likewise and m correlations, before their nonlinearities.
    min_deviation: added to every deviation, in units of the data. Without it
      the density of data on a grid has no bound.
    bias: above 0, samples are tidier: broad components and small weights
      shrink. [...] or a number.

  Returns:
    The mixture.

  Source: Graves 2013, eqs. (18)-(22), and (61), (62) for the bias.
  """
  m = (a.shape[-1] - 1) // 6
  cuts = [1, 1 + m, 1 + 3 * m, 1 + 5 * m]
  end, weight, mean, deviation, correlation = jnp.split(a, cuts, axis=-1)
  bias = jnp.asarray(bias, a.dtype)[..., None]
  pairs = lambda v: jnp.stack(jnp.split(v, 2, axis=-1), axis=-1)
  log_deviation = pairs(deviation) - bias[..., None]
  return Mixture(
    log_weight=jax.nn.log_softmax(weight * (1 + bias)),
    mean=pairs(mean),
    deviation=min_deviation
    + jnp.exp(jnp.minimum(log_deviation, _MAX_LOG_DEVIATION)),
    correlation=MAX_CORRELATION * jnp.tanh(correlation),
    end=-end[..., 0],  # Eq. (18) has 1 / (1 + exp(e)).
  )


def log_density(mix: Mixture, offset: jax.Array) -> jax.Array:
  """The logarithm of p, of an offset.

  Args:
    mix: of fields [..., m] and [..., m, 2].
    offset: [..., 2].

  Returns:
    [...] in nats, of the density by the units of the data.

  Source: Graves 2013, eqs. (23)-(25).
  """
  d = (offset[..., None, :] - mix.mean) / mix.deviation
  rho = mix.correlation
  free = 1 - jnp.square(rho)
  z = jnp.square(d).sum(axis=-1) - 2 * rho * d[..., 0] * d[..., 1]
  log_norm = jnp.log(2 * jnp.pi) + jnp.log(free) / 2
  log_norm += jnp.log(mix.deviation).sum(axis=-1)
  return jax.nn.logsumexp(mix.log_weight - z / (2 * free) - log_norm, axis=-1)


def log_likelihood(mix: Mixture, point: jax.Array) -> jax.Array:
  """The logarithm of p, of points.

  Args:
    mix: of fields [..., m] and [..., m, 2].
    point: [..., 3] offset, and 1 where a stroke ends.

  Returns:
    [...] in nats.

  Source: Graves 2013, eq. (26), with the sign turned.
  """
  ends = point[..., 2]
  log_end = ends * mix.end - jax.nn.softplus(mix.end)
  return log_density(mix, point[..., :2]) + log_end


def sample(mix: Mixture, key: jax.Array) -> jax.Array:
  """Draws a point [..., 3] from each mixture."""
  which, normal, lift = jax.random.split(key, 3)
  chosen = jax.random.categorical(which, mix.log_weight)[..., None]
  pick = lambda v: jnp.take_along_axis(v, chosen, axis=-1)[..., 0]
  rho = pick(mix.correlation)
  u, v = jnp.moveaxis(
    jax.random.normal(normal, (*rho.shape, 2), rho.dtype), -1, 0
  )
  unit = jnp.stack([u, rho * u + jnp.sqrt(1 - jnp.square(rho)) * v], axis=-1)
  at = [
    jnp.stack([pick(part[..., 0]), pick(part[..., 1])], axis=-1)
    for part in (mix.mean, mix.deviation)
  ]
  ends = jax.random.bernoulli(lift, jax.nn.sigmoid(mix.end))
  return jnp.concatenate(
    [at[0] + at[1] * unit, ends[..., None].astype(rho.dtype)], axis=-1
  )
