"""Layer, RMS and group norm of feature maps, and the switch for convnets.

The paper leaves open what "the layer" of a convnet is. Here it is, read
literally, all units of the layer: every channel at every place, each with a
gain and a bias of its own. The other readings in use are options. Batch norm
and weight norm need nothing of their own: `norms` has them.
"""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn import norm_functions, norms
from lnrnn.errors import choices

NAMES = (*norms.NAMES, "group")
FORMS = ("units", "maps", "channels")


def standardised_maps(
  a: jax.Array,
  *,
  groups: int = 1,
  border: int = 0,
  centre: bool = True,
  eps: float = 1e-5,
) -> jax.Array:
  """Standardises all units of a convolutional layer, each case by itself.

  Args:
    a: [..., h, w, c] summed inputs.
    groups: of channels, each with statistics of its own; divides c.
    border: rows and columns at each edge that are left out of the statistics
      (and normalised by them like the rest).
    centre: take out the mean; without, it is the root mean square alone.
    eps: added to the variance, in squared units of `a`.

  Returns:
    [..., h, w, c] normalised inputs, float32 or wider.

  Raises:
    ValueError: if the border leaves nothing, the groups do not divide c, or
      statistics would be over one unit.

  Source: Ba et al. 2016, eq. (3), over the units of a convolutional layer;
  Wu & He 2018, eq. (7), for several groups.
  """
  h, w, c = a.shape[-3:]
  if c % groups:
    raise ValueError(f"groups={groups}: must divide the {c} channels")
  inside = max(h - 2 * border, 0) * max(w - 2 * border, 0)
  if inside * (c // groups) < 2:
    raise ValueError(
      f"border={border}: leaves {inside * (c // groups)} units of a layer of"
      f" {h} x {w} in a group of {c // groups} channels; 2 are needed"
    )
  axes = (-4, -3, -1)
  parted = norms.widened(a).reshape(*a.shape[:-1], groups, c // groups)
  if not border:
    return norm_functions.standardised(parted, axes, eps, centre).reshape(
      a.shape
    )
  inner = parted[..., border : h - border, border : w - border, :, :]
  # Twice: what the rounding of a large mean has left comes out here, too.
  for _ in range(2 * centre):
    mean = inner.mean(axis=axes, keepdims=True)
    inner, parted = inner - mean, parted - mean
  var = jnp.square(inner).mean(axis=axes, keepdims=True)
  return (parted * jax.lax.rsqrt(var + eps)).reshape(a.shape)


class MapNorm(nn.Module):
  """Layer, RMS or group norm of feature maps, with gain and bias.

  Attributes:
    centre: take out the mean; false for RMS norm.
    form: "units": statistics over h, w and c, gain and bias for every unit
      [h, w, c], the paper read literally; "maps": the same statistics, gain
      and bias for every channel [c]; "channels": statistics over c at each
      place by itself, gain and bias [c].
    groups: of channels, each with statistics of its own; of the form "maps".
    border: as of `standardised_maps`; not of the form "channels".
    eps: as of `norms.LayerNorm`.
    gain_init: as of `norms.LayerNorm`.
    bias_init: as of `norms.LayerNorm`.
    param_dtype: as of `norms.LayerNorm`.

  Source: Ba et al. 2016, eq. (3) and section 6.7; Wu & He 2018.
  """

  centre: bool = True
  form: str = "units"
  groups: int = 1
  border: int = 0
  eps: float = 1e-5
  gain_init: nn.initializers.Initializer = nn.initializers.ones
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, a: jax.Array, *, train: bool = False) -> jax.Array:
    """Normalises [..., h, w, c]; `train` changes nothing."""
    if self.form not in FORMS:
      raise ValueError(f"form={self.form!r}: {choices(self.form, FORMS)}")
    shape = a.shape[-3:] if self.form == "units" else a.shape[-1:]
    gain, bias = norms.affine(self, *shape)
    if self.form == "channels":
      norm = norms.layer_norm if self.centre else norms.rms_norm
      return norm(a, gain, bias, eps=self.eps)
    n = standardised_maps(
      a,
      groups=self.groups,
      border=self.border,
      centre=self.centre,
      eps=self.eps,
    )
    return norm_functions.affine_of(n, gain, bias, a.dtype)


@dataclasses.dataclass(frozen=True)
class Options(norms.Options):
  """What a norm of feature maps may vary; each reads what concerns it.

  Attributes:
    form: of layer and RMS norm, one of `FORMS`.
    groups: of group norm.
    border: of layer and RMS norm: rows and columns at each edge that are left
      out of the statistics.
  """

  form: str = "units"
  groups: int = 8
  border: int = 0


def normed(
  layer: nn.Module,
  norm: str,
  options: Options = Options(),
  *,
  name: str | None = None,
) -> nn.Module:
  """Wraps a convolution in the norm called `norm`.

  Args:
    layer: as of `norms.normed`; it gives [..., h, w, n].
    norm: one of `NAMES`.
    options: what the norms may vary.
    name: the module's name in its parent.

  Returns:
    A module called as `module(x, train=...)`.

  Raises:
    ValueError: for a name that is not in `NAMES`, listing them.
  """
  if fault := norms.unknown_name(norm, NAMES):
    raise ValueError(fault)
  if norm not in ("layer", "rms", "group"):
    return norms.normed(layer, norm, options, name=name)
  if norm == "group":
    own = {"form": "maps", "groups": options.groups}
  else:
    own = {
      "centre": norm == "layer",
      "form": options.form,
      "border": options.border,
    }
  return norms.followed(layer, MapNorm, options, name=name, **own)
