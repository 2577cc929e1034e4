"""What the contenders of a task that times a model's update compare."""

from typing import Any

import numpy as np

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]

# Of handwriting, over which gradients are compared.
CHECKED_POINTS = 20


def load(case: Case, prefix: str) -> Arrays:
  """What stands in the problem file under a prefix, which is left off."""
  with np.load(case["problem"]) as file:
    names = [name for name in file if name.startswith(prefix)]
    return {name.removeprefix(prefix): file[name] for name in names}


def compared(case: Case, loss: float, gradients: Arrays) -> dict[str, Any]:
  """A contender's loss, and how far its gradients are from ours.

  Args:
    case: names the problem file.
    loss: in nats.
    gradients: by the parameters' names.

  Returns:
    "loss"; "gradient_difference", the largest of a parameter's, relative to
    the largest element of its gradient, and "worst", which parameter's.
  """
  ours = load(case, "gradients/")
  differences = {
    name: float(np.abs(gradients[name] - g).max() / np.abs(g).max())
    for name, g in ours.items()
  }
  # A NaN is the worst.
  worst = max(differences, key=lambda k: np.nan_to_num(differences[k], nan=9e9))
  return {
    "loss": loss,
    "gradient_difference": differences[worst],
    "worst": worst,
  }
