"""Losses: pure functions of model outputs and targets."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Negative log-likelihood of a softmax, precise however small it is.

  Computed as log(1 + sum_{j != y} exp(a_j - a_y)). The usual log-softmax
  subtracts two numbers near a_y and so cannot resolve values below about 1e-7
  in float32, which is where the paper's curves end.

  Args:
    logits: [..., k] scores a, any float dtype.
    labels: [...] integer classes y in [0, k).

  Returns:
    [...] nats, float32 or wider; NaN where a label is out of range.

  Raises:
    ValueError: if the shapes do not fit.

  Source: Ba et al. 2016, Figure 6 (the axis reaches 1e-7).
  """
  if labels.shape != logits.shape[:-1]:
    raise ValueError(
      f"labels {labels.shape} must have the shape of logits {logits.shape}"
      " without the last axis"
    )
  a = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  right = jax.nn.one_hot(labels, a.shape[-1], dtype=bool)
  a_y = jnp.where(right, a, 0).sum(axis=-1, keepdims=True)
  wrong = jnp.where(right, -jnp.inf, a - a_y)
  nats = jax.nn.softplus(jax.nn.logsumexp(wrong, axis=-1))
  return jnp.where(right.any(axis=-1), nats, jnp.nan)


def order_violation(image: jax.Array, caption: jax.Array) -> jax.Array:
  """How far a caption is from being more general than an image.

  Args:
    image: [..., h], not negative.
    caption: [..., h], not negative.

  Returns:
    [...] sum over h of max(0, caption - image)^2; 0 where no coordinate of the
    caption is above the image's. The two are not exchangeable.

  Source: Vendrov et al. 2016, eq. (2); Ba et al. 2016, section 6.1.
  """
  return jnp.square(jnp.maximum(caption - image, 0)).sum(axis=-1)


def order_violations(image: jax.Array, caption: jax.Array) -> jax.Array:
  """`order_violation` of every image [n, h] and caption [m, h], as [n, m].

  Neither way needs [n, m, h]: one image at a time forwards, and again on the
  way back.
  """

  @jax.checkpoint
  def row(one):
    return order_violation(one, caption)

  return jax.lax.map(row, image)


def cosine_distances(image: jax.Array, caption: jax.Array) -> jax.Array:
  """Minus the cosine of every image [n, h] and caption [m, h], as [n, m].

  Args:
    image: of length 1.
    caption: of length 1.
  """
  return -(image @ caption.T)


def contrastive_hinge(errors: jax.Array, margin: float) -> jax.Array:
  """Asks each pair to be better than all wrong ones, by a margin.

  Args:
    errors: [b, b], of image i and caption j; those of one index belong
      together. The less, the better.
    margin: in units of the errors.

  Returns:
    [] sum of max(0, margin - wrong + right) over the wrong captions of each
    image and the wrong images of each caption.

  Raises:
    ValueError: if the matrix is not square.

  Source: Vendrov et al. 2016, eq. (7), with errors for minus the scores.
  """
  b = len(errors)
  if errors.shape != (b, b):
    raise ValueError(f"errors {errors.shape} must be square")
  right = jnp.diagonal(errors)
  wrong = ~jnp.eye(b, dtype=bool)
  captions = jnp.maximum(margin - errors + right[:, None], 0)
  images = jnp.maximum(margin - errors + right[None, :], 0)
  return jnp.where(wrong, captions + images, 0).sum()
