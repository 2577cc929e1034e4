"""The contenders of the task convnet of scripts/benchmark.py on PyTorch.

A straightforward network: a function of a dictionary of parameters, which bear
the names and shapes that they have in our model's variables. In memory they
lie as PyTorch wants them, so that to permute their axes moves nothing.
"""

import importlib
from typing import Any

from benchmark_common import Row, Run, serve
import benchmark_update_problem as problems
import benchmark_update_torch as updates

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")
F = importlib.import_module("torch.nn.functional")


def placed(a, form):
  """A parameter in memory as convolutions, or maps [h, w, c], take it.

  Args:
    a: the parameter.
    form: PyTorch's memory format.
  """
  if a.ndim == 4:
    a = a.permute(3, 2, 0, 1).contiguous(memory_format=form)
    a = a.permute(2, 3, 1, 0)
  elif a.ndim == 3 and form == torch.contiguous_format:
    a = a.permute(2, 0, 1).contiguous().permute(1, 2, 0)
  return a.detach().requires_grad_()


class Network:
  """The loss of the network; holds the averages of batch norm."""

  def __init__(self, case: problems.Case, params: dict[str, Any], form: Any):
    """Takes the norm and the sizes.

    Args:
      case: names the norm, the depth and the problem file.
      params: for their shapes.
      form: PyTorch's memory format of the maps.
    """
    problem = problems.load(case, "")
    self._norm, self._depth = case["norm"], case["depth"]
    self._padded = len(case["widths"]) * case["depth"]
    self._nhwc = form == torch.channels_last
    self._groups = int(problem["groups"])
    self._eps, self._slope = float(problem["eps"]), float(problem["slope"])
    self._averages = []
    for i in range(self._padded + 3):
      n = params[f"conv_{i}/layer/kernel"].shape[-1]
      self._averages.append((torch.zeros(n), torch.ones(n)))

  def loss(self, params: dict[str, Any], image, label):
    """The mean cross-entropy in nats of images [b, d, h, w]."""
    x = image
    for i in range(self._padded + 3):
      x = F.leaky_relu(self._layer(params, i, x), self._slope)
      if i < self._padded and (i + 1) % self._depth == 0:
        x = F.max_pool2d(x, 2)
    mean = x.mean((2, 3))
    logits = torch.addmm(params["output/bias"], mean, params["output/kernel"])
    return F.cross_entropy(logits, label)

  def _layer(self, params: dict[str, Any], i: int, x):
    """A convolution and its norm."""
    kernel = params[f"conv_{i}/layer/kernel"].permute(3, 2, 0, 1)
    padding = int(i < self._padded)
    if self._norm == "none":
      bias = params[f"conv_{i}/layer/bias"]
      return F.conv2d(x, kernel, bias, padding=padding)
    gain, bias = params[f"conv_{i}/norm/gain"], params[f"conv_{i}/norm/bias"]
    if self._norm == "weight":
      kernel = torch._weight_norm(kernel, gain[:, None, None, None])
      return F.conv2d(x, kernel, bias, padding=padding)
    a = F.conv2d(x, kernel, padding=padding)
    if self._norm == "batch":
      averages = self._averages[i]
      return F.batch_norm(a, *averages, gain, bias, True, eps=self._eps)
    if self._norm in ("group", "layer_maps"):
      groups = self._groups if self._norm == "group" else 1
      return F.group_norm(a, groups, gain, bias, self._eps)
    # Without a copy where the places and channels lie as they are normalised.
    if self._norm == "layer" and not self._nhwc:
      gain, bias = gain.permute(2, 0, 1), bias.permute(2, 0, 1)
      return F.layer_norm(a, gain.shape, gain, bias, self._eps)
    a = a.permute(0, 2, 3, 1)
    a = F.layer_norm(a, gain.shape, gain, bias, self._eps)
    return a.permute(0, 3, 1, 2)


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and what was compared."""
  nchw = name == "torch_nchw"
  form = torch.contiguous_format if nchw else torch.channels_last
  params = {k: placed(a, form) for k, a in updates.parameters(case).items()}
  loss = Network(case, params, form).loss
  batch = problems.load(case, "batch/")
  image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
  image = image.contiguous(memory_format=form)
  given = image, torch.from_numpy(batch["label"])
  return updates.contender(
    case, loss, params, given, lambda: given, scripted=False
  )


if __name__ == "__main__":
  serve(make)
