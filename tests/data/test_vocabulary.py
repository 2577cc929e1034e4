"""Words, their numbers, and encoded sentences."""

import numpy as np
import pytest

from lnrnn.data import vocabulary
from lnrnn.data.vocabulary import END, UNKNOWN, Sentences, Vocabulary
from lnrnn.errors import DataError


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("A child in a pink dress .", "a child in a pink dress"),
    ("Two dogs , one's brown ; it runs !", "two dogs one's brown it runs"),
    ("a black-and-white dog", "a black and white dog"),
    ("a man's 3 dogs' toys", "a man's 3 dogs toys"),
    ("Café naïve", "café naïve"),
    (". , !", ""),
    ("", ""),
  ],
)
def test_words_are_lower_case_and_without_punctuation(text, expected):
  assert " ".join(vocabulary.words(text)) == expected
  # Words stay as they are when they are split again.
  assert vocabulary.words(expected) == expected.split()


def test_words_are_numbered_by_frequency_and_then_by_the_alphabet():
  found = Vocabulary.of([["b", "a", "b"], ["c", "a"], ["d"]])
  assert found.words == ("a", "b", "c", "d")
  assert len(found) == 6
  assert found.encode(["a", "d", "z"]) == [2, 5, UNKNOWN, END]
  assert Vocabulary.of([["b", "a", "b"]], most=1).words == ("b",)


def test_sentences_are_laid_end_to_end_and_padded_with_ends():
  words = Vocabulary(("dog", "cat"))
  found = Sentences.of([["dog"], [], ["cat", "cow", "dog"]], words)
  np.testing.assert_array_equal(found.tokens, [2, END, END, 3, UNKNOWN, 2, END])
  np.testing.assert_array_equal(found.lengths, [2, 1, 4])
  assert found.unknown == 1
  np.testing.assert_array_equal(
    found.padded(np.array([2, 0]), 5), [[3, UNKNOWN, 2, 0, 0], [2, 0, 0, 0, 0]]
  )
  with pytest.raises(DataError, match="4 words does not fit into 3"):
    found.padded(np.array([2]), 3)


@pytest.mark.parametrize(("n", "expected"), [(1, 4), (4, 4), (5, 8)])
def test_lengths_are_rounded_up(n, expected):
  assert vocabulary.rounded(n, 4) == expected
