"""DRAW on binarised MNIST (section 6.4, Figure 4)."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks
from lnrnn import pictures
from lnrnn.data import batches, binarized_mnist
from lnrnn.errors import ConfigError
from lnrnn.models.draw import DRAW, NORMED, Terms
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

_SIDE = binarized_mnist.SIDE
METRICS = ("bound", "reconstruction", "kl")
# Which glimpses the picture of a drawing shows, in parts of the whole.
_SHOWN = 10


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  c.one_of("data.source", binarized_mnist.SOURCES)
  sizes = binarized_mnist.TRAIN_SIZES
  checks.train_cases(c, sizes.get(config.data.source))
  c.one_of("model.normed", NORMED)
  c.within("model.glimpses", 1)
  c.within("model.features", 2)
  c.within("model.latents", 1)
  for name in ("read", "write"):
    size = config.model[f"{name}_size"]
    if size != 0 and not 2 <= size <= _SIDE:
      c.add(f"model.{name}_size", f"must be 2 to {_SIDE}, or 0: no attention")
    start = config.model[f"{name}_start"]
    if len(start) != 2 or not all(0.01 <= v <= 100 for v in start):
      c.add(
        f"model.{name}_start",
        "must be stride and standard deviation, 0.01 to 100 pixels",
      )
  c.within("model.init_sd", 0, 100)
  c.within("model.forget_bias", -100, 100)
  c.within("eval_batch_size", 1)
  c.within("eval_cases", 0)
  c.within("importance_samples", 1, 100_000)
  c.within("importance_cases", 2)
  c.decided_by([f"{s}/{m}" for s in ("validation", "test") for m in METRICS])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/draw.py.

  Returns:
    The experiment; its evaluations give, for each split, the variational
    bound `bound` with its parts `reconstruction` and `kl`, in nats, latents
    drawn once for each image; pictures; and at the end of the run
    `importance_nll`, the importance-weighted estimate of -log p(x).

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.4, Figure 4.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  model = make_model(config)
  data = binarized_mnist.load(config.data.source, config.data.dir or None)
  splits = dict(data.splits)
  there, cases = len(splits["train"]), config.data.train_cases
  splits["train"] = splits["train"][:cases]
  used = "" if cases == there else f", of which the first {cases:,} are used"
  train_data = batches.ShuffledBatches(
    {"image": splits["train"]},
    batch_size=config.batch_size,
    seed=config.seed,
    fingerprint=data.fingerprint,
  )
  # Log-odds of ink; a pixel that never has any counts as half a case.
  ink = (splits["train"].sum(axis=0) + 0.5) / (cases + 1)
  log_odds = np.log(ink / (1 - ink)).astype(np.float32)

  def init(key, batch):
    variables = dict(model.init(key, batch["image"], key))
    if config.model.canvas_from_data:
      params = {**variables["params"], "canvas_start": jnp.array(log_odds)}
      variables["params"] = params
    return variables

  def loss(variables, batch, key):
    others = [name for name in variables if name != "params"]
    terms, changed = model.apply(
      variables, batch["image"], key, train=True, mutable=others
    )
    terms = jax.tree.map(jnp.mean, cast(Terms, terms))
    metrics = {"reconstruction": terms.nll, "kl": terms.kl}
    return terms.bound, (changed, metrics)

  evaluations = _Evaluations(config, model, splits)
  return Experiment(
    init=init,
    loss=loss,
    train_data=train_data,
    evals={
      "bound": Eval(
        config.eval_every, evaluations.bound, ("validation", "test")
      ),
      "pictures": Eval(
        config.eval_every, evaluations.pictures, ("validation",)
      ),
      "importance": Eval(config.train_steps, evaluations.importance, ("test",)),
    },
    data=data.description.replace(" train /", f" train{used} /"),
    model=model,
  )


def make_model(config: config_lib.Config) -> DRAW:
  """The network that `config` describes."""
  fields = dict(config.model)
  del fields["canvas_from_data"]
  return DRAW(norm=config.norm, **fields)


class _Evaluations:
  """What is measured of a model, and shown of it.

  Args:
    config: of the run.
    model: to evaluate.
    splits: {name: images [n, 28, 28]}.
  """

  def __init__(self, config: config_lib.Config, model: DRAW, splits):
    self._config, self._model, self._splits = config, model, splits
    self._terms = jax.jit(lambda *args: cast(Terms, model.apply(*args)))
    self._reconstruct = jax.jit(self._method("reconstruct"))
    self._generate = jax.jit(self._method("generate"), static_argnums=2)

  def _method(self, name):
    return lambda variables, *args: self._model.apply(
      variables, *args, method=name
    )

  def _chosen(self, split: str, n: int) -> np.ndarray:
    """Some images of a split, at random, as the test split is sorted."""
    images = self._splits[split]
    order = batches.shuffled(len(images), 0, 0)
    return images[order[:n]]

  def _all_terms(self, variables, images, key) -> Terms:
    """The terms of images [n, ...], [n] each."""
    size = min(self._config.eval_batch_size, len(images))
    chunks, real = batches.padded(images, size)
    keys = jax.random.split(key, len(chunks))
    # Chunk by chunk, so that a signal in between is heard.
    found = [
      jax.device_get(self._terms(variables, *x))
      for x in zip(chunks, keys, strict=True)
    ]
    whole = jax.tree.map(lambda *parts: np.float64(np.stack(parts)), *found)
    return jax.tree.map(lambda a: a[real], whole)

  def bound(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """The variational bound and its parts, means over the split in nats."""
    images = self._splits[split]
    if n := self._config.eval_cases:
      images = self._chosen(split, n)
    terms = self._all_terms(variables, images, key)
    return {
      "bound": float(terms.bound.mean()),
      "reconstruction": float(terms.nll.mean()),
      "kl": float(terms.kl.mean()),
    }

  def importance(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """The importance-weighted estimate of -log p(x), beside the bound.

    Both are of the same images, by the same latents, in nats, with the
    standard errors of their means over the images. `bound_latent_error`, of
    two samples or more, is the standard deviation of the bound over the whole
    split, the latents being drawn anew.

    Source: Burda et al. 2016, eq. (8).
    """
    images = self._chosen(split, self._config.importance_cases)
    keys = jax.random.split(key, self._config.importance_samples)
    weights = np.stack(
      [self._all_terms(variables, images, k).log_weight for k in keys]
    )
    largest = weights.max(axis=0)
    estimate = largest + np.log(np.exp(weights - largest).mean(axis=0))
    found = {}
    for name, nats in (("nll", -estimate), ("bound", -weights.mean(axis=0))):
      found[f"importance_{name}"] = float(nats.mean())
      error = nats.std(ddof=1) / np.sqrt(len(nats))
      found[f"importance_{name}_error"] = float(error)
    if len(weights) > 1:
      # What other latents would change of `bound`, drawn once an image of all.
      within = weights.var(axis=0, ddof=1).mean()
      error = np.sqrt(within / len(self._splits[split]))
      found["bound_latent_error"] = float(error)
    return found

  def pictures(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, np.ndarray]:
    """Samples; the course of drawings, as a picture and as an animation."""
    keys = jax.random.split(key)
    n = self._model.write_size
    drawn = jax.device_get(self._generate(variables, keys[0], 64))
    samples = 1 - pictures.grid(drawn.canvas[-1], 8)
    few = jax.tree.map(lambda a: a[:, :16], drawn)
    frames = pictures.framed(few.canvas, few.window, n=n)
    animation = np.stack([pictures.grid(f, 4, border=3) for f in frames])
    images = self._chosen(split, 8)
    seen = jax.device_get(self._reconstruct(variables, images, keys[1]))
    t = len(seen.canvas)
    shown = np.unique(np.linspace(0, t - 1, min(t, _SHOWN)).round().astype(int))
    course = jax.tree.map(lambda a: a[shown], seen)
    frames = pictures.framed(course.canvas, course.window, n=n)
    originals = pictures.framed(images.astype(np.float32), None, n=n)
    rows = np.concatenate([frames, originals[None]])
    drawing = pictures.grid(
      rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:]), len(rows), border=3
    )
    return {"samples": samples, "drawing": drawing, "animation": animation}
