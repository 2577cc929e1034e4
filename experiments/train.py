"""Trains one run.

  python -m experiments.train --config=configs/mnist_mlp.py:norm=layer \
      --workdir=runs/mnist_ln [--config.optimizer.learning_rate=3e-4]

Starting again in the same workdir resumes; a finished run is a no-op.
"""

from absl import flags

from experiments import launch

_CONFIG = flags.DEFINE_string(
  "config", None, "configs/NAME.py:key=value,...", required=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the run: written, and resumed from", required=True
)


def main() -> None:
  """Trains the run that the flags name."""
  launch.train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  launch.run(main)
