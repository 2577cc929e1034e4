"""Layer normalisation in JAX and Flax: the paper's norms, cells and models.

`import lnrnn` needs jax, flax and optax alone.
"""

from lnrnn.cells import GRUParams, LSTMParams
from lnrnn.export import Exported
from lnrnn.export import load as load_exported
from lnrnn.linen_cells import GRUCell, LSTMCell
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
from lnrnn.rnn import RNN, Bidirectional
from lnrnn.sentence_encoder import SkipThoughtEncoder

__version__ = "0.1.0"

__all__ = [
  "Affine",
  "BatchNorm",
  "Bidirectional",
  "Exported",
  "GRUCell",
  "GRUParams",
  "LSTMCell",
  "LSTMParams",
  "LayerNorm",
  "RMSNorm",
  "RNN",
  "SkipThoughtEncoder",
  "WeightNorm",
  "batch_norm",
  "layer_norm",
  "load_exported",
  "normed",
  "rms_norm",
  "weight_norm",
]
