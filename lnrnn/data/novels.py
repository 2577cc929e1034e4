"""A cloze made of novels: which of the recurring names was left out?

After the Children's Book Test (Hill et al. 2016): a query is a sentence whose
chapter has 20 sentences before it, one of its names recurs in those, and
stands in the query as @placeholder. Unlike there, names are anonymous
entities, as in the CNN corpus, and every such query is taken.
"""

import collections
from collections.abc import Iterator, Sequence
import pathlib
from typing import NamedTuple

import numpy as np

from lnrnn.data import batches, cached, cloze, prose, tei
from lnrnn.data.cloze import Question
from lnrnn.data.draws import Draws
from lnrnn.errors import DataError

CONTEXT = 20  # Sentences before the query; Hill et al.
QUERY_WORDS = (5, 50)  # Of a query; ours.
# A name has a capital within sentences so often in its book, and a small
# letter in at most so large a part of that; ours.
NAME_COUNT, SMALL_SHARE = 5, 0.1
ENTITIES = 10  # Names that an example may have; one in a hundred has more.
HELD_OUT = 0.1  # Part of the books for validation, and as many for the test.
_MAX_BYTES = 1 << 30
_VERSION = 2  # To be raised when what is made of the files changes.
# With a capital, and still no name of anybody.
_NO_NAMES = {
  *("Mr", "Mrs", "Ms", "Miss", "Messrs", "St", "Lord", "Lady", "Sir", "Dr"),
  *("Doctor", "Madame", "Madam", "Mme", "Monsieur", "Mademoiselle", "Herr"),
  *("Frau", "Signor", "Signora", "Don", "Donna", "Captain", "Colonel", "Major"),
  *("General", "Lieutenant", "Sergeant", "Admiral", "Professor", "Duke"),
  *("Duchess", "Earl", "Count", "Countess", "Marquis", "Marquess", "Baron"),
  *("Squire", "Reverend", "Rev", "Hon", "Bishop", "Judge", "Prince"),
  *("Princess", "King", "Queen", "Master", "Mistress", "Uncle", "Aunt"),
  *("Father", "Mother", "Brother", "Sister", "January", "February", "March"),
  *("April", "May", "June", "July", "August", "September", "October"),
  *("November", "December", "Monday", "Tuesday", "Wednesday", "Thursday"),
  *("Friday", "Saturday", "Sunday"),
}

Chapter = list[list[str]]  # Sentences, each a list of tokens.


class Book(NamedTuple):
  """A novel in tokens.

  Attributes:
    name: of its file.
    chapters: sentences in their order.
  """

  name: str
  chapters: list[Chapter]


def gather(
  folder: pathlib.Path, sentences: int
) -> tuple[dict[str, np.ndarray], int]:
  """Questions of all novels in a folder; from the cache if they are there.

  Args:
    folder: with novels in TEI XML, in tar archives, zips or folders.
    sentences: as of `cloze.Collector`.

  Returns:
    As `Collector.arrays`, and how many books they are of.

  Raises:
    DataError: there are too few books, or one is damaged.
  """
  found = sources(folder)

  def make():
    books = list(read(found))
    if len(books) < len(cloze.SPLITS):
      raise DataError(
        f"{folder}: has {len(books)} books; {len(cloze.SPLITS)} at least are"
        " needed, as they are split by book"
      )
    collector = cloze.Collector(0)  # The questions are cut already.
    for split, chosen in split_books([book.name for book in books]).items():
      for i in chosen:
        for question in questions(books[i], sentences, seed=i):
          collector.add(split, question)
    return {**collector.arrays(), "books": np.array(len(books))}

  key = cached.digest(found, _VERSION, sentences)
  made, _ = cached.arrays("novels", key, make)
  return made, int(made.pop("books"))


def sources(folder: pathlib.Path) -> list[pathlib.Path]:
  """The archives in a folder, or itself if it has XML files.

  Raises:
    DataError: there are neither.
  """
  endings = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
  if any(path.name[0] != "." for path in folder.rglob("*.xml")):
    return [folder]
  found = sorted(
    path
    for path in folder.iterdir()
    if path.name.endswith(endings) and path.name[0] != "."
  )
  if not found:
    raise DataError(
      f"{folder}: has no TEI novels: .xml files or archives"
      f" ({', '.join(endings)}) of them are needed"
    )
  return found


