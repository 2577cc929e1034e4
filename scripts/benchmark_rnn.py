"""The task rnn of scripts/benchmark.py.

A train step of one recurrent layer: forward and backward through time, with
the gradients of all parameters and of the inputs. The loss is the inner
product of the outputs with fixed random numbers. The contenders are

  lnrnn         our layer with layer norm; lnrnn_none, lnrnn_rms and
                lnrnn_weight are ours with another norm
  naive         lax.scan with everything inside the step, and autodiff
  hoist         the inputs' product and its norm before the scan, and autodiff
  flax          flax's own layer, without norm
  torch_nn      PyTorch's own layer, without norm; on a GPU that of cuDNN
  torch_eager   layer norm in an eager loop, the inputs' term before it
  torch_script  the same under torch.jit.script
  torch_fn      layer norm with a backward pass written by hand
  chain_jax     the matrix products that must follow one another in time,
  chain_torch   and nothing else: one forward, one backward a step
  bulk_jax      those that can be made for all time steps at once
  bulk_torch

The GEMM floor is the faster chain and the faster bulk together.

JAX's contenders share a process, and PyTorch's another (without and with the
settings of scripts/cpu_env.sh). Whoever computes layer norm must agree with
ours from equal parameters over the first time steps, in the loss and in the
gradient of the inputs; over hundreds of steps, rounding decides the numbers.

All ratios are of times: below 1, the first is the faster. Temporaries are
those that XLA plans for a step; compile is tracing and compiling.
"""

import argparse
import contextlib
import dataclasses
import os
import statistics
import tempfile
from typing import Any

import benchmark_common as common
from benchmark_common import Fault, Row
import benchmark_machine

CASES = {
  "handwriting": "lstm:8:500:3:400",
  "draw": "lstm:128:64:256:256",
  "attentive_reader": "lstm:64:100:240:240",
  "order_embedding": "gru:128:30:300:1024",
  "skip_thoughts": "gru:64:30:620:2400",
  "wide": "lstm:8:250:3:800",
}
# Contender -> who runs it.
CONTENDERS = {
  "lnrnn": "jax",
  "naive": "jax",
  "hoist": "jax",
  "flax": "jax",
  "lnrnn_none": "jax",
  "lnrnn_rms": "jax",
  "lnrnn_weight": "jax",
  "chain_jax": "jax",
  "bulk_jax": "jax",
  "torch_nn": "torch",
  "torch_eager": "torch",
  "torch_script": "torch",
  "torch_fn": "torch",
  "chain_torch": "torch",
  "bulk_torch": "torch",
}
DEFAULT = [n for n in CONTENDERS if n not in ("lnrnn_rms", "lnrnn_weight")]
TORCH_NORMED = ("torch_eager", "torch_script", "torch_fn")
PRECISIONS = ("float32", "tensorfloat32")
# Largest difference from ours over the first time steps: of the loss, and of
# the inputs' gradient relative to its largest element.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3

HEAD = """| contender | ms (quartiles) | lnrnn / it | temporaries MiB | \
compile s |
| --- | --- | --- | --- | --- |"""


