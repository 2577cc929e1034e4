"""Tasks on which sentence vectors are judged: SICK, MR, CR, SUBJ and MPQA.

Source: Ba et al. 2016, section 6.3. SICK: Marelli et al. 2014; MR: Pang and
Lee 2005; CR: Hu and Liu 2004; SUBJ: Pang and Lee 2004; MPQA: Wiebe et al. 2005.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from lnrnn.errors import DataError, choices, one_line

SICK = {
  "train": "SICK_train.txt",
  "trial": "SICK_trial.txt",
  "test": "SICK_test_annotated.txt",
}
LOWEST, HIGHEST = 1, 5  # Of SICK's scores.
# The file of class 0, then that of class 1.
CLASSIFICATION = {
  "mr": ("rt-polarity.neg", "rt-polarity.pos"),
  "cr": ("custrev.neg", "custrev.pos"),
  "subj": ("subj.objective", "subj.subjective"),
  "mpqa": ("mpqa.neg", "mpqa.pos"),
}
_COLUMNS = ("sentence_A", "sentence_B", "relatedness_score")
# MR and SUBJ have letters as 0xe9, "e" with an acute accent, and a few dashes
# and quotes of Windows (0x85 to 0x97), which are no letters in Latin-1 either.
# The files of CR and MPQA are plain ASCII.
_ENCODINGS = {"mr": "latin-1", "subj": "latin-1"}


class Pairs(NamedTuple):
  """Pairs of sentences, and how related people find them.

  Attributes:
    a: n sentences.
    b: n sentences.
    scores: float64 [n], from 1 to 5.
  """

  a: list[str]
  b: list[str]
  scores: np.ndarray


class Labelled(NamedTuple):
  """Sentences of two classes.

  Attributes:
    texts: n sentences, class 0 first.
    labels: int64 [n], 0 or 1.
    blank: how many blank lines were left out.
  """

  texts: list[str]
  labels: np.ndarray
  blank: int


def read_sick(folder: str | os.PathLike[str]) -> dict[str, Pairs]:
  """Reads the three parts of SICK.

  Args:
    folder: of the owners' files: tables whose columns are parted by tabs and
      named in the first line. Lines end in LF or CRLF.

  Returns:
    {"train", "trial", "test": its pairs}; there are 4,500, 500 and 4,927.

  Raises:
    DataError: a file is missing, damaged, or of another format.
  """
  root = pathlib.Path(folder)
  return {part: _pairs(root / name) for part, name in SICK.items()}


def read_labelled(folder: str | os.PathLike[str], name: str) -> Labelled:
  """Reads the sentences of a classification task.

  Args:
    folder: of its two files, a sentence a line.
    name: one of `CLASSIFICATION`.

  Returns:
    The sentences of class 0, then those of class 1, without blanks around
    them.

  Raises:
    DataError: there is no such task, or a file is missing, damaged, or has no
      sentence.
  """
  if name not in CLASSIFICATION:
    allowed = choices(name, tuple(CLASSIFICATION))
    raise DataError(f"task {name!r}: {allowed}")
  texts, labels, blank = [], [], 0
  for label, file in enumerate(CLASSIFICATION[name]):
    path = pathlib.Path(folder) / file
    lines = _lines(path, _ENCODINGS.get(name, "utf-8"))
    found = [line for line in lines if line]
    if not found:
      raise DataError(f"{path}: has no sentence")
    texts += found
    labels += [label] * len(found)
    blank += len(lines) - len(found)
  return Labelled(texts, np.array(labels, np.int64), blank)


def _pairs(path: pathlib.Path) -> Pairs:
  header, *rows = (line.split("\t") for line in _lines(path, "utf-8-sig"))
  if missing := [name for name in _COLUMNS if name not in header]:
    listed = ", ".join(name[:30] for name in header[:8])
    raise DataError(
      f"{path}, line 1: has no column {', '.join(missing)}; it has: {listed}"
    )
  if not rows:
    raise DataError(f"{path}, line 2: is missing; there is a header alone")
  at = [header.index(name) for name in _COLUMNS]
  a, b, scores = [], [], []
  for number, row in enumerate(rows, 2):
    place = f"{path}, line {number}"
    if len(row) != len(header):
      raise DataError(
        f"{place}: has {len(row)} columns; the first line has {len(header)}"
      )
    first, second, score = (row[i].strip() for i in at)
    for column, text in zip(_COLUMNS, (first, second), strict=False):
      if not text:
        raise DataError(f"{place}: {column} is empty")
    a.append(first)
    b.append(second)
    scores.append(_score(score, place))
  return Pairs(a, b, np.array(scores, np.float64))


def _score(text: str, place: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = np.nan
  if not LOWEST <= value <= HIGHEST:
    raise DataError(
      f"{place}: relatedness_score is {text[:30]!r}; a number from {LOWEST} to"
      f" {HIGHEST} is needed"
    )
  return value


def _lines(path: pathlib.Path, encoding: str) -> list[str]:
  """The lines of a file, without ASCII's blanks around them."""
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    raise DataError(f"{path}: no such file") from None
  except OSError as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  if not data.strip():
    raise DataError(f"{path}: is empty")
  # Bytes, which are cut at LF alone: text has other signs that end lines, one
  # of which stands within sentences of MR and SUBJ.
  rows = data.removesuffix(b"\n").split(b"\n")
  found = []
  for number, row in enumerate(rows, 1):
    try:
      found.append(row.strip(b" \r").decode(encoding))
    except UnicodeDecodeError as error:
      raise DataError(f"{path}, line {number}: is not UTF-8") from error
  return found
