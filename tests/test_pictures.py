"""Grids of images and the frames of windows, against pixels set by hand."""

import numpy as np
import pytest

from lnrnn import pictures
from lnrnn.models.glimpse import Window

RED = np.array([214, 39, 40]) / 255


def test_a_grid_by_hand():
  images = np.array([[[1, 0]], [[0, 1]], [[1, 1]]], np.float32)  # 1 by 2.
  expected = [
    [1, 0, 0.5, 0, 1],
    [0.5, 0.5, 0.5, 0.5, 0.5],
    [1, 1, 0.5, 0.5, 0.5],
  ]
  np.testing.assert_array_equal(pictures.grid(images, 2), expected)


def test_a_grid_may_have_no_border_and_colours():
  images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3) / 24
  got = pictures.grid(images, 1, border=0)
  np.testing.assert_array_equal(got, images.reshape(4, 2, 3))
  wide = pictures.grid(images, 2, border=2)
  assert wide.shape == (2, 6, 3)
  np.testing.assert_array_equal(wide[:, 2:4], 0.5)
  np.testing.assert_array_equal(wide[:, 4:], images[1])


def test_fewer_images_than_columns_leave_the_rest_grey():
  got = pictures.grid(np.ones((1, 2, 2)), 3)
  assert got.shape == (2, 8)
  np.testing.assert_array_equal(got[:, 2:], 0.5)


def window(x, y, stride=2.0, variance=1.0, shape=()):
  fields = (x, y, stride, variance, 1.0)
  return Window(*(np.full(shape, v, np.float32) for v in fields))


def red(picture):
  """The bounding box of the frame: its first and last column and row."""
  rows, columns = np.nonzero(np.abs(picture - RED).max(axis=-1) < 1e-3)
  return columns.min(), columns.max(), rows.min(), rows.max()


def test_ink_is_black_on_white_and_enlarged():
  canvas = np.array([[0, 1, 0.25]], np.float32)
  got = pictures.framed(canvas, None, n=3, scale=2)
  expected = np.repeat([[1, 1, 0, 0, 0.75, 0.75]], 2, axis=0)
  np.testing.assert_array_equal(got, np.stack([expected] * 3, axis=-1))


def test_no_window_draws_no_frame():
  got = pictures.framed(np.zeros((2, 4, 5), np.float32), None, n=0)
  assert got.shape == (2, 12, 15, 3)
  np.testing.assert_array_equal(got, 1)


@pytest.mark.parametrize(
  "x, y, box",
  [
    # Pixel 4 reaches from 9 to 12; its middle is at 10.5. The filters of n = 3
    # stand two pixels, that is 6, to each side.
    (4, 4, (4, 16, 4, 16)),
    # On the first and on the last pixel of 7, of 21: half of it is outside.
    (1, 1, (0, 7, 0, 7)),
    (7, 1, (13, 20, 0, 7)),
    (1, 7, (0, 7, 13, 20)),
    (7, 7, (13, 20, 13, 20)),
  ],
)
def test_the_frame_runs_through_the_outer_filters(x, y, box):
  got = pictures.framed(np.zeros((7, 7), np.float32), window(x, y), n=3)
  assert got.shape == (21, 21, 3)
  assert red(got) == box
  # It is a frame: what it surrounds is seen.
  middle = got[box[2] : box[3] + 1, box[0] : box[1] + 1]
  assert (middle == 1).all(axis=-1).any()


def test_x_is_to_the_right_and_y_is_down():
  got = pictures.framed(
    np.zeros((9, 20), np.float32), window(15, 4, stride=1.0), n=3
  )
  left, right, top, bottom = red(got)
  assert 40 <= left < right <= 48 and 6 <= top < bottom <= 14


def test_the_line_is_the_thicker_the_wider_the_filters():
  canvas = np.zeros((20, 20), np.float32)
  counts = []
  for variance in (0.01, 4, 9, 1e6):
    got = pictures.framed(canvas, window(10, 10, variance=variance), n=5)
    counts.append((np.abs(got - RED).max(axis=-1) < 1e-3).sum())
  # Not below 1 pixel, nor above those of the scale.
  assert counts[0] < counts[1] < counts[2] == counts[3]


def test_a_window_out_of_sight_draws_nothing_and_does_not_fail():
  canvas = np.zeros((5, 5), np.float32)
  for x, stride in ((1e6, 2.0), (-1e6, 2.0), (3.0, 1e6)):
    got = pictures.framed(canvas, window(x, 3.0, stride=stride), n=3)
    np.testing.assert_array_equal(got, 1)


def test_every_canvas_has_its_own_frame():
  canvas = np.zeros((2, 3, 7, 7), np.float32)
  w = window(4, 4, shape=(2, 3))
  w.x[1, 2] = 6
  got = pictures.framed(canvas, w, n=2)
  assert got.shape == (2, 3, 21, 21, 3)
  one = pictures.framed(canvas[0, 0], window(4, 4), n=2)
  np.testing.assert_array_equal(got[0, 1], one)
  assert red(got[1, 2])[0] - red(one)[0] == 6


def test_a_lost_model_has_pictures_too():
  canvas = np.full((2, 4, 4), np.nan, np.float32)
  canvas[1] = 0
  lost = window(np.nan, np.nan, np.nan, np.nan, shape=(2,))
  got = pictures.framed(canvas, lost, n=2)
  np.testing.assert_array_equal(got, 1)
