"""What the JAX workers of the tasks that time a model's update share."""

from collections.abc import Callable
import importlib.metadata
import time
from typing import Any

from benchmark_common import Row, Run, Turns
import benchmark_update_problem as problems
import jax
import numpy as np

from lnrnn.training import optim
from lnrnn.training import step as step_lib


def contender(
  case: problems.Case,
  config: Any,
  experiment: Any,
  short: Callable[[Any], Any] = lambda batch: batch,
  **problem: Any,
) -> tuple[Run, Row]:
  """Updates of an experiment on its first batch.

  Args:
    case: names the problem file, which the first contender writes.
    config: of the experiment.
    experiment: to update.
    short: a part of a batch; its gradients are compared.
    **problem: what else goes into the file, beside the batch.

  Returns:
    Its turn; what was compared, memory and time to compile.
  """
  tx = optim.make(config.optimizer, config.train_steps)
  keys = step_lib.Keys.of(config.seed)
  state = step_lib.init_state(experiment, tx, keys.init)
  params = _perturbed(state.variables["params"])
  variables = {**state.variables, "params": params}
  batch = jax.tree.map(lambda a: a[0], experiment.train_data.stacked(0, 1))

  def value(params, batch):
    given = {**variables, "params": params}
    return experiment.loss(given, batch, keys.step)[0]

  first = jax.jit(value)(params, batch)
  gradients = _named(jax.jit(jax.grad(value))(params, short(batch)))
  if problem:
    np.savez(
      case["problem"],
      rate=config.optimizer.learning_rate,
      betas=(config.optimizer.b1, config.optimizer.b2),
      adam_eps=config.optimizer.eps,
      clip=config.optimizer.clip,
      **{f"batch/{k}": v for k, v in batch.items()},
      **{f"params/{k}": v for k, v in _named(params).items()},
      **{f"gradients/{k}": v for k, v in gradients.items()},
      **problem,
    )
  row = problems.compared(case, float(first), gradients)

  state = state._replace(variables=variables)
  update = lambda state, batch: step_lib.update(
    experiment, tx, state, batch, keys.step
  )
  began = time.perf_counter()
  compiled = jax.jit(update, donate_argnums=0).lower(state, batch).compile()
  row["compile_s"] = time.perf_counter() - began
  memory = compiled.memory_analysis()
  row["memory_mib"] = memory.temp_size_in_bytes / 2**20 if memory else None
  row["versions"] = versions()

  def step():
    nonlocal state
    state, metrics = compiled(state, batch)
    jax.block_until_ready((state, metrics))

  return Turns(step).run, row


def versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  names = ("jax", "jaxlib", "flax", "optax", "numpy")
  return {name: importlib.metadata.version(name) for name in names}


def _named(tree: Any) -> dict[str, np.ndarray]:
  """The leaves by their names joined by slashes."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {"/".join(k.key for k in path): np.asarray(a) for path, a in flat}


def _perturbed(params: Any) -> Any:
  """Parameters with noise, so that windows move and gains differ."""
  rng = np.random.default_rng(0)
  noisy = lambda a: a + 0.05 * rng.standard_normal(a.shape, np.float32)
  return jax.tree.map(noisy, params)
