"""How related two sentences are, from their vectors.

scipy is needed.
"""

from collections.abc import Mapping
from typing import NamedTuple
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
import optax

CLASSES = 5  # Of SICK's scores, 1 to 5.
BATCH = 64  # Ours.
# Adam moves each weight by about its rate, and so a logit by up to the rate
# times the number of features. So the rate is this, divided by that number:
# 0.001, the usual one, at 512 features. Vectors of 50 to 2,400 numbers then
# need about as many epochs. Ours.
RATE = 0.5
# Ours. Near its best, the correlation on SICK's 500 trial pairs goes up and
# down by 0.003 from round to round, which five rounds outlast.
ROUND, PATIENCE, MAX_ROUNDS = 10, 5, 60


class Relatedness(NamedTuple):
  """How well the scores of test pairs are predicted.

  Attributes:
    pearson: correlation of predictions and scores; NaN if either is constant.
    spearman: rank correlation, likewise.
    mse: mean squared error.
    predictions: float64 [n] of the test pairs.
    trial_pearson: on the trial pairs, by which the epoch was chosen.
    epochs: after which the parameters were taken.
  """

  pearson: float
  spearman: float
  mse: float
  predictions: np.ndarray
  trial_pearson: float
  epochs: int


def soft_targets(scores: ArrayLike, k: int = CLASSES) -> np.ndarray:
  """Scores as distributions over the classes 1 to k, whose mean they are.

  Args:
    scores: [n], from 1 to k.
    k: classes.

  Returns:
    float64 [n, k]: 3.6 is 0.4 of class 3 and 0.6 of class 4.

  Raises:
    ValueError: a score is out of range.

  Source: Tai et al. 2015, section 4.2.
  """
  wide = np.asarray(scores, np.float64)
  if wide.ndim != 1 or not ((wide >= 1) & (wide <= k)).all():
    raise ValueError(f"scores {wide.shape}: [n] from 1 to {k} are needed")
  # A hat over each class, two wide.
  return np.maximum(0, 1 - np.abs(wide[:, None] - np.arange(1, k + 1)))


def pair_features(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """What tells how vectors are related, whichever comes first.

  Args:
    u: [n, h].
    v: [n, h].

  Returns:
    [n, 2 h]: |u - v| and u v.

  Source: Tai et al. 2015, equation 15.
  """
  return np.concatenate([np.abs(u - v), u * v], axis=1)


def relatedness(
  vectors: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
  *,
  seed: int = 0,
) -> Relatedness:
  """Predicts scores by a softmax regression on features of both vectors.

  It is trained by Adam against soft targets in rounds of epochs. It ends
  after `PATIENCE` rounds in which the correlation on the trial pairs is not
  better, and the parameters of the best round are kept. A prediction is the
  expected class. Of the test pairs nothing is used before.

  Args:
    vectors: {"train", "trial", "test": (u [n, h], v [n, h], scores [n])}.
    seed: of the order of the pairs.

  Returns:
    The numbers; the same ones for the same input on the same machine.

  Raises:
    ValueError: shapes do not fit, or a number is not finite.

  Source: Ba et al. 2016, section 6.3; authors' code, `eval_sick.py`. There,
  features are as they are; here each half is divided by the root of its mean
  square in the training pairs. For vectors of length 1 the products are far
  smaller than the differences, and would hardly be learned.
  """
  features, scores = {}, {}
  for part in ("train", "trial", "test"):
    u, v, score = (np.asarray(x) for x in vectors[part])
    if u.ndim != 2 or u.shape != v.shape or score.shape != u.shape[:1]:
      raise ValueError(
        f"{part}: u {u.shape}, v {v.shape}, scores {score.shape}: [n, h],"
        " [n, h] and [n] are needed"
      )
    features[part] = pair_features(*(x.astype(np.float32) for x in (u, v)))
    scores[part] = score.astype(np.float64)
    finite = all(np.isfinite(x).all() for x in (features[part], scores[part]))
    if not (finite and len(u)):
      raise ValueError(f"{part}: vectors and scores, all finite, are needed")
  scale = _halves(features["train"])
  for x in features.values():
    x /= scale
  x = {part: jnp.asarray(features.pop(part)) for part in list(features)}
  targets = jnp.asarray(soft_targets(scores["train"]), jnp.float32)

  width = x["train"].shape[1]
  params = {
    "w": jnp.zeros((width, CLASSES), jnp.float32),
    "b": jnp.zeros(CLASSES, jnp.float32),
  }
  state = (params, _adam(width).init(params))
  key = jax.random.key(seed)
  best, kept, since = -np.inf, (params, 0), 0
  for i in range(MAX_ROUNDS):
    state = _round(state, jax.random.fold_in(key, i), x["train"], targets)
    found = _pearson(_predictions(state[0], x["trial"]), scores["trial"])
    if found > best:
      best, kept, since = found, (state[0], ROUND * (i + 1)), 0
    else:
      since += 1
      if since == PATIENCE:
        break
  params, epochs = kept
  predictions = _predictions(params, x["test"])
  return Relatedness(
    pearson=_pearson(predictions, scores["test"]),
    spearman=_spearman(predictions, scores["test"]),
    mse=float(np.mean((predictions - scores["test"]) ** 2)),
    predictions=predictions,
    trial_pearson=best if epochs else float("nan"),
    epochs=epochs,
  )


def _halves(features: np.ndarray) -> np.ndarray:
  """[2 h] what the two kinds of features are divided by."""
  size = np.array(
    [
      np.sqrt(np.mean(half**2, dtype=np.float64))
      for half in np.split(features, 2, axis=1)
    ]
  )
  size = np.where(size > 0, size, 1).astype(np.float32)
  return np.repeat(size, features.shape[1] // 2)


def _adam(width: int) -> optax.GradientTransformation:
  return optax.adam(RATE / width)


@jax.jit
def _round(state, key: jax.Array, x: jax.Array, targets: jax.Array):
  """Some epochs, each over the pairs in another order.

  Those that do not fill a batch are left out, others in each epoch.
  """
  n, width = x.shape
  size = min(BATCH, n)
  optimizer = _adam(width)

  def loss(params, rows):
    logits = x[rows] @ params["w"] + params["b"]
    return optax.softmax_cross_entropy(logits, targets[rows]).mean()

  def update(state, rows):
    params, moments = state
    updates, moments = optimizer.update(jax.grad(loss)(params, rows), moments)
    return (optax.apply_updates(params, updates), moments), None

  def epoch(state, key):
    order = jax.random.permutation(key, n)[: n // size * size]
    return jax.lax.scan(update, state, order.reshape(-1, size))

  return jax.lax.scan(epoch, state, jax.random.split(key, ROUND))[0]


@jax.jit
def _expected(params, x: jax.Array) -> jax.Array:
  parts = jax.nn.softmax(x @ params["w"] + params["b"])
  return parts @ jnp.arange(1, CLASSES + 1, dtype=parts.dtype)


def _predictions(params, x: jax.Array) -> np.ndarray:
  return np.asarray(_expected(params, x), np.float64)


def _constant(*rows: np.ndarray) -> bool:
  return any(not np.isfinite(r).all() or np.ptp(r) == 0 for r in rows)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
  from scipy import stats

  if len(a) < 2 or _constant(a, b):
    return float("nan")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", stats.NearConstantInputWarning)
    return float(stats.pearsonr(a, b)[0])  # type: ignore


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
  from scipy import stats

  if len(a) < 2 or _constant(a, b):
    return float("nan")
  return float(stats.spearmanr(a, b)[0])  # type: ignore
