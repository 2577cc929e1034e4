"""The feed-forward network of the permutation-invariant MNIST task."""

from collections.abc import Sequence

from flax import linen as nn
import jax

from lnrnn import norms


class MLP(nn.Module):
  """Fully connected ReLU network with a norm on its layers.

  The paper does not name the non-linearity nor the initialisation; ReLU with
  He's normal initialisation is our choice.

  Attributes:
    hidden: widths of the hidden layers.
    classes: number of outputs.
    norm: one of `norms.NAMES`, on the hidden layers.
    norm_output: put the norm on the logits too; the paper does so for batch
      norm ("all layers") and does not for layer norm.
    options: what the norms may vary.

  Source: Ba et al. 2016, section 6.6.
  """

  hidden: Sequence[int] = (1000, 1000)
  classes: int = 10
  norm: str = "layer"
  norm_output: bool = False
  options: norms.Options = norms.Options()

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps inputs [b, d] to logits [b, classes]."""
    for i, width in enumerate(self.hidden):
      dense = nn.Dense(width, kernel_init=nn.initializers.he_normal())
      layer = norms.normed(dense, self.norm, self.options, name=f"hidden_{i}")
      x = nn.relu(layer(x, train=train))
    norm = self.norm if self.norm_output else "none"
    output = norms.normed(
      nn.Dense(self.classes), norm, self.options, name="output"
    )
    return output(x, train=train)
