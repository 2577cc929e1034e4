"""Trains one run.

  python -m experiments.train --config=configs/mnist_mlp.py:norm=layer \
      --workdir=runs/mnist_ln [--config.optimizer.learning_rate=3e-4]

Starting again in the same workdir resumes; a finished run is a no-op.
`--distributed` trains in several processes together, see docs/scaling.md.
"""

from absl import flags

from experiments import launch
from lnrnn.errors import ConfigError
from lnrnn.training import signals

_CONFIG = flags.DEFINE_string(
  "config", None, "configs/NAME.py:key=value,...", required=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the run: written, and resumed from", required=True
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "join the other processes of a cluster's job"
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "host:port of process 0, where no scheduler tells it"
)
_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "with --coordinator", lower_bound=1
)
_PROCESS = flags.DEFINE_integer(
  "process_id", None, "with --coordinator: 0, 1, ...", lower_bound=0
)


@signals.abrupt()  # Joining other processes may take minutes.
def main() -> None:
  """Trains the run that the flags name."""
  address = {
    "coordinator_address": _COORDINATOR.value,
    "num_processes": _PROCESSES.value,
    "process_id": _PROCESS.value,
  }
  given = {k: v for k, v in address.items() if v is not None}
  if given and not (_DISTRIBUTED.value and len(given) == len(address)):
    raise ConfigError(
      "--coordinator, --num_processes and --process_id go together, and with"
      " --distributed"
    )
  if _DISTRIBUTED.value:
    from lnrnn.training import distributed

    distributed.initialize(**given)
  launch.train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  launch.run(main)
