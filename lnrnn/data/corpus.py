"""A corpus of sentences in numbers: made once, then mapped into memory.

What is made of the owners' files, in a folder of the cache:

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
import atexit
import collections
from collections.abc import Callable, Mapping, Sequence
import functools
import hashlib
import itertools
import json
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple

import numpy as np

from lnrnn import arrays, files
from lnrnn.data import batches, books, cached
from lnrnn.data.vocabulary import (
  END,
  SPECIAL,
  UNKNOWN,
  Vocabulary,
  rounded,
)
from lnrnn.errors import DataError, one_line

SPLITS = ("train", "validation", "test")
SHARD_WORDS = 4_000_000
RECORD, WORDS = "corpus.json", "vocabulary.txt"
# Files that are mapped at a time: each is an open one, and a process may have
# no more than 1,024. So many are of 300 million words; more take turns.
_OPEN = 400
_VERSION = 2  # To be raised when what is made of the files changes.
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


def load(options: Options, data_dir: str | None = None) -> "Corpus":
  """The corpus of some files; from the cache if it is there.

  Where the cache cannot be written it is made in a temporary folder, anew at
  each start.

  Args:
    options: what is made of them.
    data_dir: as of `books.paths`.

  Returns:
    The corpus.

  Raises:
    DataError: files are missing or damaged, or there are too few books.
  """
  found = books.paths(options.source, data_dir)
  key = cached.digest(found, _VERSION, SHARD_WORDS, *options)
  folder = cached.folder() / f"corpus-{key}"
  if corpus := _opened(folder):
    return corpus
  # Runs of several seeds start together; one makes it, the others wait.
  import filelock

  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock")):
      corpus = _opened(folder)
      if not corpus:
        folder.mkdir(exist_ok=True)
        _make(options, found, folder)
        corpus = Corpus(folder)
    return corpus
  except OSError as error:
    why = f"{folder}: cannot be written: {one_line(error)}"
  try:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lnrnn-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _make(options, found, folder)
    return Corpus(folder)
  except OSError as error:
    raise DataError(f"{why}; nor can {folder}: {one_line(error)}") from error


def _opened(folder: pathlib.Path) -> "Corpus | None":
  """The corpus of a folder, if it is there and whole."""
  try:
    return Corpus(folder) if (folder / RECORD).exists() else None
  except DataError:
    return None


class Corpus:
  """A corpus on the disk.

  Args:
    folder: that `load` has filled.

  Attributes:
    record: what stands in corpus.json.
    vocabulary: the words.
    fingerprint: name of the content and of how it was made.
    splits: {split: triples}.

  Raises:
    DataError: a file is missing or damaged.
  """

  def __init__(self, folder: pathlib.Path):
    self.record = _read_record(folder)
    try:
      for name, sha256 in self.record["sha256"].items():
        if _sha256(folder / name) != sha256:
          raise DataError(
            f"{folder / name}: its sha256 is not that of {RECORD}"
          )
      words = (folder / WORDS).read_text("utf-8").split("\n")[:-1]
    except OSError as error:
      raise DataError(f"{folder}: is damaged: {one_line(error)}") from error
    self.vocabulary = Vocabulary(tuple(words))
    self.fingerprint = self.record["fingerprint"]

    @functools.lru_cache(_OPEN)
    def load(name: str) -> np.ndarray:
      return arrays.load_npy(folder / name, mmap=True)

    tokens, starts = _Mapped(load, "tokens"), _Mapped(load, "starts")
    self.splits = {
      split: Triples(
        tokens,
        starts,
        _Mapped(load, split),
        np.array([s["lengths"][split] for s in self.record["shards"]]),
      )
      for split in SPLITS
    }

  @property
  def unigram(self) -> np.ndarray:
    """[v] -log p of each word by how often it is trained on, in nats.

    One is added to each count, so that none is 0.
    """
    counts = np.array(self.record["counts"], np.float64) + 1
    return np.log(counts.sum()) - np.log(counts)

  def sentences(self, split: str, most: int) -> list[str]:
    """Sentences of a split as their tokens, spread over all, each once."""
    triples = self.splits[split]
    words = [*SPECIAL, *self.vocabulary.words]
    positions = triples.spread(most)
    found = dict[str, None]()  # Short ones recur.
    for rows, fresh in batches.blocks(len(positions), 1000):
      own = positions[rows[fresh]]
      batch = triples.batch(own, triples.longest(own) + 1)
      for row, n in zip(batch["current"], batch["current_length"], strict=True):
        found[" ".join(words[w] for w in row[: n - 1])] = None
    return list(found)

  @property
  def description(self) -> str:
    """One line for the log."""
    r = self.record
    counts = ", ".join(f"{len(self.splits[s]):,} {s}" for s in SPLITS)
    left = "".join(
      f"; {n:,} {why} left out" for why, n in sorted(r["skipped"].items()) if n
    )
    return (
      f"{r['books']:,} books ({r['options']['source']}), {r['sentences']:,}"
      f" sentences of {r['words']:,} words, {r['unknown']:.1%} of them unknown"
      f" to {len(self.vocabulary):,}; triples: {counts}{left}"
    )


class _Mapped:
  """Arrays on the disk, mapped when they are asked for.

  Args:
    load: maps one by the name of its file; it remembers a number of them.
    kind: of the files.
  """

  def __init__(self, load: Callable[[str], np.ndarray], kind: str):
    self._load, self._kind = load, kind

  def __getitem__(self, shard: int) -> np.ndarray:
    return self._load(_name(self._kind, shard))


class Triples:
  """Sentences with both neighbours, ordered by the longest of the three.

  Args:
    tokens: of each shard, as in the files.
    starts: likewise.
    centres: likewise, of one split.
    lengths: [shards, most + 1] how many centres have a longest sentence of so
      many words.

  Attributes:
    ends: [most + 1] how many have at most so many words.
  """

  def __init__(
    self,
    tokens: Sequence[np.ndarray] | _Mapped,
    starts: Sequence[np.ndarray] | _Mapped,
    centres: Sequence[np.ndarray] | _Mapped,
    lengths: np.ndarray,
  ):
    self._tokens, self._starts, self._centres = tokens, starts, centres
    self._shards = len(lengths)
    # In the order of positions: all shards of one length, then the next.
    self._ends = np.cumsum(lengths.T.reshape(-1))
    self._begins = self._ends - lengths.T.reshape(-1)
    within = np.cumsum(lengths, axis=1) - lengths
    self._within = within.T.reshape(-1)
    self.ends = np.cumsum(lengths.sum(axis=0))

  def __len__(self) -> int:
    return int(self._ends[-1])

  def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shard, sentence in it) of positions [b]."""
    cell = np.searchsorted(self._ends, positions, side="right")
    shard = cell % self._shards
    row = np.empty(len(positions), np.int64)
    for s in np.unique(shard):
      own = shard == s
      inner = self._within[cell[own]] + positions[own] - self._begins[cell[own]]
      row[own] = self._centres[s][inner]
    return shard, row

  def batch(self, positions: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Some triples as matrices.

    Args:
      positions: [b], each from 0 to n - 1.
      steps: t, more than the words of the longest sentence.

    Returns:
      "previous", "current" and "next" int32 [b, t], END after each sentence;
      "previous_length" and so on int32 [b], END counted.
    """
    b = len(positions)
    shard, row = self.rows(positions)
    found: dict[str, np.ndarray] = {}
    for offset, name in ((-1, "previous"), (0, "current"), (1, "next")):
      words = np.full((b, steps), END, np.int32)
      lengths = np.empty(b, np.int32)
      for s in np.unique(shard):
        own = np.flatnonzero(shard == s)
        first = self._starts[s][row[own] + offset].astype(np.int64)
        n = self._starts[s][row[own] + offset + 1] - first
        live = np.arange(steps) < n[:, None]
        at = (first[:, None] + np.arange(steps))[live]
        part = np.full((len(own), steps), END, np.int32)
        part[live] = self._tokens[s][at]
        words[own], lengths[own] = part, n + 1
      found[name], found[f"{name}_length"] = words, lengths
    return found

  def longest(self, positions: np.ndarray) -> int:
    """Words of the longest sentence of some triples."""
    return int(np.searchsorted(self.ends, positions.max(), side="right"))

  def steps(self, words: int, multiple: int) -> int:
    """Steps that sentences of so many words are filled up to, END counted."""
    return filled_steps(words, multiple, len(self.ends))

  def spread(self, most: int) -> np.ndarray:
    """Positions [n] of all triples, or of `most` of them, of every length."""
    n = len(self)
    if not most or most >= n:
      return np.arange(n)
    return (np.arange(most) * n) // most

  def unknown(self, positions: np.ndarray) -> float:
    """Part of the words of some sentences that have no number."""
    shard, row = self.rows(positions)
    words = unknown = 0
    for s, r in zip(shard.tolist(), row.tolist(), strict=True):
      first, last = self._starts[s][r : r + 2]
      own = self._tokens[s][first:last]
      words, unknown = words + len(own), unknown + int((own == UNKNOWN).sum())
    return unknown / max(1, words)


def filled_steps(words: int, multiple: int, most: int) -> int:
  """A sentence and its END, filled up to a multiple, or to `most` steps."""
  return min(rounded(words + 1, multiple), most)


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / RECORD
  try:
    record = json.loads(path.read_text("utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  whole = isinstance(record, dict) and record.get("version") == _VERSION
  if not whole or record.get("fingerprint") != _fingerprint(record):
    raise DataError(f"{path}: its fingerprint is not that of its content")
  return record


def _fingerprint(record: Mapping[str, Any]) -> str:
  """Name of all that a record tells of."""
  told = {key: value for key, value in record.items() if key != "fingerprint"}
  text = json.dumps(told, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(kind: str, shard: int) -> str:
  return f"{kind}-{shard:05d}.npy"


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _make(
  options: Options, found: list[pathlib.Path], folder: pathlib.Path
) -> None:
  """Makes all files of a corpus; those that are there already are kept."""
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
  shards, sums = [], {WORDS: _sha256(folder / WORDS)}
  for i, about in enumerate(raw):
    made = _encoded(options, vocabulary, _load_raw(folder, i), about, split_of)
    for kind, values in made.items():
      path = folder / _name(kind, i)
      with files.atomic(path) as part, part.open("wb") as file:
        np.save(file, values, allow_pickle=False)
      sums[path.name] = _sha256(path)
    shards.append(_shard_record(options, made))
  skipped: collections.Counter[str] = collections.Counter()
  for about in raw:
    skipped.update(about["skipped"])
  words = sum(shard["words"] for shard in shards)
  record = {
    "version": _VERSION,
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
  record["fingerprint"] = _fingerprint(record)
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
