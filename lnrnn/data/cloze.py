"""Questions about a passage: a word left out of a query has to be found.

Entities are anonymous: each is called @entityN, and N tells nothing.
"""

import array
import collections
from collections.abc import Mapping, Sequence
import math
import re
from typing import NamedTuple

import numpy as np

from lnrnn.data import batches, vocabulary
from lnrnn.data.cloze_examples import Baselines, Examples, measured
from lnrnn.data.vocabulary import Sentences, Vocabulary
from lnrnn.errors import DataError

PLACEHOLDER = "@placeholder"
SPLITS = ("train", "validation", "test")
ENTITY = re.compile(r"@entity([0-9]{1,4})")


class Question(NamedTuple):
  """A passage, a query and its answer.

  Attributes:
    sentences: of the passage, each a list of tokens; entities are @entityN.
    query: tokens, @placeholder where the answer belongs.
    answer: a token.
  """

  sentences: list[list[str]]
  query: list[str]
  answer: str


class Dataset(NamedTuple):
  """The splits, and what they are.

  Attributes:
    splits: {name: examples}.
    vocabulary: @placeholder, all entities, then words by their frequency.
    entities: number of the first entity, and the one after the last.
    baselines: {split: errors}; none without entities.
    description: one line.
    fingerprint: 16 hexadecimal digits that name the content.
  """

  splits: Mapping[str, Examples]
  vocabulary: Vocabulary
  entities: tuple[int, int]
  baselines: Mapping[str, Baselines]
  description: str
  fingerprint: str


def top_sentences(
  sentences: Sequence[Sequence[str]], query: Sequence[str], most: int
) -> list[int]:
  """The sentences of a passage that match a query best.

  A word counts ln((n + 1) / m), if m of the n sentences have it. A sentence's
  score is the sum over the different words that it shares with the query, over
  the root of its length; of equals the later one counts.

  Args:
    sentences: n lists of tokens.
    query: tokens; @placeholder matches nothing.
    most: how many are taken.

  Returns:
    Their positions, ascending.

  Source: Cooijmans et al. 2016, appendix, took the 4 most relevant sentences
  "by string matching"; how is not told, so this rule is ours.
  """
  n = len(sentences)
  if n <= most:
    return list(range(n))
  asked = set(query) - {PLACEHOLDER}
  shared = [asked.intersection(sentence) for sentence in sentences]
  having = collections.Counter(word for words in shared for word in words)
  worth = {word: math.log((n + 1) / m) for word, m in having.items()}
  scores = [
    # In a fixed order, as the order of a set is not the same in each process.
    sum(sorted(worth[word] for word in words)) / math.sqrt(len(sentence) or 1)
    for words, sentence in zip(shared, sentences, strict=True)
  ]
  best = sorted(range(n), key=lambda i: (-scores[i], -i))
  return sorted(best[:most])


class _Numbers(dict[str, int]):
  """Gives each new word the next number."""

  def __missing__(self, word: str) -> int:
    number = self[word] = len(self)
    return number


class Collector:
  """Gathers questions as flat arrays, so that many need little room.

  Args:
    sentences: how many of a passage are kept, those that match the query
      best; 0 keeps all.
  """

  def __init__(self, sentences: int = 4):
    self._most = sentences
    self._numbers = _Numbers()
    self._splits: dict[str, dict[str, array.array]] = {}

  def add(self, split: str, question: Question) -> None:
    """Takes a question in."""
    held = self._splits.get(split)
    if held is None:
      held = {
        name: array.array("i")
        for name in ("passage", "passage_length", "query", "query_length")
      } | {"answer": array.array("i")}
      self._splits[split] = held
    chosen = question.sentences
    if self._most:
      top = top_sentences(chosen, question.query, self._most)
      chosen = [chosen[i] for i in top]
    numbers = self._numbers
    passage = [numbers[word] for words in chosen for word in words]
    held["passage"].extend(passage)
    held["passage_length"].append(len(passage))
    held["query"].extend([numbers[word] for word in question.query])
    held["query_length"].append(len(question.query))
    held["answer"].append(numbers[question.answer])

  def arrays(self) -> dict[str, np.ndarray]:
    """What was gathered, for `dataset`.

    Returns:
      "words" uint8 [bytes], all words end to end with line breaks between, in
      the order of their provisional numbers; and, for each split,
      "split/passage" and "split/query", int32 [p] numbers of words end to end,
      "split/passage_length", "split/query_length" and "split/answer",
      int32 [n].
    """
    text = "\n".join(self._numbers).encode("utf-8", "surrogatepass")
    found: dict[str, np.ndarray] = {"words": np.frombuffer(text, np.uint8)}
    for split, held in self._splits.items():
      for name, values in held.items():
        found[f"{split}/{name}"] = np.frombuffer(values, np.int32)
    return found


