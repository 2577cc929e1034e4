"""MS-COCO with Karpathy's splits: as the authors laid it out, or by ids.

Source: Lin et al. 2014; Karpathy and Fei-Fei 2015; the code of Vendrov et al.
"""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

import numpy as np

from lnrnn import arrays
from lnrnn.data import text_files
from lnrnn.data.image_captions import CAPTIONS, Split
from lnrnn.errors import DataError, one_line

# Ours: theirs. Those that Karpathy left over are trained on too.
_PARTS = {"train": ("train",), "validation": ("dev",), "test": ("test",)}
_ID_PARTS = {**_PARTS, "train": ("train", "restval")}
ANNOTATIONS = ("captions_train2014.json", "captions_val2014.json")
_MAX_JSON = 1 << 28  # The larger of them has 67 MB.


def read(
  folder: pathlib.Path, features: str = ""
) -> tuple[dict[str, Split], dict[str, int]]:
  """Reads text files of captions and matrices of features, one a split.

  For the part `train` (and `dev` and `test`) the captions are the first that
  is there of `captions/*/train.txt`, `train_caps.txt`, `coco_train_caps.txt`
  and `train.txt`, a line each, five lines an image; the features of
  `images/*/train.npy`, `train_ims.npy`, `coco_train_ims.npy` and `train.npy`,
  a row an image, or a row a caption, five of which are the same. `testall`
  goes before `test`, which has 1,000 images where both are there.

  Args:
    folder: of the files.
    features: name of a folder in `images`, where it has several.

  Returns:
    {split: its images}, which have numbers for names; nothing is left out.

  Raises:
    DataError: a file is missing, damaged, or does not fit the others.
  """
  splits = {}
  for split, (part,) in _PARTS.items():
    text, matrix = _files(folder, part, features)
    captions = text_files.lines(text)
    rows = _one_each(matrix, captions, text)
    n = len(rows)
    splits[split] = Split([f"{part}-{i}" for i in range(n)], rows, captions)
  return splits, {}


def owners_files(
  folder: pathlib.Path, features: str = ""
) -> list[pathlib.Path]:
  """The files that `read` reads."""
  return [
    path
    for (part,) in _PARTS.values()
    for path in _files(folder, part, features)
  ]


def _files(
  folder: pathlib.Path, part: str, features: str
) -> tuple[pathlib.Path, pathlib.Path]:
  """The captions and the features of a part."""
  names = ("testall", "test") if part == "test" else (part,)
  text = _first(folder, "captions/*", names, ".txt", "_caps.txt")
  if not features:
    return text, _first(folder, "images/*", names, ".npy", "_ims.npy")
  # What was asked for, or nothing.
  there = [folder / "images" / features / f"{name}.npy" for name in names]
  found = [path for path in there if path.is_file()]
  if not found:
    raise DataError(f"{there[-1]}: no such file (data.features={features!r})")
  return text, found[0]


def _first(
  folder: pathlib.Path, inner: str, parts: Sequence[str], plain, suffix
) -> pathlib.Path:
  """The file of a part, by the first name that it goes by."""
  patterns = [
    f"{prefix}{part}{ending}"
    for part in parts
    for prefix, ending in (
      (f"{inner}/", plain),
      ("", suffix),
      ("coco_", suffix),
      ("", plain),
    )
  ]
  for pattern in patterns:
    there = sorted(folder.glob(pattern))
    if len(there) > 1:
      listed = ", ".join(str(p.relative_to(folder)) for p in there)
      raise DataError(
        f"{folder}: has {listed}; name the folder in images/ by data.features,"
        " and keep one of captions/"
      )
    if there:
      return there[0]
  raise DataError(f"{folder}: has none of {', '.join(patterns)}")


