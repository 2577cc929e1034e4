"""The convnet in NumPy, from the papers' equations; knows no lnrnn.

Parameters are named as in the model. All is holomorphic but for the kinks of
leaky ReLU and pooling, which look at real parts, so that a complex step gives
derivatives to the last bit (Squire & Trapp 1998).
"""

from typing import Any, NamedTuple

import drawn_variables
import jax
import numpy as np

EPS = 1e-5


def convolved(x, kernel, padding):
  """[b, h, w, d] by [k, k, d, n]; "zero", "circular" or "valid"."""
  side = len(kernel)
  reach = 0 if padding == "valid" else side // 2
  wide = ((0, 0), (reach, reach), (reach, reach), (0, 0))
  x = np.pad(x, wide, mode="wrap" if padding == "circular" else "constant")
  h, w = x.shape[1] - side + 1, x.shape[2] - side + 1
  y = 0
  for i in range(side):
    for j in range(side):
      y = y + x[:, i : i + h, j : j + w] @ kernel[i, j]
  return y


def standardised(a, *, groups=1, border=0, centre=True, eps=EPS):
  """Each case and group of channels by the statistics of its interior."""
  b, h, w, c = a.shape
  y = np.zeros_like(a)
  for case in range(b):
    for group in np.split(np.arange(c), groups):
      inside = a[case, border : h - border, border : w - border, group]
      mean = inside.mean() if centre else 0
      var = ((inside - mean) ** 2).mean()
      y[case][:, :, group] = (a[case][:, :, group] - mean) / np.sqrt(var + eps)
  return y


def over_channels(a, *, centre=True, eps=EPS):
  """Each place by itself."""
  mean = a.mean(axis=3, keepdims=True) if centre else 0
  var = ((a - mean) ** 2).mean(axis=3, keepdims=True)
  return (a - mean) / np.sqrt(var + eps)


def moments_of(a):
  """Mean and variance of each channel over all cases and places."""
  mean = a.mean(axis=(0, 1, 2))
  return {"mean": mean, "var": ((a - mean) ** 2).mean(axis=(0, 1, 2))}


def leaky_relu(a, slope):
  return np.where(a.real > 0, a, slope * a)


def pooled(x):
  """The largest of each whole 2 x 2 places, one place after the other."""
  b, h, w, c = x.shape
  y = np.zeros((b, h // 2, w // 2, c), x.dtype)
  for i in range(h // 2):
    for j in range(w // 2):
      four = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(b, 4, c)
      best = four.real.argmax(axis=1)[:, None]
      y[:, i, j] = np.take_along_axis(four, best, axis=1)[:, 0]
  return y


class Passed(NamedTuple):
  """What one pass through the network makes."""

  logits: Any  # [b, classes]
  inputs: list  # Of each non-linearity.
  moments: dict  # Of each layer's summed inputs.


def network(
  params,
  x,
  *,
  norm,
  depth,
  padding="zero",
  slope=0.1,
  form="units",
  groups=1,
  border=0,
  eps=EPS,
  stats=None,
):
  """The whole network; batch norm by the minibatch where `stats` is None."""
  layers = [name for name in params if name.startswith("conv_")]
  inputs, moments = [], {}
  for i in range(len(layers)):
    p = params[f"conv_{i}"]
    kernel, affine = p["layer"]["kernel"], p.get("norm")
    padded = i < len(layers) - 3
    if norm == "weight":
      length = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
      kernel = affine["gain"] * kernel / length
    a = convolved(x, kernel, padding if padded else "valid")
    moments[f"conv_{i}"] = moments_of(a)
    if norm == "none":
      a = a + p["layer"]["bias"]
    elif norm == "weight":
      a = a + affine["bias"]
    else:
      if norm == "batch":
        own = stats[f"conv_{i}"]["norm"] if stats else moments[f"conv_{i}"]
        a = (a - own["mean"]) / np.sqrt(own["var"] + eps)
      elif norm == "group":
        a = standardised(a, groups=groups, eps=eps)
      elif form == "channels":
        a = over_channels(a, centre=norm == "layer", eps=eps)
      else:
        a = standardised(a, border=border, centre=norm == "layer", eps=eps)
      a = a * affine["gain"] + affine["bias"]
    inputs.append(a)
    x = leaky_relu(a, slope)
    if padded and (i + 1) % depth == 0:
      x = pooled(x)
  out = params["output"]
  logits = x.mean(axis=(1, 2)) @ out["kernel"] + out["bias"]
  return Passed(logits, inputs, moments)


def cross_entropy(logits, labels):
  """[b] nats."""
  top = logits.max(axis=1, keepdims=True)
  total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
  return total - logits[np.arange(len(labels)), labels]


def complex_slopes(value, params, step=1e-30):
  """Slopes of a holomorphic function along a random direction of each tensor.

  Yields:
    (name, direction, slope).
  """
  rng = np.random.default_rng(1)
  leaves, structure = jax.tree.flatten(params)
  names = drawn_variables.paths(params)
  for i, (leaf, name) in enumerate(zip(leaves, names, strict=True)):
    direction = rng.normal(size=leaf.shape)
    moved = [*leaves]
    moved[i] = leaf + 1j * step * direction
    yield name, direction, value(structure.unflatten(moved)).imag / step
