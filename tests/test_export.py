"""Exported models: what goes in comes out, and what is wrong is said."""

import json
import pathlib
import shutil
import sys
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import lnrnn
from lnrnn import export, norms, serial
from lnrnn.errors import DataError, UserError
from lnrnn.models.mlp import MLP
from lnrnn.variables import Example

FLAT = jnp.linspace(-1, 1, 15).reshape(3, 5)
SEQUENCES = jnp.linspace(-1, 1, 24).reshape(2, 3, 4)


class Case(NamedTuple):
  """A module and what it is called with."""

  model: nn.Module
  x: jax.Array
  more: dict[str, jax.Array] = {}


def mlp(norm, **more):
  options = norms.Options(eps=1e-3, unbiased=True)
  return MLP((6, 4), 3, norm, options=options, **more)


def rnn(cell, **more):
  return lnrnn.RNN(cell, **more)


CASES = {
  "mlp": Case(mlp("layer"), FLAT),
  "mlp with batch norm": Case(mlp("batch", norm_output=True), FLAT),
  "mlp with weight norm": Case(mlp("weight"), FLAT),
  "lstm": Case(rnn(lnrnn.LSTMCell(8, norm="layer")), SEQUENCES),
  "gru in bfloat16": Case(
    rnn(
      lnrnn.GRUCell(4, norm="none", layers=2, param_dtype=jnp.bfloat16),
      learned_carry="h",
    ),
    SEQUENCES,
    {"seq_lengths": jnp.array([1, 3])},
  ),
  "lstm with batch norm": Case(
    rnn(lnrnn.LSTMCell(4, norm="batch", form="sum"), t_max=5), SEQUENCES
  ),
  "bidirectional": Case(
    lnrnn.Bidirectional(
      rnn(lnrnn.LSTMCell(3, precision=jax.lax.Precision.HIGHEST)),
      rnn(lnrnn.LSTMCell(3, name="own"), remat_steps=2),
    ),
    SEQUENCES,
  ),
}


def drawn(model, x, **more):
  """Variables of the model, drawn at random: nothing has to be compiled."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, **more)
  draw = lambda a: jnp.asarray(rng.uniform(0, 3, a.shape).astype(a.dtype))
  return jax.tree.map(draw, shapes)


def assert_same(found, wanted):
  """The same structure, dtypes and bits."""
  kinds = lambda tree: jax.tree.map(lambda a: (a.dtype, a.shape), tree)
  assert kinds(found) == kinds(wanted)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A folder with a vocabulary, for tests to spoil a copy of."""
  model = mlp("layer")
  variables = drawn(model, FLAT)
  folder = tmp_path_factory.mktemp("written") / "model"
  export.save(
    folder,
    model,
    variables,
    assets={"vocabulary": ["the", "naïve"]},
    example=Example((FLAT,)),
    record={"step": 3},
    card="# A card\n",
  )
  return folder


@pytest.fixture
def copy(written, tmp_path):
  folder = tmp_path / "model"
  shutil.copytree(written, folder)
  return folder


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_the_saved_one_bit_for_bit(name, tmp_path):
  model, x, more = CASES[name]
  variables = drawn(model, x, **more)
  out = tmp_path / "out"
  export.save(out, model, variables, example=Example((x,), more))
  found = lnrnn.load_exported(out)
  assert found.model == model and hash(found.model) == hash(model)
  assert_same(found.variables, variables)
  assert_same(
    jax.jit(found.model.apply)(found.variables, x, **more),
    jax.jit(model.apply)(variables, x, **more),
  )


def test_the_folder_holds_weights_config_assets_and_card(written):
  names = {path.name for path in written.iterdir()}
  assert names == {
    "model.safetensors",
    "config.json",
    "vocabulary.json",
    "README.md",
  }
  assert (written / "README.md").read_text(encoding="utf-8") == "# A card\n"
  assert len({path.stat().st_mode for path in written.iterdir()}) == 1
  found = lnrnn.load_exported(written)
  assert found.assets == {"vocabulary": ["the", "naïve"]}
  assert found.config["run"] == {"step": 3}
  assert found.config["model"]["hidden"] == [6, 4]


def test_other_programs_find_the_weights_by_their_path(written):
  file = written / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  assert tensors["params/hidden_0/layer/kernel"].shape == (5, 6)
  assert set(tensors) >= {
    "params/hidden_1/norm/gain",
    "params/output/layer/bias",
  }
  with safetensors.safe_open(file, framework="np") as opened:
    assert opened.metadata() == {"format": "flax"}


