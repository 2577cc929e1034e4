from concurrent.futures import ThreadPoolExecutor
import threading
import time

import numpy as np
import pytest

from lnrnn.data.batches import (
  ShuffledBatches,
  blocks,
  fingerprint,
  prefetched,
  shuffled,
)
from lnrnn.errors import ConfigError, DataError

N, B = 23, 4
CHUNKS = [(3, 5), (5, 9), (9, 10), (10, 14)]  # epochs have 5 steps


def rows(n=N):
  return {
    "x": np.arange(2 * n).reshape(n, 2),
    "y": np.arange(n, dtype=np.int32),
  }


def make(seed=0, batch_size=B, n=N):
  return ShuffledBatches(rows(n), batch_size, seed=seed, fingerprint="f00")


def grain_threads():
  return [t for t in threading.enumerate() if "grain" in t.name]


def wait_for_no_grain_threads():
  end = time.monotonic() + 10
  while grain_threads() and time.monotonic() < end:
    time.sleep(0.01)
  return not grain_threads()


def test_a_batch_is_a_pure_function_of_seed_and_step():
  first, second = make(), make()
  forward = [first[step]["y"] for step in range(12)]
  backward = [second[step]["y"] for step in reversed(range(12))][::-1]
  np.testing.assert_array_equal(forward, backward)


def test_the_order_is_the_same_on_every_machine():
  np.testing.assert_array_equal(shuffled(8, 0, 0), [0, 3, 7, 5, 1, 2, 6, 4])


def test_the_fields_of_a_row_stay_together():
  batch = make()[7]
  assert batch["x"].shape == (B, 2)
  assert batch["y"].dtype == np.int32
  np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["y"])


def test_an_epoch_visits_no_row_twice_and_drops_the_incomplete_batch():
  batches = make()
  assert batches.steps_per_epoch == 5
  epochs = [
    np.concatenate([batches[5 * epoch + step]["y"] for step in range(5)])
    for epoch in range(50)
  ]
  assert all(len(set(epoch)) == 20 for epoch in epochs)
  # The rows left out differ from epoch to epoch.
  assert len(set(np.concatenate(epochs))) == N
  assert len({tuple(epoch) for epoch in epochs}) == 50


def test_every_row_comes_first_equally_often():
  counts = np.bincount([shuffled(10, 1, epoch)[0] for epoch in range(5_000)])
  # Chi-squared with 9 degrees of freedom: 27.9 is its 0.1 % point.
  assert np.square(counts - 500).sum() / 500 < 27.9


def test_seeds_differ():
  assert make(seed=1)[0]["y"].tolist() != make(seed=2)[0]["y"].tolist()


def test_a_batch_may_hold_all_rows():
  assert sorted(make(batch_size=N)[3]["y"]) == list(range(N))


def test_threads_across_epochs_get_the_same_batches():
  batches = make()
  steps = np.random.default_rng(0).permutation(400).tolist()
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda step: batches[step]["y"], steps))
  fresh = make()
  for step, y in zip(steps, found, strict=True):
    np.testing.assert_array_equal(y, fresh[step]["y"])


def test_the_repr_is_stable_and_names_what_decides_the_batches():
  assert repr(make()) == (
    "ShuffledBatches(rows=23, batch_size=4, seed=0, fingerprint='f00')"
  )


def test_stacked_is_the_batches_one_after_the_other():
  batches = make()
  for name, run in batches.stacked(3, 12).items():
    steps = [batches[step][name] for step in range(3, 12)]
    np.testing.assert_array_equal(run, np.stack(steps))


@pytest.mark.parametrize(
  ("arguments", "error", "reason"),
  [
    ({"batch_size": N + 1}, ConfigError, "batch_size: 24 .* 1 to 23"),
    ({"batch_size": 0}, ConfigError, "batch_size: 0 is not allowed"),
    ({"seed": -1}, ConfigError, "seed: -1 is not allowed"),
    ({"n": 0}, ConfigError, "batch_size"),
  ],
)
def test_sizes_that_cannot_be_are_one_line(arguments, error, reason):
  with pytest.raises(error, match=reason):
    make(**arguments)


@pytest.mark.parametrize("arrays", [{}, {"x": np.ones(3), "y": np.ones(4)}])
def test_arrays_of_different_lengths_are_refused(arrays):
  with pytest.raises(DataError, match="of one length"):
    ShuffledBatches(arrays, 2, seed=0, fingerprint="")


