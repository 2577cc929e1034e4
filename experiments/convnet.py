"""Convolutional networks on small pictures (section 6.7)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks, labelled
from lnrnn import losses, map_norms
from lnrnn.data import cifar10, mnist
from lnrnn.errors import ConfigError
from lnrnn.models import convnet
from lnrnn.models.convnet import ConvNet
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

DTYPES = ("float32", "bfloat16")
METRICS = ("nll", "error")
_SIDES = {"embedded": 28, "binary": 32, "tfds": 32}


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.feed_forward(c, map_norms.NAMES)
  c.one_of("data.source", cifar10.SOURCES)
  embedded = config.data.source == "embedded"
  checks.train_cases(c, mnist.TRAIN_SIZES["embedded"] if embedded else None)
  c.within("data.shift", 0, 8)
  # Batch norm is evaluated by minibatches of them too.
  cases = config.batch_size // max(1, config.accumulate)
  c.within("eval_train_cases", cases if config.norm == "batch" else 1)
  c.within("eval_bn_batches", 0)
  m = config.model
  if not m.widths or any(not 1 <= width < 2**16 for width in m.widths):
    c.add("model.widths", f"needs widths of at least 1 and below {2**16}")
  c.within("model.depth", 1, 100)
  c.one_of("model.padding", convnet.PADDINGS)
  c.within("model.dropout", 0, 1, open_high=True)
  c.within("model.slope", 0, 1)
  c.one_of("model.dtype", DTYPES)
  c.one_of("model.ln_form", map_norms.FORMS)
  c.within("model.groups", 1)
  c.within("model.ln_border", 0)
  if not c.faults:
    _check_maps(c)
  c.decided_by([f"{split}/{m}" for split in cifar10.SPLITS for m in METRICS])
  return c.faults


def _check_maps(c: config_lib.Checker) -> None:
  """Checks what the sizes of the network's maps have to allow."""
  config, m = c.config, c.config.model
  side = _SIDES[config.data.source]
  last = side >> len(m.widths)
  if last < 3:
    c.add(
      "model.widths",
      f"{len(m.widths)} halvings of {side} x {side} leave less than 3 x 3",
    )
    return
  if config.norm == "group" and any(w % m.groups for w in m.widths):
    c.add("model.groups", f"must divide model.widths={m.widths}")
  elif config.norm == "group" and last == 3 and m.widths[-1] == m.groups:
    c.add("model.groups", "leaves one unit to a group of the last maps")
  if config.norm not in ("layer", "rms"):
    return
  if m.ln_border and m.ln_form == "channels":
    c.add("model.ln_border", "has no meaning with model.ln_form='channels'")
  elif 2 * m.ln_border >= last - 2:
    c.add("model.ln_border", f"leaves nothing of the last {last - 2} places")
  elif (
    last - 2 - 2 * m.ln_border == m.widths[-1] == 1 and m.ln_form != "channels"
  ):
    c.add("model.widths", "leaves one unit to the statistics of the last maps")
  if config.norm == "layer" and m.ln_form == "channels" and 1 in m.widths:
    c.add("model.widths", "layer norm over one channel is the constant bias")


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/convnet.py.

  Returns:
    The experiment; its evaluations give, for each split, the mean negative
    log-likelihood `nll` (nats) and the fraction of errors `error` in
    evaluation mode (for "train", of the first `eval_train_cases`, without
    augmentation), and for batch norm `nll_minibatch`, by the statistics of
    minibatches; and `running_...` by the averages kept in training, where the
    rest is by statistics of the parameters at hand.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.7.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  model = make_model(config)
  data, scaling = _load(config)

  def init(key, batch):
    return model.init(key, scaling(batch["image"]))

  def loss(variables, batch, key):
    others = [name for name in variables if name != "params"]
    augment, dropout = jax.random.split(key)
    x = augmented(
      scaling(batch["image"]),
      augment,
      shift=config.data.shift,
      flip=config.data.flip,
    )
    logits, changed = model.apply(
      variables, x, train=True, mutable=others, rngs={"dropout": dropout}
    )
    return losses.cross_entropy(logits, batch["label"]).mean(), (changed, {})

  splits = dict(data.splits)
  some = config.eval_train_cases
  splits["train"] = {k: v[:some] for k, v in splits["train"].items()}
  classification = labelled.Classification(
    config, model, scaling, splits, statistics=config.eval_bn_batches
  )
  return Experiment(
    init=init,
    loss=loss,
    train_data=data.train_data,
    evals={
      "classify": Eval(config.eval_every, classification.measure, tuple(splits))
    },
    data=data.description,
    model=model,
    assets={
      "preprocessing": scaling.as_json(),
      "classes": _classes(config),
    },
    at_test=classification.at_test,
    looped=jax.default_backend() != "cpu",
  )


