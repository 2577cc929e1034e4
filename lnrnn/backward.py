"""The engine's own way back through time.

JAX differentiates the scan, told what to keep of each step. What is new here:
the gradient of a weight need not be added up step by step. Where a product is
"ahead" or left for later ("defer"), its cotangents are stacked, and the
weight's gradient is one product over all the steps.
"""

import functools
import itertools
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
import jax.numpy as jnp

from lnrnn.backward_plan import index_of, is_float, plan
from lnrnn.reverse_only import reverse_only


class FastScan:
  """`lax.scan` of a step with the backward pass of this module.

  Its methods pass lists of leaves: of the trees (consts, carry, xs) the
  floats, which have gradients, and on the side masks, counts and keys.
  """

  def __init__(
    self, step, weights, consts, carry, xs, *, length, unroll, precision
  ):
    """Plans the scan.

    Args:
      step: as of `engine.scan`, and so the others.
      weights: {name: [d_i, n_i]}.
      consts: a tree of arrays.
      carry: a tree of arrays.
      xs: a tree of [t, ...].
      length: likewise.
      unroll: likewise.
      precision: likewise.
    """
    self._step = step
    self._length, self._unroll, self._precision = length, unroll, precision
    self._matmul = functools.partial(jnp.matmul, precision=precision)
    self._calls, self._policy = plan(step, weights, consts, carry, xs)
    self._ahead = [c for c in self._calls if c.way == "ahead"]
    self._late = [c for c in self._calls if c.way == "defer"]
    # Which output each deferred factor is, one step later; set by tracing.
    self._shifted: list[Any] = []
    self._parts = tuple(map(Parts, (consts, carry, xs)))

  def __call__(self, weights, consts, carry, xs) -> tuple[Any, Any]:
    """The last carry and the outputs."""
    run: Any = jax.custom_vjp(self._primal)
    run.defvjp(self._forward, self._backward)
    trees = list(zip(self._parts, (consts, carry, xs), strict=True))
    floats = tuple(part.floats(tree) for part, tree in trees)
    side = tuple(part.side(tree) for part, tree in trees)
    return run(*jax.tree.map(reverse_only, (weights, floats)), side)

  def _joined(self, floats, side) -> list[Any]:
    """The trees: consts, carry, xs."""
    parts = zip(self._parts, floats, side, strict=True)
    return [part.join(*both) for part, *both in parts]

  def _in_loop(self, weights):
    return {c.name: weights[c.name] for c in self._calls if c.way == "loop"}

  def _made_ahead(self, weights, xs) -> list[jax.Array]:
    leaves = jax.tree.leaves(xs)
    return [self._matmul(leaves[c.of_x], weights[c.name]) for c in self._ahead]

  def _taps(self) -> list[jax.Array]:
    """Zeros, whose gradients are the cotangents of the deferred products."""
    shapes = [c.product for c in self._late]
    return [jnp.zeros((self._length, *s.shape), s.dtype) for s in shapes]

  def _through(self, weights, in_loop, trees, done, taps):
    """The scan itself.

    Args:
      weights: all, as constants.
      in_loop: those whose gradients are added up in the loop.
      trees: consts, carry, xs.
      done: [t, ...] products made ahead.
      taps: of `_taps`.

    Returns:
      The last carry, and the outputs beside those factors of deferred
      products that are not among them.
    """
    consts, carry, xs = trees
    # A loop reads it faster so on the way back.
    transposed = {
      c.name: weights[c.name].T for c in self._calls if c.way != "ahead"
    }

    def product(call, v, taps):
      w_t = transposed[call.name]
      if call.way == "defer":
        tap, w = next(taps), weights[call.name]
      else:
        tap = jnp.zeros(call.product.shape, call.product.dtype)
        w = in_loop[call.name]
      return _tapped(self._precision, v, w, w_t, tap)

    # Told what to keep, JAX copies it. So the products that can be made in
    # front of the step are: to the step they are inputs, and kept as such.
    def body(carry, t):
      x, done, taps = t
      leaves, x_leaves = jax.tree.leaves(carry), jax.tree.leaves(x)
      done, taps = iter(done), iter(taps)
      ready, rest = [], []
      for call in self._calls:
        if call.way == "ahead":
          ready.append(next(done))
        elif not call.early:
          ready.append(None)
          rest += [next(taps)] if call.way == "defer" else []
        elif call.of_x is not None:
          ready.append(product(call, x_leaves[call.of_x], taps))
        else:
          ready.append(product(call, leaves[call.of_carry], taps))
      return step(carry, x, ready, rest)

    @functools.partial(jax.checkpoint, policy=self._policy, prevent_cse=False)
    def step(carry, x, ready, taps):
      calls, taps = zip(self._calls, ready, strict=True), iter(taps)
      factors = []

      def dot(v, name):
        call, value = next(calls)
        if call.way == "defer":
          factors.append(v)
        return product(call, v, taps) if value is None else value

      new, y = self._step(dot, consts, carry, x)
      # A factor that is a carry, and is put out too, is stacked already.
      outs, leaves = jax.tree.leaves(y), jax.tree.leaves(new)
      self._shifted = [
        None if c.of_carry is None else index_of(outs, leaves[c.of_carry])
        for c in self._late
      ]
      own = [
        v if k is None else None
        for v, k in zip(factors, self._shifted, strict=True)
      ]
      return new, (y, own)

    return jax.lax.scan(
      body,
      carry,
      (xs, done, taps),
      length=self._length,
      unroll=self._unroll,
    )

  def _primal(self, weights, floats, side):
    """The function, where no gradient is asked for."""
    trees = self._joined(floats, side)
    done = self._made_ahead(weights, trees[2])
    in_loop = self._in_loop(weights)
    last, (ys, _) = self._through(weights, in_loop, trees, done, self._taps())
    return last, ys

  def _forward(self, weights, floats, side):
    """The function, and what `_backward` needs."""

    def f(in_loop, floats, done, taps):
      trees = self._joined(floats, side)
      last, (ys, own) = self._through(weights, in_loop, trees, done, taps)
      return (_floats(last), _floats(ys)), (last, ys, own)

    xs = self._parts[2].join(floats[2], side[2])
    _, pullback, (last, ys, own) = jax.vjp(
      f,
      self._in_loop(weights),
      floats,
      self._made_ahead(weights, xs),
      self._taps(),
      has_aux=True,
    )
    return (last, ys), (weights, floats, side, pullback, ys, own)

  def _backward(self, residuals, cotangents):
    """The gradients of weights and floats."""
    weights, floats, side, pullback, ys, own = residuals
    in_loop, (dconsts, dfirst, dxs), ddone, dtaps = pullback(
      tuple(map(_floats, cotangents))
    )
    found = {
      name: [in_loop[name]] if name in in_loop else [] for name in weights
    }

    _, first, xs = map(jax.tree.leaves, self._joined(floats, side))
    numbers = self._parts[2].numbers()
    for c, d in zip(self._ahead, ddone, strict=True):
      found[c.name].append(self._outer(xs[c.of_x], d))
      k = numbers[c.of_x]
      if k is not None:
        dx = self._matmul(d, weights[c.name].T)
        dxs[k] += dx.astype(dxs[k].dtype)

    outs = jax.tree.leaves(ys)
    for c, k, v, d in zip(self._late, self._shifted, own, dtaps, strict=True):
      if k is not None:
        v = jnp.concatenate([first[c.of_carry][None], outs[k]])[:-1]
      found[c.name].append(self._outer(v, d))

    sums = {
      name: sum(ds[1:], start=ds[0]).astype(weights[name].dtype)
      if ds
      else jnp.zeros_like(weights[name])
      for name, ds in found.items()
    }
    return sums, (dconsts, dfirst, dxs), None

  def _outer(self, v: jax.Array, d: jax.Array) -> jax.Array:
    """[..., d], [..., n] -> [d, n], summed over all cases; float32 or wider."""
    axes = list(range(v.ndim - 1))
    wide = jnp.promote_types(jnp.result_type(v, d), jnp.float32)
    return jnp.tensordot(
      v,
      d,
      axes=(axes, axes),
      precision=self._precision,
      preferred_element_type=wide,
    )


