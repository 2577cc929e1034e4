"""The task draw of scripts/benchmark.py.

An update of DRAW as configs/draw.py has it. The contenders are

  lnrnn         ours
  lnrnn_plain   ours, differentiated by JAX alone (backward="plain")
  torch_eager   the same model in PyTorch, a plain loop over the glimpses
  torch_script  the same under torch.jit.script

See benchmark_update.py for what is compared and what is told.
"""

import argparse
import itertools
from typing import Any

import benchmark_update as update

# Contender -> who runs it.
CONTENDERS = {
  "lnrnn": "jax",
  "lnrnn_plain": "jax",
  "torch_eager": "torch",
  "torch_script": "torch",
}


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times every norm at every batch size, as `benchmark_update.run`."""
  cases = [
    {"norm": norm, "batch_size": b, "glimpses": options.glimpses}
    for norm, b in itertools.product(options.norms, options.batch_sizes)
  ]
  return update.run(options, CONTENDERS, cases)
