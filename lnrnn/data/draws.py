"""Random whole numbers that are the same with every version of NumPy."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
  """A stream of draws.

  The methods of `numpy.random.Generator` may change between versions (NEP 19);
  the raw stream of a bit generator may not.

  Args:
    *seed: whole numbers >= 0; each list of them has a stream of its own.
  """

  def __init__(self, *seed: int):
    self._bits = np.random.Philox(np.random.SeedSequence(seed))

  def below(self, n: int) -> int:
    """A number from 0 to n - 1."""
    return int(self._bits.random_raw() >> 32) * n >> 32

  def one(self, of: Sequence[T]) -> T:
    """One of several."""
    return of[self.below(len(of))]

  def order(self, n: int) -> np.ndarray:
    """The numbers 0 to n - 1 in a random order, int64 [n]."""
    return np.argsort(self._bits.random_raw(n))  # 64 bits: no ties to speak of

  def signed(self, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Numbers from -size to size - 1, int64 of a shape."""
    raw = self._bits.random_raw(int(np.prod(shape))) >> 32
    return ((raw * (2 * size)) >> 32).astype(np.int64).reshape(shape) - size
