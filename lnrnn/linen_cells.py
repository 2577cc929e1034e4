"""The LN-LSTM and LN-GRU as linen cells: they declare parameters, no more.

The equations are in `lnrnn.cells`. The cells follow `nn.RNNCellBase`, so they
run under `flax.linen.RNN`; under `lnrnn.RNN` they run faster, and there alone
with batch norm, which keeps statistics for each time step.
"""

from collections.abc import Callable
import functools
import numbers
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import cells, engine, norms
from lnrnn.errors import choices
from lnrnn.norms import Affine

Initializer = nn.initializers.Initializer

# Which norm stands in which form. Weight norm and none stand in no particular
# place, so that their forms are one function; an experiment that varies the
# norm may keep its form.
FORMS_OF = {
  "layer": ("separate", "sum", "per_gate", "cell", "authors"),
  "rms": ("separate", "sum", "per_gate", "cell"),
  "batch": ("separate", "sum", "cell"),
  "weight": ("separate", "sum", "per_gate", "cell"),
  "none": ("separate", "sum", "per_gate", "cell"),
}


def authors_kernel_init(key, shape, dtype=jnp.float32) -> jax.Array:
  """Input weights as in the authors' code: uniform in +-0.1, or orthogonal.

  Orthogonal where d = h: their helper treats every square matrix so.

  Source: ryankiros/skip-thoughts, `norm_weight`, which their layers call.
  """
  if shape[-2] == shape[-1]:
    return nn.initializers.orthogonal()(key, shape, dtype)
  return jax.random.uniform(key, shape, dtype, -0.1, 0.1)


