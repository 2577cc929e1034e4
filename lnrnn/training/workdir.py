"""A run's folder: whose it is, and whether the run is finished."""

from collections.abc import Mapping
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

from lnrnn import files
from lnrnn.errors import WorkdirError, one_line
from lnrnn.training import checkpoint_files, early, writers
from lnrnn.training import config as config_lib

RECORD = "config.json"
ASSETS = "assets"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def read_record(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """What `config.json` of a workdir says; None where there is none.

  Raises:
    WorkdirError: if the file is not a record of ours.
  """
  path = pathlib.Path(workdir, RECORD)
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (ValueError, OSError) as e:
    raise WorkdirError(f"{path} is not the record of a run: {e}") from e
  return checked(record, str(path), "starts")


def checked(record: Any, place: str, *more: str) -> dict[str, Any]:
  """A record that has what says which run it is of.

  Args:
    record: as it was read.
    place: where, for errors.
    more: fields that it must have besides.

  Returns:
    The record.

  Raises:
    WorkdirError: it lacks a field.
  """
  try:
    for key in ("config", "data", "fingerprint", "steps_per_epoch", *more):
      _ = record[key]
    _ = record["config"]["experiment"]
  except (KeyError, TypeError) as e:
    raise WorkdirError(f"{place} is not the record of a run: {e}") from e
  return record


def read_config(workdir: str | os.PathLike[str]) -> config_lib.Config:
  """The config of the run in `workdir`.

  Raises:
    WorkdirError: if no run has been started there.
  """
  record = read_record(workdir)
  if record is None:
    raise WorkdirError(f"workdir {workdir}: no {RECORD}, so no run is here")
  return config_lib.from_dict(record["config"])


def check(workdir: str | os.PathLike[str], config: config_lib.Config) -> None:
  """Makes sure that `workdir` is free or holds the run of `config`; only reads.

  Args:
    workdir: need not exist.
    config: of the run that is about to start.

  Raises:
    WorkdirError: if it belongs to a run of another config (the differing
      fields are listed), holds checkpoints without a record of their
      config, or is farther than the run shall go.
  """
  name = os.fspath(workdir)
  if not name or "://" in name:
    raise WorkdirError(f"workdir {name!r}: name a folder of a file system")
  path = pathlib.Path(workdir)
  record = read_record(path)
  if record is None:
    if checkpoint_files.committed_steps(path):
      raise WorkdirError(
        f"workdir {path} holds checkpoints but no {RECORD}: choose another"
      )
    return
  found = config_lib.differences(record["config"], config_lib.to_dict(config))
  if found:
    raise WorkdirError(
      f"workdir {path} belongs to a run of another config: {'; '.join(found)}"
      " (stored -> asked for); choose another workdir"
    )
  last = max(checkpoint_files.committed_steps(path), default=0)
  if config.train_steps < last:
    raise WorkdirError(
      f"workdir {path}: train_steps={config.train_steps}, but its run is at"
      f" step {last}: it can be made longer, not shorter"
    )
  stored = record["config"].get("patience", 0)
  if config.patience and not 0 < stored <= config.patience:
    raise WorkdirError(
      f"workdir {path}: patience={config.patience}, but its run has"
      f" patience={stored}: it can have more (0 is without end), not less"
    )


def claim(workdir: str | os.PathLike[str], fingerprint: str, data: str) -> None:
  """Makes the folder of a run, before anything is compiled.

  Args:
    workdir: made if it does not exist.
    fingerprint: of the data that the run is about to use.
    data: one line on it.

  Raises:
    WorkdirError: if it is not a writable folder, or the run in it was begun
      on other data.
  """
  record = read_record(workdir)
  known = record["fingerprint"] if record else fingerprint
  if known != fingerprint and checkpoint_files.committed_steps(workdir):
    raise WorkdirError(
      f"workdir {workdir}: the data has changed since the run began"
      f" (fingerprint {known} -> {fingerprint}: {data})"
    )
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".write-test-{os.getpid()}"
    probe.touch()
    probe.unlink()
  except OSError as e:
    raise WorkdirError(f"workdir {path} is not writable: {e}") from e


def write_assets(
  workdir: str | os.PathLike[str], assets: Mapping[str, Any]
) -> None:
  """Writes what the model cannot be used without, as `assets/NAME.json`.

  Args:
    workdir: of the run.
    assets: of the experiment.

  Raises:
    WorkdirError: if the disk refuses it.
  """
  folder = pathlib.Path(workdir, ASSETS)
  with files.writing(folder):
    for name, asset in assets.items():
      folder.mkdir(exist_ok=True)
      with files.atomic(folder / f"{name}.json") as new:
        text = json.dumps(asset, ensure_ascii=False, indent=1)
        new.write_text(text + "\n", encoding="utf-8")


def read_assets(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The assets that `write_assets` wrote, by name.

  Raises:
    WorkdirError: if one cannot be read.
  """
  found = {}
  for path in sorted(pathlib.Path(workdir, ASSETS).glob("*.json")):
    try:
      found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
      raise WorkdirError(f"{path} cannot be read: {one_line(e)}") from e
  return found


def is_finished(
  workdir: str | os.PathLike[str], config: config_lib.Config
) -> bool:
  """Whether the last checkpoint of the run is its end, whole and evaluated."""
  last = max(checkpoint_files.committed_steps(workdir), default=0)
  if not last:
    return False
  rows = writers.read_metrics(workdir) if config.patience else []
  spent = early.is_spent(rows, config.best, config.patience, last)
  at_end = spent or last >= config.train_steps
  return at_end and checkpoint_files.is_complete(workdir, last)


def finished_at(
  workdir: str | os.PathLike[str], config: config_lib.Config
) -> int | None:
  """The last step of a finished run; None for one that is not."""
  if not is_finished(workdir, config):
    return None
  return checkpoint_files.committed_steps(workdir)[-1]


def write_record(
  workdir: str | os.PathLike[str],
  config: config_lib.Config,
  *,
  data: str,
  fingerprint: str,
  steps_per_epoch: int,
  device: str,
  step: int,
  devices: int = 1,
  processes: int = 1,
) -> None:
  """Writes `config.json`: the config, and what each start ran on.

  Args:
    workdir: of the run.
    config: of the run.
    data: one line on the data.
    fingerprint: of the data.
    steps_per_epoch: updates in one pass over the data.
    device: name of the accelerator or CPU.
    step: the run (re)starts from.
    devices: of all processes.
    processes: that train together.

  Raises:
    WorkdirError: if the disk refuses it.
  """
  path = pathlib.Path(workdir, RECORD)
  old = read_record(workdir) or {"starts": []}
  start = {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "step": step,
    "git_commit": _COMMIT,
    "device": device,
    "devices": devices,
    "processes": processes,
    "cpus": len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count(),
    "python": platform.python_version(),
    "versions": {p: importlib.metadata.version(p) for p in _PACKAGES},
  }
  record = {
    "config": config_lib.to_dict(config),
    "data": data,
    "fingerprint": fingerprint,
    "steps_per_epoch": steps_per_epoch,
    "starts": [*old["starts"], start],
  }
  with files.writing(path), files.atomic(path, sync=True) as new:
    new.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _git_commit() -> str | None:
  """The commit of this code, marked + if the tree differs from it."""
  here = pathlib.Path(__file__).parent

  def git(*args: str) -> str:
    done = subprocess.run(
      ["git", *args], cwd=here, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")
  except (OSError, subprocess.CalledProcessError):
    return None


# Of the code that was imported; HEAD may move while it runs.
_COMMIT = _git_commit()
