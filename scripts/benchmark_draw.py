"""The task draw of scripts/benchmark.py.

An update of DRAW as configs/draw.py has it: the bound, its gradients by all
parameters, their norm and clipping, and Adam. The contenders are

  lnrnn         ours
  lnrnn_plain   ours, differentiated by JAX alone (model.backward=plain)
  torch_eager   the same model in PyTorch, a plain loop over the glimpses
  torch_script  the same under torch.jit.script

Before, all must agree with ours in the bound and in its gradients, from equal
parameters (not those of a start, where the windows hardly move), images and
latent noise. PyTorch runs without and with the settings of scripts/cpu_env.sh
and has what suits it better.

Ratios are of times: below 1, ours is the faster. Memory is what XLA plans for
temporaries, and what PyTorch keeps from the way forward for the way back.
"""

import argparse
import contextlib
import itertools
import os
import tempfile
from typing import Any

import benchmark_common as common
from benchmark_common import Fault, Row

# Contender -> who runs it.
CONTENDERS = {
  "lnrnn": "jax",
  "lnrnn_plain": "jax",
  "torch_eager": "torch",
  "torch_script": "torch",
}
NORMS = ("layer", "none")
# Largest difference from ours: of the bound, and of each parameter's gradient
# relative to its largest element.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3

HEAD = """| norm | contender | ms (quartiles) | lnrnn / it | memory MiB |
| --- | --- | --- | --- | --- |"""


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times the contenders for every norm; prints the table as it is known.

  Args:
    options: of the command line.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: a contender fails or does other work, or a flag is wrong.
  """
  about, results = common.machine(), []
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    workers = common.start(stack, options, CONTENDERS)
    print(
      f"{about['cpu']}, {options.threads} threads, load before the run"
      f" {about['load']}\n\n{HEAD}",
      flush=True,
    )
    for norm, b in itertools.product(options.norms, options.batch_sizes):
      case = {"norm": norm, "batch_size": b, "glimpses": options.glimpses}
      private = {
        "threads": options.threads,
        "problem": os.path.join(folder, f"{norm}_{b}.npz"),
      }
      rows = common.measure(workers, case | private, options, _check)
      for row in rows:
        ratios = zip(row["rates"], rows[0]["rates"], strict=True)
        row["ms"] = common.quartiles([1e3 / rate for rate in row["rates"]])
        row["ratio"] = common.quartiles([its / ours for its, ours in ratios])
        print(_line(case, row), flush=True)
      results += [case | row for row in rows]
  return common.report(about, options, results=results)


def _check(row: Row, ours: Row) -> None:
  row["loss_difference"] = abs(row["loss"] / ours["loss"] - 1)
  good = row["loss_difference"] <= LOSS_TOLERANCE
  if not (good and row["gradient_difference"] <= GRADIENT_TOLERANCE):
    raise Fault(
      f"{row['contender']} does other work than ours: its bound is"
      f" {row['loss']:.6g}, ours {ours['loss']:.6g}; the gradients of"
      f" {row['worst']} differ by {row['gradient_difference']:.2g} of the"
      " largest"
    )


def _line(case: dict[str, Any], row: Row) -> str:
  low, median, high = row["ms"]
  memory = row["memory_mib"]
  return common.table_row(
    case["norm"],
    row["contender"],
    f"{median:.1f} ({low:.1f} to {high:.1f})",
    f"{row['ratio'][1]:.2f}",
    "" if memory is None else f"{memory:.0f}",
  )
