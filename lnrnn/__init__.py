"""Layer normalisation in JAX and Flax: the paper's norms and models.

`import lnrnn` needs jax, flax and optax alone.
"""

from lnrnn.norms import (
  Affine,
  BatchNorm,
  LayerNorm,
  RMSNorm,
  WeightNorm,
  batch_norm,
  layer_norm,
  normed,
  rms_norm,
  weight_norm,
)

__version__ = "0.1.0"

__all__ = [
  "Affine",
  "BatchNorm",
  "LayerNorm",
  "RMSNorm",
  "WeightNorm",
  "batch_norm",
  "layer_norm",
  "normed",
  "rms_norm",
  "weight_norm",
]
