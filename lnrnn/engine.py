"""The sequence engine: scans a recurrent step over time.

Backward through time, plain automatic differentiation keeps what every
operation of a step asks for, and adds to the gradients of the weights in
every step. The engine keeps the products with the weights and little else,
runs the rest of the step again on the way back, and where rows are few makes
the gradient of a weight in one product over all the steps
(`lnrnn.backward`). The step itself is ordinary code, so one engine serves
every cell, norm and formulation.
"""

from collections.abc import Callable, Mapping
import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lnrnn.backward import FastScan
from lnrnn.errors import choices

BACKWARD = ("fast", "plain")

# dot(v, name): [..., d] @ weights[name] [d, n] -> [..., n].
Dot = Callable[[jax.Array, str], jax.Array]
# step(dot, consts, carry, x) -> (carry, y), of one time step.
Step = Callable[[Dot, Any, Any, Any], tuple[Any, Any]]


class Recurrence(NamedTuple):
  """What a cell gives the engine.

  A linen cell whose method `recurrences(d)` returns a list of these, one for
  each of its stacked layers, runs fast under `lnrnn.RNN`.

  Attributes:
    step: one time step, `step(dot, consts, carry, x) -> (carry, y)`. It must
      multiply by weights through `dot`, and take all else that has a gradient
      from `consts`, not from an enclosing scope.
    weights: {name: [d_i, n_i]}, multiplied in every step.
    consts: a tree of the other parameters.
    dtype: the sequence is cast to it; None leaves it alone.
    sites: {place: width} of what batch norm would normalise in a step.
    normalised: the step under another `cells.Normaliser`; for batch norm.
  """

  step: Step
  weights: Mapping[str, jax.Array]
  consts: Any
  dtype: Any = None
  sites: Mapping[str, int] = types.MappingProxyType({})
  normalised: Callable[[Any], Step] | None = None


def scan(
  step: Step,
  weights: Mapping[str, jax.Array],
  consts: Any,
  carry: Any,
  xs: Any,
  *,
  backward: str = "fast",
  remat_steps: int = 0,
  unroll: int = 1,
  length: int | None = None,
  precision: jax.lax.PrecisionLike = None,
) -> tuple[Any, Any]:
  """Runs a step over time, as `jax.lax.scan` does.

  Args:
    step: `step(dot, consts, carry, x) -> (carry, y)`. It multiplies by the
      weights through `dot(v, name)` alone, as often as it likes and with any
      v, such as one that depends on the state. It calls `dot` itself, not
      from within a `jax.vmap`, `jit`, `cond`, `scan` or `checkpoint`.
    weights: {name: [d_i, n_i]}.
    consts: a tree of arrays; what else the step needs with a gradient.
    carry: the initial carry, a tree of arrays.
    xs: a tree of [t, ...]; None with `length`.
    backward: "fast", in reverse mode only (once, twice, or forward over
      reverse), or "plain", JAX's own differentiation of the scan.
    remat_steps: above 0, only the carries of every so many steps are kept
      and the rest is computed again on the way back.
    unroll: steps in one iteration of the loop.
    length: number of steps, where `xs` has none.
    precision: of the products, in both passes.

  Returns:
    The last carry and the outputs, each [t, ...].

  Raises:
    ValueError: for an unknown `backward`, a negative `remat_steps`, a weight
      that is no matrix, neither `xs` nor `length`, or ("fast") a step that
      takes a traced array from an enclosing scope.
    TypeError: "fast" is differentiated in forward mode.
  """
  if backward not in BACKWARD:
    raise ValueError(f"backward={backward!r}: {choices(backward, BACKWARD)}")
  if remat_steps < 0:
    raise ValueError(f"remat_steps={remat_steps} is negative")
  for name, w in weights.items():
    if jnp.ndim(w) != 2:
      raise ValueError(f"weights[{name!r}] of shape {w.shape} is not [d, n]")
  weights, consts, carry, xs = jax.tree.map(
    jnp.asarray, (dict(weights), consts, carry, xs)
  )
  if length is None:
    if not jax.tree.leaves(xs):
      raise ValueError("without `xs`, `length` must say how many steps to run")
    length = len(jax.tree.leaves(xs)[0])
  options = {"unroll": unroll, "precision": precision}

  def run(carry, xs, length):
    if backward == "plain":
      return _plain(step, weights, consts, carry, xs, length=length, **options)
    arguments = (weights, consts, carry, xs)
    return FastScan(step, *arguments, length=length, **options)(*arguments)

  if not 0 < remat_steps < length:
    return run(carry, xs, length)

  chunks, rest = divmod(length, remat_steps)
  cut = chunks * remat_steps
  head = jax.tree.map(
    lambda x: x[:cut].reshape(chunks, remat_steps, *x.shape[1:]), xs
  )

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def chunk(carry, xs):
    return run(carry, xs, remat_steps)

  carry, ys = jax.lax.scan(chunk, carry, head, length=chunks)
  ys = jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), ys)
  if not rest:
    return carry, ys
  tail = jax.tree.map(lambda x: x[cut:], xs)
  carry, last = run(carry, tail, rest)
  join = lambda a, b: jnp.concatenate([a, b])
  return carry, jax.tree.map(join, ys, last)


def masked(step: Step) -> Step:
  """The step in which finished sequences keep their carry.

  Its input is (x, live), live [...] the booleans of the sequences still
  running; every leaf of the carry begins with those axes. What it puts out
  for a finished sequence means nothing, but does not touch the others.
  """

  def masked_step(dot, consts, carry, x_live):
    x, live = x_live
    new, y = step(dot, consts, carry, x)
    kept = select(live, new, carry)
    # An output that is part of the carry, as h is, stays a part of it, and
    # so is stored once.
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(kept), strict=True)
    same = {id(leaf): mine for leaf, mine in pairs}
    return kept, jax.tree.map(lambda leaf: same.get(id(leaf), leaf), y)

  return masked_step


def select(live: jax.Array, new: Any, old: Any) -> Any:
  """`new` where `live` [...], else `old`; trees of leaves [..., *]."""

  def pick(a, b):
    shape = live.shape + (1,) * (a.ndim - live.ndim)
    return jnp.where(live.reshape(shape), a, b)

  return jax.tree.map(pick, new, old)


def _plain(step, weights, consts, carry, xs, *, length, unroll, precision):
  """`lax.scan`; JAX differentiates it."""

  def dot(v, name):
    return jnp.matmul(v, weights[name], precision=precision)

  body = lambda carry, x: step(dot, consts, carry, x)
  return jax.lax.scan(body, carry, xs, length=length, unroll=unroll)
