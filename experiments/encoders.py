"""The sentence encoders of runs of skip-thoughts; no corpus is needed."""

import functools
import os
from typing import Any, cast

import jax
import numpy as np

from experiments import launch, skip_thoughts
from lnrnn.data import vocabulary
from lnrnn.errors import WorkdirError
from lnrnn.models.skip_thoughts import SIDES
from lnrnn.sentence_encoder import SkipThoughtEncoder, vocabulary_of
from lnrnn.training import config as config_lib
from lnrnn.training import loop
from lnrnn.training import step as step_lib
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Experiment


def load_encoder(
  workdir: str | os.PathLike[str], checkpoint: str = "latest"
) -> SkipThoughtEncoder:
  """The sentence encoder of a run; its corpus is not needed.

  Args:
    workdir: of the run.
    checkpoint: "latest", "best" or a step.

  Raises:
    UserError: no such run or checkpoint is there, or its vocabulary is
      another.
  """
  return restored(workdir, checkpoint)[0]


def restored(
  workdir: str | os.PathLike[str], checkpoint: str
) -> tuple[SkipThoughtEncoder, int]:
  """As `load_encoder`, and the step of the checkpoint."""
  config, bare, assets = _bare(workdir)
  state = loop.restore(config, bare, workdir, checkpoint)
  where = f"workdir {workdir}"
  found = SkipThoughtEncoder.of(bare.model, state.variables, assets, where)
  return found, int(state.step)


def untrained_encoder(workdir: str | os.PathLike[str]) -> SkipThoughtEncoder:
  """The sentence encoder of a run before its first update."""
  config, bare, assets = _bare(workdir)
  key = step_lib.Keys.of(config.seed).init
  variables = jax.jit(bare.init)(key, bare.train_data[0])
  return SkipThoughtEncoder.of(bare.model, variables, assets)


def untrained_nll(config: config_lib.Config) -> float:
  """Nats per word of the validation split, before the first update."""
  experiment = skip_thoughts.build(config)
  key = step_lib.Keys.of(config.seed).init
  variables = jax.jit(experiment.init)(key, experiment.train_data[0])
  measure = experiment.evals["likelihood"].fn
  return float(measure(variables, "validation", key)["nll"])


def _bare(
  workdir: str | os.PathLike[str],
) -> tuple[config_lib.Config, Experiment, dict[str, Any]]:
  """The config of a run, its experiment without data, and its assets."""
  config = launch.config_of(workdir)
  if config.experiment != "skip_thoughts":
    raise WorkdirError(
      f"workdir {workdir}: is a run of {config.experiment}, not of"
      " skip_thoughts"
    )
  assets = workdir_lib.read_assets(workdir)
  record = workdir_lib.read_record(workdir) or {}
  # Before it is restored, which would tell of shapes alone.
  words = vocabulary_of(assets, f"workdir {workdir}")
  model = skip_thoughts.make_model(config, len(words) + len(vocabulary.SPECIAL))
  empty = np.ones((1, 1), np.int32)
  batch = {n: empty for n in ("current", *SIDES)}
  batch |= {f"{n}_length": empty[0] for n in ("current", *SIDES)}
  bare = Experiment(
    init=functools.partial(skip_thoughts.init, model),
    loss=functools.partial(skip_thoughts.loss, config, model),
    train_data=cast(Any, _Bare(batch, record["fingerprint"])),
    evals={},
    data=record["data"],
    model=model,
  )
  return config, bare, assets


class _Bare(list):
  """One batch in place of the data of a run."""

  steps_per_epoch = 1

  def __init__(self, batch, fingerprint):
    super().__init__([batch])
    self.fingerprint = fingerprint
