"""Shuffled batches as a pure function of (seed, step), read ahead by grain."""

from collections.abc import Generator, Iterable, Iterator, Mapping
import copy
import functools
import hashlib
import sys
from typing import Any, Protocol

import numpy as np

from lnrnn.errors import ConfigError, DataError


class Batches(Protocol):
  """Random access to host batches: the same step is the same batch, always."""

  def __getitem__(self, step: int) -> dict[str, np.ndarray]: ...


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
  """Names the content of arrays, so that a resumed run finds its own data.

  Args:
    arrays: arrays by name, of any shape and dtype; the order does not matter.

  Returns:
    16 hexadecimal digits of a sha256 over names, dtypes, shapes and bytes.
  """
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
    digest.update(array.data)
  return digest.hexdigest()[:16]


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
  """Draws a random order that is the same with every version of NumPy.

  Args:
    n: number of rows.
    seed: whole number >= 0.
    epoch: whole number >= 0; each has an order of its own.

  Returns:
    int64 [n], a permutation of 0 to n - 1.
  """
  # The methods of numpy.random.Generator may change between versions (NEP 19);
  # the raw stream of a bit generator may not.
  bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
  return np.argsort(bits.random_raw(n))  # 64 bits: no ties to speak of


class ShuffledBatches:
  """Endless batches: every epoch visits the rows in a fresh random order.

  The incomplete last batch of an epoch is dropped, so that shapes are static.

  Attributes:
    batch_size: b, rows in a batch.
    steps_per_epoch: batches in one pass over the rows.
    fingerprint: name of the content of the arrays.
  """

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    batch_size: int,
    *,
    seed: int,
    fingerprint: str,
  ):
    """Checks the sizes; nothing is copied.

    Args:
      arrays: [n, ...] arrays by name, all with the same n.
      batch_size: b, 1 to n.
      seed: whole number >= 0; with the step it decides the batch.
      fingerprint: name of the content of `arrays`.

    Raises:
      DataError: the arrays are missing or differ in length.
      ConfigError: the batch size or the seed is out of range.
    """
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
      raise DataError(f"arrays of one length are needed, not {sizes}")
    n = next(iter(sizes.values()))
    if not 1 <= batch_size <= n:
      raise ConfigError(
        f"batch_size: {batch_size} is not allowed: 1 to {n}, the rows at hand"
      )
    if seed < 0:
      raise ConfigError(f"seed: {seed} is not allowed: 0 or more")
    self.batch_size = batch_size
    self.fingerprint = fingerprint
    self.steps_per_epoch = n // batch_size
    self._arrays = dict(arrays)
    self._part = (0, 1)  # Which part of each batch, of how many.
    self._repr = (
      f"ShuffledBatches(rows={n}, batch_size={batch_size}, seed={seed}, "
      f"fingerprint={fingerprint!r})"
    )
    # Two epochs, as reading ahead straddles their border; lru_cache is
    # thread-safe.
    self._order = functools.lru_cache(maxsize=2)(
      functools.partial(shuffled, n, seed)
    )

  def __len__(self) -> int:
    return sys.maxsize

  def __repr__(self) -> str:
    return self._repr

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """Gathers the batch of one step.

    Args:
      step: absolute step, from 0.

    Returns:
      [b, ...] arrays by name, in their stored dtypes.

    Raises:
      IndexError: the step is negative.
    """
    rows = self._rows(step)
    return {
      name: array.take(rows, axis=0) for name, array in self._arrays.items()
    }

  def stacked(self, start: int, stop: int) -> dict[str, np.ndarray]:
    """Gathers a run of batches at once, each row copied only once.

    Args:
      start: first step of the run.
      stop: step after the last one, above `start`.

    Returns:
      [k, b, ...] arrays by name, k = stop - start.

    Raises:
      IndexError: a step is negative.
    """
    rows = np.stack([self._rows(step) for step in range(start, stop)])
    return {
      name: array.take(rows, axis=0) for name, array in self._arrays.items()
    }

  def share(self, index: int, count: int) -> "ShuffledBatches":
    """The same batches, of each only the rows of one of several processes.

    Args:
      index: of the process.
      count: of processes; divides the batch size.
    """
    part = copy.copy(self)
    part._part = (index, count)
    part._repr = f"{self._repr} {index}/{count}"
    return part

  def _rows(self, step: int) -> np.ndarray:
    """Positions of the rows of one step that this process loads."""
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    epoch, index = divmod(step, self.steps_per_epoch)
    part, parts = self._part
    size = self.batch_size // parts
    first = index * self.batch_size + part * size
    return self._order(epoch)[first : first + size]


