"""Permutation-invariant MNIST (section 6.6, Figure 6)."""

import jax
import jax.numpy as jnp

from experiments import checks, labelled
from lnrnn import losses, norms
from lnrnn.data import mnist
from lnrnn.errors import ConfigError
from lnrnn.models.mlp import MLP
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

PIXELS = 28 * 28


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.feed_forward(c, norms.NAMES)
  c.one_of("data.source", mnist.SOURCES)
  checks.train_cases(c, mnist.TRAIN_SIZES.get(config.data.source))
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
  data = labelled.load(config, PIXELS)

  def init(key, batch):
    return model.init(key, _scale(batch["image"]))

  def loss(variables, batch, key):
    del key  # Nothing here is random.
    others = [name for name in variables if name != "params"]
    logits, changed = model.apply(
      variables, _scale(batch["image"]), train=True, mutable=others
    )
    return losses.cross_entropy(logits, batch["label"]).mean(), (changed, {})

  classification = labelled.Classification(config, model, _scale, data.splits)
  return Experiment(
    init=init,
    loss=loss,
    train_data=data.train_data,
    evals={
      "classify": Eval(
        config.eval_every, classification.measure, tuple(data.splits)
      ),
    },
    data=data.description,
    model=model,
  )


def inputs(config: config_lib.Config, split: str, cases: int) -> jax.Array:
  """What the network of a run gets of a split.

  Args:
    config: of the run.
    split: one of `mnist.SPLITS`.
    cases: digits, at most; the first ones.

  Returns:
    [n, 784] in [0, 1].

  Raises:
    DataError: if the data is missing or damaged.
  """
  data = labelled.load(config, PIXELS)
  return _scale(jnp.asarray(data.splits[split]["image"][:cases]))


def make_model(config: config_lib.Config) -> MLP:
  """The network that `config` describes."""
  return MLP(
    hidden=config.model.hidden,
    norm=config.norm,
    norm_output=config.model.norm_output,
    options=norms.Options(**labelled.norm_options(config)),
  )


def _scale(images: jax.Array) -> jax.Array:
  """Bytes [..., 784] to [0, 1]; the paper does not say how it scales them."""
  return images.astype(jnp.float32) / 255
