"""A trained model as a folder: weights, how to make the module, a model card.

    model.safetensors   the variables, named by their path: params/cell/w_x
    config.json         the module, its variables' shapes, the run it is from
    NAME.json           each asset, such as the vocabulary
    README.md           the model card

`save` writes it, `load` needs nothing but the folder and lnrnn. Weights are
never pickled, and reading imports nothing outside lnrnn.
"""

from collections.abc import Iterator, Mapping
import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import tempfile
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import files, serial
from lnrnn import variables as variables_lib
from lnrnn.errors import DataError, UserError
from lnrnn.variables import Example

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT_VERSION = 1
_KEYS = ("model", "variables", "example", "assets", "sha256")
_ASSET = re.compile(r"[a-z][a-z0-9_]*")


class Exported(NamedTuple):
  """What `load` finds.

  Attributes:
    model: the linen module.
    variables: its collections, as it was saved.
    assets: what came with it, such as {"vocabulary": [...]}, by name.
    config: the whole of config.json; under "run" what is known of its
      training.
  """

  model: nn.Module
  variables: dict[str, Any]
  assets: dict[str, Any]
  config: dict[str, Any]


def save(
  out: str | os.PathLike[str],
  model: nn.Module,
  variables: Mapping[str, Any],
  *,
  assets: Mapping[str, Any] | None = None,
  example: Example | None = None,
  record: Mapping[str, Any] | None = None,
  card: str = "",
) -> None:
  """Writes the folder of a model, as a whole or not at all.

  Args:
    out: the folder; it must not exist, or be empty.
    model: of a class of lnrnn, its fields such as `lnrnn.serial` can write.
    variables: its collections.
    assets: JSON types by name; a name is lower-case letters, digits and _.
    example: how the module is initialised. Its variables are then compared
      with the saved ones, here and in `load`.
    record: what is known of the training, as JSON types.
    card: text of the README.md; none is written without it.

  Raises:
    UserError: if the folder is taken or cannot be written, if a field, an
      asset or a variable cannot be written, or if the variables are not the
      model's.
  """
  folder = check_free(out)
  texts: dict[str, str] = {CARD: card} if card else {}
  for name, asset in (assets or {}).items():
    if not _is_asset(name):
      raise UserError(f"asset {name!r}: the name must be as {_ASSET.pattern}")
    texts[f"{name}.json"] = _json_text(f"asset {name!r}", asset)
  arrays = jax.tree.map(_as_array, variables_lib.thawed(variables))
  config: dict[str, Any] = {
    "format_version": FORMAT_VERSION,
    "lnrnn": _version(),
  }
  try:
    tensors = variables_lib.named(arrays)
    shapes = variables_lib.abstract(arrays)
    config["model"] = serial.to_json(model)
    config["example"] = serial.to_json(example and example.abstract())
    config["assets"] = sorted(assets or {})
    config["run"] = dict(record or {})
    config["variables"] = serial.to_json(shapes, "variables")
    # Whether it can be read is found out now, not when it is needed.
    again, _, call = _described(config)
    if call:
      variables_lib.check_fit(again, arrays, call)
  except ValueError as e:
    raise UserError(f"the model cannot be exported: {e}") from e
  try:
    with _whole(folder) as tree:
      _write_tensors(tree / WEIGHTS, tensors)
      config["sha256"] = files.sha256(tree / WEIGHTS)
      texts[CONFIG] = _json_text("the record of the run", config)
      for name, text in texts.items():
        (tree / name).write_text(text, encoding="utf-8")
      # safetensors lets the owner alone read it; the folder is to be shared.
      (tree / WEIGHTS).chmod((tree / CONFIG).stat().st_mode)
  except OSError as e:
    raise UserError(f"{folder}: cannot be written: {e}") from e


def load(path: str | os.PathLike[str]) -> Exported:
  """Reads the folder of a model.

  Args:
    path: what `save` wrote.

  Returns:
    The model, ready for `found.model.apply(found.variables, ...)`.

  Raises:
    DataError: naming the file and what is wrong with it.
  """
  folder = pathlib.Path(path)
  if not folder.is_dir():
    raise DataError(f"{folder}: no such folder")
  file = folder / CONFIG
  config = _read_config(file)
  try:
    model, shapes, example = _described(config)
    wanted = variables_lib.named(shapes)
  except (RecursionError, ValueError) as e:
    raise DataError(f"{file}: {_line(e)}") from e
  tensors = _read_tensors(folder / WEIGHTS, wanted, config["sha256"])
  leaves = [jnp.asarray(tensors[name]) for name in wanted]
  variables = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
  if example:
    try:
      variables_lib.check_fit(model, variables, example)
    except ValueError as e:
      raise DataError(f"{folder / WEIGHTS}: {e}") from e
  assets = {}
  for name in config["assets"]:
    if not _is_asset(name):
      raise DataError(f"{file}: asset {name!r} is not of {_ASSET.pattern}")
    assets[name] = _read_json(folder / f"{name}.json")
  return Exported(model, variables, assets, config)


def _described(
  config: Mapping[str, Any],
) -> tuple[nn.Module, dict[str, Any], Example | None]:
  """The model, the shapes of its variables and the example of a config."""
  model = serial.from_json(config["model"])
  shapes = variables_lib.thawed(serial.from_json(config["variables"]))
  example = serial.from_json(config["example"])
  if not isinstance(model, nn.Module):
    raise ValueError("model: is no module")
  leaves = jax.tree.leaves(shapes)
  array = jax.ShapeDtypeStruct
  if not isinstance(shapes, dict) or not all(
    isinstance(leaf, array) for leaf in leaves
  ):
    raise ValueError("variables: are no collections of arrays")
  if not isinstance(example, Example | None):
    raise ValueError("example: is no call")
  return model, shapes, example


