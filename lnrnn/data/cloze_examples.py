"""Encoded questions: some of them, and the errors that need no model."""

from typing import NamedTuple

import numpy as np

from lnrnn.data import batches, vocabulary
from lnrnn.data.vocabulary import Sentences


class Examples(NamedTuple):
  """Encoded questions; n of them.

  Attributes:
    passages: n sequences of numbers of words.
    queries: likewise.
    answers: int32 [n] numbers of words.
  """

  passages: Sentences
  queries: Sentences
  answers: np.ndarray


class Baselines(NamedTuple):
  """Errors that need no model, as parts of 1.

  Attributes:
    floor: the passage does not hold the answer.
    most_frequent: of naming the entity that the passage has most often, and
      the query has not; of equals the one that comes first.
    first: of naming the entity that comes first, the query's own aside.
    random: of naming any of those, each with the same chance.
  """

  floor: float
  most_frequent: float
  first: float
  random: float


def measured(examples: Examples, entities: tuple[int, int]) -> Baselines:
  """The errors that need no model.

  Args:
    examples: n of them.
    entities: number of the first one, and the one after the last.
  """
  first, last = entities
  n, width = len(examples.answers), last - first

  def pairs(sentences):
    rows = np.repeat(np.arange(n), np.diff(sentences.starts))
    own = (sentences.tokens >= first) & (sentences.tokens < last)
    return rows[own] * width + sentences.tokens[own] - first

  # Of each example its entities, how often and where first they are there.
  keys, at, counts = np.unique(
    pairs(examples.passages), return_index=True, return_counts=True
  )
  right = np.arange(n) * width + examples.answers - first
  right[(examples.answers < first) | (examples.answers >= last)] = -1
  floor = 1 - np.isin(right, keys).mean()
  may = ~np.isin(keys, pairs(examples.queries))
  keys, at, counts = keys[may], at[may], counts[may]
  rows, hits = keys // width, keys == right[keys // width]

  def error(order):
    """Of the first entity of each example in this order."""
    _, lead = np.unique(rows[order], return_index=True)
    return 1 - hits[order][lead].sum() / n

  number = np.bincount(rows, minlength=n)
  return Baselines(
    floor=float(floor),
    most_frequent=float(error(np.lexsort((at, -counts, rows)))),
    first=float(error(np.lexsort((at, rows)))),
    random=float(1 - (hits / number[rows]).sum() / n),
  )


def chosen(examples: Examples, most: int) -> Examples:
  """Some examples, drawn at random, always the same.

  Args:
    examples: n of them.
    most: how many; 0 is all.
  """
  n = len(examples.answers)
  if not most or most >= n:
    return examples
  rows = np.sort(batches.shuffled(n, 0, 0)[:most])

  def of(sentences):
    steps = int(sentences.lengths[rows].max())
    lengths = sentences.lengths[rows]
    tokens = sentences.padded(rows, steps)[np.arange(steps) < lengths[:, None]]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    unknown = int((tokens == vocabulary.UNKNOWN).sum())
    return Sentences(tokens, starts, unknown)

  return Examples(
    of(examples.passages), of(examples.queries), examples.answers[rows]
  )
