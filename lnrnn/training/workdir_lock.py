"""Who works in a run's folder."""

from collections.abc import Generator
import contextlib
import datetime
import json
import os
import pathlib
import platform
import threading
import time

import filelock

from lnrnn.errors import WorkdirError

LOCK = "lock"
HOLDER = "lock.json"
# A lock whose holder on another machine was silent for so long is stale.
_BEAT, _SILENCE = 10.0, 60.0


@contextlib.contextmanager
def lock(workdir: str | os.PathLike[str]) -> Generator[None]:
  """Keeps every other run out of a workdir while the body runs.

  The operating system holds the lock and drops it when the process dies. Some
  network file systems hold it on one machine only; so the holder also writes
  `lock.json` (pid, host) and touches it every ten seconds.

  Args:
    workdir: an existing folder.

  Raises:
    WorkdirError: if another process works there, naming it.
  """
  path = pathlib.Path(workdir)
  held = filelock.FileLock(path / LOCK, timeout=0)
  holder = path / HOLDER
  try:
    held.acquire()
  except filelock.Timeout:
    raise WorkdirError(f"workdir {path} is in use by {_who(holder)}") from None
  except OSError as e:
    raise WorkdirError(f"workdir {path} cannot be locked: {e}") from e
  try:
    _wait_for_stale(path, holder)
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = json.dumps(
      {"pid": os.getpid(), "host": platform.node(), "since": since}
    )
    # A full disk shall not keep the run from cleaning up: the lock holds.
    with contextlib.suppress(OSError):
      holder.write_text(text + "\n", encoding="utf-8")
    done = threading.Event()

    def beat():
      while not done.wait(_BEAT):
        with contextlib.suppress(OSError):
          os.utime(holder)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
      yield
    finally:
      done.set()
      thread.join()
      with contextlib.suppress(OSError):
        holder.unlink()
  finally:
    held.release()


def _wait_for_stale(path: pathlib.Path, holder: pathlib.Path) -> None:
  """Waits until a holder on another machine has been silent long enough."""
  try:
    there = json.loads(holder.read_text(encoding="utf-8"))["host"]
    seen = holder.stat().st_mtime
  except (OSError, ValueError, KeyError, TypeError):
    return
  if there == platform.node():  # The operating system says it is gone.
    return
  first = seen
  while (left := seen + _SILENCE - time.time()) > 0:
    time.sleep(min(left, _BEAT / 2))
    try:
      seen = holder.stat().st_mtime
    except FileNotFoundError:
      return
    if seen != first:
      raise WorkdirError(f"workdir {path} is in use by {_who(holder)}")


def _who(holder: pathlib.Path) -> str:
  """The process that holds a lock, as far as is known."""
  try:
    info = json.loads(holder.read_text(encoding="utf-8"))
    return f"process {info['pid']} on {info['host']}, since {info['since']}"
  except (OSError, ValueError, KeyError, TypeError):
    return "another process"
