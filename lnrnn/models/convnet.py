"""A convolutional network for small pictures (section 6.7)."""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn import map_norms, norms
from lnrnn.errors import choices

PADDINGS = ("zero", "circular")


class ConvNet(nn.Module):
  """The all-convolutional network of the weight-norm paper.

  Each width has 3 x 3 convolutions and halves the picture by max
  pooling; then come a 3 x 3 convolution without padding and two 1 x 1 of the
  last width, the mean over all places, and a softmax layer, which has no norm.
  The paper names no network. This one is Salimans & Kingma's, without their
  input noise; they have dropout 0.5 and the widths 96 and 192.

  Applied with the collection "intermediates" mutable, it notes there what each
  non-linearity gets, as "a_0", "a_1" and so on, each a tuple of one.

  Attributes:
    widths: channels of each part.
    depth: 3 x 3 convolutions of each part.
    classes: number of outputs.
    norm: one of `map_norms.NAMES`, after every convolution.
    options: what the norms may vary.
    padding: what lies beyond the border: "zero", or "circular", the opposite
      border, with which no place differs from another.
    dropout: fraction of units left out after each pooling in training, by a
      random key "dropout".
    slope: of the leaky ReLU below zero.
    dtype: of the convolutions and what lies between them; parameters and
      statistics are float32.

  Source: Salimans & Kingma 2016, appendix A; Ba et al. 2016, section 6.7.
  """

  widths: Sequence[int] = (96, 192)
  depth: int = 3
  classes: int = 10
  norm: str = "layer"
  options: map_norms.Options = map_norms.Options()
  padding: str = "zero"
  dropout: float = 0.0
  slope: float = 0.1
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps pictures [b, h, w, d] to logits [b, classes], float32 or wider."""
    x = x.astype(self.dtype)
    for i, (width, side, padding) in enumerate(self._layers()):
      conv = nn.Conv(
        width,
        (side, side),
        padding=padding,
        kernel_init=nn.initializers.variance_scaling(
          2 / (1 + self.slope**2),  # He et al. 2015, eq. (15).
          "fan_in",
          "truncated_normal",
        ),
        dtype=jnp.dtype(self.dtype),
      )
      layer = map_norms.normed(conv, self.norm, self.options, name=f"conv_{i}")
      a = layer(x, train=train)
      self.sow("intermediates", f"a_{i}", a)
      x = nn.leaky_relu(a, self.slope)
      if padding != "VALID" and (i + 1) % self.depth == 0:
        x = _pooled(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
    mean = norms.widened(x).mean(axis=(1, 2))
    return nn.Dense(self.classes, name="output")(mean)

  def _layers(self) -> list[tuple[int, int, str]]:
    """Channels, side of the window and padding of each convolution."""
    if self.padding not in PADDINGS:
      raise ValueError(
        f"padding={self.padding!r}: {choices(self.padding, PADDINGS)}"
      )
    padding = {"zero": "SAME", "circular": "CIRCULAR"}[self.padding]
    padded = [(w, 3, padding) for w in self.widths for _ in range(self.depth)]
    return padded + [(self.widths[-1], side, "VALID") for side in (3, 1, 1)]


def _pooled(x: jax.Array) -> jax.Array:
  """The largest of each 2 x 2 places; an odd last row or column is dropped."""
  # Of the same values `nn.max_pool` has a gradient that takes XLA 14 times as
  # long on a CPU.
  h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  quarter = lambda i, j: x[:, i:h:2, j:w:2]
  rows = [jnp.maximum(quarter(i, 0), quarter(i, 1)) for i in (0, 1)]
  return jnp.maximum(*rows)
