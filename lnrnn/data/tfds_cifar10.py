"""CIFAR-10 as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

import pathlib

import numpy as np

from lnrnn.data import cifar10, mnist, tfds_files, tfds_pictures
from lnrnn.errors import DataError

_SHAPE = (32, 32, 3)
# Our choice: CIFAR-10 takes 132 MB. A file of some kB can claim any number.
_MAX_BYTES = 1 << 28
_THEIRS = "cifar10"  # What tensorflow-datasets calls its own.
_HOW = (
  "`python scripts/prepare_data.py cifar10 --out DIR` makes it, or"
  " tensorflow-datasets, with file_format=array_record"
)


class LnrnnCifar10(tfds_pictures.PictureBuilder):
  """Builder `lnrnn_cifar10`: the splits of `cifar10.load("binary")`."""

  SHAPE = _SHAPE
  DESCRIPTION = "CIFAR-10; validation is the end of the training files."
  MANUAL_DOWNLOAD_INSTRUCTIONS = "The binary version of CIFAR-10."

  def read_files(self, folder: pathlib.Path) -> dict[str, mnist.Arrays]:
    """The splits of the binary version."""
    return cifar10.load("binary", folder).splits


def write(binary_dir: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """As `tfds_pictures.write`, of the binary version."""
  return tfds_pictures.write(LnrnnCifar10, binary_dir, out)


def find(folder: pathlib.Path) -> pathlib.Path:
  """The directory of one version of a dataset.

  Args:
    folder: it, or a directory that holds `<version>` or `<name>/<version>`;
      what `write` made goes before tensorflow-datasets' own `cifar10`.

  Raises:
    DataError: there is none.
  """
  try:
    return tfds_files.find_version(folder, LnrnnCifar10.name, _HOW)
  except DataError:
    return tfds_files.find_version(folder, _THEIRS, _HOW)


def read(version: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The pictures in a version; as `tfds_pictures.read`, [n, 32, 32, 3]."""
  return tfds_pictures.read(version, _SHAPE, how=_HOW, max_bytes=_MAX_BYTES)
