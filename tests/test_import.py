"""`import lnrnn` needs jax, flax and optax alone."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

WANTED = ("jax", "flax", "optax")

USE = """
import jax.numpy as jnp
import lnrnn

a = jnp.arange(8.0).reshape(2, 4)
y = lnrnn.layer_norm(a, jnp.ones(4), jnp.zeros(4))
assert abs(float(y.mean())) < 1e-6 and abs(float(y.std()) - 1) < 1e-3, y
"""


def with_dependencies(*names: str) -> set[str]:
  """The distributions that installing `names` installs, without extras."""
  seen: set[str] = set()
  todo = list(names)
  while todo:
    name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
    if name in seen:
      continue
    try:
      requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
      continue  # for another system or Python
    seen.add(name)
    for requirement in requires:
      if "extra ==" not in requirement:
        todo.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
  return seen


def run(code: str, **options) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, **options
  )


def blocking(code: str) -> str:
  """Prepends an import hook that hides all but what the wheel requires."""
  allowed = with_dependencies(*WANTED)
  hidden = {
    top
    for top, owners in importlib.metadata.packages_distributions().items()
    if not any(re.sub(r"[-_.]+", "-", o).lower() in allowed for o in owners)
  } - {"lnrnn"}
  assert "grain" in hidden, "nothing to hide: the test would prove nothing"
  hook = f"""
    import sys
    HIDDEN = {sorted(hidden)!r}
    class Hide:
      def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
          raise ModuleNotFoundError(f"hidden: {{name}}", name=name)
    sys.meta_path.insert(0, Hide())
    """
  return textwrap.dedent(hook) + code


def test_the_library_needs_jax_flax_and_optax_alone(repo):
  done = run(blocking(USE), cwd=repo)
  assert done.returncode == 0, done.stderr


def test_the_hook_hides_the_rest(repo):
  done = run(blocking("import grain"), cwd=repo)
  assert "hidden: grain" in done.stderr


@pytest.mark.long
def test_the_bare_wheel_works(repo, tmp_path):
  """Builds the wheel, installs it alone in a new environment, and uses it."""

  def call(*command) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
      command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

  python = tmp_path / "bare" / "bin" / "python"
  # From a copy, since a build leaves files behind and picks up old ones.
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(repo / name, tmp_path)
  shutil.copytree(repo / "lnrnn", tmp_path / "lnrnn")
  call(sys.executable, "-m", "venv", "bare")
  call(python, "-m", "pip", "wheel", "--no-deps", "-w", "dist", ".")
  (wheel,) = (tmp_path / "dist").glob("lnrnn-*.whl")
  call(python, "-m", "pip", "install", str(wheel))
  shutil.rmtree(tmp_path / "lnrnn")  # else it would be imported instead
  call(python, "-c", USE)
  call(
    python,
    "-c",
    "import importlib.util as u\n"
    "assert u.find_spec('grain') is u.find_spec('experiments') is None",
  )