def contents(
  paths: Sequence[pathlib.Path],
) -> Iterator[tuple[str, str, bytes]]:
  """The files of novels in archives and folders, in the order of their names.

  Args:
    paths: of `sources`.

  Yields:
    As `cached.contents`.

  Raises:
    DataError: one cannot be read, or two have one name.
  """
  seen = set()
  for path in paths:
    files = cached.contents(path, ".xml", max_bytes=_MAX_BYTES)
    for where, name, content in sorted(files, key=lambda file: file[1]):
      if name in seen:
        raise DataError(f"{where}: there are two files of that name")
      seen.add(name)
      yield where, name, content


def read(paths: Sequence[pathlib.Path]) -> Iterator[Book]:
  """The novels of archives and folders, in the order of their names.

  Args:
    paths: of `sources`.

  Yields:
    The books.

  Raises:
    DataError: one is damaged, or two have one name.
  """
  for where, name, content in contents(paths):
    book = tei.read(where, content)
    chapters = [
      [
        _split_possessives(found)
        for paragraph in chapter
        for sentence in prose.sentences(paragraph)
        if (found := prose.tokens(sentence))
      ]
      for chapter in book.chapters
    ]
    yield Book(name.removesuffix(".xml"), chapters)


def _split_possessives(tokens: list[str]) -> list[str]:
  """Parts 's from words with a capital, so that a name is one word."""
  found = []
  for token in tokens:
    if token.endswith("'s") and token[0].isupper():
      found += [token[:-2], "'s"]
    else:
      found.append(token)
  return found


def split_books(names: Sequence[str]) -> dict[str, list[int]]:
  """Deals books out to the splits, by a random order that is always the same.

  Args:
    names: of the books, 3 at least.

  Returns:
    {split: positions}.
  """
  order = batches.shuffled(len(names), 0, 0).tolist()
  part = max(1, round(HELD_OUT * len(names)))
  return {
    "train": sorted(order[2 * part :]),
    "validation": sorted(order[:part]),
    "test": sorted(order[part : 2 * part]),
  }


def names_of(book: Book) -> set[str]:
  """The words that are names: written with a capital within sentences."""
  large: collections.Counter[str] = collections.Counter()
  small: collections.Counter[str] = collections.Counter()
  for chapter in book.chapters:
    for sentence in chapter:
      begins = True
      for token in sentence:
        if token[0].isupper():
          large[token] += not begins
        else:
          small[token] += 1
        begins = token in prose.END_MARKS
  return {
    word
    for word, n in large.items()
    if n >= NAME_COUNT
    and small[word.lower()] <= SMALL_SHARE * n
    and len(word) > 1
    and word not in _NO_NAMES
    and not word.startswith("I'")
  }


def questions(book: Book, sentences: int, *, seed: int) -> Iterator[Question]:
  """Every question of a book.

  A sentence of so many recurring names gives as many questions. The answer's
  other occurrences in the query are @placeholder too.

  Args:
    book: any.
    sentences: of the `CONTEXT` that are kept, see `cloze.top_sentences`; 0
      keeps all.
    seed: decides which of `ENTITIES` numbers the names of an example get.

  Yields:
    Questions in lower case; none with more names than that.
  """
  names, draws = names_of(book), Draws(0, seed)
  for chapter in book.chapters:
    own = [names.intersection(sentence) for sentence in chapter]
    lower = [[token.lower() for token in sentence] for sentence in chapter]
    for i in range(CONTEXT, len(chapter)):
      query = chapter[i]
      if not own[i] or not QUERY_WORDS[0] <= len(query) <= QUERY_WORDS[1]:
        continue
      before = range(i - CONTEXT, i)
      there = set().union(*(own[j] for j in before))
      for answer in sorted(own[i] & there):
        asked = [
          cloze.PLACEHOLDER if token == answer else token for token in query
        ]
        kept = list(before)
        if sentences:
          context = [lower[j] for j in before]
          words = [token.lower() for token in asked]
          top = cloze.top_sentences(context, words, sentences)
          kept = [before[j] for j in top]
        everyone = sorted(own[i].union(*(own[j] for j in kept)))
        if len(everyone) > ENTITIES:
          continue
        called = {
          name: f"@entity{number}"
          for name, number in zip(
            everyone, draws.order(ENTITIES).tolist(), strict=False
          )
        }

        def anonymous(tokens, called=called):
          return [called.get(token) or token.lower() for token in tokens]

        yield Question(
          [anonymous(chapter[j]) for j in kept],
          anonymous(asked),
          called[answer],
        )
