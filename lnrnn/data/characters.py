"""Graves's reduced alphabet for handwriting.

Of the 80 characters of IAM-OnDB he kept 57, "with all the digits and most of
the punctuation characters replaced with a generic 'non-letter' label". He does
not say which were kept; ours are the letters, the space, the full stop, the
comma and the apostrophe.

Source: Graves 2013, section 5.2.
"""

import string

import numpy as np

from lnrnn.errors import ConfigError

KEPT = string.ascii_uppercase + string.ascii_lowercase + " .,'"
OTHER = len(KEPT)  # The code of all else.
SIZE = OTHER + 1
UNKNOWN = ("map", "refuse")
_CODES = {character: code for code, character in enumerate(KEPT)}


def encode(text: str, unknown: str = "map") -> np.ndarray:
  """The codes of a text's characters.

  Args:
    text: not empty, nor blank.
    unknown: "map" gives characters outside the alphabet the code `OTHER`,
      "refuse" refuses them.

  Returns:
    uint8 [u].

  Raises:
    ConfigError: the text is empty, or has characters that are refused.
  """
  if unknown not in UNKNOWN:
    raise ConfigError(
      f"unknown={unknown!r}: must be one of {', '.join(UNKNOWN)}"
    )
  if not text.strip():
    raise ConfigError(f"text {text!r}: is empty")
  if unknown == "refuse" and (strange := unmapped(text)):
    listed = " ".join(map(repr, strange))
    raise ConfigError(
      f"text {text!r}: {listed} cannot be written; A-Z, a-z, space and . , '"
      " can"
    )
  return np.array([_CODES.get(c, OTHER) for c in text], np.uint8)


def decode(codes: np.ndarray) -> str:
  """The text of codes, `OTHER` shown as #."""
  return "".join((KEPT + "#")[code] for code in codes)


def unmapped(text: str) -> str:
  """The distinct characters of a text that are outside the alphabet, sorted."""
  return "".join(sorted(set(text) - set(KEPT)))
