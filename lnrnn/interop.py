"""Weights of other programs as parameters of our cells.

Each importer returns what stands under `params/cell` of an `lnrnn.RNN`, or of
a `flax.linen.RNN` of the same cell. None of them needs the other program, and
none loads a pickle.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import arrays
from lnrnn.errors import DataError, choices

Params = dict[str, Any]

FLAX_KEYS = ("if", "ii", "io", "ig", "hf", "hi", "ho", "hg")
TORCH_KEY = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l\d+")
# Where our columns f, i, o, g (z, r) stand in theirs.
FROM_IFOG = (1, 0, 2, 3)
FROM_IFGO = (1, 0, 3, 2)
FROM_RU = (1, 0)


class AuthorsWeights(NamedTuple):
  """What `from_authors_npz` finds.

  Attributes:
    cell: the parameters of `LSTMCell` or `GRUCell`, with norm="layer" and
      form="authors".
    initial_h: [h], the parameter of that name of `RNN(learned_carry="h")`;
      None where the file has none.
  """

  cell: Params
  initial_h: jax.Array | None


def from_authors_npz(
  path: str | os.PathLike[str], prefix: str, *, kind: str | None = None
) -> AuthorsWeights:
  """Reads an LN-LSTM or LN-GRU of the authors' Theano code.

  For `LSTMCell(h, form="authors")` or `GRUCell(h, form="authors")`. Of the
  file's arrays only those of the cell are read.

  Args:
    path: an .npz file, as `numpy.savez(path, **params)` writes it.
    prefix: the layer's whole name in the file: "encoder" for the keys
      encoder_W, encoder_U, ...; "encoder_q_r" for encoder_q_r_W, ...
    kind: "lstm" or "gru"; None to tell by the keys.

  Raises:
    DataError: the file is missing or no .npz, has not the keys, or has them
      in another shape.
    ValueError: for an unknown kind.

  Source: ryankiros/layer-norm, `lnlstm_layer` and `lngru_layer`. Their gate
  columns are i, f, o, c and r, u; u, which keeps the old state, becomes z.
  """
  kinds = ("lstm", "gru")
  if kind is not None and kind not in kinds:
    raise ValueError(f"kind={kind!r}: {choices(kind, kinds)}")
  path = pathlib.Path(path)
  if path.suffix in (".pkl", ".pickle"):
    raise DataError(
      f"{path}: a pickle can run code as it is read, and is never loaded;"
      " the weights are in the .npz file"
    )
  return _read_authors(path, prefix, kind)


def _read_authors(
  path: pathlib.Path, prefix: str, kind: str | None
) -> AuthorsWeights:
  names = set(arrays.npz_names(path))
  if kind is None:
    own = _authors_shapes("gru", 0, 0).keys() - _authors_shapes("lstm", 0, 0)
    kind = "gru" if any(f"{prefix}_{key}" in names for key in own) else "lstm"
  keys = list(_authors_shapes(kind, 0, 0))
  if missing := [k for k in keys if f"{prefix}_{k}" not in names]:
    layers = sorted(n[:-3] for n in names if n.endswith("_s1"))
    raise DataError(
      f"{path}: has no {', '.join(f'{prefix}_{k}' for k in missing)}; a layer-"
      f"normalised {kind.upper()} has {', '.join(keys)} under one prefix, and"
      f" this file has {', '.join(layers) or 'no such prefix'}"
    )
  keys += ["h0"] * (f"{prefix}_h0" in names)
  held = arrays.load_npz(path, [f"{prefix}_{key}" for key in keys])
  a = dict(zip(keys, held.values(), strict=True))
  for name, array in held.items():
    if not np.issubdtype(array.dtype, np.floating):
      raise DataError(f"{path}: {name} holds {array.dtype}; expected floats")

  n, _ = _matrix(f"{path}: {prefix}_W", a["W"], DataError)
  d, _ = _matrix(f"{path}: {prefix}_U", a["U"], DataError)
  for key, expected in (_authors_shapes(kind, n, d) | {"h0": (d,)}).items():
    if key in a and a[key].shape != expected:
      raise DataError(
        f"{path}: {prefix}_{key} has the shape {a[key].shape}; expected"
        f" {expected}, as {prefix}_W has {n} rows and {prefix}_U {d}"
      )

  if kind == "lstm":
    for key in ("W", "U", "b", "s1", "b1", "s2", "b2"):
      a[key] = _columns(a[key], FROM_IFOG)
    cell = _tree(a["W"], a["U"], a["b"])
    cell |= {"ln_x": _affine(a["s1"], a["b1"])}
    cell |= {"ln_h": _affine(a["s2"], a["b2"])}
    cell |= {"ln_c": _affine(a["s3"], a["b3"])}
  else:

    def join(gates: str, candidate: str) -> np.ndarray:
      both = [_columns(a[gates], FROM_RU), a[candidate]]
      return np.concatenate(both, axis=-1)

    cell = _tree(join("W", "Wx"), join("U", "Ux"), join("b", "bx"))
    cell |= {"ln_x": _affine(join("s1", "s2"), join("b1", "b2"))}
    cell |= {"ln_h": _affine(join("s3", "s4"), join("b3", "b4"))}
  return AuthorsWeights(cell, jnp.asarray(a["h0"]) if "h0" in a else None)


def _authors_shapes(kind: str, n: int, d: int) -> dict[str, tuple[int, ...]]:
  """Of n inputs and d units; s are gains, and b1 to b4 the norms' biases."""
  g = (4 if kind == "lstm" else 2) * d
  shapes: dict[str, tuple[int, ...]] = {"W": (n, g), "U": (d, g), "b": (g,)}
  if kind == "lstm":
    widths = (g, g, d)
  else:
    shapes |= {"Wx": (n, d), "Ux": (d, d), "bx": (d,)}
    widths = (g, d, g, d)
  for i, width in enumerate(widths, 1):
    shapes |= {f"s{i}": (width,), f"b{i}": (width,)}
  return shapes


