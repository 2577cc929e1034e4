"""Images and sentences in one space, in which sentences stand above images."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn.linen_cells import GRUCell
from lnrnn.rnn import RNN


class OrderEmbedding(nn.Module):
  """A linear map for images, a GRU for sentences.

  Attributes:
    vocabulary: v, numbers of words.
    features: h, width of the GRU and of the common space.
    word_features: d, width of the word embeddings.
    absolute: whether the absolute value is taken of both, which the order
      needs and the symmetric baseline has not.
    norm: one of `norms.NAMES`, in the GRU.
    form: where it stands, one of `cells.FORMS`.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    t_max: longest training sentence, in steps; batch norm needs it.
    bn_momentum: weight of the past in batch norm's averages.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.

  Source: Vendrov et al. 2016, section 3.2; Ba et al. 2016, section 6.1.
  """

  vocabulary: int
  features: int = 1024
  word_features: int = 300
  absolute: bool = True
  norm: str = "layer"
  form: str = "separate"
  eps: float = 1e-5
  gain_init: float | None = None
  t_max: int | None = None
  bn_momentum: float = 0.99
  backward: str = "fast"
  remat_steps: int = 0

  def setup(self):
    """Declares the parts."""
    gain = self.gain_init
    self.encoder = RNN(
      GRUCell(
        self.features,
        norm=self.norm,
        form=self.form,
        eps=self.eps,
        gain_init=None if gain is None else nn.initializers.constant(gain),
      ),
      return_carry=True,
      time_major=True,
      t_max=self.t_max,
      bn_momentum=self.bn_momentum,
      backward=self.backward,
      remat_steps=self.remat_steps,
    )
    # Authors' code: uniform in +-0.1.
    self.embeddings = self.param(
      "embeddings", _uniform, (self.vocabulary, self.word_features)
    )
    self.image_map = nn.Dense(
      self.features, kernel_init=nn.initializers.glorot_uniform()
    )

  def __call__(
    self,
    image: jax.Array,
    words: jax.Array,
    lengths: jax.Array,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array]:
    """Places images and sentences.

    Args:
      image: [b, f] features of images.
      words: [b, t] numbers of words.
      lengths: [b] how many of them count.
      train: batch norm normalises by the minibatch.

    Returns:
      Images and sentences, [b, h] each.
    """
    return self.images(image), self.sentences(words, lengths, train=train)

  def images(self, image: jax.Array) -> jax.Array:
    """Places images: [b, f] features to [b, h]."""
    return self._placed(self.image_map(image))

  def sentences(
    self, words: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> jax.Array:
    """Places sentences: [b, t] numbers of words to [b, h]."""
    # Time first: so the embeddings are gathered in the order of the scan.
    x = self.embeddings[words.T]
    start = jnp.zeros((len(lengths), self.features), x.dtype)
    last, _ = self.encoder(
      x, initial_carry=start, seq_lengths=lengths, train=train
    )
    return self._placed(last)

  def _placed(self, v: jax.Array) -> jax.Array:
    v = l2_normalised(v)
    return jnp.abs(v) if self.absolute else v


def l2_normalised(v: jax.Array) -> jax.Array:
  """Vectors [..., h] of length 1; zero, and its gradient, stays zero.

  Source: Vendrov et al. 2016, section 3.2; no epsilon, as in their code.
  """
  wide = v.astype(jnp.promote_types(v.dtype, jnp.float32))
  # By the largest first: the squares of very small numbers would be zero.
  largest = jax.lax.stop_gradient(jnp.abs(wide).max(axis=-1, keepdims=True))
  scaled = wide / jnp.where(largest > 0, largest, 1)
  square = jnp.square(scaled).sum(axis=-1, keepdims=True)
  inverse = jax.lax.rsqrt(jnp.where(square > 0, square, 1))
  unit = scaled * jnp.where(square > 0, inverse, 0)
  return unit.astype(v.dtype)


def _uniform(key, shape):
  return jax.random.uniform(key, shape, minval=-0.1, maxval=0.1)
