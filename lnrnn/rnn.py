"""Recurrent layers: run a cell over sequences.

`RNN` and `Bidirectional` take the arguments of flax's modules of these names
and make the same variables. What they add: our cells run on the engine
(`lnrnn.engine`), finished sequences keep their state, batch norm has its
statistics here, and the initial state can be learned.
"""

from collections.abc import Callable, Mapping
import contextlib
import numbers
from typing import Any

from flax import linen as nn
from flax.linen.recurrent import flip_sequences
import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from lnrnn import engine, recurrent_bn
from lnrnn.errors import choices

LEARNED = ("none", "h", "all")


class RNN(nn.Module):
  """Runs a cell over sequences.

  With `seq_lengths`, the carry of a finished sequence stays as it is (a
  length of 0 returns the initial carry) and its outputs are zero. What the
  padding holds, NaN included, does not matter.

  Attributes:
    cell: one of ours, any with a method `recurrences` (see
      `lnrnn.engine.Recurrence`), or another `nn.RNNCellBase`, which is run
      by a plain scan. So is a subclass or a lifted class (`nn.remat`,
      `nn.vmap`) of ours that has a `__call__` of its own.
    time_major: as of `flax.linen.RNN`.
    return_carry: as of `flax.linen.RNN`.
    reverse: as of `flax.linen.RNN`.
    keep_order: as of `flax.linen.RNN`.
    unroll: as of `flax.linen.RNN`.
    variable_axes: as of `flax.linen.RNN`, for cells that the engine does not
      run.
    variable_broadcast: likewise.
    variable_carry: likewise.
    split_rngs: likewise.
    backward: "fast", or "plain" for JAX's own differentiation, which has
      forward mode (jvp) too.
    remat_steps: above 0, only the carries of every so many steps are kept
      for the way back; for long sequences.
    learned_carry: what of the initial carry is a parameter: "none", "h" (the
      output state alone, as in the attentive reader) or "all". It starts as
      `initialize_carry` has it, and `initial_carry` at the call replaces it.
    t_max: longest training sequence, in steps; batch norm needs it.
    bn_momentum: weight of the past in batch norm's averages, in [0, 1).
    bn_padding: rows that batch norm's statistics are over: "masked", the
      unfinished ones, or "all"; see `recurrent_bn.by_minibatch`.
    bn_test: what batch norm uses where `train` is false: "population", the
      averages, or "minibatch", the statistics of the batch at hand.

  Source: Ba et al. 2016, section 3.1; Cooijmans et al. 2016 for batch norm.
  """

  cell: nn.RNNCellBase
  time_major: bool = False
  return_carry: bool = False
  reverse: bool = False
  keep_order: bool = False
  unroll: int = 1
  variable_axes: Mapping[Any, Any] = nn.FrozenDict()
  variable_broadcast: Any = "params"
  variable_carry: Any = False
  split_rngs: Mapping[Any, bool] = nn.FrozenDict({"params": False})
  backward: str = "fast"
  remat_steps: int = 0
  learned_carry: str = "none"
  t_max: int | None = None
  bn_momentum: float = 0.99
  bn_padding: str = "masked"
  bn_test: str = "population"

  def __post_init__(self):
    for name, allowed in (
      ("backward", engine.BACKWARD),
      ("learned_carry", LEARNED),
      ("bn_padding", recurrent_bn.PADDING),
      ("bn_test", recurrent_bn.TEST),
    ):
      value = getattr(self, name)
      if value not in allowed:
        raise ValueError(f"RNN: {name}={value!r}: {choices(value, allowed)}")
    if isinstance(self.cell, type):
      raise ValueError(f"RNN: cell={self.cell.__name__} is a class; call it")
    if self.t_max is not None and not (
      isinstance(self.t_max, numbers.Integral) and self.t_max > 0
    ):
      raise ValueError(f"RNN: t_max={self.t_max!r} is not 1 or more steps")
    if not 0 <= self.bn_momentum < 1:
      raise ValueError(f"RNN: bn_momentum={self.bn_momentum} is not in [0, 1)")
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    *,
    initial_carry: Any = None,
    init_key: jax.Array | None = None,
    seq_lengths: jax.Array | None = None,
    return_carry: bool | None = None,
    time_major: bool | None = None,
    reverse: bool | None = None,
    keep_order: bool | None = None,
    train: bool = False,
  ) -> Any:
    """Runs the cell over the inputs.

    Args:
      inputs: [*b, t, d]; [t, *b, d] if time-major.
      initial_carry: as the cell's; None for `learned_carry`, or what the
        cell's `initialize_carry` gives.
      init_key: for `initialize_carry`; None for a fixed one.
      seq_lengths: [*b] numbers of steps, 0 to t; None for t.
      return_carry: replaces the attribute.
      time_major: likewise.
      reverse: likewise.
      keep_order: likewise.
      train: batch norm normalises by the minibatch, and takes it into its
        averages where `batch_stats` is mutable.

    Returns:
      [*b, t, h] outputs, or [t, *b, h], zero where a sequence is finished;
      in a pair after the last carry if `return_carry`.

    Raises:
      ValueError: shapes that do not fit; lengths below 0 or above t, where
        they are known (under `jax.jit` they count as 0 and t); batch norm
        without `t_max`, or trained on more steps.
    """
    pick = lambda given, own: own if given is None else given
    return_carry = pick(return_carry, self.return_carry)
    time_major = pick(time_major, self.time_major)
    reverse = pick(reverse, self.reverse)
    keep_order = pick(keep_order, self.keep_order)

    axes = self.cell.num_feature_axes
    if inputs.ndim < axes + 1:
      raise ValueError(
        f"RNN: inputs of shape {inputs.shape} have no time axis; the cell"
        f" needs {axes} axes of features and one of time"
      )
    time_axis = 0 if time_major else inputs.ndim - axes - 1
    x = jnp.moveaxis(inputs, time_axis, 0)
    batch = x.shape[1 : x.ndim - axes]
    live = None
    if seq_lengths is not None:
      seq_lengths = jnp.asarray(seq_lengths)
      if seq_lengths.shape != batch:
        raise ValueError(
          f"RNN: seq_lengths of shape {seq_lengths.shape}; the inputs"
          f" {inputs.shape} ask for {batch}"
        )
      if not isinstance(seq_lengths, Tracer):
        _check_lengths(seq_lengths, len(x))
      if not jnp.issubdtype(seq_lengths.dtype, jnp.integer):
        raise ValueError(
          f"RNN: seq_lengths of dtype {seq_lengths.dtype}; they are integers"
        )
      seq_lengths = jnp.clip(seq_lengths.astype(jnp.int32), 0, len(x))
      steps = jnp.arange(len(x)).reshape(-1, *(1 for _ in batch))
      live = steps < seq_lengths
      # Padding comes out first, as its NaN times a zero gradient is a NaN.
      x = _without_padding(x, live)

    def flip(a):
      return flip_sequences(a, seq_lengths, len(batch), time_major=True)

    if reverse:
      x = flip(x)
    carry = self._initial_carry(initial_carry, init_key, x.shape[1:], batch)
    if _on_engine(self.cell):
      carry, y = self._run(carry, x, live, train)
    else:
      carry, y = self._scan(carry, x, live)
    if reverse and keep_order:
      y = jax.tree.map(flip, y)
    y = jax.tree.map(lambda a: jnp.moveaxis(a, 0, time_axis), y)
    return (carry, y) if return_carry else y

  def _initial_carry(self, given, key, shape, batch):
    key = jax.random.key(0) if key is None else key
    start = lambda key, shape: self.cell.initialize_carry(key, shape)
    if given is not None and _on_engine(self.cell):
      # A cell that is always given its carry need not know how to start.
      with contextlib.suppress(NotImplementedError):
        wanted = jax.eval_shape(lambda: start(key, shape))
        given = _checked_carry(given, wanted)
    if self.learned_carry == "none":
      return start(key, shape) if given is None else given
    one = shape[len(batch) :]
    leaves, structure = jax.tree.flatten(start(key, one))

    def learned(i, name):
      if self.learned_carry == "h" and not name.startswith("h"):
        return leaves[i]
      dtype = getattr(self.cell, "param_dtype", leaves[i].dtype)
      draw = lambda key: jax.tree.leaves(start(key, one))[i].astype(dtype)
      return self.param(f"initial_{name}", draw).astype(leaves[i].dtype)

    names = self._carry_names(len(leaves))
    chosen = [learned(i, name) for i, name in enumerate(names)]
    if given is not None:
      return given
    wide = [jnp.broadcast_to(a, (*batch, *a.shape)) for a in chosen]
    return jax.tree.unflatten(structure, wide)

  def _carry_names(self, leaves: int) -> list[str]:
    """A name for each leaf of the carry."""
    if not hasattr(self.cell, "carry_names"):
      if self.learned_carry == "h":
        raise ValueError(
          'RNN: learned_carry="h" needs a cell with `carry_names`; use "all"'
        )
      return [str(i) for i in range(leaves)]
    names = self.cell.carry_names()
    if leaves == len(names):
      return list(names)
    return [f"{n}_{i}" for i in range(leaves // len(names)) for n in names]

  def _run(self, carry, x, live, train):
    """Runs a cell on the engine, layer by layer."""
    layers = self.cell.recurrences(x.shape[-1])
    carries = (carry,) if len(layers) == 1 else carry
    lasts = []
    for i, (layer, first) in enumerate(zip(layers, carries, strict=True)):
      if layer.dtype is not None:
        x = x.astype(layer.dtype)
      if layer.sites:
        name = "statistics" + (f"_{i}" if len(layers) > 1 else "")
        last, x = self._run_batch_norm(layer, name, first, x, live, train)
      elif live is None:
        last, x = self._engine(layer.step, layer, layer.consts, first, x)
      else:
        step = engine.masked(layer.step)
        last, x = self._engine(step, layer, layer.consts, first, (x, live))
      x = _without_padding(x, live)
      lasts.append(last)
    return lasts[0] if len(layers) == 1 else tuple(lasts), x

  def _engine(self, step, layer, consts, carry, xs):
    return engine.scan(
      step,
      layer.weights,
      consts,
      carry,
      xs,
      backward=self.backward,
      remat_steps=self.remat_steps,
      unroll=self.unroll,
      precision=getattr(self.cell, "precision", None),
    )

  def _run_batch_norm(self, layer, name, carry, x, live, train):
    if self.t_max is None:
      raise ValueError(
        "RNN: batch norm keeps statistics for each time step and needs"
        " t_max, the length of the longest training sequence"
      )
    statistics = recurrent_bn.StepStatistics(
      sites=layer.sites,
      t_max=self.t_max,
      momentum=self.bn_momentum,
      dtype=jnp.promote_types(layer.dtype, jnp.float32),
      name=name,
    )
    return statistics.run(
      lambda step, *args: self._engine(step, layer, *args),
      layer,
      carry,
      x,
      live,
      eps=self.cell.eps,
      train=train,
      test=self.bn_test,
      padding=self.bn_padding,
    )

  def _scan(self, carry, x, live):
    """Runs a cell that is not ours, as `flax.linen.RNN` does."""

    def body(cell, carry, x_live):
      x, live = x_live
      new, y = cell(carry, x)
      return (new if live is None else engine.select(live, new, carry)), y

    scan = nn.scan(
      body,
      unroll=self.unroll,
      variable_axes=self.variable_axes,
      variable_broadcast=self.variable_broadcast,
      variable_carry=self.variable_carry,
      split_rngs=self.split_rngs,
    )
    carry, y = scan(self.cell, carry, (x, live))
    return carry, _without_padding(y, live)


def _on_engine(cell: nn.Module) -> bool:
  """Whether `recurrences` tells what the cell does.

  Not where a subclass or a lifted class has a `__call__` of its own.
  """
  for kind in type(cell).__mro__:
    if "recurrences" in vars(kind):
      return True
    if "__call__" in vars(kind):
      return False
  return False


def _checked_carry(given: Any, template: Any) -> Any:
  """The carry, if it has the cell's shapes; whole numbers become fractions."""
  kind = lambda tree: jax.tree.map(lambda a: tuple(jnp.shape(a)), tree)
  if kind(given) != kind(template):
    raise ValueError(
      f"RNN: initial_carry of shapes {kind(given)}; the cell and the inputs"
      f" ask for {kind(template)}"
    )

  def cast(a, b):
    a = jnp.asarray(a)
    return a if jnp.issubdtype(a.dtype, jnp.inexact) else a.astype(b.dtype)

  return jax.tree.map(cast, given, template)


def _check_lengths(seq_lengths: jax.Array, t: int) -> None:
  """Refuses lengths that no sequence of t steps has."""
  known = np.asarray(seq_lengths)  # Under jit, jnp would trace a constant.
  low, high = known.min(initial=0), known.max(initial=0)
  if low < 0 or high > t:
    raise ValueError(
      f"RNN: seq_lengths from {low} to {high}; the inputs have {t} steps"
    )


def _without_padding(y: Any, live: jax.Array | None) -> Any:
  """Outputs [t, *b, ...] with zeros where a sequence is finished."""
  if live is None:
    return y
  return engine.select(live, y, jax.tree.map(jnp.zeros_like, y))


class Bidirectional(nn.Module):
  """Runs one RNN forwards and one backwards over sequences.

  Attributes:
    forward_rnn: an `RNN`.
    backward_rnn: an `RNN`.
    merge_fn: joins the outputs of both; concatenates them by default.
    time_major: as of `RNN`.
    return_carry: as of `RNN`.
  """

  forward_rnn: nn.Module
  backward_rnn: nn.Module
  merge_fn: Callable[[jax.Array, jax.Array], jax.Array] = lambda a, b: (
    jnp.concatenate([a, b], axis=-1)
  )
  time_major: bool = False
  return_carry: bool = False

  def __call__(
    self,
    inputs: jax.Array,
    *,
    initial_carry: Any = None,
    init_key: jax.Array | None = None,
    seq_lengths: jax.Array | None = None,
    return_carry: bool | None = None,
    time_major: bool | None = None,
    train: bool = False,
  ) -> Any:
    """Runs both over the inputs; arguments as of `RNN`.

    The carries are pairs, (forward, backward). The backward RNN reads each
    sequence from its own end, and its outputs come in the order of the
    inputs.
    """
    pick = lambda given, own: own if given is None else given
    first, second = initial_carry or (None, None)
    keys = (None, None) if init_key is None else jax.random.split(init_key)
    arguments = {
      "seq_lengths": seq_lengths,
      "return_carry": True,
      "time_major": pick(time_major, self.time_major),
    }

    def run(rnn, carry, key, **more):
      if isinstance(rnn, RNN):
        more["train"] = train
      return rnn(inputs, initial_carry=carry, init_key=key, **arguments, **more)

    ahead, y_ahead = run(self.forward_rnn, first, keys[0], reverse=False)
    back, y_back = run(
      self.backward_rnn, second, keys[1], reverse=True, keep_order=True
    )
    y = jax.tree.map(self.merge_fn, y_ahead, y_back)
    carries = (ahead, back)
    return (carries, y) if pick(return_carry, self.return_carry) else y
