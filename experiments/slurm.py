"""Runs as jobs of Slurm, submitted through submitit.

A job becomes `python -m experiments.train` by exec: one process a task, so
that SIGTERM reaches training once, and its exit code is the job's.
"""

from collections.abc import Collection, Mapping
import getpass
import importlib
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from experiments import sets
from lnrnn.errors import UserError, one_line
from lnrnn.training import runs as runs_lib

JOB = "slurm_job"  # File of a workdir: the id of its last job.
_REQUEUE = pathlib.Path(__file__).resolve().parents[1] / "scripts/requeue.sh"


def parameters(
  *,
  minutes: int,
  nodes: int = 1,
  gpus_per_node: int = 0,
  partition: str | None = None,
  cpus_per_task: int | None = None,
  mem_gb: int | None = None,
  more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """What submitit's SlurmExecutor is told.

  Args:
    minutes: time limit of a job, after which it is requeued.
    nodes: of a job; with several, one process a GPU joins by --distributed.
    gpus_per_node: with one node, one process has them all.
    partition: None for the cluster's default; likewise the following.
    cpus_per_task: of a process.
    mem_gb: of a node.
    more: further options of sbatch, which win.

  Returns:
    The parameters.
  """
  tasks = max(1, gpus_per_node) if nodes > 1 else 1
  found = {
    "time": minutes,
    "nodes": nodes,
    "ntasks_per_node": tasks,
    "gpus_per_node": gpus_per_node or None,
    "partition": partition,
    "cpus_per_task": cpus_per_task,
    "mem": mem_gb and f"{mem_gb}GB",
    "stderr_to_stdout": True,
    # When one process has ended, the others get time to save.
    "srun_args": ["--wait=120"],
    "teardown": [f". {shlex.quote(str(_REQUEUE))}"],
    "additional_parameters": {
      # Two minutes before the time is up, to the tasks alone.
      "signal": "TERM@120",
      "requeue": True,
      **(more or {}),
    },
  }
  return {k: v for k, v in found.items() if v is not None}


def executor(folder: pathlib.Path, told: Mapping[str, Any]) -> Any:
  """The executor that submits.

  Args:
    folder: for scripts and output; all machines must see it.
    told: of `parameters`.

  Returns:
    A submitit.SlurmExecutor.

  Raises:
    UserError: without submitit, or where there is no Slurm.
  """
  try:
    # An extra of its own, which the type checker need not have.
    submitit = importlib.import_module("submitit")
  except ImportError:
    raise UserError(
      "--slurm needs the package submitit: pip install -e '.[slurm]'"
    ) from None
  try:
    made = submitit.SlurmExecutor(folder=folder)
    made.update_parameters(**told)
  except (RuntimeError, ValueError) as e:
    raise UserError(f"--slurm: {one_line(e)}") from e
  return made


def queued() -> set[str]:
  """Ids of the user's jobs that wait or run.

  Raises:
    UserError: if Slurm does not answer.
  """
  asked = ["squeue", "--noheader", "--format=%i", f"--user={getpass.getuser()}"]
  try:
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
  except subprocess.CalledProcessError as e:
    raise UserError(f"--slurm: squeue: {one_line(e.stderr)}") from e
  except OSError as e:
    raise UserError(f"--slurm: {one_line(e)}") from e
  return set(done.stdout.split())


def submit(
  run: runs_lib.Run, executor: Any, waiting: Collection[str]
) -> runs_lib.Status:
  """Submits a run, unless its last job waits or runs still.

  Args:
    run: to train.
    executor: of submitit, with its parameters set.
    waiting: of `queued`.

  Returns:
    That it is queued, and as which job.

  Raises:
    UserError: if it is refused.
  """
  record = run.workdir / JOB
  try:
    if record.exists():
      job = record.read_text(encoding="utf-8").strip()
      if job in waiting:
        return runs_lib.Status("queued", f"in the queue as job {job}")
    nodes = executor.parameters.get("nodes", 1)
    more = ["--distributed"] if nodes > 1 else []
    executor.update_parameters(job_name=run.workdir.name)
    words = sets.command(run, *more)
    job = executor.submit(os.execv, sys.executable, words).job_id
    run.workdir.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{job}\n", encoding="utf-8")
  except (OSError, RuntimeError) as e:
    raise UserError(f"{run.workdir}: not submitted: {one_line(e)}") from e
  return runs_lib.Status("queued", f"submitted as job {job}")
