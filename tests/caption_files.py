"""Writes a few images with captions as their owners lay them out."""

import json
import pathlib

import numpy as np

from lnrnn.data import coco, flickr8k
from lnrnn.data.text_files import NAMES_FILE

WIDTH = 6
SIZES = {"train": 8, "validation": 4, "test": 5}


def names(split):
  return [f"{split}_{i}.jpg" for i in range(SIZES[split])]


def captions(image):
  """Five of an image, all different, the last with a word of its own."""
  stem = image.removesuffix(".jpg").replace("_", " ")
  said = ["A dog runs .", "a cat", "two dogs and a cat sit", "red grass"]
  return [f"{text} {stem}" for text in said] + [f"only {stem}"]


def features(n):
  return np.random.default_rng(0).random((n, WIDTH)).astype(np.float16)


def named_features(folder, images, name="features.npy"):
  """A matrix whose rows are in another order than the images."""
  images = images[::-1]
  np.save(folder / name, features(len(images)))
  (folder / NAMES_FILE).write_text("".join(f"{i}\n" for i in images))


def write_flickr8k(folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir(parents=True, exist_ok=True)
  every = [image for split in SIZES for image in names(split)]
  lines = [
    f"{image}#{k}\t{text}\n"
    for image in [*every, "gone.jpg.1"]
    for k, text in enumerate(captions(image))
  ]
  (folder / flickr8k.CAPTION_FILE).write_text("".join(lines))
  for split, name in flickr8k.LISTS.items():
    (folder / name).write_text("\n".join(names(split)))
  named_features(folder, [*every, "spare.jpg"])
  return folder


def write_coco(folder: pathlib.Path, style: str = "authors") -> pathlib.Path:
  """In the authors' layout, or flat as for VSE++ with a row a caption."""
  for split, part in (
    ("train", "train"),
    ("validation", "dev"),
    ("test", "test"),
  ):
    texts = [t for image in names(split) for t in captions(image)]
    rows = features(SIZES[split])
    if style == "authors":
      text, matrix = (
        folder / "captions" / "raw" / f"{part}.txt",
        folder / "images" / "10crop" / f"{part}.npy",
      )
    else:
      part = "testall" if part == "test" else part
      text, matrix = folder / f"{part}_caps.txt", folder / f"{part}_ims.npy"
      rows = np.repeat(rows, 5, axis=0)
    for path in (text, matrix):
      path.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("".join(f"{t}\n" for t in texts))
    np.save(matrix, rows)
  return folder


def write_coco_ids(folder: pathlib.Path) -> pathlib.Path:
  """Captions by ids; the last two images of train are `restval`."""
  folder.mkdir(parents=True, exist_ok=True)
  every = [image for split in SIZES for image in names(split)]
  images = [{"id": 100 + i, "file_name": name} for i, name in enumerate(every)]
  ids, notes = {}, []
  for image in images:
    # A sixth caption, which does not count.
    for text in [*captions(image["file_name"]), "one more"]:
      number = 7 * len(notes) + 3
      notes.append({"id": number, "image_id": image["id"], "caption": text})
      ids.setdefault(image["file_name"], []).append(number)
  half = len(notes) // 2
  for name, own in zip(
    coco.ANNOTATIONS, (notes[:half], notes[half:]), strict=True
  ):
    (folder / name).write_text(
      json.dumps({"images": images, "annotations": own})
    )
  train = names("train")
  for part, own in (
    ("train", train[:-2]),
    ("restval", train[-2:]),
    ("dev", names("validation")),
    ("test", names("test")),
  ):
    found = np.array([number for image in own for number in ids[image]])
    np.save(folder / f"coco_{part}_ids.npy", found)
  named_features(folder, every)
  return folder
