"""The training loop: it knows an `Experiment` and optax, and no task."""

from collections.abc import Callable, Generator, Sequence
import contextlib
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lnrnn.data import batches as batches_lib
from lnrnn.errors import ConfigError, WorkdirError
from lnrnn.training import (
  checkpoints,
  cost,
  distributed,
  health,
  optim,
  profiling,
  recorder,
  signals,
  watchdog,
)
from lnrnn.training import config as config_lib
from lnrnn.training import step as step_lib
from lnrnn.training.experiment import Experiment


def identity(
  config: config_lib.Config, experiment: Experiment
) -> dict[str, Any]:
  """What a checkpoint must agree with to be restored into a run."""
  return {
    "config": config_lib.to_dict(config),
    "fingerprint": experiment.train_data.fingerprint,
  }


def restore(
  config: config_lib.Config,
  experiment: Experiment,
  workdir: str | os.PathLike[str],
  checkpoint: str,
) -> step_lib.TrainState:
  """The state of a run, for evaluation.

  Args:
    config: of the run.
    experiment: that `config` describes.
    workdir: of the run.
    checkpoint: "latest", "best" or a step.

  Returns:
    The state that was saved.

  Raises:
    WorkdirError: if there is no such checkpoint, or it is damaged.
  """
  saver = _saver(config, experiment, workdir, writes=False)
  with contextlib.closing(saver):
    steps = saver.steps()
    listed = ", ".join(map(str, steps)) or "none"
    if checkpoint in ("latest", "best"):
      latest = steps[-1] if steps else None
      step = saver.best_step() if checkpoint == "best" else latest
    else:
      step = int(checkpoint) if checkpoint.isdecimal() else -1
    if not steps:
      raise WorkdirError(f"workdir {workdir}: no checkpoint was saved yet")
    if step is None or step not in steps:
      raise WorkdirError(
        f"checkpoint {checkpoint!r} is not in {workdir}: there is latest,"
        f" best and the steps {listed}"
      )
    tx = optim.make(config.optimizer, config.train_steps)
    like = jax.eval_shape(
      lambda: step_lib.init_state(
        experiment, tx, step_lib.Keys.of(config.seed).init
      )
    )
    state, _ = saver.restore(like, step)
  return jax.tree.map(jnp.array, state)


def _saver(
  config: config_lib.Config,
  experiment: Experiment,
  workdir: str | os.PathLike[str],
  *,
  writes: bool = True,
) -> checkpoints.Checkpoints:
  return checkpoints.Checkpoints(
    workdir,
    identity(config, experiment),
    kept=config.checkpoints_kept,
    kept_every=config.checkpoints_kept_every,
    best=config.best,
    best_kept=config.best_kept,
    writes=writes,
  )


def train(
  config: config_lib.Config,
  experiment: Experiment,
  workdir: str | os.PathLike[str],
) -> None:
  """Trains to the last step, from the latest checkpoint if there is one.

  Args:
    config: of the run.
    experiment: that `config` describes.
    workdir: where process 0 writes everything; `workdir.claim` has made it.

  Raises:
    ConfigError: if the batch cannot be cut for the devices.
    WorkdirError: if no checkpoint is good or one does not fit, or writing
      fails.
    DivergedError: when something is not finite; the last checkpoint is kept.
    Interrupted: after a signal, when the state has been saved.
  """
  mesh = distributed.mesh()
  _check_devices(config, mesh)
  keys = step_lib.Keys.of(config.seed)
  tx = optim.make(config.optimizer, config.train_steps)
  with contextlib.ExitStack() as stack:
    saver = None
    if distributed.is_main():
      saver = _saver(config, experiment, workdir)
      stack.callback(saver.close)
    fresh = step_lib.init_state(experiment, tx, keys.init)
    state, clock, evaluated = _newest(saver, jax.device_get(fresh))
    del fresh
    start, stop = int(state.step), config.train_steps
    sentry = health.Sentry(state, _inspector(config, experiment, tx, keys.step))
    journal = recorder.Recorder(config, experiment, workdir, saver, clock)
    stack.callback(journal.close)
    distributed.on_main(lambda: journal.open(start, evaluated=evaluated))
    state = distributed.replicate(state, mesh)
    stack.enter_context(signals.deferred())
    # A signal may have come before this step was evaluated.
    if not evaluated and journal.finish(start, state, keys.eval):
      journal.done()
      return
    # A dispatch ends where there is something to write.
    periods = [config.log_every, config.checkpoint_every]
    periods += [ev.every for ev in experiment.evals.values()]
    most = config.steps_per_dispatch if experiment.looped else 1
    longest = min(most, stop, *periods)
    shape = getattr(experiment.train_data, "shape", None)
    plan = list(step_lib.chunks(start, stop, periods, longest, shape))
    traced = config.profile_steps if distributed.is_main() else ()
    profiler = profiling.Profiler(workdir, traced)
    stack.callback(profiler.close)
    dispatches = _dispatches(
      config, experiment, tx, state, keys.step, plan, longest, profiler
    )
    del state  # Its buffers are given to the first dispatch.
    stack.enter_context(contextlib.closing(dispatches))
    try:
      for done in dispatches:
        journal.rows(done)
        sentry.look(done.state)
        if journal.finish(done.end, done.state, keys.eval):
          break
    except health.NotFinite as seen:
      raise journal.diverged(sentry.trace(seen)) from None
    journal.done()


