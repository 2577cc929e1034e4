"""The compiled part of training: state, update, several updates a call."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lnrnn.training import distributed, health
from lnrnn.training.experiment import Experiment

# The loop's own names for what it writes.
_RESERVED = ("loss", "step", "fault", "nonfinite", "grad_norm", "param_norm")


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


def gradients(
  experiment: Experiment, state: TrainState, batch: Any, key: jax.Array, m: int
) -> tuple[tuple[jax.Array, Any, Any], Any]:
  """Loss, other collections, metrics and gradients of one batch.

  Args:
    experiment: with the loss.
    state: before the update.
    batch: [b, ...] arrays, and arrays [] that all rows share.
    key: of this step.
    m: microbatches, one after the other; m divides b. The loss, metrics and
      gradients are their means, exact where the loss is a mean over rows.

  Returns:
    ((loss, other collections, metrics), gradients of "params").
  """
  params = state.variables["params"]

  def one(others, batch, key):
    def loss(params):
      return experiment.loss({**others, "params": params}, batch, key)

    (value, (changed, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
      params
    )
    return {**others, **changed}, (value, metrics, grads)

  others = {k: v for k, v in state.variables.items() if k != "params"}
  if m == 1:
    others, (value, metrics, grads) = one(others, batch, key)
    return (value, others, metrics), grads

  def split(a):  # Every m-th row, so that rows stay on their devices.
    if not jnp.ndim(a):
      return jnp.broadcast_to(a, (m,))
    return a.reshape(-1, m, *a.shape[1:]).swapaxes(0, 1)

  def add(carry, xs):
    others, total = carry
    part, i = xs
    others, found = one(others, part, jax.random.fold_in(key, i))
    return (others, jax.tree.map(lambda t, f: t + f / m, total, found)), None

  parts = jax.tree.map(split, batch)
  first = jax.tree.map(lambda a: a[0], parts)
  shapes = jax.eval_shape(one, others, first, key)[1]
  zeros = jax.tree.map(  # Sums in float32 or wider.
    lambda a: jnp.zeros(a.shape, jnp.promote_types(a.dtype, jnp.float32)),
    shapes,
  )
  (others, (value, metrics, grads)), _ = jax.lax.scan(
    add, (others, zeros), (parts, jnp.arange(m))
  )
  grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
  return (value, others, metrics), grads


def update(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: TrainState,
  batch: Any,
  key: jax.Array,
  *,
  log_every: int = 1,
  accumulate: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update: gradients of "params", the other collections carried over.

  Args:
    experiment: whose loss is minimised.
    tx: the optimiser.
    state: before the update.
    batch: of this step.
    key: of the run; the step's own is folded out of it.
    log_every: steps between two that get a norm.
    accumulate: microbatches the batch is cut into.

  Returns:
    The state after the update, and the metrics: "loss", those of the
    experiment, and the global "grad_norm", zero between the logs.

  Raises:
    ValueError: a metric of the experiment has a name of the loop's.
  """
  own = jax.random.fold_in(key, state.step)
  (value, others, metrics), grads = gradients(
    experiment, state, batch, own, accumulate
  )
  for name in metrics:
    if name in _RESERVED or "/" in name:
      raise ValueError(
        f"training metric {name!r}: no / is allowed, nor {', '.join(_RESERVED)}"
      )
  grad_norm = health.norm(grads, (state.step + 1) % log_every == 0)
  new = _apply(tx, state, others, grads)
  return new, {"loss": value, **metrics, "grad_norm": grad_norm}


def _apply(
  tx: optax.GradientTransformation, state: TrainState, others: Any, grads: Any
) -> TrainState:
  """The state after the optimiser's step."""
  params = state.variables["params"]
  updates, opt_state = tx.update(grads, state.opt_state, params)
  params = optax.apply_updates(params, updates)
  return TrainState(state.step + 1, {**others, "params": params}, opt_state)


def inspected_update(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: TrainState,
  batch: Any,
  key: jax.Array,
  *,
  accumulate: int = 1,
) -> tuple[TrainState, health.Quantities]:
  """One update, and all that may fail to be finite, causes before effects.

  The arguments are those of `update`.

  Returns:
    The state after it, and the quantities.
  """
  own = jax.random.fold_in(key, state.step)
  (value, others, _), grads = gradients(
    experiment, state, batch, own, accumulate
  )
  new = _apply(tx, state, others, grads)
  return new, [
    ("loss", value),
    ("collection", others),
    ("gradient", {"params": grads}),
    ("optimizer state", new.opt_state),
    ("parameter", {"params": new.variables["params"]}),
  ]


# On a CPU XLA otherwise copies weights at every step of the scan, though their
# buffers are donated: 7.2 against 4.1 MB of temporaries for the MNIST network
# at batch 4, the same bits.
_CPU_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}


def dispatcher(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  log_every: int = 1,
  accumulate: int = 1,
) -> Callable:
  """Several updates in one compiled call.

  Args:
    experiment: whose loss is minimised.
    tx: the optimiser.
    mesh: of the devices.
    log_every: of `update`.
    accumulate: of `update`.

  Returns:
    Jitted (state, batches [k, ...], n, key data) -> (state, metrics [k] each),
    which donates the state. The first n batches are used, and the first n
    metrics are meant: one program serves every n up to k, so an update has
    the same bits wherever a dispatch begins and ends. State and metrics are
    whole on every device. Where the experiment is not `looped`, k is 1.
  """

  def dispatch(state, batches, n, key_data):
    key = jax.random.wrap_key_data(key_data)

    def one(state, i):
      batch = jax.tree.map(lambda a: a[i], batches)
      return update(
        experiment,
        tx,
        state,
        batch,
        key,
        log_every=log_every,
        accumulate=accumulate,
      )

    def step(i, carry):
      state, kept = carry
      state, metrics = one(state, i)
      return state, jax.tree.map(lambda a, v: a.at[i].set(v), kept, metrics)

    if not experiment.looped:
      state, metrics = one(state, 0)
      return state, jax.tree.map(lambda v: v[None], metrics)
    k = len(jax.tree.leaves(batches)[0])
    kept = jax.tree.map(
      lambda v: jnp.zeros((k, *v.shape), v.dtype),
      jax.eval_shape(one, state, jnp.int32(0))[1],
    )
    return jax.lax.fori_loop(0, n, step, (state, kept))

  options = _CPU_OPTIONS if jax.default_backend() == "cpu" else None
  return jax.jit(
    dispatch,
    donate_argnums=0,
    out_shardings=distributed.replicated(mesh),
    compiler_options=options,
  )


def chunks(
  start: int,
  stop: int,
  events: Sequence[int],
  longest: int,
  shape: Callable[[int], Any] | None = None,
) -> Iterator[tuple[int, int]]:
  """Cuts the steps from start to stop into dispatches.

  Args:
    start: first step.
    stop: last step.
    events: periods, in steps; a dispatch ends at every multiple of one.
    longest: most steps in a dispatch.
    shape: step -> what the batches of a dispatch agree in; None where all do.

  Yields:
    (first, end) of each dispatch, end excluded.
  """
  while start < stop:
    end = min(stop, start + longest, *(e * (start // e + 1) for e in events))
    if shape:
      own = shape(start)
      differs = (s for s in range(start + 1, end) if shape(s) != own)
      end = next(differs, end)
    yield start, end
    start = end
