"""What a compiled step costs."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def flops(fn: Callable, *args: Any) -> float:
  """Floating-point operations of a function, by XLA's cost analysis.

  XLA counts the body of a loop once; here a scan counts as often as it runs,
  and a `while` loop of unknown length once.

  Args:
    fn: function of arrays.
    *args: its arguments, arrays or shapes.
  """
  return _flops(jax.make_jaxpr(fn)(*args))


def iterations(fn: Callable, *args: Any) -> int:
  """How often the bodies of a function's loops run, one after the other.

  What a device that is fast in arithmetic waits for: each takes some launches.

  Args:
    fn: function of arrays.
    *args: its arguments, arrays or shapes.

  Returns:
    The count over all scans; a scan within a scan counts in each of its runs.
  """
  return _iterations(jax.make_jaxpr(fn)(*args).jaxpr)


def _iterations(jaxpr: core.Jaxpr) -> int:
  total = 0
  for eqn in jaxpr.eqns:
    inner = sum(_iterations(j) for j in _inside(eqn))
    if eqn.primitive.name == "scan":
      total += eqn.params["length"] * max(1, inner)
    else:
      total += inner
  return total


def _inside(eqn: Any) -> list[core.Jaxpr]:
  """The functions that an equation calls."""
  leaves = jax.tree.leaves(
    list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
  )
  found = [getattr(leaf, "jaxpr", leaf) for leaf in leaves]
  return [jaxpr for jaxpr in found if hasattr(jaxpr, "eqns")]


def _flops(closed: core.ClosedJaxpr) -> float:
  once = jax.jit(core.jaxpr_as_fun(closed)).lower(*closed.in_avals)
  found = once.cost_analysis()
  return float((found or {}).get("flops", 0.0)) + _repeated(closed.jaxpr)


def _repeated(jaxpr: core.Jaxpr) -> float:
  """What the second and later runs of the loops in it cost."""
  total = 0.0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "scan":
      body = eqn.params["jaxpr"]
      total += (eqn.params["length"] - 1) * _flops(body)
    total += sum(_repeated(inner) for inner in _inside(eqn))
  return total
