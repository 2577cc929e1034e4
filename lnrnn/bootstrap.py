"""How far two systems are apart on the same test cases, by resampling them."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lnrnn.errors import choices

Measure = Literal["pearson", "spearman", "mse"]

_BLOCK = 1 << 21  # Numbers of a block of draws: 16 MB.


class Gap(NamedTuple):
  """By how much one system is above another on the same cases.

  Attributes:
    gap: on the cases as they are.
    low: end of the bootstrap's interval.
    high: the other end.
  """

  gap: float
  low: float
  high: float


def paired_bootstrap(
  statistic: Callable[[np.ndarray], np.ndarray],
  n: int,
  *,
  draws: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
) -> Gap:
  """The percentile interval of a statistic over draws of the test cases.

  It tells how sure a difference is for these two models on other cases; how
  it would be for models of other seeds, it does not tell.

  Args:
    statistic: (float64 [k, n] how often each case was drawn, n in each row)
      -> [k] values.
    n: cases.
    draws: of n cases with replacement.
    seed: of the draws.
    level: the part of draws within the interval.

  Returns:
    The statistic of all cases taken once, and the interval; NaN where a draw
    has no value.

  Raises:
    ValueError: there are no cases or draws, or `level` is not in (0, 1).
  """
  if n < 1 or draws < 1 or not 0 < level < 1:
    raise ValueError(
      f"n={n}, draws={draws}, level={level}: cases, draws and a level between"
      " 0 and 1 are needed"
    )
  rng = np.random.default_rng(seed)
  found = np.empty(draws)
  step = max(1, _BLOCK // n)
  for i in range(0, draws, step):
    k = min(step, draws - i)
    cases = rng.integers(n, size=(k, n)) + n * np.arange(k)[:, None]
    counts = np.bincount(cases.ravel(), minlength=k * n).reshape(k, n)
    found[i : i + k] = statistic(counts.astype(np.float64))
  (whole,) = statistic(np.ones((1, n)))
  if np.isnan(found).any():
    return Gap(float(whole), float("nan"), float("nan"))
  low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
  return Gap(float(whole), float(low), float(high))


def paired_gap(
  correct_a: ArrayLike,
  correct_b: ArrayLike,
  *,
  draws: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
) -> Gap:
  """The gap of two accuracies, a's minus b's.

  Args:
    correct_a: bool [n], as `downstream.Classified.correct`.
    correct_b: of the same cases.
    draws: as of `paired_bootstrap`.
    seed: likewise.
    level: likewise.

  Raises:
    ValueError: shapes do not fit.
  """
  a, b = _same_cases(correct_a, correct_b)
  return paired_bootstrap(
    _mean_of(a - b), len(a), draws=draws, seed=seed, level=level
  )


def relatedness_gap(
  predictions_a: ArrayLike,
  predictions_b: ArrayLike,
  scores: ArrayLike,
  measure: Measure,
  *,
  draws: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
) -> Gap:
  """The gap of two systems on the same pairs, a's number minus b's.

  Args:
    predictions_a: [n], as
      `downstream.Relatedness.predictions`.
    predictions_b: of the same pairs.
    scores: [n] of people.
    measure: "pearson", "spearman" or "mse", where less is better.
    draws: as of `paired_bootstrap`.
    seed: likewise.
    level: likewise.

  Returns:
    The gap; NaN where a correlation is with a constant, or a prediction is
    not finite.

  Raises:
    ValueError: shapes do not fit, or there is no such measure.
  """
  a, b, y = _same_cases(predictions_a, predictions_b, scores)
  if measure not in ("pearson", "spearman", "mse"):
    allowed = choices(measure, ("pearson", "spearman", "mse"))
    raise ValueError(f"measure={measure!r}: {allowed}")
  if not all(np.isfinite(row).all() for row in (a, b, y)):
    return Gap(*3 * [float("nan")])  # NaN would have ranks.
  if measure == "mse":
    statistic = _mean_of((a - y) ** 2 - (b - y) ** 2)
  elif measure == "pearson":
    values = [_centred(row) for row in (a, b, y)]
    statistic = lambda counts: _gaps(values, counts)
  else:
    ranks = [_ranks(row) for row in (a, b, y)]
    statistic = lambda counts: _gaps(
      [_centred(of(counts)) for of in ranks], counts
    )
  return paired_bootstrap(
    statistic, len(a), draws=draws, seed=seed, level=level
  )


def _same_cases(*rows: ArrayLike) -> list[np.ndarray]:
  found = [np.asarray(row, np.float64) for row in rows]
  shapes = [row.shape for row in found]
  if found[0].ndim != 1 or len(set(shapes)) > 1:
    raise ValueError(f"shapes {shapes}: [n] of the same cases are needed")
  return found


def _mean_of(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  return lambda counts: counts @ values / len(values)


def _centred(values: np.ndarray) -> np.ndarray:
  # Else the difference of large sums below would be of little precision.
  return values - values.mean(axis=-1, keepdims=True)


def _gaps(values: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
  a, b, y = values
  return _correlations(a, y, counts) - _correlations(b, y, counts)


def _correlations(
  a: np.ndarray, b: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  """[k] Pearson's, of values [n] or [k, n] taken so many times [k, n]."""
  n = counts.shape[1]
  mean = lambda values: np.einsum("...n,...n->...", counts, values) / n
  ma, mb = mean(a), mean(b)
  var_a, var_b = mean(a * a) - ma**2, mean(b * b) - mb**2
  # Where all that was drawn is equal, what is left is rounding.
  known = (var_a > _tiny(a)) & (var_b > _tiny(b))
  scale = np.sqrt(np.where(known, var_a * var_b, 1))
  return np.where(known, (mean(a * b) - ma * mb) / scale, np.nan)


def _tiny(values: np.ndarray) -> np.ndarray:
  return 1e-14 * (values * values).max(axis=-1)


def _ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """Counts [k, n] -> [k, n] the ranks of values [n] among those drawn.

  Equals have the mean of their ranks. It sorts once, not once a draw.
  """
  order = np.argsort(values, kind="stable")
  ordered = values[order]
  first = np.searchsorted(ordered, ordered, "left")
  last = np.searchsorted(ordered, ordered, "right")
  place = np.argsort(order)

  def ranks(counts: np.ndarray) -> np.ndarray:
    total = np.zeros((len(counts), len(order) + 1))
    np.cumsum(counts[:, order], axis=1, out=total[:, 1:])
    return ((total[:, first] + total[:, last] + 1) / 2)[:, place]

  return ranks
