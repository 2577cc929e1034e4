"""What the tasks that name the class of a picture share."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import losses
from lnrnn.data import batches, mnist
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib
from lnrnn.training import population

Split = Mapping[str, np.ndarray]  # "image": bytes [n, ...], "label": [n]


class Pictures(NamedTuple):
  """Splits, training batches and a line on both.

  Attributes:
    splits: {split: {"image": bytes [n, ...], "label": [n]}}.
    train_data: batches of the training split.
    description: one line, with how much of it a run trains on.
  """

  splits: Mapping[str, Split]
  train_data: batches.ShuffledBatches
  description: str


def load(
  config: config_lib.Config,
  *shape: int,
  loader: Callable[..., mnist.Dataset] | None = None,
) -> Pictures:
  """Loads the pictures that a config names.

  Args:
    config: with `data.source`, `data.dir` and `data.train_cases`.
    *shape: of a picture, if not as the loader gives it.
    loader: (source, folder) -> pictures; `mnist.load` by default.

  Raises:
    ConfigError: there are fewer training pictures than `data.train_cases`.
    DataError: if the data is missing or damaged.
  """
  data = (loader or mnist.load)(config.data.source, config.data.dir or None)
  splits: dict[str, Split] = {
    name: {
      "image": split.images.reshape(-1, *(shape or split.images.shape[1:])),
      "label": split.labels,
    }
    for name, split in data.splits.items()
  }
  cases, there = config.data.train_cases, len(splits["train"]["label"])
  if cases > there:
    raise ConfigError(
      f"data.train_cases={cases}: this data has {there:,}; say"
      f" data.train_cases={there}"
    )
  splits["train"] = {k: v[:cases] for k, v in splits["train"].items()}
  used = "" if cases == there else f", of which the first {cases:,} are used"
  return Pictures(
    splits,
    batches.ShuffledBatches(
      splits["train"],
      batch_size=config.batch_size,
      seed=config.seed,
      fingerprint=data.fingerprint,
    ),
    data.description.replace(" train /", f" train{used} /"),
  )


def norm_options(config: config_lib.Config) -> dict[str, Any]:
  """The fields of `norms.Options` that a config of these tasks sets."""
  m = config.model
  # The averages take in every microbatch.
  cases = config.batch_size // config.accumulate
  return {
    "eps": m.eps,
    "gain_init": m.gain_init,
    "momentum": max(0.0, 1 - cases / m.bn_average_cases),
    "unbiased": m.bn_unbiased,
    "data_dependent": m.wn_data_dependent_init,
  }


class Classification:
  """The evaluation of a classifier: how likely and how often right it is."""

  def __init__(
    self,
    config: config_lib.Config,
    model: Any,
    prepare: Callable[[jax.Array], jax.Array],
    splits: Mapping[str, Split],
    *,
    statistics: int = 0,
  ):
    """Compiles nothing yet.

    Args:
      config: with `eval_batch_size`.
      model: module of logits [b, k] with fields `norm` and `options`.
      prepare: from bytes [b, ...] to what the model takes.
      splits: what is measured.
      statistics: minibatches of the training split that batch norm's
        statistics are taken from anew at each evaluation, without dropout; 0
        for the averages kept in training.
    """
    size, b = config.eval_batch_size, config.batch_size // config.accumulate
    self._blocks = {
      name: _blocks(split, size) for name, split in splits.items()
    }
    self._cases = {name: len(split["label"]) for name, split in splits.items()}
    self._minibatches = ()
    if config.norm == "batch":
      self._minibatches = _whole_groups(splits["train"], max(1, size // b), b)
    with_options = lambda **fields: model.clone(
      options=dataclasses.replace(model.options, **fields)
    )
    by_minibatch = with_options(test="minibatch")
    self._statistics = []
    if config.norm == "batch" and statistics:
      groups = _whole_groups(splits["train"], 1, b)[:statistics]
      self._statistics = [images[0] for images, _ in groups]
      fresh = with_options(momentum=population.momentum(len(groups)))
      if getattr(model, "dropout", 0):
        fresh = fresh.clone(dropout=0.0)
      self._update = jax.jit(
        lambda variables, image, key: fresh.apply(
          variables, prepare(image), train=True, mutable=["batch_stats"]
        )[1]
      )

    def scores(model, variables, image, label):
      logits = cast(jax.Array, model.apply(variables, prepare(image)))
      nll = losses.cross_entropy(logits, jnp.maximum(label, 0))
      return logits, nll

    @jax.jit
    def block(variables, image, label):  # [m, ...], [m]; label -1: padding
      logits, nll = scores(model, variables, image, label)
      real = label >= 0
      wrong = logits.argmax(axis=-1) != label
      return (nll * real).sum(), (wrong & real).sum()

    @jax.jit
    def group(variables, image, label):  # [g, b, ...], [g, b]
      # vmap keeps each minibatch's statistics apart in one matrix product.
      one = lambda *batch: scores(by_minibatch, variables, *batch)[1].sum()
      return jax.vmap(one)(image, label).sum()

    self._block, self._group = block, group

  def measure(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """Mean negative log-likelihood `nll`, nats, and fraction of errors `error`.

    Of batch norm on the training split also `nll_minibatch`, by the statistics
    of minibatches of the size of those in training; and where statistics are
    taken anew, `running_...` by the averages kept in training.
    """
    found = self._over_all(variables, split)
    if self._statistics:
      found = {f"running_{name}": value for name, value in found.items()}
      found |= self._over_all(self.at_test(variables, key), split)
    if self._minibatches and split == "train":
      sums = [self._group(variables, *g) for g in self._minibatches]
      cases = sum(label.size for _, label in self._minibatches)
      found["nll_minibatch"] = (
        np.array(jax.device_get(sums), np.float64).sum() / cases
      )
    return found

  def at_test(self, variables: Any, key: jax.Array) -> Any:
    """The variables, with statistics of their own where those are taken."""
    if not self._statistics:
      return variables
    return population.estimated(variables, self._statistics, self._update, key)

  def _over_all(self, variables: Any, split: str) -> dict[str, float]:
    """Means over all cases."""
    # Sums of float32 blocks, added in float64.
    sums = [self._block(variables, *b) for b in self._blocks[split]]
    nll, wrong = np.array(jax.device_get(sums), np.float64).sum(axis=0)
    cases = self._cases[split]
    return {"nll": float(nll / cases), "error": float(wrong / cases)}


def _blocks(split: Split, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """A split as images [m, ...] and labels [m], padded by -1."""
  images, real = batches.padded(split["image"], size)
  labels, _ = batches.padded(split["label"], size)
  return list(zip(images, np.where(real, labels, -1), strict=True))


def _whole_groups(
  split: Split, group: int, b: int
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
  """A split as images [g, b, ...] and labels [g, b].

  In a fixed random order, since the files may be sorted; what does not fill
  a group of minibatches is left out.
  """
  order = np.random.default_rng(0).permutation(len(split["label"]))
  group = min(group, len(order) // b)
  order = order[: len(order) // (group * b) * (group * b)].reshape(-1, group, b)
  return tuple((split["image"][rows], split["label"][rows]) for rows in order)
