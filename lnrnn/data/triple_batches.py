"""Batches of sentence triples of like length, drawn without a list of them."""

import functools
import sys
from typing import Any

import numpy as np

from lnrnn.data.triples import Triples, filled_steps
from lnrnn.errors import ConfigError, DataError

_SEEDS = 1 << 20


class TripleBatches:
  """Endless batches of triples whose longest sentences are of like length.

  Sentences are filled up to a multiple of `multiple` steps; the triples of
  one such length make a bucket, and a batch is drawn from one. A bucket that
  fills no batch is joined with the next longer one. Every epoch draws anew
  what goes together and in what order the batches come, by permutations that
  grain computes number by number, so that memory does not grow with the
  corpus. What fills no batch is left out of an epoch, others each time.

  Attributes:
    batch_size: b, triples in a batch.
    steps_per_epoch: batches in one pass over the triples.
    fingerprint: name of the content.
  """

  def __init__(
    self,
    triples: Triples,
    *,
    batch_size: int,
    seed: int,
    fingerprint: str,
    multiple: int = 10,
    run: int = 1,
  ):
    """Checks the sizes; nothing is copied.

    Args:
      triples: n of them.
      batch_size: b, 1 to n.
      seed: whole number >= 0; with the step it decides the batch.
      fingerprint: name of the content.
      multiple: of the number of steps.
      run: so many batches of one bucket come one after the other, to be
        dispatched together.

    Raises:
      ConfigError: the batch size, the seed or the run is out of range.
      DataError: there are too few triples for one run of batches.
    """
    n, whole = len(triples), batch_size * run
    if not 1 <= batch_size <= n:
      raise ConfigError(
        f"batch_size: {batch_size} is not allowed: 1 to {n:,}, the triples at"
        " hand"
      )
    if not 0 <= seed < _SEEDS:
      raise ConfigError(f"seed: {seed} is not allowed: 0 to {_SEEDS - 1:,}")
    if run < 1:
      raise ConfigError(f"data.run: {run} is not allowed: 1 at least")
    if whole > n:
      raise DataError(
        f"data.run={run}: {run} batches of {batch_size} are more than the"
        f" {n:,} triples at hand"
      )
    self.batch_size, self.fingerprint = batch_size, fingerprint
    self._triples, self._seed, self._run = triples, seed, run
    self._multiple = multiple
    self._buckets = _buckets(triples.ends, multiple, whole)
    sizes = np.array([end - first for first, end, _ in self._buckets])
    self._run_ends = np.cumsum(sizes // whole)  # Runs of batches.
    self.steps_per_epoch = int(self._run_ends[-1]) * run
    self._order = _permutation(int(self._run_ends[-1]), seed, 0)
    self._inner = [
      _permutation(int(size), seed, 1 + i) for i, size in enumerate(sizes)
    ]
    self._last = functools.lru_cache(maxsize=64)(self._place)

  def __len__(self) -> int:
    return sys.maxsize

  def __repr__(self) -> str:
    return (
      f"TripleBatches(triples={len(self._triples)},"
      f" batch_size={self.batch_size}, seed={self._seed},"
      f" multiple={self._multiple}, run={self._run},"
      f" fingerprint={self.fingerprint!r})"
    )

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of one step; see `Triples.batch`.

    Args:
      step: absolute step, from 0.

    Raises:
      IndexError: the step is negative.
    """
    return self._triples.batch(self.positions(step), self.shape(step))

  def shape(self, step: int) -> int:
    """Steps of time of a batch, by which batches differ in shape."""
    return self._buckets[self._last(step)[0]][2]

  def positions(self, step: int) -> np.ndarray:
    """Positions [b] of the triples of a batch."""
    bucket, epoch, index = self._last(step)
    first, end, _ = self._buckets[bucket]
    inner, start = self._inner[bucket], epoch * (end - first)
    start += index * self.batch_size
    return first + np.array(
      [inner[start + i] for i in range(self.batch_size)], np.int64
    )

  def _place(self, step: int) -> tuple[int, int, int]:
    """(bucket, epoch, which of its batches) of a step."""
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    group, within = divmod(step, self._run)
    chosen = int(self._order[group])
    bucket = int(np.searchsorted(self._run_ends, chosen, side="right"))
    before = int(self._run_ends[bucket - 1]) if bucket else 0
    index = (chosen - before) * self._run + within
    return bucket, step // self.steps_per_epoch, index


def _buckets(
  ends: np.ndarray, multiple: int, least: int
) -> list[tuple[int, int, int]]:
  """(first position, the one after the last, steps) of each bucket.

  Args:
    ends: of `Triples`.
    multiple: of the number of steps.
    least: triples that a bucket needs.
  """
  found: list[tuple[int, int, int]] = []
  first = 0
  most = len(ends)
  steps = [filled_steps(words, multiple, most) for words in range(most)]
  for words, end in enumerate(ends.tolist()):
    last = words + 1 == most
    if not last and steps[words + 1] == steps[words]:
      continue
    if end - first >= least:
      found.append((first, end, steps[words]))
      first = end
    elif last and end > first:  # Too few, and none longer: to those before.
      before = found.pop()[0] if found else 0
      found.append((before, end, steps[words]))
  return found


def _permutation(n: int, seed: int, stream: int) -> Any:
  """A random order of n numbers, each asked for by itself.

  Element i + e n is the i-th of epoch e, whose order is its own.

  Args:
    n: at least 1.
    seed: of the batches.
    stream: 0 is the order of batches, the others are of what is in a bucket.
  """
  import grain

  # To grain's seed the epoch is added, so seeds next to one another would give
  # one another's orders, an epoch later.
  own = np.random.SeedSequence([seed, stream]).generate_state(1)[0]
  return grain.MapDataset.range(n).shuffle(seed=int(own))
