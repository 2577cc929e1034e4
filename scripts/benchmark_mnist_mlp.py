"""The task mnist_mlp of scripts/benchmark.py.

Train steps per second of 784-1000-1000-10 on the embedded digits. Ours is what
`loop.train` does between two evaluations: batches read ahead by a thread,
several updates in a compiled call, the losses brought back. Beside it stands
an eager PyTorch loop doing the same work with the same parameters, on the same
bytes in a fresh random order every epoch: with its fused Adam (torch_fused),
its default Adam (torch_default) and, when asked for, with forward and loss
under torch.compile (torch_compile).

Every contender has a process of its own. Each turn starts from the same
initial parameters. Before, each contender takes three steps from equal
parameters on equal batches, and their losses must agree.
"""

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from typing import Any

import benchmark_common as common
from benchmark_common import Fault, Row, Worker
import benchmark_machine
from benchmark_mnist_mlp_workers import CONTENDERS as CONTENDERS

SCRIPT = "benchmark_mnist_mlp_workers.py"
NORMS = ("none", "layer", "batch")
# Largest relative difference of losses over the checked steps.
TOLERANCE = 1e-4

HEAD = """| norm | batch | contender | steps/s (quartiles) | ms | lnrnn / it |
| --- | --- | --- | --- | --- | --- |"""


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times every norm at every batch size; prints the table as it is known.

  Args:
    options: of the command line.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: a contender fails or does other work, or a flag is wrong.
  """
  if "batch" in options.norms and 1 in options.batch_sizes:
    raise Fault("--batch_sizes=1: batch norm needs at least 2; use --norms")
  about, results = benchmark_machine.machine(), []
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    workers = _start(stack, options)
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
      rows = common.measure(workers, case | private, options, _check)
      for row in rows:
        ratios = zip(rows[0]["rates"], row["rates"], strict=True)
        row["steps_per_s"] = common.quartiles(row["rates"])
        row["ratio"] = common.quartiles([ours / its for ours, its in ratios])
        print(_line(case, row), flush=True)
      results += [case | row for row in rows]
  return common.report(about, options, results=results)


def _start(
  stack: contextlib.ExitStack, options: argparse.Namespace
) -> dict[str, dict[str, Worker]]:
  """Starts {contender: {environment: process}}; the stack ends them.

  Ours runs under the allocator's settings alone, the others without and with.
  """
  ours, *others = options.contenders
  python = common.torch_python(options.torch_python) if others else None
  if others and not python:
    print("PyTorch is not installed: ours alone is timed", file=sys.stderr)
    others = []
  plain, tuned = common.environments()
  workers: dict[str, dict[str, Worker]] = {}
  for name in (ours, *others):
    labelled = {"plain": plain, "cpu_env.sh": tuned}
    if name == ours:
      del labelled["plain"]
    for label, environment in labelled.items():
      worker = Worker(
        SCRIPT,
        python=sys.executable if name == ours else str(python),
        environment=environment,
        cpus=options.cpus,
      )
      stack.callback(worker.close)
      workers.setdefault(name, {})[label] = worker
  return workers


def _check(row: Row, ours: Row) -> None:
  pairs = list(zip(row["losses"], ours["losses"], strict=True))
  row["loss_difference"] = max(abs(a / b - 1) for a, b in pairs)
  if not row["loss_difference"] <= TOLERANCE:
    raise Fault(
      f"{row['contender']} does other work than ours: losses of the first"
      f" steps, its and ours, {pairs}"
    )


def _line(case: dict[str, Any], row: Row) -> str:
  low, median, high = row["steps_per_s"]
  return common.table_row(
    case["norm"],
    case["batch_size"],
    row["contender"],
    f"{median:.1f} ({low:.1f} to {high:.1f})",
    f"{1e3 / median:.3f}",
    f"{row['ratio'][1]:.2f}",
  )