@dataclasses.dataclass(frozen=True)
class Case:
  """The sizes of a layer and its inputs."""

  name: str
  kind: str
  batch: int
  steps: int
  inputs: int
  hidden: int

  @staticmethod
  def of(text: str) -> "Case":
    """One of `CASES` by its name, or KIND:BATCH:STEPS:INPUT:HIDDEN.

    Raises:
      ValueError: it is neither.
    """
    kind, *sizes = CASES.get(text, text).split(":")
    good = all(size.isdecimal() and int(size) for size in sizes)
    if kind not in ("lstm", "gru") or len(sizes) != 4 or not good:
      raise ValueError(
        f"{text!r} is not one of {', '.join(CASES)}, nor"
        " KIND:BATCH:STEPS:INPUT:HIDDEN with KIND lstm or gru"
      )
    return Case(text, kind, *map(int, sizes))


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times the contenders on every case; prints the tables as they are known.

  Args:
    options: of the command line.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: a contender fails or does other work, or a flag is wrong.
  """
  gpu = options.device == "gpu"
  if not gpu and options.precision != "float32":
    raise Fault(f"--precision={options.precision}: needs --device=gpu")
  about, results, summaries = benchmark_machine.machine(), [], []
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    workers = common.start(stack, options, CONTENDERS, gpu=gpu)
    threads = "GPU" if gpu else f"{options.threads} threads"
    print(
      f"{about['cpu']}, {threads}, load before the run {about['load']}",
      flush=True,
    )
    for case in options.cases:
      private = {
        "threads": options.threads,
        "device": options.device,
        "precision": options.precision,
        "problem": os.path.join(folder, "problem.npz"),
      }
      sizes = dataclasses.asdict(case)
      rows = common.measure(workers, sizes | private, options, _check)
      for row in rows:
        row["ms"] = common.quartiles([1e3 / rate for rate in row["rates"]])
        row["ratio"] = _ratio([rows[0]], [row])
      summaries.append({"case": case.name, **_summary(rows)})
      print(
        f"\n{case.name}: {case.kind}, batch {case.batch}, {case.steps} steps,"
        f" {case.inputs} -> {case.hidden}\n\n{HEAD}",
        *map(_line, rows),
        sep="\n",
        flush=True,
      )
      results += [{"case": sizes} | row for row in rows]
  print(f"\n{_table(summaries)}")
  chosen = {"device": options.device, "precision": options.precision}
  found = common.report(
    about, options, **chosen, results=results, summaries=summaries
  )
  if gpu:
    found |= {"cpus": None, "threads": None, "settings": {}}
  return found


def _check(row: Row, ours: Row) -> None:
  if "loss" not in row:  # Without layer norm, there is nothing to compare.
    return
  row["loss_difference"] = abs(row["loss"] / ours["loss"] - 1)
  good = row["loss_difference"] <= LOSS_TOLERANCE
  if not (good and row["gradient_difference"] <= GRADIENT_TOLERANCE):
    raise Fault(
      f"{row['contender']} does other work than ours: over the first steps its"
      f" loss is {row['loss']:.6g}, ours {ours['loss']:.6g}; the gradients of"
      f" the inputs differ by {row['gradient_difference']:.2g} of the largest"
    )


def _ratio(over: list[Row], under: list[Row]) -> list[float]:
  """Quartiles over the rounds of the ratio of two sums of times."""
  times = [
    [sum(1 / rate for rate in rates) for rates in zip(*side, strict=True)]
    for side in ([row["rates"] for row in rows] for rows in (over, under))
  ]
  return common.quartiles([a / b for a, b in zip(*times, strict=True)])


def _summary(rows: list[Row]) -> dict[str, Any]:
  """The ratios of one case; None where a contender did not take part."""
  there = {row["contender"]: row for row in rows}

  def best(*names: str) -> list[Row]:
    found = [there[name] for name in names if name in there]
    return [min(found, key=lambda row: row["ms"][1])] if found else []

  def ratio(over: list[Row], under: list[Row]) -> list[float] | None:
    return _ratio(over, under) if over and under else None

  ours, none, torch = best("lnrnn"), best("lnrnn_none"), best(*TORCH_NORMED)
  chain = best("chain_jax", "chain_torch")
  bulk = best("bulk_jax", "bulk_torch")
  found: dict[str, Any] = {
    "lnrnn / naive": ratio(ours, best("naive")),
    "lnrnn / hoist": ratio(ours, best("hoist")),
    "lnrnn / best PyTorch LN": ratio(ours, torch),
    "lnrnn / GEMM floor": ratio(ours, chain + bulk if chain and bulk else []),
    "lnrnn / lnrnn_none": ratio(ours, none),
    "lnrnn_none / flax": ratio(none, best("flax")),
    "lnrnn_none / torch_nn": ratio(none, best("torch_nn")),
  }
  for name in ("naive", "hoist"):
    memory = [row["temporaries_mib"] for row in ours + best(name)]
    key = f"temporaries, lnrnn / {name}"
    found[key] = memory[0] / memory[1] if len(memory) == 2 else None
  return found | {"best PyTorch LN": torch[0]["contender"] if torch else None}


def _line(row: Row) -> str:
  def shown(key: str) -> str:
    return f"{row[key]:.2f}" if key in row else ""

  low, median, high = row["ms"]
  return common.table_row(
    row["contender"],
    f"{median:.2f} ({low:.2f} to {high:.2f})",
    f"{row['ratio'][1]:.2f}",
    shown("temporaries_mib"),
    shown("compile_s"),
  )


def _table(summaries: list[dict[str, Any]]) -> str:
  """A line for each case: the medians of its ratios."""

  def shown(value: Any) -> str:
    if isinstance(value, list):
      value = statistics.median(value)
    return f"{value:.2f}" if isinstance(value, float) else value or ""

  names = list(summaries[0])
  lines = [names, ["---"] * len(names)]
  lines += [[shown(value) for value in s.values()] for s in summaries]
  return "\n".join(common.table_row(*line) for line in lines)
