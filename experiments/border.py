"""Looks at the units near the border of trained convnets (section 6.7).

  python -m experiments.border --workdir=runs/convnet

The paper says of convnets that units whose receptive fields lie near the
border of the image are rarely turned on, and so have other statistics than the
rest of their layer. This program restores each finished run in a folder of
`experiments.compare`, shows the test split to it and writes, beside the runs,

  border.png    how often the units of each place are on, layer by layer
  border.md     the same by distance from the border, in numbers
  border.json   all of it
"""

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from absl import flags
import jax
import numpy as np

from experiments import launch
from lnrnn import files, plotting, report
from lnrnn.data import cifar10
from lnrnn.errors import ConfigError, UserError, choices
from lnrnn.training import runs as runs_lib
from lnrnn.training import signals

_WORKDIR = flags.DEFINE_string("workdir", None, "of the runs", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "what the runs are shown")
_CASES = flags.DEFINE_integer(
  "cases", 1000, "pictures of the split, at most", lower_bound=2
)
RARE = 0.05  # Our choice: a unit on in fewer of the cases is rarely on.
_BATCH = 100


class Units(NamedTuple):
  """What the non-linearity of each unit of a layer gets, over many cases."""

  on: np.ndarray  # [h, w, c] fraction of the cases in which it is above zero
  mean: np.ndarray  # [h, w, c]
  square: np.ndarray  # [h, w, c] mean square


def measured(
  model: Any, variables: Any, inputs: Iterable[jax.Array]
) -> dict[str, Units]:
  """Measures the units of a `ConvNet`.

  Args:
    model: the network.
    variables: its collections.
    inputs: batches [b, h, w, d], one at least.

  Returns:
    {layer: what its units get}, from the first layer on.
  """

  @jax.jit
  def sums(x):
    _, noted = model.apply(variables, x, mutable=["intermediates"])
    layers = {name: a for name, (a,) in noted["intermediates"].items()}
    return {
      name: Units((a > 0).sum(0), a.sum(0), (a * a).sum(0))
      for name, a in layers.items()
    }

  cases, total = 0, None
  for x in inputs:
    found = jax.device_get(sums(x))
    found = jax.tree.map(lambda a: a.astype(np.float64), found)
    total = found if total is None else jax.tree.map(np.add, total, found)
    cases += len(x)
  found = jax.tree.map(lambda a: a / cases, total)
  return dict(sorted(found.items(), key=lambda item: int(item[0][2:])))


def distances(side: int) -> np.ndarray:
  """[side, side] how far each place is from the border, 0 at the border."""
  one = np.minimum(np.arange(side), np.arange(side)[::-1])
  return np.minimum(one[:, None], one)


def summary(units: Units, where: np.ndarray) -> dict[str, float]:
  """Numbers of the units of a layer at some places.

  Args:
    units: of the layer.
    where: booleans [h, w], true for one place at least.

  Returns:
    How many "places" there are; "on", the mean fraction of cases in which a
    unit is on; "rare", the fraction of units that are on in less than `RARE`
    of the cases; "mean" and "deviation" of what the non-linearity gets, over
    cases, places and channels.
  """
  on, mean, square = (field[where] for field in units)
  return {
    "places": len(on),
    "on": float(on.mean()),
    "rare": float((on < RARE).mean()),
    "mean": float(mean.mean()),
    "deviation": float(np.sqrt(square.mean() - mean.mean() ** 2)),
  }


class Kind(NamedTuple):
  """What the runs of one line of the report have in common."""

  norm: str
  padding: str
  form: str
  border: int

  @property
  def label(self) -> str:
    """In words."""
    words = [plotting.norm_label(self.norm)]
    if self.norm in ("layer", "rms"):
      words += [f"over {self.form}"] if self.form != "units" else []
      if self.border:
        words.append(f"interior statistics ({self.border} off)")
    words += ["circular"] if self.padding == "circular" else []
    return ", ".join(words)


def _kind(config: Any) -> Kind:
  m = config.model
  own = config.norm in ("layer", "rms")
  return Kind(
    config.norm,
    m.padding,
    m.ln_form if own else "",
    m.ln_border if own else 0,
  )


