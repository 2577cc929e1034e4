"""Metrics in TensorBoard's event files, without TensorFlow."""

from collections.abc import Mapping
import os
import pathlib
import platform
import struct
import time
from typing import Any

import numpy as np

from lnrnn.training.appended import Appended


class TensorBoardWriter:
  """Mirrors the metrics to TensorBoard event files, without TensorFlow.

  Not by tensorboardX.SummaryWriter, which writes on a thread: when a full
  disk has ended that, ten events later the caller waits for ever.
  """

  def __init__(self, workdir: str | os.PathLike[str], *, step: int):
    # Not needed by `import lnrnn`.
    from tensorboardX import record_writer, summary
    from tensorboardX.proto import event_pb2

    self._crc, self._make = record_writer.masked_crc32c, summary
    self._pb: Any = event_pb2
    name = f"events.out.tfevents.{int(time.time())}.{platform.node()}"
    self._file = Appended(pathlib.Path(workdir) / name)
    self._add(0, file_version="brain.Event:2")
    if step:  # Rows past the restored step are not shown again.
      log = self._pb.SessionLog(status=self._pb.SessionLog.START)
      self._add(step + 1, session_log=log)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers of one step."""
    # Made here, as tensorboardX warns of each NaN.
    values = [
      {"tag": key, "simple_value": float(value)}
      for key, value in scalars.items()
    ]
    self._add(step, summary={"value": values})

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures of one step."""
    for key, image in images.items():
      if image.ndim > 3:
        continue  # An animation.
      form = "HW" if image.ndim == 2 else "HWC"
      made = self._make.image(key, image, dataformats=form)
      self._add(step, summary=made)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts of one step."""
    for key, text in texts.items():
      self._add(step, summary=self._make.text(key, text))

  def flush(self) -> None:
    """Brings everything to the disk."""
    self._file.sync()

  def close(self) -> None:
    """Closes the event file."""
    self._file.close()

  def _add(self, step: int, **content: Any) -> None:
    """Appends an event, in the format of TFRecord."""
    event = self._pb.Event(wall_time=time.time(), step=int(step), **content)
    data = event.SerializeToString()
    size = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", self._crc(part)) for part in (size, data)]
    self._file.write(size + sums[0] + data + sums[1])
