"""What ruff does not hold of the house style: length, docstrings, arguments."""

import ast
from collections.abc import Callable, Iterator
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("lnrnn", "experiments", "configs", "scripts")

LINES = 350
# Files above it, and why they are not cut; below BOUND they have to be too.
BOUND = 470
LONG = {
  "experiments/downstream.py": "one program and its three ways to be called",
  "experiments/skip_thoughts.py": "one task: faults, loss, likelihood, words",
  "lnrnn/claims.py": "the rules' common words: each is a few lines",
  "lnrnn/linen_cells.py": "two cells and their base; exports name them by it",
  "lnrnn/models/draw.py": "one model",
  "lnrnn/models/handwriting.py": "one model: its loss and its sampler",
  "lnrnn/rnn.py": "one module, and the other that runs it both ways",
  "scripts/compatibility.py": "one program, alone in its environments",
}
# As long as the paper is.
DATA = {"experiments/paper.py"}

SOURCES = {
  path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
  for folder in FOLDERS
  for path in sorted((ROOT / folder).rglob("*.py"))
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def length_fault(source: str, lines: int) -> str:
  """What is wrong with a file of so many lines; empty if nothing is."""
  if source in DATA:
    return ""
  if source in LONG and lines <= LINES:
    return f"{source}: has {lines} lines: take it out of LONG"
  most = BOUND if source in LONG else LINES
  return f"{source}: has {lines} lines, {most} at most" * (lines > most)


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
  """(name, node) of a module and of what is public in it."""
  yield "the module", tree
  for node in tree.body:
    if isinstance(node, Function | ast.ClassDef) and node.name[0] != "_":
      yield node.name, node
      for inner in node.body if isinstance(node, ast.ClassDef) else ():
        # A property's setter goes by the docstring of the property.
        setter = isinstance(inner, Function) and any(
          isinstance(d, ast.Attribute) and d.attr == "setter"
          for d in inner.decorator_list
        )
        known = isinstance(inner, Function | ast.ClassDef) and not setter
        if known and (inner.name[0] != "_" or inner.name == "__call__"):
          yield f"{node.name}.{inner.name}", inner


def docstring_faults(text: str) -> list[str]:
  """What lacks a docstring."""
  tree = ast.parse(text)
  return [
    f"{name} has no docstring"
    for name, node in public(tree)
    if text.strip() and not ast.get_docstring(node)  # type: ignore
  ]


def told_arguments(docstring: str) -> list[str]:
  """The names in the section Args."""
  match = re.search(r"^Args:\n((?:  .*\n?|\n)*)", docstring, re.MULTILINE)
  section = match[1] if match else ""
  return [
    name.strip().lstrip("*")
    for line in re.findall(r"^  (\S[^:]*):", section, re.MULTILINE)
    for name in line.split(",")
  ]


def argument_faults(text: str) -> list[str]:
  """Where the section Args and the arguments are not the same, in order."""
  tree, found = ast.parse(text), []
  for name, node in public(tree):
    if isinstance(node, ast.Module):
      continue
    told = told_arguments(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
      inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
      if not (inits and told):
        continue
      node = inits[0]
    if told and told != (own := arguments(node)):
      found.append(f"{name} has {own}, its docstring {told}")
  return found


def arguments(node: Function) -> list[str]:
  """Names of a function's arguments, without self."""
  of = node.args
  every = [*of.posonlyargs, *of.args, of.vararg, *of.kwonlyargs, of.kwarg]
  return [a.arg for a in every if a and a.arg not in ("self", "cls")]


def of_all(faults: Callable[[str], list[str]]) -> list[str]:
  """The faults of all files, a line each."""
  return [f"{source}: {f}" for source, t in SOURCES.items() for f in faults(t)]


def test_no_file_is_long_without_a_reason():
  assert {*LONG, *DATA} <= SOURCES.keys()
  faults = (length_fault(s, t.count("\n")) for s, t in SOURCES.items())
  assert list(filter(None, faults)) == []


def test_what_is_public_has_a_docstring():
  assert of_all(docstring_faults) == []


def test_docstrings_tell_of_the_arguments_that_there_are():
  assert of_all(argument_faults) == []


def test_the_faults_are_found():
  assert "351 lines, 350 at" in length_fault("lnrnn/files.py", 351)
  assert "take it out" in length_fault("lnrnn/rnn.py", 350)
  assert "470 at most" in length_fault("lnrnn/rnn.py", 471)
  assert not length_fault("lnrnn/rnn.py", 470)
  text = 'def f(a, *, b=1):\n  """Does.\n\n  Args:\n    a: one.\n  """\n'
  assert docstring_faults(text) == ["the module has no docstring"]
  assert argument_faults(text) == ["f has ['a', 'b'], its docstring ['a']"]
  text = '"""M."""\nclass A:\n  """C."""\n\n  def f(self): ...\n'
  assert docstring_faults(text) == ["A.f has no docstring"]
