"""How a perturbation of a recurrent net's hidden state grows or dies out.

The state is all that a cell carries on: (c, h) of an LSTM, h of a GRU. What
is measured is the product J_t ... J_1 of the Jacobians of the steps, each the
derivative of a state by the one before it, along a sequence of inputs.

Batch norm's statistics belong to many sequences, a perturbation to one. Here
they are those of the sequences at hand under the weights at hand, and are
then held, as they are at test.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp

from lnrnn import engine, recurrent_bn
from lnrnn.recurrent_bn import SiteMoments

# step(carry, (x, moments)) -> carry, of one time step; moments are {} unless
# the norm is batch norm.
Step = Callable[[Any, tuple[jax.Array, SiteMoments]], Any]


def draw(cell: nn.RNNCellBase, key: jax.Array, d: int) -> dict[str, Any]:
  """Initial parameters of one of our cells, of any norm, for inputs [..., d].

  With equal keys w_x and w_h are the same for all norms.
  """
  return dict(cell.init(key, d, method="recurrences")["params"])


def scaled(
  params: Mapping[str, Any], factors: Mapping[str, Any]
) -> dict[str, Any]:
  """Multiplies some of a cell's parameters.

  Args:
    params: of a cell with one layer.
    factors: {name: factor} in `params`: "w_h", or under weight norm, whose
      "w_h" are directions, "wn_h" for their gain. Others are ignored.

  Returns:
    Parameters like `params`.
  """
  times = lambda factor, part: jax.tree.map(lambda p: p * factor, part)
  return {
    name: times(factors.get(name, 1), part) for name, part in params.items()
  }


def statistics(
  cell: nn.RNNCellBase, params: Mapping[str, Any], carry: Any, x: jax.Array
) -> SiteMoments:
  """Batch norm's moments of each time step, over the sequences at hand.

  Args:
    cell: one of ours, with one layer.
    params: its parameters.
    carry: the first, leaves [b, h].
    x: [t, b, d] inputs.

  Returns:
    {site: moments of [t, n]}; {} if the norm is not batch norm.

  Source: Cooijmans et al. 2016, section 3.
  """
  layer = _recurrence(cell, params)
  if not layer.sites:
    return {}
  step = recurrent_bn.by_minibatch(layer, _eps(cell), "masked")
  dot = _dot(layer)

  def one(state, x):
    # The moments of the step before count only where sequences are finished.
    carry, (_, found) = step(dot, (layer.consts, 0), (state, None), (x, None))
    return carry[0], found

  return jax.lax.scan(one, carry, x)[1]


def held_step(cell: nn.RNNCellBase, params: Mapping[str, Any]) -> Step:
  """One time step of a cell, batch norm's statistics being given.

  Args:
    cell: one of ours, with one layer.
    params: its parameters.

  Returns:
    The step: each case by itself, whatever the norm.
  """
  layer = _recurrence(cell, params)
  dot = _dot(layer)
  if layer.sites:
    inner = recurrent_bn.by_population(layer, _eps(cell))
    return lambda carry, inputs: inner(dot, layer.consts, carry, inputs)[0]
  return lambda carry, inputs: layer.step(dot, layer.consts, carry, inputs[0])[
    0
  ]


def states(step: Callable[[Any, Any], Any], carry: Any, inputs: Any) -> Any:
  """Every state that a step goes through.

  Args:
    step: (carry, input) -> carry.
    carry: the first.
    inputs: a tree of [t, ...].

  Returns:
    A tree like the carry, leaves [t, ...]: the states after each input.
  """

  def one(carry, x):
    carry = step(carry, x)
    return carry, carry

  return jax.lax.scan(one, carry, inputs)[1]


def log_growth(
  step: Callable[[Any, Any], Any],
  carry: Any,
  inputs: Any,
  directions: jax.Array,
) -> jax.Array:
  """How much longer perturbations of the first state are after each step.

  With the whole basis as directions it is the Frobenius norm of the product
  of Jacobians over that of the identity. With one direction, divided by t,
  it is a growth rate that tends to the largest Lyapunov exponent.

  Args:
    step: (carry, input) -> carry, of one case.
    carry: the first state.
    inputs: a tree of [t, ...].
    directions: [k, n] perturbations of the state of n numbers, laid end to
      end as `ravel_pytree` does: c before h.

  Returns:
    [t] nats: ln(|J_t ... J_1 V| / |V|), |.| being the Frobenius norm.

  Source: Benettin et al. 1980, who divide by the length at every step, so
  that it leaves the range of no float.
  """
  start, unravel = ravel_pytree(carry)

  def flat(state, x):
    return ravel_pytree(step(unravel(state), x))[0]

  def one(both, x):
    state, v = both
    state, push = jax.linearize(lambda s: flat(s, x), state)
    v = jax.vmap(push)(v)
    length = jnp.linalg.norm(v)
    return (state, v / length), jnp.log(length)

  v = directions / jnp.linalg.norm(directions)
  return jnp.cumsum(jax.lax.scan(one, (start, v), inputs)[1])


def _recurrence(cell, params) -> engine.Recurrence:
  d = params["w_x"].shape[0]
  (layer,) = cell.apply({"params": params}, d, method="recurrences")
  return layer


def _dot(layer: engine.Recurrence) -> engine.Dot:
  return lambda v, name: v @ layer.weights[name]


def _eps(cell: Any) -> float:
  return cell.eps
