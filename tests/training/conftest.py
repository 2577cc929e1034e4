"""A task small enough to train in a blink, with all that a task may have."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

DIM = 3


class Rows:
  """Batches of a noisy line, pure in (seed, step)."""

  steps_per_epoch = 8

  def __init__(self, seed: int, fingerprint: str = "toy"):
    self.seed, self.fingerprint = seed, fingerprint

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([self.seed, step])
    x = rng.normal(size=(4, DIM)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1), "step": np.asarray(step, np.int32)}


def build(config, *, nan_from=None, nan_grads=False, fingerprint="toy"):
  """The task; from step `nan_from` on its loss is not a number."""

  def init(key, batch):
    return {
      "params": {"w": jax.random.normal(key, (DIM,)), "b": jnp.zeros(())},
      "batch_stats": {"mean": jnp.zeros(DIM)},
    }

  def loss(variables, batch, key):
    p, mean = variables["params"], variables["batch_stats"]["mean"]
    noise = jax.random.normal(key, (DIM,))
    y = (batch["x"] + 0.1 * noise - 0.01 * mean) @ p["w"] + p["b"]
    value = jnp.square(y - batch["y"]).mean()
    if nan_from is not None:
      value = jnp.where(batch["step"] < nan_from, value, jnp.nan)
    if nan_grads:  # The slope of the root at 0 is infinite, times 0.
      value += jnp.sqrt(0 * p["b"])
    new = {"mean": 0.9 * mean + 0.1 * batch["x"].mean(0)}
    return value, ({"batch_stats": new}, {"noise": noise[0]})

  def score(variables, split, key):
    w = np.asarray(variables["params"]["w"], np.float64)
    return {"error": float(np.square(w - 1).sum()), "note": f"of {split}"}

  return Experiment(
    init=init,
    loss=loss,
    train_data=Rows(config.seed, fingerprint),
    evals={"score": Eval(config.eval_every, score, ("validation",))},
    data="made up",
  )


@pytest.fixture(scope="session")
def task():
  """The function `build` of the toy task."""
  return build


@pytest.fixture(scope="session")
def settings():
  """**overrides -> a config for the toy task: 20 steps."""
  root = pathlib.Path(__file__).resolve().parents[2]

  def make(**overrides):
    fields = {"optimizer.learning_rate": 0.02} | {
      key.replace("__", "."): value for key, value in overrides.items()
    }
    args = [f"{key}={value}" for key, value in fields.items()]
    return config_lib.load_config(f"{root}/configs/mnist_mlp.py:smoke", args)

  return make
