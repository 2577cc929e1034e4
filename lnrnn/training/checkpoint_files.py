"""Checkpoints as files and folders; nothing here needs orbax.

A step counts only once its commit file is there, so a run that is killed
while saving leaves nothing that looks like a checkpoint. Written before the
commit file, a list SHA256SUMS of its files (as `sha256sum --check` reads it)
names a damaged one.
"""

import json
import os
import pathlib
import shutil
import time
from typing import Any

from lnrnn import files

FOLDER = "checkpoints"
DAMAGED = "damaged"
SUMS = "SHA256SUMS"
_COMMITTED = "commit_success.txt"
_METADATA = "_CHECKPOINT_METADATA"
# In front of a step that is saved anew: what it was, until that is whole.
_OLD = ".old-"


class DamagedError(Exception):
  """A checkpoint is not what was saved."""


def committed_steps(workdir: str | os.PathLike[str]) -> list[int]:
  """Steps with a complete checkpoint, ascending; needs no orbax."""
  found = pathlib.Path(workdir, FOLDER).glob(f"*/{_COMMITTED}")
  return sorted(int(p.parent.name) for p in found if p.parent.name.isdecimal())


def uncommitted(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
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
      found = files.sha256(folder / name)
    except OSError as e:
      raise DamagedError(f"file {name!r} cannot be read: {e.strerror}") from e
    if found != wanted:
      raise DamagedError(f"file {name!r} has changed (its sha256 differs)")


def is_complete(workdir: str | os.PathLike[str], step: int) -> bool:
  """Whether a checkpoint is undamaged and its step was evaluated."""
  folder = pathlib.Path(workdir, FOLDER, str(step))
  try:
    check_files(folder)
    return bool(read_meta(folder)["progress"]["evaluated"])
  except (DamagedError, OSError, ValueError, KeyError, TypeError):
    return False


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """What stands beside the state, without orbax."""
  text = (folder / "meta" / "metadata").read_text(encoding="utf-8")
  return json.loads(text)


def write_sums(folder: pathlib.Path) -> None:
  """Writes SHA256SUMS beside the files of a checkpoint."""
  names = sorted(_listed(folder))
  lines = [f"{files.sha256(folder / name)}  {name}\n" for name in names]
  (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _listed(folder: pathlib.Path) -> set[str]:
  """The files that SHA256SUMS lists, by their paths in the folder."""
  # orbax adds the time of the commit to _METADATA when it commits.
  found = (p for p in folder.rglob("*") if p.is_file() and p.name != _METADATA)
  names = {p.relative_to(folder).as_posix() for p in found}
  return names.difference({SUMS, _COMMITTED})


def set_aside(folder: pathlib.Path) -> None:
  """Renames a step that is saved anew; see `end_replacements`."""
  folder.rename(folder.with_name(f"{_OLD}{folder.name}"))


def end_replacements(checkpoints: pathlib.Path) -> None:
  """Removes what a step was once it is saved anew; else brings it back."""
  for old in checkpoints.glob(f"{_OLD}*"):
    new = checkpoints / old.name.removeprefix(_OLD)
    if (new / _COMMITTED).exists():
      shutil.rmtree(old)
    else:
      shutil.rmtree(new, ignore_errors=True)
      old.rename(new)


def move_damaged(workdir: str | os.PathLike[str], step: int) -> pathlib.Path:
  """Moves a checkpoint to `workdir/damaged`; returns where it is then."""
  folder = pathlib.Path(workdir, DAMAGED)
  folder.mkdir(exist_ok=True)
  target = folder / f"{step}-{time.strftime('%Y%m%dT%H%M%S')}"
  n = 1
  while target.exists():
    n += 1
    target = target.with_name(f"{target.name.partition('_')[0]}_{n}")
  # Not by rename: `checkpoints` may be a link to another disk.
  shutil.move(pathlib.Path(workdir).absolute() / FOLDER / str(step), target)
  return target
