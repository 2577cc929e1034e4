"""Paragraphs in sentences, sentences in tokens, by rules stated here."""

import re

# A full stop after these ends no sentence, nor one after a single capital.
_SHORT = {
  *("mr", "mrs", "ms", "messrs", "dr", "st", "rev", "hon", "capt", "col"),
  *("gen", "lieut", "sergt", "prof", "esq", "jun", "sen", "vol", "no", "mme"),
  *("mlle", "viz", "etc", "i.e", "e.g", "co", "bart"),
}
_LONGEST_SHORT = max(map(len, _SHORT))
# Marks, closing quotes and brackets, then blanks before what may begin one.
# The looking back, and no trying with fewer blanks, change nothing but the time
# that long runs of marks or blanks take.
_END = re.compile(
  r"(?<![.!?…])([.!?…]+)([\"'”’)\]]*)\s++(?=[\"'“‘(\[—–-]*\s*[A-Z0-9])"
)
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[.!?]")
END_MARKS = frozenset(".!?")


def sentences(paragraph: str) -> list[str]:
  """Cuts a paragraph into sentences.

  A sentence ends at `.`, `!`, `?` or `…`, with the quotes and brackets that
  close after it, where a blank and then a capital or a digit follow, quotes
  and dashes aside; not after a title, a common abbreviation or an initial.
  So what is said and who says it stay together: `"Yes!" said he.`

  Args:
    paragraph: a text without line breaks.

  Returns:
    Its sentences, none empty.
  """
  found, begin = [], 0
  for match in _END.finditer(paragraph):
    if match[1] == "." and _is_short(paragraph[begin : match.start()]):
      continue
    found.append(paragraph[begin : match.end()].strip())
    begin = match.end()
  found.append(paragraph[begin:].strip())
  return [sentence for sentence in found if sentence]


def _is_short(before: str) -> bool:
  # The end is enough, and the whole may be long.
  word = re.split(r"[\s—–\-(“‘\"']", before[-_LONGEST_SHORT - 1 :])[-1]
  return word.lower() in _SHORT or (len(word) == 1 and word.isupper())


def tokens(sentence: str) -> list[str]:
  """The words of a sentence as they are written, and its end mark.

  Hyphens and dashes part words, apostrophes within stay; of the marks those
  that end sentences are tokens, all others are dropped. The full stop of an
  abbreviation is dropped too. Apostrophes are straightened.

  Args:
    sentence: of `sentences`.

  Returns:
    The tokens.
  """
  found = _TOKEN.findall(sentence.replace("’", "'"))
  kept = []
  for i, token in enumerate(found):
    if token not in END_MARKS or (
      kept
      and kept[-1] not in END_MARKS
      and (i + 1 == len(found) or token != ".")
    ):
      kept.append(token)
  return kept
