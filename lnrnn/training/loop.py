"""The training loop: it knows an `Experiment` and optax, and no task."""

from collections.abc import Callable, Generator, Sequence
import contextlib
import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lnrnn.data import batches as batches_lib
from lnrnn.errors import DivergedError, WorkdirError
from lnrnn.training import checkpoints, optim, writers
from lnrnn.training import config as config_lib
from lnrnn.training import progress as progress_lib
from lnrnn.training import step as step_lib
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Experiment


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
      lambda: step_lib.init_state(
        experiment, tx, step_lib.Keys.of(config.seed).init
      )
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
  keys = step_lib.Keys.of(config.seed)
  tx = optim.make(config.optimizer, config.train_steps)
  state = step_lib.init_state(experiment, tx, keys.init)
  data = experiment.train_data
  saver = checkpoints.Checkpoints(
    workdir, kept=config.checkpoints_kept, best=config.best
  )
  seconds, best = 0.0, -math.inf
  if restored := saver.restore(state):
    state, meta = restored
    state = jax.tree.map(jnp.array, state)
    seconds = meta["train_seconds"]
    best = -math.inf if meta["best"] is None else meta["best"]
  start, stop = int(state.step), config.train_steps
  workdir_lib.write_record(
    workdir,
    config,
    data=experiment.data,
    fingerprint=data.fingerprint,
    steps_per_epoch=data.steps_per_epoch,
    device=jax.devices()[0].device_kind,
    step=start,
  )
  writers.rewind(workdir, start)
  writer = writers.MultiWriter(
    writers.JsonlWriter(workdir),
    writers.TensorBoardWriter(workdir, step=start),
  )
  periods = [config.checkpoint_every]
  periods += [ev.every for ev in experiment.evals.values()]
  plan = list(step_lib.chunks(start, stop, periods, config.steps_per_dispatch))
  name = os.path.basename(os.path.abspath(workdir))
  shown = progress_lib.Progress(name, start, stop)
  with contextlib.ExitStack() as stack:
    for resource in (saver, writer, shown):
      stack.callback(resource.close)
    dispatches = _dispatches(experiment, tx, state, keys.step, plan)
    stack.callback(dispatches.close)
    for first, end, state, metrics, spent in dispatches:
      seconds += spent
      rate = (end - first) / spent
      clock = {"time/train_seconds": seconds, "time/steps_per_s": rate}
      _write_rows(writer, first, metrics, clock, config.log_every)
      _stop_if_diverged(first, metrics["loss"])
      shown.update(end, float(metrics["loss"][-1]), rate)
      last = end == stop
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
        _stop_if_broken(writer, end, state.variables["params"])
        meta = {
          "train_seconds": seconds,
          "best": best if math.isfinite(best) else None,
          "fingerprint": data.fingerprint,
        }
        saver.save(state, meta, score)
    saver.wait()


def _dispatches(
  experiment: Experiment,
  tx: optax.GradientTransformation,
  state: step_lib.TrainState,
  key: jax.Array,
  plan: Sequence[tuple[int, int]],
) -> Generator[
  tuple[int, int, step_lib.TrainState, dict[str, np.ndarray], float]
]:
  """Trains dispatch by dispatch.

  Args:
    experiment: to train.
    tx: the optimiser.
    state: before the first dispatch.
    key: of `step.update`.
    plan: (first, end) steps of each dispatch.

  Yields:
    (first, end, state after it, metrics [end - first] each, seconds), the
    seconds with the wait for data and without the compilation.
  """
  jitted = step_lib.dispatcher(experiment, tx)
  compiled: dict[int, Any] = {}
  stream = batches_lib.prefetched(experiment.train_data, plan)
  with contextlib.closing(stream):
    for first, end in plan:
      began = time.perf_counter()
      batch = next(stream)
      waited = time.perf_counter() - began
      if end - first not in compiled:
        lowered = jitted.lower(state, batch, key)
        compiled[end - first] = lowered.compile()
      began = time.perf_counter()
      state, metrics = compiled[end - first](state, batch, key)
      metrics = jax.device_get(metrics)
      spent = time.perf_counter() - began
      yield first, end, state, metrics, waited + spent


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


def _stop_if_broken(
  writer: writers.MultiWriter, step: int, params: Any
) -> None:
  """Raises before parameters that are not finite become a checkpoint."""
  # The loss that an update follows from may be the last finite one.
  leaves = jax.tree.leaves(jax.device_get(params))
  if not all(np.isfinite(leaf).all() for leaf in leaves):
    writer.write(step, {"params": math.nan})
    raise DivergedError(
      f"parameters are not finite after step {step}; the last checkpoint is"
      " kept"
    )
