"""Checkpoints of a run, kept by orbax, verified by us.

`checkpoint_files` has what they are on the disk, `checkpoint_record` what is
saved beside a state.
"""

from collections.abc import Generator, Mapping
import contextlib
import math
import os
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np

from lnrnn.errors import ConfigError, WorkdirError
from lnrnn.training import checkpoint_record, signals
from lnrnn.training.checkpoint_files import (
  FOLDER,
  DamagedError,
  check_files,
  committed_steps,
  end_replacements,
  move_damaged,
  read_meta,
  set_aside,
  uncommitted,
  write_sums,
)
from lnrnn.training.checkpoint_policy import Kept

# Made with the first checkpoint. Without it a save that was cut off may be the
# first there ever was, and the run may begin anew.
_BEGUN = ".begun"


class Checkpoints:
  """Saves and restores the state of a run under `workdir/checkpoints`.

  Args:
    workdir: of the run.
    identity: {"config": of `config.to_dict`, "fingerprint": of the data}; a
      checkpoint of another one is refused.
    kept: how many of the latest checkpoints stay.
    kept_every: those of steps that are a multiple of it stay too; 0: none.
    best: "split/metric:min" or ":max", whose best checkpoints stay as well;
      "" for none.
    best_kept: how many of the best stay.
    writes: False only reads, and leaves a save of another process alone.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    identity: Mapping[str, Any],
    *,
    kept: int,
    kept_every: int = 0,
    best: str = "",
    best_kept: int = 1,
    writes: bool = True,
  ):
    # orbax is not needed by `import lnrnn`.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import options

    self._ocp = ocp
    self._workdir = pathlib.Path(workdir)
    self._folder = self._workdir.absolute() / FOLDER
    self._identity = dict(identity)
    self._metric, _, mode = best.partition(":")
    self._sign = -1.0 if mode == "min" else 1.0
    self._kept = Kept(kept, best_kept if best else 0, kept_every)
    if writes:
      end_replacements(self._folder)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        atomicity_options=options.AtomicityOptions(
          mode=options.AtomicityMode.COMMIT_FILE
        ),
        async_options=options.AsyncOptions(
          post_finalization_callback=self._before_commit
        ),
        # Process 0 alone saves; it waits for no other.
        multiprocessing_options=options.MultiprocessingOptions(
          primary_host=0, active_processes={0}
        )
        if jax.process_count() > 1
        else options.MultiprocessingOptions(),
        create=writes and jax.process_count() == 1,
      ),
    )
    self._saving = -1  # The step that is being written.
    for step in self.steps():
      self._learn_score(step)

  def steps(self) -> list[int]:
    """Steps that can be restored, ascending."""
    return committed_steps(self._workdir)

  def score(self, metrics: Mapping[str, Any]) -> float:
    """How good an evaluation is, larger being better; -inf if unknown."""
    value = metrics.get(self._metric)
    if value is not None and not isinstance(value, float):
      raise ConfigError(f"best: {self._metric} is not a number")
    if value is None or not math.isfinite(value):
      return -math.inf
    return self._sign * float(value)

  def is_among_best(self, score: float) -> bool:
    """Whether a checkpoint of that score would stay for its score alone."""
    best = self._kept.ranked(self._kept.scores)[: self._kept.best]
    if len(best) < self._kept.best:
      return score > -math.inf
    return bool(best) and score > self._kept.scores[best[-1]]

  def best_step(self) -> int | None:
    """The step with the best score; None where no metric decides."""
    return next(iter(self._kept.ranked(self.steps())), None)

  def is_best(self, score: float) -> bool:
    """Whether a checkpoint of that score would be the best one."""
    best = self.best_step()
    return best is None or score > self._kept.scores[best]

  def save(
    self, state: Any, progress: Mapping[str, Any], score: float = -math.inf
  ) -> None:
    """Saves a state in the background.

    Args:
      state: pytree of arrays with a leaf `step`, all of them finite. One that
        is there already is replaced if the score is new.
      progress: what else to restore, as JSON types.
      score: of `score()`.

    Raises:
      WorkdirError: if this or an earlier save fails.
    """
    # Copies: the next update donates the buffers while orbax still writes.
    host = jax.tree.map(np.array, jax.device_get(state))
    step = int(host.step)
    known = math.isfinite(score)
    meta = checkpoint_record.record(
      host, self._identity, progress, score if known else None
    )
    args = self._ocp.args.Composite(
      state=self._ocp.args.StandardSave(host),
      meta=self._ocp.args.JsonSave(meta),
    )
    with self._named("a save has failed"):
      self._manager.wait_until_finished()
    with self._named(f"cannot save step {step}"):
      end_replacements(self._folder)
      if step in self._manager.all_steps():
        scored = known and step not in self._kept.scores
        if not (scored or (progress.get("evaluated") and self._is_early(step))):
          return
        set_aside(self._folder / str(step))
        self._manager.reload()
      if known:
        self._kept.scores[step] = score
      self._note_begun()
      self._saving = step
      self._manager.save(step, args=args)

  def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """Restores the newest good checkpoint, as a run does when it starts.

    Newer ones that are damaged are named and moved to `workdir/damaged`, and
    what a killed run left of a save is removed.

    Args:
      like: pytree of arrays or shapes to restore into.

    Returns:
      (state, progress), or None where no checkpoint was ever complete.

    Raises:
      WorkdirError: if there are checkpoints but no good one (nothing is
        deleted then), or if the newest is of another config, other data or
        other shapes.
    """
    damaged: list[tuple[int, str]] = []
    found = None
    for step in reversed(self.steps()):
      try:
        found = self._read(step, like)
        break
      except DamagedError as e:
        damaged.append((step, str(e)))
    cut = uncommitted(self._workdir)
    begun = (self._folder / _BEGUN).exists()
    if found is None and (damaged or (cut and begun)):
      reasons = [f"step {step}: {why}" for step, why in damaged]
      reasons += [f"step {path.name}: not committed" for path in cut]
      raise WorkdirError(
        f"no checkpoint in {self._folder} is good, and none was deleted:"
        f" {'; '.join(reasons)}. Mend or remove that folder to go on"
      )
    for step, why in damaged:
      moved = move_damaged(self._workdir, step)
      self._kept.scores.pop(step, None)
      signals.tell(f"checkpoint {step} is damaged: {why}; moved to {moved}")
    for path in cut:
      shutil.rmtree(path)
      signals.tell(
        f"checkpoint {path.name} was not committed (its save was cut off):"
        " removed"
      )
    if damaged or cut:
      self._manager.reload()
    self._note_begun()
    return found

  def restore(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
    """Restores one step and changes nothing.

    Args:
      like: pytree of arrays or shapes to restore into.
      step: which.

    Returns:
      (state, progress).

    Raises:
      WorkdirError: if it is damaged, or of another config, data or shapes.
    """
    try:
      return self._read(step, like)
    except DamagedError as e:
      others = [s for s in self.steps() if s != step]
      listed = ", ".join(map(str, others)) or "none"
      raise WorkdirError(
        f"checkpoint {self._folder / str(step)} is damaged: {e}; other steps:"
        f" {listed}"
      ) from e

  def check(self) -> None:
    """Raises what went wrong in a save under way, as WorkdirError."""
    with self._named("a save has failed"):
      self._manager.check_for_errors()

  def wait(self) -> None:
    """Waits for saves under way.

    Raises:
      WorkdirError: if one of them fails.
    """
    with self._named("a save has failed"):
      self._manager.wait_until_finished()
      end_replacements(self._folder)
      self._note_begun()

  def close(self) -> None:
    """Waits and closes.

    Raises:
      WorkdirError: if a save fails.
    """
    with self._named("a save has failed"):
      self._manager.close()

  def _before_commit(self) -> None:
    """Runs on the thread that writes, when only the commit file is missing."""
    write_sums(self._folder / str(self._saving))

  def _is_early(self, step: int) -> bool:
    """Whether a checkpoint was saved before its step was evaluated."""
    meta = read_meta(self._folder / str(step))
    return meta["progress"].get("evaluated") is False

  def _note_begun(self) -> None:
    if self.steps():
      (self._folder / _BEGUN).touch()

  def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """(state, progress) of a step, verified."""
    check_files(self._folder / str(step))
    args = self._ocp.args
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like
    )
    try:
      meta = self._manager.restore(
        step, args=args.Composite(meta=args.JsonRestore())
      )["meta"]
      checkpoint_record.check_record(meta)
      if found := checkpoint_record.differences(meta, self._identity, like):
        raise WorkdirError(
          f"checkpoint {self._folder / str(step)} is of another run:"
          f" {'; '.join(found)} (stored -> asked for)"
        )
      state = self._manager.restore(
        step, args=args.Composite(state=args.StandardRestore(shapes))
      )["state"]
      state = jax.tree.map(np.asarray, state)
      checkpoint_record.check_state(state, meta)
      if int(state.step) != step:
        raise DamagedError(f"it holds step {int(state.step)}")
      return state, meta["progress"]
    except (WorkdirError, DamagedError):
      raise
    except Exception as e:  # orbax raises many kinds, see its issues.
      reason = str(e).strip().split("\n")[0][:200]
      raise DamagedError(f"{type(e).__name__}: {reason}") from e

  def _learn_score(self, step: int) -> None:
    try:
      score = read_meta(self._folder / str(step))["score"]
    except (OSError, ValueError, KeyError, TypeError):
      return  # Damaged; that is said where it is restored.
    if isinstance(score, float) and math.isfinite(score):
      self._kept.scores[step] = score

  @contextlib.contextmanager
  def _named(self, what: str) -> Generator[None]:
    """Turns whatever orbax raises into one line."""
    try:
      yield
    except Exception as e:
      raise WorkdirError(f"{self._folder}: {what}: {_reason(e)}") from e


def _reason(error: Exception) -> str:
  """What an error says, in one line."""
  text = str(error).strip()
  # tensorstore has it at the end of a long line.
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  return f"{type(error).__name__}: {text.partition(chr(10))[0][:300]}"
