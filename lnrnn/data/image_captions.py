"""Images with five captions each: what is read, checked and batched.

The features of the images are computed beforehand; images themselves are not
read. Whatever the source, image i of a split has the captions 5 i to 5 i + 4.
"""

from collections.abc import Mapping
import functools
import sys
from typing import NamedTuple

import numpy as np

from lnrnn.arrays import unit
from lnrnn.data import batches, vocabulary
from lnrnn.data.vocabulary import Sentences, Vocabulary
from lnrnn.errors import ConfigError, DataError

CAPTIONS = 5  # Of each image; the authors' code assumes so too.
SPLITS = ("train", "validation", "test")
_BLOCK = 4096  # Rows that are looked at at once.


class Split(NamedTuple):
  """Some images and their captions.

  Attributes:
    names: [n] of the images.
    features: [n, f] floats, perhaps left on the disk.
    captions: [5 n] texts.
  """

  names: list[str]
  features: np.ndarray
  captions: list[str]


class Dataset(NamedTuple):
  """The splits, and what they are.

  Attributes:
    splits: {name: split}.
    sentences: {name: its encoded captions}.
    vocabulary: of the captions of training and validation.
    description: one line.
    fingerprint: 16 hexadecimal digits that name the content.
  """

  splits: Mapping[str, Split]
  sentences: Mapping[str, Sentences]
  vocabulary: Vocabulary
  description: str
  fingerprint: str

  @property
  def width(self) -> int:
    """Of the features."""
    return self.splits["train"].features.shape[1]


def dataset(
  splits: Mapping[str, Split],
  *,
  origin: str,
  verdict: str,
  max_words: int = 0,
  left_out: Mapping[str, int] | None = None,
) -> Dataset:
  """Checks splits and encodes their captions.

  The vocabulary is that of training and validation, without a cut-off, as in
  the authors' code; other words of the test captions count as unknown.

  Args:
    splits: {name: split}; the names are those of `SPLITS`.
    origin: of the data, for the description.
    verdict: whether it is the paper's.
    max_words: longer captions are cut; 0 keeps all.
    left_out: {what: how many} that the reader left out.

  Returns:
    The data.

  Raises:
    DataError: a split has no images, another number of captions than five for
      each, features that are not finite or of another width than others, a
      caption without a word, or an image that is in another split too.
  """
  for name, split in splits.items():
    _check(f"{origin}, split {name}", split)
  _check_names(origin, splits)
  widths = {name: split.features.shape[1] for name, split in splits.items()}
  if len(set(widths.values())) > 1:
    raise DataError(f"{origin}: features of several widths: {widths}")
  texts = {name: _words(origin, name, s) for name, s in splits.items()}
  left = dict(left_out or {})
  if max_words:
    long = sum(len(t) > max_words for ts in texts.values() for t in ts)
    left[f"captions cut to {max_words} words"] = long
    texts = {k: [t[:max_words] for t in ts] for k, ts in texts.items()}
  known = [t for name in splits if name != "test" for t in texts[name]]
  words = Vocabulary.of(known)
  sentences = {k: Sentences.of(ts, words) for k, ts in texts.items()}
  arrays = {}
  for name, split in splits.items():
    arrays |= {
      f"{name}/features": split.features,
      f"{name}/tokens": sentences[name].tokens,
      f"{name}/starts": sentences[name].starts,
    }
  counts = " / ".join(f"{len(s.names):,} {name}" for name, s in splits.items())
  width = widths["train"]
  description = (
    f"{origin}: {counts} images, features of {width}, {CAPTIONS} captions each,"
    f" {len(words):,} words ({verdict})"
  )
  for name, found in sentences.items():
    if found.unknown:
      total = int((found.tokens != vocabulary.END).sum())
      description += f"; {found.unknown:,} of {total:,} words of {name} unknown"
  if told := ", ".join(f"{n:,} {what}" for what, n in left.items() if n):
    description += f"; {told}"
  return Dataset(
    splits, sentences, words, description, batches.fingerprint(arrays)
  )


def _check(where: str, split: Split) -> None:
  n = len(split.names)
  features = split.features
  if not n:
    raise DataError(f"{where}: has no image")
  real = np.issubdtype(features.dtype, np.floating)
  if features.ndim != 2 or not features.shape[1] or not real:
    raise DataError(
      f"{where}: features are {features.dtype} {list(features.shape)};"
      " numbers with a fraction, a row an image, are needed"
    )
  if len(features) != n:
    raise DataError(
      f"{where}: {len(features):,} rows of features for {n:,} images"
    )
  if len(split.captions) != CAPTIONS * n:
    raise DataError(
      f"{where}: {len(split.captions):,} captions for {n:,} images;"
      f" {CAPTIONS} each are needed"
    )
  for first in range(0, n, _BLOCK):
    # As they will be used.
    with np.errstate(over="ignore"):
      block = features[first : first + _BLOCK].astype(np.float32)
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
      row = first + int(finite.argmin())
      raise DataError(
        f"{where}: the features of image {split.names[row]!r} (row {row}) are"
        " not all finite"
      )


