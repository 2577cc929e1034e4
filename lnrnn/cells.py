"""LN-LSTM and LN-GRU: the paper's equations as pure functions.

`lstm_update` and `gru_update` are the equations, given the products with the
weights. `*_inputs` makes the product with the inputs, which can be done for
all time steps at once; `*_step` makes the other product and updates.

Beside the form of the paper's supplement stand the forms that other code
uses; see `FORMS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lnrnn import norms
from lnrnn.errors import choices
from lnrnn.norms import Affine

# Where the norm stands in a cell.
FORMS = {
  "separate": "on W_h h and on W_x x apart (supplement, eqs. 20-22, 26-28)",
  "sum": "on W_h h + W_x x together (eq. 4)",
  "per_gate": "as separate, but each gate's columns by themselves",
  "cell": "on the LSTM's cell alone (supplement, eqs. 29-31; DRAW)",
  "authors": "the authors' code: as separate, b inside the norm of W_x x; the"
  " LSTM's b outside it too, the GRU's update gate u = 1 - z",
}

# normalise(site, a, affine) -> the normalised a; `site` says which summed
# inputs these are, for a norm that keeps statistics.
Normaliser = Callable[[str, jax.Array, Affine], jax.Array]


class LSTMParams(NamedTuple):
  """Parameters of an LSTM; gate columns in the paper's order f, i, o, g.

  A normaliser that is None is left out, whatever the form.
  """

  w_x: jax.Array  # [d, 4h]
  w_h: jax.Array  # [h, 4h]
  b: jax.Array | None  # [4h], added after the norms; None is zero
  # Affine | tuple[Affine, ...] | None: [4h], of x W_x; a tuple where each
  # source of the inputs has its own.
  ln_x: Any
  ln_h: Affine | None  # [4h], of h W_h; of the sum in the form "sum"
  ln_c: Affine | None  # [h], of the cell on its way to h
  # [3h], of f and i from the old cell, of o from the new; None is zero.
  peepholes: jax.Array | None = None


class GRUParams(NamedTuple):
  """Parameters of a GRU; columns in the order z, r, candidate.

  A normaliser that is None is left out, whatever the form. Its statistics
  are those of the 2h gate columns together and of the h candidate columns.
  """

  w_x: jax.Array  # [d, 3h]
  w_h: jax.Array  # [h, 3h]
  b: jax.Array | None  # [3h], added to the x terms after ln_x; None is zero
  ln_x: Affine | None  # [3h], of x W_x
  ln_h: Affine | None  # [3h], of h W_h; of the sum in the form "sum"


LSTMCarry = tuple[jax.Array, jax.Array]  # (c, h), [..., h] each; flax's order


def normaliser(norm: str, eps: float) -> Normaliser:
  """Layer or RMS norm for use in a cell.

  Raises:
    ValueError: for another name.
  """
  kinds = {"layer": norms.layer_norm, "rms": norms.rms_norm}
  if norm not in kinds:
    raise ValueError(f"norm={norm!r}: {choices(norm, tuple(kinds))}")
  return lambda site, a, affine: kinds[norm](a, *affine, eps=eps)


def lstm_inputs(
  p: LSTMParams, x: jax.Array, *, precision: jax.lax.PrecisionLike = None
) -> jax.Array:
  """The product with the inputs: x [..., d] -> x W_x [..., 4h]."""
  return jnp.matmul(x, p.w_x, precision=precision)


def lstm_step(
  p: LSTMParams,
  carry: LSTMCarry,
  x_in: jax.Array,
  *,
  norm: str | Normaliser = "layer",
  form: str = "separate",
  eps: float = 1e-5,
  precision: jax.lax.PrecisionLike = None,
) -> tuple[LSTMCarry, jax.Array]:
  """One time step of an LSTM.

  Args:
    p: parameters.
    carry: (c, h), [..., h] each.
    x_in: [..., 4h] of `lstm_inputs`.
    norm: as of `lstm_update`.
    form: likewise.
    eps: likewise.
    precision: of the product with w_h.

  Returns:
    The new (c, h), and h.
  """
  h_in = jnp.matmul(carry[1], p.w_h, precision=precision)
  return lstm_update(p, carry, x_in, h_in, norm=norm, form=form, eps=eps)


def lstm_update(
  p: LSTMParams,
  carry: LSTMCarry,
  x_in: jax.Array | tuple[jax.Array, ...],
  h_in: jax.Array,
  *,
  norm: str | Normaliser = "layer",
  form: str = "separate",
  eps: float = 1e-5,
) -> tuple[LSTMCarry, jax.Array]:
  """The equations of the LSTM, given the products with the weights.

  Args:
    p: parameters; the normalisers that are None are left out.
    carry: (c, h), [..., h] each. c is carried on as it is, never normalised.
    x_in: [..., 4h] x W_x; a tuple of such products, one for each normaliser,
      where `p.ln_x` is a tuple.
    h_in: [..., 4h] h W_h.
    norm: "layer", "rms" or a `Normaliser`; "none" and "weight" leave all
      normalisers out.
    form: one of `FORMS`; for a tuple, "separate" or "per_gate".
    eps: of layer and RMS norm, in squared units of the summed inputs.

  Returns:
    The new (c, h), in the dtypes of the old, and h. What lies between is
    computed in float32 or wider.

  Raises:
    ValueError: for an unknown norm or form.

  Source: Ba et al. 2016, supplement, eqs. (20)-(22); (29)-(31) without ln_x
  and ln_h; eq. (4) for "sum". Peepholes: Graves 2013, eqs. (7)-(10).
  """
  normed = _placed(norm, form, eps)
  c, h = carry
  width = h.shape[-1]
  blocks = (
    dict.fromkeys("fiog", width) if form == "per_gate" else {"": 4 * width}
  )
  x: Any = jax.tree.map(norms.widened, x_in)
  h_in = norms.widened(h_in)
  if form == "sum":
    a = normed("h", x + h_in, p.ln_h, blocks)
  elif form == "authors":
    a = normed("x", _plus(x, p.b), p.ln_x, blocks)
    a += normed("h", h_in, p.ln_h, blocks)
  else:
    terms = {"x": (x, p.ln_x)}
    if isinstance(x, tuple):
      pairs = zip(x, p.ln_x, strict=True)
      terms = {f"x_{n}": pair for n, pair in enumerate(pairs)}
    a = sum(normed(site, *term, blocks) for site, term in terms.items())
    a += normed("h", h_in, p.ln_h, blocks)
  f, i, o, g = jnp.split(_plus(a, p.b), 4, axis=-1)
  sigmoid, tanh = jax.nn.sigmoid, jnp.tanh
  f_peep, i_peep, o_peep = (
    (None,) * 3 if p.peepholes is None else jnp.split(p.peepholes, 3)
  )
  f, i = _plus(f, f_peep, c), _plus(i, i_peep, c)
  new_c = sigmoid(f) * c + sigmoid(i) * tanh(g)
  o = _plus(o, o_peep, new_c)
  new_h = sigmoid(o) * tanh(
    normed("c", norms.widened(new_c), p.ln_c, {"": width})
  )
  new_h = new_h.astype(h.dtype)
  return (new_c.astype(c.dtype), new_h), new_h


def gru_inputs(
  p: GRUParams, x: jax.Array, *, precision: jax.lax.PrecisionLike = None
) -> jax.Array:
  """The product with the inputs: x [..., d] -> x W_x [..., 3h]."""
  return jnp.matmul(x, p.w_x, precision=precision)


def gru_step(
  p: GRUParams,
  h: jax.Array,
  x_in: jax.Array,
  *,
  norm: str | Normaliser = "layer",
  form: str = "separate",
  eps: float = 1e-5,
  precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array]:
  """One time step of a GRU.

  Args:
    p: parameters.
    h: [..., h] the carry.
    x_in: [..., 3h] of `gru_inputs`.
    norm: as of `gru_update`.
    form: likewise.
    eps: likewise.
    precision: of the product with w_h.

  Returns:
    The new h, twice: as carry and as output.
  """
  h_in = jnp.matmul(h, p.w_h, precision=precision)
  return gru_update(p, h, x_in, h_in, norm=norm, form=form, eps=eps)


def gru_update(
  p: GRUParams,
  h: jax.Array,
  x_in: jax.Array,
  h_in: jax.Array,
  *,
  norm: str | Normaliser = "layer",
  form: str = "separate",
  eps: float = 1e-5,
) -> tuple[jax.Array, jax.Array]:
  """The equations of the GRU, given the products with the weights.

  The reset gate multiplies U h after the product, as in the paper and the
  authors' code. In the form "sum" the candidate's summed input is
  W x + sigmoid(r) * U h.

  Args:
    p: parameters; the normalisers that are None are left out.
    h: [..., h] the carry.
    x_in: [..., 3h] x W_x.
    h_in: [..., 3h] h W_h.
    norm: "layer", "rms" or a `Normaliser`; "none" and "weight" leave all
      normalisers out.
    form: one of `FORMS` but "cell", as a GRU has none.
    eps: of layer and RMS norm, in squared units of the summed inputs.

  Returns:
    The new h, in the dtype of the old, twice: as carry and as output. What
    lies between is computed in float32 or wider.

  Raises:
    ValueError: for an unknown norm or form.

  Source: Ba et al. 2016, supplement, eqs. (26)-(28); eq. (4) for "sum".
  """
  if form == "cell":
    raise ValueError('form="cell": a GRU has no cell; it is a form of the LSTM')
  normed = _placed(norm, form, eps)
  width = h.shape[-1]
  gates = (
    {"z": width, "r": width} if form == "per_gate" else {"gates": 2 * width}
  )
  both = gates | {"candidate": width}
  x_in, h_in = norms.widened(x_in), norms.widened(h_in)
  cut = lambda a: (a[..., : 2 * width], a[..., 2 * width :])
  sigmoid = jax.nn.sigmoid
  if form == "sum":
    ln_gates, ln_candidate = _cut_affine(p.ln_h, 2 * width)
    b_gates, b_candidate = (None, None) if p.b is None else cut(p.b)
    (x_gates, x_candidate), (h_gates, h_candidate) = cut(x_in), cut(h_in)
    a = normed("h", x_gates + h_gates, ln_gates, {"gates": 2 * width})
    z, r = jnp.split(_plus(a, b_gates), 2, axis=-1)
    a = x_candidate + sigmoid(r) * h_candidate
    a = normed("h", a, ln_candidate, {"candidate": width})
    candidate = jnp.tanh(_plus(a, b_candidate))
  else:
    if form == "authors":
      x_in = normed("x", _plus(x_in, p.b), p.ln_x, both)
    else:
      x_in = _plus(normed("x", x_in, p.ln_x, both), p.b)
    h_in = normed("h", h_in, p.ln_h, both)
    (x_gates, x_candidate), (h_gates, h_candidate) = cut(x_in), cut(h_in)
    z, r = jnp.split(x_gates + h_gates, 2, axis=-1)
    candidate = jnp.tanh(x_candidate + sigmoid(r) * h_candidate)
  update = sigmoid(z)
  if form == "authors":
    update = 1 - update
  # (1 - z) h + z candidate.
  new = (h + update * (candidate - h)).astype(h.dtype)
  return new, new


def _placed(norm: str | Normaliser, form: str, eps: float):
  """normed(site, a, affine, blocks): the norm, block of columns by block."""
  if form not in FORMS:
    raise ValueError(f"form={form!r}: {choices(form, tuple(FORMS))}")
  if norm in ("none", "weight"):  # Weight norm has done its work in w_x, w_h.
    return lambda site, a, affine, blocks: a
  normalise = normaliser(norm, eps) if isinstance(norm, str) else norm

  def normed(site, a, affine, blocks):
    if affine is None or (form == "cell" and site != "c"):
      return a
    names = [f"{site}_{name}" if name else site for name in blocks]
    cuts = _ends(list(blocks.values()))[:-1]
    pieces = jnp.split(a, cuts, axis=-1)
    gains = jnp.split(affine.gain, cuts, axis=-1)
    biases = (
      [None] * len(names)
      if affine.bias is None
      else jnp.split(affine.bias, cuts, axis=-1)
    )
    done = [
      normalise(name, piece, Affine(gain, bias))
      for name, piece, gain, bias in zip(
        names, pieces, gains, biases, strict=True
      )
    ]
    return jnp.concatenate(done, axis=-1) if len(done) > 1 else done[0]

  return normed


def _ends(widths: Sequence[int]) -> list[int]:
  return [sum(widths[: i + 1]) for i in range(len(widths))]


def _cut_affine(affine: Affine | None, at: int):
  """Splits an affine's units in two."""
  if affine is None:
    return None, None
  bias = affine.bias
  first = Affine(affine.gain[:at], None if bias is None else bias[:at])
  return first, Affine(affine.gain[at:], None if bias is None else bias[at:])


def _plus(a: jax.Array, b: jax.Array | None, times: Any = 1) -> jax.Array:
  return a if b is None else a + b * times
