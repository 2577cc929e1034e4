"""What a run leaves behind: metrics, evaluations, checkpoints, its clock.

Every process evaluates, so that none waits for another; process 0 writes.
"""

import math
import os
import signal
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from lnrnn.errors import DivergedError, WorkdirError
from lnrnn.training import (
  checkpoints,
  distributed,
  early,
  health,
  progress,
  signals,
  tensorboard,
  writers,
)
from lnrnn.training import config as config_lib
from lnrnn.training import step as step_lib
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.evaluation import run_evals
from lnrnn.training.experiment import Experiment


class Clock(NamedTuple):
  """Seconds that a run has taken so far, over all its starts.

  Attributes:
    train: of updates, with the wait for data, without compilation.
    data: of those, waiting for data.
    wall: of everything from the start of training to now.
  """

  train: float = 0.0
  data: float = 0.0
  wall: float = 0.0


class Dispatch(NamedTuple):
  """Some updates that were made in one compiled call.

  Attributes:
    first: steps done before it.
    end: steps done after it.
    state: after it.
    metrics: [end - first] each, on the host.
    spent: seconds it took, with the wait for data, without compilation.
    waited: of those, for data.
  """

  first: int
  end: int
  state: step_lib.TrainState
  metrics: dict[str, np.ndarray]
  spent: float
  waited: float


