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
