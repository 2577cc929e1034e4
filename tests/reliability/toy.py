"""A task with all that a task may have, small enough to be killed often.

`experiments.launch.train` runs it where `launch.task` is replaced by a function
that returns this module; so the campaigns go through the real entry.
"""

import hashlib
import json
import pathlib
import time

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import lnrnn
from lnrnn.training import config as config_lib
from lnrnn.training import health, loop, writers
from lnrnn.training.experiment import Eval, Experiment

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds that it takes to make a batch: how a step compares with a save.
SECONDS_A_BATCH = 0.0
_TIME, _DIM = 6, 3


def spec(**overrides) -> str:
  """The config of a run; `__` in a name stands for a dot.

  `eval_batch_size` is the number of random words in the state, 4 bytes each.
  """
  fields = {
    "batch_size": 4,
    "model__hidden": "(8,)",
    "optimizer__learning_rate": 0.02,
    "eval_batch_size": 1000,
    "log_every": 1,
    **overrides,
  }
  pairs = [f"{k.replace('__', '.')}={v}" for k, v in fields.items()]
  return f"{ROOT}/configs/mnist_mlp.py:{','.join(['smoke', *pairs])}"


class Sequences:
  """Noisy sequences, pure in (seed, step)."""

  steps_per_epoch = 8
  fingerprint = "sequences"

  def __init__(self, seed: int, rows: int):
    self._seed, self._rows = seed, rows

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    time.sleep(SECONDS_A_BATCH)
    rng = np.random.default_rng([self._seed, step])
    x = rng.normal(size=(self._rows, _TIME, _DIM)).astype(np.float32)
    return {"x": x, "y": np.cumsum(x.sum(2), 1)}


class Model(nn.Module):
  """Sums up its inputs: a GRU, LSTMs on it, or without widths none at all."""

  widths: tuple[int, ...]
  norm: str

  @nn.compact
  def __call__(self, x, *, train=False):
    for i, width in enumerate(self.widths):
      kind = lnrnn.LSTMCell if i else lnrnn.GRUCell
      x = lnrnn.RNN(kind(width, norm=self.norm), t_max=_TIME)(x, train=train)
    return nn.Dense(1)(x)[..., 0]


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config."""
  return config_lib.check_common(config).faults


def build(config: config_lib.Config) -> Experiment:
  """The task: noise of the step's key, statistics, and random words."""
  model = Model(config.model.hidden, config.norm)

  def init(key, batch):
    return {
      **model.init(key, batch["x"]),
      "running": {"mean": jnp.zeros(_DIM)},
      # They do not compress, so that a save takes its time, and they are
      # wrong for good if one step had another key.
      "words": {"bits": jax.random.bits(key, (config.eval_batch_size,))},
    }

  def loss(variables, batch, key):
    noise, words = jax.random.split(key)
    x = batch["x"] + 0.1 * jax.random.normal(noise, batch["x"].shape)
    known = dict(variables)
    mean, bits = known.pop("running")["mean"], known.pop("words")["bits"]
    others = [name for name in known if name != "params"]
    y, changed = model.apply(known, x - mean, train=True, mutable=others)
    changed |= {
      "running": {"mean": 0.9 * mean + 0.1 * batch["x"].mean((0, 1))},
      "words": {"bits": bits ^ jax.random.bits(words, bits.shape)},
    }
    return jnp.square(y - batch["y"]).mean(), (changed, {"drawn": x.sum()})

  def score(variables, split, key):
    words = np.asarray(variables["words"]["bits"][:4], np.float64)
    draw = float(jax.random.uniform(key))
    return {"error": float(words.sum()) * draw, "note": f"of {split}"}

  return Experiment(
    init=init,
    loss=loss,
    train_data=Sequences(config.seed, config.batch_size),
    evals={"score": Eval(config.eval_every, score, ("validation",))},
    data="made up",
  )


def digest(state) -> str:
  """sha256 over path, dtype, shape and bytes of every leaf of a state."""
  total = hashlib.sha256()
  for path, leaf in zip(
    health.paths(state), jax.tree.leaves(state), strict=True
  ):
    a = np.ascontiguousarray(leaf)
    total.update(f"{path} {a.dtype} {a.shape}".encode() + a.tobytes())
  return total.hexdigest()


def final(config, experiment, workdir) -> str:
  """The digest of the last state of a run."""
  return digest(loop.restore(config, experiment, workdir, "latest"))


def rows(workdir) -> list[dict]:
  """The rows of a run's metrics, without what its clock decides."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


def starts(workdir) -> list[int]:
  """The step that each start of a run began at."""
  path = pathlib.Path(workdir, "config.json")
  if not path.exists():
    return []
  return [start["step"] for start in json.loads(path.read_text())["starts"]]
