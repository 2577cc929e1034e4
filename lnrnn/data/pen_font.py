"""A small stroke font of our own: generated writing for runs without files.

Letters are a to z. No two lines are written alike: slant, size, spacing and a
slow wobble differ.
"""

from collections.abc import Iterator
import functools

import numpy as np

# The places a pen passes, x and y in tenths of the height of an x, y upwards
# from the line; strokes are apart by "/", and a place that is given twice is
# a corner. Between the places the pen goes along a smooth curve.
_STROKES = {
  "a": "9 8,5 10,1 7,0 4,3 0,7 2,9 6,9 9,9 9,9 3,11 0",
  "b": "0 18,0 18,0 0,0 0,0 6,4 10,8 8,9 5,7 1,3 0,0 2",
  "c": "9 8,6 10,2 9,0 5,2 1,6 0,9 2",
  "d": "9 8,5 10,1 7,0 4,3 0,7 2,9 6,9 18,9 18,9 3,11 0",
  "e": "0 5,9 5,9 5,8 9,5 10,1 8,0 4,3 0,6 0,9 2",
  "f": "8 17,5 18,3 15,3 0 / 0 9,7 9",
  "g": "9 8,5 10,1 7,0 4,3 0,7 2,9 6,9 9,9 9,9 -4,6 -8,1 -7",
  "h": "0 18,0 18,0 0,0 0,1 7,5 10,8 8,8 0",
  "i": "0 10,0 3,2 0 / 0 14,1 14",
  "j": "4 10,4 -4,2 -8,-2 -7 / 4 14,5 14",
  "k": "0 18,0 0 / 8 10,0 4,0 4,9 0",
  "l": "0 18,0 3,2 0",
  "m": "0 10,0 0,0 0,1 8,4 10,6 8,6 0,6 0,7 8,10 10,12 8,12 0",
  "n": "0 10,0 0,0 0,1 7,5 10,8 8,8 0",
  "o": "5 10,1 8,0 5,2 1,5 0,8 2,9 5,8 9,5 10",
  "p": "0 10,0 -8 / 0 6,4 10,8 8,9 5,7 1,3 0,0 2",
  "q": "9 8,5 10,1 7,0 4,3 0,7 2,9 6,9 9,9 9,9 -8,12 -6",
  "r": "0 10,0 0,0 0,1 6,4 10,7 9",
  "s": "8 8,5 10,1 8,3 6,7 4,8 2,5 0,0 1",
  "t": "3 16,3 3,5 0,8 1 / 0 10,8 10",
  "u": "0 10,0 3,3 0,7 2,8 6,8 10,8 10,8 2,10 0",
  "v": "0 10,5 0,5 0,9 10",
  "w": "0 10,3 0,3 0,6 8,6 8,9 0,9 0,12 10",
  "x": "0 10,9 0 / 9 10,0 0",
  "y": "0 10,0 4,3 1,7 3,8 10,8 10,8 -3,5 -8,0 -7",
  "z": "0 10,8 10,8 10,0 0,0 0,9 0",
}
_WORDS = """
a all and any as ask back big book but by call can clear cold day deep do
dry each early eat end even every face far fall fine fly for free from get
glad go good great hand have he hear here high home house how if in it joy
just keep kind know large last lay learn left let life light line little
long look low make man many may mix more much must my name near new next
night no not now of off old on one open or our out over own page pen plain
play put quick quiet quite read real rest right road run say sea see set
she show side sky sleep slow small so some soon sound stand still sun take
talk tell text than that the them then they thing think this time to too
tree true turn two under up us very voice walk wall warm was water way we
well wet when wide will wind wish with word work world write year yes you
young zero zoo
""".split()  # noqa: SIM905
_HEIGHT = 100.0  # Of an x, about that of IAM-OnDB's units.
_STEP = 0.28  # Between two points, in heights of an x.


def lines(n: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
  """Writes lines of two to four words.

  Args:
    n: number of lines.
    seed: whole number >= 0; decides all of them.

  Yields:
    The text, and its points [t, 3]: places x, y in whole units of about a
    hundredth of the height of an x, y downwards, and 1 where a stroke ends.
  """
  for i in range(n):
    # The raw stream is the same with every version of NumPy (NEP 19).
    bits = np.random.Philox(np.random.SeedSequence([seed, i]))
    draw = lambda k, bits=bits: (bits.random_raw(k) >> 11) / 2.0**53
    count = 2 + int(draw(1)[0] * 3)
    at = (draw(count) * len(_WORDS)).astype(int)
    text = " ".join(_WORDS[j] for j in at)
    yield text, _written(text, draw(8))


def _written(text: str, u: np.ndarray) -> np.ndarray:
  """The points of a text, its manner given by eight numbers from 0 to 1."""
  slant, size, gap, space, sway, period, phase, rise = u
  x, strokes = 0.0, []
  for character in text:
    if character == " ":
      x += 0.8 + 0.5 * space
      continue
    letter = _letter(character)
    strokes += [stroke + (x, 0) for stroke in letter]
    x += max(stroke[:, 0].max() for stroke in letter) + 0.3 + 0.2 * gap
  ends = np.cumsum([len(stroke) for stroke in strokes]) - 1
  places = np.concatenate(strokes)
  turn = 2 * np.pi * (places[:, 0] / (4 + 8 * period) + phase)
  places[:, 1] += (0.15 * sway) * np.sin(turn)
  places[:, 1] += 0.04 * (rise - 0.5) * places[:, 0]
  places[:, 0] += (0.6 * slant - 0.1) * places[:, 1]
  places *= _HEIGHT * (0.8 + 0.4 * size)
  points = np.zeros((len(places), 3), np.int32)
  points[:, :2] = np.rint(places * (1, -1))
  points[ends, 2] = 1
  return points


@functools.cache
def _letter(character: str) -> list[np.ndarray]:
  """The strokes of a letter, [t, 2] each, in heights of an x."""
  strokes = []
  for text in _STROKES[character].split("/"):
    places = np.array(
      [[float(v) / 10 for v in pair.split()] for pair in text.split(",")]
    )
    corners = np.flatnonzero((np.diff(places, axis=0) == 0).all(axis=1))
    parts = np.split(places, corners + 1)
    strokes.append(_evenly(np.concatenate([_smooth(part) for part in parts])))
  return strokes


def _smooth(places: np.ndarray, n: int = 12) -> np.ndarray:
  """A Catmull-Rom curve through places [k, 2]."""
  if len(places) < 3:
    return places
  p = np.concatenate([places[:1], places, places[-1:]])
  a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
  t = np.linspace(0, 1, n, endpoint=False)[None, :, None]
  curve = (
    2 * b
    + (c - a) * t
    + (2 * a - 5 * b + 4 * c - d) * t**2
    + (3 * b - a - 3 * c + d) * t**3
  ) / 2
  return np.concatenate([curve.reshape(-1, 2), places[-1:]])


def _evenly(curve: np.ndarray) -> np.ndarray:
  """Places about a step apart along a curve, both of its ends among them."""
  lengths = np.hypot(*np.diff(curve, axis=0).T)
  along = np.concatenate([[0], np.cumsum(lengths)])
  at = np.linspace(0, along[-1], max(2, 1 + round(along[-1] / _STEP)))
  return np.stack([np.interp(at, along, axis) for axis in curve.T], axis=1)
