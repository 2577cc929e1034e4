"""The attentive reader on questions about passages (section 6.2, Figure 2)."""

import pathlib
from typing import Any, cast

import jax
import numpy as np

from experiments import checks
from experiments.reader import MEASURES, Reader, inputs
from lnrnn import losses, plotting, recurrent_bn
from lnrnn.data import (
  cloze_batches,
  cloze_examples,
  reading,
  vocabulary,
)
from lnrnn.data.cloze import Dataset
from lnrnn.data.cloze_batches import ClozeBatches
from lnrnn.errors import ConfigError
from lnrnn.models import attentive_reader
from lnrnn.models.attentive_reader import AttentiveReader
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment


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
    return model.init(key, *inputs(batch))

  def loss(variables, batch, key):
    others = [name for name in variables if name != "params"]
    found, changed = model.apply(
      variables,
      *inputs(batch),
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
    at_test=reader.at_test,
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
  examples = cloze_examples.chosen(data.splits[split], n)
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
