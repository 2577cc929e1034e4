r"""Times our training beside what else a user could pick, in turn, in one run.

  python scripts/benchmark.py mnist_mlp [--torch_python=PATH] [--out=FILE.json]

mnist_mlp: train steps per second of 784-1000-1000-10 on the embedded digits.
Ours is what `loop.train` does between two evaluations: batches read ahead by
a thread, several updates in a compiled call, the losses brought back. Beside
it stands an eager PyTorch loop doing the same work with the same parameters,
on the same bytes in a fresh random order every epoch: with its fused Adam
(torch_fused), its default Adam (torch_default) and, when asked for, with
forward and loss under torch.compile (torch_compile).

Every contender has a process of its own, on the same processors and with as
many threads. They are timed in turn, round after round (A B C A B C ...), each
turn from the same initial parameters; the table gives medians and quartiles
over the rounds, and the median of the rounds' ratios. Before, each takes three
steps from equal parameters on equal batches, and their losses must agree.

Ours runs under scripts/cpu_env.sh, as in the other scripts. PyTorch is tried
with and without these settings, and has what suits it better. It need not be
installed; --torch_python names the Python of another environment.

Exit codes: 0 done, 2 something the user can mend, said in one line.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmark_workers import TASKS

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORKERS = ROOT / "scripts" / "benchmark_workers.py"
# Largest relative difference of losses over the checked steps.
TOLERANCE = 1e-4
PILOT_TURNS = 3


class Fault(Exception):
  """What the user can mend; the message is one line."""


class Worker:
  """A process that runs one contender of a task."""

  def __init__(
    self,
    task: str,
    name: str,
    *,
    python: str,
    environment: dict[str, str],
    cpus: list[int],
  ):
    """Starts it on the given processors."""
    own = {
      "OMP_NUM_THREADS": str(len(cpus)),
      "MKL_NUM_THREADS": str(len(cpus)),
      "NPROC": str(len(cpus)),  # XLA's threads, where there is no affinity.
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": os.pathsep.join(
        filter(None, [str(ROOT), environment.get("PYTHONPATH")])
      ),
    }
    pin = getattr(os, "sched_setaffinity", None)
    self.name = name
    self._process = subprocess.Popen(
      [python, str(WORKERS), task, name],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      env=environment | own,
      preexec_fn=(lambda: pin(0, cpus)) if pin else None,
    )

  def ask(self, **command: Any) -> dict[str, Any]:
    """Its answer to a command.

    Raises:
      Fault: it failed or died.
    """
    assert self._process.stdin and self._process.stdout
    with contextlib.suppress(BrokenPipeError):
      print(json.dumps(command), file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    answer = json.loads(line) if line else {"error": "the process ended"}
    if "error" in answer:
      raise Fault(f"{self.name}: {answer['error']}")
    return answer

  def rate(self, seconds: float) -> float:
    """Steps per second of one turn."""
    answer = self.ask(run=seconds)
    time.sleep(0.02)  # Reading ahead comes to rest.
    return answer["steps"] / answer["seconds"]

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


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


def measure(
  workers: dict[str, dict[str, Worker]],
  case: dict[str, Any],
  options: argparse.Namespace,
) -> list[dict[str, Any]]:
  """Times the contenders of one case in turn.

  Args:
    workers: {contender: {environment: process}}, ours first.
    case: what the workers prepare.
    options: rounds and seconds.

  Returns:
    A row for each contender: steps/s of each round and their quartiles, those
    of the ratio of ours to it, the environment that was faster in the pilot.

  Raises:
    Fault: a worker failed, or the losses differ: not the same work.
  """
  rows: list[dict[str, Any]] = []
  turns = []
  for name, candidates in workers.items():
    answers = [worker.ask(prepare=case) for worker in candidates.values()]
    row = {"contender": name, **answers[0], "rates": []}
    rows.append(row)
    pairs = list(zip(row["losses"], rows[0]["losses"], strict=True))
    row["loss_difference"] = max(abs(a / b - 1) for a, b in pairs)
    if not row["loss_difference"] <= TOLERANCE:
      raise Fault(
        f"{name} does other work than ours: losses of the first steps, its"
        f" and ours, {pairs}"
      )
  for row in rows:
    candidates = workers[row["contender"]]
    pilot: dict[str, list[float]] = {label: [] for label in candidates}
    for _ in range(PILOT_TURNS if len(candidates) > 1 else 0):
      for label, worker in candidates.items():
        pilot[label].append(worker.rate(options.seconds))
    row["pilot"] = {k: statistics.median(v) for k, v in pilot.items() if v}
    best = max(candidates, key=lambda label, p=row["pilot"]: p.get(label, 0))
    row["environment"] = best
    turns.append(candidates[best])
  for _ in range(options.rounds):
    for row, worker in zip(rows, turns, strict=True):
      row["rates"].append(worker.rate(options.seconds))
  for row in rows:
    ratios = zip(rows[0]["rates"], row["rates"], strict=True)
    row["steps_per_s"] = quartiles(row["rates"])
    row["ratio"] = quartiles([ours / its for ours, its in ratios])
  return rows


def quartiles(values: list[float]) -> list[float]:
  """Lower quartile, median, upper quartile."""
  if len(values) == 1:
    return values * 3
  return statistics.quantiles(values, n=4, method="inclusive")


HEAD = """| norm | batch | contender | steps/s (quartiles) | ms | lnrnn / it |
| --- | --- | --- | --- | --- | --- |"""


def line(case: dict[str, Any], row: dict[str, Any]) -> str:
  """A row of the Markdown table."""
  low, median, high = row["steps_per_s"]
  cells = (
    case["norm"],
    case["batch_size"],
    row["contender"],
    f"{median:.1f} ({low:.1f} to {high:.1f})",
    f"{1e3 / median:.3f}",
    f"{row['ratio'][1]:.2f}",
  )
  return f"| {' | '.join(map(str, cells))} |"


def machine() -> dict[str, Any]:
  """Where and when this was measured."""
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line for line in info.splitlines() if "model name" in line]
    cpu = names[0].partition(":")[2].strip() if names else cpu

  def git(*words):
    with contextlib.suppress(OSError):
      done = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True
      )
      return done.stdout.strip()

  return {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "commit": git("rev-parse", "HEAD"),
    "changed": git("status", "--porcelain", "--untracked-files=no") != "",
    "system": platform.platform(),
    "cpu": cpu,
    "cpus": os.cpu_count(),
    "python": platform.python_version(),
    # Much above 0, something else is running: the numbers are worth less.
    "load": round(os.getloadavg()[0], 1),
  }


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


def start(
  stack: contextlib.ExitStack, task: str, options: argparse.Namespace
) -> dict[str, dict[str, Worker]]:
  """Starts the contenders of a task.

  Args:
    stack: ends the processes.
    task: one of `TASKS`.
    options: of the command line.

  Returns:
    {contender: {environment: process}}; ours under the allocator's settings
    alone, the others without and with them.

  Raises:
    Fault: a process cannot be had.
  """
  ours, *others = options.contenders
  python = torch_python(options.torch_python) if others else None
  if others and not python:
    print("PyTorch is not installed: ours alone is timed", file=sys.stderr)
    others = []
  settings = allocator_settings()
  plain = {k: v for k, v in os.environ.items() if k not in settings}
  environments = {"plain": plain, "cpu_env.sh": settings | dict(os.environ)}
  pythons = {ours: sys.executable} | dict.fromkeys(others, str(python))
  workers: dict[str, dict[str, Worker]] = {}
  for name in pythons:
    for label, environment in environments.items():
      if name == ours and label == "plain":
        continue
      worker = Worker(
        task,
        name,
        python=pythons[name],
        environment=environment,
        cpus=options.cpus,
      )
      stack.callback(worker.close)
      workers.setdefault(name, {})[label] = worker
  return workers


def mnist_mlp(options: argparse.Namespace) -> dict[str, Any]:
  """Times every norm at every batch size; prints the table as it is known.

  Args:
    options: of the command line.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: as `measure` and `start`.
  """
  about, results = machine(), []
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    workers = start(stack, "mnist_mlp", options)
    print(
      f"{about['cpu']}, {options.threads} threads, load before the run"
      f" {about['load']}\n\n{HEAD}",
      flush=True,
    )
    for norm, b in itertools.product(options.norms, options.batch_sizes):
      case = {"norm": norm, "batch_size": b, "hidden": options.hidden}
      private = {
        "threads": options.threads,
        "problem": os.path.join(folder, f"{norm}_{b}.npz"),
      }
      rows = measure(workers, case | private, options)
      print("\n".join(line(case, row) for row in rows), flush=True)
      results += [case | row for row in rows]
  given = ("threads", "cpus", "rounds", "seconds")
  return {
    "machine": about,
    **{name: getattr(options, name) for name in given},
    "settings": allocator_settings(),
    "results": results,
  }


class _Parser(argparse.ArgumentParser):
  """Tells a fault in one line, and all subcommands' flags under --help."""

  def error(self, message: str):
    self.exit(2, f"error: {message}\n")


