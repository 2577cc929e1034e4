"""MNIST as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

from collections.abc import Iterator
import contextlib
import functools
import io
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lnrnn.data import mnist, tfds_files
from lnrnn.errors import DataError, one_line

_SIZE = (28, 28)
# Our choice: MNIST takes 21 MB. A file of some kB can claim any number.
_MAX_BYTES = 1 << 26
_OURS = "lnrnn_mnist"
_HOW = "`python scripts/prepare_data.py mnist --out DIR` makes it"


def _features(labelled: bool = True) -> tfds.features.FeaturesDict:
  parts: dict[str, Any] = {"image": tfds.features.Image(shape=(*_SIZE, 1))}
  if labelled:
    parts["label"] = tfds.features.ClassLabel(num_classes=10)
  return tfds.features.FeaturesDict(parts)


class LnrnnMnist(tfds.core.GeneratorBasedBuilder):
  """Builder `lnrnn_mnist`: the splits of `mnist.load("idx")`, in order.

  Takes the directory of the idx files as its `manual_dir`.
  """

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = "The four idx files of MNIST."

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="MNIST; validation is the end of the training file.",
      features=_features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    splits = mnist.load("idx", dl_manager.manual_dir).splits
    return {
      split: self._generate_examples(arrays) for split, arrays in splits.items()
    }

  def _generate_examples(self, arrays: mnist.Arrays) -> Iterator:
    for row, (image, label) in enumerate(zip(*arrays, strict=True)):
      # The feature encodes arrays with TensorFlow, but takes a PNG file.
      png = io.BytesIO()
      Image.fromarray(image).save(png, "PNG")
      png.seek(0)
      yield row, {"image": png, "label": int(label)}


def write(idx_dir: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """Converts the idx files to an array_record dataset.

  The files appear under their final name when all of them are complete. A
  dataset that is already there is left as it is.

  Args:
    idx_dir: directory of the four idx files.
    out: directory to make `lnrnn_mnist/<version>` in.

  Returns:
    Directory of the dataset.

  Raises:
    DataError: an idx file is missing or damaged.
  """
  tfds.disable_progress_bar()
  builder = LnrnnMnist(data_dir=out, file_format="array_record")
  made = pathlib.Path(builder.data_dir)
  try:
    with tempfile.TemporaryDirectory() as downloads:
      builder.download_and_prepare(
        download_dir=downloads,
        download_config=tfds.download.DownloadConfig(manual_dir=idx_dir),
      )
  except BaseException:
    # tfds has removed what it began, but for the folder of all versions.
    with contextlib.suppress(OSError):
      made.parent.rmdir()
    raise
  return made


def read(
  folder: pathlib.Path, name: str = _OURS, *, labelled: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a dataset that `write` made, or one of tensorflow-datasets.

  Args:
    folder: the directory of one version, or a directory that holds
      `<version>` or `<name>/<version>`; the highest version is read.
    name: of the dataset, of pictures as MNIST's.
    labelled: whether they have labels; zeros stand for those missing.

  Returns:
    Images, uint8 [n, 28, 28], and labels, int64 [n], of each split of "train",
    "validation" and "test" that the dataset has; "validation" may be missing.

  Raises:
    DataError: there is no dataset, or it is damaged or in another format.
  """
  theirs = "tensorflow-datasets makes it, with file_format=array_record"
  version = tfds_files.find_version(
    folder, name, _HOW if name == _OURS else theirs
  )
  try:
    held = tfds_files.splits(version, mnist.SPLITS, ("train", "test"), _HOW)
    read = functools.partial(tfds_files.records, max_bytes=_MAX_BYTES)
    return {
      split: _decode(read(version, split, shards), labelled)
      for split, shards in held.items()
    }
  except DataError:
    raise
  except Exception as error:  # the readers below raise many kinds
    raise DataError(
      f"{version}: cannot be read: {type(error).__name__}: {one_line(error)}"
    ) from error


def _decode(
  records: Iterator[bytes], labelled: bool
) -> tuple[np.ndarray, np.ndarray]:
  features, images, labels = _features(labelled), [], []
  for record in records:
    example: Any = features.deserialize_example_np(
      record, decoders={"image": tfds.decode.SkipDecoding()}
    )
    # PNG alone: to open some of the other formats Pillow starts programs.
    picture = Image.open(io.BytesIO(example["image"]), formats=("PNG",))
    # Its size stands in its header, and decoding is what takes memory.
    if picture.size != _SIZE or picture.mode != "L":
      raise ValueError(
        f"picture {len(images)} has {picture.size} pixels of mode"
        f" {picture.mode}; {_SIZE} of mode L are allowed"
      )
    images.append(np.asarray(picture))
    labels.append(example.get("label", 0))
  return np.stack(images), np.array(labels)