def _inspector(
  config: config_lib.Config,
  experiment: Experiment,
  tx: optax.GradientTransformation,
  key: jax.Array,
) -> Callable:
  """(state, step) -> (next state, what is not finite), see `health.Sentry`."""
  quantities: list[tuple[str, Any]] = []

  @jax.jit
  def inspect(state, batch):
    state, found = step_lib.inspected_update(
      experiment, tx, state, batch, key, accumulate=config.accumulate
    )
    quantities[:] = [(name, _shapes(tree)) for name, tree in found]
    return state, health.first_fault(found)

  def run(state, step):
    signals.check()
    state, fault = inspect(state, experiment.train_data[step])
    if fault < 0:
      return state, None
    return state, health.name_fault(int(fault), quantities)

  return run


def _check_devices(config: config_lib.Config, mesh: jax.sharding.Mesh) -> None:
  """Raises unless every device gets as many rows of every microbatch."""
  parts = mesh.size * config.accumulate
  if config.batch_size % parts:
    raise ConfigError(
      f"batch_size={config.batch_size}: must be a multiple of {parts}:"
      f" {mesh.size} devices times accumulate={config.accumulate}"
    )


def _newest(
  saver: checkpoints.Checkpoints | None, fresh: step_lib.TrainState
) -> tuple[step_lib.TrainState, recorder.Clock, bool]:
  """The state to go on from, in all processes.

  Returns:
    (state on the host, clock, whether its step has been evaluated).
  """
  found = distributed.on_main(
    lambda: saver.restore_latest(fresh) if saver else None
  )
  progress = distributed.broadcast_json(found and found[1])
  state = distributed.broadcast(found[0] if found else fresh)
  if progress is None:
    return state, recorder.Clock(), True
  return state, recorder.Clock(**progress["clock"]), progress["evaluated"]


def _dispatches(
  config: config_lib.Config,
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: step_lib.TrainState,
  key: jax.Array,
  plan: Sequence[tuple[int, int]],
  longest: int,
  profiler: profiling.Profiler,
) -> Generator[recorder.Dispatch]:
  """Trains dispatch by dispatch.

  Args:
    config: of the run.
    experiment: to train.
    tx: the optimiser.
    state: before the first dispatch, whole on every device; donated.
    key: of `step.update`.
    plan: (first, end) steps of each dispatch.
    longest: most steps of a dispatch.
    profiler: of some of them.

  Yields:
    What each dispatch has made.
  """
  mesh = distributed.mesh()
  options = dict(log_every=config.log_every, accumulate=config.accumulate)
  jitted = step_lib.dispatcher(experiment, tx, mesh, **options)
  norm = jax.jit(health.norm)
  key_data = np.asarray(jax.random.key_data(key))
  programs: dict[Any, Any] = {}  # One for each shape of batches.
  data = batches_lib.share(
    experiment.train_data, jax.process_index(), jax.process_count()
  )
  stream = batches_lib.prefetched(data, plan, length=longest)
  with contextlib.closing(stream):
    for first, end in plan:
      steps = f"steps {first + 1} to {end}"
      began = time.perf_counter()
      with watchdog.limit(config.stall_seconds, f"reading {steps}"):
        batch = distributed.shard(next(stream), mesh)
      waited = time.perf_counter() - began
      count = np.int32(end - first)
      shapes = tuple(a.shape for a in jax.tree.leaves(batch))
      if shapes not in programs:
        begins = not programs
        if begins:
          signals.check()  # Nothing is lost before the first dispatch.
          if distributed.is_main():
            _say_cost(experiment, tx, state, batch, config.accumulate)
        lowered = jitted.lower(state, batch, count, key_data)
        programs[shapes] = lowered.compile()
        if begins:
          signals.check()
      profiler.before(first, end)
      began = time.perf_counter()
      with watchdog.limit(config.stall_seconds, steps):
        state, metrics = programs[shapes](state, batch, count, key_data)
        if end % config.log_every == 0:
          metrics["param_norm"] = norm(state.variables["params"])[None]
        metrics = jax.device_get(metrics)
        metrics = {name: v[: end - first] for name, v in metrics.items()}
      spent = waited + time.perf_counter() - began
      profiler.after(end)
      yield recorder.Dispatch(first, end, state, metrics, spent, waited)


def _say_cost(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: step_lib.TrainState,
  batch: Any,
  accumulate: int,
) -> None:
  """Prints how large the model is, and what an update of it costs."""
  key = step_lib.Keys.of(0).step
  shape = jax.ShapeDtypeStruct
  state, batch = jax.tree.map(lambda a: shape(a.shape, a.dtype), (state, batch))
  batch = jax.tree.map(lambda a: shape(a.shape[1:], a.dtype), batch)
  flops = cost.flops(
    lambda s, b: step_lib.update(
      experiment, tx, s, b, key, accumulate=accumulate
    ),
    state,
    batch,
  )
  params = jax.tree.leaves(state.variables["params"])
  devices, kind = jax.device_count(), jax.devices()[0].device_kind
  signals.say(
    f"{sum(p.size for p in params):,} parameters, {flops:.3g} FLOP a"
    f" step, on {devices} x {kind}"
  )


def _shapes(tree: Any) -> Any:
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