def _load(
  config: config_lib.Config,
) -> tuple[labelled.Pictures, "Scaling"]:
  """The pictures of a run, and how they are scaled."""
  data = labelled.load(config, loader=cifar10.load)
  return data, Scaling.of(data.splits["train"]["image"])


def _classes(config: config_lib.Config) -> list[str]:
  """The names of the labels."""
  if config.data.source == "embedded":
    return [str(digit) for digit in range(10)]
  return list(cifar10.NAMES)


def inputs(config: config_lib.Config, split: str, cases: int) -> jax.Array:
  """What the network of a run gets of a split, without augmentation.

  Args:
    config: of the run.
    split: one of `cifar10.SPLITS`.
    cases: pictures, at most; the first ones.

  Returns:
    [n, h, w, d] scaled pictures.

  Raises:
    DataError: if the data is missing or damaged.
  """
  data, scaling = _load(config)
  return scaling(jnp.asarray(data.splits[split]["image"][:cases]))


def make_model(config: config_lib.Config) -> ConvNet:
  """The network that `config` describes."""
  m = config.model
  return ConvNet(
    widths=m.widths,
    depth=m.depth,
    norm=config.norm,
    options=map_norms.Options(
      form=m.ln_form,
      groups=m.groups,
      border=m.ln_border,
      **labelled.norm_options(config),
    ),
    padding=m.padding,
    dropout=m.dropout,
    slope=m.slope,
    dtype=m.dtype,
  )


class Scaling:
  """From bytes to mean 0 and variance 1 of each channel over a training set."""

  def __init__(self, mean: np.ndarray, deviation: np.ndarray):
    self._mean, self._deviation = mean, deviation  # [d] each, of bytes.

  @classmethod
  def of(cls, images: np.ndarray) -> "Scaling":
    """That of pictures, bytes [n, h, w, d]."""
    average = lambda a: a.mean(axis=(0, 1, 2), dtype=np.float64)
    mean = average(images)
    # Of bytes this is exact; `std` would make a copy in float64, 1 GB of the
    # whole of CIFAR-10.
    square = average(np.square(images, dtype=np.uint16))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    # A channel that is the same everywhere stays as it is, but for its mean.
    return cls(mean, np.where(deviation > 0, deviation, 1.0))

  def __call__(self, images: jax.Array) -> jax.Array:
    """Bytes [..., d] to float32."""
    mean = jnp.asarray(self._mean, jnp.float32)
    deviation = jnp.asarray(self._deviation, jnp.float32)
    return (images.astype(jnp.float32) - mean) / deviation

  def as_json(self) -> Mapping[str, Any]:
    """What a user of the model needs, by name."""
    return {
      "mean": self._mean.tolist(),
      "deviation": self._deviation.tolist(),
    }


def augmented(
  x: jax.Array, key: jax.Array, *, shift: int, flip: bool
) -> jax.Array:
  """Moves each picture at random, and mirrors half of them.

  Args:
    x: [b, h, w, d] scaled pictures.
    key: of what is random.
    shift: most places that a picture moves, in either direction of either
      axis; what comes in is zero, the training set's mean.
    flip: mirror left and right, every second picture on average.

  Returns:
    The like of `x`.
  """
  moving, mirroring = jax.random.split(key)
  b, h, w, d = x.shape
  if flip:
    mirrored = jax.random.bernoulli(mirroring, shape=(b, 1, 1, 1))
    x = jnp.where(mirrored, x[:, :, ::-1], x)
  if shift:
    wide = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    start = jax.random.randint(moving, (b, 2), 0, 2 * shift + 1)
    cut = lambda picture, at: jax.lax.dynamic_slice(
      picture, (at[0], at[1], 0), (h, w, d)
    )
    x = jax.vmap(cut)(jnp.pad(x, wide), start)
  return x
