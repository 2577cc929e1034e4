"""What every test shares: the CPU, a cache of its own, the real data if any."""

import importlib.metadata
import os
import pathlib

import hypothesis
import pytest

# Before the first import of jax; `JAX_PLATFORMS=cuda pytest -m gpu` overrides.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
# The tests' arrays are small: a second thread would only wait, in a busy loop.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
  os.environ.setdefault(name, "1")
if os.environ["JAX_PLATFORMS"] == "cpu":
  # What a test compiles runs for no time at all, so this is where the suite's
  # time goes: these settings compile DRAW's gradient in a seventh of it. The
  # processes that tests start have them too. To compile as users do:
  # `JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= ./scripts/test.sh`.
  os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
  quick = ["--xla_cpu_parallel_codegen_split_count=1"]
  # XLA aborts on a flag that it does not know, as jaxlib 0.11 this one.
  release = importlib.metadata.version("jaxlib").split(".")
  if tuple(map(int, release[:2])) < (0, 11):
    quick.append("--xla_cpu_use_fusion_emitters=false")
  os.environ.setdefault("XLA_FLAGS", " ".join(quick))

# An example may compile, so no deadline; the same examples in every run.
hypothesis.settings.register_profile("lnrnn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("lnrnn")


@pytest.fixture(scope="session")
def repo() -> pathlib.Path:
  """The root of the repository."""
  return pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def contents():
  """folder -> {path in it: bytes} of its files."""

  def read(folder: pathlib.Path) -> dict[str, bytes]:
    return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in sorted(folder.rglob("*"))
      if path.is_file()
    }

  return read


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory):
  """An empty LNRNN_CACHE_DIR, so that no test reads what another run left."""
  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp("cache")
    patch.setenv("LNRNN_CACHE_DIR", str(path))
    yield path


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """The folder of real data; skips the test where there is none."""
  name = os.environ.get("LNRNN_DATA_DIR")
  if not name:
    pytest.skip("LNRNN_DATA_DIR is not set: no real data")
  return pathlib.Path(name).resolve(strict=True)


@pytest.fixture(scope="session")
def mnist_dir(data_dir) -> pathlib.Path:
  """The folder of the real MNIST files; skips the test where it is missing."""
  path = data_dir / "mnist"
  if not path.is_dir():
    pytest.skip(f"no {path}: no real MNIST")
  return path


@pytest.fixture(scope="module")
def optimised():
  """Compiles as users do, as far as JAX can be told so while it runs."""
  import jax

  name = "jax_disable_most_optimizations"
  old = jax.config.values[name]

  def switch(value):
    jax.config.update(name, value)
    # JAX finds what it has compiled by function and shapes, not by this
    # setting, and a sum is rounded differently without it.
    jax.clear_caches()

  switch(False)
  yield
  switch(old)


@pytest.fixture
def x64():
  """Float64, for the one test."""
  import jax

  with jax.enable_x64(True):
    yield
