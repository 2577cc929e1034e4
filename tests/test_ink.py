"""Pictures of handwriting."""

import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from lnrnn import ink

# Down, across; a dot above.
POINTS = np.array([[0, 5, 0], [0, 5, 0], [5, 0, 1], [-2, -20, 1]], float)


def test_strokes_are_cut_where_the_pen_is_lifted_and_stand_upright():
  first, dot = ink.strokes(POINTS)
  np.testing.assert_array_equal(first, [[0, -5], [0, -10], [5, -10]])
  np.testing.assert_array_equal(dot, [[3, 10]])


def test_a_stroke_that_does_not_end_is_drawn_too():
  (only,) = ink.strokes(POINTS[:2])
  assert len(only) == 2
  assert ink.strokes(POINTS[:0]) == []


def test_png_svg_and_pixels_show_the_ink(tmp_path):
  drawn = ink.figure([POINTS, POINTS], ["one", "two"], [np.eye(4)[:, :3]] * 2)
  path = ink.save(drawn, tmp_path / "new" / "line.png")
  with Image.open(path) as image:
    assert np.asarray(image.convert("L")).min() < 50
  root = ET.parse(ink.save(drawn, tmp_path / "line.svg")).getroot()
  assert root.tag.endswith("svg")
  pixels = ink.pixels(drawn)
  assert pixels.ndim == 3 and pixels.shape[2] == 3
  assert 0 <= pixels.min() < 0.2 and pixels.max() == 1


def test_nothing_and_nan_can_be_drawn():
  lost = np.full((3, 3), np.nan)
  assert ink.pixels(ink.figure([np.zeros((0, 3)), lost])).ndim == 3
