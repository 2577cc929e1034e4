r"""Makes the features of a folder of images, by a network that you have.

  python scripts/extract_features.py --images=DIR --network=vgg:features \
      --out=DATA/flickr8k

writes `features.npy` [m, f] and `feature_names.txt`, the file name of each row,
where the captions are. `vgg:features` is a function in `vgg.py`, here or on
PYTHONPATH: it takes uint8 RGB pictures [n, 224, 224, 3] and returns [n, f]
numbers. docs/guide.md has one for VGG-19.

As the authors did, an image is scaled to a short side of 256, ten crops are
taken of it (corners and centre, and those mirrored), and the features are
averaged over them. `--crops=1` takes the centre alone. Features become unit
vectors when they are read, not here.

Exit codes: 0 done, 1 wrong flags, 2 an image, the network or the folder is no
good, 130 and 143 stopped by Ctrl-C and SIGTERM, nothing being written then.
"""

from collections.abc import Callable, Sequence
import importlib
import os
import pathlib
import sys
from typing import Any

from absl import app, flags
import numpy as np

from lnrnn import files
from lnrnn.data.text_files import NAMES_FILE
from lnrnn.errors import ConfigError, DataError, UserError, one_line
from lnrnn.training import signals

_IMAGES = flags.DEFINE_string("images", None, "folder", required=True)
_NETWORK = flags.DEFINE_string(
  "network", None, "module:function", required=True
)
_OUT = flags.DEFINE_string("out", None, "folder", required=True)
_NAME = flags.DEFINE_string("name", "features.npy", "of the matrix")
_CROPS = flags.DEFINE_enum("crops", "10", ["1", "10"], "of an image")
_SIZE = flags.DEFINE_integer("size", 224, "of a crop, pixels", lower_bound=1)
_SIDE = flags.DEFINE_integer(
  "short_side", 256, "of a scaled image, pixels", lower_bound=1
)
_BATCH = flags.DEFINE_integer(
  "batch_size", 16, "images given to the network at once", lower_bound=1
)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float16", "float32"], "stored")

Network = Callable[[np.ndarray], Any]
_ENDINGS = (".jpg", ".jpeg", ".png")
_FORMATS = ("JPEG", "PNG")  # To open some others, Pillow starts programs.


def crops(picture: np.ndarray, size: int, count: int) -> np.ndarray:
  """Cuts squares out of a picture.

  Args:
    picture: [height, width, 3], both at least `size`.
    size: side of a square.
    count: 1, the centre; or 10, the corners and the centre, and then the same
      mirrored.

  Returns:
    [count, size, size, 3].
  """
  top, left = (n - size for n in picture.shape[:2])
  places = [(top // 2, left // 2)]
  if count == 10:
    places = [(0, 0), (0, left), (top, 0), (top, left), *places]
  found = [picture[y : y + size, x : x + size] for y, x in places]
  if count == 10:
    found += [square[:, ::-1] for square in found]
  return np.stack(found)


def read(path: pathlib.Path, side: int) -> np.ndarray:
  """A picture as RGB, scaled to a short side: uint8 [height, width, 3].

  Raises:
    DataError: the file is no picture.
  """
  from PIL import Image

  try:
    with Image.open(path, formats=_FORMATS) as picture:
      rgb = picture.convert("RGB")
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
  scale = side / min(rgb.size)
  width, height = (max(side, round(scale * n)) for n in rgb.size)
  return np.asarray(rgb.resize((width, height), Image.Resampling.BICUBIC))


def load_network(spec: str) -> Network:
  """The function that `module:function` names.

  Raises:
    ConfigError: there is none.
  """
  module, colon, name = spec.partition(":")
  if not (module and colon and name):
    raise ConfigError(f"--network={spec!r}: must read module:function")
  sys.path.insert(0, os.getcwd())
  try:
    network = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise ConfigError(f"--network={spec!r}: {one_line(error)}") from error
  if not callable(network):
    raise ConfigError(f"--network={spec!r}: is no function")
  return network


def extract(paths: Sequence[pathlib.Path], network: Network) -> np.ndarray:
  """The features of images, [m, f].

  Raises:
    DataError: an image cannot be read, or the network returns something else
      than a row of finite numbers for each picture.
  """
  count, rows = int(_CROPS.value), []
  for first in range(0, len(paths), _BATCH.value):
    signals.check()
    own = paths[first : first + _BATCH.value]
    pictures = np.concatenate(
      [crops(read(p, _SIDE.value), _SIZE.value, count) for p in own]
    )
    found = np.asarray(network(pictures), np.float32)
    if found.ndim != 2 or len(found) != len(pictures) or not found.size:
      raise DataError(
        f"--network={_NETWORK.value}: returns {list(found.shape)} for"
        f" {len(pictures)} pictures; a row for each is needed"
      )
    if rows and found.shape[1] != rows[0].shape[1]:
      raise DataError(f"--network={_NETWORK.value}: rows of several widths")
    with np.errstate(over="ignore"):  # Of float16; told below.
      means = found.reshape(len(own), count, -1).mean(axis=1)
      means = means.astype(_DTYPE.value)
    if not (finite := np.isfinite(means).all(axis=1)).all():
      raise DataError(
        f"--network={_NETWORK.value}: the features of"
        f" {own[int(finite.argmin())].name} are not finite"
      )
    rows.append(means)
    print(
      f"\r{first + len(own):,} of {len(paths):,} images", end="", flush=True
    )
  print()
  return np.concatenate(rows)


def _run() -> None:
  if _SIZE.value > _SIDE.value:
    raise ConfigError(
      f"--size={_SIZE.value}: must be at most --short_side={_SIDE.value}"
    )
  folder, out = pathlib.Path(_IMAGES.value), pathlib.Path(_OUT.value)
  if not folder.is_dir():
    raise ConfigError(f"--images={folder}: is no folder")
  if pathlib.Path(_NAME.value).name != _NAME.value or not (
    _NAME.value.endswith(".npy")
  ):
    raise ConfigError(f"--name={_NAME.value!r}: must be a file name, as x.npy")
  paths = sorted(
    p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS and p.is_file()
  )
  if not paths:
    raise DataError(f"{folder}: has no {', '.join(_ENDINGS)}")
  for path in paths:  # They become lines of UTF-8.
    if not path.name.isprintable() or path.name != path.name.strip():
      raise DataError(f"{folder}: file name {path.name!r} cannot be listed")
  network = load_network(_NETWORK.value)
  made = not out.exists()
  out.mkdir(parents=True, exist_ok=True)  # What fails shall fail at once.
  try:
    features = extract(paths, network)
  except BaseException:
    if made:
      out.rmdir()
    raise
  with files.atomic(out / _NAME.value) as part:
    np.save(part, features)
  with files.atomic(out / NAMES_FILE) as part:
    part.write_text("".join(f"{p.name}\n" for p in paths), encoding="utf-8")
  print(f"{out / _NAME.value}: {list(features.shape)} {features.dtype}")


def main(argv: Sequence[str]) -> int:
  """Extracts; returns the exit code."""
  if argv[1:]:
    print(f"extract_features: unexpected {argv[1]!r}", file=sys.stderr)
    return 1
  try:
    with signals.handled():
      _run()
  except signals.Interrupted as error:
    signals.tell(f"extract_features: {error}")
    return error.exit_code
  except (UserError, OSError) as error:
    print(f"extract_features: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  app.run(main)
