"""Makes the files of a corpus, shard by shard.

In a folder of the cache there are, when all is done:

    corpus.json            how it was made, counts, sha256 of all other files
    vocabulary.txt         the words, a line each, from number 2 on
    tokens-00000.npy       [p] numbers of words, sentence after sentence
    starts-00000.npy       [m + 1] where each sentence starts; one of length 0
                           ends a run
    train-00000.npy        [n] positions of sentences that have neighbours, by
    validation-..., test-  the longest of the three

A shard holds whole books. Memory is needed for one shard and the dictionary.
While it is made, `raw-00000.npz` hold shards in their own numbers; a second
start goes on after the last one.
"""

import array
import collections
from collections.abc import Mapping, Sequence
import hashlib
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lnrnn import arrays, files
from lnrnn.data import batches, books
from lnrnn.data.vocabulary import SPECIAL, UNKNOWN, Vocabulary
from lnrnn.errors import DataError

SPLITS = ("train", "validation", "test")
SHARD_WORDS = 4_000_000
RECORD, WORDS = "corpus.json", "vocabulary.txt"
VERSION = 2  # To be raised when what is made of the files changes.
# The rule that makes tokens, for those who have a model and no corpus.
TOKENS = "lnrnn.data.prose.tokens of the text in lower case"


class Options(NamedTuple):
  """What is made of a text.

  Attributes:
    source: one of `books.SOURCES`.
    vocabulary: numbers of words, the two special ones among them.
    max_words: a longer sentence is left out, and ends a run. Authors' code:
      all three of a triple have less than 30 words.
    held_out: part of the books for validation, and as many for the test.
  """

  source: str
  vocabulary: int
  max_words: int
  held_out: float


