"""Sets of runs: listed, checked together, trained in processes of their own."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import contextlib
import os
import pathlib
import queue
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TextIO

from configs import common
from experiments import launch
from lnrnn.errors import ConfigError, DivergedError, UserError, WorkdirError
from lnrnn.training import config as config_lib
from lnrnn.training import runs as runs_lib
from lnrnn.training import signals
from lnrnn.training import workdir as workdir_lib

LOG = "log.txt"
_ROOT = pathlib.Path(__file__).resolve().parents[1]


def listed(spec: str, folder: str | os.PathLike[str]) -> list[runs_lib.Run]:
  """The runs that a config's function `sweep()` lists.

  Args:
    spec: `path.py` or `path.py:key=value,...`, common to all.
    folder: the runs' workdirs are made in it.

  Returns:
    The runs, in the order of the list.

  Raises:
    ConfigError: if there is no such list, or what it holds names no run, or
      one twice.
  """
  path, _, shared = spec.partition(":")
  config, faults = config_lib.parse(spec)
  if config is None:
    raise ConfigError(*faults)
  sweep = runpy.run_path(path).get("sweep")
  if sweep is None:
    raise ConfigError(f"config file {path!r} has no function sweep()")
  runs: dict[pathlib.Path, runs_lib.Run] = {}
  wrong = []
  entries = sweep()
  if isinstance(entries, str) or not isinstance(entries, Iterable):
    raise ConfigError(f"config file {path!r}: sweep() returns no list of runs")
  for entry in entries:
    if not isinstance(entry, str):
      wrong.append(f"sweep() lists {entry!r}: must be as 'norm=layer,seed=0'")
      continue
    # Not by `parse_arg`, which unquotes: these are written into a spec again.
    parts = (part.partition("=") for part in common.split(entry))
    fields = {k: v if eq else "true" for k, eq, v in parts}
    idle = [field for field in fields if field in common.parse_arg(shared)]
    wrong += [
      f"{path}:{field}= has no effect: sweep() sets it" for field in idle
    ]
    seed = fields.pop("seed", "0")
    if not (seed.isascii() and seed.isdecimal()):
      wrong.append(f"sweep() lists seed={seed!r}: must be a whole number")
      continue
    run = runs_lib.named(spec, fields.items(), int(seed), folder)
    if run.workdir in runs:
      wrong.append(f"sweep() lists {run.workdir.name} twice")
    runs[run.workdir] = run
  if not runs and not wrong:
    wrong.append(f"config file {path!r}: sweep() lists no run")
  if wrong:
    raise ConfigError(*dict.fromkeys(wrong))
  return list(runs.values())


def check(runs: Sequence[runs_lib.Run], *, fresh: bool = False) -> None:
  """Checks every run before the first one starts.

  Args:
    runs: to be trained.
    fresh: whether what their workdirs hold will be deleted.

  Raises:
    ConfigError: with every fault, a line each.
  """
  faults = {}
  for run in runs:
    try:
      config = launch.load(run.spec)
      if not fresh:
        workdir_lib.check(run.workdir, config)
    except ConfigError as e:
      faults |= dict.fromkeys(e.faults)
    except WorkdirError as e:
      faults[str(e)] = None
  if faults:
    raise ConfigError(*faults)


def delete(runs: Sequence[runs_lib.Run]) -> None:
  """Deletes the workdirs of runs."""
  for run in runs:
    if run.workdir.exists():
      shutil.rmtree(run.workdir)


def summary(found: Mapping[runs_lib.Run, runs_lib.Status]) -> str:
  """How each run stands, a line each, and how many of each kind there are."""
  lines = [
    f"{run.workdir.name}: {status.text}" for run, status in found.items()
  ]
  counts = collections.Counter(status.kind for status in found.values())
  kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items())
  return "\n".join([*lines, f"of {len(found)} runs: {kinds}"])


def conclude(found: Mapping[runs_lib.Run, runs_lib.Status]) -> None:
  """Ends a program by how its runs stand.

  Raises:
    UserError: if one has failed.
    DivergedError: if one has diverged, and none failed.
  """
  counts = collections.Counter(status.kind for status in found.values())
  if n := counts["failed"]:
    raise UserError(f"{n} of {len(found)} runs failed")
  if n := counts["diverged"]:
    raise DivergedError(
      f"{n} of {len(found)} runs diverged and would again: delete the folder of"
      " one to train it anew"
    )


def command(run: runs_lib.Run, *more: str) -> list[str]:
  """The command line that trains a run."""
  return [
    *(sys.executable, "-m", "experiments.train"),
    f"--config={run.spec}",
    f"--workdir={run.workdir}",
    *more,
  ]


def environment() -> dict[str, str]:
  """That of a process which finds our programs, wherever it is started."""
  path = os.pathsep.join(
    filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])
  )
  return os.environ | {"PYTHONPATH": path}


class Processes:
  """Trains runs, and runs our other programs, in processes.

  Each is a session of its own, so that Ctrl-C does not reach it beside the
  SIGTERM of `stop`: a second signal would end it before it has saved.

  Args:
    gpus: one of these is given to each process, in turn, as its
      CUDA_VISIBLE_DEVICES; none: each sees what this process does.
    jobs: processes at a time.

  Raises:
    ConfigError: there are fewer jobs than GPUs.
  """

  def __init__(self, gpus: Sequence[str] = (), jobs: int = 1):
    if jobs < len(gpus):
      raise ConfigError(f"--jobs={jobs}: are fewer than the {len(gpus)} --gpus")
    self._lock = threading.Lock()
    self._children: set[subprocess.Popen] = set()
    self._stopped = False
    self._gpus: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for i in range(jobs):
      self._gpus.put(gpus[i % len(gpus)] if gpus else None)

  def train(self, run: runs_lib.Run) -> None:
    """Trains a run, resuming it if it was begun; may be called from threads.

    Args:
      run: to train; its output goes to log.txt of its workdir.

    Raises:
      DivergedError: if it diverged.
      UserError: if its process ended otherwise than well.
    """
    path = run.workdir / LOG
    try:
      run.workdir.mkdir(parents=True, exist_ok=True)
      with path.open("a", encoding="utf-8") as log:
        before = log.tell()
        begins = f"{run.workdir}: training, see its {LOG}"
        code, spent = self._ended(command(run), log, begins)
      with path.open(encoding="utf-8", errors="replace") as log:
        log.seek(before)
        said = [line.strip() for line in log if line.startswith("error: ")]
    except OSError as e:
      raise WorkdirError(f"workdir {run.workdir}: {e}") from e
    if not code:
      signals.say(f"{run.workdir}: finished after {spent:.0f} s")
      return
    signals.say(f"{run.workdir}: exit code {code} after {spent:.0f} s")
    error = said[-1].removeprefix("error: ") if said else ""
    if code == launch.DIVERGED:
      raise DivergedError(error)
    how = f"exit code {code}"
    if code < 0:
      names = {each.value: each.name for each in signal.Signals}
      how = f"killed by {names.get(-code, f'signal {-code}')}"
    raise UserError(
      f"{run.workdir}: {how}{error and f' ({error})'}, see its {LOG}"
    )

  def call(self, argv: Sequence[str], log: pathlib.Path, begins: str) -> int:
    """Runs a program; may be called from threads.

    Args:
      argv: of Python.
      log: file for what it prints, which is begun anew.
      begins: printed when it does.

    Returns:
      Its exit code.

    Raises:
      UserError: after `stop`.
      OSError: the log cannot be written.
    """
    with log.open("w", encoding="utf-8") as file:
      return self._ended([sys.executable, *argv], file, begins)[0]

  def stop(self) -> None:
    """Sends SIGTERM to every process, and starts no more.

    They save and end; the threads in `train` return when they have.
    """
    with self._lock:
      self._stopped = True
      for child in self._children:
        child.terminate()

  def _ended(
    self, argv: Sequence[str], log: TextIO, begins: str
  ) -> tuple[int, float]:
    """Runs a process, on a GPU that is free; its exit code, and seconds."""
    child, gpu, env = None, self._gpus.get(), environment()
    if gpu is not None:
      env["CUDA_VISIBLE_DEVICES"] = gpu
    try:
      began = time.monotonic()
      with self._lock:
        if self._stopped:
          raise UserError("not started, as the others were stopped")
        child = subprocess.Popen(
          argv,
          stdin=subprocess.DEVNULL,
          stdout=log,
          stderr=subprocess.STDOUT,
          env=env,
          start_new_session=True,
        )
        self._children.add(child)
      signals.say(begins)
      code = child.wait()
      if self._stopped:  # What it has begun itself shall end too.
        with contextlib.suppress(ProcessLookupError):
          os.killpg(child.pid, signal.SIGTERM)
      return code, time.monotonic() - began
    except BaseException:
      if child:
        child.terminate()
        child.wait()
      raise
    finally:
      with self._lock:
        if child:
          self._children.discard(child)
      self._gpus.put(gpu)
