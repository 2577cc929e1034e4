"""Graves's alphabet."""

import numpy as np
import pytest

from lnrnn.data import characters
from lnrnn.errors import ConfigError


def test_there_are_57_codes_and_they_read_back():
  text = characters.KEPT
  codes = characters.encode(text, "refuse")
  assert codes.dtype == np.uint8
  np.testing.assert_array_equal(codes, np.arange(56))
  assert characters.decode(codes) == text
  assert characters.SIZE == 57 and characters.OTHER == 56


def test_digits_and_other_punctuation_are_one_code():
  codes = characters.encode("a1;\u00e9")
  np.testing.assert_array_equal(codes[1:], [characters.OTHER] * 3)
  assert characters.decode(codes) == "a###"
  assert characters.unmapped("b1;1a") == "1;"


def test_characters_outside_are_listed_where_they_are_refused():
  with pytest.raises(ConfigError, match=r"text 'a1;': '1' ';' cannot"):
    characters.encode("a1;", "refuse")


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(text):
  with pytest.raises(ConfigError, match="is empty"):
    characters.encode(text)


def test_other_ways_with_the_unknown_are_refused():
  with pytest.raises(ConfigError, match="unknown='drop': must be one of map"):
    characters.encode("a", "drop")
