"""Evaluates a trained run on a split.

  python -m experiments.evaluate --workdir=runs/mnist_ln --split=test

prints one JSON object, and writes pictures, if the task has any, to the
workdir's `figures/`. `--checkpoint=best` takes the checkpoint that
`config.best` chose, `latest` (the default) the last one. `--override` sets how
the run is evaluated, as in `--override=importance_samples=500`.

  python -m experiments.evaluate --exported=models/mnist_ln --split=test

does the same with the model that `scripts/export.py` wrote to a folder, on the
data that it was trained on; `--exported` goes with all that follows, too.

  python -m experiments.evaluate --workdir=runs/order_ln --checkpoint=best \
      --split=test --caption="a dog runs on the beach" --image=1000268201.jpg

looks into a run on images and captions instead: the images that fit the
caption best, and the captions that fit the image.

  python -m experiments.evaluate --workdir=runs/reader_ln --split=validation \
      --examples=5

draws where an attentive reader looked in five questions instead.

  python -m experiments.evaluate --workdir=runs/skip_ln --split=validation \
      --sentence="he opened the door and went in ."

tells what skip-thoughts takes for the sentences before and after it, and the
nearest sentences of the split.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

from absl import flags
import jax
import numpy as np

from experiments import launch
from lnrnn import export
from lnrnn.errors import ConfigError, DataError
from lnrnn.training import config as config_lib
from lnrnn.training import signals
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Experiment

_WORKDIR = flags.DEFINE_string("workdir", None, "of the run")
_EXPORTED = flags.DEFINE_string(
  "exported", None, "folder of an exported model, instead of a workdir"
)
_SPLIT = flags.DEFINE_string(
  "split", None, "one split; default: all those evaluated in training"
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "latest", "latest, best or a step"
)
_OVERRIDE = flags.DEFINE_multi_string(
  "override", [], "field=value of how to evaluate; may be repeated"
)
_IMAGE = flags.DEFINE_multi_string(
  "image", [], "name of an image of the split, to find captions for"
)
_CAPTION = flags.DEFINE_multi_string(
  "caption", [], "a text, to find images of the split for"
)
_SENTENCE = flags.DEFINE_multi_string(
  "sentence", [], "a text, to find its neighbours"
)
_EXAMPLES = flags.DEFINE_integer(
  "examples",
  0,
  "questions of the split whose attention is drawn",
  lower_bound=0,
  upper_bound=100,
)
_TOP = flags.DEFINE_integer(
  "top", 5, "how many captions, images or sentences are shown", lower_bound=1
)


class _Opened(NamedTuple):
  """A trained model, and what it is evaluated by.

  Attributes:
    config: of its run.
    experiment: that `config` describes.
    variables: of the model.
    step: updates that it had.
  """

  config: config_lib.Config
  experiment: Experiment
  variables: Any
  step: int


def _of_workdir(workdir: str) -> _Opened:
  """The checkpoint of a run that `--checkpoint` names."""
  from lnrnn.training import loop

  config, experiment = launch.reopen(workdir, _OVERRIDE.value)
  # The checkpoint is of the config without overrides.
  own = launch.config_of(workdir)
  state = loop.restore(own, experiment, workdir, _CHECKPOINT.value)
  return _Opened(config, experiment, state.variables, int(state.step))


def _of_exported(folder: str) -> _Opened:
  """An exported model, on the data that it was trained on."""
  found = export.load(folder)
  run = workdir_lib.checked(found.config["run"], folder, "step")
  config, experiment = launch.rebuild(run, folder, _OVERRIDE.value)
  if found.model != experiment.model:
    raise DataError(
      f"{folder}: its model is not that which its run's config makes now: the"
      " code has changed since it was exported"
    )
  return _Opened(config, experiment, found.variables, run["step"])


@signals.abrupt()
def main() -> None:
  """Opens the run or the exported model, and prints its metrics."""
  from lnrnn.training import recorder, writers
  from lnrnn.training import step as step_lib

  folder = launch.place(_WORKDIR.value, _EXPORTED.value)
  open_ = _of_workdir if _EXPORTED.value is None else _of_exported
  config, experiment, variables, step = open_(folder)
  variables = jax.device_put(variables)  # Once, not at every batch.
  splits = sorted({s for ev in experiment.evals.values() for s in ev.splits})
  if _SPLIT.value and _SPLIT.value not in splits:
    raise ConfigError(
      f"--split={_SPLIT.value!r}: must be one of {', '.join(splits)}"
    )
  asked = [("image", v) for v in _IMAGE.value]
  asked += [("caption", v) for v in _CAPTION.value]
  asked += [("sentence", v) for v in _SENTENCE.value]
  answer = getattr(launch.task(config), "answer", None)
  for kind, _ in asked:
    if kind not in getattr(launch.task(config), "ASKED", ()):
      raise ConfigError(
        f"--{kind}: {folder} is a run of {config.experiment}; to look"
        " for images and captions is for order_embedding, for sentences for"
        " skip_thoughts"
      )
  drawn = getattr(launch.task(config), "pictures", None)
  if _EXAMPLES.value and drawn is None:
    raise ConfigError(
      f"--examples: {folder} is a run of {config.experiment}; to draw"
      " attention is for attentive_reader"
    )
  if asked and answer is not None:
    split = _SPLIT.value or "test"
    signals.say(answer(config, variables, split, asked, _TOP.value))
    return
  if _EXAMPLES.value and drawn is not None:
    split = _SPLIT.value or "validation"
    figures = pathlib.Path(folder, "figures")
    n = _EXAMPLES.value
    for path in drawn(config, variables, split, n, figures):
      signals.say(str(path))
    return
  found = recorder.run_evals(
    experiment,
    variables,
    # As the loop did at this step.
    jax.random.fold_in(step_lib.Keys.of(config.seed).eval, step),
    lambda ev: [s for s in ev.splits if _SPLIT.value in (None, s)],
  )
  pictures = {k: v for k, v in found.items() if np.ndim(v) >= 2}
  writer = writers.FigureWriter(folder)
  writer.write_images(step, pictures)
  shown = {
    name: value if math.isfinite(value) else None
    for name, value in found.items()
    if isinstance(value, float)
  }
  print(json.dumps({"step": step, **shown}, indent=2))


if __name__ == "__main__":
  launch.run(main)
