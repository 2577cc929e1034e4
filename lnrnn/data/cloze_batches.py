"""Batches of questions of like length, and their entities renamed."""

import functools
import sys

import numpy as np

from lnrnn.data import batches
from lnrnn.data.cloze_examples import Examples
from lnrnn.errors import ConfigError


class ClozeBatches:
  """Endless batches of examples of like length.

  Passages are filled up to a multiple of `multiple`; those of one length then
  make a bucket, and a batch is drawn from one bucket, so that there is little
  padding, and few shapes are compiled. What a bucket has left goes into the
  next longer one. Every epoch draws anew what goes together, and in what
  order the batches come.

  Attributes:
    batch_size: b, examples in a batch.
    steps_per_epoch: batches in one pass over the examples.
    fingerprint: name of the content.
  """

  def __init__(
    self,
    examples: Examples,
    entities: tuple[int, int],
    *,
    batch_size: int,
    seed: int,
    fingerprint: str,
    multiple: int = 32,
    run: int = 1,
    permute: bool = True,
  ):
    """Checks the sizes; nothing is copied.

    Args:
      examples: n of them.
      entities: number of the first one, and the one after the last.
      batch_size: b, 1 to n.
      seed: whole number >= 0; with the step it decides the batch.
      fingerprint: name of the content.
      multiple: of the passages' length.
      run: so many batches of one bucket come one after the other, where it
        has them, to be dispatched together.
      permute: each batch has the entities renamed, by one permutation of all.

    Raises:
      ConfigError: the batch size or the seed is out of range.
    """
    n = len(examples.answers)
    if not 1 <= batch_size <= n:
      raise ConfigError(
        f"batch_size: {batch_size} is not allowed: 1 to {n}, the questions at"
        " hand"
      )
    if seed < 0:
      raise ConfigError(f"seed: {seed} is not allowed: 0 or more")
    self.batch_size, self.fingerprint = batch_size, fingerprint
    self.steps_per_epoch = n // batch_size
    self._examples, self._entities = examples, entities
    self._seed, self._run, self._permute = seed, run, permute
    self._multiple = multiple
    lengths = examples.passages.lengths.astype(np.int64)
    self._steps = -(-lengths // multiple) * multiple
    self._query_steps = query_steps(examples)
    # Two epochs, as reading ahead straddles their border.
    self._order = functools.lru_cache(maxsize=2)(self._drawn)

  def __len__(self) -> int:
    return sys.maxsize

  def __repr__(self) -> str:
    return (
      f"ClozeBatches(questions={len(self._examples.answers)},"
      f" batch_size={self.batch_size}, seed={self._seed},"
      f" multiple={self._multiple}, run={self._run}, permute={self._permute},"
      f" fingerprint={self.fingerprint!r})"
    )

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of one step.

    Args:
      step: absolute step, from 0.

    Returns:
      "passage" int32 [b, t], t of `shape`; "query" int32 [b, s], s the same
      in all batches; "passage_length", "query_length" and "answer" int32 [b].

    Raises:
      IndexError: the step is negative.
    """
    batch = gathered(
      self._examples, self._rows(step), self.shape(step), self._query_steps
    )
    if self._permute:
      first, last = self._entities
      bits = np.random.Philox(np.random.SeedSequence([self._seed, step, 1]))
      renamed = first + np.argsort(bits.random_raw(last - first))
      for name in ("passage", "query", "answer"):
        words = batch[name]
        own = (words >= first) & (words < last)
        words[own] = renamed[words[own] - first]
    return batch

  def shape(self, step: int) -> int:
    """Steps of time of the passages, by which batches differ in shape."""
    return int(self._steps[self._rows(step)].max())

  def _rows(self, step: int) -> np.ndarray:
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    epoch, index = divmod(step, self.steps_per_epoch)
    return self._order(epoch)[index]

  def _drawn(self, epoch: int) -> np.ndarray:
    """Rows [steps_per_epoch, b] of an epoch's batches."""
    b = self.batch_size
    # What fills no batch is left out here, others each time; at the end of the
    # last bucket it would always be the longest.
    order = batches.shuffled(len(self._steps), self._seed, epoch)
    order = order[: self.steps_per_epoch * b]
    found, left = [], order[:0]
    for steps in np.unique(self._steps):
      bucket = np.concatenate([left, order[self._steps[order] == steps]])
      whole = len(bucket) // b * b
      found.append(bucket[:whole].reshape(-1, b))
      left = bucket[whole:]
    runs = [
      rows[i : i + self._run]
      for rows in found
      for i in range(0, len(rows), self._run)
    ]
    bits = np.random.Philox(np.random.SeedSequence([self._seed, epoch, 2]))
    mixed = np.argsort(bits.random_raw(len(runs)))
    return np.concatenate([runs[i] for i in mixed])


def query_steps(examples: Examples) -> int:
  """The length of the longest query, by which all are filled up."""
  return int(examples.queries.lengths.max())


def gathered(
  examples: Examples, rows: np.ndarray, steps: int, query: int
) -> dict[str, np.ndarray]:
  """Some examples as the rows of matrices.

  Args:
    examples: n of them.
    rows: [b] positions.
    steps: t, at least the longest of their passages.
    query: s, at least the longest of their queries.

  Returns:
    As `ClozeBatches`.
  """
  return {
    "passage": examples.passages.padded(rows, steps),
    "passage_length": examples.passages.lengths[rows],
    "query": examples.queries.padded(rows, query),
    "query_length": examples.queries.lengths[rows],
    "answer": examples.answers[rows].astype(np.int32),
  }
