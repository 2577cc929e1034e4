"""What is measured of an attentive reader, and what it answers."""

from collections.abc import Mapping
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import losses
from lnrnn.data import batches, cloze_batches, cloze_examples, vocabulary
from lnrnn.data.cloze import Dataset
from lnrnn.data.cloze_batches import ClozeBatches
from lnrnn.data.cloze_examples import Examples
from lnrnn.models.attentive_reader import AttentiveReader
from lnrnn.training import config as config_lib
from lnrnn.training import population

# What is measured of a model; for batch norm by minibatch statistics too.
MEASURES = ("error", "entity_error", "nll")
TRAIN_EXAMPLES = 4000  # Of the training split are evaluated, at most.
# What is measured of the questions; see `cloze_examples.Baselines`.
BASELINES = {
  "floor": "floor",
  "most_frequent": "most_frequent_error",
  "first": "first_error",
  "random": "random_error",
}


def inputs(batch: Mapping[str, Any]) -> tuple[Any, ...]:
  """What `AttentiveReader` is called with."""
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
          variables, *inputs(batch), train=True, mutable=["batch_stats"]
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
    examples = cloze_examples.chosen(self._data.splits[split], most)
    variables = self.at_test(variables, key)
    found = {}
    for prefix in self._models:
      measured = self.answer(variables, examples, prefix)
      names = MEASURES if self._has_entities() else ("error", "nll")
      found |= {f"{prefix}{k}": float(measured[k].mean()) for k in names}
    if self._has_entities():
      baselines = cloze_examples.measured(examples, self._data.entities)
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
    found = self._models[""].apply(variables, *inputs(batch))
    return np.asarray(cast(Any, found).attention)


def _answers(model, entities, variables, batch):
  """What `Reader.answer` collects, of one batch."""
  logits = model.apply(variables, *inputs(batch)).logits
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
