"""Questions in numbered lines: the bAbI tasks, and CNN's top sentences.

A story is lines numbered from 1 on; the next story begins at 1 again. A line
is a statement, or, where it has a tab, a question: the query, a tab, the
answer, and perhaps a tab and the lines that tell it.

Source: Weston et al. 2015; Hermann et al. 2015, in the form of Cooijmans et
al. 2016.
"""

from collections.abc import Callable, Iterator
import os
import pathlib
import re

from lnrnn.data import fetch, vocabulary
from lnrnn.data.cloze import PLACEHOLDER, Question
from lnrnn.data.question_files import decoded
from lnrnn.errors import ConfigError, DataError, one_line

TASKS = range(1, 21)
_LANGUAGE = "en"  # Others are Hindi, shuffled letters, or 10,000 questions.
_PARTS = ("train", "test")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MAX_BYTES = 1 << 30  # The owners' archive unpacks to less than 0.2 GB.


def parse(
  data: bytes,
  where: str,
  *,
  tokens: Callable[[str], list[str]] = str.split,
  asked: str = "",
) -> list[Question]:
  """Reads the stories of a file.

  Args:
    data: the content.
    where: what to call it in messages.
    tokens: cuts a statement or a query.
    asked: a token that every query must have.

  Returns:
    The questions in their order, each with all statements that its story has
    before it, and with no other question. An answer is as it is written.

  Raises:
    DataError: the content is of another format.
  """
  found: list[Question] = []
  statements: list[list[str]] = []
  begin, questions = 1, 0
  lines = decoded(data, where).removesuffix("\n").split("\n")
  for i, line in enumerate(lines, 1):
    place = f"{where}, line {i}"
    number, _, rest = line.partition(" ")
    if not line.strip():
      raise DataError(f"{place}: is empty")
    if number == "1" and i > 1:
      _check_story(where, begin, questions)
      begin, questions, statements = i, 0, []
    elif number != str(i - begin + 1):
      either = "" if i == 1 else f" {i - begin + 1} or"
      raise DataError(
        f"{place}: begins with {number!r:.40}, not with the number{either} 1"
      )
    columns = rest.split("\t")
    words = tokens(columns[0])
    if not words:
      raise DataError(f"{place}: has no word")
    if len(columns) == 1:
      statements.append(words)
      continue
    answer = columns[1].split()
    if len(answer) != 1:
      told = "several words for an" if answer else "no"
      raise DataError(f"{place}: the question has {told} answer")
    if asked and asked not in words:
      raise DataError(f"{place}: the question has no {asked}")
    if not statements:
      raise DataError(f"{place}: the question has no statement before it")
    found.append(Question(list(statements), words, answer[0]))
    questions += 1
  _check_story(where, begin, questions)
  return found


def _check_story(where: str, begin: int, questions: int) -> None:
  if not questions:
    raise DataError(
      f"{where}, line {begin}: the story that begins here has no question"
    )


def read_top4(path: str | os.PathLike[str]) -> list[Question]:
  """Reads a text of CNN questions of few sentences, tokens as they are.

  Raises:
    DataError: the file is missing or of another format.
  """
  data = _content(pathlib.Path(path))
  return parse(data, os.fspath(path), asked=PLACEHOLDER)


def read_babi(
  folder: str | os.PathLike[str], task: int
) -> dict[str, list[Question]]:
  """Reads a bAbI task, in lower case and without punctuation.

  Its files are `en/qaN_*_train.txt` and `en/qaN_*_test.txt`, at any depth of
  the folder, or of the one tar archive in it; or in the folder itself.

  Args:
    folder: of the files or the archive.
    task: N, one of `TASKS`.

  Returns:
    {"train", "test": its questions}. An answer of several things, as
    "milk,football", is one token.

  Raises:
    ConfigError: there is no such task.
    DataError: a file is missing, there twice, or of another format.
  """
  if task not in TASKS:
    raise ConfigError(
      f"data.task: {task} is not allowed: {TASKS[0]} to {TASKS[-1]}"
    )
  root = pathlib.Path(folder)
  held: dict[str, tuple[str, bytes]] = {}
  for part, where, data in _babi_files(root, task):
    if part in held:
      raise DataError(f"{where}: there is {held[part][0]} too; keep one")
    held[part] = where, data
  for part in _PARTS:
    if part not in held:
      raise DataError(
        f"{root}: has no {_LANGUAGE}/qa{task}_*_{part}.txt, nor a tar archive"
        " with it; it is in tasks_1-20_v1-2.tar.gz"
      )
  return {
    part: [
      question._replace(answer=question.answer.lower())
      for question in parse(data, where, tokens=vocabulary.words)
    ]
    for part, (where, data) in ((part, held[part]) for part in _PARTS)
  }


def _babi_files(
  root: pathlib.Path, task: int
) -> Iterator[tuple[str, str, bytes]]:
  """(part, what to call it, content) of all files that may be a task's."""
  name = re.compile(rf"qa{task}_[\w-]+_({'|'.join(_PARTS)})\.txt", re.ASCII)
  # The folder itself may be the one of the language.
  paths = sorted(root.glob(f"**/{_LANGUAGE}/qa*.txt"))
  paths = paths or sorted(root.glob("qa*.txt"))
  for path in paths:
    if match := name.fullmatch(path.name):
      yield match[1], str(path), _content(path)
  if paths:
    return
  archives = sorted(
    path
    for path in root.glob("*")
    if path.name.endswith(_ARCHIVES) and path.name[0] != "."
  )
  if len(archives) > 1:
    listed = ", ".join(p.name for p in archives)
    raise DataError(f"{root}: has several archives: {listed}; keep one")
  for archive in archives:
    for member, data in fetch.contents(archive, max_bytes=_MAX_BYTES):
      *above, last = member.split("/")
      match = name.fullmatch(last)
      if match and (not above or above[-1] in (_LANGUAGE, ".")):
        yield match[1], f"{archive}: {one_line(member)}", data


def _content(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    raise DataError(f"{path}: no such file") from None
  except OSError as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
