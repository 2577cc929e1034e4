"""Linen modules and shapes of arrays as JSON, and back.

Null, booleans, numbers and text stand for themselves, a list for a tuple, an
object for a mapping. What else a field may hold is an object with a key in $:

    {"$class": "lnrnn.norms.Options", "eps": 1e-5, ...}   module or dataclass
    {"$function": "jax.nn.relu"}     of FUNCTIONS, or one or a class of lnrnn
    {"$dtype": "bfloat16"}           of DTYPES
    {"$array": "float32[2, 3]"}      a jax.ShapeDtypeStruct
    {"$precision": "HIGHEST"}        a jax.lax.Precision
    {"$float": "inf"}                what JSON has no number for
    {"$default": true}               what the class has, where it has no name

Reading imports modules of lnrnn and calls dataclasses of theirs, nothing else.
"""

from collections.abc import Mapping
import dataclasses
import importlib
import math
import re
import types
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lnrnn.errors import choices

# What safetensors holds too.
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16")
DTYPES += ("uint32", "uint64", "float16", "bfloat16", "float32", "float64")

_IN_JAX_NN = ("celu", "elu", "gelu", "identity", "leaky_relu", "log_sigmoid")
_IN_JAX_NN += ("log_softmax", "relu", "relu6", "selu", "sigmoid", "silu")
_IN_JAX_NN += ("soft_sign", "softmax", "softplus", "tanh")
FUNCTIONS = {f"jax.nn.{name}": getattr(jax.nn, name) for name in _IN_JAX_NN}
for _name in ("ones", "zeros"):
  _initializer = getattr(jax.nn.initializers, _name)
  FUNCTIONS[f"jax.nn.initializers.{_name}"] = _initializer

_ARRAY = re.compile(r"(\w+)\[((?:\d+(?:, \d+)*)?)\]")


def to_json(value: Any, where: str = "") -> Any:
  """The JSON of a value.

  Args:
    value: a module, or what a field of one holds.
    where: its name, for the error; of a module that of its class by default.

  Raises:
    ValueError: in one line, for what cannot be written, such as a function
      without a name.
  """
  if value is None or isinstance(value, bool | str):
    return value
  if isinstance(value, np.generic):
    return to_json(value.item(), where)
  if isinstance(value, int):
    return int(value)
  if isinstance(value, float):
    return float(value) if math.isfinite(value) else {"$float": str(value)}
  if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
    return [to_json(v, f"{where}[{i}]") for i, v in enumerate(value)]
  if isinstance(value, Mapping):
    return _mapping_to_json(value, where)
  if isinstance(value, jax.ShapeDtypeStruct) and value.dtype.name in DTYPES:
    return {"$array": f"{value.dtype.name}{list(value.shape)}"}
  if isinstance(value, jax.lax.Precision):
    return {"$precision": value.name}
  if (dtype := _dtype_name(value)) in DTYPES:
    return {"$dtype": dtype}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return _dataclass_to_json(value, where)
  if callable(value) and (name := _name_of_function(value)):
    return {"$function": name}
  kind = type(value).__name__
  if isinstance(value, jax.ShapeDtypeStruct):
    kind = f"an array of {value.dtype}"
  raise ValueError(
    f"{where}: {kind} cannot be written; numbers, text, tuples, mappings,"
    " dtypes, modules and functions of lnrnn, common functions of jax.nn and"
    " a field's default can"
  )


def from_json(tree: Any) -> Any:
  """The value of a JSON that `to_json` made.

  Raises:
    ValueError: in one line, for what it did not make, names outside lnrnn and
      fields that a class does not know or take.
  """
  if isinstance(tree, list):
    return tuple(map(from_json, tree))
  if not isinstance(tree, dict):
    return tree
  marks = [key for key in tree if key.startswith("$")]
  if not marks:
    return nn.FrozenDict({k: from_json(v) for k, v in tree.items()})
  mark, value = marks[0], tree[marks[0]]
  if mark == "$class" and len(marks) == 1 and isinstance(value, str):
    fields = {k: v for k, v in tree.items() if k != mark}
    return _dataclass_from_json(value, fields)
  read = _READERS.get(mark)
  if read is None or len(tree) > 1 or not isinstance(value, str):
    raise ValueError(f"{_shown(tree)} is not understood")
  return read(value)


def _shown(tree: Any) -> str:
  text = str(tree)
  return text if len(text) < 60 else text[:57] + "..."


