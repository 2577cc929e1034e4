"""What the contenders of the task rnn of scripts/benchmark.py compute."""

from typing import Any

import numpy as np

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]

GATES = {"lstm": 4, "gru": 3}
# Over which contenders are compared: few, as rounding errors grow with time.
CHECKED_STEPS = 4


def draw(shapes: dict[str, tuple[int, ...]]) -> Arrays:
  """Random arrays: gains about one, products with weights of unit variance."""
  rng = np.random.default_rng(0)

  def one(name, shape):
    value = rng.standard_normal(shape, np.float32)
    if name.endswith("gain"):
      return 1 + np.float32(0.1) * value
    if name.endswith("bias") or name == "b":
      return np.float32(0.1) * value
    return value / np.sqrt(np.float32(shape[0])) if name[0] == "w" else value

  return {name: one(name, shape) for name, shape in shapes.items()}


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
  """The inputs [t, b, d], and the cotangent of the outputs [t, b, h]."""
  t, b = case["steps"], case["batch"]
  shapes = {"x": (t, b, case["inputs"]), "g": (t, b, case["hidden"])}
  x, g = draw(shapes).values()
  return x, g / (t * b)


def bulk_shapes(case: Case) -> dict[str, tuple[int, ...]]:
  """Of the arrays in the products for all time steps at once."""
  n, d, h = case["steps"] * case["batch"], case["inputs"], case["hidden"]
  return {"x": (n, d), "h": (n, h), "w_x": (d, GATES[case["kind"]] * h)}


def save(case: Case, params: Arrays, loss: Any, d_x: Any) -> None:
  """Writes the problem file.

  Args:
    case: its sizes and the file's name.
    params: under their names in the variables of our cells.
    loss: ours of the checked steps.
    d_x: [t, b, d] our gradient of the inputs over the checked steps.
  """
  x, g = data(case)
  named: dict[str, Any] = {f"params/{k}": v for k, v in params.items()}
  np.savez(case["problem"], x=x, g=g, loss=loss, d_x=d_x, **named)


def load(case: Case, prefix: str = "") -> Arrays:
  """What stands in the problem file under a prefix, which is left off."""
  with np.load(case["problem"]) as file:
    names = [name for name in file if name.startswith(prefix)]
    return {name.removeprefix(prefix): file[name] for name in names}


def compared(case: Case, loss: float, d_x: np.ndarray) -> dict[str, float]:
  """A contender's loss, and how far its gradient is from ours.

  Args:
    case: names the problem file.
    loss: its own of the checked steps.
    d_x: [t, b, d] its own.

  Returns:
    "loss", and "gradient_difference" relative to the largest element.
  """
  ours = load(case, "d_x")[""]
  difference = np.abs(d_x - ours).max() / np.abs(ours).max()
  return {"loss": loss, "gradient_difference": float(difference)}
