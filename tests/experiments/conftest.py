"""Runs the programs in this process, on a handful of digits."""

import importlib
import sys
from typing import NamedTuple

from absl import flags
import jax
import numpy as np
import pytest

from lnrnn.data import batches, mnist

_COMPILATION_CACHE = {
  "jax_compilation_cache_dir": None,
  "jax_persistent_cache_min_compile_time_secs": 0.0,
}


class Result(NamedTuple):
  """What a program answered."""

  code: int
  out: str
  err: str

  @property
  def lines(self) -> list[str]:
    """The lines of error; fails the test on anything else, a traceback say."""
    lines = self.err.splitlines()
    assert lines and all(line.startswith("error: ") for line in lines), self.err
    return [line.removeprefix("error: ") for line in lines]


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
  """What one test has compiled is not compiled again by the next."""
  old = {name: getattr(jax.config, name) for name in _COMPILATION_CACHE}
  for name, value in _COMPILATION_CACHE.items():
    jax.config.update(name, value)
  folder = str(tmp_path_factory.mktemp("compiled"))
  jax.config.update("jax_compilation_cache_dir", folder)
  yield
  for name, value in old.items():
    jax.config.update(name, value)


@pytest.fixture(scope="session")
def digits() -> mnist.Dataset:
  """Learnable pictures of ten classes: 100 train, 50 validation, 50 test."""
  rng = np.random.default_rng(0)
  kinds = rng.integers(0, 256, (10, 28, 28))
  splits = {}
  for name, n in (("train", 100), ("validation", 50), ("test", 50)):
    labels = np.arange(n, dtype=np.int32) % 10
    noise = rng.integers(-60, 60, (n, 28, 28))
    images = np.clip(kinds[labels] + noise, 0, 255).astype(np.uint8)
    splits[name] = mnist.Arrays(images, labels)
  content = {k: v.images for k, v in splits.items()}
  return mnist.Dataset(splits, "made up", batches.fingerprint(content))


@pytest.fixture
def few_digits(monkeypatch, digits):
  """The task loads `digits`, whatever its config says."""
  monkeypatch.setattr(mnist, "load", lambda source, folder=None: digits)
  return digits


@pytest.fixture(scope="session")
def spec(repo) -> str:
  """A smoke config for `few_digits`; all splits compile as one shape."""
  return (
    f"{repo}/configs/mnist_mlp.py:smoke,batch_size=16,data.train_cases=100,"
    "eval_batch_size=100,model.hidden=(8,8)"
  )


@pytest.fixture
def program(monkeypatch, capfd):
  """(name, *arguments) -> Result of `python -m experiments.name` run here."""
  launch = importlib.import_module("experiments.launch")
  # The programs define flags of one name, and flags remember their values.
  before = _take_flags()

  def call(name: str, *arguments: object) -> Result:
    _take_flags()
    sys.modules.pop(f"experiments.{name}", None)
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
      launch.run(module.main)
    return Result(int(caught.value.code or 0), *capfd.readouterr())

  yield call
  _take_flags()
  for module, flag in before:
    flags.FLAGS[flag.name] = flag
    flags.FLAGS.register_flag_by_module(module, flag)


def _take_flags() -> list[tuple[str, flags.Flag]]:
  """Forgets the flags of all programs; returns them with their modules."""
  taken = []
  for module, defined in list(flags.FLAGS.flags_by_module_dict().items()):
    if module.startswith("experiments."):
      for flag in list(defined):
        taken.append((module, flag))
        delattr(flags.FLAGS, flag.name)
  return taken
