"""The attentive reader on questions about passages (section 6.2, Figure 2)."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks
from lnrnn import losses, plotting, recurrent_bn
from lnrnn.data import batches, cloze, cloze_batches, reading, vocabulary
from lnrnn.data.cloze import Dataset, Examples
from lnrnn.data.cloze_batches import ClozeBatches
from lnrnn.errors import ConfigError
from lnrnn.models import attentive_reader
from lnrnn.models.attentive_reader import AttentiveReader
from lnrnn.training import config as config_lib
from lnrnn.training import population
from lnrnn.training.experiment import Eval, Experiment

# What is measured of a model; for batch norm by minibatch statistics too.
MEASURES = ("error", "entity_error", "nll")
TRAIN_EXAMPLES = 4000  # Of the training split are evaluated, at most.
# What is measured of the questions; see `cloze.Baselines`.
BASELINES = {
  "floor": "floor",
  "most_frequent": "most_frequent_error",
  "first": "first_error",
  "random": "random_error",
}


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  c.one_of("data.source", reading.SOURCES)
  c.one_of("model.weight_init", attentive_reader.INITS)
  c.one_of("model.bn_padding", recurrent_bn.PADDING)
  c.within("model.bn_momentum", 0, 1, open_high=True)
  c.within("model.features", 2)
  c.within("model.dropout", 0, 1, open_high=True)
  c.within("data.task", 1, 20)
  for field in ("sentences", "most_words", "max_passage", "max_query"):
    c.within(f"data.{field}", 0)
  c.within("data.multiple", 1, 10_000)
  c.within("data.run", 1, 10_000)
  c.within("eval_examples", 0)
  c.within("eval_bn_batches", 0)
  if config.data.source == "babi" and config.data.permute:
    # A story's people have no number to be told by.
    c.add("data.permute", "must be false: bAbI has no anonymous entities")
  if config.norm == "batch" and config.eval_examples == 1:
    c.add("eval_examples", "batch norm needs at least 2")
  if config.norm in ("layer", "batch", "rms") and config.model.eps == 0:
    c.add("model.eps", "must be above 0: the initial state has variance 0")
  if config.norm == "none" and config.model.norm_everywhere:
    c.add("model.norm_everywhere", "needs a norm")
  names = [*MEASURES]
  if config.data.source == "babi":
    names.remove("entity_error")
  if config.norm == "batch":
    names += [f"minibatch_{name}" for name in names]
  c.decided_by([f"{s}/{n}" for s in ("train", "validation") for n in names])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/attentive_reader.py.

  Returns:
    The experiment. Its evaluations, without dropout, give "error", the part
    of the questions whose most likely word is not the answer; "entity_error",
    the same where only the passage's entities are asked; "nll", nats per
    question; for batch norm these by statistics of the training set under the
    parameters at hand, and by those of minibatches as "minibatch_..."; and the
    errors that need no model.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.2, Figure 2; Hermann et al. 2015.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  data = load_data(config)
  model = make_model(config, data)
  train_data = make_batches(config, data)

  def init(key, batch):
    return model.init(key, *_inputs(batch))

  def loss(variables, batch, key):
    others = [name for name in variables if name != "params"]
    found, changed = model.apply(
      variables,
      *_inputs(batch),
      train=True,
      rngs={"dropout": key},
      mutable=others,
    )
    logits = cast(Any, found).logits
    nll = losses.cross_entropy(logits, batch["answer"]).mean()
    wrong = logits.argmax(axis=-1) != batch["answer"]
    return nll, (changed, {"error": wrong.mean()})

  reader = Reader(config, model, data, train_data)
  every = config.eval_every
  return Experiment(
    init=init,
    loss=loss,
    train_data=train_data,
    evals={
      "reader": Eval(every, reader.measure, ("train", "validation")),
      "test": Eval(every, reader.measure, ("test",), of_best=True),
    },
    data=data.description,
    model=model,
    assets={
      "vocabulary": list(data.vocabulary.words),
      "preprocessing": {
        "special": list(vocabulary.SPECIAL),
        "entities": list(data.entities),
        "sentences": config.data.sentences,
      },
    },
  )


def load_data(config: config_lib.Config) -> Dataset:
  """The questions that `config` names."""
  c = config.data
  return reading.load(
    c.source,
    c.dir or None,
    sentences=c.sentences,
    most_words=c.most_words,
    max_passage=c.max_passage,
    max_query=c.max_query,
    task=c.task,
    strict=c.strict,
  )


def make_model(config: config_lib.Config, data: Dataset) -> AttentiveReader:
  """The model that `config` describes."""
  train = data.splits["train"]
  longest = int(train.passages.lengths.max())
  return AttentiveReader(
    vocabulary=len(data.vocabulary),
    norm=config.norm,
    t_passage=vocabulary.rounded(longest, config.data.multiple),
    t_query=cloze_batches.query_steps(train),
    **config.model,
  )


def make_batches(config: config_lib.Config, data: Dataset) -> ClozeBatches:
  """The training batches that `config` describes."""
  return ClozeBatches(
    data.splits["train"],
    data.entities,
    batch_size=config.batch_size,
    seed=config.seed,
    fingerprint=data.fingerprint,
    multiple=config.data.multiple,
    run=config.data.run,
    permute=config.data.permute,
  )


def _inputs(batch: Mapping[str, Any]) -> tuple[Any, ...]:
  names = ("passage", "passage_length", "query", "query_length")
  return tuple(batch[name] for name in names)


class Reader:
  """Answers the questions of a split.

  Args:
    config: of the run.
    model: of the run.
    data: of the run.
    batches: of training, for batch norm's statistics.
  """

  def __init__(
    self,
    config: config_lib.Config,
    model: AttentiveReader,
    data: Dataset,
    batches: ClozeBatches,
  ):
    self._config, self._data, self._batches = config, data, batches
    self._models = {"": model}
    if config.norm == "batch":
      self._models["minibatch_"] = model.clone(bn_test="minibatch")
      # As the model is at test, without dropout.
      fresh = model.clone(
        dropout=0.0,
        bn_momentum=population.momentum(
          max(1, config.eval_bn_batches * config.accumulate)
        ),
      )
      self._estimate = jax.jit(
        lambda variables, batch, key: fresh.apply(
          variables, *_inputs(batch), train=True, mutable=["batch_stats"]
        )[1]
      )
    # The last variables whose statistics were taken, and with them.
    self._estimated: tuple[Any, Any] = (None, None)
    self._answers = {
      name: jax.jit(functools.partial(_answers, model, data.entities))
      for name, model in self._models.items()
    }

  def measure(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """Errors and likelihood of a split, or of some of its questions."""
    most = self._config.eval_examples
    if split == "train":
      most = min(most or TRAIN_EXAMPLES, TRAIN_EXAMPLES)
    elif split == "test":
      most = 0  # Looked at once.
    examples = cloze.chosen(self._data.splits[split], most)
    variables = self.at_test(variables, key)
    found = {}
    for prefix in self._models:
      measured = self.answer(variables, examples, prefix)
      names = MEASURES if self._has_entities() else ("error", "nll")
      found |= {f"{prefix}{k}": float(measured[k].mean()) for k in names}
    if self._has_entities():
      baselines = cloze.measured(examples, self._data.entities)
      for field, name in BASELINES.items():
        found[name] = getattr(baselines, field)
    return found

  def at_test(self, variables: Any, key: jax.Array) -> Any:
    """The variables, for batch norm with statistics of their own."""
    n = self._config.eval_bn_batches
    if self._config.norm != "batch" or not n:
      return variables
    if self._estimated[0] is not variables:  # Splits come one by one.
      whole = self._batches.steps_per_epoch
      # Spread over an epoch, as `data.run` puts those of one length together.
      steps = np.linspace(0, whole, min(n, whole), endpoint=False).astype(int)
      parts = self._config.accumulate
      found = population.estimated(
        variables,
        (
          {name: rows[part::parts] for name, rows in self._batches[i].items()}
          for i in steps.tolist()
          for part in range(parts)
        ),
        self._estimate,
        key,
      )
      self._estimated = variables, found
    return self._estimated[1]

  def _has_entities(self) -> bool:
    first, last = self._data.entities
    return first < last

  def answer(
    self, variables: Any, examples: Examples, which: str = ""
  ) -> dict[str, np.ndarray]:
    """Answers questions, those of like length together.

    Args:
      variables: of the run.
      examples: n of them.
      which: "", or "minibatch_" for batch norm by the statistics of the
        questions that are answered together.

    Returns:
      "error" and "entity_error" booleans [n], "nll" [n], and "word" int32
      [n], the most likely.
    """
    n = len(examples.answers)
    # As many as batch norm sees in training.
    size = self._config.batch_size // self._config.accumulate
    lengths = examples.passages.lengths
    order = np.argsort(lengths, kind="stable")
    found: dict[str, np.ndarray] = {}
    for block, _ in batches.blocks(n, size):
      rows = order[block]
      batch = self.batch(examples, rows)
      for name, values in self._answers[which](variables, batch).items():
        values = np.asarray(values)
        found.setdefault(name, np.empty(n, values.dtype))[rows] = values
    return found

  def batch(self, examples: Examples, rows: np.ndarray) -> dict[str, Any]:
    """Some examples in the shape of training batches."""
    longest = examples.passages.lengths[rows].max()
    steps = vocabulary.rounded(longest, self._config.data.multiple)
    query = cloze_batches.query_steps(self._data.splits["train"])
    query = max(query, cloze_batches.query_steps(examples))
    return cloze_batches.gathered(examples, rows, steps, query)

  def attention(self, variables: Any, batch: Mapping[str, Any]) -> np.ndarray:
    """Weights [b, t] of the passages' words."""
    found = self._models[""].apply(variables, *_inputs(batch))
    return np.asarray(cast(Any, found).attention)


