"""The task convnet of scripts/benchmark.py.

An update of the convolutional network of configs/convnet.py, on made-up
pictures of 32 x 32 places and 3 channels, without augmentation. The
contenders are

  lnrnn       ours
  torch_nhwc  the same network in PyTorch, eager, memory format channels_last
  torch_nchw  the same in PyTorch's default memory format

See benchmark_update.py for what is compared and what is told.
"""

import argparse
from typing import Any

import benchmark_update as update

# Contender -> who runs it.
CONTENDERS = {
  "lnrnn": "jax",
  "torch_nhwc": "torch",
  "torch_nchw": "torch",
}
# "layer" is the form "units".
NORMS = (
  "none",
  "layer",
  "layer_maps",
  "layer_channels",
  "batch",
  "weight",
  "group",
)


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Times every norm, as `benchmark_update.run`."""
  cases = [
    {
      "norm": norm,
      "batch_size": options.batch_size,
      "widths": options.widths,
      "depth": options.depth,
    }
    for norm in options.norms
  ]
  return update.run(options, CONTENDERS, cases)
