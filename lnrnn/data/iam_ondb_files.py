"""The owners' files of IAM-OnDB: strokes as XML, transcriptions as text.

Source: Liwicki and Bunke 2005.
"""

from collections.abc import Mapping, Sequence
import contextlib
import pathlib
import re
from typing import Any, NamedTuple
import xml.parsers.expat

import numpy as np

from lnrnn.data import cached
from lnrnn.errors import DataError, one_line

VERSION = 1  # To be raised when what is made of the files changes.
TREES = {"lineStrokes-all": "lineStrokes", "ascii-all": "ascii"}
_MAX_BYTES = 1 << 31  # The strokes have 0.5 GB.
_MAX_PLACE = 1 << 20  # Coordinates go up to 9,098; offsets are to fit int32.
_NAME = re.compile(r"([A-Za-z0-9]+-[A-Za-z0-9]+)-(\d+)\.xml")


class Raw(NamedTuple):
  """Lines as the files have them.

  Attributes:
    names: [n] str.
    forms: [n] str, the form that each is a line of.
    texts: [n] str.
    points: int32 [p, 3], places x, y, and 1 where a stroke ends.
    starts: int64 [n + 1].
    left_out: [k] str, lines of forms with more or fewer texts than lines.
  """

  names: np.ndarray
  forms: np.ndarray
  texts: np.ndarray
  points: np.ndarray
  starts: np.ndarray
  left_out: np.ndarray


def joined(
  names: Sequence[str],
  forms: Sequence[str],
  texts: Sequence[str],
  points: Sequence[np.ndarray],
  left_out: Sequence[str],
) -> Raw:
  """Lines in arrays; `points` are [t, 3] of each, and the rest as of `Raw`."""
  sizes = [len(line) for line in points]
  return Raw(
    np.array(names),
    np.array(forms),
    np.array(texts),
    np.concatenate(points).astype(np.int32),
    np.concatenate([[0], np.cumsum(sizes)]),
    np.array(left_out, dtype=str),
  )


def listed_forms(path: pathlib.Path) -> list[str]:
  """The forms that a list of the owners names.

  Raises:
    DataError: it cannot be read.
  """
  try:
    text = path.read_text(encoding="ascii")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  return text.split()


def read(folder: pathlib.Path) -> tuple[Raw, str]:
  """What the files hold, and its fingerprint; from the cache if it is there.

  Raises:
    DataError: a file is missing, damaged, or holds something else.
  """
  sources = {stem: source(folder, stem) for stem in TREES}
  found, name = cached.arrays(
    "iam_ondb",
    cached.digest(sources.values(), VERSION),
    lambda: _parse(sources)._asdict(),
  )
  return Raw(**found), name


def source(folder: pathlib.Path, stem: str) -> pathlib.Path:
  """The archive, or the unpacked tree.

  Args:
    folder: of the owners' files.
    stem: of the archive's name, one of `TREES`.

  Raises:
    DataError: there is neither.
  """
  tree = TREES[stem]
  for path in (folder / stem / tree, folder / tree, folder / stem):
    if path.is_dir():
      return path
  found = sorted(p for p in folder.glob(f"{stem}.t*") if p.is_file())
  if not found:
    raise DataError(
      f"{folder}: has no {stem}.tar[.gz|.xz] nor a folder {tree}; register at"
      " fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database and get"
      " it there"
    )
  return found[0]


def _parse(sources: Mapping[str, pathlib.Path]) -> Raw:
  """Reads all lines that have a text."""
  texts = {}
  for where, name, content in cached.contents(
    sources["ascii-all"], ".txt", max_bytes=_MAX_BYTES
  ):
    texts[name.removesuffix(".txt")] = (where, _transcription(where, content))
  forms: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
  for where, name, content in cached.contents(
    sources["lineStrokes-all"], ".xml", max_bytes=_MAX_BYTES
  ):
    match = _NAME.fullmatch(name)
    if not match:
      raise DataError(f"{where}: is not named as form-NN.xml")
    form, number = match[1], int(match[2])
    forms.setdefault(form, {})[number] = (where, _points(where, content))
  if not forms:
    raise DataError(f"{sources['lineStrokes-all']}: has no line")
  kept, left_out = [], []
  for form, lines in sorted(forms.items()):
    if form not in texts:
      where, _ = next(iter(lines.values()))
      raise DataError(f"{where}: there is no transcription {form}.txt")
    where, said = texts[form]
    # One that lost a line would have its texts at others.
    if sorted(lines) != [*range(1, len(said) + 1)]:
      left_out += [f"{form}-{number:02d}" for number in sorted(lines)]
      continue
    for (number, (_, points)), text in zip(
      sorted(lines.items()), said, strict=True
    ):
      kept.append((f"{form}-{number:02d}", form, text, points))
  if not kept:
    raise DataError(f"{sources['ascii-all']}: no form has its lines' texts")
  names, of, said, points = zip(*kept, strict=True)
  return joined(names, of, said, points, left_out)


def _transcription(where: str, content: bytes) -> list[str]:
  """The lines of text after the mark CSR, "corrected"."""
  text = content.decode("latin-1").replace("\r", "")
  _, mark, after = text.partition("CSR:")
  if not mark:
    raise DataError(
      f"{where}: has no line CSR: with the transcription after it"
    )
  lines = [line.strip() for line in after.split("\n") if line.strip()]
  if not lines:
    raise DataError(f"{where}: its transcription is empty")
  return lines


def _points(where: str, content: bytes) -> np.ndarray:
  """The points of a line, int32 [t, 3]: x, y, 1 where a stroke ends."""
  points: list[tuple[Any, Any]] = []
  ends: list[int] = []

  def start(tag, attributes):
    if tag == "Point":
      points.append((attributes.get("x"), attributes.get("y")))

  def end(tag):
    if tag == "Stroke":
      ends.append(len(points))

  def doctype(*_):
    # Entities can make a file of a line into one of gigabytes.
    raise DataError(
      f"{where}: has a document type; the owners' files have none"
    )

  parser = xml.parsers.expat.ParserCreate()
  parser.StartElementHandler = start
  parser.EndElementHandler = end
  parser.StartDoctypeDeclHandler = doctype
  try:
    parser.Parse(content, True)
  except (xml.parsers.expat.ExpatError, LookupError, ValueError) as error:
    # The last two tell of an encoding that there is not.
    raise DataError(f"{where}: is no whole XML: {one_line(error)}") from error
  made = np.zeros((len(points), 3), np.int32)
  made[:, :2] = _whole_numbers(where, points)
  if len(made) < 2:
    raise DataError(f"{where}: has {len(made)} points; 2 at least are needed")
  if (made[:, :2] == made[0, :2]).all():
    raise DataError(f"{where}: all its points are the same")
  last = np.array(ends, int) - 1
  made[last[last >= 0], 2] = 1
  made[-1, 2] = 1
  return made


def _whole_numbers(where: str, points: Sequence[tuple[Any, Any]]) -> np.ndarray:
  with contextlib.suppress(ValueError, TypeError, OverflowError):
    places = np.array(points, dtype=np.int32).reshape(-1, 2)
    if ((places >= -_MAX_PLACE) & (places <= _MAX_PLACE)).all():
      return places
  for i, point in enumerate(points):
    for axis, value in zip("xy", point, strict=True):
      try:
        fits = abs(int(value)) <= _MAX_PLACE
      except (ValueError, TypeError):
        fits = False
      if not fits:
        raise DataError(
          f"{where}: point {i + 1} has {axis}={value!r:.40}; whole numbers up"
          f" to {_MAX_PLACE:,} are needed"
        )
  raise AssertionError(points)