def dataset(
  gathered: Mapping[str, np.ndarray],
  *,
  origin: str,
  verdict: str,
  most_words: int = 0,
  max_passage: int = 0,
  max_query: int = 0,
  left_out: Mapping[str, int] | None = None,
) -> Dataset:
  """Makes examples of gathered questions.

  Args:
    gathered: of `Collector.arrays`.
    origin: of the data, for the description.
    verdict: whether it is the paper's.
    most_words: words of the training split with numbers of their own, the most
      frequent; answers and entities have one anyway. 0 is all.
    max_passage: longer passages are cut, in tokens; 0 cuts none.
    max_query: questions with longer queries are left out; 0 leaves none out.
    left_out: {what: how many} that a reader left out.

  Returns:
    The data.

  Raises:
    DataError: a split has no question.
  """
  left, splits = collections.Counter(left_out or {}), {}
  for name in SPLITS:
    if f"{name}/answer" not in gathered:
      raise DataError(_without(origin, name, left))
  words = gathered["words"].tobytes().decode("utf-8", "surrogatepass")
  known = words.split("\n")
  vocab, numbers, entities = _vocabulary(known, gathered, most_words)
  for name in SPLITS:
    splits[name], told = _examples(
      {
        key.partition("/")[2]: value
        for key, value in gathered.items()
        if key.startswith(f"{name}/")
      },
      numbers,
      max_passage,
      max_query,
    )
    left += told
    if not len(splits[name].answers):
      raise DataError(_without(origin, name, left))
  baselines = {}
  if entities[0] < entities[1]:
    baselines = {k: measured(v, entities) for k, v in splits.items()}
  counts = " / ".join(f"{len(s.answers):,} {k}" for k, s in splits.items())
  n_entities = entities[1] - entities[0]
  description = f"{origin}: {counts} questions, {len(vocab):,} words"
  if n_entities:
    description += f", {n_entities:,} entities"
  description += f" ({verdict})"
  if found := baselines.get("validation"):
    description += (
      f"; validation error: floor {found.floor:.1%}, most frequent entity"
      f" {found.most_frequent:.1%}, first {found.first:.1%}, random"
      f" {found.random:.1%}"
    )
  description += _notes(left)
  arrays = {
    f"{name}/{field}": value
    for name, split in splits.items()
    for field, value in (
      ("passage", split.passages.tokens),
      ("passage_starts", split.passages.starts),
      ("query", split.queries.tokens),
      ("query_starts", split.queries.starts),
      ("answer", split.answers),
    )
  }
  return Dataset(
    splits,
    vocab,
    entities,
    baselines,
    description,
    batches.fingerprint(arrays),
  )


def _without(origin, name, left):
  """What to say of a split without a question."""
  return f"{origin}: split {name} has no question{_notes(left)}"


def _notes(left):
  """What was left out, to be put behind a sentence."""
  notes = ", ".join(f"{n:,} {what}" for what, n in left.items() if n)
  return f"; {notes}" if notes else ""


def _vocabulary(known, gathered, most_words):
  """The vocabulary, [words] numbers of the provisional ones, the entities."""
  counts = np.zeros(len(known), np.int64)
  for key in ("passage", "query"):
    counts += np.bincount(gathered[f"train/{key}"], minlength=len(known))
  answers = np.zeros(len(known), bool)
  for name in SPLITS:
    answers[gathered[f"{name}/answer"]] = True
  matches = [ENTITY.fullmatch(word) for word in known]
  ids = [int(match[1]) for match in matches if match]
  n = max(ids) + 1 if ids else 0
  rest = [
    i
    for i, word in enumerate(known)
    if matches[i] is None and word != PLACEHOLDER and (counts[i] or answers[i])
  ]
  rest.sort(key=lambda i: (-counts[i], known[i]))
  if most_words:
    kept = set(rest[:most_words])
    rest = [i for i in rest if i in kept or answers[i]]
  vocab = Vocabulary(
    (
      PLACEHOLDER,
      *(f"@entity{i}" for i in range(n)),
      *(known[i] for i in rest),
    )
  )
  first = len(vocabulary.SPECIAL) + 1
  numbers = np.full(len(known), vocabulary.UNKNOWN, np.int32)
  numbers[rest] = np.arange(first + n, len(vocab))
  for i, (word, match) in enumerate(zip(known, matches, strict=True)):
    if match:
      numbers[i] = first + int(match[1])
    elif word == PLACEHOLDER:
      numbers[i] = first - 1
  return vocab, numbers, (first, first + n)


def _examples(held, numbers, max_passage, max_query):
  """Examples of a split, and what was left out or cut."""
  lengths = held["passage_length"].astype(np.int64)
  queries = held["query_length"].astype(np.int64)
  kept = (lengths > 0) & (queries > 0)
  told = {"questions without a passage or query left out": int((~kept).sum())}
  if max_query:
    long = kept & (queries > max_query)
    told[f"queries above {max_query} words left out"] = int(long.sum())
    kept &= ~long
  cut = lengths
  if max_passage:
    cut = np.minimum(lengths, max_passage)
    told[f"passages cut to {max_passage} words"] = int(
      (kept & (lengths > max_passage)).sum()
    )
  passages = _cut(numbers[held["passage"]], lengths, cut, kept)
  own = _cut(numbers[held["query"]], queries, queries, kept)
  answers = numbers[held["answer"]][kept]
  return Examples(passages, own, answers), told


def _cut(tokens, lengths, cut, kept):
  """The first `cut` tokens of each kept sequence."""
  at = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
  live = (at < np.repeat(cut, lengths)) & np.repeat(kept, lengths)
  found = tokens[live]
  starts = np.concatenate([[0], np.cumsum(cut[kept])])
  return Sentences(found, starts, int((found == vocabulary.UNKNOWN).sum()))