class Recorder:
  """Writes a run's rows, evaluates and saves where that is due.

  Args:
    config: of the run.
    experiment: with the evaluations.
    workdir: of the run.
    saver: of its checkpoints; None in every process but the first.
    clock: of the earlier starts.
  """

  def __init__(
    self,
    config: config_lib.Config,
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    saver: checkpoints.Checkpoints | None,
    clock: Clock,
  ):
    self._config, self._experiment = config, experiment
    self._workdir, self._saver = workdir, saver
    self._before, self._began = clock, time.monotonic()
    self._step = 0
    self._clock, self._rate = clock, 0.0
    self._writer: writers.MultiWriter | None = None
    # What `early` looks at: rows of what decides; in process 0 alone.
    self._decisive: list[dict[str, Any]] = []
    self._shown: progress.Progress | None = None

  def open(self, start: int, *, evaluated: bool) -> None:
    """Makes the workdir's files ready; in process 0 alone.

    Args:
      start: step the run (re)starts from.
      evaluated: whether the evaluation of that step is in the metrics.
    """
    workdir_lib.write_record(
      self._workdir,
      self._config,
      data=self._experiment.data,
      fingerprint=self._experiment.train_data.fingerprint,
      steps_per_epoch=self._experiment.train_data.steps_per_epoch,
      device=jax.devices()[0].device_kind,
      devices=jax.device_count(),
      processes=jax.process_count(),
      step=start,
    )
    writers.rewind(self._workdir, start, evaluated=evaluated)
    rows = writers.read_metrics(self._workdir) if self._config.patience else []
    self._decisive = [row for row in map(self._decides, rows) if row]
    self._writer = writers.MultiWriter(
      writers.JsonlWriter(self._workdir),
      tensorboard.TensorBoardWriter(self._workdir, step=start),
      writers.FigureWriter(self._workdir),
    )
    name = os.path.basename(os.path.abspath(self._workdir))
    self._shown = progress.Progress(name, start, self._config.train_steps)

  def rows(self, done: Dispatch) -> None:
    """Writes the training rows of a dispatch.

    Raises:
      NotFinite: for the first loss or norm that is not finite.
    """
    self._clock = self._clock._replace(
      train=self._clock.train + done.spent, data=self._clock.data + done.waited
    )
    self._rate = (done.end - done.first) / done.spent
    losses = done.metrics["loss"]
    for i in np.flatnonzero(~np.isfinite(losses)):
      step = done.first + int(i) + 1
      self._write(step, {"loss": losses[i]})
      raise health.NotFinite(step, "loss")
    if done.end % self._config.log_every == 0:
      row = {name: values[-1] for name, values in done.metrics.items()}
      self._write(done.end, row)
      for name in ("grad_norm", "param_norm"):
        if not np.isfinite(row[name]):
          raise health.NotFinite(done.end, name)
    if self._shown:
      self._shown.update(done.end, float(losses[-1]), self._rate)

  def finish(
    self, step: int, state: step_lib.TrainState, key: jax.Array
  ) -> bool:
    """Evaluates and saves what is due after a step; stops if asked to.

    Args:
      step: updates done.
      state: after them.
      key: of the evaluations.

    Returns:
      Whether the run is at its end: its last step, or that of its patience.

    Raises:
      NotFinite: if the state to save is not.
      WorkdirError: if saving fails.
      Exception: of an evaluation, the state being saved.
      Interrupted: after a signal in any process, the state being saved.
    """
    self._step = step
    over, found = step == self._config.train_steps, {}
    evals = self._experiment.evals.values()

    def due(ev):
      return ev.splits if not ev.of_best and step % ev.every == 0 else ()

    def left(ev):
      return () if ev.of_best or due(ev) else ev.splits

    def of_best(ev):
      return ev.splits if ev.of_best else ()

    def measure(*rounds):
      """Whether no signal came in between."""
      own = jax.random.fold_in(key, step)
      try:
        with signals.prompt():
          for variables, which in rounds:
            found.update(run_evals(self._experiment, variables, own, which))
      except signals.Interrupted:
        return False
      except Exception:  # A fault in the task's code costs no update.
        self._save(state, evaluated=False)
        if self._saver:
          self._saver.wait()
        raise
      return True

    now = distributed.local(state.variables)
    done = measure((now, due))
    evaluated = done or not (over or any(map(due, evals)))
    # What follows waits for the other processes, so all must come here.
    over = over or distributed.any_process(self._is_spent(step, found))
    if over:
      rounds = [(now, left)]
      if any(map(of_best, evals)):
        best = self._best(state, found)
        if best is not None:
          # Where those of now are: elsewhere would be compiled for anew.
          variables = jax.device_put(best.variables, jax.local_devices()[0])
          rounds.append((variables, of_best))
          for split in {s for ev in evals for s in of_best(ev)}:
            found[f"{split}/of_step"] = float(best.step)
      evaluated = done and measure(*rounds)
    if found and evaluated:  # What was broken off is done anew.
      self._write(step, found)
      self._decisive += filter(None, [self._decides({"step": step, **found})])
    if saver := self._saver:
      saver.check()
      score = saver.score(found)
      periodic = over or step % self._config.checkpoint_every == 0
      if evaluated and (periodic or saver.is_among_best(score)):
        self._save(state, score, evaluated=True)
    if distributed.any_process(signals.received() is not None):
      self._save(state, evaluated=evaluated)
      if self._saver:
        self._saver.wait()
        signals.tell(f"{self._workdir}: saved at step {step}")
      raise signals.Interrupted(signals.received() or signal.SIGTERM)
    return over

  def _is_spent(self, step: int, found: dict[str, Any]) -> bool:
    """Whether patience ends the run here; in process 0 alone."""
    own = self._decides({"step": step, **found})
    if not self._saver or not own:
      return False
    rows = [*self._decisive, own]
    return early.is_spent(rows, self._config.best, self._config.patience)

  def _decides(self, row: dict[str, Any]) -> dict[str, Any]:
    """Of a row the metric that `config.best` names; {} without it."""
    metric = self._config.best.partition(":")[0]
    return {k: row[k] for k in ("step", metric)} if metric in row else {}

  def _best(
    self, state: step_lib.TrainState, found: dict[str, Any]
  ) -> step_lib.TrainState | None:
    """The state that `config.best` has chosen, that of now among them.

    Args:
      state: of now.
      found: what was measured of it.

    Returns:
      The state; None if its checkpoint is damaged, which is told.
    """
    now = jax.device_get(distributed.local(state))

    def best():
      saver = self._saver
      if saver is None:
        return now
      saver.wait()
      step = saver.best_step()
      if step is None or saver.is_best(saver.score(found)):
        return now
      try:
        return saver.restore(now, step)[0]
      except WorkdirError as e:
        signals.tell(f"nothing is measured of the best state: {e}")
        return None

    chosen = distributed.on_main(best)
    damaged = distributed.is_main() and chosen is None
    if distributed.any_process(damaged):
      return None
    return distributed.broadcast(chosen or now)

  def done(self) -> None:
    """Ends a run that came to its last step."""
    if self._saver:
      self._saver.wait()
    if self._writer and self._clock.train > self._before.train:
      share = self._clock.data / self._clock.train
      spent = self._step < self._config.train_steps
      early_end = f" by its patience at step {self._step}" if spent else ""
      signals.say(
        f"{self._workdir}: finished{early_end} after"
        f" {self._clock.train:.0f} s of updates"
        f" ({share:.1%} waiting for data), {self._now()['wall']:.0f} s in all"
      )

  def close(self) -> None:
    """Closes the files."""
    if self._shown:
      self._shown.close()
    if self._writer:
      self._writer.close()

  def _now(self) -> dict[str, float]:
    wall = self._before.wall + time.monotonic() - self._began
    return self._clock._replace(wall=wall)._asdict()

  def _write(self, step: int, metrics: dict[str, Any]) -> None:
    if self._writer:
      clock = {f"time/{k}_seconds": v for k, v in self._now().items()}
      clock["time/steps_per_s"] = self._rate
      self._writer.write(step, {**metrics, **clock})

  def _save(
    self,
    state: step_lib.TrainState,
    score: float = -math.inf,
    *,
    evaluated: bool,
  ) -> None:
    host = jax.device_get(distributed.local(state))
    step = int(host.step)
    if name := health.broken(host):
      raise health.NotFinite(step, name.removeprefix("variables/"))
    if self._saver and self._writer:
      self._writer.flush()  # Its rows shall be there if the checkpoint is.
      kept = {"clock": self._now(), "evaluated": evaluated}
      self._saver.save(host, kept, score)

  def diverged(self, fault: health.NotFinite) -> DivergedError:
    """Records why the run ends; what to raise then."""
    if self._writer:
      self._writer.write(fault.step, {"fault": str(fault)})
      self._writer.flush()
    kept = "no checkpoint had been saved"
    if self._saver:
      self._saver.wait()
      if self._saver.steps():
        kept = "the last checkpoint is kept"
    return DivergedError(f"{fault}; {kept}")
