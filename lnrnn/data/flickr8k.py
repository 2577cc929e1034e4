"""Flickr8k: 8,091 photographs with five captions each.

Source: Hodosh, Young and Hockenmaier 2013.
"""

import pathlib

from lnrnn.data import text_files
from lnrnn.data.image_captions import CAPTIONS, Split
from lnrnn.errors import DataError

CAPTION_FILE = "Flickr8k.token.txt"
LISTS = {
  "train": "Flickr_8k.trainImages.txt",
  "validation": "Flickr_8k.devImages.txt",
  "test": "Flickr_8k.testImages.txt",
}


def read(
  folder: pathlib.Path, features: str = ""
) -> tuple[dict[str, Split], dict[str, int]]:
  """Reads captions, official splits, and a matrix of features.

  Args:
    folder: of the owners' files, and of the features.
    features: name of an .npy file [m, f], whose rows `feature_names.txt`
      names; "" is the only one there is.

  Returns:
    {split: its images}, and {what: how many} was left out.

  Raises:
    DataError: a file is missing, damaged, or does not fit the others.
  """
  path = folder / CAPTION_FILE
  captions = read_captions(path)
  rows = text_files.NamedRows(text_files.matrix(folder, features))
  splits, seen = {}, set()
  for split, name in LISTS.items():
    names = text_files.lines(folder / name)
    seen.update(names)
    for image in names:
      if len(found := captions.get(image, {})) != CAPTIONS:
        raise DataError(
          f"{path}: image {image!r} has {len(found)} captions; {CAPTIONS} are"
          " needed"
        )
    texts = [captions[image][k] for image in names for k in range(CAPTIONS)]
    splits[split] = Split(names, rows.of(names), texts)
  # The published file has five captions of a picture that is not there.
  rest = captions.keys() - seen
  lost = sum(image not in rows for image in rest)
  return splits, {
    "images are in no split": len(rest) - lost,
    "captions have no image": CAPTIONS * lost,
  }


def read_captions(path: pathlib.Path) -> dict[str, dict[int, str]]:
  """Reads `image.jpg#n`, a tab and the caption, a line each.

  Args:
    path: the file.

  Returns:
    {image: {n: caption}}, n from 0 to 4.

  Raises:
    DataError: a line is of another form, or a key is there twice.
  """
  found: dict[str, dict[int, str]] = {}
  for number, line in enumerate(text_files.lines(path), 1):
    key, tab, text = line.partition("\t")
    image, mark, nth = key.rpartition("#")
    if not (tab and mark and image and nth in map(str, range(CAPTIONS))):
      raise DataError(
        f"{path}, line {number}: must read image.jpg#0 (to"
        f" #{CAPTIONS - 1}), a tab and the caption, not {line[:60]!r}"
      )
    own = found.setdefault(image, {})
    if int(nth) in own:
      raise DataError(f"{path}, line {number}: {key!r} is there twice")
    own[int(nth)] = text.strip()
  return found
