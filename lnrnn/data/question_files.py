"""The CNN and Daily Mail questions: a `.question` file each.

A file has five sections with an empty line between: the URL, the context, the
query, the answer, and the list of entities, `@entityN:name` a line. Context and
query are tokens parted by blanks.

Source: Hermann et al. 2015, and the files that their script makes.
"""

import collections
from collections.abc import Iterator, Sequence
import os
import pathlib

from lnrnn.data.cloze import ENTITY, PLACEHOLDER, Question
from lnrnn.errors import DataError, one_line

SPLITS = ("training", "validation", "test")
ENDING = ".question"
# Marks that end a sentence, and quotes that may close after them.
END_MARKS = frozenset(".?!")
_CLOSING = END_MARKS | {'"', "''", "'", "”", "’"}
_SECTIONS = ("URL", "context", "query", "answer", "list of entities")
_PLACES = ("", "questions", "cnn/questions")
_MAX_BYTES = 1 << 24  # Articles have some 10 KB.


class Damaged(DataError):
  """A file is not what it should be.

  Attributes:
    place: the file, and the line if it is of one.
    reason: what is wrong, without what is of this file alone.
  """

  def __init__(self, where: str, line: int, reason: str, detail: object = None):
    """Makes the message.

    Args:
      where: the file.
      line: from 1 on; 0 is no line.
      reason: what is wrong.
      detail: what is there instead.
    """
    # A file's name may hold anything, line breaks too.
    named = where if where.isprintable() else repr(where)
    self.place = f"{named}, line {line}" if line else named
    self.reason = reason
    shown = "" if detail is None else f": {one_line(detail)}"
    super().__init__(f"{self.place}: {reason}{shown}")


class Skipped:
  """Files that were left out.

  Attributes:
    counts: {reason: how many}.
    first: {reason: the first of them, its line too}.
  """

  def __init__(self):
    self.counts: collections.Counter[str] = collections.Counter()
    self.first: dict[str, str] = {}

  def add(self, fault: Damaged) -> None:
    """Counts a file."""
    self.counts[fault.reason] += 1
    self.first.setdefault(fault.reason, fault.place)

  def lines(self) -> list[str]:
    """What to tell, a line a reason, the most frequent first."""
    return [
      f"{n:,} {'file' if n == 1 else 'files'} left out, as {reason}; the first"
      f" is {self.first[reason]}"
      for reason, n in self.counts.most_common()
    ]


def decoded(data: bytes, where: str) -> str:
  r"""The text of a file, without a byte order mark, its line ends as \n.

  Raises:
    Damaged: it is not UTF-8, or blank.
  """
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    # Not of `data`: the place does not count a byte order mark.
    line = error.object[: error.start].count(b"\n") + 1
    raise Damaged(where, line, "the text is not UTF-8") from error
  if not text.strip():
    raise Damaged(where, 0, "the file is empty")
  return text.replace("\r\n", "\n")


def parse(data: bytes, where: str) -> Question:
  """Reads the content of a file.

  Tokens are what white space parts. Line ends may be CRLF, and a byte order
  mark may go before all. The answer need not be in the context.

  Args:
    data: the content.
    where: what to call it in messages.

  Returns:
    The question; sentences are cut as by `sentences`.

  Raises:
    Damaged: the content is of another format.
  """
  sections = decoded(data, where).rstrip("\n").split("\n\n")
  _check_sections(sections, where)
  _, context, query, answer, listed = sections
  asked, answer = query.split(), answer.strip()
  if PLACEHOLDER not in asked:
    line = _line_of(sections, 2)
    raise Damaged(where, line, f"the query has no {PLACEHOLDER}")
  line = _line_of(sections, 3)
  if fault := _entity_fault(answer):
    raise Damaged(where, line, f"the answer {fault}", answer)
  if answer not in _entities(listed, where, _line_of(sections, 4)):
    reason = "the answer is not in the list of entities"
    raise Damaged(where, line, reason, answer)
  return Question(sentences(context.split()), asked, answer)


def _check_sections(sections: Sequence[str], where: str) -> None:
  """Raises if there are not five, or one that is a line is none."""
  n, needed = len(sections), len(_SECTIONS)
  if n == needed - 1 and ENTITY.fullmatch(sections[-1].strip()):
    line = _line_of(sections, n - 1)
    raise Damaged(where, line, "there is no list of entities after the answer")
  if n != needed:
    line = _line_of(sections, min(n - 1, needed))
    reason = "a section is missing" if n < needed else "a section is too many"
    detail = f"there are {n:,}, not {', '.join(_SECTIONS)}"
    raise Damaged(where, line, reason, detail)
  for i, (name, section) in enumerate(zip(_SECTIONS, sections, strict=True)):
    if not section.strip():
      raise Damaged(where, _line_of(sections, i), f"the {name} is empty")
    if "\n" in section and i < needed - 1:
      line = _line_of(sections, i)
      raise Damaged(where, line, f"the {name} is not one line")


