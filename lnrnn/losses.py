"""Losses: pure functions of model outputs and targets."""

import functools
from typing import Any

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


def softmax_nats(
  h: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  live: jax.Array,
  *,
  chunk: int = 512,
  groups: int = 1,
) -> jax.Array:
  """Negative log-likelihood of words under a softmax that is never whole.

  The rows that count are taken `chunk` by `chunk`, so that no [n, v] logits
  are needed, and padding costs nothing. Under differentiation each chunk's
  gradients are made while its logits are there: three products with the
  kernel, none of them twice.

  Args:
    h: [b, t, d] states.
    kernel: [d, v].
    bias: [v].
    targets: [b, t] integer words in [0, v); any where they do not count.
    live: [b, t] booleans, which count.
    chunk: rows of logits at once, for each group.
    groups: equal parts of the batch whose rows are taken apart from each
      other; as many as devices, so that rows stay where they are.

  Returns:
    [] sum of -log p over the rows that count, in nats, float32 or wider.

  Raises:
    ValueError: if the shapes do not fit.

  Source: Kiros et al. 2015, section 2.1; Ba et al. 2016, section 6.3. The
  authors' code adds 1e-8 to p; this does not.
  """
  h, kernel, bias = map(jnp.asarray, (h, kernel, bias))
  targets, live = jnp.asarray(targets), jnp.asarray(live)
  b, t, d = h.shape
  if targets.shape != (b, t) or live.shape != (b, t) or b % groups:
    raise ValueError(
      f"targets {targets.shape} and live {live.shape} must be {(b, t)}, and"
      f" groups={groups} divide {b}"
    )
  rows = (groups, b // groups * t)
  wide = jnp.promote_types(h.dtype, jnp.float32)
  return _chunked_nats(
    h.reshape(*rows, d).astype(wide),
    kernel.astype(wide),
    bias.astype(wide),
    targets.reshape(rows),
    live.reshape(rows),
    min(chunk, rows[1]),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _chunked_nats(h, kernel, bias, targets, live, chunk) -> Any:
  """[g, n, d] states, [g, n] targets; see `softmax_nats`."""
  nats, _ = _chunks(h, kernel, bias, targets, live, chunk, gradients=False)
  return nats


def _chunked_forward(h, kernel, bias, targets, live, chunk):
  return _chunks(h, kernel, bias, targets, live, chunk, gradients=True)


def _chunked_backward(chunk, gradients, cotangent):
  del chunk
  return *(cotangent * g for g in gradients), None, None


_chunked_nats.defvjp(_chunked_forward, _chunked_backward)


def _chunks(h, kernel, bias, targets, live, chunk, *, gradients: bool):
  """The sum of the nats, and its gradients by h, kernel and bias."""
  g, n, _ = h.shape
  filled = -(-n // chunk) * chunk
  # Those that count first; what fills the last chunk counts no more.
  order = jnp.argsort(~live, axis=1, stable=True)
  order = jnp.pad(order, ((0, 0), (0, filled - n)))
  counted = jnp.arange(filled) < live.sum(axis=1, keepdims=True)
  group = jnp.arange(g)[:, None]

  def body(i, carried):
    nats, slopes = carried
    cut = lambda a: jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk, axis=1)
    rows, on = cut(order), cut(counted)
    x, y = h[group, rows], targets[group, rows]
    a = jnp.einsum("gnd,dv->gnv", x, kernel) + bias
    log_z = jax.nn.logsumexp(a, axis=-1)
    a_y = jnp.take_along_axis(a, y[..., None], axis=-1)[..., 0]
    nats += jnp.where(on, log_z - a_y, 0).sum()
    if not gradients:
      return nats, slopes
    p = jnp.exp(a - log_z[..., None])
    of_a = (p - (jnp.arange(a.shape[-1]) == y[..., None])) * on[..., None]
    by_h, by_kernel, by_bias = slopes
    by_h = by_h.at[group, rows].add(jnp.einsum("gnv,dv->gnd", of_a, kernel))
    by_kernel += jnp.einsum("gnd,gnv->gdv", x, of_a)
    return nats, (by_h, by_kernel, by_bias + of_a.sum(axis=1))

  slopes: Any = ()
  if gradients:
    # A sum for each group: devices meet once, after the last chunk.
    slopes = tuple(
      jnp.zeros(shape, h.dtype)
      for shape in (h.shape, (g, *kernel.shape), (g, *bias.shape))
    )
  chunks = -(-counted.sum(axis=1).max() // chunk)
  start = jnp.zeros((), h.dtype), slopes
  nats, slopes = jax.lax.fori_loop(0, chunks, body, start)
  if gradients:
    by_h, by_kernel, by_bias = slopes
    slopes = by_h, by_kernel.sum(axis=0), by_bias.sum(axis=0)
  return nats, slopes


def sampled_softmax_nats(
  h: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  live: jax.Array,
  key: jax.Array,
  *,
  samples: int,
) -> jax.Array:
  """An estimate of `softmax_nats` from a few words, the same for all rows.

  Words are drawn with replacement, word i with probability
  log((i + 2) / (i + 1)) / log(v + 1), as suits words in the order of their
  frequency. The sum of exp over all words but the target is estimated by the
  drawn ones, each over how often it is expected to be drawn.

  Args:
    h: [b, t, d] states.
    kernel: [d, v].
    bias: [v].
    targets: [b, t] integer words in [0, v).
    live: [b, t] booleans, which count.
    key: of the draw.
    samples: words drawn.

  Returns:
    [] sum over the rows that count, in nats; too low on average, and the true
    sum as `samples` grows.

  Source: Jean et al. 2015, section 3; the distribution is our choice.
  """
  h, kernel, bias = map(jnp.asarray, (h, kernel, bias))
  v = kernel.shape[1]
  wide = jnp.promote_types(h.dtype, jnp.float32)
  h, kernel, bias = (a.astype(wide) for a in (h, kernel, bias))
  u = jax.random.uniform(key, (samples,), wide)
  drawn = jnp.expm1(u * jnp.log(v + 1.0)).astype(jnp.int32).clip(0, v - 1)

  def log_expected(word):
    rank = word.astype(wide)
    return jnp.log(samples * jnp.log1p(1 / (rank + 1)) / jnp.log(v + 1.0))

  others = h @ kernel[:, drawn] + bias[drawn] - log_expected(drawn)
  others = jnp.where(drawn == targets[..., None], -jnp.inf, others)
  own = jnp.einsum("btd,dbt->bt", h, kernel[:, targets]) + bias[targets]
  both = jnp.concatenate([own[..., None], others], axis=-1)
  nats = jax.nn.logsumexp(both, axis=-1) - own
  return jnp.where(live, nats, 0).sum()
