"""Checkpoints of a run, kept by orbax, verified by us.

A step counts only once its commit file is there, so a run that is killed
while saving leaves nothing that looks like a checkpoint. orbax restores many
damaged files without a word; so each checkpoint holds a sha256 over every leaf
of the state and all that is recorded with it, and, written before the commit
file, a list SHA256SUMS of its files (as `sha256sum --check` reads it), which
names the damaged one.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import time
from typing import Any

import jax
import numpy as np

from lnrnn.errors import ConfigError, WorkdirError
from lnrnn.training import config as config_lib
from lnrnn.training import health, signals

FOLDER = "checkpoints"
DAMAGED = "damaged"
SUMS = "SHA256SUMS"
_COMMITTED = "commit_success.txt"
_METADATA = "_CHECKPOINT_METADATA"
# Made with the first checkpoint. Without it a save that was cut off may be the
# first there ever was, and the run may begin anew.
_BEGUN = ".begun"
# In front of a step that is saved anew: what it was, until that is whole.
_OLD = ".old-"


class DamagedError(Exception):
  """A checkpoint is not what was saved."""


def committed_steps(workdir: str | os.PathLike[str]) -> list[int]:
  """Steps with a complete checkpoint, ascending; needs no orbax."""
  found = pathlib.Path(workdir, FOLDER).glob(f"*/{_COMMITTED}")
  return sorted(int(p.parent.name) for p in found if p.parent.name.isdecimal())


def _uncommitted(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Folders of checkpoints that were cut off, or lost their commit file."""
  return sorted(
    path
    for path in pathlib.Path(workdir, FOLDER).glob("[0-9]*")
    if path.name.isdecimal()
    and path.is_dir()
    and not (path / _COMMITTED).exists()
  )


def check_files(folder: pathlib.Path) -> None:
  """Compares the files of a checkpoint with its SHA256SUMS.

  Raises:
    DamagedError: naming the first file that is missing or differs.
  """
  try:
    json.loads((folder / _METADATA).read_text(encoding="utf-8"))
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
  except FileNotFoundError as e:
    name = pathlib.Path(e.filename).name
    raise DamagedError(f"file {name!r} is missing") from e
  except (OSError, ValueError) as e:
    raise DamagedError(f"{_METADATA} or {SUMS} cannot be read: {e}") from e
  sums = {
    name: wanted for wanted, _, name in (x.partition("  ") for x in lines)
  }
  unlisted = _listed(folder).difference(sums)
  if unlisted:
    raise DamagedError(f"{SUMS} does not list file {min(unlisted)!r}")
  for name, wanted in sums.items():
    try:
      if not (folder / name).is_file():
        raise DamagedError(f"file {name!r}, listed in {SUMS}, is missing")
      found = _sha256(folder / name)
    except OSError as e:
      raise DamagedError(f"file {name!r} cannot be read: {e.strerror}") from e
    if found != wanted:
      raise DamagedError(f"file {name!r} has changed (its sha256 differs)")


def is_complete(workdir: str | os.PathLike[str], step: int) -> bool:
  """Whether a checkpoint is undamaged and its step was evaluated."""
  folder = pathlib.Path(workdir, FOLDER, str(step))
  try:
    check_files(folder)
    return bool(_read_meta(folder)["progress"]["evaluated"])
  except (DamagedError, OSError, ValueError, KeyError, TypeError):
    return False


def _read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """What stands beside the state, without orbax."""
  text = (folder / "meta" / "metadata").read_text(encoding="utf-8")
  return json.loads(text)


