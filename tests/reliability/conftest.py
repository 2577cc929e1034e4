"""Campaigns: many faults of one kind, the outcome of every one examined."""

import forks
import jax
import pytest
import toy

from experiments import launch

_COMPILATION_CACHE = {
  "jax_compilation_cache_dir": None,
  "jax_persistent_cache_min_compile_time_secs": 0.0,
}


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
  """What one run has compiled is not compiled again by the next."""
  old = {name: getattr(jax.config, name) for name in _COMPILATION_CACHE}
  for name, value in _COMPILATION_CACHE.items():
    jax.config.update(name, value)
  folder = str(tmp_path_factory.mktemp("compiled"))
  jax.config.update("jax_compilation_cache_dir", folder)
  yield
  for name, value in old.items():
    jax.config.update(name, value)


@pytest.fixture
def toy_task(monkeypatch):
  """Every config is of the toy task."""
  monkeypatch.setattr(launch, "task", lambda config: toy)
  return toy


@pytest.fixture(scope="session")
def server(tmp_path_factory):
  """Starts runs of the toy task, each in a process of its own."""
  with forks.Server(tmp_path_factory.mktemp("compiled_by_children")) as server:
    yield server
