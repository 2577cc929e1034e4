"""A file that grows, such as those of metrics."""

import io
import os
import pathlib

from lnrnn import files


class Appended:
  """A file that grows.

  It has no buffer: what is written can be followed, and what a full disk
  refuses is not tried again when the file is closed. What a disk refuses is a
  `WorkdirError`.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    with files.writing(path):
      self._file: io.FileIO = path.open("ab", buffering=0)

  def write(self, data: bytes) -> None:
    """Appends bytes, all of them."""
    left = memoryview(data)
    with files.writing(self._path):
      while left:  # An almost full disk takes a part, and then refuses.
        left = left[self._file.write(left) :]

  def sync(self) -> None:
    """Brings everything to the disk."""
    with files.writing(self._path):
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    with files.writing(self._path):
      self._file.close()