def _by_gate(init: Initializer, gates: int) -> Initializer:
  """Draws the columns of each gate apart, as the authors' code does."""

  def draw(key, shape, dtype):
    block = (*shape[:-1], shape[-1] // gates)
    # In float32 at least: there is no orthogonal matrix in half precision.
    wide = jnp.promote_types(dtype, jnp.float32)
    drawn = [init(k, block, wide) for k in jax.random.split(key, gates)]
    return jnp.concatenate(drawn, axis=-1).astype(dtype)

  return draw


class _AffineParams(nn.Module):
  """Gain, and bias unless `bias` is false, under a name of their own."""

  gain_init: Initializer
  bias: bool
  param_dtype: Any

  @nn.compact
  def __call__(self, width: int) -> Affine:
    gain = self.param("gain", self.gain_init, (width,), self.param_dtype)
    zeros = nn.initializers.zeros
    if not self.bias:
      return Affine(gain, None)
    return Affine(gain, self.param("bias", zeros, (width,), self.param_dtype))


class _WeightGain(nn.Module):
  """The gain of a weight-normalised matrix; starts as its columns' lengths."""

  @nn.compact
  def __call__(self, v: jax.Array) -> jax.Array:
    start = lambda _: norms.direction_norm(v).astype(v.dtype)
    return norms.weight_norm(v, self.param("gain", start))


class _Cell(nn.RNNCellBase):
  """What the two cells share; see `LSTMCell` for the attributes."""

  features: int
  norm: str = "layer"
  form: str = "separate"
  layers: int = 1
  eps: float = 1e-5
  gain_init: Initializer | None = None
  kernel_init: Initializer = authors_kernel_init
  recurrent_init: Initializer = nn.initializers.orthogonal()
  bias_init: Initializer = nn.initializers.zeros
  carry_init: Initializer = nn.initializers.zeros
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: jax.lax.PrecisionLike = None

  def __post_init__(self):
    kind = type(self).__name__
    if fault := norms.unknown_name(self.norm):
      raise ValueError(f"{kind}: {fault}")
    if self.form not in self._forms():
      raise ValueError(
        f"{kind}: form={self.form!r} with norm={self.norm!r}:"
        f" {choices(self.form, self._forms())}"
      )
    low = 1 if self.norm in ("none", "weight", "batch") else 2
    for name, least in (("features", low), ("layers", 1)):
      value = getattr(self, name)
      if not isinstance(value, numbers.Integral):
        raise ValueError(f"{kind}: {name}={value!r} is not an integer")
      if value < least:
        raise ValueError(
          f"{kind}: {name}={value} is below {least}"
          + (", the least that can be normalised" if least == 2 else "")
        )
    super().__post_init__()

  @nn.nowrap
  def _forms(self) -> tuple[str, ...]:
    return FORMS_OF[self.norm]

  @property
  def num_feature_axes(self) -> int:
    """One: the width."""
    return 1

  @nn.compact
  def _params(self, d: int) -> list[Any]:
    """Declares the parameters for inputs of width d, layer by layer."""
    if self.layers == 1:
      return [self._declare(d)]
    stack = []
    for i in range(self.layers):
      layer = self.clone(parent=self, name=f"layer_{i}", layers=1)
      stack += layer._params(self.features if i else d)
    return stack

  def _matrices(self, d: int, gates: int) -> tuple[jax.Array, jax.Array]:
    """Declares w_x and w_h; by weight norm, from directions and gains."""
    h, dtype = self.features, self.param_dtype
    # First of all, so that with equal keys they are the same for each norm.
    init = _by_gate(self.kernel_init, gates)
    w_x = self.param("w_x", init, (d, gates * h), dtype)
    init = _by_gate(self.recurrent_init, gates)
    w_h = self.param("w_h", init, (h, gates * h), dtype)
    if self.norm == "weight":
      w_x, w_h = _WeightGain(name="wn_x")(w_x), _WeightGain(name="wn_h")(w_h)
    return w_x, w_h

  def _affine(self, name: str, width: int, *, bias: bool = True):
    """Declares the normaliser `name`; None where this norm has none there."""
    if self.norm in ("none", "weight"):
      return None
    # Cooijmans et al.: 0.1, lest the tanh saturate.
    gain_init = self.gain_init or nn.initializers.constant(
      0.1 if self.norm == "batch" else 1.0
    )
    return _AffineParams(gain_init, bias, self.param_dtype, name=name)(width)

  def _terms(self, width: int) -> tuple[Any, Affine | None]:
    """Declares ln_x and ln_h."""
    if self.form == "cell":
      return None, None
    # Where there is one normaliser, or batch norm, b is the bias.
    bias = self.form != "sum" and self.norm != "batch"
    ln_x = (
      None if self.form == "sum" else self._affine("ln_x", width, bias=bias)
    )
    return ln_x, self._affine("ln_h", width, bias=bias)

  def _batch_norm_needs_rnn(self):
    if self.norm == "batch":
      raise ValueError(
        'norm="batch" keeps statistics for each time step: run the cell'
        " under lnrnn.RNN"
      )

  def __call__(self, carry, x: jax.Array):
    """One time step.

    Args:
      carry: of `initialize_carry`; for an LSTM (c, h), of [..., h] each, for
        a GRU h; a tuple of those for several layers.
      x: [..., d] inputs.

    Returns:
      The new carry, and h of the last layer, [..., h].

    Raises:
      ValueError: with batch norm, whose statistics `lnrnn.RNN` keeps.
    """
    self._batch_norm_needs_rnn()
    olds = (carry,) if self.layers == 1 else carry
    news = []
    for layer, old in zip(self.recurrences(x.shape[-1]), olds, strict=True):
      weights = layer.weights

      def dot(v, name, weights=weights):
        return jnp.matmul(v, weights[name], precision=self.precision)

      x = x if layer.dtype is None else x.astype(layer.dtype)
      new, x = layer.step(dot, layer.consts, old, x)
      news.append(new)
    return news[0] if self.layers == 1 else tuple(news), x

  def recurrences(self, d: int) -> list[engine.Recurrence]:
    """The layers, for inputs of width d; see `engine.Recurrence`."""
    return [self._recurrence(p) for p in self._params(d)]

  def _recurrence(self, p) -> engine.Recurrence:
    dtype = self.dtype or p.w_x.dtype
    norm = self.norm if self.norm in ("layer", "rms") else "layer"

    def normalised(normalise: Any) -> engine.Step:
      update = functools.partial(
        self._update(), norm=normalise, form=self.form, eps=self.eps
      )

      def step(dot, consts, carry, x):
        h = carry[1] if isinstance(carry, tuple) else carry
        x_in = self._input_terms(dot, x)
        return update(consts, carry, x_in, dot(h.astype(dtype), "w_h"))

      return step

    return engine.Recurrence(
      step=normalised(norm),
      weights={
        name: w.astype(dtype)
        for name, w in (*self._input_weights(p.w_x), ("w_h", p.w_h))
      },
      consts=self._merged(p)._replace(w_x=None, w_h=None),
      dtype=dtype,
      sites=self._sites() if self.norm == "batch" else {},
      normalised=normalised,
    )

  @nn.nowrap
  def _input_weights(self, w_x) -> list[tuple[str, jax.Array]]:
    """The matrices that the inputs are multiplied by."""
    return [("w_x", w_x)]

  @nn.nowrap
  def _input_terms(self, dot: engine.Dot, x: jax.Array) -> Any:
    """The products with them."""
    return dot(x, "w_x")

  @nn.nowrap
  def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]):
    """The initial carry.

    Args:
      rng: a key, for `carry_init`.
      input_shape: [..., d] of the inputs of one step.

    Returns:
      (c, h) of [..., h] each for an LSTM, h for a GRU; a tuple of those for
      several layers. h has the cell's dtype, c is float32 or wider.
    """
    shape = (*input_shape[:-1], self.features)
    keys = jax.random.split(rng, self.layers)
    stack = tuple(self._carry(key, shape) for key in keys)
    return stack[0] if self.layers == 1 else stack