def _one_each(
  path: pathlib.Path, captions: Sequence[str], text: pathlib.Path
) -> np.ndarray:
  """The features, a row an image."""
  rows = arrays.load_npy(path, mmap=True)
  n, left = divmod(len(captions), CAPTIONS)
  if left:
    raise DataError(
      f"{text}: has {len(captions):,} captions, not {CAPTIONS} for each image"
    )
  if rows.ndim == 2 and len(rows) == len(captions):
    # As for VSE++: a row for each caption.
    if not (rows[::CAPTIONS] == rows[CAPTIONS - 1 :: CAPTIONS]).all():
      raise DataError(
        f"{path}: has a row a caption, and {CAPTIONS} rows of one image differ"
      )
    return rows[::CAPTIONS]
  if rows.ndim != 2 or len(rows) != n:
    raise DataError(
      f"{path}: has shape {list(rows.shape)}; {text} has captions of {n:,}"
      " images"
    )
  return rows


def read_ids(
  folder: pathlib.Path, features: str = ""
) -> tuple[dict[str, Split], dict[str, int]]:
  """Reads captions by their ids, and a matrix of features by images' names.

  `coco_train_ids.npy` (and `restval`, `dev`, `test`) have the ids of captions,
  those of an image together; the captions are in `captions_train2014.json` and
  `captions_val2014.json`, in the folder or its `annotations`. Of each image the
  first five count, as in the authors' code.

  Args:
    folder: of the files.
    features: name of an .npy file [m, f], whose rows `feature_names.txt` names
      by the images' file names; "" is the only one but for the ids.

  Returns:
    {split: its images}, and {what: how many} was left out.

  Raises:
    DataError: a file is missing, damaged, or does not fit the others.
  """
  captions = _annotations(folder)
  files = {part: f"coco_{part}_ids.npy" for part in sum(_ID_PARTS.values(), ())}
  path = text_files.matrix(folder, features, tuple(files.values()))
  rows = text_files.NamedRows(path)
  splits, more = {}, 0
  for split, parts in _ID_PARTS.items():
    images: dict[str, list[str]] = {}
    for part in parts:
      path = folder / files[part]
      ids = arrays.load_npy(path)
      if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{path}: is {ids.dtype} {list(ids.shape)}, no ids")
      values, counts = np.unique(ids, return_counts=True)
      if (counts > 1).any():
        twice = values[counts.argmax()]
        raise DataError(f"{path}: caption {twice} is there twice")
      for number in ids.tolist():
        if number not in captions:
          raise DataError(
            f"{path}: caption {number} is not in {' or '.join(ANNOTATIONS)}"
          )
        image, text = captions[number]
        images.setdefault(image, []).append(text)
    names, texts = list(images), []
    for image, own in images.items():
      if len(own) < CAPTIONS:
        raise DataError(
          f"{folder}, split {split}: image {image!r} has {len(own)} captions;"
          f" {CAPTIONS} are needed"
        )
      more += len(own) - CAPTIONS
      texts += own[:CAPTIONS]
    splits[split] = Split(names, rows.of(names), texts)
  return splits, {f"captions beyond {CAPTIONS} of an image are left out": more}


def _annotations(folder: pathlib.Path) -> dict[int, tuple[str, str]]:
  """{id of a caption: (file name of its image, text)}."""
  found = {}
  for name in ANNOTATIONS:
    there = [
      p for p in (folder / name, folder / "annotations" / name) if p.is_file()
    ]
    if not there:
      raise DataError(
        f"{folder}: has no {name}, nor annotations/{name}; it is in"
        " annotations_trainval2014.zip of cocodataset.org"
      )
    path = there[0]
    if path.stat().st_size > _MAX_JSON:
      raise DataError(f"{path}: is larger than the {_MAX_JSON:,} bytes allowed")
    try:
      held: Any = json.loads(path.read_bytes())
      files = {image["id"]: str(image["file_name"]) for image in held["images"]}
      for a in held["annotations"]:
        if not isinstance(a["caption"], str):
          raise TypeError(f"caption {a['id']} is no text")
        found[int(a["id"])] = files[a["image_id"]], a["caption"].strip()
    except (
      ValueError,
      LookupError,
      TypeError,
      OverflowError,
      RecursionError,
    ) as error:
      raise DataError(
        f"{path}: holds no captions of COCO: {type(error).__name__}:"
        f" {one_line(error)}"
      ) from error
  return found
