"""The contenders of the task draw of scripts/benchmark.py that are ours."""

from typing import Any

from benchmark_common import Row, Run, serve
import benchmark_update_jax as updates
import jax

from configs import draw as configs
from experiments import draw
from lnrnn.training import step as step_lib


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; what was compared, memory and time to compile."""
  _, _, backward = name.partition("_")
  config = configs.get_config(
    f"norm={case['norm']},batch_size={case['batch_size']},"
    f"model.glimpses={case['glimpses']}"
  )
  with config.unlocked():  # No user's choice, so no field of the config.
    config.model.backward = backward or "fast"
  problem = {}
  if not backward:
    shape = (case["glimpses"], case["batch_size"], config.model.latents)
    problem = {
      "noise": jax.random.normal(step_lib.Keys.of(config.seed).step, shape),
      "read_size": config.model.read_size,
      "write_size": config.model.write_size,
      "eps": config.model.eps,
    }
  return updates.contender(case, config, draw.build(config), **problem)


if __name__ == "__main__":
  serve(make)
