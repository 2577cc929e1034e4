"""How the engine makes the products of a step, and what it keeps of them."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp

# On CPUs, docs/performance.md says from which measurements: a gradient is
# added up in the loop where this many times the rows reach d n / (d + n), or
# where the weight has no more than so many inputs.
ROWS_PER_WIDTH = 4
NARROW = 16


class Call(NamedTuple):
  """How one of the products of a step is made.

  Attributes:
    name: of the weight.
    way: "loop": within the loop, both ways. "ahead": for all steps at once
      before the loop, its gradients after it. "defer": within the loop, but
      the weight's gradient after it.
    of_x: which leaf of the inputs is the other factor; None if none is.
    of_carry: which leaf of the carry it is; None if none is.
    narrow: whether the weight has few inputs.
    product: shape and dtype of the product.
  """

  name: str
  way: str
  of_x: Any
  of_carry: Any
  narrow: bool
  product: jax.ShapeDtypeStruct

  @property
  def early(self) -> bool:
    """Whether it can be made in front of the step, and is worth keeping."""
    return not self.narrow and (self.of_x, self.of_carry) != (None, None)


def plan(
  step: Callable[..., Any],
  weights: Mapping[str, jax.Array],
  consts: Any,
  carry: Any,
  xs: Any,
) -> tuple[list[Call], Callable[..., bool]]:
  """Looks at one step; says how to make its products, and what to keep.

  To add to a weight's gradient in the loop, every step reads and writes all
  of that gradient; to leave it for later, every step writes its rows of both
  factors. So few rows are left for later, and many are not. On a GPU, where
  each operation of the loop costs a launch, it is always later; that was not
  measured yet.

  Args:
    step: as of `engine.scan`, and so the others.
    weights: {name: [d_i, n_i]}.
    consts: a tree of arrays.
    carry: a tree of arrays.
    xs: a tree of [t, ...].

  Returns:
    The calls, in their order, and a policy for `jax.checkpoint`.

  Raises:
    ValueError: the step takes a traced array from an enclosing scope.
  """
  on_cpu = jax.default_backend() == "cpu"
  calls = []

  def trace(weights, consts, carry, x):
    def dot(v, name):
      out = jax.eval_shape(jnp.matmul, v, weights[name])
      d, n = weights[name].shape
      # In the loop the sum has the weight's dtype, too short in half precision.
      wide = jnp.finfo(weights[name].dtype).bits >= 32
      many = out.size // n * ROWS_PER_WIDTH * (d + n) >= d * n
      of_x = index_of(jax.tree.leaves(x), v)
      of_carry = index_of(jax.tree.leaves(carry), v)
      if on_cpu and wide and (many or d <= NARROW):
        way = "loop"
      else:
        way = "defer" if of_x is None else "ahead"
      calls.append(Call(name, way, of_x, of_carry, d <= NARROW, out))
      return jnp.matmul(v, weights[name])

    return step(dot, consts, carry, x)

  one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
  jaxpr = jax.make_jaxpr(trace)(weights, consts, carry, jax.tree.map(one, xs))
  for outer in jaxpr.consts:
    if isinstance(outer, Tracer) and is_float(outer):
      raise ValueError(
        f"the step takes an array of shape {outer.shape} from an enclosing"
        " scope, and would lose its gradient: pass it in `consts`"
      )
  # A norm needs its products again on the way back, and from them the gates
  # are quick to make again. Without norm the gates alone are needed.
  kept = ("reduce_sum", "rsqrt")
  if "reduce_sum" not in str(jaxpr):
    kept = ("logistic", "tanh")
  return calls, functools.partial(_keep, kept)


def _keep(kept: tuple[str, ...], primitive, *operands, **params) -> bool:
  """Whether the forward pass keeps a value for the way back.

  Products, and what is named. The rest is quick to do again, and to store and
  load it takes longer; so is the product with a narrow weight, such as that
  of pen movements.
  """
  if primitive.name == "dot_general":
    (axes, _), _ = params["dimension_numbers"]
    return math.prod(operands[0].shape[i] for i in axes) > NARROW
  return primitive.name in kept


def is_float(leaf: Any) -> bool:
  """Whether a leaf has gradients."""
  return jnp.issubdtype(leaf.dtype, jnp.inexact)


def index_of(leaves: list[Any], leaf: Any) -> Any:
  """Which of the leaves this very object is; None for none."""
  return next((k for k, other in enumerate(leaves) if other is leaf), None)