def _list_of(kind, allowed=None):
  """Reads "a,b" into a list of `kind`, each among or above `allowed`."""

  def read(text):
    values = [kind(part) for part in text.split(",")]
    for value in values:
      if isinstance(allowed, tuple) and value not in allowed:
        raise argparse.ArgumentTypeError(
          f"{value!r} is not one of {', '.join(allowed)}"
        )
      if kind is int and value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return values

  read.__name__ = f"list of {kind.__name__}"
  return read


def _positive(kind):
  def read(text):
    if not kind(text) > 0:
      raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return kind(text)

  read.__name__ = kind.__name__
  return read


def processors() -> list[int]:
  """Those that we may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def parser() -> argparse.ArgumentParser:
  """The command line: a subcommand for each task."""
  common = _Parser(add_help=False, allow_abbrev=False)
  add = common.add_argument
  add("--threads", type=_positive(int), default=min(2, len(processors())))
  add("--rounds", type=_positive(int), default=7, help="Turns of each.")
  add("--seconds", type=_positive(float), default=1.0, help="Of a turn.")
  add("--torch_python", help="Python with PyTorch, if not this one.")
  add("--out", type=pathlib.Path, help="JSON file to write.")
  top = _Parser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  tasks = top.add_subparsers(dest="task", required=True, metavar="TASK")
  task = tasks.add_parser("mnist_mlp", parents=[common], allow_abbrev=False)
  add = task.add_argument
  norms = ("none", "layer", "batch")
  add("--norms", type=_list_of(str, norms), default=list(norms))
  add("--batch_sizes", type=_list_of(int), default=[128, 4])
  add("--hidden", type=_list_of(int), default=[1000, 1000])
  names = tuple(TASKS["mnist_mlp"])
  add(
    "--contenders",
    type=_list_of(str, names),
    default=list(names[:3]),
    help=f"Of {', '.join(names)}; lnrnn always takes part.",
  )
  top.epilog = task.format_help()
  return top


def main() -> None:
  """Runs the subcommand."""
  top = parser()
  options = top.parse_args()
  names = [n for n in options.contenders if n != "lnrnn"]
  options.contenders = ["lnrnn", *dict.fromkeys(names)]
  there = processors()
  options.cpus = there[: options.threads]
  if len(options.cpus) < options.threads:
    top.error(f"--threads={options.threads}: there are {len(there)} processors")
  if "batch" in options.norms and 1 in options.batch_sizes:
    top.error("--batch_sizes=1: batch norm needs at least 2; use --norms")
  if options.out and not options.out.absolute().parent.is_dir():
    top.error(f"--out={options.out}: there is no such folder")
  try:
    found = globals()[options.task](options)
  except Fault as e:
    top.error(str(e))
  if options.out:
    text = json.dumps(found, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  main()
