"""The contenders of the task handwriting of scripts/benchmark.py on JAX."""

from typing import Any, cast

from benchmark_common import Row, Run, Turns, serve
import benchmark_update_jax as updates
import benchmark_update_problem as problems
import jax
import jax.numpy as jnp
import numpy as np

from configs import handwriting as configs
from experiments import handwriting
from lnrnn import engine
from lnrnn.data import batches, characters
from lnrnn.models.handwriting import Handwriting, Text, Written
from lnrnn.training.experiment import Experiment

TEXT = 45  # Characters; a line of IAM-OnDB has 40 at most, but for a few.


def lines(b: int, t: int) -> dict[str, np.ndarray]:
  """Made-up lines, all of them of full length."""
  rng = np.random.default_rng(0)
  ink = rng.standard_normal((b, t, 3), np.float32)
  ink[..., 2] = ink[..., 2] > 1.5
  return {
    "ink": ink,
    "length": np.full(b, t, np.int32),
    "text": rng.integers(0, characters.SIZE, (b, TEXT)).astype(np.uint8),
    "text_length": np.full(b, TEXT, np.int32),
  }


class OneScan(Handwriting):
  """The same network with all layers in the loop over the points."""

  def _run(self, ink, lengths, text, state, *, train=False):
    del lengths, train  # All lines are of full length here.
    state = self.start(len(ink)) if state is None else state
    points = jnp.moveaxis(ink, 0, 1)
    x = jnp.concatenate([state.point[None], points[:-1]])
    layers = self._recurrences(text)
    weights, consts = {}, []
    for i, layer in enumerate(layers):
      weights |= {f"{i}/{name}": w for name, w in layer.weights.items()}
      consts.append(layer.consts)

    def step(dot, consts, carries, x):
      news, hs, inputs = [], [], x
      for i, layer in enumerate(layers):
        own = lambda v, name, i=i: dot(v, f"{i}/{name}")
        new, h = layer.step(own, consts[i], carries[i], inputs)
        if i == 0:
          h, seen = h
          x = jnp.concatenate([x, seen], axis=-1)
        news.append(new)
        hs.append(h)
        inputs = jnp.concatenate([x, h], axis=-1)
      return tuple(news), jnp.concatenate(hs, axis=-1)

    first = (state.lstms[0], state.seen, state.place)
    carries = (first, *state.lstms[1:])
    _, hs = engine.scan(step, weights, tuple(consts), carries, x)
    kernel, bias = self.to_output
    return state, hs @ kernel + bias


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; what was compared, memory and time to compile."""
  sampling = case["part"] == "sample"
  b, t = case["batch_size"], 20 if sampling else case["points"]
  config = configs.get_config(
    f"norm={case['norm']},batch_size={b},data.points={t},"
    f"model.features={case['features']},model.pace=0.04"
  )
  model = handwriting.make_model(config)
  if name == "one_scan":
    fields = {k: getattr(model, k) for k in model.__dataclass_fields__}
    del fields["parent"], fields["name"]
    model = OneScan(**fields)
  data = batches.ShuffledBatches(lines(b, t), b, seed=0, fingerprint="")

  def inputs(batch):
    text = Text(batch["text"], batch["text_length"])
    return batch["ink"], batch["length"], text

  def loss(variables, batch, key):
    del key
    _, nll = cast(Any, model.apply(variables, *inputs(batch)))
    return nll.sum(axis=1).mean(), ({}, {})

  init = lambda key, batch: model.init(key, *inputs(batch))
  experiment = Experiment(init, loss, data, {}, "made-up lines")
  problem = {}
  if name == "lnrnn":
    problem = {
      "eps": config.model.eps,
      "layers": config.model.layers,
      "min_deviation": config.model.min_deviation,
    }

  def short(batch):
    # Over hundreds of points, rounding decides the gradients.
    length = np.minimum(batch["length"], problems.CHECKED_POINTS)
    ink = batch["ink"][:, : problems.CHECKED_POINTS]
    return {**batch, "ink": ink, "length": length}

  run, row = updates.contender(case, config, experiment, short=short, **problem)
  if not sampling:
    return run, row
  if name == "one_scan":
    raise ValueError("samples as lnrnn does")
  variables = jax.jit(init)(jax.random.key(0), data[0])
  text = inputs(data[0])[2]
  steps = case["points"]
  write = jax.jit(
    lambda variables, key: model.apply(
      variables, key, text, steps=steps, method="sample"
    )
  )
  key = jax.random.key(0)
  # An untrained window comes to the end of no text.
  assert (cast(Written, write(variables, key)).lengths == steps).all()
  row["memory_mib"] = None
  return Turns(lambda: jax.block_until_ready(write(variables, key))).run, row


if __name__ == "__main__":
  serve(make)
