"""Jobs of Slurm. The executor here is a fake that keeps what is submitted;

submitit's own, where it is installed, runs a job as processes of this machine.
"""

import os
import shlex
import subprocess
import sys
import time
import types

import pytest

from experiments import sets, slurm
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib


class FakeExecutor:
  """Has of submitit's executors what `slurm.submit` uses."""

  def __init__(self, **parameters):
    self.parameters = parameters
    self.submitted = []

  def update_parameters(self, **parameters):
    self.parameters |= parameters

  def submit(self, function, *arguments):
    if self.parameters.get("partition") == "nowhere":
      raise RuntimeError("sbatch: error: invalid partition specified")
    name = self.parameters["job_name"]
    self.submitted.append((name, function, arguments))
    return types.SimpleNamespace(job_id=str(100 + len(self.submitted)))


@pytest.fixture
def made(tmp_path):
  return [runs_lib.named("c.py", [], seed, tmp_path) for seed in range(2)]


def test_a_job_becomes_the_training_of_its_run(made):
  executor = FakeExecutor(nodes=1)
  found = runs_lib.run_missing(
    made, lambda run: slurm.submit(run, executor, set())
  )
  assert list(found.values()) == [
    ("queued", "submitted as job 101"),
    ("queued", "submitted as job 102"),
  ]
  name, function, arguments = executor.submitted[1]
  assert name == "seed=1" and function is os.execv
  assert arguments == (sys.executable, sets.command(made[1]))


def test_several_nodes_join(made):
  executor = FakeExecutor(nodes=2)
  slurm.submit(made[0], executor, set())
  ((_, _, (_, command)),) = executor.submitted
  assert command == sets.command(made[0], "--distributed")


def test_what_is_in_the_queue_is_not_submitted_again(made):
  executor = FakeExecutor()
  slurm.submit(made[0], executor, set())
  found = slurm.submit(made[0], executor, {"101", "7"})
  assert found == ("queued", "in the queue as job 101")
  assert len(executor.submitted) == 1
  found = slurm.submit(made[0], executor, {"7"})  # Job 101 has ended.
  assert found == ("queued", "submitted as job 102")


def test_a_refusal_is_told_of_its_run(made):
  with pytest.raises(UserError, match="seed=0: not submitted: sbatch: error"):
    slurm.submit(made[0], FakeExecutor(partition="nowhere"), set())


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "submitit", None)
  with pytest.raises(UserError, match=r"pip install -e '.\[slurm\]'"):
    slurm.executor(tmp_path, {})


@pytest.fixture
def on_path(tmp_path, monkeypatch):
  """(name, shell code) -> a program of that name comes first."""
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

  def write(name, code):
    (folder / name).write_text(f"#!/bin/sh\n{code}\n")
    (folder / name).chmod(0o755)

  return write


def test_the_queue_is_asked_once_for_all_jobs(on_path):
  on_path("squeue", '[ "$1" = --noheader ] && echo 7; echo 101')
  assert slurm.queued() == {"7", "101"}
  on_path("squeue", "echo slurm_load_jobs: no controller >&2; exit 1")
  with pytest.raises(UserError, match="no controller"):
    slurm.queued()


@pytest.mark.parametrize(
  ("code", "state", "restarts", "requeued"),
  [
    (143, "RUNNING", "", True),
    (143, "RUNNING", "99", True),
    (143, "RUNNING", "100", False),
    (143, "COMPLETING", "", False),
    (143, "", "", False),
    (3, "RUNNING", "", False),
    (0, "RUNNING", "", False),
  ],
)
def test_a_job_that_was_asked_to_stop_is_requeued(
  repo, on_path, tmp_path, code, state, restarts, requeued
):
  on_path("srun", f"exit {code}")
  on_path("squeue", f"echo {state}")
  on_path("scontrol", f'echo "$@" > {tmp_path}/said')
  done = subprocess.run(
    ["bash", "scripts/train.sbatch"],
    cwd=repo,
    env=os.environ | {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarts},
    capture_output=True,
    text=True,
  )
  assert done.returncode == code and not done.stderr
  assert (tmp_path / "said").exists() == requeued
  if requeued:
    assert (tmp_path / "said").read_text() == "requeue 7\n"


def test_the_script_of_a_job_is_that_of_the_docs(tmp_path, on_path, repo):
  submitit = pytest.importorskip("submitit")
  on_path("srun", "")
  told = slurm.parameters(
    minutes=90,
    nodes=2,
    gpus_per_node=4,
    partition="gpu",
    cpus_per_task=8,
    mem_gb=32,
    more={"account": "me", "exclusive": True},
  )
  made = slurm.executor(tmp_path, told)
  assert isinstance(made, submitit.SlurmExecutor)
  text = made._make_submission_file_text("command", "1")
  lines = text.splitlines()
  for line in (
    "#SBATCH --time=90",
    "#SBATCH --nodes=2",
    "#SBATCH --ntasks-per-node=4",
    "#SBATCH --gpus-per-node=4",
    "#SBATCH --partition=gpu",
    "#SBATCH --cpus-per-task=8",
    "#SBATCH --mem=32GB",
    "#SBATCH --account=me",
    "#SBATCH --exclusive",
    "#SBATCH --requeue",
    "#SBATCH --signal=TERM@120",
  ):
    assert line in lines
  assert lines[-1] == f". {shlex.quote(str(repo / 'scripts/requeue.sh'))}"
  assert any("srun" in line and "--wait=120" in line for line in lines)
  with pytest.raises(UserError, match="prtition"):
    slurm.executor(tmp_path, {"prtition": "gpu"})


def test_a_job_of_submitit_ends_as_training_does(tmp_path, made, monkeypatch):
  submitit = pytest.importorskip("submitit")
  code = (
    f"open({str(tmp_path / 'trained')!r}, 'w').close(); raise SystemExit(3)"
  )
  monkeypatch.setattr(
    sets, "command", lambda run, *more: [sys.executable, "-c", code]
  )
  jobs = []

  class Executor(submitit.LocalExecutor):
    def submit(self, *arguments):
      jobs.append(super().submit(*arguments))
      return jobs[-1]

  found = slurm.submit(made[0], Executor(tmp_path / "jobs"), set())
  assert found.text == f"submitted as job {jobs[0].job_id}"
  end = time.monotonic() + 60
  while not jobs[0].done() and time.monotonic() < end:
    time.sleep(0.01)
  assert (tmp_path / "trained").exists()
  assert not jobs[0].paths.result_pickle.exists()  # Replaced, it wrote none.
