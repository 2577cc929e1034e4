"""The variables of a module: their names, and whether they fit it."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax

from lnrnn import serial


@dataclasses.dataclass(frozen=True)
class Example:
  """A call that initialises a module; of its arrays the shapes alone count.

  Attributes:
    args: of `model.init`, after the keys.
    kwargs: of `model.init`.
    method: the method's name.
    rngs: names of the random keys.
  """

  args: Sequence[Any] = ()
  kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  method: str = "__call__"
  rngs: Sequence[str] = ("params",)

  def abstract(self) -> "Example":
    """The same with the shapes of its arrays."""
    args, kwargs = abstract((tuple(self.args), dict(self.kwargs)))
    return dataclasses.replace(self, args=args, kwargs=kwargs)


def example_of(
  model: nn.Module, init: Callable[..., Any], *args: Any
) -> Example | None:
  """How a function initialises a module.

  Args:
    model: whose call is looked for.
    init: calls `model.init`; it is traced, not run.
    *args: of `init`.

  Returns:
    The call; None if there is not just one, or if it has arguments that
    cannot be written, such as random keys.
  """
  seen: list[Example] = []
  inside = False

  def watch(call, args, kwargs, context):
    nonlocal inside
    module, scope = context.module, context.module.scope
    outermost = type(module) is type(model) and scope and not scope.path
    if inside or not outermost or context.method_name == "setup":
      return call(*args, **kwargs)
    rngs = tuple(sorted(scope.rngs))
    example = Example(args, kwargs, context.method_name, rngs)
    seen.append(example.abstract())
    inside = True
    try:
      return call(*args, **kwargs)
    finally:
      inside = False

  with nn.intercept_methods(watch):
    jax.eval_shape(init, *args)
  try:
    serial.to_json(seen[0] if len(seen) == 1 else None)
  except ValueError:
    return None
  return seen[0] if len(seen) == 1 else None


def abstract(tree: Any) -> Any:
  """The shapes of the arrays in a tree; all else as it is."""

  def shape(leaf):
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
      return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

  return jax.tree.map(shape, tree)


def thawed(tree: Any) -> Any:
  """The same tree with plain dicts and tuples."""
  if isinstance(tree, Mapping):
    return {key: thawed(value) for key, value in tree.items()}
  if isinstance(tree, tuple | list) and not hasattr(tree, "_fields"):
    return tuple(map(thawed, tree))
  return tree


def named(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their path: params/cell/w_x.

  Raises:
    ValueError: if two have the same.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  found = {name(path): leaf for path, leaf in leaves}
  if len(found) < len(leaves):
    raise ValueError("two variables have the same path")
  return found


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
  """One line on how named shapes differ from those wanted; "" if they do not.

  Args:
    found: shapes as text, by name.
    wanted: likewise.
  """

  def some(names):
    names = sorted(names)
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)

  faults = []
  if missing := wanted.keys() - found.keys():
    faults.append(f"lacks {some(missing)}")
  if extra := found.keys() - wanted.keys():
    faults.append(f"has {some(extra)} besides")
  both = sorted(found.keys() & wanted.keys())
  if other := [name for name in both if found[name] != wanted[name]]:
    name = other[0]
    faults.append(f"{name} is {found[name]}, expected {wanted[name]}")
  return "; ".join(faults)


def check_fit(
  model: nn.Module, variables: Mapping[str, Any], example: Example
) -> None:
  """Compares variables with those that a module makes, without making them.

  Collections that one of the two has alone are left out: a task may carry a
  state of its own beside the module's.

  Args:
    model: the module.
    variables: its collections, of arrays or their shapes.
    example: how it is initialised.

  Raises:
    ValueError: in one line, where names or shapes differ.
  """
  given = (thawed(example.args), thawed(example.kwargs))
  leaves, structure = jax.tree.flatten(given)
  arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")}

  def init(arrays):
    held = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
    args, kwargs = jax.tree.unflatten(structure, held)
    keys = {name: jax.random.key(0) for name in example.rngs}
    return model.init(keys, *args, method=example.method, **kwargs)

  try:
    made = jax.eval_shape(init, arrays)
  except Exception as e:  # A model may raise anything.
    line = str(e).partition("\n")[0]
    raise ValueError(f"the model cannot be initialised: {line}") from e
  both = variables.keys() & made.keys()
  shapes = lambda tree: {
    name: str(list(leaf.shape))
    for name, leaf in named({key: thawed(tree[key]) for key in both}).items()
  }
  if fault := differences(shapes(variables), shapes(made)):
    raise ValueError(f"the variables are not the model's: {fault}")
