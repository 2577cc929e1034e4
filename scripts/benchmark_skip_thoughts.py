"""The task skip_thoughts of scripts/benchmark.py.

An update of skip-thoughts as configs/skip_thoughts.py has it, of sentences
that fill all steps: the loss of both neighbours under the whole softmax, its
gradients, clipping and Adam. The contenders are

  lnrnn        ours with layer norm
  lnrnn_none   ours without norm
  whole        ours with layer norm, all logits at once, differentiated by JAX
  floor        the matrix products of an update and nothing else: those of the
               three GRUs that follow one another in time, those that can be
               made for all steps at once, and the softmax's three, none twice

All run in one process, in turn. Ratios are of times: below 1, the first is
the faster; memory is what XLA plans for temporaries. The claim
skip.equal-time is judged by the rounds' ratios of lnrnn to lnrnn_none.
"""

import argparse
import contextlib
from typing import Any

import benchmark_common as common
import benchmark_machine

# Contender -> who runs it.
NAMES = ("lnrnn", "lnrnn_none", "whole", "floor")
CONTENDERS: dict[str, str] = {name: "jax" for name in NAMES}
SIZES = {
  "paper": "64:30:620:2400:20000",
  "small": "16:30:128:256:10000",
}
FIELDS = ("batch_size", "steps", "word_features", "features", "vocabulary")

HEAD = """| size | contender | ms (quartiles) | / floor | / no norm | MiB |
| --- | --- | --- | --- | --- | --- |"""


def case_of(text: str) -> dict[str, int]:
  """Reads a name of `SIZES`, or b:t:d:h:v."""
  parts = SIZES.get(text, text).split(":")
  if len(parts) != len(FIELDS) or not all(p.isdecimal() for p in parts):
    raise ValueError(
      f"{text!r} is not one of {', '.join(SIZES)}, nor {':'.join(FIELDS)}"
    )
  return dict(zip(FIELDS, map(int, parts), strict=True))


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times the contenders at each size; prints the table as it is known.

  Args:
    options: of the command line.

  Returns:
    What goes into the JSON file.

  Raises:
    Fault: a contender fails.
  """
  about, results = benchmark_machine.machine(), []
  with contextlib.ExitStack() as stack:
    workers = common.start(stack, options, CONTENDERS)
    print(
      f"{about['cpu']}, {options.threads} threads, load before the run"
      f" {about['load']}\n\n{HEAD}",
      flush=True,
    )
    for name, case in options.sizes:
      private = case | {"threads": options.threads}
      rows = common.measure(workers, private, options, lambda *_: None)
      by_name = {row["contender"]: row for row in rows}
      for row in rows:
        row["ms"] = common.quartiles([1e3 / rate for rate in row["rates"]])
        told = [_ratio(row, by_name.get(n)) for n in ("floor", "lnrnn_none")]
        low, median, high = row["ms"]
        memory = row.get("memory_mib")
        print(
          common.table_row(
            name,
            row["contender"],
            f"{median:.1f} ({low:.1f} to {high:.1f})",
            *told,
            "" if memory is None else f"{memory:.0f}",
          ),
          flush=True,
        )
      results += [{"size": name, **case, **row} for row in rows]
  return common.report(about, options, results=results)


def _ratio(row: common.Row, to: common.Row | None) -> str:
  """The median of the rounds' ratios of times."""
  if to is None or to is row:
    return ""
  pairs = zip(row["rates"], to["rates"], strict=True)
  return f"{common.quartiles([its / own for own, its in pairs])[1]:.2f}"
