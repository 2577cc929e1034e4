"""Table 1: what a normalised network's outputs do not depend on.

The networks have two normalised layers and a linear one. What is transformed
are the weights of the first layer, or the inputs.
"""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import norms

NORMS = ("batch", "weight", "layer", "rms", "none")


class Layer(NamedTuple):
  """One layer, h units."""

  w: jax.Array  # [d, h], a column for each unit's weight vector w_i
  gain: jax.Array  # [h]
  bias: jax.Array  # [h]


class Network(NamedTuple):
  """Two normalised layers and the weights of a linear one."""

  first: Layer
  second: Layer
  out: jax.Array  # [h, k]


class Draw(NamedTuple):
  """A network, inputs, and what they are transformed by."""

  network: Network
  x: jax.Array  # [n, d]
  factor: jax.Array  # [] positive, and not near 1
  shift: jax.Array  # [d]


Transformation = Callable[[Draw], Draw]


def _weights(change: Callable[[jax.Array, Draw], jax.Array]) -> Transformation:
  """A transformation of the first layer's weights [d, h]."""

  def transform(draw: Draw) -> Draw:
    first = draw.network.first
    first = first._replace(w=change(first.w, draw))
    return draw._replace(network=draw.network._replace(first=first))

  return transform


# The columns of Table 1.
TRANSFORMATIONS: Mapping[str, Transformation] = {
  "weight matrix re-scaling": _weights(lambda w, draw: w * draw.factor),
  # W' = W + 1 gamma^T (eq. 6): all weight vectors get the same addition.
  "weight matrix re-centering": _weights(
    lambda w, draw: w + draw.shift[:, None]
  ),
  "weight vector re-scaling": _weights(
    lambda w, draw: w.at[:, 0].multiply(draw.factor)
  ),
  "dataset re-scaling": lambda draw: draw._replace(x=draw.x * draw.factor),
  "dataset re-centering": lambda draw: draw._replace(x=draw.x + draw.shift),
  "single case re-scaling": lambda draw: draw._replace(
    x=draw.x.at[0].multiply(draw.factor)
  ),
}

# The cells in which Table 1 says "invariant"; RMS norm's are not the paper's.
INVARIANT: Mapping[str, frozenset[str]] = {
  "batch": frozenset(
    {
      "weight matrix re-scaling",
      "weight vector re-scaling",
      "dataset re-scaling",
      "dataset re-centering",
    }
  ),
  "weight": frozenset({"weight matrix re-scaling", "weight vector re-scaling"}),
  "layer": frozenset(
    {
      "weight matrix re-scaling",
      "weight matrix re-centering",
      "dataset re-scaling",
      "single case re-scaling",
    }
  ),
  "rms": frozenset(
    {
      "weight matrix re-scaling",
      "dataset re-scaling",
      "single case re-scaling",
    }
  ),
  "none": frozenset(),
}


def normalised(
  norm: str, x: jax.Array, layer: Layer, *, eps: float = 0.0
) -> jax.Array:
  """What the non-linearity of a layer gets: g/sigma (a - mu) + b.

  Args:
    norm: one of `NORMS`.
    x: [n, d] the layer's inputs.
    layer: of h units; no norm has no gain.
    eps: of batch, layer and RMS norm.

  Returns:
    [n, h].

  Source: Ba et al. 2016, section 5.1; batch norm by the statistics of all n
  cases.
  """
  w, gain, bias = layer
  if norm == "weight":
    return x @ norms.weight_norm(w, gain) + bias
  a = x @ w
  if norm == "none":
    return a + bias
  if norm == "batch":
    return norms.batch_norm(a, gain, bias, norms.batch_moments(a), eps=eps)
  over_units = {"layer": norms.layer_norm, "rms": norms.rms_norm}[norm]
  return over_units(a, gain, bias, eps=eps)


def outputs(
  norm: str, network: Network, x: jax.Array, *, eps: float = 0.0
) -> jax.Array:
  """The network's outputs, [n, d] -> [n, k]."""
  h = jnp.tanh(normalised(norm, x, network.first, eps=eps))
  h = jnp.tanh(normalised(norm, h, network.second, eps=eps))
  return h @ network.out


def draw(
  n: int, *, seed: int, cases: int = 64, d: int = 20, h: int = 16, k: int = 4
) -> Draw:
  """Random networks and inputs.

  Args:
    n: networks.
    seed: of all that is random.
    cases: inputs of each network.
    d: inputs.
    h: units of a layer.
    k: outputs.

  Returns:
    A `Draw` with a leading axis [n], in JAX's present precision; factors are
    between 2 and 4 or their inverses.
  """
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=(n, *shape)))
  layer = lambda d: Layer(
    normal(d, h) / np.sqrt(d),
    jnp.asarray(rng.uniform(0.5, 2, (n, h))),
    normal(h) / 2,
  )
  network = Network(layer(d), layer(h), normal(h, k))
  factor = rng.uniform(2, 4, n) ** rng.choice([-1, 1], n)
  return Draw(network, normal(cases, d), jnp.asarray(factor), normal(d))


def changes(
  norm: str,
  transformation: str,
  draws: Draw,
  *,
  eps: float = 0.0,
  scale: float = 1.0,
) -> np.ndarray:
  """How much the outputs of each network change.

  Args:
    norm: one of `NORMS`.
    transformation: one of `TRANSFORMATIONS`.
    draws: [n] of them.
    eps: of batch, layer and RMS norm.
    scale: of the inputs, before the transformation.

  Returns:
    [n] the largest change of a case's outputs over their length.

  Source: Ba et al. 2016, Table 1.
  """
  draws = draws._replace(x=draws.x * scale)
  moved = jax.vmap(TRANSFORMATIONS[transformation])(draws)
  before, after = (
    np.asarray(_outputs(norm, d.network, d.x, eps)) for d in (draws, moved)
  )
  length = lambda y: np.linalg.norm(y, axis=-1)
  return (length(after - before) / length(before)).max(axis=-1)


# Compiled once a norm, whatever the transformation.
@functools.partial(jax.jit, static_argnums=(0, 3))
def _outputs(norm, networks, x, eps):
  return jax.vmap(lambda n, x: outputs(norm, n, x, eps=eps))(networks, x)
