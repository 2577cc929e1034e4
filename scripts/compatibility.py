"""Tests the wheel on several Pythons, with the lowest and newest versions.

  python scripts/compatibility.py [PYTHON ...] [--versions=lowest] [--whole]

Each Python given (by default those of 3.11, 3.12 and 3.13 on PATH) is tried
with the lowest jax, flax and optax that pyproject.toml allows, and with the
newest. Each time a new environment, outside the repository, gets the wheel
that is built from the working tree. Then

  --library  (default) runs the tests of what needs jax, flax and optax alone,
             in a folder beside which there is no lnrnn but the installed one;
  --whole    installs the extras `experiments` and `dev` too and runs all tests,
             in the repository.

Needs Python 3.11 or newer and a package index, nothing else. Exit codes: 0 all
passed; 1 something failed, and the table is followed by where its log is; 2
nothing was tried, for the reason told.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from typing import NamedTuple, TextIO
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / "runs" / "compatibility"

RELEASES = ("3.11", "3.12", "3.13")
VERSIONS = ("lowest", "newest")
CORE = ("jax", "flax", "optax")
# What the tests of the library need; safetensors for the files of `interop`.
TOOLS = ("hypothesis", "pytest", "pytest-xdist", "safetensors")
# What a wheel is built from.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "lnrnn")

# The tests of the library, and of the digits and the book in the wheel ...
LIBRARY = (
  "tests/test_*.py",
  "tests/analysis",
  "tests/models",
  "tests/data/test_books.py",
  "tests/data/test_mnist.py",
)
# ... but for those that need more, and what that is. The start of a test's name
# is enough.
NEEDS_MORE = {
  "tests/analysis/test_fisher.py": "experiments",
  "tests/data/test_mnist.py::test_the_embedded_files_are": "scripts/",
  "tests/test_docs.py": "the repository",
  "tests/test_downstream.py": "scikit-learn",
  "tests/test_files.py::test_a_killed_writer_leaves_the_old_file": "lnrnn/",
  "tests/test_house_style.py": "the repository",
  "tests/test_import.py": "an environment that has more",
  "tests/test_ink.py": "Pillow, matplotlib",
  "tests/test_interop.py::test_the_guide_has_the_forms_that_exist": "docs/",
  "tests/test_layering.py": "the repository",
  "tests/test_notebooks.py": "nbclient, docs/",
  "tests/test_packaging.py": "the repository",
  "tests/test_pictures.py": "Pillow",
  "tests/test_ranking.py": "scikit-learn",
  "tests/test_report.py": "matplotlib",
  "tests/test_scaling.py": "docs/",
  "tests/test_sentence_encoder.py::test_a_map_needs": "scikit-learn",
  "tests/test_sentence_encoder.py::test_a_new_word_is": "scikit-learn",
  "tests/test_sentence_encoder.py::test_new_words_are": "scikit-learn",
  "tests/test_sentence_encoder.py::test_vectors_of_known": "scikit-learn",
  "tests/test_site.py": "docs/",
}

# What is imported depends on nothing but what is installed.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

FACTS = f"""
import importlib.metadata, json, platform, lnrnn
facts = {{name: importlib.metadata.version(name) for name in {CORE}}}
facts |= {{"python": platform.python_version(), "file": lnrnn.__file__}}
print(json.dumps(facts))
"""


class Fault(Exception):
  """Why a cell of the table did not get through its tests."""


class Cell(NamedTuple):
  """One environment to try."""

  python: str  # the interpreter
  release: str  # of RELEASES
  versions: str  # of VERSIONS
  whole: bool  # all tests, else those of the library

  @property
  def name(self) -> str:
    """What its folder and its log are called."""
    level = "whole" if self.whole else "library"
    return f"{self.release}-{self.versions}-{level}"


def at_lowest(requirements: list[str]) -> list[str]:
  """The constraints that hold each requirement at its lower bound.

  Args:
    requirements: as pyproject.toml has them: "jax>=0.10.2,<0.12".

  Returns:
    "jax==0.10.2" for each, in their order.

  Raises:
    ValueError: one of them has no lower bound.
  """
  found = []
  for line in requirements:
    match = re.match(r"([\w.-]+)[^;]*?>=\s*([\w.]+)", line)
    if not match:
      raise ValueError(f"pyproject.toml: {line!r} has no lower bound (>=)")
    found.append(f"{match[1]}=={match[2]}")
  return found


def project() -> dict:
  """The table [project] of pyproject.toml."""
  return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def tools() -> list[str]:
  """TOOLS with the ranges of pyproject.toml."""
  extras = project()["optional-dependencies"]
  lines = extras["dev"] + extras["experiments"]
  return [x for x in lines if re.split(r"[^\w.-]", x)[0] in TOOLS]


def build_wheel(
  python: str | os.PathLike, folder: pathlib.Path, log: TextIO
) -> pathlib.Path:
  """Builds the wheel of the working tree.

  Args:
    python: an interpreter that has pip.
    folder: gets the wheel, and a copy of what it is built from, since a build
      leaves files behind and picks up old ones.
    log: gets what pip says.

  Returns:
    The path of the wheel.

  Raises:
    Fault: it could not be built.
  """
  source = folder / "source"
  copy(SOURCES, source)
  wheel = [python, "-m", "pip", "wheel", "--no-deps", "-w", folder]
  call("building the wheel", [*wheel, "./source"], folder, log)
  (built,) = folder.glob("lnrnn-*.whl")
  return built


def copy(names: tuple[str, ...], folder: pathlib.Path) -> None:
  """Copies files and folders of the repository."""
  folder.mkdir(parents=True)
  for name in names:
    if (ROOT / name).is_dir():
      ignored = shutil.ignore_patterns("__pycache__")
      shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    else:
      shutil.copy(ROOT / name, folder)


def call(step: str, command: list, cwd: pathlib.Path, log: TextIO) -> None:
  """Runs one command of a cell; a Fault names the step where it fails."""
  print(f"\n$ {' '.join(map(str, command))}", file=log, flush=True)
  done = subprocess.run(
    command,
    cwd=cwd,
    env=ENVIRONMENT,
    stdin=subprocess.DEVNULL,
    stdout=log,
    stderr=subprocess.STDOUT,
  )
  if done.returncode:
    raise Fault(f"{step} failed")


def library_tests() -> list[str]:
  """The arguments of pytest that name the tests of the library."""
  paths = [p for pattern in LIBRARY for p in sorted(ROOT.glob(pattern))]
  names = [p.relative_to(ROOT).as_posix() for p in paths]
  # A file that is named is not ignored, and a test of its is no file.
  return [name for name in names if name not in NEEDS_MORE] + [
    f"--deselect={name}" if "::" in name else f"--ignore={name}"
    for name in NEEDS_MORE
  ]


def install(cell: Cell, folder: pathlib.Path, log: TextIO) -> pathlib.Path:
  """Makes the environment of a cell; returns its interpreter."""
  call("venv", [cell.python, "-m", "venv", folder / "env"], folder, log)
  python = folder / "env" / "bin" / "python"
  wheel = build_wheel(python, folder / "wheel", log)
  wanted = [f"{wheel}[experiments,dev]"] if cell.whole else [wheel, *tools()]
  if cell.versions == "lowest":
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(at_lowest(project()["dependencies"])))
    wanted += ["-c", constraints]
  call("installing", [python, "-m", "pip", "install", *wanted], folder, log)
  call("pip check", [python, "-m", "pip", "check"], folder, log)
  call("listing", [python, "-m", "pip", "freeze"], folder, log)
  return python


def facts(
  python: pathlib.Path, home: pathlib.Path, source: pathlib.Path, log: TextIO
) -> dict:
  """The versions imported in `home`, where lnrnn must be that of `source`."""
  done = subprocess.run(
    [python, "-c", FACTS],
    cwd=home,
    env=ENVIRONMENT,
    stdout=subprocess.PIPE,
    stderr=log,
  )
  if done.returncode:
    raise Fault("import lnrnn failed")
  found = json.loads(done.stdout)
  file = found.pop("file")
  if not pathlib.Path(file).is_relative_to(source):
    raise Fault(f"lnrnn came from {file}, not {source}")
  return found


def attempt(cell: Cell, folder: pathlib.Path, log: TextIO, jobs: int) -> dict:
  """Installs a cell and runs its tests.

  Args:
    cell: what to try.
    folder: all of it goes here; it does not exist yet.
    log: gets what the commands say.
    jobs: tests at a time.

  Returns:
    A row of the table by column; "fault" says what failed, if anything did.
  """
  row: dict = {"python": cell.release, "versions": cell.versions}
  started = time.monotonic()
  folder.mkdir(parents=True)
  results = folder / "results.xml"
  try:
    python = install(cell, folder, log)
    if cell.whole:
      home, source, tests = ROOT, ROOT, ["tests"]
    else:
      home, source, tests = folder / "copy", folder / "env", library_tests()
      copy(("pyproject.toml", "tests"), home)
    row |= facts(python, home, source, log)
    options = ["-n", str(jobs), "--dist=loadfile", "-p", "no:cacheprovider"]
    options += ["-q", f"--junitxml={results}"]
    call("pytest", [python, "-m", "pytest", *options, *tests], home, log)
  except Fault as e:
    row["fault"] = str(e)
  if results.exists():
    suite = ElementTree.parse(results).getroot()[0].attrib
    bad = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    row["passed"] = int(suite["tests"]) - bad - skipped
    row |= {"failed": bad, "skipped": skipped}
  return row | {"seconds": round(time.monotonic() - started)}


def table(rows: list[dict]) -> str:
  """The rows in Markdown; "-" where a cell did not get that far."""
  columns = ("python", "versions", *CORE, "passed", "failed", "skipped")
  lines = [(*columns, "seconds"), ("---",) * (len(columns) + 1)]
  lines += [tuple(str(row.get(c, "-")) for c in lines[0]) for row in rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tail(path: pathlib.Path, lines: int = 40) -> str:
  """The last lines of a file."""
  return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])


def identified(python: str) -> list[str] | None:
  """Release and full path of an interpreter; None where it does not run."""
  code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
  try:
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
  except OSError:
    return None
  return None if found.returncode else found.stdout.strip().split(maxsplit=1)


def parser() -> argparse.ArgumentParser:
  """The command line."""
  top = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  top.add_argument(
    "pythons", nargs="*", metavar="PYTHON", help="an interpreter"
  )
  top.add_argument(
    "--versions",
    choices=VERSIONS,
    help="of jax, flax and optax; default: first the one, then the other",
  )
  level = top.add_mutually_exclusive_group()
  level.add_argument("--library", action="store_true", help="the default")
  level.add_argument("--whole", action="store_true", help="all tests")
  top.add_argument("--jobs", type=int, default=2, help="tests at a time")
  top.add_argument(
    "--keep",
    type=pathlib.Path,
    metavar="DIR",
    help="leave the environments here, instead of removing them",
  )
  return top


def cells(options: argparse.Namespace) -> list[Cell]:
  """What to try; says which of RELEASES are not there.

  Raises:
    ValueError: an interpreter that was named does not run, there is none, or
      --keep has an environment from before.
  """
  found = {}
  for python in options.pythons or [f"python{r}" for r in RELEASES]:
    answer = identified(python)
    if answer:
      found[answer[0]] = answer[1]
    elif options.pythons:
      raise ValueError(f"PYTHON {python}: does not run")
    else:
      print(f"Not tried, since {python} is not on PATH or does not run.")
  if not found:
    raise ValueError("no Python to try: name one")
  versions = [options.versions] if options.versions else VERSIONS
  todo = [
    Cell(python, release, which, options.whole)
    for release, python in found.items()
    for which in versions
  ]
  for cell in todo:
    if options.keep and (options.keep / cell.name).exists():
      raise ValueError(f"--keep: {options.keep / cell.name} exists already")
  return todo


def main() -> None:
  """Tries each cell, and prints the table."""
  top = parser()
  options = top.parse_args()
  try:
    todo = cells(options)
  except ValueError as e:
    top.error(str(e))
  # Ends as Ctrl-C does: the environments are removed.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  LOGS.mkdir(parents=True, exist_ok=True)
  rows, faults = [], []
  with contextlib.ExitStack() as stack:
    home = options.keep or stack.enter_context(tempfile.TemporaryDirectory())
    for cell in todo:
      folder = pathlib.Path(home).resolve() / cell.name
      path = LOGS / f"{cell.name}.log"
      print(f"{cell.name}: writes {path}", flush=True)
      with path.open("w", encoding="utf-8") as log:
        row = attempt(cell, folder, log, options.jobs)
      rows.append(row)
      if "fault" in row:
        print(tail(path), flush=True)
        faults.append(f"{cell.name}: {row['fault']}, see {path}")
      if not options.keep:
        shutil.rmtree(folder)  # An environment takes 2 GB at most.
  print("", table(rows), *faults, sep="\n")
  sys.exit(1 if faults else 0)


if __name__ == "__main__":
  main()
