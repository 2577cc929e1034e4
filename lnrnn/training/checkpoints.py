"""Checkpoints of a run, kept by orbax.

A step counts only once its commit file is there, so a run that is killed
while saving leaves nothing that looks like a checkpoint.
"""

from collections.abc import Mapping
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np

from lnrnn.errors import WorkdirError

FOLDER = "checkpoints"
_COMMITTED = "commit_success.txt"


def committed_steps(workdir: str | os.PathLike[str]) -> list[int]:
  """Steps with a complete checkpoint, ascending; needs no orbax."""
  found = pathlib.Path(workdir, FOLDER).glob(f"*/{_COMMITTED}")
  return sorted(int(p.parent.name) for p in found if p.parent.name.isdigit())


class Checkpoints:
  """Saves and restores the state of a run under `workdir/checkpoints`.

  Args:
    workdir: of the run.
    kept: how many of the latest checkpoints stay.
    best: "split/metric:min" or ":max", whose best checkpoint stays as well;
      "" for none.
    writes: False only reads, and leaves a save of another process alone.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    kept: int,
    best: str = "",
    writes: bool = True,
  ):
    # orbax is not needed by `import lnrnn`.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers, options

    self._ocp = ocp
    self._metric, _, mode = best.partition(":")
    self._sign = -1.0 if mode == "min" else 1.0
    policies: list[checkpoint_managers.PreservationPolicy] = [
      checkpoint_managers.LatestN(kept)
    ]
    if best:
      policies.append(
        checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics["score"],
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._manager = ocp.CheckpointManager(
      pathlib.Path(workdir, FOLDER).absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        # Without it orbax neither writes the scores nor knows a best step.
        best_fn=(lambda metrics: metrics["score"]) if best else None,
        atomicity_options=options.AtomicityOptions(
          mode=options.AtomicityMode.COMMIT_FILE
        ),
        cleanup_tmp_directories=writes,
        create=writes,
      ),
    )

  def score(self, metrics: Mapping[str, Any]) -> float:
    """How good an evaluation is, larger being better; -inf if unknown."""
    value = metrics.get(self._metric)
    if value is None or not math.isfinite(value):
      return -math.inf
    return self._sign * float(value)

  def save(self, state: Any, meta: Mapping[str, Any], score: float) -> None:
    """Saves a state in the background.

    Args:
      state: pytree of arrays with a leaf `step`.
      meta: what else to record, as JSON types.
      score: of `score()`.
    """
    # Copies: the next update donates the buffers while orbax still writes.
    host = jax.tree.map(np.array, jax.device_get(state))
    step = int(host.step)
    if step in self._manager.all_steps():
      return
    args = self._ocp.args.Composite(
      state=self._ocp.args.StandardSave(host),
      meta=self._ocp.args.JsonSave(dict(meta)),
    )
    metrics = {"score": score} if math.isfinite(score) else None
    self._manager.save(step, args=args, metrics=metrics)

  def restore(
    self, like: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]] | None:
    """Restores a state.

    Args:
      like: pytree of arrays or shapes to restore into.
      step: which; the latest if None.

    Returns:
      (state, meta), or None where there is no checkpoint.

    Raises:
      WorkdirError: if the checkpoint cannot be read into `like`.
    """
    step = self._manager.latest_step() if step is None else step
    if step is None:
      return None
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like
    )
    try:
      found = self._manager.restore(
        step,
        args=self._ocp.args.Composite(
          state=self._ocp.args.StandardRestore(shapes),
          meta=self._ocp.args.JsonRestore(),
        ),
      )
      # orbax restores NumPy arrays in the shape they were stored in.
      for (path, want), got in zip(
        jax.tree.leaves_with_path(shapes),
        jax.tree.leaves(found["state"]),
        strict=True,
      ):
        if want.shape != np.shape(got):
          name = jax.tree_util.keystr(path)
          raise ValueError(f"{name} has {np.shape(got)}, not {want.shape}")
    except Exception as e:  # orbax raises many kinds, see its issues.
      reason = str(e).strip().split("\n")[0]
      raise WorkdirError(
        f"checkpoint {self._manager.directory / str(step)} cannot be restored"
        f" ({type(e).__name__}: {reason[:200]}); move it away to go on from"
        " the one before it"
      ) from e
    return found["state"], found["meta"]

  def best_step(self) -> int | None:
    """The step with the best score; None where no metric decides."""
    return self._manager.best_step() if self._metric else None

  def wait(self) -> None:
    """Waits for saves under way; raises what went wrong in them."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and closes."""
    self._manager.close()
