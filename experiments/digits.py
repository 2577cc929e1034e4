"""The digits of the tasks on MNIST, as their configs name them."""

from typing import NamedTuple

import numpy as np

from lnrnn.data import batches, mnist
from lnrnn.training import config as config_lib


class Digits(NamedTuple):
  """Splits, training batches and a line on both.

  Attributes:
    splits: {split: {"image": bytes [n, ...], "label": [n]}}.
    train_data: batches of the training split.
    description: one line, with how much of it a run trains on.
  """

  splits: dict[str, dict[str, np.ndarray]]
  train_data: batches.ShuffledBatches
  description: str


def load(config: config_lib.Config, *shape: int) -> Digits:
  """Loads the digits that a config names.

  Args:
    config: with `data.source`, `data.dir` and `data.train_cases`.
    *shape: of a picture, 28 x 28 pixels in all.

  Raises:
    DataError: if the data is missing or damaged.
  """
  data = mnist.load(config.data.source, config.data.dir or None)
  splits = {
    name: {"image": split.images.reshape(-1, *shape), "label": split.labels}
    for name, split in data.splits.items()
  }
  cases, there = config.data.train_cases, len(splits["train"]["label"])
  splits["train"] = {k: v[:cases] for k, v in splits["train"].items()}
  used = "" if cases == there else f", of which the first {cases:,} are used"
  return Digits(
    splits,
    batches.ShuffledBatches(
      splits["train"],
      batch_size=config.batch_size,
      seed=config.seed,
      fingerprint=data.fingerprint,
    ),
    data.description.replace(" train /", f" train{used} /"),
  )
