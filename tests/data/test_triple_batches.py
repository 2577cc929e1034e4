"""Batches of triples: which triples, in which order, in how much memory."""

from concurrent.futures import ThreadPoolExecutor
import re
import sys
import tracemalloc

import numpy as np
import pytest

from lnrnn.data.triple_batches import TripleBatches
from lnrnn.errors import ConfigError, DataError

# So many triples whose longest sentence has 0, 1, ... 13 words.
COUNTS = (0, 0, 40, 31, 25, 3, 2, 50, 41, 30, 1, 0, 20, 4)


class Fake:
  """Triples without words: a batch is what was asked for."""

  def __init__(self, counts):
    self.ends = np.cumsum(counts)

  def __len__(self):
    return int(self.ends[-1])

  def batch(self, positions, steps):
    return {"positions": positions, "steps": steps}


def make(counts=COUNTS, **options):
  given = {"batch_size": 4, "seed": 0, "fingerprint": "x", "multiple": 5}
  return TripleBatches(Fake(counts), **(given | options))


def words(counts, positions):
  """Words of the longest sentence of each."""
  return np.searchsorted(np.cumsum(counts), positions, side="right")


def epoch(data, number):
  """The positions of one pass, [batches, b], and their steps."""
  n = data.steps_per_epoch
  steps = range(number * n, (number + 1) * n)
  found = np.array([data.positions(step) for step in steps])
  return found, [data.shape(step) for step in steps]


def test_a_batch_is_decided_by_seed_and_step():
  first, second = make(), make()
  steps = [0, 1, 50, 59, 60, 61, 5000, 10**9]
  for step in reversed(steps):
    second[step]
  for step in steps:
    one, other = first[step], second[step]
    np.testing.assert_array_equal(one["positions"], other["positions"])
    np.testing.assert_array_equal(one["positions"], first.positions(step))
    assert one["steps"] == other["steps"] == first.shape(step)
    assert one["positions"].dtype == np.int64
  assert len(first) == sys.maxsize
  assert first.batch_size == 4 and first.fingerprint == "x"


