"""The contenders of the task skip_thoughts of scripts/benchmark.py."""

import time
from typing import Any

from benchmark_common import Row, Run, Turns, serve
import benchmark_rnn_jax as layers
import benchmark_update_jax as updates
import jax
import jax.numpy as jnp
import numpy as np

from configs import skip_thoughts as configs
from experiments import skip_thoughts
from lnrnn.models.skip_thoughts import SIDES
from lnrnn.training import optim
from lnrnn.training import step as step_lib
from lnrnn.training.experiment import Experiment


def floor(case: dict[str, Any]) -> tuple[Any, tuple]:
  """The products of an update, and their arguments."""
  b, t, h, v = (
    case[k] for k in ("batch_size", "steps", "features", "vocabulary")
  )
  layer = {
    "kind": "gru",
    "batch": b,
    "steps": t,
    "inputs": case["word_features"],
    "hidden": h,
  }
  (chain, of_chain), (bulk, of_bulk) = layers.chain(layer), layers.bulk(layer)
  rows = len(SIDES) * b * t
  softmax = (jnp.ones((rows, h)), jnp.full((h, v), 1e-3))

  def run(of_chain, of_bulk, states, kernel):
    # Each GRU has inputs of its own, or XLA would make its products once.
    grus = [
      (
        chain(of_chain[0] + i, *of_chain[1:]),
        bulk(of_bulk[0] + i, *of_bulk[1:]),
      )
      for i in range(1 + len(SIDES))
    ]
    a = states @ kernel
    return grus, (a @ kernel.T).sum(0), states.T @ a

  return run, (of_chain, of_bulk, *softmax)


def update(name: str, case: dict[str, Any]) -> tuple[Any, tuple]:
  """An update of ours, and its arguments."""
  norm = "none" if name == "lnrnn_none" else "layer"
  config = configs.get_config(
    f"norm={norm},batch_size={case['batch_size']},train_steps=1000000,"
    f"model.word_features={case['word_features']},"
    f"model.features={case['features']},data.max_words={case['steps'] - 1}"
  )
  model = skip_thoughts.make_model(config, case["vocabulary"])
  loss: Any = _whole if name == "whole" else skip_thoughts.loss
  experiment = Experiment(
    init=lambda key, batch: skip_thoughts.init(model, key, batch),
    loss=lambda *arguments: loss(config, model, *arguments),
    train_data=[_batch(case)],  # type: ignore
    evals={},
    data="",
  )
  tx = optim.make(config.optimizer, config.train_steps)
  keys = step_lib.Keys.of(config.seed)
  state = step_lib.init_state(experiment, tx, keys.init)

  def run(state, batch):
    return step_lib.update(experiment, tx, state, batch, keys.step)

  return run, (state, _batch(case))


def _batch(case: dict[str, Any]) -> dict[str, np.ndarray]:
  """Sentences of random words that fill all steps."""
  rng = np.random.default_rng(0)
  b, t = case["batch_size"], case["steps"]
  words = lambda: rng.integers(2, case["vocabulary"], (b, t), np.int32)
  batch = {name: words() for name in ("current", *SIDES)}
  return batch | {f"{name}_length": np.full(b, t, np.int32) for name in batch}


def _whole(config, model, variables, batch, key):
  """As `skip_thoughts.loss`, with all logits at once."""
  del config, key
  states = model.apply(variables, *skip_thoughts.inputs(batch), train=True)
  nats = 0.0
  for side, h in zip(SIDES, states, strict=True):
    logits = model.apply(variables, h, method="logits")
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, batch[side][..., None], axis=-1)
    nats -= own.sum()  # No sentence is shorter than the batch.
  return nats, ({}, {})


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; memory, and time to compile."""
  if name == "floor":
    step, arguments = floor(case)
    donated = ()
  else:
    step, arguments = update(name, case)
    donated = (0,)
  began = time.perf_counter()
  jitted = jax.jit(step, donate_argnums=donated)
  compiled = jitted.lower(*arguments).compile()
  row: dict[str, Any] = {"compile_s": time.perf_counter() - began}
  if memory := compiled.memory_analysis():
    row["memory_mib"] = memory.temp_size_in_bytes / 2**20
    row["arguments_mib"] = memory.argument_size_in_bytes / 2**20
  row["versions"] = updates.versions()

  def turn():
    nonlocal arguments
    out = jax.block_until_ready(compiled(*arguments))
    if donated:
      arguments = (out[0], *arguments[1:])

  return Turns(turn).run, row


if __name__ == "__main__":
  serve(make)
