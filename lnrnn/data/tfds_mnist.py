"""MNIST as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

from collections.abc import Iterator
import io
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lnrnn.data import mnist
from lnrnn.errors import DataError


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
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28, 28, 1)),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
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
  with tempfile.TemporaryDirectory() as downloads:
    builder.download_and_prepare(
      download_dir=downloads,
      download_config=tfds.download.DownloadConfig(manual_dir=idx_dir),
    )
  return pathlib.Path(builder.data_dir)


def read(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a dataset that `write` made, or `mnist` of tensorflow-datasets.

  Args:
    folder: the directory of one version, or a directory that holds
      `<version>` or `lnrnn_mnist/<version>`; the highest version is read.

  Returns:
    Images, uint8 [n, 28, 28], and labels, int64 [n], of each split of "train",
    "validation" and "test" that the dataset has; "validation" may be missing.

  Raises:
    DataError: there is no dataset, or it is damaged or in another format.
  """
  version = _find_version(folder)
  try:
    builder = tfds.builder_from_directory(version)
    stored = builder.info.file_format
    if stored is not tfds.core.FileFormat.ARRAY_RECORD:
      raise DataError(
        f"{version}: is in format {stored and stored.value}; "
        "only array_record can be read without TensorFlow: "
        "`python scripts/prepare_data.py mnist --out DIR` makes it"
      )
    names = [name for name in mnist.SPLITS if name in builder.info.splits]
    if missing := {"train", "test"}.difference(names):
      raise DataError(f"{version}: has no split {', '.join(sorted(missing))}")
    return {name: _decode(builder, name) for name in names}
  except DataError:
    raise
  except Exception as error:  # the readers below raise many kinds
    reason = str(error).strip().partition("\n")[0]
    raise DataError(
      f"{version}: cannot be read: {type(error).__name__}: {reason}"
    ) from error


def _decode(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
  source = builder.as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  examples = source.__getitems__(range(len(source)))
  images = [Image.open(io.BytesIO(example["image"])) for example in examples]
  labels = [example["label"] for example in examples]
  return np.stack([np.asarray(image) for image in images]), np.array(labels)


def _find_version(folder: pathlib.Path) -> pathlib.Path:
  """The directory with the highest version number among those that fit."""
  if (folder / "dataset_info.json").is_file():
    return folder
  for pattern in ("lnrnn_mnist/*.*.*", "*.*.*"):
    versions = {
      tuple(int(part) for part in path.parent.name.split(".")): path.parent
      for path in folder.glob(f"{pattern}/dataset_info.json")
      if path.parent.name.replace(".", "").isdecimal()
    }
    if versions:
      return versions[max(versions)]
  raise DataError(
    f"lnrnn_mnist: not found under {folder}; "
    "`python scripts/prepare_data.py mnist --out DIR` makes it"
  )