def test_threads_get_the_same_batches():
  expected, data = epoch(make(), 1)[0], make()
  n = data.steps_per_epoch
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(data.positions, range(n, 2 * n)))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("run", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_an_epoch_visits_no_triple_twice_and_leaves_few_out(batch_size, run):
  data = make(batch_size=batch_size, run=run)
  sizes = {5: 96, 10: 126, 14: 25}  # By steps: words and END, rounded up.
  for number in (0, 4):
    found, steps = epoch(data, number)
    assert found.shape[1] == batch_size
    assert len(np.unique(found)) == found.size
    assert found.min() >= 0 and found.max() < sum(COUNTS)
    for length, size in sizes.items():
      visited = steps.count(length) * batch_size
      assert 0 <= size - visited < batch_size * run


def test_every_epoch_has_an_order_of_its_own_and_leaves_out_others():
  data, all_rows = make(), set(range(sum(COUNTS)))
  orders, left_out = [], []
  for number in range(4):
    found, steps = epoch(data, number)
    orders.append((found.tobytes(), tuple(steps)))
    left_out.append(frozenset(all_rows - set(found.reshape(-1).tolist())))
    assert len(left_out[-1]) == 2 + 1  # Of 126 and of 25.
  assert len({order for order, _ in orders}) == 4
  assert len({steps for _, steps in orders}) == 4
  assert len(set(left_out)) > 2


def test_the_batches_of_an_epoch_are_not_those_of_another():
  """The same triples are not together again."""
  together = [
    {frozenset(row) for row in epoch(make(), number)[0].tolist()}
    for number in (0, 1)
  ]
  assert not together[0] & together[1]


def test_seeds_are_told_apart_in_every_epoch():
  # An epoch of one seed is none of the next seed's, either.
  found = [
    epoch(make(seed=seed), number)[0].tobytes()
    for seed in range(3)
    for number in range(3)
  ]
  assert len(set(found)) == len(found)


@pytest.mark.parametrize("multiple", [1, 5, 10, 14, 100])
def test_a_batch_is_as_long_as_its_longest_sentence_needs(multiple):
  data = make(multiple=multiple, batch_size=1)
  found, steps = epoch(data, 0)
  for position, length in zip(found[:, 0], steps, strict=True):
    needed = words(COUNTS, position) + 1  # END.
    assert length == min(-(-needed // multiple) * multiple, len(COUNTS))
  # Every bucket is visited whole.
  assert sorted(found[:, 0].tolist()) == list(range(sum(COUNTS)))


@pytest.mark.parametrize(
  ("batch_size", "run", "expected"),
  [
    # (triples of a bucket, its steps); of COUNTS: 96 of 5, 126 of 10, 25 of 14.
    (25, 1, [(96, 5), (126, 10), (25, 14)]),
    (26, 1, [(96, 5), (151, 14)]),  # The last joins those before.
    (97, 1, [(247, 14)]),  # The first joins the next one, the last these.
    (50, 2, [(247, 14)]),
    (247, 1, [(247, 14)]),
  ],
)
def test_buckets_that_fill_no_run_are_joined(batch_size, run, expected):
  data = make(batch_size=batch_size, run=run)
  whole = batch_size * run
  n = [size // whole * run for size, _ in expected]
  assert data.steps_per_epoch == sum(n)
  found, steps = epoch(data, 0)
  for (_, length), batches in zip(expected, n, strict=True):
    assert steps.count(length) == batches
  for rows, length in zip(found, steps, strict=True):
    assert words(COUNTS, rows).max() < length
  first = 0
  for size, length in expected:
    own = found[np.array(steps) == length]
    assert own.min() >= first and own.max() < first + size
    first += size


def test_a_small_bucket_in_the_middle_joins_the_longer_one():
  data = make((0, 20, 0, 0, 0, 3, 0, 0, 0, 0, 20, 0), batch_size=5)
  _, steps = epoch(data, 0)
  assert sorted(set(steps)) == [5, 12] and data.steps_per_epoch == 4 + 4


@pytest.mark.parametrize("run", [1, 2, 5])
def test_batches_of_one_length_come_in_runs(run):
  data = make(run=run)
  for number in (0, 3):
    _, steps = epoch(data, number)
    runs = [steps[i : i + run] for i in range(0, len(steps), run)]
    assert all(len(own) == run and len(set(own)) == 1 for own in runs)
    # And the runs are mixed.
    lengths = [own[0] for own in runs]
    assert lengths != sorted(lengths) != lengths[::-1]


ORDER = [
  (10, [99, 187, 96, 144]),
  (10, [131, 102, 161, 183]),
  (5, [88, 91, 93, 87]),
  (5, [62, 18, 84, 15]),
  (14, [233, 236, 244, 227]),
]
LARGE_ORDER = [
  (20, [10513972, 10129071, 15771139]),
  (20, [17433522, 12937755, 12607092]),
]


def test_the_order_of_a_seed_stays_as_it_was():
  """If not, a run that goes on draws its epoch from another order."""
  data = make(run=2)
  found = [
    (data.shape(step), data.positions(step).tolist())
    for step in (0, 1, 2, 60, 10**6)
  ]
  assert found == ORDER
  data = make((0, *(10**6,) * 29), batch_size=3, seed=7, multiple=10)
  found = [
    (data.shape(step), data.positions(step).tolist()) for step in (0, 10**7)
  ]
  assert found == LARGE_ORDER


def test_memory_does_not_grow_with_the_triples():
  n = 74_000_000  # Sentences of BookCorpus.
  counts = np.zeros(30, np.int64)
  counts[1:] = n // 29
  make()[0]  # What is imported stays.
  tracemalloc.start()
  try:
    data = make(counts, batch_size=64, multiple=10)
    for step in range(100):
      assert data.positions(step).max() < n
    data.positions(data.steps_per_epoch + 1)
    _, most = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert most < 5 << 20


@pytest.mark.parametrize(
  ("options", "kind", "told"),
  [
    ({"batch_size": 0}, ConfigError, "batch_size: 0 is not allowed: 1 to 247,"),
    ({"batch_size": -1}, ConfigError, "batch_size: -1 is not allowed"),
    ({"batch_size": 248}, ConfigError, "the triples at hand"),
    ({"seed": -1}, ConfigError, "seed: -1 is not allowed: 0 to 1,048,575"),
    ({"seed": 1 << 20}, ConfigError, "seed: 1048576 is not allowed"),
    ({"run": 0}, ConfigError, "data.run: 0 is not allowed: 1 at least"),
    ({"run": -2}, ConfigError, "data.run: -2 is not allowed"),
    ({"run": 62}, DataError, "data.run=62: 62 batches of 4 are more than the"),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(options, kind, told):
  with pytest.raises(kind, match=re.escape(told)) as caught:
    make(**options)
  assert str(caught.value).isprintable()


def test_the_limits_are_allowed():
  for options in {"batch_size": 247}, {"seed": (1 << 20) - 1}, {"run": 61}:
    make(**options)[0]


def test_without_triples_one_line_says_so():
  with pytest.raises(ConfigError, match="1 to 0, the triples at hand"):
    make((0, 0, 0))


def test_steps_below_zero_are_refused():
  with pytest.raises(IndexError, match="step -1: steps count from 0"):
    make()[-1]


def test_its_text_tells_what_decides_its_batches():
  texts = {
    repr(make(**options))
    for options in (
      {},
      {"seed": 1},
      {"batch_size": 5},
      {"run": 2},
      {"multiple": 10},
      {"fingerprint": "y"},
      {"counts": (1, 50)},
    )
  }
  assert len(texts) == 7 and repr(make()) in texts
