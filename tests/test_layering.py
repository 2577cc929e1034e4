"""Who may import whom, read from the source with `ast`.

    kernels <- norms <- backward <- engine <- cells <- rnn <- models

losses, metrics, data and training know none of these; experiments bind them
all. arrays, errors and files serve all parts, and know none of them. lnrnn
knows neither experiments nor configs. configs are data.
"""

import ast
from collections.abc import Iterator
import pathlib
import sys

import pytest

CHAIN = ("kernels", "norm_functions", "norms", "map_norms")
CHAIN += ("reverse_only", "backward_plan", "backward")
CHAIN += ("engine", "cells")
CHAIN += ("linen_cells",)
CHAIN += ("interop", "recurrent_bn", "rnn", "models", "serial", "variables")
CHAIN += ("export", "analysis")
ASIDE = ("losses", "metrics", "data", "training", "plotting", "report")
ASIDE += ("claims",)
BASE = ("arrays", "errors", "files")
BARE = {"jax", "flax", "optax", "numpy"}  # all that `import lnrnn` may need
BANNED = {"tensorflow", "clu", "torch"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}

Tree = dict[str, ast.Module]  # module name -> source


def read(root: pathlib.Path, package: str) -> Tree:
  """Parses every module of `package`; a package bears its folder's name."""
  tree = {}
  for path in sorted((root / package).rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(p for p in parts if p != "__init__")
    tree[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    tree[name].is_package = path.name == "__init__.py"  # type: ignore
  return tree


def statements(node: ast.AST, lazy: bool) -> Iterator[ast.AST]:
  """Yields the nodes under `node`; without `lazy`, those run by its import."""
  for child in ast.iter_child_nodes(node):
    function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
    types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(
      child.test
    )
    if lazy or not (function or types):
      yield child
      yield from statements(child, lazy)


def imports(tree: Tree, module: str, *, lazy: bool = True) -> set[str]:
  """Names of what a module imports; `from a import b` is a.b if that is one."""
  found = set()
  for node in statements(tree[module], lazy):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        up = node.level - getattr(tree[module], "is_package", False)
        parents = module.split(".")
        base = ".".join([*parents[: len(parents) - up], base]).rstrip(".")
      for alias in node.names:
        full = f"{base}.{alias.name}"
        found.add(full if full in tree else base)
  return found


def closure(tree: Tree, *modules: str) -> set[str]:
  """All that importing these modules imports, inside and outside the tree."""
  seen: set[str] = set()
  todo = list(modules)
  while todo:
    name = todo.pop()
    if name not in seen:
      seen.add(name)
      todo += imports(tree, name, lazy=False) if name in tree else ()
  return seen


def outside(names: set[str]) -> set[str]:
  """Top-level names of third parties."""
  tops = {name.partition(".")[0] for name in names}
  return tops - set(sys.stdlib_module_names) - {"lnrnn"}


def part(name: str) -> str:
  """The part of lnrnn a module belongs to: lnrnn.models.mlp -> models."""
  top, _, rest = name.partition(".")
  return rest.partition(".")[0] if top == "lnrnn" else ""


def faults(tree: Tree) -> list[str]:
  """Every breach of the rules in lnrnn and configs, one line each."""
  found = []
  for module in tree:
    names = imports(tree, module)
    tops = {name.partition(".")[0] for name in names}

    def check(bad: set[str], why: str, module: str = module) -> None:
      found.extend(f"{module} imports {name}: {why}" for name in sorted(bad))

    if module.startswith("configs"):
      check(
        outside(names) - {"ml_collections", "configs"}
        | {n for n in names if n.startswith("configs.")} - {"configs.common"}
        | tops & {"lnrnn"},
        "a config is data",
      )
      continue

    check(tops & {"experiments", "configs"}, "lnrnn knows neither")
    check(tops & BANNED, "not in the library")
    check(tops & PICKLES, "no pickle is ever loaded")
    check(names & {"lnrnn"} - {module}, "name the module itself")
    own = part(module)
    parts = {part(name) for name in names} - {own}
    if own in CHAIN:
      lower = CHAIN[: CHAIN.index(own)]
      check(parts & set(CHAIN) - set(lower), "against the arrows of import")
      check(parts & set(ASIDE), "kernels to models know none of these")
    elif own in ASIDE:
      check(parts & set(CHAIN), f"{own} knows none of these")
    elif own in BASE:
      check(parts - set(BASE) - {""}, f"{own} serves all and knows none")
    if own == "data":
      check(closure(tree, module) & {"jax"} | tops & {"jax"}, "data is numpy")
    for node in ast.walk(tree[module]):
      if (
        isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and ast.unparse(node.value) != "False"
      ):
        found.append(f"{module} allows pickles on line {node.value.lineno}")
  if "lnrnn" in tree:
    extra = outside(closure(tree, "lnrnn")) - BARE
    found += [f"import lnrnn needs {name}" for name in sorted(extra)]
  return found


def test_the_arrows_of_import_hold(repo):
  assert faults(read(repo, "lnrnn") | read(repo, "configs")) == []


@pytest.mark.parametrize(
  ("module", "source", "fault"),
  [
    ("lnrnn.norms", "from lnrnn import cells", "lnrnn.norms imports cells"),
    ("lnrnn.norms", "def f():\n  import lnrnn.models.mlp", "imports models"),
    ("lnrnn.cells", "from . import rnn", "lnrnn.cells imports rnn"),
    ("lnrnn.models.mlp", "from ..losses import nll", "imports losses"),
    ("lnrnn.losses", "from lnrnn.norms import Affine", "imports norms"),
    ("lnrnn.files", "from lnrnn import losses", "imports losses"),
    ("lnrnn.training.loop", "import lnrnn", "name the module itself"),
    ("lnrnn.training.loop", "import experiments.train", "lnrnn knows neither"),
    ("lnrnn.data.mnist", "import jax.numpy as jnp", "data is numpy"),
    ("lnrnn.data.mnist", "from clu import metrics", "not in the library"),
    ("lnrnn.data.mnist", "import pickle", "no pickle"),
    ("lnrnn.data.mnist", "f(x, allow_pickle=True)", "allows pickles on line 1"),
    ("lnrnn.norms", "try:\n  import scipy\nexcept E: ...", "needs scipy"),
    ("configs.draw", "import numpy", "a config is data"),
    ("configs.draw", "from configs import mnist_mlp", "a config is data"),
    ("configs.draw", "import lnrnn.norms", "a config is data"),
  ],
)
def test_a_bad_import_is_found(module, source, fault):
  good = {
    "lnrnn": "from lnrnn.norms import layer_norm",
    "lnrnn.norms": "import jax",
    "lnrnn.cells": "from lnrnn import norms",
    "lnrnn.rnn": "from lnrnn.cells import LSTMCell",
    "lnrnn.models.mlp": "from lnrnn import norms",
    "lnrnn.losses": "import jax",
    "lnrnn.files": "import os",
    "lnrnn.training.loop": "def f():\n  import grain",
    "lnrnn.data.mnist": "import numpy as np",
    "configs.common": "import ml_collections",
    "configs.mnist_mlp": "from configs import common",
    "configs.draw": "from configs.common import base",
  }
  assert faults({k: ast.parse(v) for k, v in good.items()}) == []
  bad = {k: ast.parse(v) for k, v in (good | {module: source}).items()}
  assert fault in "\n".join(faults(bad))