def from_flax_lstm(params: Mapping[str, Any]) -> Params:
  """The parameters of `nn.OptimizedLSTMCell` or `nn.LSTMCell`.

  For `LSTMCell(h, norm="none")`.

  Args:
    params: of the cell, which under `nn.RNN` are params/cell:
      {"if", "ii", "io", "ig": {"kernel": [d, h]}, "hf", "hi", "ho", "hg":
      {"kernel": [h, h], "bias": [h]}}.

  Returns:
    {"w_x", "w_h", "b"}.

  Raises:
    ValueError: other keys, or shapes that do not fit.
  """
  if set(params) != set(FLAX_KEYS):
    raise ValueError(
      f"from_flax_lstm: the parameters have the keys {_listed(params)}; those"
      f" of nn.OptimizedLSTMCell are {_listed(FLAX_KEYS)}"
    )
  blocks = {}
  for name in FLAX_KEYS:
    parts = ("kernel",) if name.startswith("i") else ("kernel", "bias")
    if set(params[name]) != set(parts):
      raise ValueError(
        f"from_flax_lstm: {name} has {_listed(params[name])}; expected"
        f" {_listed(parts)}"
      )
    blocks |= {f"{name}/{p}": np.asarray(params[name][p]) for p in parts}
  d, h = _matrix("from_flax_lstm: if/kernel", blocks["if/kernel"])
  for name, block in blocks.items():
    expected = (h,) if name.endswith("bias") else (d, h)
    expected = (h, h) if re.match("h./kernel", name) else expected
    if block.shape != expected:
      raise ValueError(
        f"from_flax_lstm: {name} has the shape {block.shape}; expected"
        f" {expected}"
      )

  def join(side: str, part: str) -> np.ndarray:
    gates = [blocks[f"{side}{gate}/{part}"] for gate in "fiog"]
    return np.concatenate(gates, axis=-1)

  return _tree(join("i", "kernel"), join("h", "kernel"), join("h", "bias"))