def _of_run(workdir: pathlib.Path) -> tuple[Kind, int, dict[str, Units]] | None:
  """Kind, seed and units of a finished run of the task; None for others."""
  from lnrnn.training import loop

  config = launch.config_of(workdir)
  if config.experiment != "convnet":
    return None
  curves = runs_lib.Curves.read(workdir)
  if curves.unfinished:
    signals.say(f"{workdir.name}: {curves.unfinished}, left out")
    return None
  config, experiment = launch.reopen(workdir)
  state = loop.restore(config, experiment, workdir, "latest")
  inputs = launch.task(config).inputs(config, _SPLIT.value, _CASES.value)
  blocks = (inputs[i : i + _BATCH] for i in range(0, len(inputs), _BATCH))
  return (
    _kind(config),
    config.seed,
    measured(experiment.model, state.variables, blocks),
  )


Seeds = Sequence[dict[str, Units]]  # {layer: its units} of each seed.


def _averaged(seeds: Seeds, layer: str, where: np.ndarray) -> dict[str, float]:
  """`summary` of a layer at some places, mean over seeds."""
  found = [summary(units[layer], where) for units in seeds]
  return {key: float(np.mean([f[key] for f in found])) for key in found[0]}


def _table(kinds: Mapping[Kind, Seeds]) -> str:
  """Border against the rest of each layer, in Markdown."""
  rows = []
  for kind, seeds in kinds.items():
    for layer, units in seeds[0].items():
      at = distances(len(units.on))
      if not at.any():
        continue  # All of the layer is border.
      edge, rest = (_averaged(seeds, layer, w) for w in (at == 0, at > 0))
      row: dict[str, Any] = {"run": kind.label, "layer": layer[2:]}
      for key in ("on", "rare", "mean", "deviation"):
        row[f"{key}: border"] = f"{edge[key]:.3f}"
        row[f"{key}: rest"] = f"{rest[key]:.3f}"
      rows.append(row)
  return report.markdown(rows)


def main() -> None:
  """Measures, draws and writes."""
  if _SPLIT.value not in cifar10.SPLITS:
    raise ConfigError(
      f"--split={_SPLIT.value!r}: {choices(_SPLIT.value, cifar10.SPLITS)}"
    )
  folder = pathlib.Path(_WORKDIR.value)
  found: dict[Kind, dict[int, dict[str, Units]]] = {}
  for path in sorted(folder.glob("*/config.json")):
    if one := _of_run(path.parent):
      kind, seed, units = one
      if seed in found.get(kind, {}):
        raise UserError(
          f"{folder}: two runs of {kind.label}, seed {seed}, one in"
          f" {path.parent.name}"
        )
      found.setdefault(kind, {})[seed] = units
  if not found:
    raise UserError(f"{folder}: no finished runs of convnet there")
  kinds: dict[Kind, Seeds] = {
    kind: list(seeds.values()) for kind, seeds in sorted(found.items())
  }
  maps = [
    (
      kind.label,
      [
        (
          f"layer {layer[2:]}",
          np.mean([units[layer].on.mean(axis=-1) for units in seeds], axis=0),
        )
        for layer in seeds[0]
      ],
    )
    for kind, seeds in kinds.items()
  ]
  title = f"fraction of the cases in which a unit is on ({_SPLIT.value})"
  numbers = [
    {
      **kind._asdict(),
      "seeds": sorted(found[kind]),
      "layers": {
        layer: [
          _averaged(seeds, layer, at == ring) for ring in range(at.max() + 1)
        ]
        for layer, units in seeds[0].items()
        for at in [distances(len(units.on))]
      },
    }
    for kind, seeds in kinds.items()
  ]
  text = _table(kinds)
  with files.writing(folder):
    plotting.maps(maps, folder / "border.png", title=title)
    with files.atomic(folder / "border.md") as part:
      part.write_text(text, encoding="utf-8")
    with files.atomic(folder / "border.json") as part:
      part.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
  signals.say(f"{text}\nwritten: {folder}/border.png, .md and .json")


if __name__ == "__main__":
  launch.run(main)
