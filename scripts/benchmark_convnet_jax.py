"""The contender of the task convnet of scripts/benchmark.py that is ours."""

from typing import Any

from benchmark_common import Row, Run, serve
import benchmark_update_jax as updates
import numpy as np

from configs import convnet as configs
from experiments import convnet
from lnrnn import losses
from lnrnn.data import batches
from lnrnn.errors import ConfigError
from lnrnn.training.experiment import Experiment


def pictures(b: int) -> dict[str, np.ndarray]:
  """Made-up pictures, scaled, with labels."""
  rng = np.random.default_rng(0)
  return {
    "image": rng.standard_normal((b, 32, 32, 3), np.float32),
    "label": rng.integers(0, 10, b),
  }


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; what was compared, memory and time to compile."""
  del name
  norm, _, form = case["norm"].partition("_")
  b, widths = case["batch_size"], ",".join(map(str, case["widths"]))
  config = configs.get_config(
    f"norm={norm},batch_size={b},model.depth={case['depth']},"
    f"model.widths=({widths},),model.ln_form={form or 'units'}"
  )
  if faults := convnet.check(config):
    raise ConfigError(*faults)
  model = convnet.make_model(config)
  data = batches.ShuffledBatches(pictures(b), b, seed=0, fingerprint="")

  def loss(variables, batch, key):
    del key
    others = [name for name in variables if name != "params"]
    logits, changed = model.apply(
      variables, batch["image"], train=True, mutable=others
    )
    return losses.cross_entropy(logits, batch["label"]).mean(), (changed, {})

  init = lambda key, batch: model.init(key, batch["image"])
  experiment = Experiment(init, loss, data, {}, "made-up pictures")
  m = config.model
  problem = {"eps": m.eps, "groups": m.groups, "slope": m.slope}
  return updates.contender(case, config, experiment, **problem)


if __name__ == "__main__":
  serve(make)