class LSTMCell(_Cell):
  """LSTM with a choice of norm and of its place.

  Parameters: w_x [d, 4h], w_h [h, 4h], b [4h], and the normalisers' gain and
  bias ln_x, ln_h [4h], ln_c [h]; gate columns f, i, o, g. Several layers
  stand under layer_0, layer_1, ...

  Attributes:
    features: width h of the state.
    norm: one of `lnrnn.norms.NAMES`.
    form: where the norm stands, one of `lnrnn.cells.FORMS`; docs/reuse.md
      has the table of norms and forms.
    layers: stacked layers, each on the outputs of the one below.
    eps: of layer, batch and RMS norm, in squared units of the summed inputs.
    gain_init: initialiser of the norm's gains; None is 1, and 0.1 for batch
      norm (Cooijmans et al. 2016).
    forget_bias: added to the initial bias of the forget gate; the authors'
      code has none.
    sources: widths of the parts that the inputs are joined of, each of which
      then has a normaliser of its own, ln_x_0, ln_x_1, ...; in the forms
      "separate" and "per_gate". () is one normaliser for the sum.
    peepholes: the gates see the cell through weights of their own, [3h], as
      in Graves 2013; the paper's equations have none.
    kernel_init: initialiser of one gate's block of w_x; each gate is drawn
      apart. As in the authors' code by default.
    recurrent_init: likewise of w_h.
    bias_init: initialiser of b.
    carry_init: initialiser of the carry.
    dtype: of the products and of h; None takes that of the parameters. Norms
      and c are computed in float32 or wider.
    param_dtype: of the parameters.
    precision: of the products.

  Source: Ba et al. 2016, supplement, eqs. (20)-(22) and (29)-(31).
  """

  forget_bias: float = 0.0
  sources: tuple[int, ...] = ()
  peepholes: bool = False

  def __post_init__(self):
    if self.sources and self.form not in ("separate", "per_gate"):
      raise ValueError(
        f"LSTMCell: sources={self.sources} with form={self.form!r}: only in"
        " separate, per_gate"
      )
    if self.sources and self.layers > 1:
      raise ValueError(f"LSTMCell: sources={self.sources} are of one layer")
    super().__post_init__()

  @property
  def _apart(self) -> bool:
    """Whether the sources have normalisers of their own."""
    return bool(self.sources) and self.norm not in ("none", "weight")

  def _declare(self, d: int) -> cells.LSTMParams:
    h = self.features
    if self.sources and sum(self.sources) != d:
      raise ValueError(
        f"LSTMCell: inputs of width {d}; sources={self.sources} ask for"
        f" {sum(self.sources)}"
      )

    def bias_init(key, shape, dtype):
      b = self.bias_init(key, shape, dtype)
      return b.at[:h].add(self.forget_bias)

    w_x, w_h = self._matrices(d, 4)
    b = self.param("b", bias_init, (4 * h,), self.param_dtype)
    ln_x, ln_h = self._terms(4 * h)
    ln_c = self._affine("ln_c", h)
    start = nn.initializers.zeros
    peepholes = (
      self.param("peepholes", start, (3 * h,), self.param_dtype)
      if self.peepholes
      else None
    )
    return cells.LSTMParams(w_x, w_h, b, ln_x, ln_h, ln_c, peepholes)

  def _terms(self, width: int):
    if not self._apart:
      return super()._terms(width)
    bias = self.norm != "batch"
    ln_x = tuple(
      self._affine(f"ln_x_{n}", width, bias=bias)
      for n in range(len(self.sources))
    )
    return ln_x, self._affine("ln_h", width, bias=bias)

  @nn.nowrap
  def _input_weights(self, w_x):
    if not self._apart:
      return super()._input_weights(w_x)
    cuts = np.cumsum(self.sources)[:-1]
    parts = jnp.split(w_x, cuts)
    return [(f"w_x_{n}", part) for n, part in enumerate(parts)]

  @nn.nowrap
  def _input_terms(self, dot, x):
    if not self._apart:
      return super()._input_terms(dot, x)
    parts = jnp.split(x, np.cumsum(self.sources)[:-1], axis=-1)
    return tuple(dot(part, f"w_x_{n}") for n, part in enumerate(parts))

  @nn.nowrap
  def _merged(self, p: cells.LSTMParams) -> cells.LSTMParams:
    """The same cell with its three biases added up, once for all steps."""
    if self.form == "authors" or p.ln_x is None or p.ln_h is None:
      return p
    several: Any = p.ln_x if self._apart else (p.ln_x,)
    biases = [p.b, p.ln_h.bias, *(ln.bias for ln in several)]
    b = sum(b for b in biases if b is not None)
    *several, ln_h = (a._replace(bias=None) for a in (*several, p.ln_h))
    ln_x: Any = tuple(several) if self._apart else several[0]
    return p._replace(b=b, ln_x=ln_x, ln_h=ln_h)

  @nn.nowrap
  def _update(self) -> Callable[..., Any]:
    return cells.lstm_update

  @nn.nowrap
  def _sites(self) -> dict[str, int]:
    terms = ["x", "h"]
    if self.form == "sum":
      terms.remove("x")
    elif self._apart:
      terms = [f"x_{n}" for n in range(len(self.sources))] + ["h"]
    wide = dict.fromkeys(terms, 4 * self.features)
    return (wide if self.form != "cell" else {}) | {"c": self.features}

  @nn.nowrap
  def _carry(self, key, shape):
    dtype = self.dtype or self.param_dtype
    keys = jax.random.split(key)
    # The cell adds up over many steps, so float32 at least.
    wide = jnp.promote_types(dtype, jnp.float32)
    c = self.carry_init(keys[0], shape, wide)
    return c, self.carry_init(keys[1], shape, dtype)

  @nn.nowrap
  def carry_names(self) -> tuple[str, ...]:
    """Names of the leaves of a layer's carry."""
    return ("c", "h")