def _answers(model, entities, variables, batch):
  """What `Reader.answer` collects, of one batch."""
  logits = model.apply(variables, *_inputs(batch)).logits
  answer, passage = batch["answer"], batch["passage"]
  word = logits.argmax(axis=-1)
  # The entities of each passage; its padding is none.
  rows = jnp.arange(len(answer))[:, None]
  there = jnp.zeros(logits.shape, bool).at[rows, passage].set(True)
  numbers = jnp.arange(logits.shape[-1])
  own = there & (numbers >= entities[0]) & (numbers < entities[1])
  among = jnp.where(own, logits, -jnp.inf).argmax(axis=-1)
  hit = own.any(axis=-1) & (among == answer)
  return {
    "error": word != answer,
    "entity_error": ~hit,
    "nll": losses.cross_entropy(logits, answer),
    "word": word.astype(jnp.int32),
  }


def pictures(
  config: config_lib.Config,
  variables: Any,
  split: str,
  n: int,
  folder: pathlib.Path,
) -> list[pathlib.Path]:
  """Draws where a run looked in some passages.

  Args:
    config: of the run.
    variables: of the run.
    split: whose questions are asked.
    n: how many.
    folder: for the pictures.

  Returns:
    The files.
  """
  data = load_data(config)
  examples = cloze.chosen(data.splits[split], n)
  reader = Reader(
    config, make_model(config, data), data, make_batches(config, data)
  )
  variables = reader.at_test(variables, jax.random.key(0))
  rows = np.arange(len(examples.answers))
  batch = reader.batch(examples, rows)
  weights = reader.attention(variables, batch)
  guesses = reader.answer(variables, examples)["word"]
  words = [*vocabulary.SPECIAL, *data.vocabulary.words]
  made = []
  for i in rows.tolist():
    passage, query = (
      [words[w] for w in batch[kind][i, : batch[f"{kind}_length"][i]]]
      for kind in ("passage", "query")
    )
    said, right = words[guesses[i]], words[examples.answers[i]]
    made.append(
      plotting.attention(
        passage,
        weights[i, : len(passage)],
        title=f"{' '.join(query)}\nsaid {said}, right is {right}",
        path=folder / f"attention_{split}_{i}.png",
      )
    )
  return made
