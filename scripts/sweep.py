"""Trains the runs that a config lists: a sweep.

  python scripts/sweep.py configs/mnist_mlp.py:data.source=idx \
      --workdir=runs/mnist [--jobs=2] [--dry_run]

The config's function `sweep()` returns the arguments of each run, as
"norm=layer,batch_size=128,seed=0". Each is trained in a folder of its own
under the workdir, named as `experiments.compare` names it, by a process of
its own. Finished runs are skipped, broken ones resumed; a run that fails or
diverges keeps no other from running. SIGTERM and Ctrl-C go on to the runs,
which save.

`--slurm` submits the runs as jobs instead and returns; called again it tells
how they stand, and submits what neither is finished nor in the queue.

Exit codes: 0 all are finished, or in the queue; 2 a run failed, or something
was wrong before the first; 3 a run diverged and none failed; 130 stopped by
Ctrl-C and 143 by SIGTERM.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags

from experiments import launch, sets, slurm
from lnrnn.training import runs as runs_lib

_CONFIG = flags.DEFINE_string(
  "config",
  None,
  "configs/NAME.py or configs/NAME.py:key=value,..., common to all runs; the"
  " first argument needs no --config=",
  required=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the runs", required=True
)
_JOBS = flags.DEFINE_integer("jobs", 1, "processes at a time", lower_bound=1)
_GPUS = flags.DEFINE_list(
  "gpus", [], "one of these each, as CUDA_VISIBLE_DEVICES; default: all see all"
)
_DRY = flags.DEFINE_bool("dry_run", False, "only tell how each run stands")
_SLURM = flags.DEFINE_bool("slurm", False, "submit jobs to Slurm")
_PARTITION = flags.DEFINE_string("partition", None, "--slurm: partition")
_MINUTES = flags.DEFINE_integer(
  "minutes",
  60,
  "--slurm: time limit; a run that needs more is requeued",
  lower_bound=5,
)
_NODES = flags.DEFINE_integer(
  "nodes", 1, "--slurm: machines a run; several join by --distributed"
)
_GPUS_PER_NODE = flags.DEFINE_integer("gpus_per_node", 0, "--slurm: GPUs")
_CPUS = flags.DEFINE_integer("cpus_per_task", None, "--slurm: CPUs a process")
_MEM = flags.DEFINE_integer("mem_gb", None, "--slurm: memory of a machine")
_SBATCH = flags.DEFINE_multi_string(
  "sbatch", [], "--slurm: another option of sbatch, as account=NAME"
)


def main() -> None:
  """Trains or submits what is missing, and tells how each run stands."""
  runs = sets.listed(_CONFIG.value, _WORKDIR.value)
  sets.check(runs)
  if _DRY.value:
    found = {run: runs_lib.standing(run) for run in runs}
  elif _SLURM.value:
    executor = slurm.executor(pathlib.Path(_WORKDIR.value, "slurm"), _told())
    waiting = slurm.queued()
    found = runs_lib.run_missing(
      runs, lambda run: slurm.submit(run, executor, waiting)
    )
  else:
    processes = sets.Processes(_GPUS.value, _JOBS.value)
    found = runs_lib.run_missing(
      runs, processes.train, jobs=_JOBS.value, stop=processes.stop
    )
  print(sets.summary(found), flush=True)
  if not _DRY.value:
    sets.conclude(found)


def _told() -> dict:
  """What the flags say of a job of Slurm."""
  pairs = (text.partition("=") for text in _SBATCH.value)
  return slurm.parameters(
    minutes=_MINUTES.value,
    nodes=_NODES.value,
    gpus_per_node=_GPUS_PER_NODE.value,
    partition=_PARTITION.value,
    cpus_per_task=_CPUS.value,
    mem_gb=_MEM.value,
    more={k.lstrip("-"): v if eq else True for k, eq, v in pairs},
  )


if __name__ == "__main__":
  if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
    sys.argv[1] = f"--config={sys.argv[1]}"
  launch.run(main)
