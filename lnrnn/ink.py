"""Pictures of handwriting; matplotlib is imported when one is drawn."""

from collections.abc import Sequence
import os
import pathlib

import numpy as np

from lnrnn import files

_WIDTH = 10.0  # Inches.


def strokes(ink: np.ndarray) -> list[np.ndarray]:
  """The strokes that points make.

  Args:
    ink: [t, 3] offsets, y downwards, and 1 where a stroke ends.

  Returns:
    For each stroke the places of its points, [n, 2], y upwards, in the units
    of the offsets; the first point is at the first offset from 0.
  """
  places = np.cumsum(ink[:, :2], axis=0) * (1, -1)
  ends = np.flatnonzero(ink[:, 2] > 0.5) + 1
  return [part for part in np.split(places, ends) if len(part)]


def figure(
  lines: Sequence[np.ndarray],
  texts: Sequence[str] | None = None,
  attention: Sequence[np.ndarray] | None = None,
):
  """Draws lines of handwriting one below the other.

  Args:
    lines: [t, 3] each, offsets in one unit for x and y.
    texts: what each should say.
    attention: [t, u] each, how much each of the text's characters was seen;
      drawn below its line, for each point relative to the largest.

  Returns:
    A matplotlib figure.
  """
  # Not pyplot, which would meddle with a notebook's backend.
  from matplotlib.figure import Figure

  kinds = 1 if attention is None else 2
  heights = [1.0, 2.4][:kinds] * len(lines)
  drawn = Figure(
    figsize=(_WIDTH, 1.1 * sum(heights)), layout="constrained", facecolor="w"
  )
  axes = drawn.subplots(len(heights), 1, height_ratios=heights, squeeze=False)
  for i, ink in enumerate(lines):
    ax = axes[kinds * i][0]
    for stroke in strokes(np.nan_to_num(ink)):
      # A stroke of one point is a dot.
      mark = "." if len(stroke) == 1 else None
      ax.plot(*stroke.T, color="k", linewidth=1, marker=mark, markersize=2)
    ax.set_aspect("equal", adjustable="datalim")
    ax.axis("off")
    if texts:
      ax.set_title(
        texts[i], loc="left", fontsize=8, color="#666666", parse_math=False
      )
    if attention is not None:
      _draw_attention(
        axes[2 * i + 1][0], attention[i], texts[i] if texts else ""
      )
  return drawn


def _draw_attention(ax, phi: np.ndarray, text: str) -> None:
  largest = phi.max(axis=1, keepdims=True, initial=1e-9)
  ax.imshow(
    (phi / largest).T,
    aspect="auto",
    origin="lower",
    cmap="Greys",
    interpolation="nearest",
  )
  ax.set_yticks(range(len(text)), list(text), fontsize=4, parse_math=False)
  ax.set_xlabel("point", fontsize=7)
  ax.tick_params(labelsize=6, length=0)


def save(drawn, path: str | os.PathLike[str]) -> pathlib.Path:
  """Writes a figure, as its ending says: .png or .svg.

  Returns:
    The path.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic(path) as part:
    drawn.savefig(part, dpi=150, format=path.suffix.removeprefix("."))
  return path


def pixels(drawn) -> np.ndarray:
  """A figure as a picture, [height, width, 3] between 0 and 1."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(drawn)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3] / np.float32(255)
