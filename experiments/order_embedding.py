"""Order embeddings of images and sentences (section 6.1, Figure 1, Table 2)."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np

from experiments import checks
from lnrnn import arrays, losses, ranking
from lnrnn.data import batches, captions, vocabulary
from lnrnn.data.image_captions import CAPTIONS, CaptionBatches, Dataset
from lnrnn.data.vocabulary import Sentences
from lnrnn.errors import ConfigError, choices, one_line
from lnrnn.models.order_embedding import OrderEmbedding
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

ASKED = ("image", "caption")


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  c.one_of("data.source", captions.SOURCES)
  c.one_of("model.loss", tuple(ranking.ERRORS))
  if config.batch_size < 2:
    c.add(
      "batch_size", "must be at least 2: others of a batch are the contrast"
    )
  if config.accumulate > 1:
    c.add("accumulate", "must be 1: all pairs of a batch are compared")
  if config.model.form == "cell":
    c.add("model.form", "a GRU has no form cell")
  c.within("model.features", 2)
  c.within("model.word_features", 1)
  c.within("model.margin", 0, 100, open_low=True)
  c.within("data.max_words", 1, 10_000)
  c.within("data.multiple", 1, 10_000)
  c.within("eval_images", 0)
  c.within("eval_folds", 1)
  c.within("eval_batch_size", 1)
  names = ranking.summary(ranking.ranks(np.zeros((1, CAPTIONS))))
  c.decided_by([f"validation/{name}" for name in names])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/order_embedding.py.

  Returns:
    The experiment; its evaluations give recalls in percent and ranks of both
    directions, as `ranking.summary` names them; for the test split at the end
    of a run alone, and there `fold_...` too, means over `eval_folds` parts.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.1, Figure 1, Table 2; Vendrov et al. 2016.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  data = load_data(config)
  folds, images = config.eval_folds, len(data.splits["test"].names)
  if images % folds:
    raise ConfigError(
      f"eval_folds={folds}: must divide the {images:,} images of the test split"
    )
  model = make_model(config, data)
  train_data = CaptionBatches(
    data.splits["train"].features,
    data.sentences["train"],
    batch_size=config.batch_size,
    seed=config.seed,
    fingerprint=data.fingerprint,
    normalize=config.data.normalize,
    multiple=config.data.multiple,
  )
  errors_of, margin = ranking.ERRORS[config.model.loss], config.model.margin

  def init(key, batch):
    return model.init(key, batch["image"], batch["words"], batch["length"])

  def loss(variables, batch, key):
    del key  # Nothing here is random.
    others = [name for name in variables if name != "params"]
    placed, changed = model.apply(
      variables,
      batch["image"],
      batch["words"],
      batch["length"],
      train=True,
      mutable=others,
    )
    errors = errors_of(*cast(Any, placed))
    metrics = {"right": errors.diagonal().mean(), "all": errors.mean()}
    return losses.contrastive_hinge(errors, margin), (changed, metrics)

  retrieval = Retrieval(config, model, data)
  return Experiment(
    init=init,
    loss=loss,
    train_data=train_data,
    evals={
      "retrieval": Eval(config.eval_every, retrieval.measure, ("validation",)),
      "test": Eval(
        config.eval_every, retrieval.measure, ("test",), of_best=True
      ),
    },
    data=data.description,
    model=model,
    assets={
      "vocabulary": list(data.vocabulary.words),
      "preprocessing": {
        "special": list(vocabulary.SPECIAL),
        "max_words": config.data.max_words,
        "normalize": config.data.normalize,
        "features": data.width,
      },
    },
  )


def load_data(config: config_lib.Config) -> Dataset:
  """The images and captions that `config` names."""
  c = config.data
  return captions.load(
    c.source, c.dir or None, features=c.features, max_words=c.max_words
  )


def make_model(config: config_lib.Config, data: Dataset) -> OrderEmbedding:
  """The model that `config` describes."""
  fields = dict(config.model)
  del fields["margin"]
  steps = vocabulary.rounded(config.data.max_words + 1, config.data.multiple)
  return OrderEmbedding(
    vocabulary=len(data.vocabulary),
    absolute=fields.pop("loss") == "order",
    norm=config.norm,
    t_max=steps,
    **fields,
  )


def answer(
  config: config_lib.Config,
  variables: Any,
  split: str,
  asked: Sequence[tuple[str, str]],
  top: int,
) -> str:
  """What a run finds in a split, as text.

  Args:
    config: of the run.
    variables: of the run.
    split: to look in.
    asked: ("image", its name) or ("caption", a text), each.
    top: how many are shown.

  Returns:
    Lines; an image's own captions are marked by *.

  Raises:
    ConfigError: there is no such image, or a caption has no word.
  """
  data = load_data(config)
  retrieval = Retrieval(config, make_model(config, data), data)
  lines = []
  for kind, value in asked:
    if kind == "image":
      lines.append(f"captions for {value} (* its own):")
      found = retrieval.captions_of(variables, split, value, top)
      lines += [
        f"  {error:9.5f} {'*' if own else ' '} {one_line(text)}"
        for error, text, own in found
      ]
    else:
      images, unknown = retrieval.images_of(variables, split, value, top)
      note = f" (unknown: {', '.join(unknown)})" if unknown else ""
      lines.append(f"images for {value!r}{note}, with their longest captions:")
      lines += [
        f"  {error:9.5f}   {one_line(name)}: {one_line(max(own, key=len))}"
        for error, name, own in images
      ]
  return "\n".join(lines)


class Retrieval:
  """Looks for images by captions, and for captions by images.

  Args:
    config: of the run.
    model: of the run.
    data: of the run.
  """

  def __init__(self, config, model: OrderEmbedding, data: Dataset):
    self._config, self._data = config, data
    self._images = jax.jit(
      lambda variables, image: model.apply(variables, image, method="images")
    )
    self._sentences = jax.jit(
      lambda variables, *of: model.apply(variables, *of, method="sentences")
    )
    self._errors = ranking.errors(config.model.loss)

  def measure(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """Recalls and ranks of a split, or of its first images."""
    del key
    n = len(self._data.splits[split].names)
    if split != "test":
      n = min(self._config.eval_images or n, n)
    rows = np.arange(CAPTIONS * n)
    errors = self._errors(
      self.images(variables, split, n),
      self.sentences(variables, self._data.sentences[split], rows),
    )
    found = ranking.summary(ranking.ranks(errors))
    if split == "test" and self._config.eval_folds > 1:
      parts = ranking.folds(errors, self._config.eval_folds)
      found |= {f"fold_{name}": value for name, value in parts.items()}
    return found

  def images(self, variables: Any, split: str, n: int) -> np.ndarray:
    """Places the first n images of a split, [n, h]."""
    features = self._data.splits[split].features
    placed = np.empty((n, self._config.model.features), np.float32)
    for rows, _ in batches.blocks(n, self._config.eval_batch_size):
      part = features[rows]
      if self._config.data.normalize:
        part = arrays.unit(part)
      placed[rows] = self._images(variables, part.astype(np.float32))
    return placed

  def sentences(
    self, variables: Any, sentences: Sentences, rows: np.ndarray
  ) -> np.ndarray:
    """Places some sentences, [n, h]; those of like length together."""
    lengths = sentences.lengths[rows]
    order = np.argsort(lengths, kind="stable")
    placed = np.empty((len(rows), self._config.model.features), np.float32)
    for block, _ in batches.blocks(len(rows), self._config.eval_batch_size):
      own = order[block]
      steps = vocabulary.rounded(lengths[own].max(), self._config.data.multiple)
      words = sentences.padded(rows[own], steps)
      placed[own] = self._sentences(variables, words, lengths[own])
    return placed

  def captions_of(
    self, variables: Any, split: str, image: str, top: int
  ) -> list[tuple[float, str, bool]]:
    """The captions of a split that fit an image best.

    Args:
      variables: of the run.
      split: to look in.
      image: its name.
      top: how many.

    Returns:
      (error, caption, whether it is the image's own), the best first.

    Raises:
      ConfigError: if the split has no such image.
    """
    held = self._data.splits[split]
    names = list(held.names)
    if image not in names:
      raise ConfigError(
        f"--image={image!r}: the {split} split has no such image; "
        f"{choices(image, names[:3])} and others"
      )
    i = names.index(image)
    found = self._errors(
      self.images(variables, split, len(names))[i : i + 1],
      self.sentences(
        variables, self._data.sentences[split], np.arange(len(held.captions))
      ),
    )[0]
    return [
      (float(found[j]), held.captions[j], j // CAPTIONS == i)
      for j in np.argsort(found, kind="stable")[:top].tolist()
    ]

  def images_of(
    self, variables: Any, split: str, caption: str, top: int
  ) -> tuple[list[tuple[float, str, list[str]]], list[str]]:
    """The images of a split that fit a caption best.

    Args:
      variables: of the run.
      split: to look in.
      caption: any text.
      top: how many.

    Returns:
      (error, image, its own captions), the best first; and the words of the
      caption that the model does not know.

    Raises:
      ConfigError: if the caption has no word, or more than are read.
    """
    words = vocabulary.words(caption)
    most = self._config.data.max_words
    if not 0 < len(words) <= most:
      raise ConfigError(
        f"--caption={caption[:60]!r}: has {len(words)} words; 1 to {most} are"
        " read"
      )
    own = Sentences.of([words], self._data.vocabulary)
    held = self._data.splits[split]
    found = self._errors(
      self.images(variables, split, len(held.names)),
      self.sentences(variables, own, np.arange(1)),
    )[:, 0]
    known = set(self._data.vocabulary.words)
    nearest = [
      (
        float(found[i]),
        held.names[i],
        held.captions[CAPTIONS * i : CAPTIONS * (i + 1)],
      )
      for i in np.argsort(found, kind="stable")[:top].tolist()
    ]
    return nearest, [word for word in words if word not in known]
