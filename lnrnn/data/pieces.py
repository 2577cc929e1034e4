"""Long lines in consecutive pieces, for training that carries a state over."""

import functools
from typing import Any

import numpy as np

from lnrnn.data import batches
from lnrnn.errors import ConfigError


class PieceBatches:
  """Endless batches of pieces; each row goes on where it was a step before.

  In every epoch the lines come in a fresh random order, are laid end to end
  and cut into as many streams as a batch has rows. A line that a cut between
  two streams hits is read as far as its stream goes, and the rest of it has
  no points.

  Attributes:
    batch_size: b, rows in a batch.
    steps_per_epoch: batches in one pass over the lines.
    fingerprint: name of the content of the lines.
  """

  def __init__(
    self,
    ink: np.ndarray,
    starts: np.ndarray,
    others: dict[str, np.ndarray],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    fingerprint: str,
  ):
    """Counts the pieces; nothing is copied.

    Args:
      ink: [p, 3] points of all lines.
      starts: [n + 1] where each line starts, and p.
      others: [n, ...] arrays of the lines by name, put into each piece.
      steps: t, points of a piece, the last one of a line being shorter.
      batch_size: b, 1 to the number of pieces.
      seed: whole number >= 0.
      fingerprint: name of the content.

    Raises:
      ConfigError: the batch size is out of range.
    """
    self._ink, self._starts, self._others = ink, starts, others
    self._steps, self._seed = steps, seed
    self._pieces = -(-np.diff(starts) // steps)
    total = int(self._pieces.sum())
    if not 1 <= batch_size <= total:
      raise ConfigError(
        f"batch_size: {batch_size} is not allowed: 1 to {total}, the pieces at"
        " hand"
      )
    self.batch_size = batch_size
    self.steps_per_epoch = total // batch_size
    self.fingerprint = fingerprint
    self._plan = functools.lru_cache(maxsize=2)(self._planned)

  def __repr__(self) -> str:
    return (
      f"PieceBatches(lines={len(self._pieces)}, steps={self._steps},"
      f" batch_size={self.batch_size}, seed={self._seed},"
      f" fingerprint={self.fingerprint!r})"
    )

  def __getitem__(self, step: int) -> dict[str, Any]:
    """The batch of one step.

    Args:
      step: absolute step, from 0.

    Returns:
      "ink" [b, t, 3], zero after the last point; "length" [b] points;
      "begins" [b] whether a row begins anew; the other arrays [b, ...].

    Raises:
      IndexError: the step is negative.
    """
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    epoch, slot = divmod(step, self.steps_per_epoch)
    line, piece, whole = (part[:, slot] for part in self._plan(epoch))
    t = self._steps
    ink = np.zeros((self.batch_size, t, 3), self._ink.dtype)
    length = np.zeros(self.batch_size, np.int32)
    for row in np.flatnonzero(whole):
      start = self._starts[line[row]] + piece[row] * t
      points = self._ink[start : min(start + t, self._starts[line[row] + 1])]
      ink[row, : len(points)] = points
      length[row] = len(points)
    begins = (piece == 0) | ~whole
    rows = {name: array[line] for name, array in self._others.items()}
    return {"ink": ink, "length": length, "begins": begins, **rows}

  def _planned(self, epoch: int):
    """Line, piece of it and whether it was read from its start, [b, S]."""
    order = batches.shuffled(len(self._pieces), self._seed, epoch)
    ends = np.cumsum(self._pieces[order])
    shape = (self.batch_size, self.steps_per_epoch)
    at = np.arange(shape[0] * shape[1])
    nth = np.searchsorted(ends, at, side="right")
    line = order[nth]
    piece = (at - (ends[nth] - self._pieces[line])).reshape(shape)
    slots = np.arange(shape[1])
    return line.reshape(shape), piece, piece <= slots
