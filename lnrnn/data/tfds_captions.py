"""`coco_captions` of tensorflow-datasets: its captions, without TensorFlow.

Importing this module needs tensorflow-datasets and array_record.
"""

import pathlib
from typing import Any

import tensorflow_datasets as tfds

from lnrnn.data import text_files, tfds_files
from lnrnn.data.image_captions import CAPTIONS, Split
from lnrnn.errors import DataError, one_line

NAME = "coco_captions/2014"  # The config with Karpathy's splits.
# Ours: theirs. Those that Karpathy left over are trained on too.
_PARTS = {
  "train": ("train", "restval"),
  "validation": ("val",),
  "test": ("test",),
}
_HOW = "tensorflow-datasets makes it, with file_format=array_record"
_MAX_BYTES = 1 << 30  # Of a file; it has 150 MB.
# The pictures and boxes stand beside, and are not looked at.
_FEATURES = tfds.features.FeaturesDict(
  {
    "image/filename": tfds.features.Text(),
    "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
  }
)


def read(
  folder: pathlib.Path, features: str = ""
) -> tuple[dict[str, Split], dict[str, int]]:
  """Reads captions, and a matrix of features by images' names.

  Of each image the first five captions count, as in the authors' code.

  Args:
    folder: the directory of the dataset, with the features beside it.
    features: name of an .npy file [m, f] in the folder, whose rows
      `feature_names.txt` names by the images' file names; "" is the only one.

  Returns:
    {split: its images}, and {what: how many} was left out.

  Raises:
    DataError: there is no dataset, it is damaged or in another format, or an
      image has fewer than five captions or no features.
  """
  rows = text_files.NamedRows(text_files.matrix(folder, features))
  version = tfds_files.find_version(folder, NAME, _HOW)
  splits, more = {}, 0
  try:
    parts = [part for parts in _PARTS.values() for part in parts]
    held = tfds_files.splits(version, parts, parts, _HOW)
    for split, own in _PARTS.items():
      names, texts = [], []
      for part in own:
        for record in tfds_files.records(
          version, part, held[part], max_bytes=_MAX_BYTES
        ):
          name, captions = _decoded(record)
          if len(captions) < CAPTIONS:
            raise DataError(
              f"{version}, split {part}: image {name!r} has {len(captions)}"
              f" captions; {CAPTIONS} are needed"
            )
          more += len(captions) - CAPTIONS
          names.append(name)
          texts += captions[:CAPTIONS]
      splits[split] = Split(names, rows.of(names), texts)
  except DataError:
    raise
  except Exception as error:  # the readers below raise many kinds
    raise DataError(
      f"{version}: cannot be read: {type(error).__name__}: {one_line(error)}"
    ) from error
  return splits, {f"captions beyond {CAPTIONS} of an image are left out": more}


def _decoded(record: bytes) -> tuple[str, list[str]]:
  """The file name of an image, and its captions."""
  example: Any = _FEATURES.deserialize_example_np(record)
  texts = [text.decode() for text in example["captions"]["text"]]
  return example["image/filename"].decode(), texts
