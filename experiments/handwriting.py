"""Handwriting synthesis on IAM-OnDB (section 6.5, Figure 5)."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks
from experiments.writing import Sampler, shown
from lnrnn import engine, ink
from lnrnn.data import batches, characters, iam_ondb
from lnrnn.data.pieces import PieceBatches
from lnrnn.errors import ConfigError
from lnrnn.models.handwriting import INPUTS, Handwriting, State, Text
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

METRICS = ("nll", "nll_per_point")
# What of each line is trained on.
PIECES = {
  "first": "its first points, with its whole text",
  "all": "all of it, in pieces between which the state is carried over",
}


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  c.one_of("data.source", iam_ondb.SOURCES)
  c.one_of("data.splitting", tuple(iam_ondb.SPLITTINGS))
  c.one_of("data.pieces", tuple(PIECES))
  c.within("data.points", 1)
  if config.data.pieces == "all":
    if config.norm == "batch":
      c.add("data.pieces", "batch norm's statistics are of the first points")
    if config.epochs:
      c.add("epochs", "data.pieces='all' is told in train_steps")
    if config.accumulate > 1:
      c.add(
        "accumulate", "data.pieces='all' carries the state of whole batches"
      )
  c.one_of("model.inputs", INPUTS)
  if config.model.inputs == "apart" and config.model.form not in (
    "separate",
    "per_gate",
  ):
    c.add("model.inputs", "apart goes with model.form separate or per_gate")
  c.within("model.features", 2)
  c.within("model.layers", 1)
  c.within("model.window", 0)
  c.within("model.mixtures", 1)
  c.within("model.pace", 0, 100, open_low=True)
  c.within("model.init_sd", 0, 100)
  c.within("model.forget_bias", -100, 100)
  c.within("model.min_deviation", 0, 100, open_low=True)
  c.within("eval_batch_size", 1)
  c.within("eval_cases", 0)
  c.within("sample_points", 1, 100_000)
  c.decided_by([f"{s}/{m}" for s in ("validation", "test") for m in METRICS])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/handwriting.py.

  Returns:
    The experiment; its evaluations give, of the first points of each line,
    `nll`, the mean over lines of -log p, and `nll_per_point`, in nats, offsets
    being in units of their standard deviations; and pictures of writing.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.5, Figure 5; Graves 2013, section 5.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  model = make_model(config)
  points = config.data.points
  data = load_data(config)
  best = config.best.partition("/")[0]
  if best and best not in data.splits:
    raise ConfigError(
      f"best={config.best!r}: the data has only {', '.join(data.splits)}"
    )
  arrays = {
    name: iam_ondb.padded(lines, points) for name, lines in data.splits.items()
  }
  evaluations = _Evaluations(config, model, arrays, data)
  splits = tuple(name for name in data.splits if name != "train")
  whole = config.data.pieces == "all"
  options = {
    "batch_size": config.batch_size,
    "seed": config.seed,
    "fingerprint": data.fingerprint,
  }
  train = arrays["train"]
  if whole:
    lines = data.splits["train"]
    text = {k: train[k] for k in ("text", "text_length")}
    train_data = PieceBatches(
      lines.offsets, lines.starts, text, steps=points, **options
    )
  else:
    train_data = batches.ShuffledBatches(train, **options)

  def begin() -> dict[str, jax.Array]:
    return _packed(_state_of(model, config.batch_size))

  def init(key, batch):
    variables = dict(model.init(key, *_inputs(model, batch)))
    return variables | ({"carry": begin()} if whole else {})

  def loss(variables, batch, key):
    del key
    state, carried = None, {}
    if whole:
      kept = engine.select(batch["begins"], begin(), variables["carry"])
      state = _unpacked(kept)
    own = {k: v for k, v in variables.items() if k != "carry"}
    others = [name for name in own if name != "params"]
    (state, nll), changed = cast(
      Any,
      model.apply(
        own, *_inputs(model, batch), state=state, train=True, mutable=others
      ),
    )
    if whole:
      carried = {"carry": jax.lax.stop_gradient(_packed(state))}
    points = jnp.maximum(batch["length"].sum(), 1)
    metrics = {"nll_per_point": nll.sum() / points}
    return nll.sum(axis=1).mean(), ({**changed, **carried}, metrics)

  return Experiment(
    init=init,
    loss=loss,
    train_data=train_data,
    evals={
      "nll": Eval(config.eval_every, evaluations.nll, ("train", *splits)),
      "writing": Eval(config.eval_every, evaluations.writing, ("validation",)),
    },
    data=data.description,
    model=model,
    assets={
      "alphabet": characters.decode(np.arange(characters.SIZE)),
      "mean": [float(v) for v in data.mean],
      "deviation": [float(v) for v in data.deviation],
    },
  )


def load_data(config: config_lib.Config) -> iam_ondb.Dataset:
  """The lines that `config` names."""
  c = config.data
  return iam_ondb.load(c.source, c.dir or None, c.splitting)


def make_model(config: config_lib.Config) -> Handwriting:
  """The network that `config` describes."""
  return Handwriting(
    norm=config.norm,
    characters=characters.SIZE,
    t_max=config.data.points,
    **config.model,
  )


def _inputs(model: Handwriting, batch: Mapping[str, Any]):
  """What the model is called with."""
  text = Text(batch["text"], batch["text_length"]) if model.window else None
  return batch["ink"], batch["length"], text


def _state_of(model: Handwriting, b: int) -> State:
  """The state at the beginning of lines, without any parameters."""
  zeros = lambda n: jnp.zeros((b, n))
  return State(
    lstms=((zeros(model.features), zeros(model.features)),) * model.layers,
    seen=zeros(model.characters) if model.window else None,
    place=zeros(model.window) if model.window else None,
    point=zeros(3),
  )


def _packed(state: State) -> dict[str, jax.Array]:
  """A state as a collection of variables."""
  leaves = {"point": state.point}
  if state.seen is not None and state.place is not None:
    leaves |= {"seen": state.seen, "place": state.place}
  for i, (c, h) in enumerate(state.lstms):
    leaves |= {f"c_{i}": c, f"h_{i}": h}
  return leaves


def _unpacked(leaves: Mapping[str, jax.Array]) -> State:
  """The state that `_packed` has packed."""
  layers = sum(name.startswith("c_") for name in leaves)
  return State(
    lstms=tuple((leaves[f"c_{i}"], leaves[f"h_{i}"]) for i in range(layers)),
    seen=leaves.get("seen"),
    place=leaves.get("place"),
    point=leaves["point"],
  )


class _Evaluations:
  """What is measured of a model, and shown of it.

  Args:
    config: of the run.
    model: to evaluate.
    arrays: {split: of `iam_ondb.padded`}.
    data: the lines.
  """

  def __init__(self, config, model: Handwriting, arrays, data):
    self._config, self._model = config, model
    self._arrays, self._data = arrays, data
    self._nll = jax.jit(self._of_lines)
    self._sampler = Sampler(config, model, data)

  def _of_lines(self, variables, batch):
    """-log p of each line of a batch, [m]."""
    variables = {k: v for k, v in variables.items() if k != "carry"}
    inputs = _inputs(self._model, batch)
    _, nll = cast(Any, self._model.apply(variables, *inputs))
    return nll.sum(axis=1)

  def nll(self, variables: Any, split: str, key: jax.Array) -> dict[str, float]:
    """-log p in nats: the mean over lines, and by the point."""
    del key
    arrays = self._arrays[split]
    rows = batches.shuffled(len(arrays["length"]), 0, 0)
    if n := self._config.eval_cases:
      arrays = {name: a[rows[:n]] for name, a in arrays.items()}
    size = min(self._config.eval_batch_size, len(arrays["length"]))
    chunks = {k: batches.padded(a, size)[0] for k, a in arrays.items()}
    real = batches.padded(arrays["length"], size)[1]
    # Chunk by chunk, so that a signal in between is heard.
    found = [
      jax.device_get(self._nll(variables, {k: a[i] for k, a in chunks.items()}))
      for i in range(len(real))
    ]
    nll = np.stack(found).astype(np.float64)[real]
    return {
      "nll": float(nll.mean()),
      "nll_per_point": float(nll.sum() / arrays["length"].sum()),
    }

  def writing(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, np.ndarray]:
    """A real line, and texts of the split as the model writes them."""
    lines = self._data.splits[split]
    biases = [0.0, 0.5, 1.0][: len(lines.texts)]
    texts = lines.texts[: len(biases)]
    sampler = self._sampler
    given = sampler.inputs(texts)
    written = sampler.write(variables, given, key, n=len(texts), bias=biases)
    inks = [sampler.units(a) for a in (lines.line(0), *shown(written))]
    names = [f"real: {texts[0]}"]
    names += [f"bias {b}: {t}" for b, t in zip(biases, texts, strict=True)]
    return {"writing": ink.pixels(ink.figure(inks, names))}
