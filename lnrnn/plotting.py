"""Figures; matplotlib is imported when the first one is drawn."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

import numpy as np

from lnrnn import files

# Wong's colours, which the colour-blind tell apart; one for each norm,
# wherever it is drawn.
COLOURS = {
  "layer": "#0072B2",
  "batch": "#D55E00",
  "none": "#444444",
  "weight": "#009E73",
  "rms": "#CC79A7",
}
_REST = ("#E69F00", "#56B4E9", "#8C564B", "#7F7F7F", "#17BECF")
_NAMES = {
  "layer": "layer norm",
  "batch": "batch norm",
  "none": "no norm",
  "weight": "weight norm",
  "rms": "RMS norm",
}


@dataclasses.dataclass(frozen=True)
class Line:
  """One curve of a panel, from one or several seeds.

  Attributes:
    label: of the legend.
    x: [n] abscissa.
    y: [seeds, n] values.
    colour: a norm's name, or "" for the next free colour.
  """

  label: str
  x: np.ndarray
  y: np.ndarray
  colour: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
  """One plot of a figure.

  Attributes:
    title: above it.
    xlabel: with unit.
    ylabel: with unit.
    lines: its curves.
    log: logarithmic y axis.
    logx: logarithmic x axis.
  """

  title: str
  xlabel: str
  ylabel: str
  lines: Sequence[Line]
  log: bool = False
  logx: bool = False


def norm_label(name: str) -> str:
  """The name of a norm in words."""
  return _NAMES.get(name, name)


def curves(
  panels: Sequence[Sequence[Panel]],
  path: str | os.PathLike[str],
) -> pathlib.Path:
  """Draws a grid of panels: means over seeds, and their range as a band.

  Args:
    panels: rows of panels, of equal length.
    path: of the picture; its ending decides the format.

  Returns:
    The path.
  """
  # Not pyplot, which would meddle with a notebook's backend.
  from matplotlib.figure import Figure

  rows, columns = len(panels), len(panels[0])
  size = (1.2 + 4.2 * columns, 0.8 + 3.0 * rows)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots(rows, columns, squeeze=False)
  for row, axes_row in zip(panels, axes, strict=True):
    for panel, ax in zip(row, axes_row, strict=True):
      _draw(panel, ax)
  handles, labels = axes[0][0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=min(len(labels), 5) or 1,
    frameon=False,
  )
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic(path) as part:
    figure.savefig(part, dpi=150)
  return path


def _draw(panel: Panel, ax) -> None:
  """One panel on its axes."""
  free = iter(_REST)
  for line in panel.lines:
    colour = COLOURS.get(line.colour) or next(free, "#000000")
    # A seed that diverged is seen as a gap, not dropped from the mean.
    # Few points are shown as such, and a single one at all.
    marker = "o" if len(line.x) <= 10 else None
    ax.plot(
      line.x,
      line.y.mean(axis=0),
      label=line.label,
      color=colour,
      marker=marker,
      ms=3,
      lw=1.4,
    )
    if len(line.y) > 1:
      ax.fill_between(
        line.x,
        line.y.min(axis=0),
        line.y.max(axis=0),
        color=colour,
        alpha=0.18,
        lw=0,
      )
  if panel.log:
    ax.set_yscale("log")
  if panel.logx:
    ax.set_xscale("log")
  ax.set_title(panel.title, fontsize=10)
  ax.set_xlabel(panel.xlabel)
  ax.set_ylabel(panel.ylabel)
  ax.grid(alpha=0.25, lw=0.5)
  ax.spines[["top", "right"]].set_visible(False)
