"""MNIST pixel by pixel, the control experiment of recurrent batch norm."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks, labelled
from lnrnn import losses
from lnrnn.data import batches, mnist
from lnrnn.errors import ConfigError
from lnrnn.models.sequence_classifier import SequenceClassifier
from lnrnn.training import config as config_lib
from lnrnn.training import population
from lnrnn.training.experiment import Eval, Experiment

SIDE = 28
POOLS = (1, 2, 4, 7, 14)  # They divide the side, and leave a sequence.
METRICS = ("nll", "error")
_ORDER_SEED = 1603_09025  # Of the permutation, in all runs.


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  if config.norm in ("layer", "batch", "rms") and config.model.eps == 0:
    c.add("model.eps", "must be above 0: what black pixels give has variance 0")
  c.one_of("data.source", mnist.SOURCES)
  checks.train_cases(c, mnist.TRAIN_SIZES.get(config.data.source))
  if config.data.pool not in POOLS:
    c.add("data.pool", f"must be one of {', '.join(map(str, POOLS))}")
  c.within("model.features", 2)
  c.within("model.forget_bias", -100, 100)
  c.within("model.state_noise", 0, 100)
  c.within("model.bn_momentum", 0, 1, open_high=True)
  c.within("eval_batch_size", 1)
  c.within("eval_bn_batches", 0)
  c.decided_by([f"validation/{name}" for name in METRICS])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/sequential_mnist.py.

  Returns:
    The experiment; its evaluations give, over all cases of a split, the mean
    negative log-likelihood `nll` (nats) and the fraction of errors `error`;
    for the test split at the end of a run alone. For batch norm these are by
    statistics of the training set under the parameters at hand, and there are
    `running_...` by the averages kept in training, and `minibatch_...` by the
    statistics of minibatches of the size of those in training.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Cooijmans et al. 2016, section 5.1, Table 1.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  model = make_model(config)
  data = labelled.load(config, SIDE, SIDE)

  def init(key, batch):
    return model.init(key, sequences(config, batch["image"]))

  def loss(variables, batch, key):
    others = [name for name in variables if name != "params"]
    logits, changed = model.apply(
      variables,
      sequences(config, batch["image"]),
      train=True,
      mutable=others,
      rngs={"noise": key},
    )
    nll = losses.cross_entropy(cast(jax.Array, logits), batch["label"])
    return nll.mean(), (changed, {})

  evaluation = _Classification(config, model, data.splits)
  return Experiment(
    init=init,
    loss=loss,
    train_data=data.train_data,
    evals={
      "classification": Eval(
        config.eval_every, evaluation.measure, ("validation",)
      ),
      "test": Eval(
        config.eval_every, evaluation.measure, ("test",), of_best=True
      ),
    },
    data=data.description,
    model=model,
    assets={
      "preprocessing": {
        "pool": config.data.pool,
        "order": order(config).tolist(),
      }
    },
    at_test=evaluation.at_test,
  )


def make_model(config: config_lib.Config) -> SequenceClassifier:
  """The network that `config` describes."""
  return SequenceClassifier(
    norm=config.norm, t_max=len(order(config)), **config.model
  )


def order(config: config_lib.Config) -> np.ndarray:
  """The order in which pixels are read.

  Args:
    config: with `data.pool` and `data.permuted`.

  Returns:
    int [t] places in the pooled picture, its rows laid end to end; permuted
    they are the same for all runs and splits.
  """
  t = (SIDE // config.data.pool) ** 2
  if not config.data.permuted:
    return np.arange(t)
  return batches.shuffled(t, _ORDER_SEED, 0)


def sequences(config: config_lib.Config, images: jax.Array) -> jax.Array:
  """Pictures as sequences of pixels.

  Args:
    config: with `data.pool` and `data.permuted`.
    images: [b, 28, 28] bytes.

  Returns:
    [b, t, 1] means over squares of `pool` x `pool` pixels, 0 to 1.
  """
  pool = config.data.pool
  side = SIDE // pool
  ink = images.astype(jnp.float32) / 255
  ink = ink.reshape(-1, side, pool, side, pool).mean(axis=(2, 4))
  return ink.reshape(-1, side * side, 1)[:, order(config)]


class _Classification:
  """What is measured of a split.

  Args:
    config: of the run.
    model: of the run.
    splits: {split: {"image": [n, 28, 28], "label": [n]}}.
  """

  def __init__(
    self,
    config: config_lib.Config,
    model: SequenceClassifier,
    splits: Mapping[str, Mapping[str, np.ndarray]],
  ):
    self._config, self._splits = config, splits
    self._scores = self._compiled(model)
    if config.norm == "batch":
      self._by_minibatch = self._compiled(model.clone(bn_test="minibatch"))
      momentum = population.momentum(max(1, config.eval_bn_batches))
      fresh = model.clone(bn_momentum=momentum)
      self._estimate = jax.jit(
        lambda variables, image, key: fresh.apply(
          variables,
          sequences(config, image),
          train=True,
          mutable=["batch_stats"],
          rngs={"noise": key},
        )[1]
      )

  def measure(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """Mean negative log-likelihood and fraction of errors of a split."""
    config = self._config
    whole = config.eval_batch_size
    if config.norm != "batch":
      return self._over_all(self._scores, variables, split, whole)
    minibatch = config.batch_size // config.accumulate
    ways = {"minibatch_": (self._by_minibatch, variables, split, minibatch)}
    if config.eval_bn_batches:
      ways["running_"] = (self._scores, variables, split, whole)
      variables = self.at_test(variables, key)
    ways[""] = (self._scores, variables, split, whole)
    return {
      prefix + name: value
      for prefix, arguments in ways.items()
      for name, value in self._over_all(*arguments).items()
    }

  def _compiled(self, model: SequenceClassifier):
    """(variables, image, label) -> nll [m] and errors [m]."""

    @jax.jit
    def scores(variables, image, label):
      x = sequences(self._config, image)
      logits = cast(jax.Array, model.apply(variables, x))
      return losses.cross_entropy(logits, label), logits.argmax(-1) != label

    return scores

  def _over_all(
    self, scores: Any, variables: Any, split: str, size: int
  ) -> dict[str, float]:
    """Means over all cases, in blocks of one size."""
    images, labels = self._splits[split]["image"], self._splits[split]["label"]
    n = len(labels)
    size = min(size, n)
    # The files may be sorted, and a block of one class is no minibatch.
    rows = batches.shuffled(n, 0, 0)
    found = []
    for first in range(0, n, size):
      # The last block overlaps the one before, so that one shape is compiled
      # and no padding is among what batch norm sees; it counts what is new.
      start = min(first, n - size)
      block = rows[start : start + size]
      both = jax.device_get(scores(variables, images[block], labels[block]))
      found.append(np.array(both, np.float64)[:, first - start :])
    nll, error = np.concatenate(found, axis=1).mean(axis=1)
    return {"nll": float(nll), "error": float(error)}

  def at_test(self, variables: Any, key: jax.Array) -> Any:
    """The variables, for batch norm with statistics of their own."""
    config = self._config
    if config.norm != "batch" or not config.eval_bn_batches:
      return variables
    size = config.batch_size // config.accumulate
    images = self._splits["train"]["image"]
    rows = batches.shuffled(len(images), 0, 0)
    most = min(config.eval_bn_batches, len(images) // size)
    blocks = (images[rows[i * size : (i + 1) * size]] for i in range(most))
    return population.estimated(variables, blocks, self._estimate, key)