def _mapping_to_json(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
  for key in value:
    if not isinstance(key, str) or key.startswith("$"):
      raise ValueError(f"{where}: the key {key!r} is not text without a $")
  return {k: to_json(v, f"{where}/{k}") for k, v in value.items()}


def _dtype_name(value: Any) -> str | None:
  """The name of a dtype, or of a type of numbers such as `jnp.float32`."""
  own = getattr(value, "dtype", None)
  known = isinstance(value, np.dtype) or (
    isinstance(value, type)
    and (issubclass(value, np.generic) or isinstance(own, np.dtype))
  )
  return jnp.dtype(value).name if known else None


def _name_of_function(value: Any) -> str | None:
  for name, function in FUNCTIONS.items():
    if function is value:
      return name
  name = f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', '')}"
  try:
    return name if _resolve(name) is value else None
  except ValueError:
    return None


def _dataclass_to_json(value: Any, where: str) -> dict[str, Any]:
  kind = type(value)
  name = f"{kind.__module__}.{kind.__qualname__}"
  where = where or kind.__name__
  try:
    known = _resolve(name) is kind
  except ValueError:
    known = False
  if not known:
    raise ValueError(
      f"{where}: {name} cannot be written, as it is no class of lnrnn that can"
      " be imported by that name"
    )
  found: dict[str, Any] = {"$class": name}
  for field in _fields(kind):
    held = getattr(value, field.name)
    if field.name == "name" and held is None and isinstance(value, nn.Module):
      continue
    try:
      found[field.name] = to_json(held, f"{where}.{field.name}")
    except ValueError:
      if held is not field.default:
        raise
      found[field.name] = {"$default": True}
  return found


def _fields(kind: type) -> list[dataclasses.Field]:
  """The fields that make an instance; a module's parent is none of them."""
  foreign = {"parent"} if issubclass(kind, nn.Module) else set()
  fields = dataclasses.fields(kind)
  return [f for f in fields if f.init and f.name not in foreign]


def _resolve(name: str) -> Any:
  """The class or function that is defined in lnrnn under this name."""
  module, _, own = name.rpartition(".")
  if not re.fullmatch(r"lnrnn(\.\w+)+", module):
    raise ValueError(f"{name} is not in lnrnn, and nothing else is imported")
  try:
    found = getattr(importlib.import_module(module), own, None)
  except ImportError as e:
    ours = str(e.name).startswith("lnrnn.")
    found, lacks = None, "" if ours else f" without the package {e.name}"
  else:
    lacks = ""
  kinds = (type, types.FunctionType)
  # One that has moved since its name was written is still imported there.
  if not isinstance(found, kinds) or not found.__module__.startswith("lnrnn."):
    raise ValueError(f"this lnrnn has no {name}{lacks}")
  return found


def _dataclass_from_json(name: str, tree: dict[str, Any]) -> Any:
  kind = _resolve(name)
  if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
    raise ValueError(f"{name} is no module or dataclass")
  own = name.rpartition(".")[2]
  known = [field.name for field in _fields(kind)]
  for field in tree:
    if field not in known:
      raise ValueError(f"{own} has no field {field!r}: {choices(field, known)}")
  given = {k: from_json(v) for k, v in tree.items() if v != {"$default": True}}
  if issubclass(kind, nn.Module):
    given["parent"] = None
  try:
    return kind(**given)
  except (TypeError, ValueError) as e:
    raise ValueError(f"{own} cannot be made: {_first_line(e)}") from e


def _first_line(error: Exception) -> str:
  return str(error).partition("\n")[0]


def _dtype_from_json(name: str) -> Any:
  if name not in DTYPES:
    raise ValueError(f"dtype {name!r}: {choices(name, DTYPES)}")
  return jnp.bool_ if name == "bool" else getattr(jnp, name)


def _array_from_json(text: str) -> jax.ShapeDtypeStruct:
  match = _ARRAY.fullmatch(text)
  if match is None:
    raise ValueError(f"{_shown(text)!r} is no array, such as float32[2, 3]")
  dtype, shape = match.groups()
  shape = tuple(int(n) for n in shape.split(", ") if n)
  return jax.ShapeDtypeStruct(shape, _dtype_from_json(dtype))


def _precision_from_json(name: str) -> jax.lax.Precision:
  if name not in jax.lax.Precision.__members__:
    known = list(jax.lax.Precision.__members__)
    raise ValueError(f"precision {name!r}: {choices(name, known)}")
  return jax.lax.Precision[name]


_READERS = {
  "$array": _array_from_json,
  "$dtype": _dtype_from_json,
  "$float": float,
  "$function": lambda name: FUNCTIONS.get(name) or _resolve(name),
  "$precision": _precision_from_json,
}
