r"""Writes handwriting with a trained run.

  python -m experiments.sample --workdir=runs/handwriting_ln \
      --text="Layer norm" --text="helps the pen" --bias=0.7

writes a `.png`, a `.svg` and a `.npy` (the points) for each text into the
workdir's `samples/`, or the folder that `--out` names: the line, and below it
how the window moved over the text. `--prime` names a real line, such as
a01-000u-01, in whose style is written. A run of the prediction network knows no
text; `--text` is then a name.

  python -m experiments.sample --exported=models/handwriting_ln \
      --text="Layer norm" --out=written

does the same with the model that `scripts/export.py` wrote to a folder; its
data is needed for `--prime` alone.

What is drawn depends on the run, the texts and `--seed` alone.
"""

import pathlib
import re
from typing import Any

from absl import flags
import jax
import numpy as np

from experiments import handwriting, launch
from lnrnn import export, files, ink
from lnrnn.data import characters, iam_ondb
from lnrnn.errors import ConfigError, DataError, WorkdirError
from lnrnn.models.handwriting import Handwriting
from lnrnn.training import config as config_lib
from lnrnn.training import signals

_WORKDIR = flags.DEFINE_string("workdir", None, "of the run")
_EXPORTED = flags.DEFINE_string(
  "exported", None, "folder of an exported model, instead of a workdir"
)
_TEXT = flags.DEFINE_multi_string(
  "text", None, "what to write; may be repeated"
)
_BIAS = flags.DEFINE_float(
  "bias",
  0.5,
  "0 is as people write; higher is tidier",
  lower_bound=0,
  upper_bound=100,
)
_PRIME = flags.DEFINE_string("prime", None, "name of a real line to go on from")
_POINTS = flags.DEFINE_integer(
  "points",
  None,
  "most points of a line; default: the run's",
  lower_bound=1,
  upper_bound=100_000,
)
_UNKNOWN = flags.DEFINE_enum(
  "unknown",
  "map",
  ["map", "refuse"],
  "characters outside the alphabet: one sign for all, or an error",
)
_SEED = flags.DEFINE_integer(
  "seed", 0, "of what is random", lower_bound=0, upper_bound=2**31 - 1
)
_OUT = flags.DEFINE_string(
  "out", None, "folder; default: samples/ of the run or the exported model"
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "latest", "latest, best or a step"
)


def _of_workdir(workdir: str) -> tuple[handwriting.Sampler, Any]:
  """The checkpoint of a run that `--checkpoint` names."""
  from lnrnn.training import loop

  config = launch.config_of(workdir)
  if config.experiment != "handwriting":
    raise ConfigError(
      f"--workdir={workdir}: is a run of {config.experiment}; sampling is for"
      " handwriting"
    )
  config, experiment = launch.reopen(workdir)
  data = handwriting.load_data(config)
  state = loop.restore(config, experiment, workdir, _CHECKPOINT.value)
  return handwriting.Sampler(config, experiment.model, data), state.variables


def _of_exported(folder: str) -> tuple[handwriting.Sampler, Any]:
  """An exported model, and its data if a real line is asked for."""
  found = export.load(folder)
  run, model = found.config["run"], found.model
  if not (isinstance(model, Handwriting) and run):
    raise ConfigError(
      f"--exported={folder}: holds a {type(model).__name__}; sampling is for"
      " what a run of handwriting was exported to"
    )
  config = config_lib.from_dict(run["config"])
  data = iam_ondb.Dataset(
    splits={},
    mean=np.array(found.assets["mean"]),
    deviation=np.array(found.assets["deviation"]),
    left_out={},
    description=run["data"],
    fingerprint=run["fingerprint"],
  )
  if _PRIME.value:
    there = handwriting.load_data(config)
    if there.fingerprint != data.fingerprint:
      raise DataError(
        f"{folder}: was trained on other data ({data.description}) than there"
        f" is now ({there.description}), of which --prime would be"
      )
    data = there
  return handwriting.Sampler(config, model, data), found.variables


@signals.abrupt()
def main() -> None:
  """Opens the run or the exported model, and writes."""
  home = launch.place(_WORKDIR.value, _EXPORTED.value)
  open_ = _of_workdir if _EXPORTED.value is None else _of_exported
  texts = _TEXT.value
  if not texts:
    raise ConfigError('--text: what to write is needed, as --text="some words"')
  for text in texts:
    if not text.isprintable():
      raise ConfigError(f"--text={text!r}: has what cannot be printed")
  out = pathlib.Path(_OUT.value or pathlib.Path(home, "samples"))
  if out.exists() and not out.is_dir():
    raise ConfigError(f"--out={out}: is no folder")
  sampler, variables = open_(home)
  given = sampler.inputs(texts, prime=_PRIME.value, unknown=_UNKNOWN.value)
  if mapped := characters.unmapped("".join(texts)):
    signals.say(f"one sign stands for each of {mapped}")
  written = sampler.write(
    variables,
    given,
    jax.random.key(_SEED.value),
    n=len(texts),
    bias=_BIAS.value,
    points=_POINTS.value,
  )
  if not written.lengths.all() or not np.isfinite(written.ink).all():
    raise WorkdirError(f"{home}: its model writes nothing: did it diverge?")
  for i, (text, line) in enumerate(
    zip(texts, handwriting.shown(written), strict=True)
  ):
    points = sampler.units(line)
    attention = None
    if written.attention is not None:
      before = given[1][2].lengths[i] if given[1] else 0
      own = slice(before, before + len(text))
      attention = [written.attention[i, : len(line), own]]
    drawn = ink.figure([points], [text], attention)
    path = out / name_of(text, i)
    for ending in (".png", ".svg"):
      ink.save(drawn, path.with_name(path.name + ending))
    with files.atomic(path.with_name(path.name + ".npy")) as part:
      np.save(part, points)
    signals.say(f"{path}.png: {len(line)} points")


def name_of(text: str, i: int) -> str:
  """A file's name for the text number i, and how it was written."""
  short = re.sub(r"\W+", "_", text).strip("_")[:40]
  primed = f"_{_PRIME.value}" if _PRIME.value else ""
  return f"{i}_{short}_bias{_BIAS.value:g}_seed{_SEED.value}{primed}"


if __name__ == "__main__":
  launch.run(main)
