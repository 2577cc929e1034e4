"""What the PyTorch workers of the tasks that time a model's update share."""

from collections.abc import Callable
import importlib
import importlib.metadata
import math
import runpy
from typing import Any

from benchmark_common import Row, Run, Turns
import benchmark_update_problem as problems
import numpy as np

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")


def contender(
  case: problems.Case,
  loss: Callable[..., Any],
  params: dict[str, Any],
  checked: tuple[Any, ...],
  fresh: Callable[[], tuple[Any, ...]],
  *,
  scripted: bool,
  short: tuple[Any, ...] | None = None,
) -> tuple[Run, Row]:
  """Updates by clipping and fused Adam.

  Args:
    case: names the problem file.
    loss: of the parameters and more.
    params: by their names.
    checked: what `loss` takes beside, where it is compared.
    fresh: what it takes in an update.
    scripted: whether it is under torch.jit.script, whose memory is not told.
    short: what it takes where gradients are compared; None is `checked`.

  Returns:
    Its turn, and what was compared.
  """
  problem = problems.load(case, "")
  memory = None
  if not scripted:
    given = [*params.values(), *(a for a in checked if torch.is_tensor(a))]
    memory = _kept_mib(lambda: loss(params, *checked), given)
  short = checked if short is None else short
  for _ in range(3 if scripted else 1):  # It is made faster after two.
    gradients = torch.autograd.grad(loss(params, *short), list(params.values()))
  value = loss(params, *checked).detach()
  pairs = zip(params, gradients, strict=True)
  row = problems.compared(
    case, float(value), {k: np.asarray(g) for k, g in pairs}
  )
  adam = torch.optim.Adam(
    params.values(),
    lr=float(problem["rate"]),
    betas=tuple(problem["betas"].tolist()),
    eps=float(problem["adam_eps"]),
    fused=True,
  )

  clip = float(problem["clip"]) or math.inf  # As ours, 0 clips nothing.

  def step():
    value = loss(params, *fresh())
    adam.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(params.values(), clip)
    adam.step()
    return value

  row["memory_mib"] = memory
  row["versions"] = versions()
  return Turns(step).run, row


def versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  return {n: importlib.metadata.version(n) for n in ("torch", "numpy")}


def parameters(case: problems.Case) -> dict[str, Any]:
  """Those of the problem file, by their names."""
  torch.set_num_threads(case["threads"])
  arrays = problems.load(case, "params/")
  return {k: torch.from_numpy(v).requires_grad_() for k, v in arrays.items()}


def scripted(path: str, *names: str) -> list[Any]:
  """Functions of a script's file under torch.jit.script, callees first.

  They are of a copy, so that those of the script stay as they are.
  """
  copy = runpy.run_path(path, run_name="copy")
  scope = copy[names[0]].__globals__
  for name in names:
    scope[name] = torch.jit.script(scope[name])
  return [scope[name] for name in names]


def _kept_mib(run: Callable[[], Any], given: list[Any]) -> float:
  """What autograd keeps of a pass, apart from what is given."""
  there = {a.untyped_storage().data_ptr() for a in given}
  kept = {}

  def pack(a):
    storage = a.untyped_storage()
    if storage.data_ptr() not in there:
      kept[storage.data_ptr()] = storage.nbytes()
    return a

  with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
    result = run()  # Held, so that no address is used twice.
  size = sum(kept.values()) / 2**20
  del result
  return size
