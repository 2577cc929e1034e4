"""The five tasks of section 6.3 and what is evaluated on them."""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any, NamedTuple, cast

import numpy as np

from lnrnn import downstream
from lnrnn.arrays import unit
from lnrnn.data import mnist, sentence_tasks, word_vectors
from lnrnn.sentence_encoder import SkipThoughtEncoder, tokens

TASKS = ("sick", *sentence_tasks.CLASSIFICATION)
CHOICES = ("kept", "split", "nested")


class Encoder(NamedTuple):
  """What is evaluated.

  Attributes:
    encode: (texts, whether the end is read) -> [n, h].
    unknown: texts -> part of their words that have no vector.
  """

  encode: Callable[[Sequence[str], bool], np.ndarray]
  unknown: Callable[[Sequence[str]], float]

  @classmethod
  def of(cls, model: SkipThoughtEncoder) -> "Encoder":
    """A trained model."""
    return cls(lambda texts, end: model.encode(texts, end=end), model.unknown)

  @classmethod
  def bag(cls, vectors: word_vectors.WordVectors) -> "Encoder":
    """The mean of word vectors, to length 1 as those of sentences."""
    bag = lambda texts: downstream.bag_of_vectors(
      [tokens(text) for text in texts], vectors
    )
    return cls(
      lambda texts, end: unit(bag(texts)[0]), lambda texts: bag(texts)[1]
    )


class Suite:
  """The tasks and their data.

  Args:
    data_dir: with the folders sick and sentence_classification.
    tasks: of `TASKS`.

  Attributes:
    names: of the tasks.

  Raises:
    DataError: a file is missing or damaged.
  """

  def __init__(self, data_dir: str | None, tasks: Sequence[str]):
    self.names = tuple(tasks)
    self._pairs, self._labelled = {}, {}
    for name in tasks:
      where = folder(data_dir, name)
      if name == "sick":
        self._pairs = sentence_tasks.read_sick(where)
      else:
        self._labelled[name] = sentence_tasks.read_labelled(where, name)

  def measure(
    self, encoder: Encoder, choice: str, kept: dict[str, list[float]]
  ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Evaluates vectors of sentences.

    Args:
      encoder: of them.
      choice: of `CHOICES`.
      kept: inverse regularisations of each task's folds; "kept" fills in what
        is missing.

    Returns:
      Metrics: "sick_pearson", "sick_spearman", "sick_mse", of each
      classification its accuracy in percent and "..._sd" over the folds, and
      of each task "..._unknown", the part of its words that have no vector;
      and what each test case gave: "sick" predictions, else booleans.
    """
    found, cases = {}, {}
    if self._pairs:
      parts = {}
      for split, pairs in self._pairs.items():
        both = encoder.encode([*pairs.a, *pairs.b], True)
        parts[split] = (*np.split(both, 2), pairs.scores)
      got = downstream.relatedness(parts)
      for name in ("pearson", "spearman", "mse"):
        found[f"sick_{name}"] = float(getattr(got, name))
      cases["sick"] = got.predictions
      texts = [*self._pairs["test"].a, *self._pairs["test"].b]
      found["sick_unknown"] = encoder.unknown(texts)
    for name, data in self._labelled.items():
      x = encoder.encode(data.texts, False)
      how, fixed = choice, None
      if choice == "kept":
        how, fixed = ("fixed" if name in kept else "split"), kept.get(name)
      got = downstream.classification(
        x, data.labels, how=cast(Any, how), fixed=fixed
      )
      if choice == "kept":
        kept[name] = [float(c) for c in got.cs]
      found[name] = 100 * float(got.accuracy)
      found[f"{name}_sd"] = 100 * float(np.std(got.fold_accuracies, ddof=1))
      found[f"{name}_unknown"] = encoder.unknown(data.texts)
      cases[name] = got.correct
    return found, cases


def folder(data_dir: str | None, task: str) -> pathlib.Path:
  """The directory of a task's files.

  Args:
    data_dir: as of `mnist.find_folder`.
    task: of `TASKS`.

  Raises:
    DataError: there is none.
  """
  name = "sick" if task == "sick" else "sentence_classification"
  return mnist.find_folder(data_dir, f"the task {task}", name, embedded=False)
