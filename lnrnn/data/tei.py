"""Books in TEI XML, as the European Literary Text Collection has them."""

import re
from typing import NamedTuple
import xml.parsers.expat

from lnrnn.errors import DataError, one_line

# What stands in the text and is not of it: notes, headings, captions.
_APART = {"note", "head", "trailer", "figure", "fw"}
_PARAGRAPHS = {"p", "l", "ab"}
_BLANKS = re.compile(r"\s+")


class Book(NamedTuple):
  """A text in chapters.

  Attributes:
    name: its xml:id, or "".
    chapters: lists of paragraphs, each a text without line breaks.
  """

  name: str
  chapters: list[list[str]]


def read(where: str, content: bytes) -> Book:
  """Reads one file.

  The paragraphs and lines of verse in the text's body; a chapter is what
  stands in one `div` and in no other within it. Front matter, notes and
  headings are left out.

  Args:
    where: what to call the file in messages.
    content: its bytes.

  Returns:
    The book; chapters without a paragraph are left out.

  Raises:
    DataError: it is no whole XML, has a document type, or no paragraph.
  """
  reader = _Reader(where)
  parser = xml.parsers.expat.ParserCreate()
  parser.buffer_text = True
  parser.StartElementHandler = reader.start
  parser.EndElementHandler = reader.end
  parser.CharacterDataHandler = reader.text
  parser.StartDoctypeDeclHandler = reader.doctype
  try:
    parser.Parse(content, True)
  except (xml.parsers.expat.ExpatError, LookupError, ValueError) as error:
    # The last two tell of an encoding that there is not.
    raise DataError(f"{where}: is no whole XML: {one_line(error)}") from error
  chapters = [chapter for chapter in reader.chapters if chapter]
  if not chapters:
    raise DataError(f"{where}: has no paragraph in a <body>")
  return Book(reader.name, chapters)


class _Reader:
  """What expat calls.

  Attributes:
    name: of the book.
    chapters: so far.
  """

  def __init__(self, where: str):
    self._where = where
    self.name, self.chapters = "", [[]]
    self._body = 0  # Open elements that make it so: bodies, what is apart, ...
    self._apart = 0
    self._open = 0  # Paragraphs, one in another at times.
    self._parts: list[str] = []

  def start(self, tag, attributes):
    """An element begins."""
    tag = tag.rpartition(":")[2]
    if tag == "TEI":
      self.name = attributes.get("xml:id", "")
    self._body += tag == "body"
    self._apart += tag in _APART
    if not self._body:
      return
    if tag == "div":
      self.chapters.append([])
    elif tag in _PARAGRAPHS:
      self._open += 1
    elif tag == "lb":
      self._parts.append(" ")

  def end(self, tag):
    """An element ends."""
    tag = tag.rpartition(":")[2]
    self._apart -= tag in _APART
    if self._body:
      if tag == "div":
        # What comes after a chapter within a part is no more of it.
        self.chapters.append([])
      elif tag in _PARAGRAPHS:
        self._open -= 1
        if not self._open:
          self._close()
        else:
          self._parts.append(" ")
    self._body -= tag == "body"

  def text(self, data):
    """Characters."""
    if self._open and not self._apart:
      self._parts.append(data)

  def doctype(self, *_):
    """Entities can make a small file into one of gigabytes."""
    raise DataError(f"{self._where}: has a document type; books need none")

  def _close(self):
    text = _BLANKS.sub(" ", "".join(self._parts)).strip()
    self._parts = []
    if text:
      self.chapters[-1].append(text)
