"""What is not finite, and where that began.

Looking at every gradient at every step would take half of a small model's
speed. So a run looks at the loss of every step, and at the norms of gradients
and parameters at every log; when one of them is not finite, it goes back to a
state it kept and repeats the steps since, looking at everything.
"""

from collections.abc import Callable, Iterable, Sequence
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# A copy of the state is kept so often that copying takes 1/50 of the time.
_SHARE = 50


def norm(tree: Any, wanted: jax.Array | bool = True) -> jax.Array:
  """Global L2 norm of a tree, [] float32 or wider; zero where not wanted."""
  zero = jnp.zeros((), jnp.result_type(jnp.float32, *jax.tree.leaves(tree)))
  # Leaf by leaf: one cond over all would keep every gradient until the last
  # is there, a tenth of a small model's time.
  squares = [
    jax.lax.cond(
      wanted,
      lambda a=a: jnp.square(a.astype(zero.dtype)).sum(),
      lambda: zero,
    )
    for a in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares, zero))


# (name, tree) in the order of cause and effect; JAX would sort a dict.
Quantities = Sequence[tuple[str, Any]]


def first_fault(quantities: Quantities) -> jax.Array:
  """Index of the first leaf that is not finite, -1 if there is none."""
  leaves = [leaf for _, tree in quantities for leaf in _leaves(tree)]
  bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in leaves])
  return jnp.where(bad.any(), bad.argmax(), -1)


def name_fault(index: int, quantities: Quantities) -> str:
  """The name of a leaf of `first_fault`, such as "gradient params/w"."""
  names = [
    f"{quantity} {path}".strip()
    for quantity, tree in quantities
    for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    if _inexact(leaf)
  ]
  return names[index]


def broken(tree: Any) -> str | None:
  """The path of the first leaf on the host that is not finite; else None."""
  for name, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True):
    if _inexact(leaf) and not np.isfinite(leaf).all():
      return name
  return None


def paths(tree: Any) -> list[str]:
  """Names of a tree's leaves, as "params/hidden_0/kernel"."""
  return [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree.leaves_with_path(tree)
  ]


def _inexact(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _leaves(tree: Any) -> list[Any]:
  return [leaf for leaf in jax.tree.leaves(tree) if _inexact(leaf)]


class NotFinite(Exception):
  """Something is not finite; the loop finds out where that began.

  Attributes:
    step: at which it was seen.
    what: the quantity.
  """

  def __init__(self, step: int, what: str):
    super().__init__(f"{what} is not finite at step {step}")
    self.step, self.what = step, what


class Sentry:
  """Keeps a good state, and repeats from it what led to a bad one.

  Args:
    state: on the host, that is good.
    inspect: (state, step) -> (state after the step, first quantity that is
      not finite or None), as `loop` makes it.
  """

  def __init__(
    self, state: Any, inspect: Callable[[Any, int], tuple[Any, str | None]]
  ):
    self._kept, self._inspect = state, inspect
    self._next = 0.0

  def look(self, state: Any) -> None:
    """Keeps a state, unless one was kept a moment ago.

    Args:
      state: on the devices.

    Raises:
      NotFinite: if it is bad.
    """
    began = time.monotonic()
    if began < self._next:
      return
    host = jax.tree.map(np.array, jax.device_get(state))
    if name := broken(host):
      raise NotFinite(int(host.step), name.removeprefix("variables/"))
    self._kept = host
    now = time.monotonic()
    self._next = now + _SHARE * (now - began)

  def trace(self, seen: NotFinite) -> NotFinite:
    """Where it began; what was seen, if repeating does not show it."""
    state = self._kept
    for step in self._steps(seen.step):
      state, what = self._inspect(state, step)
      if what:
        return NotFinite(step + 1, what)
    return seen

  def _steps(self, end: int) -> Iterable[int]:
    return range(int(self._kept.step), end)
