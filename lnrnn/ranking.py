"""Which of many captions fits an image, and which image a caption."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from lnrnn import losses
from lnrnn.errors import choices

# How images [n, h] and captions [m, h] are compared: errors [n, m].
ERRORS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "order": losses.order_violations,
  "cosine": losses.cosine_distances,
}
_ROWS = 250  # Images that are compared at once.
_COLUMNS = 2500  # Captions likewise: 2.5 MB of errors, 10 MB of captions.


class Ranks(NamedTuple):
  """Where the right one is among all, 1 being the first.

  Attributes:
    image: [m] of each caption's image among all images.
    caption: [n] of the best-ranked caption of each image among all captions.
  """

  image: np.ndarray
  caption: np.ndarray


def errors(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """How well every image fits every caption, block by block.

  Args:
    kind: one of `ERRORS`.

  Returns:
    (images [n, h], captions [m, h]) -> float32 [n, m] on the host, the less
    the better. Beside it, memory is needed for one block at a time.

  Raises:
    ValueError: for an unknown kind.
  """
  if kind not in ERRORS:
    raise ValueError(f"kind={kind!r}: {choices(kind, tuple(ERRORS))}")
  block = jax.jit(ERRORS[kind])

  def whole(image: np.ndarray, caption: np.ndarray) -> np.ndarray:
    n, m = len(image), len(caption)
    found = np.empty((n, m), np.float32)
    rows, columns = min(_ROWS, n), min(_COLUMNS, m)
    # The last block overlaps the one before, so that all are of one shape.
    for i in {*range(0, n - rows, rows), n - rows}:
      for j in {*range(0, m - columns, columns), m - columns}:
        part = block(image[i : i + rows], caption[j : j + columns])
        found[i : i + rows, j : j + columns] = part
    return found

  return whole


def ranks(errors: np.ndarray) -> Ranks:
  """Ranks of the right ones; those that tie with them count half.

  Args:
    errors: [n, k n]; captions k i to k i + k - 1 are those of image i. The
      less, the better.

  Returns:
    The ranks, whole or half numbers; NaN, all of them, if an error is not
    finite, as no order is known then.

  Raises:
    ValueError: if there are not as many captions for each image.

  Source: Ba et al. 2016, section 6.1; Vendrov et al.'s code, `evaluation.py`,
  where an order of ties is left to chance.
  """
  n, m = errors.shape
  if not n or m % n:
    raise ValueError(f"errors {errors.shape}: [n, k n] are needed")
  k = m // n
  image, caption = np.empty(m), np.empty(n)
  # Image by image: what is compared needs one row of memory.
  own = errors.reshape(n, n, k)[np.arange(n), np.arange(n)]  # [n, k]
  if not np.isfinite(errors).all():
    return Ranks(image * np.nan, caption * np.nan)
  better, equal = np.zeros(m), np.zeros(m)
  target = own.reshape(-1)
  for i, row in enumerate(errors):
    better += row < target
    equal += row == target
    best = own[i].min()
    others = np.delete(row, np.s_[k * i : k * (i + 1)])
    caption[i] = 1 + (others < best).sum() + (others == best).sum() / 2
  image = 1 + better + (equal - 1) / 2  # Each ties with itself.
  return Ranks(image, caption)


def recalls(ranks: np.ndarray, *, prefix: str) -> dict[str, float]:
  """Numbers of one direction.

  Args:
    ranks: [n].
    prefix: of the names.

  Returns:
    `r1`, `r5` and `r10`, in percent, the share that is among the first so
    many; `median_rank` and `mean_rank`.

  Source: Ba et al. 2016, Table 2.
  """
  n, unknown = len(ranks), np.isnan(ranks).any()
  found = {
    f"{prefix}_r{k}": np.nan if unknown else float(100 * (ranks <= k).sum() / n)
    for k in (1, 5, 10)
  }
  return found | {
    f"{prefix}_median_rank": float(np.median(ranks)),
    f"{prefix}_mean_rank": float(np.mean(ranks)),
  }


def summary(ranks: Ranks) -> dict[str, float]:
  """The numbers of both directions, and sums of recalls.

  Args:
    ranks: of `ranks`.

  Returns:
    `recalls` as "image_..." (an image for a caption) and "caption_..." (a
    caption for an image); "recall_sum" of the six recalls, and
    "image_recall_sum" of three, by which the authors' code saves.
  """
  found = recalls(ranks.image, prefix="image")
  found |= recalls(ranks.caption, prefix="caption")
  sums = {
    side: sum(found[f"{side}_r{k}"] for k in (1, 5, 10))
    for side in ("image", "caption")
  }
  return found | {
    "recall_sum": sum(sums.values()),
    "image_recall_sum": sums["image"],
  }


def folds(errors: np.ndarray, count: int) -> dict[str, float]:
  """Means over equal parts of the images with their captions.

  Args:
    errors: [n, k n].
    count: of parts; divides n.

  Returns:
    `summary` of each part by itself, averaged.

  Raises:
    ValueError: if the parts are not equal.

  Source: Ba et al. 2016, section 6.1: 5 parts of 1,000 images.
  """
  n, m = errors.shape
  if n % count or m % n:
    raise ValueError(f"{n} images are not {count} equal parts")
  step, k = n // count, m // n
  parts = [
    summary(ranks(errors[i : i + step, k * i : k * (i + step)]))
    for i in range(0, n, step)
  ]
  return {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}
