"""Books as runs of sentences, from several kinds of files.

A run is what stands together: its sentences follow one another. A chapter is
one, and a sentence that is left out ends one.
"""

import collections
from collections.abc import Callable, Iterator
import gzip
import importlib.resources
import itertools
import pathlib
import re
from typing import NamedTuple
import zlib

from lnrnn.data import mnist, novels, prose, tei
from lnrnn.errors import ConfigError, DataError, one_line

SOURCES = ("embedded", "novels", "text", "lines")
_ENDINGS = (".txt", ".txt.gz")
# Of a file with a sentence a line, so many lines count as one book: such files
# do not say where a book ends, and held-out text has to be of other places.
BLOCK = 500
_LONGEST_LINE = 1 << 20  # Bytes; what is longer is no sentence.
_MAX_BYTES = 1 << 30
# A word for a number: "Part of it was gone." is no heading.
_NUMBER = (
  "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
  "(thir|four|fif|six|seven|eigh|nine)teen|last|first|second|third|fifth|"
  "eighth|ninth|twelfth|(four|six|seven|ten|eleven)th|"
  "(thir|four|fif|six|seven|eigh|nine)teenth|"
  "(twen|thir|for|fif|six|seven|eigh|nine)t(y|ieth)"
)
_HEADING = re.compile(
  r"\s*(chapter|book|part|volume|canto|act|scene)\b[ .]*"
  # A title comes after a sign, or in capitals; else it is a sentence.
  rf"(the )?([ivxlc]+|\d+|{_NUMBER})\b\s*"
  r"([.:—–-].{0,80}|(?-i:[^a-z]{0,80}))",
  re.IGNORECASE,
)
# What reading a damaged .gz raises.
_UNREADABLE = (OSError, EOFError, zlib.error)


class Book(NamedTuple):
  """What is held out as a whole, or trained on as a whole.

  Attributes:
    where: what to call it in messages.
    content: a file's bytes, or its lines.
    kind: one of `SOURCES`, which says how it is read.
  """

  where: str
  content: bytes | list[bytes]
  kind: str


