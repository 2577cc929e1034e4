"""The soft window of handwriting synthesis: where in a text the pen is.

Characters count from 1.

Source: Graves 2013, section 5.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Exponents stay within it, so that nothing overflows.
_BOUND = 10.0


class Window(NamedTuple):
  """K Gaussians over the characters, each field [..., K].

  Attributes:
    weight: alpha, importance of each.
    sharpness: beta; a Gaussian's variance is 1 / (2 beta) squared characters.
    place: kappa, centres in characters; they only move on.
  """

  weight: jax.Array
  sharpness: jax.Array
  place: jax.Array


def window(a: jax.Array, place: jax.Array) -> Window:
  """The window that a network's outputs stand for.

  Args:
    a: [..., 3K]: weights, sharpnesses and steps, before the exponential; they
      count between -10 and 10.
    place: [..., K] of the step before.

  Returns:
    The window.

  Source: Graves 2013, eqs. (48)-(51).
  """
  bounded = jnp.exp(jnp.clip(a, -_BOUND, _BOUND))
  weight, sharpness, step = jnp.split(bounded, 3, axis=-1)
  return Window(weight, sharpness, place + step)


def attention(w: Window, n: int) -> jax.Array:
  """How much each of the characters 1 to n is seen, phi [..., n].

  Source: Graves 2013, eq. (46).
  """
  characters = jnp.arange(1, n + 1, dtype=w.place.dtype)
  squares = jnp.square(w.place[..., None] - characters)
  heights = jnp.exp(-w.sharpness[..., None] * squares)
  return (w.weight[..., None] * heights).sum(axis=-2)