def check_free(out: str | os.PathLike[str]) -> pathlib.Path:
  """The folder that `save` can write.

  Raises:
    UserError: if something is there already.
  """
  if not os.fspath(out):
    raise UserError("out '': name a folder")
  folder = pathlib.Path(out).resolve()
  try:
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
  except OSError as e:
    raise UserError(f"{out}: cannot be read: {e}") from e
  if taken:
    raise UserError(f"{out}: exists, and is no empty folder; name another")
  return folder


@contextlib.contextmanager
def _whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a folder that gets its name when all is in it."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=folder.parent, prefix=".export-"
  ) as room:
    tree = pathlib.Path(room) / "tree"
    tree.mkdir()
    yield tree
    tree.rename(folder)


def _as_array(leaf: Any) -> Any:
  """A leaf for NumPy; a random key, which is nothing to it, as it is."""
  dtype = getattr(leaf, "dtype", np.dtype(float))
  if jnp.issubdtype(dtype, jax.dtypes.extended):
    return leaf
  return np.asarray(leaf, order="C")  # safetensors writes the memory as it is.


def _is_asset(name: Any) -> bool:
  """Whether an asset may have this name; its file is `name`.json."""
  known = isinstance(name, str) and f"{name}.json" != CONFIG
  return known and _ASSET.fullmatch(name) is not None


def _read_config(file: pathlib.Path) -> dict[str, Any]:
  config = _read_json(file)
  if not isinstance(config, dict) or "format_version" not in config:
    raise DataError(f"{file}: is not the config of an exported model")
  version = config["format_version"]
  if type(version) is not int or version != FORMAT_VERSION:
    raise DataError(
      f"{file}: format_version={version!r}: this lnrnn reads {FORMAT_VERSION}"
    )
  if missing := [key for key in _KEYS if key not in config]:
    raise DataError(f"{file}: has no {', '.join(missing)}")
  if not isinstance(config["assets"], list):
    raise DataError(f"{file}: assets={config['assets']!r}: is no list of names")
  return config


def _read_json(file: pathlib.Path) -> Any:
  try:
    return json.loads(file.read_text(encoding="utf-8"))
  except FileNotFoundError as e:
    raise DataError(f"{file}: no such file: the export is incomplete") from e
  except (OSError, RecursionError, ValueError) as e:
    raise DataError(f"{file}: cannot be read: {_line(e)}") from e


def _json_text(what: str, value: Any) -> str:
  """The text of a value, if that gives it back."""
  try:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    same = json.loads(text) == value
  except (TypeError, ValueError, RecursionError) as e:
    raise UserError(f"{what} cannot be written as JSON: {_line(e)}") from e
  if not same:
    raise UserError(
      f"{what} cannot be written as JSON: it has tuples, or keys that are no"
      " text"
    )
  return text + "\n"


def _safetensors() -> Any:
  """The package, imported late: `import lnrnn` does without."""
  try:
    import safetensors.numpy
  except ImportError as e:
    raise UserError(
      "exported models need the package safetensors: pip install safetensors"
    ) from e
  return safetensors


def _write_tensors(file: pathlib.Path, tensors: Mapping[str, Any]) -> None:
  # Readers tell by it who wrote a file; transformers has it for flax models.
  metadata = {"format": "flax"}
  safetensors = _safetensors()
  try:
    safetensors.numpy.save_file(dict(tensors), file, metadata=metadata)
  except safetensors.SafetensorError as e:  # A full disk, among others.
    raise OSError(_line(e)) from e


def _read_tensors(
  file: pathlib.Path, shapes: Mapping[str, jax.ShapeDtypeStruct], sha256: str
) -> dict[str, np.ndarray]:
  """Reads the tensors, and makes sure that they are those that were written."""
  safetensors = _safetensors()
  try:
    with safetensors.safe_open(file, framework="np") as opened:
      names = list(opened.keys())
      tensors = {name: opened.get_tensor(name) for name in names}
    digest = files.sha256(file)
  except FileNotFoundError as e:
    raise DataError(f"{file}: no such file: the export is incomplete") from e
  except (safetensors.SafetensorError, AttributeError, OSError) as e:
    # An AttributeError: of a dtype that NumPy has not.
    raise DataError(f"{file}: is damaged: {_line(e)}") from e
  told = lambda arrays: {
    name: f"{a.dtype}{list(a.shape)}" for name, a in arrays.items()
  }
  if fault := variables_lib.differences(told(tensors), told(shapes)):
    raise DataError(f"{file}: is not as {CONFIG} has it: {fault}")
  if digest != sha256:
    raise DataError(f"{file}: is damaged: its sha256 is not that of {CONFIG}")
  for name, a in tensors.items():
    if jax.dtypes.canonicalize_dtype(a.dtype) != a.dtype:
      raise DataError(f"{file}: {name} is {a.dtype}: jax_enable_x64 is needed")
  return tensors


def _version() -> str | None:
  try:
    return importlib.metadata.version("lnrnn")
  except importlib.metadata.PackageNotFoundError:
    return None  # Used from its sources, not installed.


def _line(error: BaseException) -> str:
  return str(error).partition("\n")[0] or type(error).__name__
