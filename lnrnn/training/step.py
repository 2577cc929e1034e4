"""The compiled part of training: state, update, several updates a call."""

from collections.abc import Callable, Iterator, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lnrnn.training.experiment import Experiment


class TrainState(NamedTuple):
  """All that an update changes."""

  step: jax.Array  # [] int32, updates done.
  variables: Any  # Linen collections by name.
  opt_state: Any


class Keys(NamedTuple):
  """The random keys of a run, apart by purpose."""

  init: jax.Array
  step: jax.Array
  eval: jax.Array

  @classmethod
  def of(cls, seed: int) -> "Keys":
    """The keys of a seed."""
    return cls(*jax.random.split(jax.random.key(seed), 3))


def init_state(
  experiment: Experiment, tx: optax.GradientTransformation, key: jax.Array
) -> TrainState:
  """The state before the first update."""
  batch = experiment.train_data[0]

  @jax.jit
  def init(key, batch):
    variables = experiment.init(key, batch)
    return TrainState(
      jnp.int32(0), dict(variables), tx.init(variables["params"])
    )

  return init(key, batch)


def update(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: TrainState,
  batch: Any,
  key: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update: gradients of "params", the other collections carried over.

  Args:
    experiment: whose loss is minimised.
    tx: the optimiser.
    state: before the update.
    batch: of this step.
    key: of the run; the step's own is folded out of it.

  Returns:
    The state after the update, and the metrics, "loss" among them.
  """
  params = state.variables["params"]

  def loss(params):
    variables = {**state.variables, "params": params}
    return experiment.loss(
      variables, batch, jax.random.fold_in(key, state.step)
    )

  (value, (others, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
    params
  )
  updates, opt_state = tx.update(grads, state.opt_state, params)
  params = optax.apply_updates(params, updates)
  variables = {**state.variables, **others, "params": params}
  new = TrainState(state.step + 1, variables, opt_state)
  return new, {"loss": value, **metrics}


# On a CPU XLA otherwise copies weights at every step of the scan, though their
# buffers are donated: 7.2 against 4.1 MB of temporaries for the MNIST network
# at batch 4, the same bits.
_CPU_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}


def dispatcher(
  experiment: Experiment, tx: optax.GradientTransformation
) -> Callable:
  """Several updates in one compiled call.

  Args:
    experiment: whose loss is minimised.
    tx: the optimiser.

  Returns:
    Jitted (state, batches [k, ...], key) -> (state, metrics [k] each), which
    donates the state.
  """

  def dispatch(state, batches, key):
    return jax.lax.scan(
      lambda s, b: update(experiment, tx, s, b, key), state, batches
    )

  options = _CPU_OPTIONS if jax.default_backend() == "cpu" else None
  return jax.jit(dispatch, donate_argnums=0, compiler_options=options)


def chunks(
  start: int, stop: int, events: Sequence[int], longest: int
) -> Iterator[tuple[int, int]]:
  """Cuts the steps from start to stop into dispatches.

  A dispatch ends where an event (a step that is a multiple of one of
  `events`) falls, and the stretch between two events is cut into the fewest
  nearly equal parts. So the cuts depend on the absolute step alone: a resumed
  run compiles what the unbroken one did.

  Args:
    start: first step.
    stop: last step.
    events: periods of the events, in steps.
    longest: most steps in a dispatch.

  Yields:
    (first, end) of each dispatch, end excluded.
  """
  while start < stop:
    last = max(e * (start // e) for e in events)
    end = min(stop, *(e * (start // e + 1) for e in events))
    parts = math.ceil((end - last) / longest)
    for i in range(parts):
      a = last + (end - last) * i // parts
      b = last + (end - last) * (i + 1) // parts
      if b > start:
        yield max(a, start), b
    start = end
