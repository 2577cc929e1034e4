"""Pieces of long lines, which follow one another."""

import numpy as np
import pytest

from lnrnn.data.pieces import PieceBatches
from lnrnn.errors import ConfigError

LENGTHS = np.array([5, 2, 9, 4, 7, 1, 6])
T, B = 3, 2


@pytest.fixture
def data():
  starts = np.concatenate([[0], np.cumsum(LENGTHS)])
  line = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
  ink = np.stack([line, np.arange(len(line)), np.ones_like(line)], axis=1)
  return PieceBatches(
    np.float32(ink),
    starts,
    {"text": np.arange(len(LENGTHS))},
    steps=T,
    batch_size=B,
    seed=3,
    fingerprint="f",
  )


def test_an_epoch_visits_each_point_once_but_for_the_lines_that_are_cut(data):
  pieces = -(-LENGTHS // T)
  assert data.steps_per_epoch == pieces.sum() // B
  for epoch in range(4):
    first = epoch * data.steps_per_epoch
    seen = []
    for step in range(first, first + data.steps_per_epoch):
      batch = data[step]
      for ink, n in zip(batch["ink"], batch["length"], strict=True):
        seen += list(ink[:n, 1])
        assert (ink[n:] == 0).all()
    assert len(seen) == len(set(seen))
    # A line for each cut between streams, and what an uneven number leaves.
    assert len(seen) >= LENGTHS.sum() - B * LENGTHS.max()


def test_a_row_goes_on_with_its_line_until_that_ends(data):
  open_at = [None] * B
  for step in range(3 * data.steps_per_epoch):
    batch = data[step]
    for row in range(B):
      n = batch["length"][row]
      points, text = batch["ink"][row, :n], batch["text"][row]
      assert (points[:, 0] == text).all()
      if batch["begins"][row]:
        ends_at = LENGTHS[:text].sum()
        assert n == 0 or points[0, 1] == ends_at
      else:
        assert n == 0 or points[0, 1] == open_at[row] + 1
      if n:
        open_at[row] = points[-1, 1]


def test_every_line_that_goes_on_was_begun(data):
  for step in range(data.steps_per_epoch):
    batch = data[step]
    assert batch["begins"].all() or step
    # What a cut has parted from its beginning has no points.
    if step == 0:
      for row in range(B):
        if batch["length"][row]:
          text = batch["text"][row]
          assert batch["ink"][row, 0, 1] == LENGTHS[:text].sum()


def test_batches_are_the_same_for_a_step_and_differ_by_epoch(data):
  a, b = data[1], data[1]
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
  later = [data[1 + k * data.steps_per_epoch]["text"] for k in range(4)]
  assert len({tuple(text) for text in later}) > 1


def test_sizes_out_of_range_are_refused(data):
  with pytest.raises(IndexError, match="step -1"):
    data[-1]
  with pytest.raises(ConfigError, match="batch_size: 99"):
    PieceBatches(
      np.zeros((2, 3), np.float32),
      np.array([0, 2]),
      {},
      steps=1,
      batch_size=99,
      seed=0,
      fingerprint="",
    )