def test_a_negative_step_is_refused():
  with pytest.raises(IndexError, match="step -1"):
    make()[-1]


def test_prefetched_chunks_equal_the_batches():
  batches = make()
  found = list(prefetched(batches, CHUNKS))
  assert [len(chunk["y"]) for chunk in found] == [2, 4, 1, 4]
  for (start, stop), chunk in zip(CHUNKS, found, strict=True):
    np.testing.assert_array_equal(chunk["x"], batches.stacked(start, stop)["x"])
  assert list(prefetched(batches, [])) == []
  assert wait_for_no_grain_threads()


def test_short_chunks_are_filled_up():
  batches = make()
  for (start, stop), chunk in zip(
    CHUNKS, prefetched(batches, CHUNKS, length=5), strict=True
  ):
    x, n = chunk["x"], stop - start
    assert x.shape[0] == 5 and x.dtype == batches[0]["x"].dtype
    np.testing.assert_array_equal(x[:n], batches.stacked(start, stop)["x"])
    assert not x[n:].any()


class Watched:
  """Random access without `stacked`; records who reads, fails at `wrong`."""

  def __init__(self, wrong=None):
    self.threads = set()
    self.wrong = wrong

  def __getitem__(self, step):
    self.threads.add(threading.current_thread())
    if step == self.wrong:
      raise DataError("row 7: is damaged")
    return {"y": np.full(3, step)}


def test_prefetched_reads_off_the_main_thread():
  source = Watched()
  found = list(prefetched(source, iter(CHUNKS)))
  np.testing.assert_array_equal(found[0]["y"], [[3] * 3, [4] * 3])
  assert len(source.threads) == 1
  assert threading.main_thread() not in source.threads


def test_a_fault_in_a_batch_reaches_the_consumer():
  chunks = prefetched(Watched(wrong=9), CHUNKS)
  assert len(next(chunks)["y"]) == 2
  assert len(next(chunks)["y"]) == 4
  with pytest.raises(DataError, match="row 7"):
    next(chunks)
  assert wait_for_no_grain_threads()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_stopping_early_leaves_no_thread(how):
  chunks = prefetched(make(), [(i, i + 2) for i in range(1_000)], ahead=4)
  next(chunks)
  assert grain_threads()
  if how == "close":
    chunks.close()
  del chunks
  assert wait_for_no_grain_threads()


def test_the_fingerprint_names_the_content():
  base = {"x": np.zeros((2, 3), np.uint8), "y": np.arange(2)}
  other = base["x"].copy()
  other[1, 2] = 1
  variants = [
    base,
    base | {"x": other},
    base | {"x": base["x"].reshape(3, 2)},
    base | {"x": base["x"].view(np.int8)},
    {"z": base["x"], "y": base["y"]},
  ]
  assert len({fingerprint(variant) for variant in variants}) == len(variants)
  assert fingerprint(base) == fingerprint(dict(reversed(base.items())))
  assert fingerprint({"x": np.asfortranarray(other)}) == fingerprint(
    {"x": other}
  )


@pytest.mark.parametrize(
  ("n", "size"), [(10, 5), (10, 4), (10, 1), (11, 10), (3, 3), (3, 7), (1, 9)]
)
def test_blocks_have_one_shape_and_each_row_is_fresh_once(n, size):
  found = list(blocks(n, size))
  width = min(n, size)
  assert len(found) == -(-n // size)
  for i, (positions, fresh) in enumerate(found):
    assert positions.shape == fresh.shape == (width,)
    assert (np.diff(positions) == 1).all()
    # The last overlaps the one before.
    assert positions[0] == min(i * size, n - width)
    assert fresh.all() or i == len(found) - 1
  seen = np.concatenate([positions[fresh] for positions, fresh in found])
  np.testing.assert_array_equal(seen, np.arange(n))


def test_the_last_block_is_filled_up_with_rows_seen_before():
  (first, fresh), (last, old_and_fresh) = blocks(7, 5)
  assert first.tolist() == [0, 1, 2, 3, 4] and fresh.all()
  assert last.tolist() == [2, 3, 4, 5, 6]
  assert old_and_fresh.tolist() == [False, False, False, True, True]
