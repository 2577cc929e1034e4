"""Runs the evaluations of an experiment."""

from collections.abc import Callable, Iterable
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn.training.experiment import Eval, Experiment

Due = Callable[[Eval], Iterable[str]]


def run_evals(
  experiment: Experiment, variables: Any, key: jax.Array, due: Due
) -> dict[str, Any]:
  """Runs the evaluations that are due.

  Args:
    experiment: with the evaluations.
    variables: to evaluate.
    key: random key of this evaluation.
    due: Eval -> the splits to run it on.

  Returns:
    {"split/metric": value}, numbers as floats, pictures as arrays.

  Raises:
    ValueError: two evaluations give the same metric.
    TypeError: a value is no number, text, path or picture.
  """
  found: dict[str, Any] = {}
  for ev in experiment.evals.values():
    for split in due(ev):
      for name, value in ev.fn(variables, split, key).items():
        full = f"{split}/{name}"
        if full in found:
          raise ValueError(f"two evaluations give the metric {full!r}")
        found[full] = _checked(full, value)
  return found


def _checked(name: str, value: Any) -> Any:
  """A metric as a float, a text, a path or an array of a picture."""
  if isinstance(value, str | os.PathLike):
    return value
  array = np.asarray(value)
  real = np.issubdtype(array.dtype, np.bool_) or (
    jnp.issubdtype(array.dtype, jnp.number) and not np.iscomplexobj(array)
  )
  if not real or array.ndim not in (0, 2, 3, 4):
    raise TypeError(
      f"metric {name!r} is {array.dtype} of shape {array.shape}: a number, a"
      " text, a path or a picture is needed"
    )
  return array if array.ndim else float(array)
