"""Layer, batch, weight and RMS normalisation: functions, modules, one switch.

The functions are the equations, from `lnrnn.norm_functions`. The modules own
gain and bias (and batch norm its statistics). `normed` is the one place where
a norm's name becomes code.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, cast

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn.errors import choices
from lnrnn.norm_functions import (
  Affine,
  Moments,
  batch_moments,
  batch_norm,
  direction_norm,
  layer_norm,
  rms_norm,
  running_average,
  weight_norm,
  widened,
)

NAMES = ("layer", "batch", "weight", "rms", "none")
TEST = ("population", "minibatch")  # What batch norm uses at test.


class LayerNorm(nn.Module):
  """Layer norm of summed inputs, with gain and bias.

  Attributes:
    eps: added to the variance, in squared units of the input.
    gain_init: initialiser of the gain; the paper's is 1.
    bias_init: initialiser of the bias; the paper's is 0.
    param_dtype: dtype of gain and bias.

  Source: Ba et al. 2016, eq. (3).
  """

  eps: float = 1e-5
  gain_init: nn.initializers.Initializer = nn.initializers.ones
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, a: jax.Array, *, train: bool = False) -> jax.Array:
    """Normalises [..., h]; `train` changes nothing (the paper's point)."""
    return layer_norm(a, *affine(self, a.shape[-1]), eps=self.eps)


class RMSNorm(nn.Module):
  """RMS norm of summed inputs; attributes as of `LayerNorm`.

  Source: Zhang & Sennrich 2019, eq. (4).
  """

  eps: float = 1e-5
  gain_init: nn.initializers.Initializer = nn.initializers.ones
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, a: jax.Array, *, train: bool = False) -> jax.Array:
    """Normalises [..., h]; `train` changes nothing."""
    return rms_norm(a, *affine(self, a.shape[-1]), eps=self.eps)


class BatchNorm(nn.Module):
  """Batch norm of summed inputs, with gain, bias and running averages.

  The averages (`running_average`) live in the collection `batch_stats`.
  Applied with `train=True` while `batch_stats` is immutable, it normalises by
  the minibatch and leaves the averages alone.

  Attributes:
    momentum: weight of the past in the running averages, in [0, 1).
    unbiased: use the n/(n-1) variance, in normalising and in the averages.
    test: what normalises where `train` is false: "population", the averages,
      or "minibatch", the statistics of the batch at hand.
    eps: as of `LayerNorm`.
    gain_init: as of `LayerNorm`.
    bias_init: as of `LayerNorm`.
    param_dtype: as of `LayerNorm`.

  Source: Ioffe & Szegedy 2015, algorithms 1 and 2; Ba et al. 2016, section
  6.6 for the unbiased variance.
  """

  momentum: float = 0.99
  unbiased: bool = False
  test: str = "population"
  eps: float = 1e-5
  gain_init: nn.initializers.Initializer = nn.initializers.ones
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    a: jax.Array,
    *,
    train: bool = False,
    live: jax.Array | None = None,
  ) -> jax.Array:
    """Normalises [..., n] by the minibatch (`train`) or by the averages.

    Args:
      a: [..., n] summed inputs.
      train: normalise by the minibatch, and take it into the averages.
      live: [...] booleans of the cases that count in the minibatch's
        statistics, as of `batch_moments`.
    """
    if self.test not in TEST:
      raise ValueError(
        f"BatchNorm: test={self.test!r}: {choices(self.test, TEST)}"
      )
    gain, bias = affine(self, a.shape[-1])
    wide, shape = widened(a), (a.shape[-1],)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape, wide.dtype)
    var = self.variable("batch_stats", "var", jnp.ones, shape, wide.dtype)
    seen = self.variable("batch_stats", "seen", jnp.zeros, (), jnp.int32)
    if not train and self.test == "population":
      moments = Moments(mean.value, var.value)
      return batch_norm(a, gain, bias, moments, eps=self.eps)
    # Centred first: few cases with a large mean lose their variance to the
    # rounding of that mean. What remains of it is small, and known exactly.
    if live is None:
      shift = wide.mean(axis=tuple(range(a.ndim - 1)))
    else:
      shift = batch_moments(a, live=live).mean
    centred = wide - shift
    moments = batch_moments(centred, live=live, unbiased=self.unbiased)
    mutable = self.is_mutable_collection("batch_stats")
    if train and mutable and not self.is_initializing():
      seen.value += 1
      for held, new in ((mean, shift + moments.mean), (var, moments.var)):
        held.value = running_average(held.value, new, seen.value, self.momentum)
    y = batch_norm(centred, gain, bias, moments, eps=self.eps)
    return y.astype(a.dtype)


def affine(module: Any, *shape: int) -> Affine:
  """Declares gain and bias [*shape] of a normaliser in its linen module.

  Args:
    module: with the attributes `gain_init`, `bias_init` and `param_dtype`.
    *shape: of both.
  """
  return Affine(
    *(
      module.param(name, init, shape, module.param_dtype)
      for name, init in (("gain", module.gain_init), ("bias", module.bias_init))
    )
  )


@dataclasses.dataclass(frozen=True)
class Options:
  """What a norm may vary; each norm reads what concerns it.

  Attributes:
    eps: of layer, batch and RMS norm, in squared units of the summed inputs.
    gain_init: initial gain of layer, batch and RMS norm.
    momentum: of batch norm's running averages.
    unbiased: batch norm's variance divides by n - 1.
    test: what batch norm uses at test, "population" or "minibatch".
    data_dependent: weight norm's gain and bias start so that the summed
      inputs of the initial batch have mean 0 and variance 1, instead of
      gain = ||v|| (the same function as no norm).
  """

  eps: float = 1e-5
  gain_init: float = 1.0
  momentum: float = 0.99
  unbiased: bool = False
  test: str = "population"
  data_dependent: bool = False


