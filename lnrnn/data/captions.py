"""Images with captions, from several sources."""

from collections.abc import Callable
import os
from typing import Any

from lnrnn.data import coco, flickr8k, image_captions, mnist, scenes
from lnrnn.errors import ConfigError

_NAMES = {
  "flickr8k": "Flickr8k",
  "coco": "MS-COCO",
  "coco_ids": "MS-COCO",
  "tfds": "coco_captions",
}
SOURCES = ("embedded", *_NAMES)
# The images of MS-COCO with Karpathy's splits.
_COCO = {"train": 113_287, "validation": 5_000, "test": 5_000}


def load(
  source: str = "embedded",
  data_dir: str | os.PathLike[str] | None = None,
  *,
  features: str = "",
  max_words: int = 60,
) -> image_captions.Dataset:
  """Loads images with their captions from one of the sources.

  "embedded" is generated scenes (`scenes`), for quick runs. "flickr8k" reads
  the owners' files with any matrix of features, "coco" MS-COCO in the authors'
  layout, "coco_ids" the owners' captions by the ids of Karpathy's splits,
  "tfds" the `coco_captions` of tensorflow-datasets.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory of the source's
      name in it; `$LNRNN_DATA_DIR` by default. Not used by "embedded".
    features: name of the .npy file, where the directory has several; for
      "coco" of the folder in `images`.
    max_words: longer captions are cut.

  Returns:
    The splits train, validation and test.

  Raises:
    ConfigError: there is no such source.
    DataError: a file is missing, damaged, or does not fit the others.
  """
  if source not in SOURCES:
    raise ConfigError(
      f"data.source: {source!r} is not allowed: one of {', '.join(SOURCES)}"
    )
  if source == "embedded":
    return image_captions.dataset(
      scenes.load(),
      origin="generated scenes",
      verdict="no photographs",
      max_words=max_words,
    )
  name = "flickr8k" if source == "flickr8k" else "coco"
  folder = mnist.find_folder(data_dir, source, name)
  splits, left = _reader(source)(folder, features)
  verdict = "a substitute for the paper's MS-COCO"
  if name == "coco":
    sizes = {split: len(held.names) for split, held in splits.items()}
    verdict = "the paper's images, features as they are there"
    if sizes != _COCO:
      verdict = "not all of the paper's images"
  return image_captions.dataset(
    splits,
    origin=f"{_NAMES[source]} in {folder}",
    verdict=verdict,
    max_words=max_words,
    left_out=left,
  )


def _reader(source: str) -> Callable[..., Any]:
  if source == "tfds":
    return mnist.import_tfds("coco", "tfds_captions").read
  return {
    "flickr8k": flickr8k.read,
    "coco": coco.read,
    "coco_ids": coco.read_ids,
  }[source]