def _line_of(sections: Sequence[str], i: int) -> int:
  """Where a section begins, from 1 on."""
  return 1 + sum(section.count("\n") + 2 for section in sections[:i])


def _entities(listed: str, where: str, first: int) -> set[str]:
  """The entities of a list that begins at this line."""
  found = set()
  for i, line in enumerate(listed.split("\n"), first):
    entity, _, name = line.partition(":")
    if not name.strip():
      reason = "a line of the list of entities is not @entityN:name"
      raise Damaged(where, i, reason, f"{line!r:.40}")
    if fault := _entity_fault(entity):
      raise Damaged(where, i, f"a name that is listed {fault}", entity)
    if entity in found:
      raise Damaged(where, i, "an entity is listed twice", entity)
    found.add(entity)
  return found


def _entity_fault(token: str) -> str:
  """What is wrong with a token that should be an entity."""
  match = ENTITY.fullmatch(token)
  # @entity01 would have the number of @entity1.
  if match and (match[1][0] != "0" or match[1] == "0"):
    return ""
  number = token.removeprefix("@entity")
  if number != token and number.isdecimal():
    return "has a number that is none of 0 to 9999"
  return "is no @entityN"


def sentences(tokens: list[str]) -> list[list[str]]:
  """Cuts tokens into sentences, after the marks that end them.

  More marks and quotes that follow directly belong to the sentence before. An
  opening quote is not told from a closing one: the files write both alike.

  Args:
    tokens: of a passage.

  Returns:
    All tokens, in lists, none empty.
  """
  found, end, n = [], 0, len(tokens)
  for i in [i for i, token in enumerate(tokens) if token in END_MARKS]:
    if i < end:  # It follows another mark.
      continue
    begin, end = end, i + 1
    while end < n and tokens[end] in _CLOSING:
      end += 1
    found.append(tokens[begin:end])
  if end < n:
    found.append(tokens[end:])
  return found


def split_folders(folder: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
  """The folders of the splits, in the layout of the owners.

  Args:
    folder: `questions`, or one with it or with `cnn/questions` in it.

  Returns:
    {"training", "validation" and "test": its folder}.

  Raises:
    DataError: there is none, or only some of them.
  """
  root = pathlib.Path(folder)
  for place in _PLACES:
    found = {split: root / place / split for split in SPLITS}
    there = [path.is_dir() for path in found.values()]
    if all(there):
      return found
    if any(there):
      lacking = found[SPLITS[there.index(False)]]
      raise DataError(f"{lacking}: no such folder of {ENDING} files")
  raise DataError(
    f"{root}: has no folders {', '.join(SPLITS)}, in it nor in questions or"
    " cnn/questions; unpack the owners' archive of questions there"
  )


def files(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
  """The `.question` files in a folder, by name; hidden ones are passed by.

  Raises:
    DataError: there are none, or the folder cannot be read.
  """
  root = pathlib.Path(folder)
  return [root / name for name in _names(root)]


def _names(folder: pathlib.Path) -> list[str]:
  """The names alone, as there may be 400,000."""
  try:
    with os.scandir(folder) as entries:
      found = [
        entry.name
        for entry in entries
        if entry.name.endswith(ENDING)
        and entry.name[0] != "."
        and entry.is_file()
      ]
  except OSError as error:
    raise DataError(f"{folder}: cannot be read: {one_line(error)}") from error
  if not found:
    raise DataError(f"{folder}: has no {ENDING} files")
  return sorted(found)


def stream(
  folder: str | os.PathLike[str],
  *,
  strict: bool = True,
  report: Skipped | None = None,
) -> Iterator[Question]:
  """Reads the `.question` files in a folder one by one, by name.

  Args:
    folder: of a split.
    strict: the first damaged file ends it; else those are left out.
    report: counts what is left out.

  Yields:
    Questions; none is kept.

  Raises:
    DataError: there are no files; or, if strict, one is damaged.
  """
  for name in _names(pathlib.Path(folder)):
    try:
      question = _read(os.path.join(folder, name))
    except Damaged as fault:
      if strict:
        raise
      if report is not None:
        report.add(fault)
    else:
      yield question


def _read(path: str) -> Question:
  try:
    if os.stat(path).st_size > _MAX_BYTES:
      raise Damaged(path, 0, f"the file has more than {_MAX_BYTES:,} bytes")
    with open(path, "rb", buffering=0) as file:
      data = file.read()
  except OSError as error:
    reason = f"the file cannot be read ({error.strerror})"
    raise Damaged(path, 0, reason) from error
  return parse(data, path)
