"""Norms of gradients and parameters, and what is not finite first.

A loss that is not finite shows at its own step. A gradient that is not finite
shows one step later, in the parameters it spoiled and the loss they give; so
the parameters are examined as they were before the update, and if they are
bad the fault is the step before.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

NAMES = ("grad_norm", "param_norm")
FAULT = "fault"


def examine(
  wanted: jax.Array, params: Any, opt_state: Any, loss: jax.Array, grads: Any
) -> dict[str, jax.Array]:
  """Norms and the first fault of a step, where that is wanted.

  Args:
    wanted: [] bool; elsewhere everything is zero and costs nothing.
    params: before the update.
    opt_state: before the update.
    loss: [] of the step.
    grads: of the step, like `params`.

  Returns:
    {"grad_norm", "param_norm": [] global L2 norms; "fault": [] int32, see
    `describe`, 0 if all is finite}.
  """

  def look():
    # In the order of cause and effect; argmax finds the first.
    bad = [*_bad(params), ~jnp.isfinite(loss), *_bad(grads)]
    bad = jnp.stack(bad)
    fault = jnp.where(bad.any(), 1 + bad.argmax(), 0)
    count = len(jax.tree.leaves(params))
    # Moments that are not finite tell that the gradient was at fault.
    moments = jnp.stack([jnp.bool_(False), *_bad(opt_state)]).any()
    by_gradient = moments & (fault > 0) & (fault <= count)
    return {
      "grad_norm": _norm(grads),
      "param_norm": _norm(params),
      FAULT: jnp.where(by_gradient, -fault, fault).astype(jnp.int32),
    }

  zeros = jax.tree.map(
    lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(look)
  )
  return jax.lax.cond(wanted, look, lambda: zeros)


def describe(fault: int, step: int, params: Any) -> tuple[int, str]:
  """What a fault's number says.

  Args:
    fault: of `examine`, not 0.
    step: that was examined, counted from 1.
    params: tree of the parameters, for its paths.

  Returns:
    (step at which it arose, the quantity).
  """
  names = paths(params, "params/")
  index = abs(fault) - 1
  if index < len(names):
    kind = "gradient" if fault < 0 else "parameter"
    return step - 1, f"{kind} {names[index]}"
  if index == len(names):
    return step, "loss"
  return step, f"gradient {names[index - len(names) - 1]}"


def broken(tree: Any) -> str | None:
  """The path of the first leaf on the host that is not finite; else None."""
  leaves = jax.tree.leaves(tree)
  for name, leaf in zip(paths(tree), leaves, strict=True):
    leaf = np.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all():
      return name
  return None


def paths(tree: Any, prefix: str = "") -> list[str]:
  """Names of a tree's leaves, as "params/hidden_0/kernel"."""
  return [
    prefix + jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree.leaves_with_path(tree)
  ]


def _bad(tree: Any) -> list[jax.Array]:
  return [
    ~jnp.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
  ]


def _norm(tree: Any) -> jax.Array:
  wide = jax.tree.map(lambda a: a.astype(jnp.float32), tree)
  return optax.tree.norm(wide)