def _check_names(origin: str, splits: Mapping[str, Split]) -> None:
  seen: dict[str, str] = {}
  for split, held in splits.items():
    for name in held.names:
      if name in seen:
        where = (
          f"{split} twice"
          if seen[name] == split
          else (f"{seen[name]} and in {split}")
        )
        raise DataError(f"{origin}: image {name!r} is in {where}")
      seen[name] = split


def _words(origin: str, name: str, split: Split) -> list[list[str]]:
  """The words of each caption."""
  found = [vocabulary.words(text) for text in split.captions]
  for i, words in enumerate(found):
    if not words:
      at, nth = divmod(i, CAPTIONS)
      raise DataError(
        f"{origin}, split {name}: caption {nth} of image"
        f" {split.names[at]!r} has no word: {split.captions[i][:60]!r}"
      )
  return found


class CaptionBatches:
  """Endless batches of images, each with one of its captions.

  Every epoch visits the images in a fresh random order and draws one caption
  of each; the incomplete last batch is dropped.

  Attributes:
    batch_size: b, images in a batch.
    steps_per_epoch: batches in one pass over the images.
    fingerprint: name of the content.

  Source: Vendrov et al.'s code, `datasource.py`.
  """

  def __init__(
    self,
    features: np.ndarray,
    sentences: Sentences,
    *,
    batch_size: int,
    seed: int,
    fingerprint: str,
    normalize: bool = True,
    multiple: int = 4,
  ):
    """Checks the sizes; nothing is copied.

    Args:
      features: [n, f].
      sentences: 5 n.
      batch_size: b, 2 to n.
      seed: whole number >= 0; with the step it decides the batch.
      fingerprint: name of the content.
      normalize: whether features are scaled to length 1.
      multiple: sentences are filled up to a multiple of so many words.

    Raises:
      ConfigError: the batch size is out of range.
    """
    n = len(features)
    if not 2 <= batch_size <= n:
      raise ConfigError(
        f"batch_size: {batch_size} is not allowed: 2 to {n}, the images at hand"
      )
    self.batch_size, self.fingerprint = batch_size, fingerprint
    self.steps_per_epoch = n // batch_size
    self._features, self._sentences = features, sentences
    self._lengths = sentences.lengths
    self._seed, self._normalize, self._multiple = seed, normalize, multiple
    # Two epochs, as reading ahead straddles their border.
    self._order = functools.lru_cache(maxsize=2)(self._drawn)

  def __len__(self) -> int:
    return sys.maxsize

  def __repr__(self) -> str:
    return (
      f"CaptionBatches(images={len(self._features)},"
      f" batch_size={self.batch_size}, seed={self._seed},"
      f" multiple={self._multiple}, fingerprint={self.fingerprint!r})"
    )

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of one step.

    Args:
      step: absolute step, from 0.

    Returns:
      "image" float32 [b, f]; "words" int32 [b, t], t of `shape`; "length"
      int32 [b].

    Raises:
      IndexError: the step is negative.
    """
    images, captions = self._rows(step)
    features = self._features[images]
    if self._normalize:
      features = unit(features)
    return {
      "image": features.astype(np.float32),
      "words": self._sentences.padded(captions, self.shape(step)),
      "length": self._lengths[captions],
    }

  def shape(self, step: int) -> int:
    """Steps of time of the batch, by which batches differ in shape."""
    longest = self._lengths[self._rows(step)[1]].max()
    return vocabulary.rounded(longest, self._multiple)

  def _rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and captions of one step, [b] each."""
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    epoch, index = divmod(step, self.steps_per_epoch)
    first = index * self.batch_size
    own = slice(first, first + self.batch_size)
    images, captions = self._order(epoch)
    return images[own], captions[own]

  def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    n = len(self._features)
    images = batches.shuffled(n, self._seed, epoch)
    # The raw stream is the same with every version of NumPy (NEP 19).
    bits = np.random.Philox(np.random.SeedSequence([self._seed, epoch, 1]))
    which = (bits.random_raw(n) % CAPTIONS).astype(np.int64)
    return images, CAPTIONS * images + which
