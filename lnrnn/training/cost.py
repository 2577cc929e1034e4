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
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
    ):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        total += _repeated(inner)
  return total
