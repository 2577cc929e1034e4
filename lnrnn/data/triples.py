"""Triples of neighbouring sentences, ordered by the longest of the three."""

from typing import Protocol

import numpy as np

from lnrnn.data.vocabulary import END, UNKNOWN, rounded


class Shards(Protocol):
  """An array for each shard, such as a list of them."""

  def __getitem__(self, shard: int, /) -> np.ndarray:
    """The array of a shard."""
    ...


class Triples:
  """Sentences with both neighbours, ordered by the longest of the three.

  Args:
    tokens: of each shard, as in the files.
    starts: likewise.
    centres: likewise, of one split.
    lengths: [shards, most + 1] how many centres have a longest sentence of so
      many words.

  Attributes:
    ends: [most + 1] how many have at most so many words.
  """

  def __init__(
    self,
    tokens: Shards,
    starts: Shards,
    centres: Shards,
    lengths: np.ndarray,
  ):
    self._tokens, self._starts, self._centres = tokens, starts, centres
    self._shards = len(lengths)
    # In the order of positions: all shards of one length, then the next.
    self._ends = np.cumsum(lengths.T.reshape(-1))
    self._begins = self._ends - lengths.T.reshape(-1)
    within = np.cumsum(lengths, axis=1) - lengths
    self._within = within.T.reshape(-1)
    self.ends = np.cumsum(lengths.sum(axis=0))

  def __len__(self) -> int:
    return int(self._ends[-1])

  def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shard, sentence in it) of positions [b]."""
    cell = np.searchsorted(self._ends, positions, side="right")
    shard = cell % self._shards
    row = np.empty(len(positions), np.int64)
    for s in np.unique(shard):
      own = shard == s
      inner = self._within[cell[own]] + positions[own] - self._begins[cell[own]]
      row[own] = self._centres[s][inner]
    return shard, row

  def batch(self, positions: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Some triples as matrices.

    Args:
      positions: [b], each from 0 to n - 1.
      steps: t, more than the words of the longest sentence.

    Returns:
      "previous", "current" and "next" int32 [b, t], END after each sentence;
      "previous_length" and so on int32 [b], END counted.
    """
    b = len(positions)
    shard, row = self.rows(positions)
    found: dict[str, np.ndarray] = {}
    for offset, name in ((-1, "previous"), (0, "current"), (1, "next")):
      words = np.full((b, steps), END, np.int32)
      lengths = np.empty(b, np.int32)
      for s in np.unique(shard):
        own = np.flatnonzero(shard == s)
        first = self._starts[s][row[own] + offset].astype(np.int64)
        n = self._starts[s][row[own] + offset + 1] - first
        live = np.arange(steps) < n[:, None]
        at = (first[:, None] + np.arange(steps))[live]
        part = np.full((len(own), steps), END, np.int32)
        part[live] = self._tokens[s][at]
        words[own], lengths[own] = part, n + 1
      found[name], found[f"{name}_length"] = words, lengths
    return found

  def longest(self, positions: np.ndarray) -> int:
    """Words of the longest sentence of some triples."""
    return int(np.searchsorted(self.ends, positions.max(), side="right"))

  def steps(self, words: int, multiple: int) -> int:
    """Steps that sentences of so many words are filled up to, END counted."""
    return filled_steps(words, multiple, len(self.ends))

  def spread(self, most: int) -> np.ndarray:
    """Positions [n] of all triples, or of `most` of them, of every length."""
    n = len(self)
    if not most or most >= n:
      return np.arange(n)
    return (np.arange(most) * n) // most

  def unknown(self, positions: np.ndarray) -> float:
    """Part of the words of some sentences that have no number."""
    shard, row = self.rows(positions)
    words = unknown = 0
    for s, r in zip(shard.tolist(), row.tolist(), strict=True):
      first, last = self._starts[s][r : r + 2]
      own = self._tokens[s][first:last]
      words, unknown = words + len(own), unknown + int((own == UNKNOWN).sum())
    return unknown / max(1, words)


def filled_steps(words: int, multiple: int, most: int) -> int:
  """A sentence and its END, filled up to a multiple, or to `most` steps."""
  return min(rounded(words + 1, multiple), most)
