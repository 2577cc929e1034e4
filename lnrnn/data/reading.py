"""Questions about passages, from several sources."""

import json
import os
import pathlib
import sys

import numpy as np

from lnrnn.data import (
  batches,
  cached,
  cloze,
  deeds,
  mnist,
  novels,
  numbered_text,
  question_files,
)
from lnrnn.errors import ConfigError, DataError

SOURCES = ("embedded", "novels", "cnn", "cnn_top4", "babi")
# Folders of the sources in a data directory.
_FOLDERS = {
  "novels": "novels",
  "cnn": "cnn",
  "cnn_top4": "cnn_questions",
  "babi": "babi",
}
_VERSION = 1  # To be raised when what is made of the files changes.


def load(
  source: str = "embedded",
  data_dir: str | os.PathLike[str] | None = None,
  *,
  sentences: int = 4,
  most_words: int = 0,
  max_passage: int = 0,
  max_query: int = 0,
  task: int = 1,
  strict: bool = True,
) -> cloze.Dataset:
  """Loads questions from one of the sources.

  "embedded" is a generated cloze (`deeds`), for quick runs. "novels" makes a
  cloze of novels in TEI XML, "cnn" reads the `.question` files of Hermann et
  al. 2015, the paper's data, "cnn_top4" a text of questions that are cut
  already, and "babi" the tasks of Weston et al. 2015, whose training set is
  cut into training and validation. What "novels" and "cnn" make is kept in
  `$LNRNN_CACHE_DIR`, or `~/.cache/lnrnn`.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory of the source's
      name in it; `$LNRNN_DATA_DIR` by default. Not used by "embedded".
    sentences: of a passage are kept, those that match the query best; 0 is
      all. Not used by "babi", whose stories are read whole.
    most_words: as of `cloze.dataset`.
    max_passage: likewise.
    max_query: likewise.
    task: of bAbI, 1 to 20.
    strict: a damaged `.question` file ends it; else such files are left out
      and counted.

  Returns:
    The splits train, validation and test.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing or damaged.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  left: dict[str, int] = {}
  if source == "embedded":
    arrays = deeds.gather(sentences).arrays()
    origin, verdict = "generated deeds", "a cloze that can be solved"
  else:
    folder = mnist.find_folder(data_dir, source, _FOLDERS[source])
    origin = f"{source} in {folder}"
    if source == "novels":
      arrays, books = novels.gather(folder, sentences)
      verdict = f"a cloze of {books} novels, no news"
    elif source == "cnn":
      arrays, left = _cnn(folder, sentences, strict=strict)
      verdict = "the paper's questions, sentences chosen by our rule"
    elif source == "cnn_top4":
      arrays = _top4(folder)
      verdict = "the same questions in all splits, to show that they are learnt"
    else:
      arrays = _babi(folder, task)
      origin = f"bAbI task {task} in {folder}"
      verdict = "no news"
  return cloze.dataset(
    arrays,
    origin=origin,
    verdict=verdict,
    most_words=most_words,
    max_passage=max_passage,
    max_query=max_query,
    left_out=left,
  )


def _cnn(
  folder: pathlib.Path, sentences: int, *, strict: bool
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """The questions of all splits, and what was left out."""
  folders = question_files.split_folders(folder)

  def make():
    collector = cloze.Collector(sentences)
    skipped = question_files.Skipped()
    for split, path in folders.items():
      own = "train" if split == "training" else split
      for question in question_files.stream(
        path, strict=strict, report=skipped
      ):
        collector.add(own, question)
    for line in skipped.lines():
      print(f"{folder}: {line}", file=sys.stderr)
    left = json.dumps(skipped.counts).encode()
    return {**collector.arrays(), "left": np.frombuffer(left, np.uint8)}

  key = cached.digest(folders.values(), _VERSION, sentences, strict)
  arrays, _ = cached.arrays("cnn", key, make)
  left = json.loads(arrays.pop("left").tobytes())
  return arrays, {f"files left out, as {why}": n for why, n in left.items()}


def _top4(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The same questions as each split, as there are too few to part."""
  there = sorted(p for p in folder.glob("*.txt") if p.name[0] != ".")
  if len(there) != 1:
    listed = ", ".join(path.name for path in there) or "none"
    raise DataError(
      f"{folder}: one .txt file of questions is needed; there are: {listed}"
    )
  found = numbered_text.read_top4(there[0])
  collector = cloze.Collector(0)
  for split in cloze.SPLITS:
    for question in found:
      collector.add(split, question)
  return collector.arrays()


def _babi(folder: pathlib.Path, task: int) -> dict[str, np.ndarray]:
  """A task's questions, a tenth of the training set for validation."""
  found = numbered_text.read_babi(folder, task)
  train = found["train"]
  held = set(batches.shuffled(len(train), 0, 0)[: len(train) // 10].tolist())
  collector = cloze.Collector(0)
  for i, question in enumerate(train):
    collector.add("validation" if i in held else "train", question)
  for question in found["test"]:
    collector.add("test", question)
  return collector.arrays()