def padded(array: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Cuts rows into chunks of one size, the last one filled up with zeros.

  Args:
    array: [n, ...].
    size: m, rows in a chunk.

  Returns:
    The chunks [k, m, ...], and which rows are real, booleans [k, m].
  """
  k = -(-len(array) // size)
  out = np.zeros((k * size, *array.shape[1:]), array.dtype)
  out[: len(array)] = array
  real = np.arange(k * size) < len(array)
  return out.reshape(k, size, *array.shape[1:]), real.reshape(k, size)


def blocks(n: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Cuts rows into blocks of one size, so that one shape is compiled.

  Args:
    n: rows, 1 or more.
    size: m, rows in a block; n where that is less.

  Yields:
    Positions [m], and which of them no block before had, booleans [m]: the
    last block overlaps the one before.
  """
  size = min(size, n)
  for first in range(0, n, size):
    start = min(first, n - size)
    rows = np.arange(start, start + size)
    yield rows, rows >= first


def share(batches: Any, index: int, count: int) -> Any:
  """The rows of every batch that one of several processes loads.

  Args:
    batches: random access by step; its method `share(index, count)`, as
      `ShuffledBatches` has it, loads those rows alone. Without one the whole
      batch is made and cut.
    index: of the process.
    count: of processes; divides the rows of a batch.

  Returns:
    The like of `batches`, with the rows of all processes in their order
    making up the whole batch.
  """
  if count == 1:
    return batches
  own = getattr(batches, "share", None)
  return own(index, count) if own else _Share(batches, index, count)


class _Share:
  """Cuts rows out of whole batches; an array [] is the same for all."""

  def __init__(self, batches: Batches, index: int, count: int):
    self._batches, self._index, self._count = batches, index, count

  def __repr__(self) -> str:
    return f"{self._batches!r} {self._index}/{self._count}"

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    def cut(array):
      if not np.ndim(array):
        return array
      return np.split(array, self._count)[self._index]

    return {name: cut(array) for name, array in self._batches[step].items()}


def prefetched(
  batches: Batches,
  chunks: Iterable[tuple[int, int]],
  *,
  length: int = 0,
  ahead: int = 2,
) -> Generator[dict[str, np.ndarray], None, None]:
  """Yields runs of consecutive batches, gathered on a thread of their own.

  Closing the iterator, or dropping it, ends the thread.

  Args:
    batches: random access by absolute step. Where it has a method `stacked`
      as `ShuffledBatches` has, a chunk is gathered by one call of that.
    chunks: (start, stop) ranges of steps, each of one step at least, whose
      batches agree in shape.
    length: shorter chunks are filled up to it with zeros.
    ahead: chunks to keep ready, 1 or more.

  Yields:
    One chunk after the other: [k, b, ...] arrays by name, k = stop - start or
    `length`.
  """
  import grain

  reader = iter(
    grain.MapDataset.source(_Stacked(batches, chunks, length)).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    )
  )
  try:
    yield from reader
  finally:
    reader.close()


class _Stacked:
  """A data source whose element i holds the batches of chunk i."""

  def __init__(
    self, batches: Batches, chunks: Iterable[tuple[int, int]], length: int
  ):
    self._batches, self._length = batches, length
    self._chunks = tuple(chunks)

  def __len__(self) -> int:
    return len(self._chunks)

  def __repr__(self) -> str:
    return f"{self._batches!r} in {len(self)} chunks"

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    start, stop = self._chunks[index]
    if stacked := getattr(self._batches, "stacked", None):
      found = stacked(start, stop)
    else:
      steps = [self._batches[step] for step in range(start, stop)]
      found = {name: np.stack([b[name] for b in steps]) for name in steps[0]}
    short = self._length - (stop - start)
    if short <= 0:
      return found
    return {
      name: np.concatenate([a, np.zeros((short, *a.shape[1:]), a.dtype)])
      for name, a in found.items()
    }
