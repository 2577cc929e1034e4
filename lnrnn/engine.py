"""The sequence engine: scans a recurrent step over time, fast in both passes.

Backward through time, plain automatic differentiation adds to the gradient of
a recurrent weight in every step, and keeps whatever the step's operations
ask for. This engine keeps the carries and the products with the weights only.
Its backward scan runs the step again, taking the products as known, and
collects their cotangents; the gradient of a weight is then one matrix product
over all the steps. The step itself stays ordinary code, so one engine serves
every cell, norm and formulation.
"""

from collections.abc import Callable, Mapping
import functools
import itertools
import math
import types
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from lnrnn.errors import choices

BACKWARD = ("fast", "plain")
# On CPUs; see docs/performance.md for what was measured.
MANY_ROWS = 48
NARROW = 16

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
      v, such as one that depends on the state; the order of its calls must
      not change from step to step.
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
    ValueError: for an unknown `backward` or a negative `remat_steps`.
    TypeError: "fast" is differentiated in forward mode.
  """
  if backward not in BACKWARD:
    raise ValueError(f"backward={backward!r}: {choices(backward, BACKWARD)}")
  if remat_steps < 0:
    raise ValueError(f"remat_steps={remat_steps} is negative")
  weights, consts, carry, xs = jax.tree.map(
    jnp.asarray, (dict(weights), consts, carry, xs)
  )
  run = functools.partial(
    _fast if backward == "fast" else _plain, step, unroll, precision
  )
  if length is None:
    length = len(jax.tree.leaves(xs)[0])
  if not 0 < remat_steps < length:
    return run(weights, consts, carry, xs, length)

  chunks, rest = divmod(length, remat_steps)
  cut = chunks * remat_steps
  head = jax.tree.map(
    lambda x: x[:cut].reshape(chunks, remat_steps, *x.shape[1:]), xs
  )

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def chunk(carry, xs):
    return run(weights, consts, carry, xs, remat_steps)

  carry, ys = jax.lax.scan(chunk, carry, head, length=chunks)
  ys = jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), ys)
  if not rest:
    return carry, ys
  tail = jax.tree.map(lambda x: x[cut:], xs)
  carry, last = run(weights, consts, carry, tail, rest)
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
    return jnp.where(
      live.reshape(live.shape + (1,) * (a.ndim - live.ndim)), a, b
    )

  return jax.tree.map(pick, new, old)


def _plain(step, unroll, precision, weights, consts, carry, xs, length):
  """`lax.scan`; JAX differentiates it."""

  def dot(v, name):
    return jnp.matmul(v, weights[name], precision=precision)

  body = lambda carry, x: step(dot, consts, carry, x)
  return jax.lax.scan(body, carry, xs, length=length, unroll=unroll)


class _Call(NamedTuple):
  """How the engine makes one of the products of a step.

  Attributes:
    name: of the weight.
    way: "loop": within the loop, both ways. "ahead": for all steps at once
      before the loop, its gradients after it. "defer": within the loop, but
      the weight's gradient after it, as one product over all steps.
    source: which leaf of the inputs (ahead) or the carry (defer) is the
      other factor; None if it is none of them.
    product: shape and dtype of the product.
  """

  name: str
  way: str
  source: int | None
  product: jax.ShapeDtypeStruct


def _plan(step, weights, consts, carry, xs) -> list[_Call]:
  """Looks at one step and says how to make each of its products.

  In the loop, each step reads and writes the whole gradient of a weight. With
  few rows that takes longer than the product. With many rows it does not, and
  to stack what the late product needs costs more than it saves. On a GPU each
  operation of the loop costs a launch, so there it is always late.
  """
  on_cpu = jax.default_backend() == "cpu"
  calls = []

  def trace(carry, x):
    def dot(v, name):
      w = weights[name]
      out = jax.eval_shape(jnp.matmul, v, w)
      rows = out.size // out.shape[-1]
      of_x = _index(jax.tree.leaves(x), v)
      if on_cpu and (rows >= MANY_ROWS or len(w) <= NARROW):
        call = _Call(name, "loop", None, out)
      elif of_x is not None:
        call = _Call(name, "ahead", of_x, out)
      else:
        call = _Call(name, "defer", _index(jax.tree.leaves(carry), v), out)
      calls.append(call)
      return jnp.zeros(out.shape, out.dtype)

    return step(dot, consts, carry, x)

  one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
  jax.eval_shape(trace, carry, jax.tree.map(one, xs))
  return calls


def _fast(step, unroll, precision, weights, consts, carry, xs, length):
  """The same function with the backward pass of this module."""
  calls = _plan(step, weights, consts, carry, xs)
  late = [c for c in calls if c.way == "defer"]
  # Only floats have gradients; masks, counts and keys pass by on the side.
  trees = (consts, carry, xs)
  parts = tuple(map(_Parts, trees))
  side = tuple(part.side(t) for part, t in zip(parts, trees, strict=True))
  floats = tuple(part.floats(t) for part, t in zip(parts, trees, strict=True))
  # Which output each deferred factor is, one step later; set by `through`.
  shifted: list[int | None] = []

  def joined(floats, side):
    return (
      part.join(*both) for part, *both in zip(parts, floats, side, strict=True)
    )

  def ahead(weights, xs):
    leaves = jax.tree.leaves(xs)
    return [
      jnp.matmul(leaves[c.source], weights[c.name], precision=precision)
      for c in calls
      if c.way == "ahead"
    ]

  def through(weights, in_loop, consts, carry, xs, done, taps):
    """The scan; returns also what the late gradients need."""

    def body(carry, t):
      x, done, taps = t
      done, taps, order = iter(done), iter(taps), iter(calls)
      factors = []

      def dot(v, name):
        call = next(order)
        if call.way == "ahead":
          return next(done)
        if call.way == "loop":
          return jnp.matmul(v, in_loop[name], precision=precision)
        factors.append(v)
        w = weights[name]
        return _tapped(precision, v, w, transposed[name], next(taps))

      new, y = step(dot, consts, carry, x)
      # A factor that is a carry, and is put out too, is stacked already.
      outs, leaves = jax.tree.leaves(y), jax.tree.leaves(new)
      shifted[:] = [
        None if c.source is None else _index(outs, leaves[c.source])
        for c in late
      ]
      own = [
        v if k is None else None for v, k in zip(factors, shifted, strict=True)
      ]
      return new, (y, own)

    transposed = {c.name: weights[c.name].T for c in late}
    body = jax.checkpoint(body, policy=_keep, prevent_cse=False)
    return jax.lax.scan(
      body, carry, (xs, done, taps), length=length, unroll=unroll
    )

  def zero_taps():
    return [
      jnp.zeros((length, *c.product.shape), c.product.dtype) for c in late
    ]

  def looped(weights):
    return {c.name: weights[c.name] for c in calls if c.way == "loop"}

  @jax.custom_vjp
  def run(weights, floats, side):
    consts, carry, xs = joined(floats, side)
    done = ahead(weights, xs)
    last, (ys, _) = through(
      weights, looped(weights), consts, carry, xs, done, zero_taps()
    )
    return last, ys

  def forward(weights, floats, side):
    def f(in_loop, floats, done, taps):
      last, (ys, own) = through(
        weights, in_loop, *joined(floats, side), done, taps
      )
      return (_floats_of(last), _floats_of(ys)), (last, ys, own)

    done = ahead(weights, parts[2].join(floats[2], side[2]))
    _, pullback, (last, ys, own) = jax.vjp(
      f, looped(weights), floats, done, zero_taps(), has_aux=True
    )
    return (last, ys), (weights, floats, side, pullback, ys, own)

  def backward(residuals, cotangents):
    weights, floats, side, pullback, ys, own = residuals
    dlast, dys = map(_floats_of, cotangents)
    in_loop, (dconsts, dfirst, dxs), ddone, dtaps = pullback((dlast, dys))
    dweights: dict[str, list[jax.Array]] = {name: [] for name in weights}
    for name, d in in_loop.items():
      dweights[name].append(d)

    _, first, stacked = joined(floats, side)
    stacked, first = jax.tree.leaves(stacked), jax.tree.leaves(first)
    numbers = parts[2].numbers()
    early = [c for c in calls if c.way == "ahead"]
    for c, d in zip(early, ddone, strict=True):
      dweights[c.name].append(_outer(stacked[c.source], d, precision))
      k = numbers[c.source]
      if k is not None:
        back = jnp.matmul(d, weights[c.name].T, precision=precision)
        dxs[k] += back.astype(dxs[k].dtype)

    outs = jax.tree.leaves(ys)
    for c, k, v, d in zip(late, shifted, own, dtaps, strict=True):
      if k is not None:
        v = jnp.concatenate([first[c.source][None], outs[k][:-1]])
      dweights[c.name].append(_outer(v, d, precision))
    sums = {
      name: sum(ds[1:], start=ds[0]).astype(weights[name].dtype)
      if ds
      else jnp.zeros_like(weights[name])
      for name, ds in dweights.items()
    }
    return sums, (dconsts, dfirst, dxs), None

  run.defvjp(forward, backward)
  return run(*jax.tree.map(_reverse_only, (weights, floats)), side)


def _keep(primitive, *operands, **params) -> bool:
  """What the forward pass keeps for the way back: products and row sums.

  The rest is cheap to do again, and to store and load it costs more. So is
  the product with a narrow weight, such as that of pen movements.
  """
  if primitive.name == "dot_general":
    (axes, _), _ = params["dimension_numbers"]
    return math.prod(operands[0].shape[i] for i in axes) > NARROW
  return primitive.name in ("reduce_sum", "rsqrt")


class _Parts:
  """How a tree divides into floats, which have gradients, and the rest."""

  def __init__(self, tree: Any):
    leaves, self._structure = jax.tree.flatten(tree)
    self._float = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

  def floats(self, tree: Any) -> list[jax.Array]:
    """The leaves with gradients."""
    return list(itertools.compress(jax.tree.leaves(tree), self._float))

  def side(self, tree: Any) -> list[jax.Array]:
    """The other leaves."""
    other = (not yes for yes in self._float)
    return list(itertools.compress(jax.tree.leaves(tree), other))

  def numbers(self) -> list[int | None]:
    """Of each leaf, which of the floats it is."""
    count = itertools.count()
    return [next(count) if yes else None for yes in self._float]

  def join(self, floats: list[jax.Array], side: list[jax.Array]) -> Any:
    """The tree of these leaves."""
    both = iter(side), iter(floats)
    leaves = [next(both[yes]) for yes in self._float]
    return jax.tree.unflatten(self._structure, leaves)


def _floats_of(tree: Any) -> list[jax.Array]:
  return _Parts(tree).floats(tree)


def _index(leaves: list[Any], leaf: Any) -> int | None:
  """Which of the leaves this very object is."""
  return next((k for k, other in enumerate(leaves) if other is leaf), None)


def _outer(v: jax.Array, da: jax.Array, precision) -> jax.Array:
  """[..., d], [..., n] -> [d, n], summed over all cases; float32 or wider."""
  axes = list(range(v.ndim - 1))
  wide = jnp.promote_types(jnp.result_type(v, da), jnp.float32)
  return jnp.tensordot(
    v, da, axes=(axes, axes), precision=precision, preferred_element_type=wide
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _tapped(precision, v, w, w_t, tap):
  """The product v w; where w is held constant, `tap` tells its gradient.

  Args:
    precision: of the products.
    v: [..., d] the other factor.
    w: [d, n] the weight.
    w_t: [n, d] the same, transposed; a loop reads it faster on the way back.
    tap: [..., n] of any value; it receives the product's cotangent.

  Returns:
    [..., n] v w.
  """
  return jnp.matmul(v, w, precision=precision)


def _tapped_jvp(precision, primals, tangents):
  v, w, w_t, tap = primals
  dv, dw, _, dtap = tangents
  matmul = functools.partial(jnp.matmul, precision=precision)
  d = jnp.zeros_like(tap)
  if type(dv) is not SymbolicZero:
    d += matmul(dv, w_t.T)
  # The weight varies only where this pass itself is being differentiated.
  if type(dw) is not SymbolicZero:
    d += matmul(v, dw)
  if type(dtap) is not SymbolicZero:
    d += dtap
  return matmul(v, w), d


_tapped.defjvp(_tapped_jvp, symbolic_zeros=True)


# JAX meets forward-mode differentiation of a custom_vjp function with a
# message that helps nobody here; this identity meets it first. It is linear,
# and its transpose the identity, so reverse mode passes.
_ADVICE = 'backward="fast" has no forward mode (jvp); use backward="plain"'
_reverse_only_p = jex_core.Primitive("reverse_only")


def _refuse(*unused, **params):
  raise TypeError(_ADVICE)


_reverse_only_p.def_impl(_refuse)
_reverse_only_p.def_abstract_eval(lambda a: a)
ad.deflinear2(_reverse_only_p, lambda cotangent, _: [cotangent])
batching.defvectorized(_reverse_only_p)
mlir.register_lowering(_reverse_only_p, _refuse)


@jax.custom_jvp
def _reverse_only(a):
  """`a`, differentiable in reverse mode alone."""
  return a


_reverse_only.defjvp(
  lambda primals, tangents: (primals[0], _reverse_only_p.bind(tangents[0]))
)
