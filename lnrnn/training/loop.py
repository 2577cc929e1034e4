"""The training loop: it knows an `Experiment` and optax, and no task."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import math
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lnrnn.data import batches as batches_lib
from lnrnn.errors import DivergedError, WorkdirError
from lnrnn.training import checkpoints, optim, writers
from lnrnn.training import config as config_lib
from lnrnn.training import progress as progress_lib
from lnrnn.training import workdir as workdir_lib
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
_COMPILER_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}


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

  return jax.jit(dispatch, donate_argnums=0, compiler_options=_COMPILER_OPTIONS)


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


def run_evals(
  experiment: Experiment, variables: Any, key: jax.Array, due: Callable
) -> dict[str, Any]:
  """Runs the evaluations that are due.

  Args:
    experiment: with the evaluations.
    variables: to evaluate.
    key: random key of this evaluation.
    due: Eval -> the splits to run it on.

  Returns:
    {"split/metric": value}.
  """
  return {
    f"{split}/{name}": value
    for ev in experiment.evals.values()
    for split in due(ev)
    for name, value in ev.fn(variables, split, key).items()
  }


def restore(
  config: config_lib.Config,
  experiment: Experiment,
  workdir: str | os.PathLike[str],
  checkpoint: str,
) -> TrainState:
  """The state of a run, for evaluation.

  Args:
    config: of the run.
    experiment: that `config` describes.
    workdir: of the run.
    checkpoint: "latest", "best" or a step.

  Returns:
    The state that was saved.

  Raises:
    WorkdirError: if there is no such checkpoint.
  """
  steps = checkpoints.committed_steps(workdir)
  listed = ", ".join(map(str, steps)) or "none"
  saver = checkpoints.Checkpoints(
    workdir, kept=config.checkpoints_kept, best=config.best, writes=False
  )
  with contextlib.closing(saver):
    if checkpoint in ("latest", "best"):
      latest = steps[-1] if steps else None
      step = saver.best_step() if checkpoint == "best" else latest
    else:
      step = int(checkpoint) if checkpoint.isdigit() else -1
    if step not in steps:
      raise WorkdirError(
        f"checkpoint {checkpoint!r} is not in {workdir}: there is latest,"
        f" best and the steps {listed}"
      )
    tx = optim.make(config.optimizer, config.train_steps)
    like = jax.eval_shape(
      lambda: init_state(experiment, tx, Keys.of(config.seed).init)
    )
    state, _ = saver.restore(like, step) or (None, None)
  return jax.tree.map(jnp.array, state)


def train(
  config: config_lib.Config,
  experiment: Experiment,
  workdir: str | os.PathLike[str],
) -> None:
  """Trains to the last step, from the latest checkpoint if there is one.

  Args:
    config: of the run.
    experiment: that `config` describes.
    workdir: where everything is written; `workdir.claim` has made it.

  Raises:
    WorkdirError: if a checkpoint does not fit.
    DivergedError: when a loss is not finite, or the parameters to save.
  """
  keys = Keys.of(config.seed)
  tx = optim.make(config.optimizer, config.train_steps)
  state = init_state(experiment, tx, keys.init)
  saver = checkpoints.Checkpoints(
    workdir, kept=config.checkpoints_kept, best=config.best
  )
  seconds, best = 0.0, -math.inf
  if restored := saver.restore(state):
    state, meta = restored
    state = jax.tree.map(jnp.array, state)
    seconds = meta["train_seconds"]
    best = -math.inf if meta["best"] is None else meta["best"]
  start = int(state.step)
  device = jax.devices()[0]
  workdir_lib.write_record(
    workdir,
    config,
    data=experiment.data,
    fingerprint=experiment.train_data.fingerprint,
    steps_per_epoch=experiment.train_data.steps_per_epoch,
    device=device.device_kind,
    step=start,
  )
  writers.rewind(workdir, start)
  writer = writers.MultiWriter(
    writers.JsonlWriter(workdir),
    writers.TensorBoardWriter(workdir, step=start),
  )

  jitted = dispatcher(experiment, tx)
  compiled: dict[int, Any] = {}
  periods = [config.checkpoint_every]
  periods += [ev.every for ev in experiment.evals.values()]
  plan = list(
    chunks(start, config.train_steps, periods, config.steps_per_dispatch)
  )
  shown = progress_lib.Progress(
    os.path.basename(os.path.abspath(workdir)), start, config.train_steps
  )
  try:
    stream = batches_lib.prefetched(experiment.train_data, plan)
    with contextlib.closing(stream):
      for (first, end), batch in zip(plan, stream, strict=True):
        k = end - first
        if k not in compiled:
          # Outside the clock of training.
          compiled[k] = jitted.lower(state, batch, keys.step).compile()
        began = time.perf_counter()
        state, metrics = compiled[k](state, batch, keys.step)
        metrics = jax.device_get(metrics)
        spent = time.perf_counter() - began
        seconds += spent
        clock = {"time/train_seconds": seconds, "time/steps_per_s": k / spent}
        _write_rows(writer, first, metrics, clock, config.log_every)
        _stop_if_diverged(first, metrics["loss"])
        shown.update(end, float(metrics["loss"][-1]), k / spent)

        last = end == config.train_steps
        found = run_evals(
          experiment,
          state.variables,
          jax.random.fold_in(keys.eval, end),
          lambda ev, end=end, last=last: (
            ev.splits if last or end % ev.every == 0 else ()
          ),
        )
        if found:
          writer.write(end, {**found, **clock})
        score = saver.score(found)
        improved = score > best
        best = max(best, score)
        if improved or last or end % config.checkpoint_every == 0:
          writer.flush()
          _stop_if_broken(end, state.variables["params"])
          meta = {
            "train_seconds": seconds,
            "best": best if math.isfinite(best) else None,
            "fingerprint": experiment.train_data.fingerprint,
          }
          saver.save(state, meta, score)
    saver.wait()
  finally:
    shown.close()
    writer.close()
    saver.close()


def _write_rows(
  writer: writers.MultiWriter,
  first: int,
  metrics: dict[str, np.ndarray],
  clock: dict[str, float],
  log_every: int,
) -> None:
  """Writes the training rows that fall into one dispatch."""
  losses = metrics["loss"]
  for i in range(len(losses)):
    step = first + i + 1
    if step % log_every == 0 or not np.isfinite(losses[i]):
      row = {name: values[i] for name, values in metrics.items()}
      writer.write(step, {**row, **clock})
    if not np.isfinite(losses[i]):
      return


def _stop_if_diverged(first: int, losses: np.ndarray) -> None:
  """Raises at the first loss that is not finite."""
  bad = np.flatnonzero(~np.isfinite(losses))
  if bad.size:
    raise DivergedError(
      f"loss became {losses[bad[0]]} at step {first + int(bad[0]) + 1}; the"
      " last checkpoint is kept"
    )


def _stop_if_broken(step: int, params: Any) -> None:
  """Raises before parameters that are not finite become a checkpoint."""
  # The loss that an update follows from may be the last finite one.
  leaves = jax.tree.leaves(jax.device_get(params))
  if not all(np.isfinite(leaf).all() for leaf in leaves):
    raise DivergedError(
      f"parameters are not finite after step {step}; the last checkpoint is"
      " kept"
    )
