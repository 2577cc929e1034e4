r"""A linear baseline of the retrieval of images and captions.

  python scripts/ridge_retrieval.py --source=flickr8k [--dir=DIR]

Ridge regression from the features of an image to the words of its captions; an
image and a caption are compared by the cosine of what is predicted and the
words that are there, each word weighted by its inverse document frequency. The
penalty is the one that is best on validation, by the sum of recalls. Prints the
numbers of the test split as one JSON object, named as those of
`experiments.evaluate`.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import normalize

from lnrnn import arrays, ranking
from lnrnn.data import captions, vocabulary
from lnrnn.data.image_captions import CAPTIONS, Dataset
from lnrnn.errors import UserError

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def bags(data: Dataset, split: str) -> Any:
  """How often each word is in each caption, [5 n, v]."""
  found = data.sentences[split]
  shape = (len(found.lengths), len(data.vocabulary))
  ones = np.ones(len(found.tokens), np.float32)
  # A copy, as its indices are sorted in place.
  counts = sparse.csr_matrix(
    (ones, found.tokens, found.starts), shape=shape, copy=True
  )
  counts.sum_duplicates()
  # Words that all captions, or none of those known, have tell nothing.
  weights = np.ones(shape[1], np.float32)
  weights[[vocabulary.END, vocabulary.UNKNOWN]] = 0
  return counts @ sparse.diags_array(weights)


def main(arguments: list[str] | None = None) -> int:
  """Fits, chooses, tests and prints; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--source", default="embedded", choices=captions.SOURCES)
  parser.add_argument("--dir", default=None, help="default: LNRNN_DATA_DIR")
  given = parser.parse_args(arguments)
  try:
    data = captions.load(given.source, given.dir)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(data.description, file=sys.stderr)
  tfidf = TfidfTransformer(sublinear_tf=True).fit(bags(data, "train"))
  words: dict[str, Any] = {
    s: tfidf.transform(bags(data, s)) for s in data.splits
  }
  x = {
    s: arrays.unit(np.asarray(held.features)) for s, held in data.splits.items()
  }
  # An image's words are those of its five captions together.
  n = len(x["train"])
  owner = np.repeat(np.arange(n), CAPTIONS)
  gather = sparse.csr_matrix(
    (np.ones(len(owner), np.float32), (owner, np.arange(len(owner))))
  )
  y: Any = normalize(gather @ words["train"])
  y = y.toarray()

  def measure(model: Ridge, split: str) -> dict[str, float]:
    predicted: Any = normalize(model.predict(x[split]))
    cosines = predicted @ words[split].T
    return ranking.summary(ranking.ranks(-np.asarray(cosines)))

  fitted = [Ridge(alpha=penalty).fit(x["train"], y) for penalty in PENALTIES]
  sums = [measure(model, "validation")["recall_sum"] for model in fitted]
  best = int(np.argmax(sums))
  print(
    json.dumps(
      {
        "penalty": PENALTIES[best],
        "validation/recall_sum": sums[best],
        **{f"test/{k}": v for k, v in measure(fitted[best], "test").items()},
      },
      indent=2,
    )
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
