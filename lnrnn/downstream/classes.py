"""Classes of sentences, from their vectors; scikit-learn is needed."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple
import warnings

import numpy as np
from numpy.typing import ArrayLike

from lnrnn.errors import choices

How = Literal["nested", "split", "fixed"]

FOLDS = 10
CS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # The authors' code.
# Ten times as strict as scikit-learn, whose value is for features of about 1.
# In a vector of length 1 with 2,400 numbers they are 0.02, and gradients are as
# small: with it, training ends so early that any C gives the same accuracy.
TOLERANCE = 1e-5
MAX_ITERATIONS = 3000


class Classified(NamedTuple):
  """How well the classes of sentences are predicted.

  Attributes:
    accuracy: the mean over the folds.
    fold_accuracies: float64 [10].
    correct: bool [n], of each case in the fold where it was tested.
    cs: float64 [10] the C of each fold.
    unconverged: how many trainings, those to choose C included, ended before
      they had converged.
  """

  accuracy: float
  fold_accuracies: np.ndarray
  correct: np.ndarray
  cs: np.ndarray
  unconverged: int


def folds(
  labels: ArrayLike, n: int = FOLDS, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Parts of shuffled cases, in each of which classes are as frequent.

  Args:
    labels: [m].
    n: parts.
    seed: of the shuffling.

  Returns:
    n times (training rows, test rows), each row being once among the latter.

  Raises:
    ValueError: a class has fewer than n cases.
  """
  from sklearn.model_selection import StratifiedKFold

  y = _labels(labels, n)
  parts = StratifiedKFold(n, shuffle=True, random_state=seed)
  return list(parts.split(np.zeros((len(y), 1)), y))


def classification(
  x: np.ndarray,
  y: ArrayLike,
  *,
  cs: Sequence[float] = CS,
  how: How = "nested",
  inner_folds: int = 10,
  fixed: Sequence[float] | np.ndarray | None = None,
  seed: int = 0,
) -> Classified:
  """Cross-validates a logistic regression over ten folds.

  How strongly a fold's weights are held small is chosen within its training
  part; of equals, the first C is taken.

  Args:
    x: [n, h] vectors, float32 or float64; they are used as they are.
    y: [n] labels, two or more.
    cs: the C to choose from.
    how: "nested" chooses C by a cross-validation within the training part,
      as in the paper; "split" by one tenth of it, in a tenth of the time;
      "fixed" takes it from `fixed`.
    inner_folds: of "nested".
    fixed: [10] C of each fold, as an earlier call has returned them in `cs`.
    seed: of the folds, the outer and the inner ones.

  Raises:
    ValueError: arguments do not fit, or a vector is not finite.

  Source: Ba et al. 2016, section 6.3; authors' code, `eval_classification.py`.
  """
  if how not in ("nested", "split", "fixed"):
    raise ValueError(
      f"how={how!r}: {choices(how, ('nested', 'split', 'fixed'))}"
    )
  if (how == "fixed") != (fixed is not None):
    raise ValueError(f"how={how!r}: `fixed` is for how='fixed', which needs it")
  if fixed is not None and len(fixed) != FOLDS:
    raise ValueError(
      f"fixed has {len(fixed)} values; one of each fold is needed"
    )
  x, y = np.asarray(x), _labels(y, FOLDS)
  if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
    raise ValueError(
      f"x {x.shape} with {len(y)} labels: [n, h], all finite, is needed"
    )
  correct = np.zeros(len(y), bool)
  accuracies, chosen, unconverged = [], [], 0
  for k, (train, test) in enumerate(folds(y, FOLDS, seed)):
    if fixed is not None:
      c = float(fixed[k])
    else:
      parts = _inner(y[train], how, inner_folds, seed)
      c, missed = _choose(x[train], y[train], parts, cs)
      unconverged += missed
    predict, missed = _fit(x[train], y[train], c)
    unconverged += missed
    correct[test] = predict(x[test]) == y[test]
    accuracies.append(correct[test].mean())
    chosen.append(c)
  rows = np.array(accuracies)
  return Classified(
    float(rows.mean()), rows, correct, np.array(chosen, float), unconverged
  )


def _labels(labels: ArrayLike, n: int) -> np.ndarray:
  y = np.asarray(labels)
  if y.ndim != 1 or not y.size:
    raise ValueError(f"labels {y.shape}: [n] are needed")
  names, counts = np.unique(y, return_counts=True)
  if len(names) < 2 or counts.min() < n:
    raise ValueError(
      f"{len(names)} classes, the smallest of {counts.min()} cases: two or"
      f" more classes of {n} or more are needed"
    )
  return y


def _inner(
  y: np.ndarray, how: str, count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """(training rows, rows to choose by) within the training part of a fold."""
  if how == "nested":
    return folds(y, count, seed)
  from sklearn.model_selection import StratifiedShuffleSplit

  split = StratifiedShuffleSplit(1, test_size=0.1, random_state=seed)
  return list(split.split(np.zeros((len(y), 1)), y))


def _choose(
  x: np.ndarray,
  y: np.ndarray,
  parts: Sequence[tuple[np.ndarray, np.ndarray]],
  cs: Sequence[float],
) -> tuple[float, int]:
  """The C of the best mean accuracy, and how many trainings missed."""
  accuracies, unconverged = np.empty((len(cs), len(parts))), 0
  for j, (train, held) in enumerate(parts):
    inner, outer = x[train], x[held]
    for i, c in enumerate(cs):
      predict, missed = _fit(inner, y[train], c)
      accuracies[i, j] = (predict(outer) == y[held]).mean()
      unconverged += missed
  return float(cs[int(accuracies.mean(axis=1).argmax())]), unconverged


def _fit(
  x: np.ndarray, y: np.ndarray, c: float
) -> tuple[Callable[[np.ndarray], np.ndarray], bool]:
  """A trained model's predictions, and whether it has not converged."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression

  model = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always", ConvergenceWarning)
    model.fit(x, y)
  missed = [w for w in told if issubclass(w.category, ConvergenceWarning)]
  for w in told:
    if w not in missed:
      warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
  return lambda x: np.asarray(model.predict(x)), bool(missed)
