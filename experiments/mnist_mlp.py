"""Permutation-invariant MNIST (section 6.6, Figure 6)."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import digits
from lnrnn import losses, norms
from lnrnn.data import batches, mnist
from lnrnn.errors import ConfigError
from lnrnn.models.mlp import MLP
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

PIXELS = 28 * 28


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  if fault := norms.unknown_name(config.norm):
    c.faults.append(fault)
  c.one_of("data.source", mnist.SOURCES)
  if size := mnist.TRAIN_SIZES.get(config.data.source):
    c.within("data.train_cases", 1, size)
  if config.batch_size > config.data.train_cases:
    c.add(
      "batch_size",
      f"is larger than the training set (data.train_cases ="
      f" {config.data.train_cases})",
    )
  cases = config.batch_size // max(1, config.accumulate)
  if config.norm == "batch" and cases < 2:
    c.add(
      "batch_size",
      "batch norm needs at least 2 cases in a minibatch: the variance over"
      f" one is zero (accumulate={config.accumulate})",
    )
  if config.model.wn_data_dependent_init and config.batch_size == 1:
    c.add(
      "model.wn_data_dependent_init",
      "needs at least 2 cases in the first batch (batch_size=1)",
    )
  c.within("eval_batch_size", 1)
  c.decided_by(
    [f"{split}/{m}" for split in mnist.SPLITS for m in ("nll", "error")]
  )
  if not config.model.hidden:
    c.add("model.hidden", "needs at least one hidden layer")
  smallest = 2 if config.norm == "layer" else 1
  if any(not smallest <= width < 2**20 for width in config.model.hidden):
    why = (
      " with layer norm: over one unit it is the constant bias"
      if smallest == 2
      else ""
    )
    least = f"every width must be at least {smallest}{why}"
    c.add("model.hidden", f"{least}, and below {2**20}")
  c.within("model.eps", 0)
  c.within("model.gain_init", 0, open_low=True)
  c.within("model.bn_average_cases", 1)
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/mnist_mlp.py.

  Returns:
    The experiment; its evaluations give, for each split, the mean negative
    log-likelihood `nll` (nats) and the fraction of errors `error` in
    evaluation mode, and for batch norm `nll_minibatch`, by the statistics of
    minibatches as in training.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.6, Figure 6.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  model = make_model(config)
  data = digits.load(config, PIXELS)

  def init(key, batch):
    return model.init(key, _scale(batch["image"]))

  def loss(variables, batch, key):
    del key  # Nothing here is random.
    others = [name for name in variables if name != "params"]
    logits, changed = model.apply(
      variables, _scale(batch["image"]), train=True, mutable=others
    )
    return losses.cross_entropy(logits, batch["label"]).mean(), (changed, {})

  classify = _classifier(model, config, data.splits)
  return Experiment(
    init=init,
    loss=loss,
    train_data=data.train_data,
    evals={
      "classify": Eval(config.eval_every, classify, tuple(data.splits)),
    },
    data=data.description,
    model=model,
  )


def make_model(config: config_lib.Config) -> MLP:
  """The network that `config` describes."""
  m = config.model
  # The averages take in every microbatch.
  cases = config.batch_size // config.accumulate
  momentum = max(0.0, 1 - cases / m.bn_average_cases)
  return MLP(
    hidden=m.hidden,
    norm=config.norm,
    norm_output=m.norm_output,
    options=norms.Options(
      eps=m.eps,
      gain_init=m.gain_init,
      momentum=momentum,
      unbiased=m.bn_unbiased,
      data_dependent=m.wn_data_dependent_init,
    ),
  )


def _scale(images: jax.Array) -> jax.Array:
  """Bytes [..., 784] to [0, 1]; the paper does not say how it scales them."""
  return images.astype(jnp.float32) / 255


def _classifier(
  model: MLP,
  config: config_lib.Config,
  splits: dict[str, dict[str, np.ndarray]],
) -> Callable[[Any, str, jax.Array], dict[str, float]]:
  """The evaluation: (variables, split, key) -> nll and error of the split."""

  def scores(variables, image, *, train):
    return cast(jax.Array, model.apply(variables, _scale(image), train=train))

  @jax.jit
  def evaluate(variables, image, label):  # [n, m, 784], [n, m]; label -1: pad
    def one(batch):
      image, label = batch
      logits = scores(variables, image, train=False)
      real = label >= 0
      nll = losses.cross_entropy(logits, jnp.maximum(label, 0))
      wrong = logits.argmax(axis=-1) != label
      return (nll * real).sum(), (wrong & real).sum()

    return jax.lax.map(one, (image, label))

  @jax.jit
  def evaluate_minibatches(variables, image, label):  # [n, m, b, 784]
    def one(image, label):
      logits = scores(variables, image, train=True)
      return losses.cross_entropy(logits, label).sum()

    # vmap keeps each minibatch's statistics apart in one matrix product.
    return jax.lax.map(lambda batch: jax.vmap(one)(*batch), (image, label))

  size, b = config.eval_batch_size, config.batch_size // config.accumulate
  chunked = {name: _chunks(split, size) for name, split in splits.items()}
  group = max(1, size // b)
  minibatches = _whole_groups(splits["train"], group, b)

  def classify(variables, split, key):
    del key
    nll, wrong = evaluate(variables, *chunked[split])
    cases = len(splits[split]["label"])
    found = {
      # Sums of float32 chunks, added in float64.
      "nll": np.asarray(nll, np.float64).sum() / cases,
      "error": np.asarray(wrong).sum() / cases,
    }
    if config.norm == "batch" and split == "train":
      nll = evaluate_minibatches(variables, *minibatches)
      found["nll_minibatch"] = np.asarray(nll, np.float64).sum() / (
        minibatches[1].size
      )
    return found

  return classify


def _chunks(split: dict[str, np.ndarray], size: int) -> tuple:
  """A split as images [n, size, 784] and labels [n, size], padded by -1."""
  images, real = batches.padded(split["image"], size)
  labels, _ = batches.padded(split["label"], size)
  return images, np.where(real, labels, -1)


def _whole_groups(split: dict[str, np.ndarray], group: int, b: int) -> tuple:
  """A split as images [n, group, b, 784] and labels [n, group, b].

  In a fixed random order, since the files may be sorted; what does not fill
  a group of minibatches is left out.
  """
  order = np.random.default_rng(0).permutation(len(split["label"]))
  group = min(group, len(order) // b)
  order = order[: len(order) // (group * b) * (group * b)].reshape(-1, group, b)
  return split["image"][order], split["label"][order]
