"""Figures; matplotlib is imported when the first one is drawn."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import textwrap
from typing import Any

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
    error: [n] half the length of an error bar, or None.
  """

  label: str
  x: np.ndarray
  y: np.ndarray
  colour: str = ""
  error: np.ndarray | None = None


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
  # A line of the legend has some 12 letters an inch, its marks six each.
  longest = max(map(len, labels), default=0) + 6
  fit = max(1, int(12 * size[0] / longest))
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=min(len(labels), 5, fit) or 1,
    frameon=False,
  )
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic(path) as part:
    figure.savefig(part, dpi=150)
  return path


def attention(
  words: Sequence[str],
  weights: np.ndarray,
  *,
  title: str,
  path: str | os.PathLike[str],
  columns: int = 90,
) -> pathlib.Path:
  """Draws a text, each word on a ground the darker the more it is attended to.

  Args:
    words: t of them.
    weights: [t], not negative; the largest is the darkest.
    title: above the text, of one or more lines.
    path: of the picture; its ending decides the format.
    columns: characters in a line.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure
  from matplotlib.patches import Rectangle

  places, row, column = [], 0, 0
  for word in words:
    word = word if len(word) <= columns else f"{word[: columns - 1]}…"
    if column and column + len(word) > columns:
      row, column = row + 1, 0
    places.append((row, column, word))
    column += len(word) + 1
  head = [
    line
    for part in title.split("\n")
    for line in textwrap.wrap(part, columns) or [""]
  ]
  lines = len(head) + row + 2.5
  # A character of monospace at size 10 is 6 points wide.
  figure = Figure(figsize=(columns * 6 / 72 + 0.3, lines * 16 / 72 + 0.2))
  ax = figure.add_axes((0, 0, 1, 1))
  ax.set(xlim=(-2, columns + 2), ylim=(lines, 0))
  ax.axis("off")
  # No mathematics: a text may hold dollars.
  style: dict[str, Any] = dict(
    family="monospace", size=10, va="center", parse_math=False
  )
  for i, line in enumerate(head):
    ax.text(0, i + 0.8, line, color="#666666", **style)
  shade = weights / max(float(weights.max(initial=0)), 1e-12)
  for (row, column, word), dark in zip(places, shade.tolist(), strict=True):
    y = len(head) + row + 1.3
    ax.add_patch(
      Rectangle(
        (column - 0.3, y - 0.45),
        len(word) + 0.6,
        0.9,
        color=COLOURS["batch"],
        alpha=0.75 * dark,
        lw=0,
      )
    )
    ax.text(column, y, word, **style)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic(path) as part:
    figure.savefig(part, dpi=120)
  return path


def maps(
  rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]],
  path: str | os.PathLike[str],
  *,
  title: str,
) -> pathlib.Path:
  """Draws rows of maps, all on one scale of colours.

  Args:
    rows: (label, maps of the row); each map has a title and is [h, w].
    path: of the picture; its ending decides the format.
    title: of the scale, with unit.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure

  columns = max(len(found) for _, found in rows)
  size = (1.3 * columns + 2.2, 1.45 * len(rows) + 0.3)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots(len(rows), columns, squeeze=False)
  values = [values for _, found in rows for _, values in found]
  low, high = min(map(np.min, values)), max(map(np.max, values))
  for (label, found), axes_row in zip(rows, axes, strict=True):
    for ax in axes_row[len(found) :]:
      ax.set_axis_off()
    for (name, values), ax in zip(found, axes_row, strict=False):
      drawn = ax.imshow(values, vmin=low, vmax=high, cmap="viridis")
      ax.set_title(name, fontsize=8)
      ax.set(xticks=(), yticks=())
    axes_row[0].set_ylabel(
      textwrap.fill(label, 16), rotation=0, ha="right", va="center", fontsize=9
    )
  figure.colorbar(drawn, ax=axes, label=title, shrink=0.8)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic(path) as part:
    figure.savefig(part, dpi=150)
  return path


def _draw(panel: Panel, ax) -> None:
  """One panel on its axes; one without lines is left empty."""
  if not panel.lines and not panel.ylabel:
    ax.set_axis_off()
    return
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
    if line.error is not None:
      ax.errorbar(
        line.x,
        line.y.mean(axis=0),
        line.error,
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        capsize=2,
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
