"""A corpus of sentences in numbers: made once, then mapped into memory.

`corpus_making` tells what its files are, and makes them.
"""

import atexit
from collections.abc import Callable
import functools
import json
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from lnrnn import arrays, files
from lnrnn.data import batches, books, cached, corpus_making
from lnrnn.data.corpus_making import RECORD, SPLITS, WORDS, Options
from lnrnn.data.triples import Triples
from lnrnn.data.vocabulary import SPECIAL, Vocabulary
from lnrnn.errors import DataError, one_line

# Files that are mapped at a time: each is an open one, and a process may have
# no more than 1,024. So many are of 300 million words; more take turns.
_OPEN = 400


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
  key = cached.digest(
    found, corpus_making.VERSION, corpus_making.SHARD_WORDS, *options
  )
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
        corpus_making.make(options, found, folder)
        corpus = Corpus(folder)
    return corpus
  except OSError as error:
    why = f"{folder}: cannot be written: {one_line(error)}"
  try:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lnrnn-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    corpus_making.make(options, found, folder)
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
        if files.sha256(folder / name) != sha256:
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
    return self._load(corpus_making.file_name(self._kind, shard))


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / RECORD
  try:
    record = json.loads(path.read_text("utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  whole = (
    isinstance(record, dict)
    and record.get("version") == corpus_making.VERSION
    and record.get("fingerprint") == corpus_making.fingerprint(record)
  )
  if not whole:
    raise DataError(f"{path}: its fingerprint is not that of its content")
  return record
