"""IAM-OnDB: lines of on-line handwriting with their texts.

A point is (dx, dy, e): its offset from the point before, y growing downwards
as in the files, and e = 1 where a stroke ends with it, so that the pen is up
on its way to the next. A line's first point only says where the line begins
and is left out.

Source: Liwicki and Bunke 2005; Graves 2013, sections 4.2 and 5.2.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from lnrnn.data import batches, characters, iam_ondb_files, mnist, pen_font
from lnrnn.errors import ConfigError, DataError

SOURCES = ("embedded", "iam_ondb")
# What is trained on, and what is held out. Graves trained on all but the
# smaller validation set, and stopped early by that.
SPLITTINGS = {
  "graves": {
    "train": ("trainset", "testset_f", "testset_t"),
    "validation": ("testset_v",),
  },
  "official": {
    "train": ("trainset",),
    "validation": ("testset_v",),
    "test": ("testset_f",),
  },
}
_OPTIONAL = "testset_t"  # The larger validation set.
# A pen that writes moves less: 99.999 % of the offsets within strokes are
# below 370 units. What is longer is the whiteboard's sensor losing it.
MAX_OFFSET = 500
EMBEDDED_LINES = {"train": 2_000, "validation": 200}


class Lines(NamedTuple):
  """Lines of handwriting; n lines of p points together.

  Attributes:
    names: [n] str, as "a01-000u-01".
    offsets: float32 [p, 3] points, dx and dy in units of their deviations.
    starts: int64 [n + 1], where each line starts in `offsets`, and p.
    texts: n of them.
  """

  names: np.ndarray
  offsets: np.ndarray
  starts: np.ndarray
  texts: list[str]

  def line(self, i: int) -> np.ndarray:
    """The points of a line, [t, 3]."""
    return self.offsets[self.starts[i] : self.starts[i + 1]]


class Dataset(NamedTuple):
  """The splits, and what they are.

  Attributes:
    splits: {name: lines}.
    mean: [2] of dx and dy over the training split, in the files' units.
    deviation: [2] likewise; an offset is normalised by both.
    left_out: {why: how many lines or points}.
    description: one line.
    fingerprint: 16 hexadecimal digits that name the content.
  """

  splits: dict[str, Lines]
  mean: np.ndarray
  deviation: np.ndarray
  left_out: dict[str, int]
  description: str
  fingerprint: str


def load(
  source: str = "embedded",
  data_dir: str | os.PathLike[str] | None = None,
  splitting: str = "graves",
) -> Dataset:
  """Loads the lines from one of the sources.

  "embedded" is writing in a small stroke font of ours (`pen_font`), for quick
  runs. "iam_ondb" reads the owners' files: `lineStrokes-all` and `ascii-all`,
  as tar archives of any compression or unpacked, and the lists of forms. They
  are parsed once; what was read is kept in `$LNRNN_CACHE_DIR`, or
  `~/.cache/lnrnn`.

  Offsets are normalised to mean 0 and deviation 1 over the training split.
  Offsets within a stroke of more than `MAX_OFFSET` are left out, with the
  point at their end.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory `iam_ondb` in
      it; `$LNRNN_DATA_DIR` by default. Not used by "embedded".
    splitting: one of `SPLITTINGS`: "graves" trains on `trainset`, `testset_f`
      and, where it is there, `testset_t`, and holds `testset_v` out;
      "official" trains on `trainset` alone, and has `testset_f` for a test.
      "embedded" has no test either way.

  Returns:
    The lines.

  Raises:
    ConfigError: there is no such source or splitting.
    DataError: a file is missing, damaged, or holds something else.
  """
  for name, value, allowed in (
    ("source", source, SOURCES),
    ("splitting", splitting, tuple(SPLITTINGS)),
  ):
    if value not in allowed:
      raise ConfigError(
        f"data.{name}: {value!r} is not allowed: one of {', '.join(allowed)}"
      )
  if source == "embedded":
    raw, chosen = _drawn()
    raw_sum = batches.fingerprint(raw._asdict())
    origin = "embedded pen strokes"
    verdict = "a stroke font of ours, no handwriting"
  else:
    folder = mnist.find_folder(data_dir, source, "iam_ondb")
    raw, raw_sum = iam_ondb_files.read(folder)
    chosen, absent = _chosen(raw, folder, splitting)
    origin = f"IAM-OnDB in {folder}"
    verdict = "the paper's data"
    if splitting == "official":
      verdict = "the official training set alone"
    elif not (folder / f"{_OPTIONAL}.txt").is_file():
      verdict = f"without {_OPTIONAL}"
    elif absent:
      verdict = "a part of the paper's data"
    if absent:
      verdict += f", {absent} of the listed forms are not there"
  return _dataset(raw, raw_sum, chosen, origin, verdict)


def owners_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The archives or trees, and the lists of forms, in a folder.

  Raises:
    DataError: one of them is missing.
  """
  found = [iam_ondb_files.source(folder, stem) for stem in iam_ondb_files.TREES]
  lists = {name for s in SPLITTINGS.values() for v in s.values() for name in v}
  for name in sorted(lists):
    path = folder / f"{name}.txt"
    if path.is_file():
      found.append(path)
    elif name != _OPTIONAL:
      raise DataError(f"{folder}: has no {name}.txt")
  return found