class Parts:
  """How a tree divides into floats, which have gradients, and the rest."""

  def __init__(self, tree: Any):
    """Looks at the dtypes of the leaves."""
    leaves, self._structure = jax.tree.flatten(tree)
    self._float = list(map(is_float, leaves))

  def floats(self, tree: Any) -> list[jax.Array]:
    """The leaves with gradients."""
    return list(itertools.compress(jax.tree.leaves(tree), self._float))

  def side(self, tree: Any) -> list[jax.Array]:
    """The other leaves."""
    other = (not yes for yes in self._float)
    return list(itertools.compress(jax.tree.leaves(tree), other))

  def numbers(self) -> list[Any]:
    """Of each leaf, which of the floats it is; None for none."""
    count = itertools.count()
    return [next(count) if yes else None for yes in self._float]

  def join(self, floats: list[jax.Array], side: list[jax.Array]) -> Any:
    """The tree of these leaves."""
    both = iter(side), iter(floats)
    leaves = [next(both[yes]) for yes in self._float]
    return jax.tree.unflatten(self._structure, leaves)


def _floats(tree: Any) -> list[jax.Array]:
  return Parts(tree).floats(tree)


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
    # dv w, written so that its transpose reads `w_t` and no other order.
    axes = (((dv.ndim - 1,), (1,)), ((), ()))
    d += jax.lax.dot_general(dv, w_t, axes, precision=precision)
  # The weight varies only where this pass itself is being differentiated.
  if type(dw) is not SymbolicZero:
    d += matmul(v, dw)
  if type(dtap) is not SymbolicZero:
    d += dtap
  return matmul(v, w), d


_tapped.defjvp(_tapped_jvp, symbolic_zeros=True)
