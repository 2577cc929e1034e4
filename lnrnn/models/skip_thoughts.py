"""Skip-thoughts: from a sentence, the words of its neighbours."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn.linen_cells import GRUCell
from lnrnn.rnn import RNN

CONDITIONS = ("initial", "each_step")
SIDES = ("previous", "next")


class _Sized(nn.Module):
  """What an encoder and the decoders on it have in common.

  Attributes:
    vocabulary: v, numbers of words.
    features: h, width of the GRUs.
    word_features: d, width of the word embeddings.
    norm: one of `norms.NAMES`, in the GRUs.
    form: where it stands, one of `cells.FORMS`.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    embedding_scale: embeddings start uniform in plus and minus this.
    t_max: longest training sentence, in steps; batch norm needs it.
    bn_momentum: weight of the past in batch norm's averages.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.
    param_dtype: of the parameters and the states.
  """

  vocabulary: int
  features: int = 2400
  word_features: int = 620
  norm: str = "layer"
  form: str = "separate"
  eps: float = 1e-5
  gain_init: float | None = None
  embedding_scale: float = 0.1
  t_max: int | None = None
  bn_momentum: float = 0.99
  backward: str = "fast"
  remat_steps: int = 0
  param_dtype: Any = jnp.float32

  @nn.nowrap
  def recurrent(self, **options: Any) -> RNN:
    """A GRU over time, with these fields."""
    gain = self.gain_init
    return RNN(
      GRUCell(
        self.features,
        norm=self.norm,
        form=self.form,
        eps=self.eps,
        gain_init=None if gain is None else nn.initializers.constant(gain),
        param_dtype=self.param_dtype,
      ),
      time_major=True,
      t_max=self.t_max,
      bn_momentum=self.bn_momentum,
      backward=self.backward,
      remat_steps=self.remat_steps,
      **options,
    )


class SentenceEncoder(_Sized):
  """A GRU over the words of a sentence; its last state is the sentence.

  Attributes: as of `_Sized`.

  Source: Kiros et al. 2015, section 2.1; Ba et al. 2016, section 6.3.
  """

  def setup(self):
    """Declares the parts."""
    self.embeddings = self.param(
      "embeddings",
      _uniform(self.embedding_scale),
      (self.vocabulary, self.word_features),
      self.param_dtype,
    )
    self.gru = self.recurrent(return_carry=True)

  def __call__(
    self, words: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> jax.Array:
    """Encodes sentences.

    Args:
      words: [b, t] numbers of words.
      lengths: [b] how many of them count.
      train: batch norm normalises by the minibatch.

    Returns:
      [b, h].
    """
    return self.of_vectors(self.embed(words), lengths, train=train)

  def embed(self, words: jax.Array) -> jax.Array:
    """Embeddings [t, b, d] of words [b, t]: time first, as the scan reads."""
    return self.embeddings[words.T]

  def of_vectors(
    self, x: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> jax.Array:
    """Encodes sentences of word vectors.

    Args:
      x: [t, b, d], of `embed` or of a larger vocabulary.
      lengths: [b].
      train: as above.

    Returns:
      [b, h].
    """
    start = jnp.zeros((x.shape[1], self.features), x.dtype)
    last, _ = self.gru(x, initial_carry=start, seq_lengths=lengths, train=train)
    return last


class SkipThoughts(_Sized):
  """An encoder and, for each neighbour, a decoder; one softmax for both.

  Attributes: as of `_Sized`, and
    condition: how a decoder knows the sentence: "initial", its first state is
      the encoder's last, or "each_step", it is an input beside each word, and
      the first state is zero.

  Source: Ba et al. 2016, section 6.3 ("initial"); Kiros et al. 2015, eqs.
  (5)-(8) ("each_step").
  """

  condition: str = "initial"

  def setup(self):
    """Declares the parts."""
    if self.condition not in CONDITIONS:
      raise ValueError(
        f"condition={self.condition!r}: one of {', '.join(CONDITIONS)}"
      )
    self.encoder = self.sentence_encoder()
    self.previous = self.recurrent()
    self.next = self.recurrent()
    # Authors' code: all that is no square matrix is uniform in +-0.1.
    self.kernel = self.param(
      "kernel",
      _uniform(0.1),
      (self.features, self.vocabulary),
      self.param_dtype,
    )
    self.bias = self.param(
      "bias", nn.initializers.zeros, (self.vocabulary,), self.param_dtype
    )

  @nn.nowrap
  def sentence_encoder(self) -> SentenceEncoder:
    """The encoder, whose variables are those under "encoder" of these."""
    names = _Sized.__dataclass_fields__.keys() - {"parent", "name"}
    return SentenceEncoder(**{name: getattr(self, name) for name in names})

  def __call__(
    self,
    current: jax.Array,
    current_length: jax.Array,
    previous: jax.Array,
    previous_length: jax.Array,
    next: jax.Array,
    next_length: jax.Array,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array]:
    """Reads sentences and the words of their neighbours.

    Args:
      current: [b, t] words of the sentences, the end among them.
      current_length: [b].
      previous: [b, s] words of the sentences before, the end among them.
      previous_length: [b].
      next: [b, s] of those after.
      next_length: [b].
      train: batch norm normalises by the minibatch.

    Returns:
      States [b, s, h] of the decoders of both sides; that at step i has read
      the words before the i-th. `kernel` [h, v] and `bias` [v] make logits of
      it.
    """
    thought = self.encode(current, current_length, train=train)
    return (
      self.decode("previous", thought, previous, previous_length, train=train),
      self.decode("next", thought, next, next_length, train=train),
    )

  def encode(
    self, words: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> jax.Array:
    """Sentences [b, t] as vectors [b, h]."""
    return self.encoder(words, lengths, train=train)

  def decode(
    self,
    side: str,
    thought: jax.Array,
    words: jax.Array,
    lengths: jax.Array,
    *,
    train: bool = False,
  ) -> jax.Array:
    """States of one decoder.

    Args:
      side: one of `SIDES`.
      thought: [b, h] of `encode`.
      words: [b, s] of the neighbour; each step reads the word before.
      lengths: [b].
      train: as above.

    Returns:
      [b, s, h], zero where a sentence is finished.
    """
    x = self.encoder.embed(words)
    # Authors' code: nothing is read before the first word.
    x = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    start = thought
    if self.condition == "each_step":
      beside = jnp.broadcast_to(thought, (*x.shape[:2], self.features))
      x, start = jnp.concatenate([x, beside], axis=-1), jnp.zeros_like(thought)
    decoder = {"previous": self.previous, "next": self.next}[side]
    y = decoder(x, initial_carry=start, seq_lengths=lengths, train=train)
    return y.swapaxes(0, 1)

  def logits(self, h: jax.Array) -> jax.Array:
    """Scores [..., v] of words after states [..., h]."""
    return h @ self.kernel + self.bias


def _uniform(scale):
  def draw(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -scale, scale)

  return draw