def from_torch_lstm(
  state_dict: Mapping[str, Any], *, prefix: str = ""
) -> Params | tuple[Params, Params]:
  """The parameters of a `torch.nn.LSTM`.

  For `LSTMCell(h, norm="none", layers=n)`. The dropout between layers is no
  parameter, and our cells have none.

  Args:
    state_dict: of the module; tensors or arrays. bfloat16 stays bfloat16.
    prefix: what its keys begin with in the state of a larger module, such as
      "encoder.lstm."; other keys are left alone.

  Returns:
    {"w_x", "w_h", "b"}, under layer_0, layer_1, ... for several layers. b is
    the sum of torch's two. For a bidirectional LSTM of one layer a pair, for
    the forward and the backward cell.

  Raises:
    ValueError: keys or shapes of another module; several bidirectional
      layers, where both directions feed the next layer; proj_size.
  """
  state = {
    name.removeprefix(prefix): value
    for name, value in state_dict.items()
    if name.startswith(prefix)
  }
  known = [n for n in state if TORCH_KEY.fullmatch(n.removesuffix("_reverse"))]
  if len(known) < len(state) or not state:
    strange = sorted(state.keys() - set(known)) or ["no key"]
    raise ValueError(
      f"from_torch_lstm: {', '.join(strange[:4])} under prefix={prefix!r}; a"
      " torch.nn.LSTM has weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0,"
      " ...; name the prefix of its keys, such as prefix='lstm.'"
    )
  if any(name.startswith("weight_hr") for name in known):
    raise ValueError(
      "from_torch_lstm: weight_hr: our LSTM has no projection (proj_size)"
    )
  both = any(name.endswith("_reverse") for name in known)
  layers = 1 + max(
    int(n.removesuffix("_reverse").rpartition("_l")[2]) for n in known
  )
  if both and layers > 1:
    raise ValueError(
      f"from_torch_lstm: {layers} bidirectional layers: in torch each reads"
      " both directions of the layer below, in lnrnn.Bidirectional its own"
    )
  biased = any(name.startswith("bias") for name in known)
  if both:
    ahead = _torch_layer(state, "l0", biased)
    return ahead, _torch_layer(state, "l0_reverse", biased)
  stack = [_torch_layer(state, f"l{i}", biased) for i in range(layers)]
  for i, layer in enumerate(stack[1:], 1):
    inputs, below = layer["w_x"].shape[0], stack[i - 1]["w_h"].shape[0]
    if inputs != below:
      raise ValueError(
        f"from_torch_lstm: weight_ih_l{i} takes {inputs} inputs; expected the"
        f" {below} outputs of the layer below"
      )
  if layers == 1:
    return stack[0]
  return {f"layer_{i}": layer for i, layer in enumerate(stack)}


def _torch_layer(state: Mapping[str, Any], end: str, biased: bool) -> Params:
  """One layer and direction: torch's rows i, f, g, o become columns."""
  parts = ("weight_ih", "weight_hh") + ("bias_ih", "bias_hh") * biased
  if missing := [f"{p}_{end}" for p in parts if f"{p}_{end}" not in state]:
    raise ValueError(f"from_torch_lstm: the state has no {', '.join(missing)}")
  a = {part: _numpy(state[f"{part}_{end}"]) for part in parts}
  where = "from_torch_lstm:"
  _, d = _matrix(f"{where} weight_ih_{end}", a["weight_ih"])
  _, h = _matrix(f"{where} weight_hh_{end}", a["weight_hh"])
  shapes = {"weight_ih": (4 * h, d), "weight_hh": (4 * h, h)}
  for part in parts:
    expected = shapes.get(part, (4 * h,))
    if a[part].shape != expected:
      raise ValueError(
        f"{where} {part}_{end} has the shape {a[part].shape}; expected"
        f" {expected}"
      )
  if biased:
    b = a["bias_ih"] + a["bias_hh"]
  else:
    b = np.zeros(4 * h, a["weight_hh"].dtype)
  w_x, w_h = a["weight_ih"].T, a["weight_hh"].T
  return _tree(*(_columns(v, FROM_IFGO) for v in (w_x, w_h, b)))


def _numpy(value: Any) -> np.ndarray:
  """An array, or a torch tensor on any device, as an array."""
  if not hasattr(value, "detach"):
    return np.asarray(value)
  value = value.detach().cpu()
  if str(value.dtype) == "torch.bfloat16":  # It gives NumPy none.
    return value.float().numpy().astype(jnp.bfloat16)
  return value.numpy()


def _matrix(
  name: str, a: np.ndarray, error: type[Exception] = ValueError
) -> tuple[int, int]:
  """The shape of a matrix."""
  if a.ndim != 2:
    raise error(f"{name} has the shape {a.shape}; expected a matrix")
  return a.shape[0], a.shape[1]


def _columns(a: np.ndarray, order: Sequence[int]) -> np.ndarray:
  """Block by block in another order, along the last axis."""
  blocks = np.split(a, len(order), axis=-1)
  return np.concatenate([blocks[i] for i in order], axis=-1)


def _tree(w_x: Any, w_h: Any, b: Any) -> Params:
  return jax.tree.map(jnp.asarray, {"w_x": w_x, "w_h": w_h, "b": b})


def _affine(gain: Any, bias: Any) -> Params:
  return jax.tree.map(jnp.asarray, {"gain": gain, "bias": bias})


def _listed(names: Any) -> str:
  return ", ".join(sorted(map(str, names))) or "none"
