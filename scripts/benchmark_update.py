"""What the tasks of scripts/benchmark.py that time a model's update share.

An update is as its config has it: the loss, its gradients by all parameters,
their norm and clipping, and Adam. Before, all contenders must agree with ours
in the loss and in its gradients, from equal parameters (not those of a start)
and equal data; those of handwriting are compared over the first points.

Ratios are of times: below 1, ours is the faster. Memory is what XLA plans for
temporaries, and what PyTorch keeps from the way forward for the way back.
"""

import argparse
import contextlib
import os
import tempfile
from typing import Any

import benchmark_common as common
from benchmark_common import Fault, Row
import benchmark_machine

NORMS = ("layer", "none")
# Largest difference from ours: of the loss, and of each parameter's gradient
# relative to its largest element.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3

HEAD = """| case | contender | ms (quartiles) | lnrnn / it | memory MiB |
| --- | --- | --- | --- | --- |"""


def run(
  options: argparse.Namespace,
  contenders: dict[str, str],
  cases: list[dict[str, Any]],
) -> dict[str, Any]:
  """Times the contenders in every case; prints the table as it is known.

  Args:
    options: of the command line.
    contenders: {name: "jax" or "torch"}.
    cases: what the workers prepare; what differs is told in the table.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: a contender fails or does other work, or a flag is wrong.
  """
  about, results = benchmark_machine.machine(), []
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    workers = common.start(stack, options, contenders)
    print(
      f"{about['cpu']}, {options.threads} threads, load before the run"
      f" {about['load']}\n\n{HEAD}",
      flush=True,
    )
    for i, case in enumerate(cases):
      private = {
        "threads": options.threads,
        "problem": os.path.join(folder, f"{i}.npz"),
      }
      rows = common.measure(workers, case | private, options, check)
      for row in rows:
        ratios = zip(row["rates"], rows[0]["rates"], strict=True)
        row["ms"] = common.quartiles([1e3 / rate for rate in row["rates"]])
        row["ratio"] = common.quartiles([its / ours for its, ours in ratios])
        print(_line(case, row), flush=True)
      results += [case | row for row in rows]
  return common.report(about, options, results=results)


def check(row: Row, ours: Row) -> None:
  """Raises where a contender does other work than ours."""
  row["loss_difference"] = abs(row["loss"] / ours["loss"] - 1)
  good = row["loss_difference"] <= LOSS_TOLERANCE
  if not (good and row["gradient_difference"] <= GRADIENT_TOLERANCE):
    raise Fault(
      f"{row['contender']} does other work than ours: its loss is"
      f" {row['loss']:.6g}, ours {ours['loss']:.6g}; the gradients of"
      f" {row['worst']} differ by {row['gradient_difference']:.2g} of the"
      " largest"
    )


def _line(case: dict[str, Any], row: Row) -> str:
  low, median, high = row["ms"]
  memory = row["memory_mib"]
  return common.table_row(
    ", ".join(f"{name} {value}" for name, value in case.items()),
    row["contender"],
    f"{median:.1f} ({low:.1f} to {high:.1f})",
    f"{row['ratio'][1]:.2f}",
    "" if memory is None else f"{memory:.0f}",
  )