class WeightNorm(nn.Module):
  """Weight norm of a layer whose kernel holds the directions v.

  Attributes:
    bias_init: initialiser of the bias; None for no bias.
    data_dependent: start so that the summed inputs of the initial batch have
      mean 0 and variance 1; else gain = ||v||, the layer without norm.

  Source: Salimans & Kingma 2016, eq. (2); section 3 for the data-dependent
  initialisation.
  """

  bias_init: nn.initializers.Initializer | None = nn.initializers.zeros
  data_dependent: bool = False

  @nn.compact
  def __call__(self, layer: nn.Module, x: jax.Array) -> jax.Array:
    """Applies the layer, which has no bias, with the kernel g v / ||v||."""
    if self.is_initializing():
      layer(x)  # Declares the directions.
    params = dict(layer.variables["params"])
    v = params["kernel"]
    unbound = layer.clone(parent=None)

    def apply(gain: jax.Array) -> jax.Array:
      kernel = weight_norm(v, gain)
      a = unbound.apply({"params": {**params, "kernel": kernel}}, x)
      return cast(jax.Array, a)

    length = direction_norm(v)
    scale = shift = None
    if self.data_dependent and self.is_initializing():
      start = batch_moments(apply(jnp.ones_like(length)))
      # The floor is for units that are the same in every case of the batch.
      scale = jax.lax.rsqrt(jnp.maximum(start.var, 1e-10))
      shift = -start.mean * scale
    gain = self.param(
      "gain",
      lambda _: (length if scale is None else scale).astype(v.dtype),
    )
    a, bias_init = apply(gain), self.bias_init
    if bias_init is None:
      return a
    bias = self.param(
      "bias",
      lambda key: (
        bias_init(key, gain.shape, v.dtype) if shift is None else shift
      ).astype(v.dtype),
    )
    return a + bias.astype(a.dtype)


class Normed(nn.Module):
  """A layer and its norm; made by `normed`.

  Attributes:
    layer: Dense, Conv or the like.
    norm: of this module; None for none.
  """

  layer: nn.Module
  norm: nn.Module | None

  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool = False,
    live: jax.Array | None = None,
  ) -> jax.Array:
    """Applies layer and norm to x; `live` is of `BatchNorm`."""
    if self.norm is None:
      return self.layer(x)
    if isinstance(self.norm, WeightNorm):
      return self.norm(self.layer, x)
    if isinstance(self.norm, BatchNorm):
      return self.norm(self.layer(x), train=train, live=live)
    return self.norm(self.layer(x), train=train)


def unknown_name(name: object, allowed: tuple[str, ...] = NAMES) -> str | None:
  """One line on a wrong norm name, with the valid ones; None if it is valid."""
  if name in allowed:
    return None
  return f"norm={name!r}: {choices(name, allowed)}"


def normed(
  layer: nn.Module,
  norm: str,
  options: Options = Options(),
  *,
  name: str | None = None,
) -> nn.Module:
  """Wraps a Dense or Conv layer in the norm called `norm`.

  Layer, batch and RMS norm follow the layer, whose own bias they replace;
  weight norm re-parameterises its kernel. With equal keys the kernels (weight
  norm: the directions) are drawn alike whatever the norm.

  Args:
    layer: a module with a parameter `kernel` of [..., n] and a field
      `use_bias`: `nn.Dense`, `nn.Conv` and the like.
    norm: one of `NAMES`.
    options: what the norms may vary.
    name: the module's name in its parent.

  Returns:
    A module called as `module(x, train=...)`.

  Raises:
    ValueError: for a name that is not in `NAMES`, listing them.
  """
  if fault := unknown_name(norm):
    raise ValueError(fault)
  if norm == "none":
    return Normed(layer.clone(parent=None), None, name=name)
  if norm == "weight":
    bias_init = layer.bias_init if layer.use_bias else None
    module = WeightNorm(bias_init, options.data_dependent, parent=None)
    bare = layer.clone(parent=None, use_bias=False)
    return Normed(bare, module, name=name)
  if norm == "batch":
    return followed(
      layer,
      BatchNorm,
      options,
      name=name,
      momentum=options.momentum,
      unbiased=options.unbiased,
      test=options.test,
    )
  kind = {"layer": LayerNorm, "rms": RMSNorm}[norm]
  return followed(layer, kind, options, name=name)


def followed(
  layer: nn.Module,
  kind: Callable[..., nn.Module],
  options: Options,
  *,
  name: str | None,
  **own: Any,
) -> nn.Module:
  """A layer and the norm that follows it, and takes over its bias.

  Args:
    layer: as of `normed`.
    kind: of the norm, a module with gain and bias.
    options: with `eps` and `gain_init`.
    name: the module's name in its parent.
    **own: fields that this kind alone has.

  Returns:
    A module called as `module(x, train=...)`.
  """
  module = kind(
    eps=options.eps,
    gain_init=nn.initializers.constant(options.gain_init),
    bias_init=layer.bias_init,
    param_dtype=layer.param_dtype,
    parent=None,
    **own,
  )
  return Normed(layer.clone(parent=None, use_bias=False), module, name=name)