def paths(source: str, data_dir: str | None) -> list[pathlib.Path]:
  """The files and folders of a source.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory of the source's
      name in it; `$LNRNN_DATA_DIR` by default. Not used by "embedded".

  Raises:
    ConfigError: there is no such source.
    DataError: there are no files.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  if source == "embedded":
    root = importlib.resources.files("lnrnn.data") / "embedded" / "alice.txt"
    return [pathlib.Path(str(root))]
  name = {"novels": "novels", "text": "books", "lines": "sentences"}[source]
  folder = mnist.find_folder(data_dir, source, name)
  if source == "novels":
    return novels.sources(folder)
  found = sorted(
    path
    for path in folder.rglob("*")
    if path.name.endswith(_ENDINGS)
    and not any(part[0] == "." for part in path.relative_to(folder).parts)
    and path.is_file()
  )
  if not found:
    raise DataError(
      f"{folder}: has no text: files that end in {' or '.join(_ENDINGS)} are"
      " needed"
    )
  return found


def stream(
  source: str, found: list[pathlib.Path], *, first: int = 0
) -> Iterator[Book]:
  """The books of a source, in an order that is always the same.

  Args:
    source: one of `SOURCES`.
    found: of `paths`.
    first: so many are passed by, and not read further than is needed.

  Yields:
    Books; one at a time is in memory.

  Raises:
    DataError: a file cannot be read, or two novels have one name.
  """
  yield from itertools.islice(_BOOKS[source](found), first, None)


def runs(
  book: Book, skipped: collections.Counter[str]
) -> Iterator[list[str] | None]:
  """The sentences of a book, as tokens in lower case.

  Args:
    book: any.
    skipped: counts what is left out, and why.

  Yields:
    The tokens of a sentence; None where a run ends.

  Raises:
    DataError: a novel is damaged.
  """
  for chapter in _CHAPTERS[book.kind](book, skipped):
    for sentence in chapter:
      found = None if sentence is None else prose.tokens(sentence.lower())
      if found == []:
        skipped["sentences without a word"] += 1
      yield found or None
    yield None


def _novels(found: list[pathlib.Path]) -> Iterator[Book]:
  for where, _, content in novels.contents(found):
    yield Book(where, content, "novels")


def _read(path: pathlib.Path):
  return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _texts(path: pathlib.Path) -> Iterator[Book]:
  try:
    with _read(path) as file:
      content = file.read(_MAX_BYTES + 1)
  except _UNREADABLE as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  if len(content) > _MAX_BYTES:
    raise DataError(
      f"{path}: has more than {_MAX_BYTES:,} bytes, which is no book; with a"
      " sentence a line it is data.source=lines"
    )
  yield Book(str(path), content, "text")


def _embedded(path: pathlib.Path) -> Iterator[Book]:
  """The chapters of the embedded book, each held out or not by itself."""
  parts = re.split(rb"\n{4,}", path.read_bytes())
  for i, part in enumerate(parts, 1):
    yield Book(f"{path.name}, part {i}", part, "text")


def _blocks(path: pathlib.Path) -> Iterator[Book]:
  """A file with a sentence a line, in blocks of lines."""
  lines: list[bytes] = []
  number = 1
  try:
    with _read(path) as file:
      while line := file.readline(_LONGEST_LINE):
        lines.append(line)
        while len(line) == _LONGEST_LINE and line[-1:] != b"\n":
          line = file.readline(_LONGEST_LINE)  # The rest of it is dropped.
        if len(lines) == BLOCK:
          yield Book(f"{path}, line {number}", lines, "lines")
          number, lines = number + BLOCK, []
  except _UNREADABLE as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  if lines:
    yield Book(f"{path}, line {number}", lines, "lines")


def _of_each(read: Callable[[pathlib.Path], Iterator[Book]]):
  return lambda found: itertools.chain.from_iterable(map(read, found))


_BOOKS: dict[str, Callable[[list[pathlib.Path]], Iterator[Book]]] = {
  "novels": _novels,
  "text": _of_each(_texts),
  "embedded": _of_each(_embedded),
  "lines": _of_each(_blocks),
}


def _tei_chapters(book: Book, skipped):
  del skipped
  assert isinstance(book.content, bytes)
  for chapter in tei.read(book.where, book.content).chapters:
    yield (s for paragraph in chapter for s in prose.sentences(paragraph))


def _text_chapters(book: Book, skipped):
  """Chapters of a plain text.

  Lines up to an empty one are a paragraph. A chapter ends before a heading,
  a line such as "Chapter IV" with nothing but empty lines around it, which is
  left out, and where three lines or more are empty.
  """
  assert isinstance(book.content, bytes)
  chapter: list[str | None] = []
  paragraph: list[str] = []
  blank = 0

  def close():
    text = " ".join(paragraph)
    heading = len(paragraph) == 1 and _HEADING.fullmatch(text)
    paragraph.clear()
    if not text or heading:
      return bool(heading)
    chapter.extend(prose.sentences(text))
    return False

  for line in [*book.content.splitlines(), b"", b"", b""]:
    text = _decoded(line, skipped)
    if text is None:  # What is around it does not follow on it.
      close()
      chapter.append(None)
      blank = 0
    elif text.strip():
      paragraph.append(text.strip())
      blank = 0
    else:
      blank += 1
      if (close() or blank == 3) and chapter:
        yield chapter
        chapter = []
  if chapter:
    yield chapter


def _line_chapters(book: Book, skipped):
  """A sentence a line; an empty line ends a run."""
  chapter: list[str | None] = []
  for line in book.content:
    assert isinstance(line, bytes)
    text = _decoded(line, skipped)
    if text is not None and not text.strip():
      skipped["empty lines"] += 1
    chapter.append(text and text.strip() or None)
  yield chapter


_CHAPTERS = {
  "novels": _tei_chapters,
  "text": _text_chapters,
  "lines": _line_chapters,
}


def _decoded(line: bytes, skipped) -> str | None:
  """A line as text, or None if it is no UTF-8, or too long."""
  if len(line) >= _LONGEST_LINE:
    skipped[f"lines of {_LONGEST_LINE:,} bytes or more"] += 1
    return None
  try:
    return line.decode("utf-8-sig")
  except UnicodeDecodeError:
    skipped["lines that are not UTF-8"] += 1
    return None