def test_collections_of_any_kind_come_back(tmp_path):
  model = mlp("none")
  variables = {
    "params": drawn(model, FLAT)["params"],
    "carry": {
      "state": (jnp.ones((2, 3), jnp.bfloat16), jnp.arange(3)),
      "empty": {},
      "none": None,
    },
    "seen": {"count": jnp.int32(7), "any": jnp.array([True]), "n": np.int8(3)},
    # Neither C-ordered nor contiguous.
    "cut": {"a": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]},
  }
  frozen = nn.FrozenDict(variables)
  export.save(tmp_path / "out", model, frozen, example=Example((FLAT,)))
  found = export.load(tmp_path / "out").variables
  assert isinstance(found["carry"]["state"], tuple)
  assert_same(found, jax.tree.map(jnp.asarray, variables))


def test_float64_is_kept_and_never_cut_to_float32(tmp_path):
  out = tmp_path / "out"
  with jax.enable_x64(True):
    cell = lnrnn.LSTMCell(2, param_dtype=jnp.float64)
    variables = drawn(lnrnn.RNN(cell), SEQUENCES)
    export.save(out, lnrnn.RNN(cell), variables)
    assert_same(export.load(out).variables, variables)
  with pytest.raises(DataError, match="cell/.* is float64: jax_enable_x64"):
    export.load(out)


def test_the_same_export_has_the_same_bytes(written, tmp_path):
  found = export.load(written)
  again = tmp_path / "again"
  export.save(
    again,
    found.model,
    found.variables,
    assets=found.assets,
    example=serial.from_json(found.config["example"]),
    record=found.config["run"],
    card="# A card\n",
  )
  for path in written.iterdir():
    assert path.read_bytes() == (again / path.name).read_bytes()


def test_nothing_is_overwritten(written, tmp_path):
  found = export.load(written)
  taken = tmp_path / "taken"
  taken.mkdir()
  (taken / "file").write_text("mine")
  for out in (taken, taken / "file", ""):
    with pytest.raises(UserError, match=r"no empty folder|name a folder"):
      export.save(out, found.model, found.variables)
  assert (taken / "file").read_text() == "mine"
  empty = tmp_path / "empty"
  empty.mkdir()
  link = tmp_path / "link"
  link.symlink_to(empty)
  export.save(link, found.model, found.variables)
  assert_same(export.load(empty).variables, found.variables)


@pytest.mark.parametrize(
  ("error", "answer"),
  [
    (OSError("disk full"), UserError),
    (safetensors.SafetensorError("disk full"), UserError),
    (KeyboardInterrupt(), KeyboardInterrupt),
  ],
)
def test_what_is_cut_short_leaves_nothing(
  written, tmp_path, monkeypatch, error, answer
):
  found = export.load(written)

  def fail(tensors, file, metadata):
    file.write_bytes(b"half")
    raise error

  monkeypatch.setattr(safetensors.numpy, "save_file", fail)
  with pytest.raises(answer):
    export.save(tmp_path / "a" / "out", found.model, found.variables)
  assert list((tmp_path / "a").iterdir()) == []


def test_a_missing_package_is_named(written, tmp_path, monkeypatch):
  found = export.load(written)
  monkeypatch.setitem(sys.modules, "safetensors", None)
  monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
  for call in (
    lambda: export.load(written),
    lambda: export.save(tmp_path / "out", found.model, found.variables),
  ):
    with pytest.raises(UserError, match="pip install safetensors"):
      call()


class Local(nn.Module):
  """Not of lnrnn."""


class Pair(NamedTuple):
  a: jax.Array


W = jnp.ones(2)


