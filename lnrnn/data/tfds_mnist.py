"""MNIST as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

import pathlib

import numpy as np

from lnrnn.data import mnist, tfds_files, tfds_pictures

_SHAPE = (28, 28, 1)
# Our choice: MNIST takes 21 MB. A file of some kB can claim any number.
_MAX_BYTES = 1 << 26
_HOW = "`python scripts/prepare_data.py mnist --out DIR` makes it"


class LnrnnMnist(tfds_pictures.PictureBuilder):
  """Builder `lnrnn_mnist`: the splits of `mnist.load("idx")`, in order."""

  SHAPE = _SHAPE
  DESCRIPTION = "MNIST; validation is the end of the training file."
  MANUAL_DOWNLOAD_INSTRUCTIONS = "The four idx files of MNIST."

  def read_files(self, folder: pathlib.Path) -> dict[str, mnist.Arrays]:
    """The splits of the idx files."""
    return mnist.load("idx", folder).splits


def write(idx_dir: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """As `tfds_pictures.write`, of the four idx files."""
  return tfds_pictures.write(LnrnnMnist, idx_dir, out)


def read(
  folder: pathlib.Path, name: str = LnrnnMnist.name, *, labelled: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a dataset that `write` made, or one of tensorflow-datasets.

  Args:
    folder: the directory of one version, or a directory that holds
      `<version>` or `<name>/<version>`; the highest version is read.
    name: of the dataset, of pictures as MNIST's.
    labelled: whether they have labels; zeros stand for those missing.

  Returns:
    Images, uint8 [n, 28, 28], and labels, int64 [n], by split, as
    `tfds_pictures.read`.

  Raises:
    DataError: there is no dataset, or it is damaged or in another format.
  """
  theirs = "tensorflow-datasets makes it, with file_format=array_record"
  version = tfds_files.find_version(
    folder, name, _HOW if name == LnrnnMnist.name else theirs
  )
  return tfds_pictures.read(
    version, _SHAPE, how=_HOW, max_bytes=_MAX_BYTES, labelled=labelled
  )
