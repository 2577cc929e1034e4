"""The task handwriting of scripts/benchmark.py.

An update of handwriting synthesis as configs/handwriting.py has it, on lines
of made-up points, and with `--parts=sample` the writing of lines point by
point. The contenders are

  lnrnn         ours: the layers one by one, the window in the first's loop
  one_scan      ours with all layers in one loop
  torch_eager   the same network in PyTorch, a plain loop over the points
  torch_script  the same under torch.jit.script

one_scan takes no part in sampling, where all layers are in one loop anyway.
Who samples is compared in an update, as its network is the same.

See benchmark_update.py for what is compared and what is told.
"""

import argparse
import itertools
from typing import Any

import benchmark_update as update

# Contender -> who runs it.
CONTENDERS = {
  "lnrnn": "jax",
  "one_scan": "jax",
  "torch_eager": "torch",
  "torch_script": "torch",
}
PARTS = ("update", "sample")


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times every norm and part, as `benchmark_update.run`."""
  cases = [
    {
      "part": part,
      "norm": norm,
      "batch_size": options.batch_size if part == "update" else 1,
      "points": options.points if part == "update" else options.sample_points,
      "features": options.features,
    }
    for part, norm in itertools.product(options.parts, options.norms)
  ]
  return update.run(options, CONTENDERS, cases)
