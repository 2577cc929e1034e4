"""Metrics on disk: metrics.jsonl, the source of truth, and TensorBoard.

`MetricWriter` has the method names of clu's writers, so that either can take
the other's place.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any, Protocol

import numpy as np

METRICS = "metrics.jsonl"


class MetricWriter(Protocol):
  """What the loop writes to."""

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers of one step."""

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures, each [height, width] or [height, width, 3] in [0, 1]."""

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts of one step."""

  def flush(self) -> None:
    """Hands everything to the operating system."""

  def close(self) -> None:
    """Flushes and closes the files."""


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
    path = pathlib.Path(workdir) / METRICS
    # A line at a time: what is there can be followed.
    self._file = path.open("a", buffering=1, encoding="utf-8")

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes one row."""
    self._file.write(_row(step, scalars))

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Pictures are left to the figures folder and TensorBoard."""

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes one row of texts."""
    self._file.write(json.dumps({"step": int(step), **texts}) + "\n")

  def flush(self) -> None:
    """Brings everything to the disk."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class TensorBoardWriter:
  """Mirrors the metrics to TensorBoard event files, without TensorFlow."""

  def __init__(self, workdir: str | os.PathLike[str], *, step: int):
    import tensorboardX  # Not needed by `import lnrnn`.

    # Rows past the restored step are not shown again.
    self._writer = tensorboardX.SummaryWriter(
      str(workdir), purge_step=step + 1 if step else None
    )

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers of one step."""
    for key, value in scalars.items():
      self._writer.add_scalar(key, float(value), step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures of one step."""
    for key, image in images.items():
      form = "HW" if image.ndim == 2 else "HWC"
      self._writer.add_image(key, image, step, dataformats=form)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts of one step."""
    for key, text in texts.items():
      self._writer.add_text(key, text, step)

  def flush(self) -> None:
    """Hands everything to the operating system."""
    self._writer.flush()

  def close(self) -> None:
    """Closes the event file."""
    self._writer.close()


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


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The rows of a run's metrics.jsonl; a torn last line is skipped.

  Args:
    workdir: of the run.

  Returns:
    The rows, null being NaN again; [] where there is no file.
  """
  path = pathlib.Path(workdir) / METRICS
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    rows.append({k: math.nan if v is None else v for k, v in row.items()})
  return rows


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

  path = pathlib.Path(workdir) / METRICS
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
    try:
      if line.endswith("\n") and stays(json.loads(line)):
        kept.append(line)
    except json.JSONDecodeError:
      continue
  new = path.with_suffix(".tmp")
  new.write_text("".join(kept), encoding="utf-8")
  new.replace(path)


def curve(
  rows: list[dict[str, Any]], metric: str
) -> tuple[np.ndarray, np.ndarray]:
  """The steps [n] and values [n] of one metric."""
  points = [(row["step"], row[metric]) for row in rows if metric in row]
  steps, values = zip(*points, strict=True) if points else ((), ())
  return np.array(steps, np.int64), np.array(values, np.float64)
