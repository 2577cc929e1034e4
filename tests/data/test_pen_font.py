"""The generated writing."""

import string

import numpy as np

from lnrnn.data import batches, characters, pen_font


def test_lines_are_the_same_in_every_process_and_version():
  lines = dict(enumerate(pen_font.lines(20, 0)))
  joined = np.concatenate([points for _, points in lines.values()])
  assert batches.fingerprint({"points": joined}) == "2bebffc03ee52a32"
  assert lines[0][0] == "house not"


def test_lines_differ_by_seed_and_by_number():
  first = [points for _, points in pen_font.lines(3, 0)]
  other = [points for _, points in pen_font.lines(3, 1)]
  shapes = {points.tobytes() for points in (*first, *other)}
  assert len(shapes) == 6


def test_every_letter_can_be_written_and_is_in_the_alphabet():
  assert set(pen_font._STROKES) == set(string.ascii_lowercase)
  for text, points in pen_font.lines(50, 2):
    codes = characters.encode(text, "refuse")
    assert len(codes) == len(text)
    # About ten points a letter, and a stroke at least.
    assert 5 * len(text) < len(points) < 20 * len(text)
    assert points[-1, 2] == 1
    assert points[:, 2].sum() >= len(text.replace(" ", ""))


def test_points_of_a_stroke_are_close_and_words_go_to_the_right():
  for _, points in pen_font.lines(20, 3):
    inside = points[:-1, 2] == 0
    steps = np.hypot(*np.diff(points[:, :2], axis=0).T)[inside]
    assert 5 < np.median(steps) < 60 and steps.max() < 120
    assert points[-1, 0] > points[0, 0]
