"""Images with captions, from several sources."""

import os

from lnrnn.data import flickr8k, image_captions, mnist, scenes
from lnrnn.errors import ConfigError

SOURCES = ("embedded", "flickr8k")


def load(
  source: str = "embedded",
  data_dir: str | os.PathLike[str] | None = None,
  *,
  features: str = "",
  max_words: int = 60,
) -> image_captions.Dataset:
  """Loads images with their captions from one of the sources.

  "embedded" is generated scenes (`scenes`), for quick runs. "flickr8k" reads
  the owners' files with any matrix of features.

  Args:
    source: one of `SOURCES`.
    data_dir: directory of the files, or one with a directory of the source's
      name in it; `$LNRNN_DATA_DIR` by default. Not used by "embedded".
    features: name of the .npy file, where the directory has several.
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
  folder = mnist.find_folder(data_dir, source, "flickr8k")
  splits, left = flickr8k.read(folder, features)
  return image_captions.dataset(
    splits,
    origin=f"Flickr8k in {folder}",
    verdict="a substitute for the paper's MS-COCO",
    max_words=max_words,
    left_out=left,
  )
