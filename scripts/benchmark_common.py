"""What the tasks of scripts/benchmark.py share; the standard library alone.

A worker is a process that holds contenders. The benchmark tells it to prepare
some of them for a case, and then gives each its turns.
"""

import argparse
from collections.abc import Callable, Mapping
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PILOT_TURNS = 3

# One turn of about so many seconds: (steps, seconds).
Run = Callable[[float], tuple[int, float]]
Row = dict[str, Any]


class Fault(Exception):
  """What the user can mend; the message is one line."""


class Worker:
  """A process that runs contenders."""

  def __init__(
    self,
    script: str,
    *,
    python: str,
    environment: Mapping[str, str],
    cpus: list[int] | None,
  ):
    """Starts it.

    Args:
      script: of this folder, which calls `serve`.
      python: that runs it.
      environment: its environment variables.
      cpus: the processors it may use; None for a GPU: no such limits, and JAX
        chooses its device.
    """
    path = [str(ROOT), environment.get("PYTHONPATH")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    if cpus is None:
      own["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch needs some too.
    else:
      own |= {
        "OMP_NUM_THREADS": str(len(cpus)),
        "MKL_NUM_THREADS": str(len(cpus)),
        "NPROC": str(len(cpus)),  # XLA's threads, where there is no affinity.
        "JAX_PLATFORMS": "cpu",
      }
    pin = getattr(os, "sched_setaffinity", None) if cpus else None
    self._process = subprocess.Popen(
      [python, str(ROOT / "scripts" / script)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      env={**environment, **own},
      preexec_fn=(lambda: pin(0, cpus)) if pin else None,
    )

  def ask(self, name: str, **command: Any) -> dict[str, Any]:
    """The answer of a contender to a command.

    Raises:
      Fault: it failed or died.
    """
    assert self._process.stdin and self._process.stdout
    line = json.dumps({"name": name, **command})
    with contextlib.suppress(BrokenPipeError):
      print(line, file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    answer = json.loads(line) if line else {"error": "the process ended"}
    if "error" in answer:
      raise Fault(f"{name}: {answer['error']}")
    return answer

  def rate(self, name: str, seconds: float) -> float:
    """Steps per second of one turn of a contender."""
    answer = self.ask(name, run=seconds)
    time.sleep(0.02)  # Reading ahead comes to rest.
    return answer["steps"] / answer["seconds"]

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


def serve(make: Callable[[str, dict[str, Any]], tuple[Run, Row]]) -> None:
  """A worker's loop: reads a JSON command a line, answers a JSON line.

  prepare {case}: what `make` tells of the contender.
  run {seconds}: steps and seconds of one turn.

  Args:
    make: of a contender's name and a case, its turn and what to answer.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Stray prints are no answers.
  runs: dict[str, Run] = {}
  last = None
  for line in sys.stdin:
    command = json.loads(line)
    name = command["name"]
    try:
      if case := command.get("prepare"):
        if case != last:
          runs.clear()  # Frees the case before.
        last = case
        runs[name], answer = make(name, case)
        runs[name](0)  # Compiles and warms up.
      else:
        steps, seconds = runs[name](command["run"])
        answer = {"steps": steps, "seconds": seconds}
    except Exception as e:
      text = " ".join(str(e).split())[:300]
      answer = {"error": f"{type(e).__name__}: {text}"}
    print(json.dumps(answer), file=answers, flush=True)


class Turns:
  """The turns of a contender."""

  def __init__(self, step: Callable[[], Any]):
    """Takes a step, which ends when its results are there."""
    self._step = step
    self._last = 0.0

  def run(self, seconds: float) -> tuple[int, float]:
    """Takes steps for about `seconds`, at least one: (steps, seconds)."""
    if self._last < 0.15:  # Longer ones forget who had the caches before.
      self._step()
    steps, began, spent = 0, time.perf_counter(), 0.0
    while not steps or spent < seconds:
      self._step()
      steps += 1
      spent = time.perf_counter() - began
    self._last = spent / steps
    return steps, spent


def start(
  stack: contextlib.ExitStack,
  options: argparse.Namespace,
  kinds: Mapping[str, str],
  *,
  gpu: bool = False,
) -> dict[str, dict[str, Worker]]:
  """Starts a process for the contenders on JAX, and for those on PyTorch.

  JAX's runs under the allocator's settings alone, PyTorch's without and with.
  On a GPU there are no such settings.

  Args:
    stack: ends them.
    options: of the command line.
    kinds: {contender: "jax" or "torch"}; the worker of a kind is the script
      benchmark_TASK_KIND.py.
    gpu: whether they run on one.

  Returns:
    {contender: {environment: process}}, of those that can run here.

  Raises:
    Fault: the Python that was named has no PyTorch.
  """
  wanted = options.contenders
  torch = [n for n in wanted if kinds[n] == "torch"]
  python = torch_python(options.torch_python) if torch else None
  if torch and not python:
    print("PyTorch is not installed: timed without it", file=sys.stderr)
    wanted = [n for n in wanted if n not in torch]
  plain, tuned = environments()
  both = {"plain": plain, "cpu_env.sh": tuned}
  labelled = {
    "jax": {"plain": plain} if gpu else {"cpu_env.sh": tuned},
    "torch": {"plain": plain} if gpu else both,
  }
  pythons = {"jax": sys.executable, "torch": str(python)}
  started: dict[str, dict[str, Worker]] = {}
  for kind in dict.fromkeys(kinds[name] for name in wanted):
    started[kind] = {
      label: Worker(
        f"benchmark_{options.task}_{kind}.py",
        python=pythons[kind],
        environment=environment,
        cpus=None if gpu else options.cpus,
      )
      for label, environment in labelled[kind].items()
    }
    for worker in started[kind].values():
      stack.callback(worker.close)
  return {name: started[kinds[name]] for name in wanted}


def measure(
  workers: dict[str, dict[str, Worker]],
  case: dict[str, Any],
  options: argparse.Namespace,
  check: Callable[[Row, Row], None],
) -> list[Row]:
  """Times the contenders of one case in turn.

  Args:
    workers: {contender: {environment: process}}, ours first.
    case: what the workers prepare.
    options: rounds and seconds.
    check: of a contender's row and ours; raises where the work differs.

  Returns:
    A row for each contender: what it answered, the environment that was faster
    in the pilot, steps/s of each round.

  Raises:
    Fault: a worker failed, or of `check`.
  """
  rows: list[Row] = []
  turns = []
  for name, candidates in workers.items():
    answers = [worker.ask(name, prepare=case) for worker in candidates.values()]
    rows.append({"contender": name, **answers[0], "rates": []})
    check(rows[-1], rows[0])
  for row in rows:
    name = row["contender"]
    candidates = workers[name]
    pilot: dict[str, list[float]] = {label: [] for label in candidates}
    for _ in range(PILOT_TURNS if len(candidates) > 1 else 0):
      for label, worker in candidates.items():
        pilot[label].append(worker.rate(name, options.seconds))
    row["pilot"] = {k: statistics.median(v) for k, v in pilot.items() if v}
    best = max(candidates, key=lambda label, p=row["pilot"]: p.get(label, 0))
    row["environment"] = best
    turns.append(candidates[best])
  for _ in range(options.rounds):
    for row, worker in zip(rows, turns, strict=True):
      row["rates"].append(worker.rate(row["contender"], options.seconds))
  return rows


def quartiles(values: list[float]) -> list[float]:
  """Lower quartile, median, upper quartile."""
  if len(values) == 1:
    return values * 3
  return statistics.quantiles(values, n=4, method="inclusive")


def table_row(*cells: object) -> str:
  """A row of a Markdown table."""
  return f"| {' | '.join(map(str, cells))} |"


def environments() -> tuple[dict[str, str], dict[str, str]]:
  """Ours without the settings of scripts/cpu_env.sh, and with them."""
  settings = allocator_settings()
  plain = {k: v for k, v in os.environ.items() if k not in settings}
  return plain, settings | dict(os.environ)


def allocator_settings() -> dict[str, str]:
  """What scripts/cpu_env.sh sets in an empty environment."""

  def environment(*commands: str) -> dict[str, str]:
    done = subprocess.run(
      ["sh", "-c", "; ".join([*commands, "env"])],
      cwd=ROOT,
      env={"PATH": os.environ.get("PATH", os.defpath)},
      capture_output=True,
      text=True,
      check=True,
    )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}

  before = environment()
  after = environment(". scripts/cpu_env.sh")
  return {k: v for k, v in after.items() if before.get(k) != v}


def torch_python(path: str | None) -> str | None:
  """The Python that has PyTorch, None if there is none.

  Raises:
    Fault: the one that was named has none.
  """
  python = path or sys.executable
  try:
    done = subprocess.run([python, "-c", "import torch"], capture_output=True)
  except OSError as e:
    raise Fault(f"--torch_python={path}: {e.strerror}") from None
  if done.returncode == 0:
    return python
  if path:
    raise Fault(f"--torch_python={path}: it cannot import torch")
  return None


def report(
  about: dict[str, Any], options: argparse.Namespace, **found: Any
) -> dict[str, Any]:
  """What goes into the JSON file, of every task."""
  given = ("threads", "cpus", "rounds", "seconds")
  return {
    "machine": about,
    **{name: getattr(options, name) for name in given},
    "settings": allocator_settings(),
    **found,
  }
