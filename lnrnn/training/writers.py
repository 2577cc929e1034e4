"""Metrics on disk: metrics.jsonl, the source of truth, and TensorBoard.

`MetricWriter` has the method names of clu's writers, so that either can take
the other's place. What a disk refuses is a `WorkdirError`.
"""

from collections.abc import Iterator, Mapping
import json
import math
import os
import pathlib
from typing import Any, Protocol

import numpy as np

from lnrnn import files
from lnrnn.training.appended import Appended

METRICS = "metrics.jsonl"
# Of an animation.
_FRAME_MS, _LAST_MS = 100, 2000


class MetricWriter(Protocol):
  """What the loop writes to."""

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers of one step."""

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures of one step, in [0, 1].

    Each is [height, width] or [height, width, 3], or, as an animation,
    [frames, height, width, 3].
    """

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts of one step."""

  def flush(self) -> None:
    """Brings everything to the disk."""

  def close(self) -> None:
    """Closes the files."""


def _row(step: int, scalars: Mapping[str, float]) -> str:
  """One line of JSON; a number that is not finite becomes null, flagged."""
  row: dict[str, Any] = {"step": int(step)}
  bad = []
  for key, value in scalars.items():
    row[key] = float(value)
    if not math.isfinite(row[key]):
      row[key] = None
      bad.append(key)
  if bad:
    row["nonfinite"] = bad
  return json.dumps(row, allow_nan=False) + "\n"


class JsonlWriter:
  """Appends one JSON object a line to `metrics.jsonl`."""

  def __init__(self, workdir: str | os.PathLike[str]):
    self._file = Appended(pathlib.Path(workdir) / METRICS)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes one row."""
    self._file.write(_row(step, scalars).encode())

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Pictures are left to the figures folder and TensorBoard."""

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes one row of texts."""
    row = {"step": int(step), **texts}
    self._file.write((json.dumps(row) + "\n").encode())

  def flush(self) -> None:
    """Brings everything to the disk."""
    self._file.sync()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class FigureWriter:
  """Writes pictures to `figures/`, as PNG files and, if they move, as GIFs.

  `test/samples` of step 390 becomes `figures/test-samples-000390.png`.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    self._folder = pathlib.Path(workdir) / "figures"

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Numbers are not for this folder."""

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures of one step."""
    from PIL import Image  # Not needed by `import lnrnn`.

    for key, image in images.items():
      moving = image.ndim == 4
      name = f"{key.replace('/', '-')}-{step:06d}.{'gif' if moving else 'png'}"
      path = self._folder / name
      # NaN, of a model that is lost, is black.
      pixels = np.nan_to_num(255 * np.clip(image, 0, 1)).astype(np.uint8)
      with files.writing(path):
        self._folder.mkdir(exist_ok=True)
        with files.atomic(path) as new:
          first, *rest = map(Image.fromarray, pixels if moving else [pixels])
          more: dict[str, Any] = {}
          if moving:
            hold = [_FRAME_MS] * len(rest) + [_LAST_MS]
            more = {
              "save_all": True,
              "append_images": rest,
              "duration": hold,
              "loop": 0,
            }
          first.save(new, **more)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Texts are not for this folder."""

  def flush(self) -> None:
    """Nothing waits to be written."""

  def close(self) -> None:
    """No file is open."""


class MultiWriter:
  """Writes to several writers."""

  def __init__(self, *writers: MetricWriter):
    self._writers = writers

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Sorts an evaluation's metrics into numbers, pictures and texts."""
    scalars, images, texts = {}, {}, {}
    for key, value in metrics.items():
      if isinstance(value, str | os.PathLike):
        texts[key] = str(value)
      elif np.ndim(value) >= 2:
        images[key] = np.asarray(value)
      else:
        scalars[key] = float(value)
    for writer in self._writers:
      if scalars:
        writer.write_scalars(step, scalars)
      if images:
        writer.write_images(step, images)
      if texts:
        writer.write_texts(step, texts)

  def flush(self) -> None:
    """Flushes all of them."""
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Closes all of them."""
    for writer in self._writers:
      writer.close()


def _lines(path: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Whole lines that are rows, as they stand and read; others are skipped."""
  for line in path.read_bytes().splitlines(keepends=True):
    try:
      row = json.loads(line)
      _ = row["step"] + 0
    except (ValueError, KeyError, TypeError):
      continue
    if line.endswith(b"\n"):
      yield line, row


def beside(name: str) -> str:
  """The file of a program that evaluates a run beside its training."""
  return f"metrics_{name}.jsonl"


def put_row(
  path: str | os.PathLike[str], step: int, scalars: Mapping[str, float]
) -> None:
  """Puts one row into a file of rows; of one step there is one.

  Args:
    path: of the file.
    step: of the row.
    scalars: numbers; those that the row has and these lack stay.
  """
  path = pathlib.Path(path)
  kept, own = [], {}
  for line, row in _lines(path) if path.exists() else ():
    if row["step"] == step:
      own |= {k: v for k, v in row.items() if k not in ("step", "nonfinite")}
    else:
      kept.append(line)
  own = {k: math.nan if v is None else v for k, v in own.items()}
  with files.writing(path), files.atomic(path, sync=True) as new:
    new.write_bytes(b"".join([*kept, _row(step, {**own, **scalars}).encode()]))


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The rows of a run: of its metrics.jsonl and of the files beside it.

  Args:
    workdir: of the run.

  Returns:
    As `read_rows`, by their steps.
  """
  folder = pathlib.Path(workdir)
  found = read_rows(folder / METRICS)
  others = sorted(folder.glob(beside("*")))
  if not others:
    return found
  found += [row for path in others for row in read_rows(path)]
  return sorted(found, key=lambda row: row["step"])


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of one file; what is torn or no row is skipped.

  Args:
    path: of it.

  Returns:
    The rows, null being NaN again; [] where there is no file.
  """
  if not path.exists():
    return []
  return [
    {k: math.nan if v is None else v for k, v in row.items()}
    for _, row in _lines(path)
  ]


def rewind(
  workdir: str | os.PathLike[str], step: int, *, evaluated: bool = True
) -> None:
  """Drops the rows past a step, so that a resumed run writes them once.

  Args:
    workdir: of the run.
    step: the last step whose rows stay.
    evaluated: whether the evaluations of that step stay too.
  """

  def stays(row):
    past = row["step"] > step or "fault" in row
    again = row["step"] == step and not evaluated and "loss" not in row
    return not (past or again)

  def filtered(path, stays):
    kept = [line for line, row in _lines(path) if stays(row)]
    with files.writing(path), files.atomic(path, sync=True) as new:
      new.write_bytes(b"".join(kept))

  folder = pathlib.Path(workdir)
  if (folder / METRICS).exists():
    filtered(folder / METRICS, stays)
  for path in folder.glob(beside("*")):  # Of checkpoints that are no more.
    filtered(path, lambda row: row["step"] <= step)


def curve(
  rows: list[dict[str, Any]], metric: str
) -> tuple[np.ndarray, np.ndarray]:
  """The steps [n] and values [n] of one metric."""
  points = [(row["step"], row[metric]) for row in rows if metric in row]
  steps, values = zip(*points, strict=True) if points else ((), ())
  return np.array(steps, np.int64), np.array(values, np.float64)
