"""Which checkpoints of a run stay."""

from collections.abc import Iterable, Sequence
from typing import Any


class Kept:
  """Preserves some checkpoints; an orbax PreservationPolicy.

  Args:
    latest: how many of the latest stay.
    best: how many of those with the best scores stay as well.
    every: those of steps that are a multiple of it stay too; 0: none.

  Attributes:
    scores: {step: how good it is}, larger being better; to be filled in.
  """

  def __init__(self, latest: int, best: int, every: int):
    self.latest, self.best, self.every = latest, best, every
    self.scores: dict[int, float] = {}

  def ranked(self, steps: Iterable[int]) -> list[int]:
    """Steps with a score, the best first, of equals the earliest."""
    known = [step for step in steps if step in self.scores]
    return sorted(known, key=lambda step: (-self.scores[step], step))

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Whether each of the checkpoints stays, as orbax asks."""
    del context
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    kept = {*steps[-self.latest :], *self.ranked(steps)[: self.best]}
    if self.every:
      kept.update(step for step in steps if step % self.every == 0)
    return [checkpoint.step in kept for checkpoint in checkpoints]
