"""Makes the MNIST subset that ships in `lnrnn/data/embedded`.

  python scripts/make_embedded_mnist.py --from=DIR --out=lnrnn/data/embedded

DIR holds the four original idx files. The files made are idx files too.
"""

from collections.abc import Sequence
import gzip
import pathlib
import sys

from absl import app, flags
import numpy as np

from lnrnn import files
from lnrnn.data import batches, idx, mnist
from lnrnn.errors import UserError

_FROM = flags.DEFINE_string(
  "from", None, "Directory of the four idx files of MNIST.", required=True
)
_OUT = flags.DEFINE_string(
  "out", None, "Directory for the six files of the subset.", required=True
)

_SEED = 2016
_PER_CLASS = {"train": 1_000, "validation": 100, "test": 200}


def subset(splits: dict[str, mnist.Arrays]) -> dict[str, mnist.Arrays]:
  """Draws the same number of digits of each class, in the order of the files.

  Args:
    splits: the whole data in the paper's split.

  Returns:
    10,000 train, 1,000 validation and 2,000 test digits, each drawn from the
    split of that name.
  """
  drawn = {}
  for number, (split, count) in enumerate(_PER_CLASS.items()):
    images, labels = splits[split]
    order = batches.shuffled(len(labels), _SEED, number)
    rows = np.concatenate(
      [order[labels[order] == digit][:count] for digit in range(10)]
    )
    rows.sort()
    drawn[split] = mnist.Arrays(images[rows], labels[rows])
  return drawn


def main(argv: Sequence[str]) -> int:
  """Writes the six files; returns the exit code."""
  del argv
  try:
    whole = mnist.load("idx", _FROM.value)
  except UserError as error:
    print(f"make_embedded_mnist: {error}", file=sys.stderr)
    return 2
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  for split, (images, labels) in subset(whole.splits).items():
    for name, array in (
      (f"mnist-{split}-images-idx3-ubyte.gz", images),
      (f"mnist-{split}-labels-idx1-ubyte.gz", labels.astype(np.uint8)),
    ):
      # No time in the header: the same data makes the same file.
      content = gzip.compress(idx.idx_bytes(array), 9, mtime=0)
      with files.atomic(out / name) as part:
        part.write_bytes(content)
  return 0


if __name__ == "__main__":
  app.run(main)
