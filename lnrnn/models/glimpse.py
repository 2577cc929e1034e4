"""Selective attention of DRAW: a grid of Gaussian filters on an image.

Coordinates are Gregor's: pixels count from 1, x to the right along the last
axis of an image, y down along the one before it.

Source: Gregor et al. 2015, section 3.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Strides, variances and intensities stay within exp(+-10), far beyond what is
# of use, so that nothing overflows.
_BOUND = 10.0


class Window(NamedTuple):
  """Where n x n filters lie on an image, each field [...].

  Attributes:
    x: of the centre, in pixels from 1.
    y: of the centre, in pixels from 1.
    stride: distance between neighbouring filters, in pixels.
    variance: of each filter, in squared pixels.
    intensity: gamma; what is read is multiplied by it, what is written is
      divided by it.
  """

  x: jax.Array
  y: jax.Array
  stride: jax.Array
  variance: jax.Array
  intensity: jax.Array


def window(a: jax.Array, *, n: int, height: int, width: int) -> Window:
  """The window that five outputs of the decoder ask for.

  Args:
    a: [..., 5] gx~, gy~, log variance, log stride~, log gamma; the last three
      count between -10 and 10.
    n: filters along each axis, 2 or more.
    height: B, of the image, in pixels.
    width: A, of the image, in pixels.

  Returns:
    The window. For zeros it is centred, and its outer filters stand on the
    border pixels of the image's longer side.

  Source: Gregor et al. 2015, eqs. (21)-(24).
  """
  gx, gy, *logs = jnp.moveaxis(a, -1, 0)
  variance, stride, gamma = (
    jnp.exp(jnp.clip(v, -_BOUND, _BOUND)) for v in logs
  )
  return Window(
    x=(width + 1) / 2 * (gx + 1),
    y=(height + 1) / 2 * (gy + 1),
    stride=(max(width, height) - 1) / (n - 1) * stride,
    variance=variance,
    intensity=gamma,
  )


def filters(
  centre: jax.Array,
  stride: jax.Array,
  variance: jax.Array,
  *,
  n: int,
  pixels: int,
) -> jax.Array:
  """The filterbank along one axis, F_X or F_Y.

  Args:
    centre: [...] of the window, in pixels from 1.
    stride: [...] between neighbouring filters, in pixels.
    variance: [...] of a filter, in squared pixels.
    n: number of filters.
    pixels: number of pixels.

  Returns:
    [..., n, pixels]; each row sums to one, and outside the image has its
    weight on the border.

  Source: Gregor et al. 2015, eqs. (19), (20) and (25), (26).
  """
  # Eq. (19) counts filters from 1: the first lies n / 2 - 1/2 strides before
  # the centre.
  offsets = jnp.arange(n, dtype=stride.dtype) - (n - 1) / 2
  means = centre[..., None] + offsets * stride[..., None]
  at = jnp.arange(1, pixels + 1, dtype=means.dtype)
  # Z of eqs. (25), (26) makes it a softmax, which cannot divide 0 by 0. It is
  # taken from the nearest pixel on: (a - m)^2 - (k - m)^2 in factors, as far
  # away both squares are so large that their difference would be rounding.
  nearest = jax.lax.stop_gradient(jnp.clip(jnp.round(means), 1, pixels))
  k, m = nearest[..., None], means[..., None]
  logits = -(at - k) * (at + k - 2 * m) / (2 * variance[..., None, None])
  heights = jnp.exp(logits)
  return heights / heights.sum(axis=-1, keepdims=True)


def banks(
  w: Window, *, n: int, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
  """The filterbanks F_Y [..., n, height] and F_X [..., n, width]."""
  return (
    filters(w.y, w.stride, w.variance, n=n, pixels=height),
    filters(w.x, w.stride, w.variance, n=n, pixels=width),
  )


def read(image: jax.Array, w: Window, *, n: int) -> jax.Array:
  """What the window sees: gamma F_Y x F_X^T.

  Args:
    image: [..., height, width]; axes before those of the window are allowed,
      so that several images are seen through one window.
    w: fields [...].
    n: filters along each axis.

  Returns:
    [..., n, n].

  Source: Gregor et al. 2015, eq. (27).
  """
  height, width = image.shape[-2:]
  f_y, f_x = banks(w, n=n, height=height, width=width)
  patch = f_y @ image @ f_x.swapaxes(-1, -2)
  return w.intensity[..., None, None] * patch


def write(patch: jax.Array, w: Window, *, height: int, width: int) -> jax.Array:
  """What a patch adds to the canvas: F_Y^T patch F_X / gamma.

  Args:
    patch: [..., n, n].
    w: fields [...].
    height: of the canvas, in pixels.
    width: of the canvas, in pixels.

  Returns:
    [..., height, width].

  Source: Gregor et al. 2015, eq. (29).
  """
  f_y, f_x = banks(w, n=patch.shape[-1], height=height, width=width)
  patch = patch / w.intensity[..., None, None]
  return f_y.swapaxes(-1, -2) @ patch @ f_x
