"""Every code block of the documentation runs.

The convention, for README.md, CONTRIBUTING.md and docs/**/*.md:

* Each fence names its language: python, bash, or one that is text.
* `python` blocks run in order, in one namespace a file.
* `bash` blocks run one by one, and must succeed. `python` is the one that runs
  the tests.
* Both run in a folder that looks like the repository root, but where `runs/`
  and all else that is written is thrown away.
* ```` ```bash no-run="reason" ```` is for what takes long or changes the
  machine. It is checked instead: each program and file exists, each flag is in
  the program's --help, each config loads with its arguments and overrides.
  A `python` block so marked is compiled.
"""

import dataclasses
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from lnrnn.training.config import load_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = {"bibtex", "csv", "diff", "json", "markdown", "text", "toml", "yaml"}
# Commands of a no-run block that belong to the machine, not to us.
TOOLS = {"bash", "cd", "cp", "curl", "export", "git", "ls", "mkdir", "pip"}
TOOLS |= {"gcloud", "mpirun", "pre-commit", "rm", "sbatch", "source", "srun"}
TOOLS |= {"hf", "tensorboard", "uv"}
FENCE = re.compile(r"^( *)(```+)(.*)\n((?:.*\n)*?)\1\2 *$", re.MULTILINE)
NO_RUN = re.compile(r'no-run="([^"]+)"')


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block of code."""

  file: str
  line: int
  language: str
  info: str
  code: str

  @property
  def runs(self) -> bool:
    return "no-run" not in self.info


def blocks(file: str, text: str) -> list[Block]:
  """All fenced blocks of a Markdown text."""
  found = []
  for match in FENCE.finditer(text):
    indent, _, info, code = match.groups()
    language, _, rest = info.strip().partition(" ")
    line = text.count("\n", 0, match.start()) + 2
    code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
    found.append(Block(file, line, language, rest, code))
  return found


def fault_of_fence(block: Block) -> str:
  """What is wrong with the info string; empty if nothing is."""
  if block.language not in TEXT | {"python", "bash"}:
    return f"language {block.language!r}: name python, bash or a text language"
  if not block.runs and not NO_RUN.fullmatch(block.info):
    return f'{block.info!r}: write no-run="reason"'
  if block.runs and block.info:
    return f"{block.info!r} is not understood"
  return ""


@functools.cache
def help_of(program: tuple[str, ...]) -> str:
  """The --help of one of our programs."""
  done = subprocess.run(
    [sys.executable, *program, "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  return done.stdout + done.stderr


def commands(code: str) -> list[list[str]]:
  """The commands of a bash block, as words, without `VAR=value` in front."""
  found: list[list[str]] = []
  for line in code.replace("\\\n", " ").splitlines():
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
      if set(word) <= set(";&|"):
        if words:
          found.append(words)
        words = []
      elif words or not re.match(r"\w+=", word):
        words.append(word)
  return found


def faults_of_command(words: list[str]) -> list[str]:
  """Checks a command without running it."""
  first, *rest = words
  if first == "python" and rest[:1] == ["-m"]:
    program, rest = ("-m", rest[1]), rest[2:]
    path = ROOT / f"{program[1].replace('.', '/')}.py"
    if not program[1].startswith("experiments."):
      return []
  elif first == "python" and rest and rest[0].endswith(".py"):
    program, rest = (rest[0],), rest[1:]
    path = ROOT / program[0]
  elif "/" in first:
    good = os.access(ROOT / first, os.X_OK)
    return [] if good else [f"{first} is not an executable file"]
  else:
    return [] if first in TOOLS | {"python"} else [f"{first} is unknown"]
  if not path.is_file():
    return [f"{path.relative_to(ROOT)} does not exist"]

  found, spec, overrides = [], None, []
  for word in rest:
    flag, _, value = word.partition("=")
    if flag == "--config":
      spec = value
    elif flag.startswith("--config."):
      overrides.append(word.removeprefix("--config."))
    elif flag.startswith("--"):
      name = flag.removeprefix("--").removeprefix("no")
      if not re.search(rf"--(\[no\]|no)?{name}\b", help_of(program)):
        found.append(f"{' '.join(program)} has no flag {flag}")
  if spec is not None:
    try:
      load_config(spec, overrides)
    except Exception as e:
      found.append(f"--config={spec} {overrides}: {e}")
  return found


FILES = sorted(
  path.relative_to(ROOT).as_posix()
  for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
  for path in ROOT.glob(pattern)
)
BLOCKS = {
  file: blocks(file, (ROOT / file).read_text(encoding="utf-8"))
  for file in FILES
}
BASH = [b for bs in BLOCKS.values() for b in bs if b.language == "bash"]


@pytest.fixture
def replica(tmp_path, monkeypatch):
  """A folder that looks like the repository root, and is the working one."""
  for path in ROOT.iterdir():
    if path.name not in {".git", ".venv", "build", "runs"}:
      (tmp_path / path.name).symlink_to(path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize("file", FILES)
def test_every_fence_is_understood(file):
  bad = {f"{file}:{b.line}": fault_of_fence(b) for b in BLOCKS[file]}
  assert not {where: fault for where, fault in bad.items() if fault}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.usefixtures("replica")
def test_the_python_blocks_run(file):
  namespace = {"__name__": "__docs__"}
  for block in BLOCKS[file]:
    if block.language == "python":
      # Blank lines in front, so that a traceback shows the line of the file.
      source = "\n" * (block.line - 1) + block.code
      code = compile(source, str(ROOT / file), "exec")
      if block.runs:
        exec(code, namespace)


@pytest.mark.parametrize("block", BASH, ids=lambda b: f"{b.file}:{b.line}")
def test_the_bash_blocks_run(block, replica):
  if not block.runs:
    found = [f for c in commands(block.code) for f in faults_of_command(c)]
    assert found == []
    return
  path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  done = subprocess.run(
    ["bash", "-euo", "pipefail", "-c", block.code],
    cwd=replica,
    env=os.environ | {"PATH": path},
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stdout + done.stderr


TRAIN = "python -m experiments.train --workdir=runs/a --config="


@pytest.mark.parametrize(
  ("code", "fault"),
  [
    (f"{TRAIN}configs/mnist_mlp.py:norm=layer,batch_size=4", None),
    (f"A=1 {TRAIN}configs/mnist_mlp.py \\\n  --config.seed=3 && ls", None),
    ("cd lnrnn; ./scripts/test.sh -m long  # the slow ones", None),
    (f"{TRAIN}configs/mnist_mlpp.py", "mnist_mlpp"),
    (f"{TRAIN}configs/mnist_mlp.py:nrom=layer", "nrom"),
    (f"{TRAIN}configs/mnist_mlp.py --config.btch_size=4", "btch_size"),
    (f"{TRAIN}configs/mnist_mlp.py --wrkdir=a", "has no flag --wrkdir"),
    ("python -m experiments.trian", "experiments/trian.py does not exist"),
    ("ls && ./scripts/tset.sh", "./scripts/tset.sh is not an executable"),
    ("frobnicate", "frobnicate is unknown"),
  ],
)
def test_a_wrong_command_is_found(code, fault, monkeypatch):
  monkeypatch.chdir(ROOT)
  found = [f for c in commands(code) for f in faults_of_command(c)]
  if fault is None:
    assert found == []
  else:
    (line,) = found
    assert fault in line


def test_a_wrong_fence_is_found():
  text = 'a\n```bash no-run="long"\nx\n```\n\n1. b\n   ```\n   y\n   ```\n'
  good, bad = blocks("a.md", text + "```bash norun\nz\n```\n")[:2]
  assert (good.line, good.runs, good.code) == (3, False, "x\n")
  assert fault_of_fence(good) == ""
  assert (bad.line, bad.code) == (8, "y\n")
  assert "language ''" in fault_of_fence(bad)
  assert "norun" in fault_of_fence(Block("a.md", 1, "bash", "norun", ""))
  assert "reason" in fault_of_fence(Block("a.md", 1, "bash", "no-run", ""))
