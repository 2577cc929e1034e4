"""The contenders of the task draw of scripts/benchmark.py that are ours.

The first writes the problem file: the parameters under their names joined by
slashes, images, latent noise and gradients.
"""

import importlib.metadata
import time
from typing import Any

from benchmark_common import Row, Run, Turns, serve
import benchmark_draw_problem as problems
import jax
import numpy as np

from configs import draw as configs
from experiments import draw
from lnrnn.training import optim
from lnrnn.training import step as step_lib


def named(tree: Any) -> dict[str, np.ndarray]:
  """The leaves by their names joined by slashes."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {"/".join(k.key for k in path): np.asarray(a) for path, a in flat}


def perturbed(params: Any) -> Any:
  """Parameters with noise, so that windows move and gains differ."""
  rng = np.random.default_rng(0)
  noisy = lambda a: a + 0.05 * rng.standard_normal(a.shape, np.float32)
  return jax.tree.map(noisy, params)


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; what was compared, memory and time to compile."""
  _, _, backward = name.partition("_")
  config = configs.get_config(
    f"norm={case['norm']},batch_size={case['batch_size']},"
    f"model.glimpses={case['glimpses']}"
  )
  with config.unlocked():  # No user's choice, so no field of the config.
    config.model.backward = backward or "fast"
  experiment = draw.build(config)
  tx = optim.make(config.optimizer, config.train_steps)
  keys = step_lib.Keys.of(config.seed)
  state = step_lib.init_state(experiment, tx, keys.init)
  variables = {"params": perturbed(state.variables["params"])}
  data: Any = experiment.train_data
  image = data.stacked(0, 1)["image"][0]
  batch = {"image": image}

  loss = lambda params: experiment.loss({"params": params}, batch, keys.step)
  (bound, _), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    variables["params"]
  )
  gradients = named(gradients)
  if name == "lnrnn":
    shape = (case["glimpses"], case["batch_size"], config.model.latents)
    np.savez(
      case["problem"],
      image=image,
      noise=jax.random.normal(keys.step, shape),
      read_size=config.model.read_size,
      write_size=config.model.write_size,
      eps=config.model.eps,
      rate=config.optimizer.learning_rate,
      betas=(config.optimizer.b1, config.optimizer.b2),
      adam_eps=config.optimizer.eps,
      clip=config.optimizer.clip,
      **{f"params/{k}": v for k, v in named(variables["params"]).items()},
      **{f"gradients/{k}": v for k, v in gradients.items()},
    )
  row = problems.compared(case, float(bound), gradients)

  state = state._replace(variables=variables)
  update = lambda state, batch: step_lib.update(
    experiment, tx, state, batch, keys.step
  )
  began = time.perf_counter()
  jitted = jax.jit(update, donate_argnums=0)
  compiled = jitted.lower(state, batch).compile()
  row["compile_s"] = time.perf_counter() - began
  memory = compiled.memory_analysis()
  row["memory_mib"] = memory.temp_size_in_bytes / 2**20 if memory else None
  names = ("jax", "jaxlib", "flax", "optax", "numpy")
  row["versions"] = {n: importlib.metadata.version(n) for n in names}

  def step():
    nonlocal state
    state, metrics = compiled(state, batch)
    jax.block_until_ready((state, metrics))

  return Turns(step).run, row


if __name__ == "__main__":
  serve(make)
