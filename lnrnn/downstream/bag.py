"""The baseline without an encoder: means of word vectors."""

from collections.abc import Sequence

import numpy as np

from lnrnn.data.word_vectors import WordVectors


def bag_of_vectors(
  sentences: Sequence[Sequence[str]], vectors: WordVectors
) -> tuple[np.ndarray, float]:
  """The means of the vectors of each sentence's words.

  Args:
    sentences: n of them, each its tokens.
    vectors: of words, d numbers each.

  Returns:
    float32 [n, d], zero where no word is known; and the part of all tokens
    that are not.
  """
  found = np.zeros((len(sentences), vectors.vectors.shape[1]), np.float32)
  lengths = [len(tokens) for tokens in sentences]
  rows = vectors.rows([word for tokens in sentences for word in tokens])
  ends = np.cumsum(lengths)
  for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
    own = rows[end - length : end]
    own = own[own >= 0]
    if own.size:
      found[i] = vectors.vectors[own].mean(axis=0)
  return found, float((rows < 0).mean()) if rows.size else 0.0