class GRUCell(_Cell):
  """GRU with a choice of norm and of its place.

  Parameters: w_x [d, 3h], w_h [h, 3h], and the normalisers' gain and bias
  ln_x, ln_h [3h]; columns z, r, candidate. b [3h] is there without
  normaliser, with batch norm, and in the forms "sum" and "authors"; in the
  paper's form it is zero, as eqs. 26-28 have none. Several layers stand under
  layer_0, layer_1, ...

  Attributes: as of `LSTMCell`, without `forget_bias`; a GRU has no form
  "cell". The reset gate multiplies U h after the product.

  Source: Ba et al. 2016, supplement, eqs. (26)-(28).
  """

  @nn.nowrap
  def _forms(self) -> tuple[str, ...]:
    return tuple(f for f in FORMS_OF[self.norm] if f != "cell")

  def _declare(self, d: int) -> cells.GRUParams:
    h = self.features
    w_x, w_h = self._matrices(d, 3)
    ln_x, ln_h = self._terms(3 * h)
    b = None
    own = ln_x is not None and ln_x.bias is not None
    if not own or self.form == "authors":
      b = self.param("b", self.bias_init, (3 * h,), self.param_dtype)
    return cells.GRUParams(w_x, w_h, b, ln_x, ln_h)

  @nn.nowrap
  def _merged(self, p: cells.GRUParams) -> cells.GRUParams:
    return p  # b is zero where ln_x has a bias, and inside the norm else.

  @nn.nowrap
  def _update(self) -> Callable[..., Any]:
    return cells.gru_update

  @nn.nowrap
  def _sites(self) -> dict[str, int]:
    h = self.features
    terms = ("h",) if self.form == "sum" else ("x", "h")
    blocks = {"gates": 2 * h, "candidate": h}
    return {f"{t}_{name}": n for t in terms for name, n in blocks.items()}

  @nn.nowrap
  def _carry(self, key, shape):
    return self.carry_init(key, shape, self.dtype or self.param_dtype)

  @nn.nowrap
  def carry_names(self) -> tuple[str, ...]:
    """Names of the leaves of a layer's carry."""
    return ("h",)