@pytest.mark.parametrize(
  ("model", "variables", "parts"),
  [
    (Local(), {}, ["Local", "no class of lnrnn"]),
    (rnn(nn.LSTMCell(3)), {}, ["RNN.cell", "flax", "no class of lnrnn"]),
    (
      rnn(lnrnn.LSTMCell(3, kernel_init=nn.initializers.normal(0.1))),
      {},
      ["RNN.cell.kernel_init", "function cannot be written", "default"],
    ),
    (MLP(norm=np.ones(2)), {}, ["MLP.norm: ndarray cannot be written"]),
    (MLP(hidden=(1, Pair(1))), {}, ["MLP.hidden[1]: Pair cannot"]),
    (MLP(norm={1: 2}), {}, ["MLP.norm: the key 1"]),
    (MLP(), {"c": {"a": Pair(W)}}, ["variables/c/a: Pair cannot"]),
    (MLP(), {"c": {"a": jax.random.key(0)}}, ["variables/c/a", "key<"]),
    (MLP(), {"c": {"$a": W}}, ["variables/c: the key '$a'"]),
    (MLP(), {"c": {"a": "text"}}, ["variables/c/a", "<U4"]),
    (MLP(), {"c": {"a": {"b": W}, "a/b": W}}, ["the same path"]),
    (MLP(), {"params": {"w": W}}, ["not the model's", "has params/w besides"]),
  ],
)
def test_what_cannot_be_written_is_said_in_one_line(
  model, variables, parts, tmp_path
):
  with pytest.raises(UserError) as caught:
    export.save(
      tmp_path / "out", model, variables, example=Example((jnp.ones((1, 2)),))
    )
  (line,) = str(caught.value).splitlines()
  assert line.startswith("the model cannot be exported: ")
  for part in parts:
    assert part in line
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("more", "part"),
  [
    ({"assets": {"../a": 1}}, "asset '../a'"),
    ({"assets": {"config": 1}}, "asset 'config'"),
    ({"assets": {"a": (1, 2)}}, "asset 'a' cannot be written as JSON: it has"),
    ({"assets": {"a": {1: 2}}}, "keys that are no text"),
    ({"assets": {"a": np.float32(1)}}, "float32 is not JSON"),
    ({"assets": {"a": ["\ud800"]}}, "surrogates not allowed"),
    ({"record": {"loss": float("nan")}}, "the record of the run"),
  ],
)
def test_assets_and_record_must_be_json(written, tmp_path, more, part):
  found = export.load(written)
  with pytest.raises(UserError) as caught:
    export.save(tmp_path / "out", found.model, found.variables, **more)
  assert part in str(caught.value) and "\n" not in str(caught.value)
  assert list(tmp_path.iterdir()) == []


def edit(*path, to):
  """Sets a value of config.json; `del` removes it."""

  def change(folder: pathlib.Path):
    file = folder / "config.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    at = tree
    for key in path[:-1]:
      at = at[key]
    if to == "del":
      del at[path[-1]]
    else:
      at[path[-1]] = to
    file.write_text(json.dumps(tree), encoding="utf-8")

  return change


def text(name, content):
  return lambda folder: (folder / name).write_text(content)


def tensors(change):
  """Changes the tensors in model.safetensors."""

  def rewrite(folder: pathlib.Path):
    file = folder / "model.safetensors"
    held = safetensors.numpy.load_file(file)
    change(held)
    safetensors.numpy.save_file(held, file)

  return rewrite


def shorten(folder: pathlib.Path):
  file = folder / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-5])


def flip(folder: pathlib.Path):
  file = folder / "model.safetensors"
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)


def remove(name):
  return lambda folder: (folder / name).unlink()


BIAS = "params/output/layer/bias"
W_TOLD = {"$array": "float32[2]"}


