"""Small pictures as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

import abc
from collections.abc import Iterator
import contextlib
import functools
import io
import pathlib
import tempfile
from typing import Any, ClassVar

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lnrnn.data import mnist, tfds_files
from lnrnn.errors import DataError, one_line

_MODES = {1: "L", 3: "RGB"}  # Pillow's names, by the number of channels.


def _features(
  shape: tuple[int, int, int], labelled: bool = True
) -> tfds.features.FeaturesDict:
  parts: dict[str, Any] = {"image": tfds.features.Image(shape=shape)}
  if labelled:
    parts["label"] = tfds.features.ClassLabel(num_classes=10)
  return tfds.features.FeaturesDict(parts)


class PictureBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Makes a dataset of the owners' files, in their order.

  Takes the directory of the files as its `manual_dir`.
  """

  VERSION = tfds.core.Version("1.0.0")
  SHAPE: ClassVar[
    tuple[int, int, int]
  ]  # Of a picture: height, width, channels.
  DESCRIPTION: ClassVar[str]

  @abc.abstractmethod
  def read_files(self, folder: pathlib.Path) -> dict[str, mnist.Arrays]:
    """The splits that the files hold; images [n, ...] of a channel or more."""

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=_features(self.SHAPE),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    splits = self.read_files(dl_manager.manual_dir)
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


def write(
  builder: type[PictureBuilder], files: pathlib.Path, out: pathlib.Path
) -> pathlib.Path:
  """Converts the owners' files to an array_record dataset.

  The files appear under their final name when all of them are complete. A
  dataset that is already there is left as it is.

  Args:
    builder: what reads the files.
    files: directory of them.
    out: directory to make `<name of the builder>/<version>` in.

  Returns:
    Directory of the dataset.

  Raises:
    DataError: a file is missing or damaged.
  """
  tfds.disable_progress_bar()
  maker = builder(data_dir=out, file_format="array_record")
  made = pathlib.Path(maker.data_dir)
  try:
    with tempfile.TemporaryDirectory() as downloads:
      maker.download_and_prepare(
        download_dir=downloads,
        download_config=tfds.download.DownloadConfig(manual_dir=files),
      )
  except BaseException:
    # tfds has removed what it began, but for the folder of all versions.
    with contextlib.suppress(OSError):
      made.parent.rmdir()
    raise
  return made


def read(
  version: pathlib.Path,
  shape: tuple[int, int, int],
  *,
  how: str,
  max_bytes: int,
  labelled: bool = True,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a dataset that `write` made, or one of tensorflow-datasets.

  Args:
    version: the directory of one version.
    shape: of a picture, [height, width, channels].
    how: to get the data in this format, for the message.
    max_bytes: the most that a file may have, packed and unpacked.
    labelled: whether they have labels; zeros stand for those missing.

  Returns:
    Images, uint8 [n, height, width] of one channel or [n, height, width, 3],
    and labels, int64 [n], of each split of "train", "validation" and "test"
    that the dataset has; "validation" may be missing.

  Raises:
    DataError: the dataset is damaged or in another format.
  """
  try:
    held = tfds_files.splits(version, mnist.SPLITS, ("train", "test"), how)
    records = functools.partial(tfds_files.records, max_bytes=max_bytes)
    return {
      split: _decode(records(version, split, shards), shape, labelled)
      for split, shards in held.items()
    }
  except DataError:
    raise
  except Exception as error:  # the readers below raise many kinds
    raise DataError(
      f"{version}: cannot be read: {type(error).__name__}: {one_line(error)}"
    ) from error


def _decode(
  records: Iterator[bytes], shape: tuple[int, int, int], labelled: bool
) -> tuple[np.ndarray, np.ndarray]:
  features, images, labels = _features(shape, labelled), [], []
  height, width, channels = shape
  size, mode = (width, height), _MODES[channels]
  for record in records:
    example: Any = features.deserialize_example_np(
      record, decoders={"image": tfds.decode.SkipDecoding()}
    )
    # PNG alone: to open some of the other formats Pillow starts programs.
    picture = Image.open(io.BytesIO(example["image"]), formats=("PNG",))
    # Its size stands in its header, and decoding is what takes memory.
    if picture.size != size or picture.mode != mode:
      raise ValueError(
        f"picture {len(images)} has {picture.size} pixels of mode"
        f" {picture.mode}; {size} of mode {mode} are allowed"
      )
    images.append(np.asarray(picture))
    labels.append(example.get("label", 0))
  return np.stack(images), np.array(labels)
