"""Words and their numbers."""

import collections
from collections.abc import Iterable, Sequence
import functools
import re
from typing import NamedTuple

import numpy as np

from lnrnn.errors import DataError

END, UNKNOWN = 0, 1  # Authors' code: end of a sentence, any other word.
SPECIAL = ("<eos>", "<unk>")
# Letters and digits, with apostrophes inside; all else parts words.
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
  """The words of a text, in lower case, without punctuation.

  Hyphens and full stops part words, apostrophes at an end are dropped.

  Source: the tokens of Karpathy's splits are in this form.
  """
  return _WORD.findall(text.lower())


class Vocabulary(NamedTuple):
  """The words that have numbers of their own.

  Attributes:
    words: in the order of their numbers, from 2 on.
  """

  words: tuple[str, ...]

  @classmethod
  def of(cls, texts: Iterable[Sequence[str]], most: int = 0) -> "Vocabulary":
    """The words of texts, the more frequent first, equals by the alphabet.

    Args:
      texts: each a list of words.
      most: words to keep; 0 keeps all, as the authors do for images.
    """
    counts = collections.Counter(word for text in texts for word in text)
    order = sorted(counts, key=lambda word: (-counts[word], word))
    return cls(tuple(order[: most or None]))

  def __len__(self) -> int:
    """How many numbers there are, those of the two special words among them."""
    return len(self.words) + len(SPECIAL)

  def encode(self, text: Sequence[str]) -> list[int]:
    """The numbers of words, END at their end."""
    numbers = _numbers(self.words)
    return [*(numbers.get(word, UNKNOWN) for word in text), END]


@functools.lru_cache(maxsize=4)
def _numbers(known: tuple[str, ...]) -> dict[str, int]:
  return {word: i for i, word in enumerate(known, len(SPECIAL))}


class Sentences(NamedTuple):
  """Encoded sentences end to end.

  Attributes:
    tokens: int32 [p] numbers of words.
    starts: int64 [n + 1] where each sentence starts in `tokens`, and p.
    unknown: how many of the words have no number of their own.
  """

  tokens: np.ndarray
  starts: np.ndarray
  unknown: int

  @classmethod
  def of(
    cls, texts: Iterable[Sequence[str]], vocabulary: Vocabulary
  ) -> "Sentences":
    """Encodes lists of words, END after each."""
    # Looked up once: to find them hashes all words.
    numbers = _numbers(vocabulary.words)
    rows = [[*(numbers.get(w, UNKNOWN) for w in text), END] for text in texts]
    lengths = np.array([len(row) for row in rows], np.int64)
    tokens = np.array([n for row in rows for n in row], np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return cls(tokens, starts, int((tokens == UNKNOWN).sum()))

  @property
  def lengths(self) -> np.ndarray:
    """[n] int32, END counted."""
    return np.diff(self.starts).astype(np.int32)

  def padded(self, rows: np.ndarray, steps: int) -> np.ndarray:
    """Some of them as rows of a matrix.

    Args:
      rows: [b] positions.
      steps: t, at least the longest of them.

    Returns:
      int32 [b, t], END after each.
    """
    first = self.starts[rows]
    lengths = self.starts[rows + 1] - first
    if lengths.max(initial=0) > steps:
      raise DataError(
        f"a sentence of {lengths.max()} words does not fit into {steps}"
      )
    live = np.arange(steps) < lengths[:, None]
    out = np.full((len(rows), steps), END, np.int32)
    out[live] = self.tokens[(first[:, None] + np.arange(steps))[live]]
    return out


def rounded(length: int, multiple: int) -> int:
  """A length, rounded up, so that few shapes of batches are compiled."""
  return -(-int(length) // multiple) * multiple
