"""The attentive reader: an LSTM reads a passage, looking for an answer."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn import norms
from lnrnn.errors import choices
from lnrnn.linen_cells import LSTMCell
from lnrnn.rnn import RNN, Bidirectional

INITS = ("sound", "authors")
# In the sound initialisation: so the LSTMs have inputs of deviation 1. At 0.1
# the LSTM without norm hardly leaves its first plateau; norms are less touched.
EMBEDDING_DEVIATION = 1.0

Initializer = nn.initializers.Initializer


class Reading(NamedTuple):
  """What the reader makes of a query.

  Attributes:
    logits: [b, v] scores of all words.
    attention: [b, t] weights of the passage's words, each row adding up to 1.
  """

  logits: jax.Array
  attention: jax.Array


class AttentiveReader(nn.Module):
  """Answers a query by a word of the vocabulary.

  Attributes:
    vocabulary: v, numbers of words.
    features: h, width of the embeddings, of each LSTM and of all layers.
    similarity: the attention sees a bilinear similarity of the word at hand
      and the query.
    skip: the answer sees the mean over the passage.
    bidirectional: the LSTMs read from both ends; the paper's do not.
    dropout: part of the embeddings, and of the last layer's inputs, that is
      left out in training.
    norm: one of `norms.NAMES`, in the LSTMs.
    norm_everywhere: on each term within the attention's and the answer's tanh
      too. Batch norm's statistics of the passage's term are over all words at
      once; with `bn_padding="all"` over its padding too, whose states are zero
      here, and in the authors' code the last ones.
    form: where it stands in the LSTMs, one of `cells.FORMS`.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    weight_init: "authors": square matrices, and so the LSTMs', are 0.05 times
      orthogonal, others uniform in +-sqrt(6 / (in + out + 1)), and the
      generator starts anew for each matrix, so that those of one shape, the
      gates' among them, begin equal. "sound": each drawn by itself,
      orthogonal in the LSTMs, Glorot's uniform elsewhere, embeddings of
      deviation `EMBEDDING_DEVIATION`, forget gates at bias 1.
    t_passage: longest training passage, in words; batch norm needs it.
    t_query: longest training query, likewise.
    bn_momentum: of `RNN`, and likewise of the batch norm elsewhere.
    bn_padding: likewise.
    bn_test: likewise.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.
    param_dtype: of the parameters.

  Source: Hermann et al. 2015, section 3.2; Ba et al. 2016, section 6.2;
  Cooijmans et al. 2016, section 5.4, for batch norm "everywhere". The
  similarity, the mean over the passage and the learned initial state are of
  cooijmanstim/Attentive_reader.
  """

  vocabulary: int
  features: int = 240
  similarity: bool = True
  skip: bool = True
  bidirectional: bool = False
  dropout: float = 0.5
  norm: str = "layer"
  norm_everywhere: bool = False
  form: str = "separate"
  eps: float = 1e-5
  gain_init: float | None = None
  weight_init: str = "sound"
  t_passage: int | None = None
  t_query: int | None = None
  bn_momentum: float = 0.99
  bn_padding: str = "masked"
  bn_test: str = "population"
  backward: str = "fast"
  remat_steps: int = 0
  param_dtype: Any = jnp.float32

  def setup(self):
    """Declares the parts."""
    if self.weight_init not in INITS:
      raise ValueError(
        f"weight_init={self.weight_init!r}: {choices(self.weight_init, INITS)}"
      )
    inits = self._inits()
    dtype = self.param_dtype
    dense = functools.partial(
      nn.Dense, kernel_init=inits["dense"], param_dtype=dtype
    )
    self.embeddings = self.param(
      "embeddings", inits["embeddings"], (self.vocabulary, self.features), dtype
    )
    self.passage_reader = self._reader(inits, self.t_passage)
    self.query_reader = self._reader(inits, self.t_query)

    def term(*, bias: bool = False):
      layer = dense(self.features, use_bias=bias, parent=None)
      options = norms.Options(
        eps=self.eps,
        gain_init=self._gain(),
        momentum=self.bn_momentum,
        test=self.bn_test,
      )
      norm = self.norm if self.norm_everywhere else "none"
      return norms.normed(layer, norm, options)

    # Within the attention's tanh.
    self.passage_term, self.query_term = term(bias=True), term()
    if self.similarity:
      self.similarity_map = dense(self.features, use_bias=False)
    self.score = dense(1, use_bias=False)
    # Within the answer's.
    self.context_out, self.query_out = term(bias=True), term()
    if self.skip:
      self.mean_out = term()
    self.answer = dense(self.vocabulary)
    self.drop = nn.Dropout(self.dropout)

  @nn.nowrap
  def _gain(self) -> float:
    if self.gain_init is not None:
      return self.gain_init
    # Cooijmans et al., lest the tanh saturate.
    return 0.1 if self.norm == "batch" else 1.0

  def _inits(self) -> dict[str, Initializer]:
    glorot = nn.initializers.glorot_uniform()
    orthogonal = nn.initializers.orthogonal()
    if self.weight_init == "sound":
      normal = nn.initializers.normal(EMBEDDING_DEVIATION)
      return {"embeddings": normal, "dense": glorot, "lstm": orthogonal}
    # Not to be drawn where the parameters are there already.
    start = self.make_rng("params") if self.is_initializing() else None
    init = _authors_init(start)
    return dict.fromkeys(("embeddings", "dense", "lstm"), init)

  def _reader(self, inits, t_max) -> nn.Module:
    def one():
      return RNN(
        LSTMCell(
          self.features,
          norm=self.norm,
          form=self.form,
          eps=self.eps,
          gain_init=nn.initializers.constant(self._gain()),
          kernel_init=inits["lstm"],
          recurrent_init=inits["lstm"],
          forget_bias=1.0 if self.weight_init == "sound" else 0.0,
          param_dtype=self.param_dtype,
          parent=None,
        ),
        return_carry=True,
        time_major=True,
        learned_carry="h",
        t_max=t_max,
        bn_momentum=self.bn_momentum,
        bn_padding=self.bn_padding,
        bn_test=self.bn_test,
        backward=self.backward,
        remat_steps=self.remat_steps,
        parent=None,
      )

    if not self.bidirectional:
      return one()
    return Bidirectional(one(), one(), return_carry=True, time_major=True)

  def __call__(
    self,
    passage: jax.Array,
    passage_length: jax.Array,
    query: jax.Array,
    query_length: jax.Array,
    *,
    train: bool = False,
  ) -> Reading:
    """Reads passages and answers queries.

    Args:
      passage: [b, t] numbers of words.
      passage_length: [b] how many of them count, 1 or more.
      query: [b, s] numbers of words.
      query_length: [b] how many of them count.
      train: drop out, by the random keys "dropout"; batch norm normalises by
        the minibatch.

    Returns:
      The answers' scores, and where the reader looked.
    """
    _, words = self._read(self.passage_reader, passage, passage_length, train)
    asked, _ = self._read(self.query_reader, query, query_length, train)
    live = jnp.arange(passage.shape[1])[:, None] < passage_length  # [t, b]
    attention = self._attention(words, asked, live, train)
    context = (attention[..., None] * words).sum(axis=0)
    a = self.context_out(context, train=train)
    a += self.query_out(asked, train=train)
    if self.skip:
      mean = words.sum(axis=0) / passage_length[:, None].astype(words.dtype)
      a += self.mean_out(mean, train=train)
    found = self.drop(jnp.tanh(a), deterministic=not train)
    return Reading(self.answer(found), attention.T)

  def _read(self, reader, text, lengths, train):
    """The last state [b, h], and the states at all words [t, b, h]."""
    # Time first: so the embeddings are gathered in the order of the scan.
    x = self.drop(self.embeddings[text.T], deterministic=not train)
    last, states = reader(x, seq_lengths=lengths, train=train)
    if not self.bidirectional:
      return last[1], states
    return jnp.concatenate([h for _, h in last], axis=-1), states

  def _attention(self, words, asked, live, train):
    """Weights [t, b] of the words [t, b, h]; none beyond a passage's end."""
    counted = live if self.bn_padding == "masked" else None
    a = self.passage_term(words, train=train, live=counted)
    a += self.query_term(asked, train=train)
    if self.similarity:
      a += (self.similarity_map(words) * self.similarity_map(asked)).sum(
        axis=-1, keepdims=True
      )
    score = self.score(jnp.tanh(a))[..., 0]
    return jax.nn.softmax(score, axis=0, where=live)


def _authors_init(start: jax.Array | None) -> Callable[..., jax.Array]:
  """The authors' initialiser; `start` is where its generator begins.

  Source: cooijmanstim/Attentive_reader, `utils.py` and `layers.py`.
  """

  def init(key, shape, dtype=jnp.float32):
    key = key if start is None else start
    rows, columns = shape
    if rows == columns:
      return 0.05 * nn.initializers.orthogonal()(key, shape, dtype)
    bound = jnp.sqrt(6 / (rows + columns + 1)).astype(dtype)
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