@pytest.mark.parametrize(
  ("change", "file", "parts"),
  [
    (shutil.rmtree, "", ["no such folder"]),
    (remove("config.json"), "config.json", ["no such file"]),
    (text("config.json", "{"), "config.json", ["cannot be read"]),
    (text("config.json", "[" * 99999), "config.json", ["cannot be read"]),
    (text("config.json", "[]"), "config.json", ["not the config of an exp"]),
    (text("config.json", "{}"), "config.json", ["not the config of an exp"]),
    (
      edit("format_version", to=2),
      "config.json",
      ["format_version=2", "reads 1"],
    ),
    (edit("sha256", to="del"), "config.json", ["has no sha256"]),
    (edit("model", to=3), "config.json", ["model: is no module"]),
    (
      edit("model", to={"$class": "lnrnn.norms.Options"}),
      "config.json",
      ["model: is no module"],
    ),
    (
      edit("model", "$class", to="antigravity.X"),
      "config.json",
      ["antigravity.X is not in lnrnn, and nothing else is imported"],
    ),
    (
      edit("model", "$class", to="lnrnn.export.os.path"),
      "config.json",
      ["this lnrnn has no lnrnn.export.os.path"],
    ),
    (
      edit("model", "$class", to="lnrnn.models.mlp.nn"),
      "config.json",
      ["this lnrnn has no"],
    ),
    (
      edit("model", "$class", to="lnrnn.models.mlp.MLPP"),
      "config.json",
      ["this lnrnn has no lnrnn.models.mlp.MLPP"],
    ),
    (
      edit("model", "$class", to="lnrnn.norms.normed"),
      "config.json",
      ["lnrnn.norms.normed is no module"],
    ),
    (
      edit("model", "$class", to=["os"]),
      "config.json",
      ["is not understood"],
    ),
    (
      edit("model", "hiden", to=[3]),
      "config.json",
      ["MLP has no field 'hiden'", "did you mean 'hidden'"],
    ),
    (
      edit("model", "parent", to=None),
      "config.json",
      ["MLP has no field 'parent'"],
    ),
    (
      edit(
        "model",
        to={
          "$class": "lnrnn.linen_cells.LSTMCell",
          "features": 3,
          "norm": "lay",
        },
      ),
      "config.json",
      ["LSTMCell cannot be made", "norm='lay'"],
    ),
    (
      edit("model", to={"$class": "lnrnn.linen_cells.LSTMCell"}),
      "config.json",
      ["LSTMCell cannot be made", "features"],
    ),
    (
      edit("model", "norm", to={"$function": "os.system"}),
      "config.json",
      ["os.system is not in lnrnn"],
    ),
    (
      edit("model", "norm", to={"$dtype": "object"}),
      "config.json",
      ["dtype 'object'", "float32"],
    ),
    (
      edit("model", "norm", to={"$eval": "1"}),
      "config.json",
      ["{'$eval': '1'} is not understood"],
    ),
    (
      edit("variables", to={"params": 3}),
      "config.json",
      ["variables: are no collections"],
    ),
    (
      edit("variables", "params", to={"w": {"$array": "float32[-1]"}}),
      "config.json",
      ["'float32[-1]' is no array"],
    ),
    (edit("example", to=[]), "config.json", ["example: is no call"]),
    (edit("assets", to="vocabulary"), "config.json", ["no list of names"]),
    (edit("assets", to=["../x"]), "config.json", ["asset '../x'"]),
    (remove("vocabulary.json"), "vocabulary.json", ["no such file"]),
    (text("vocabulary.json", "x"), "vocabulary.json", ["cannot be read"]),
    (remove("model.safetensors"), "model.safetensors", ["no such file"]),
    (text("model.safetensors", "x" * 99), "model.safetensors", ["is damaged"]),
    (text("model.safetensors", ""), "model.safetensors", ["is damaged"]),
    (shorten, "model.safetensors", ["is damaged"]),
    (flip, "model.safetensors", ["is damaged", "sha256"]),
    (
      tensors(lambda held: held.pop(BIAS)),
      "model.safetensors",
      [f"lacks {BIAS}"],
    ),
    (
      tensors(lambda held: held.update(w=np.ones(2))),
      "model.safetensors",
      ["has w besides"],
    ),
    (
      tensors(lambda held: held.update({BIAS: np.ones(4, np.float32)})),
      "model.safetensors",
      [f"{BIAS} is float32[4], expected float32[3]"],
    ),
    (
      tensors(lambda held: held.update({BIAS: np.ones(3, np.float16)})),
      "model.safetensors",
      [f"{BIAS} is float16[3], expected float32[3]"],
    ),
    (
      edit("model", "classes", to=4),
      "model.safetensors",
      ["not the model's", f"{BIAS} is [3], expected [4]"],
    ),
    (
      edit("model", "norm", to="none"),
      "model.safetensors",
      ["lacks params/hidden_0/layer/bias", "hidden_0/norm/bias"],
    ),
    (
      edit("variables", to={"a": {"b": W_TOLD}, "a/b": W_TOLD}),
      "config.json",
      ["the same path"],
    ),
    (
      edit("example", "args", to=3),
      "model.safetensors",
      ["cannot be initialised"],
    ),
    (
      edit("example", "args", to=[]),
      "model.safetensors",
      ["cannot be initialised"],
    ),
  ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(
  copy, change, file, parts
):
  change(copy)
  with pytest.raises(DataError) as caught:
    export.load(copy)
  (line,) = str(caught.value).splitlines()
  assert line.startswith(f"{copy / file}: ")
  for part in parts:
    assert part in line
  assert "antigravity" not in sys.modules


def test_a_collection_of_the_task_does_not_count_against_the_model(tmp_path):
  model = mlp("layer")
  variables = {**drawn(model, FLAT), "mine": {"w": W}}
  export.save(tmp_path / "o", model, variables, example=Example((FLAT,)))
  assert_same(export.load(tmp_path / "o").variables, variables)