def fingerprint(record: Mapping[str, Any]) -> str:
  """Name of all that a record tells of."""
  told = {key: value for key, value in record.items() if key != "fingerprint"}
  text = json.dumps(told, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_name(kind: str, shard: int) -> str:
  """Name of the file of a shard that holds "tokens", "starts" or a split."""
  return f"{kind}-{shard:05d}.npy"


def make(
  options: Options, found: list[pathlib.Path], folder: pathlib.Path
) -> None:
  """Makes all files of a corpus; raw shards that are there are kept.

  Args:
    options: what is made of the text.
    found: the files that it stands in, as of `books.paths`.
    folder: which exists.

  Raises:
    DataError: a file is damaged, or there are too few books or sentences.
    OSError: the folder cannot be written.
  """
  raw = _tokenised(options, found, folder)
  total = raw[-1]["last_book"]
  if total < len(SPLITS):
    what = (
      f"blocks of {books.BLOCK} lines" if options.source == "lines" else "books"
    )
    raise DataError(
      f"{_where(found)}: has {total} {what}; {len(SPLITS)} at least are needed,"
      " as some are held out"
    )
  split_of = _split_books(total, options.held_out)
  vocabulary, counts = _vocabulary(options, folder, raw, split_of)
  text = "".join(f"{word}\n" for word in vocabulary.words)
  with files.atomic(folder / WORDS) as part:
    part.write_text(text, "utf-8")
  shards, sums = [], {WORDS: files.sha256(folder / WORDS)}
  for i, about in enumerate(raw):
    made = _encoded(options, vocabulary, _load_raw(folder, i), about, split_of)
    for kind, values in made.items():
      path = folder / file_name(kind, i)
      with files.atomic(path) as part, part.open("wb") as file:
        np.save(file, values, allow_pickle=False)
      sums[path.name] = files.sha256(path)
    shards.append(_shard_record(options, made))
  skipped: collections.Counter[str] = collections.Counter()
  for about in raw:
    skipped.update(about["skipped"])
  words = sum(shard["words"] for shard in shards)
  record = {
    "version": VERSION,
    "tokens": TOKENS,
    "options": options._asdict(),
    "books": total,
    "held_out_books": {s: split_of.count(s) for s in SPLITS[1:]},
    "read_words": sum(about["words"] for about in raw),
    "sentences": sum(shard["sentences"] for shard in shards),
    "words": words,
    "counts": counts,
    "unknown": sum(shard["unknown"] for shard in shards) / max(1, words),
    "skipped": dict(skipped),
    "shards": shards,
    "sha256": sums,
  }
  record["fingerprint"] = fingerprint(record)
  for split in SPLITS:
    if not any(sum(shard["lengths"][split]) for shard in shards):
      left = ", ".join(f"{n:,} {why}" for why, n in sorted(skipped.items()))
      raise DataError(
        f"{_where(found)}: what is for {split} has no three sentences in a row"
        f" of at most {options.max_words} words"
        + (f"; left out: {left}" if left else "")
      )
  with files.atomic(folder / RECORD) as part:
    part.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
  for i in range(len(raw)):
    _raw(folder, i).unlink(missing_ok=True)


def _where(found: list[pathlib.Path]) -> pathlib.Path:
  return found[0] if len(found) == 1 else found[0].parent


def _raw(folder: pathlib.Path, shard: int) -> pathlib.Path:
  return folder / f"raw-{shard:05d}.npz"


def _load_raw(folder: pathlib.Path, shard: int) -> dict[str, np.ndarray]:
  return arrays.load_npz(_raw(folder, shard))


def _tokenised(
  options: Options, found: list[pathlib.Path], folder: pathlib.Path
) -> list[dict[str, Any]]:
  """Writes the raw shards that are missing.

  Returns:
    What is told of each: "last_book", books up to its end; "words" that were
    read; "skipped".
  """
  told: list[dict[str, Any]] = []
  while _raw(folder, len(told)).exists():
    try:
      about = _load_raw(folder, len(told))["about"]
    except DataError:  # What a power cut has left.
      break
    told.append(json.loads(about.tobytes()))
  first = told[-1]["last_book"] if told else 0
  if told and told[-1].get("whole"):
    return told
  shard = _Shard(options.max_words, first)
  for book in books.stream(options.source, found, first=first):
    if len(shard.tokens) >= SHARD_WORDS:
      told.append(shard.write(_raw(folder, len(told)), whole=False))
      shard = _Shard(options.max_words, shard.last_book)
    shard.add(book)
  # There is always a last one, which tells that all is read.
  told.append(shard.write(_raw(folder, len(told)), whole=True))
  return told


class _Shard:
  """Books in numbers of their own.

  Args:
    max_words: longer sentences are left out.
    last_book: books before.
  """

  def __init__(self, max_words: int, last_book: int):
    self._max_words = max_words
    self.last_book = last_book
    # A word gets the next number when it is met. Not by the dictionary's own
    # length, as what refers to itself stays in memory for long.
    self._numbers = collections.defaultdict[str, int](
      itertools.count().__next__
    )
    self.tokens = array.array("i")
    self._lengths = array.array("i")
    self._books: list[int] = []  # Where each starts in the sentences.
    self._words = 0
    self._skipped: collections.Counter[str] = collections.Counter()

  def add(self, book: books.Book) -> None:
    """Takes a book in."""
    self.last_book += 1
    self._books.append(len(self._lengths))
    number, most = self._numbers.__getitem__, self._max_words
    for sentence in books.runs(book, self._skipped):
      length = 0
      if sentence:
        self._words += len(sentence)
        if len(sentence) <= most:
          length = len(sentence)
          self.tokens.extend(map(number, sentence))
        else:
          self._skipped[f"sentences of more than {most} words"] += 1
      self._lengths.append(length)
    self._lengths.append(0)

  def write(self, path: pathlib.Path, *, whole: bool) -> dict[str, Any]:
    """Writes it; `whole`: no book comes after."""
    about = {
      "last_book": self.last_book,
      "words": self._words,
      "skipped": dict(self._skipped),
      "whole": whole,
    }
    text = lambda value: np.frombuffer(value.encode("utf-8"), np.uint8)
    with files.atomic(path) as part, part.open("wb") as file:
      np.savez(
        file,
        about=text(json.dumps(about)),
        words=text("\n".join(self._numbers)),
        tokens=np.array(self.tokens, np.int32),
        lengths=np.array(self._lengths, np.int32),
        books=np.array(self._books, np.int64),
      )
    return about


def _split_books(n: int, held_out: float) -> list[str]:
  """Deals books out to the splits, by a random order that stays the same."""
  part = min(max(1, round(held_out * n)), (n - 1) // 2)
  split_of = ["train"] * n
  for i, book in enumerate(batches.shuffled(n, 0, 0)[: 2 * part].tolist()):
    split_of[book] = SPLITS[1 + i % 2]
  return split_of


def _raw_words(raw: Mapping[str, np.ndarray]) -> list[str]:
  text = raw["words"].tobytes().decode("utf-8")
  return text.split("\n") if text else []


def _splits_of_rows(
  raw: Mapping[str, np.ndarray], about: Mapping[str, Any], split_of: list[str]
) -> np.ndarray:
  """Number of each sentence's split, [m]."""
  first = about["last_book"] - len(raw["books"])
  numbers = [
    SPLITS.index(split_of[first + i]) for i in range(len(raw["books"]))
  ]
  sizes = np.diff([*raw["books"].tolist(), len(raw["lengths"])])
  return np.repeat(np.array(numbers, np.int8), sizes)


def _vocabulary(
  options: Options,
  folder: pathlib.Path,
  raw: Sequence[Mapping[str, Any]],
  split_of: list[str],
) -> tuple[Vocabulary, list[int]]:
  """The most frequent words of the sentences that are trained on.

  Returns:
    The vocabulary, and how often each of its numbers is met there.
  """
  sentences = 0
  counts: collections.Counter[str] = collections.Counter()
  for i, about in enumerate(raw):
    shard = _load_raw(folder, i)
    trained = _splits_of_rows(shard, about, split_of) == 0
    sentences += int((shard["lengths"][trained] > 0).sum())
    own = shard["tokens"][np.repeat(trained, shard["lengths"])]
    words = _raw_words(shard)
    found = np.bincount(own, minlength=len(words)).tolist()
    counts.update({w: n for w, n in zip(words, found, strict=True) if n})
  order = sorted(counts, key=lambda word: (-counts[word], word))
  known = order[: options.vocabulary - len(SPECIAL)]
  found = [counts[word] for word in known]
  unknown = counts.total() - sum(found)
  return Vocabulary(tuple(known)), [sentences, unknown, *found]


def _encoded(
  options: Options,
  vocabulary: Vocabulary,
  raw: Mapping[str, np.ndarray],
  about: Mapping[str, Any],
  split_of: list[str],
) -> dict[str, np.ndarray]:
  """The arrays of a shard, as in the files."""
  numbers = np.array(vocabulary.encode(_raw_words(raw))[:-1], np.int64)
  small = len(vocabulary) <= 1 << 16
  tokens = np.empty(len(raw["tokens"]), np.uint16 if small else np.int32)
  if len(numbers):
    tokens[:] = numbers.astype(tokens.dtype)[raw["tokens"]]
  lengths = raw["lengths"].astype(np.int64)
  found = {
    "tokens": tokens,
    "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32),
  }
  # Runs are parted by a sentence of length 0, so three in a row are of one.
  here = lengths > 0
  centres = np.flatnonzero(here[:-2] & here[1:-1] & here[2:]) + 1
  longest = _longest(lengths, centres)
  order = np.argsort(longest, kind="stable")
  split = _splits_of_rows(raw, about, split_of)
  for i, name in enumerate(SPLITS):
    own = centres[order]
    found[name] = own[split[own] == i].astype(np.uint32)
  return found


def _longest(lengths: np.ndarray, centres: np.ndarray) -> np.ndarray:
  return np.max([lengths[centres + i] for i in (-1, 0, 1)], axis=0)


def _shard_record(
  options: Options, made: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  lengths = np.diff(made["starts"].astype(np.int64))
  counted = {
    split: np.bincount(
      _longest(lengths, made[split].astype(np.int64)),
      minlength=options.max_words + 1,
    ).tolist()
    for split in SPLITS
  }
  return {
    "sentences": int((lengths > 0).sum()),
    "words": len(made["tokens"]),
    "unknown": int((made["tokens"] == UNKNOWN).sum()),
    "lengths": counted,
  }