def padded(lines: Lines, steps: int) -> dict[str, np.ndarray]:
  """The first points of each line, with its whole text, in rows.

  Args:
    lines: n of them.
    steps: most points of each.

  Returns:
    "ink" float32 [n, steps, 3] and "text" uint8 [n, u], codes of
    `characters`, both filled up with zeros; "length" and "text_length"
    int32 [n].
  """
  lengths = np.minimum(np.diff(lines.starts), steps).astype(np.int32)
  at = np.arange(steps)
  live = at < lengths[:, None]
  rows = (lines.starts[:-1, None] + at)[live]
  ink = np.zeros((len(lengths), steps, 3), np.float32)
  ink[live] = lines.offsets[rows]
  codes = [characters.encode(text) for text in lines.texts]
  counts = np.array([len(c) for c in codes], np.int32)
  text = np.zeros((len(codes), counts.max()), np.uint8)
  text[np.arange(text.shape[1]) < counts[:, None]] = np.concatenate(codes)
  return {
    "ink": ink,
    "length": lengths,
    "text": text,
    "text_length": counts,
  }


def _dataset(
  raw: iam_ondb_files.Raw, raw_sum: str, chosen, origin: str, verdict: str
) -> Dataset:
  """Cuts the splits out and normalises them."""
  splits, jumps = {}, 0
  for name, rows in chosen.items():
    points, starts, found = _offsets(raw, rows)
    texts = [str(text) for text in raw.texts[rows]]
    splits[name] = Lines(raw.names[rows], points, starts, texts)
    jumps += found
  # Sums in float64, as a float32 has 24 bits for six million of them.
  xy = splits["train"].offsets[:, :2]
  mean = xy.mean(axis=0, dtype=np.float64)
  deviation = xy.std(axis=0, dtype=np.float64)
  if not deviation.all():
    raise DataError(f"{origin}: all offsets of the training split are the same")
  for lines in splits.values():
    lines.offsets[:, :2] = (lines.offsets[:, :2] - mean) / deviation
  fingerprint = batches.fingerprint(
    {
      "raw": np.array(raw_sum),
      "version": np.array(iam_ondb_files.VERSION),
      **chosen,
    }
  )
  left_out = {
    "lines of forms with another number of texts": len(raw.left_out),
    f"offsets above {MAX_OFFSET} within a stroke": jumps,
  }
  counts = " / ".join(f"{len(v.texts):,} {k}" for k, v in splits.items())
  description = f"{origin}: {counts} lines ({verdict})"
  if any(left_out.values()):
    told = ", ".join(f"{n} {why}" for why, n in left_out.items() if n)
    description += f"; left out: {told}"
  return Dataset(splits, mean, deviation, left_out, description, fingerprint)


def _offsets(raw: iam_ondb_files.Raw, rows: np.ndarray):
  """Points [p, 3] of some lines, where each starts, and jumps left out."""
  first, last = raw.starts[rows], raw.starts[rows + 1]
  sizes = last - first
  ends = np.cumsum(sizes)
  at = np.repeat(first - (ends - sizes), sizes) + np.arange(sizes.sum())
  points = raw.points[at]
  xy = points[:, :2]
  offsets = np.diff(xy, axis=0, prepend=xy[:1])
  begins = np.zeros(len(points), bool)
  begins[ends - sizes] = True
  inside = np.concatenate([[False], points[:-1, 2] == 0]) & ~begins
  # Not `max(axis=1)`, which takes three times as long on two columns.
  jump = inside & (np.maximum(*np.abs(offsets).T) > MAX_OFFSET)
  kept = ~begins & ~jump
  # A stroke that ends in jumps ends before them.
  final = points[:, 2].copy()
  for i in np.flatnonzero(jump & (final > 0)):
    while jump[i]:
      i -= 1
    final[i] = 1
  made = np.concatenate([offsets, final[:, None]], axis=1)[kept]
  left = np.add.reduceat(kept, ends - sizes, dtype=np.int64)
  if not left.all():
    name = raw.names[rows[left.argmin()]]
    raise DataError(
      f"{name}.xml: all its offsets are above {MAX_OFFSET} within a stroke"
    )
  starts = np.concatenate([[0], np.cumsum(left)])
  return made.astype(np.float32), starts, int(jump.sum())


def _drawn() -> tuple[iam_ondb_files.Raw, dict[str, np.ndarray]]:
  """Generated lines."""
  names, texts, points = [], [], []
  chosen, first = {}, 0
  for seed, (split, n) in enumerate(EMBEDDED_LINES.items()):
    for i, (text, line) in enumerate(pen_font.lines(n, seed)):
      names.append(f"{split}-{i:04d}")
      texts.append(text)
      points.append(line)
    chosen[split] = np.arange(first, first + n)
    first += n
  return iam_ondb_files.joined(names, names, texts, points, []), chosen


def _chosen(raw: iam_ondb_files.Raw, folder: pathlib.Path, splitting: str):
  """{split: rows}, and how many of the listed forms have no strokes."""
  chosen, seen = {}, {}
  for split, names in SPLITTINGS[splitting].items():
    rows = []
    for name in names:
      path = folder / f"{name}.txt"
      if name == _OPTIONAL and not path.is_file():
        continue
      for form in iam_ondb_files.listed_forms(path):
        if form in seen:
          raise DataError(
            f"{path}: has the form {form}, which {seen[form]} has too"
          )
        seen[form] = path.name
      found = np.flatnonzero(
        np.isin(raw.forms, iam_ondb_files.listed_forms(path))
      )
      if not len(found):
        raise DataError(f"{path}: names no form whose strokes are there")
      rows.append(found)
    chosen[split] = np.concatenate(rows)
  there = {*raw.forms, *(name.rpartition("-")[0] for name in raw.left_out)}
  return chosen, len(seen.keys() - there)