def _write_sums(folder: pathlib.Path) -> None:
  """Writes SHA256SUMS beside the files of a checkpoint."""
  names = sorted(_listed(folder))
  lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
  (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _listed(folder: pathlib.Path) -> set[str]:
  """The files that SHA256SUMS lists, by their paths in the folder."""
  # orbax adds the time of the commit to _METADATA when it commits.
  found = (p for p in folder.rglob("*") if p.is_file() and p.name != _METADATA)
  names = {p.relative_to(folder).as_posix() for p in found}
  return names.difference({SUMS, _COMMITTED})


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def digest(state: Any, meta: Mapping[str, Any]) -> str:
  """sha256 over path, dtype, shape and bytes of every leaf, and the record."""
  total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
  leaves = jax.tree.leaves(state)
  for (name, spec), leaf in zip(_specs(state).items(), leaves, strict=True):
    total.update(f"|{name}|{spec}|".encode())
    total.update(np.ascontiguousarray(leaf).data.cast("B"))
  return total.hexdigest()


def _specs(state: Any) -> dict[str, str]:
  """{path: "float32[3, 4]"} of the leaves."""
  leaves = jax.tree.leaves(state)
  return {
    name: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    for name, leaf in zip(health.paths(state), leaves, strict=True)
  }


class _Kept:
  """Preserves some checkpoints; an orbax PreservationPolicy.

  The latest, the best, and those whose step is a multiple of `every`, where
  that is above 0.
  """

  def __init__(self, latest: int, best: int, every: int):
    self.latest, self.best, self.every = latest, best, every
    self.scores: dict[int, float] = {}

  def ranked(self, steps: Iterable[int]) -> list[int]:
    """Steps with a score, the best first, of equals the earliest."""
    known = [step for step in steps if step in self.scores]
    return sorted(known, key=lambda step: (-self.scores[step], step))

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any):
    del context
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    kept = {*steps[-self.latest :], *self.ranked(steps)[: self.best]}
    if self.every:
      kept.update(step for step in steps if step % self.every == 0)
    return [checkpoint.step in kept for checkpoint in checkpoints]


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
    self._kept = _Kept(kept, best_kept if best else 0, kept_every)
    if writes:
      self._end_replacement()
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
    meta = {
      "step": step,
      **self._identity,
      "config_sha256": _hash_json(self._identity["config"]),
      "leaves": _specs(host),
      "progress": dict(progress),
      "score": score if known else None,
    }
    meta["meta_sha256"] = _hash_json(meta)
    meta["sha256"] = digest(host, meta)
    args = self._ocp.args.Composite(
      state=self._ocp.args.StandardSave(host),
      meta=self._ocp.args.JsonSave(meta),
    )
    with self._named("a save has failed"):
      self._manager.wait_until_finished()
    with self._named(f"cannot save step {step}"):
      self._end_replacement()
      if step in self._manager.all_steps():
        scored = known and step not in self._kept.scores
        if not (scored or (progress.get("evaluated") and self._is_early(step))):
          return
        folder = self._folder / str(step)
        folder.rename(folder.with_name(f"{_OLD}{step}"))
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
    cut = _uncommitted(self._workdir)
    begun = (self._folder / _BEGUN).exists()
    if found is None and (damaged or (cut and begun)):
      reasons = [f"step {step}: {why}" for step, why in damaged]
      reasons += [f"step {path.name}: not committed" for path in cut]
      raise WorkdirError(
        f"no checkpoint in {self._folder} is good, and none was deleted:"
        f" {'; '.join(reasons)}. Mend or remove that folder to go on"
      )
    for step, why in damaged:
      moved = self._move_aside(step)
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
      self._end_replacement()
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
    _write_sums(self._folder / str(self._saving))

  def _end_replacement(self) -> None:
    """Removes what a step was once it is saved anew; else brings it back."""
    for old in self._folder.glob(f"{_OLD}*"):
      new = self._folder / old.name.removeprefix(_OLD)
      if (new / _COMMITTED).exists():
        shutil.rmtree(old)
      else:
        shutil.rmtree(new, ignore_errors=True)
        old.rename(new)

  def _is_early(self, step: int) -> bool:
    """Whether a checkpoint was saved before its step was evaluated."""
    meta = _read_meta(self._folder / str(step))
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
      sha256 = meta.pop("sha256")
      told = {k: v for k, v in meta.items() if k != "meta_sha256"}
      if _hash_json(told) != meta["meta_sha256"]:
        raise DamagedError("its record has changed (meta_sha256 differs)")
      self._refuse_foreign(step, meta, _specs(like))
      state = self._manager.restore(
        step, args=args.Composite(state=args.StandardRestore(shapes))
      )["state"]
      state = jax.tree.map(np.asarray, state)
      if digest(state, meta) != sha256:
        raise DamagedError("the state's sha256 is not the recorded one")
      if int(state.step) != step:
        raise DamagedError(f"it holds step {int(state.step)}")
      return state, meta["progress"]
    except (WorkdirError, DamagedError):
      raise
    except Exception as e:  # orbax raises many kinds, see its issues.
      reason = str(e).strip().split("\n")[0][:200]
      raise DamagedError(f"{type(e).__name__}: {reason}") from e

  def _refuse_foreign(
    self, step: int, meta: Mapping[str, Any], leaves: Mapping[str, str]
  ) -> None:
    """Raises for a checkpoint of another run, listing what differs."""
    found = config_lib.differences(meta["config"], self._identity["config"])
    if meta["fingerprint"] != self._identity["fingerprint"]:
      theirs, ours = meta["fingerprint"], self._identity["fingerprint"]
      found.append(f"data fingerprint: {theirs} -> {ours}")
    if not found:
      stored = meta["leaves"]
      found = [
        f"{name}: {stored.get(name, 'absent')} -> {leaves.get(name, 'absent')}"
        for name in sorted({*stored, *leaves})
        if stored.get(name) != leaves.get(name)
      ]
    if found:
      raise WorkdirError(
        f"checkpoint {self._folder / str(step)} is of another run:"
        f" {'; '.join(found)} (stored -> asked for)"
      )

  def _learn_score(self, step: int) -> None:
    try:
      score = _read_meta(self._folder / str(step))["score"]
    except (OSError, ValueError, KeyError, TypeError):
      return  # Damaged; that is said where it is restored.
    if isinstance(score, float) and math.isfinite(score):
      self._kept.scores[step] = score

  def _move_aside(self, step: int) -> pathlib.Path:
    folder = self._workdir / DAMAGED
    folder.mkdir(exist_ok=True)
    target = folder / f"{step}-{time.strftime('%Y%m%dT%H%M%S')}"
    n = 1
    while target.exists():
      n += 1
      target = target.with_name(f"{target.name.partition('_')[0]}_{n}")
    # Not by rename: `checkpoints` may be a link to another disk.
    shutil.move(self._folder / str(step), target)
    self._kept.scores.pop(step, None)
    return target

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


def _hash_json(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
