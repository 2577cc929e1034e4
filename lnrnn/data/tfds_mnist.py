"""MNIST as a tensorflow-datasets directory, without TensorFlow.

Importing this module needs tensorflow-datasets, array_record and pillow.
"""

from collections.abc import Iterator
import contextlib
import io
import json
import pathlib
import struct
import tempfile
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lnrnn.data import mnist
from lnrnn.errors import DataError, one_line

_SIZE = (28, 28)
# Our choice: MNIST takes 21 MB. A file of some kB can claim any number.
_MAX_BYTES = 1 << 26
# array_record keeps to the format of Riegeli: chunk after chunk, a header in
# front of each chunk and of each block of the file.
_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK_HEADER = struct.Struct("<QQQQQ")
_CHUNKS = b"srp"  # The signature, plain records and padding.


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
  folder: pathlib.Path, name: str = "lnrnn_mnist", *, labelled: bool = True
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
  version = _find_version(folder, name)
  try:
    return {
      split: _decode(_records(version, split, shards), labelled)
      for split, shards in _splits(version).items()
    }
  except DataError:
    raise
  except Exception as error:  # the readers below raise many kinds
    raise DataError(
      f"{version}: cannot be read: {type(error).__name__}: {one_line(error)}"
    ) from error


def _splits(version: pathlib.Path) -> dict[str, list[int]]:
  """The number of examples in each file of each split."""
  # Not by `tfds.builder_from_directory`: it imports any module that
  # features.json names, and believes any length.
  info = json.loads((version / "dataset_info.json").read_bytes())
  stored = info.get("fileFormat")
  if stored != tfds.core.FileFormat.ARRAY_RECORD.value:
    raise DataError(
      f"{version}: is in format {stored}; "
      "only array_record can be read without TensorFlow: "
      "`python scripts/prepare_data.py mnist --out DIR` makes it"
    )
  held = {
    s["name"]: [int(n) for n in s["shardLengths"]] for s in info["splits"]
  }
  if missing := {"train", "test"}.difference(held):
    raise DataError(f"{version}: has no split {', '.join(sorted(missing))}")
  return {name: held[name] for name in mnist.SPLITS if name in held}


def _records(
  version: pathlib.Path, split: str, shards: list[int]
) -> Iterator[bytes]:
  """Reads the examples of one split, in the order of its files."""
  # Five digits each: array_record would obey a name that ends in [0:999].
  numbers = f"{'[0-9]' * 5}-of-{'[0-9]' * 5}"
  paths = sorted(version.glob(f"*-{split}.array_record-{numbers}"))
  if len(paths) != len(shards):
    raise DataError(
      f"{version}: cannot be read: {len(paths)} files of split {split} are"
      f" there; dataset_info.json has {len(shards)}"
    )
  for path, length in zip(paths, shards, strict=True):
    _check_chunks(path)
    with ArrayRecordDataSource(str(path)) as source:
      if len(source) != length:
        raise DataError(
          f"{path}: holds {len(source):,} examples; dataset_info.json has"
          f" {length:,}"
        )
      yield from source.__getitems__(range(length))


def _check_chunks(path: pathlib.Path) -> None:
  """Adds up what the chunks of a file claim, before they are unpacked.

  Source: google/riegeli, doc/riegeli_records_file_format.md.
  """
  size = path.stat().st_size
  if size > _MAX_BYTES:
    raise DataError(f"{path}: has {size:,} bytes; {_MAX_BYTES:,} are allowed")
  data = np.fromfile(path, np.uint8)
  blocks = range(0, len(data), _BLOCK)
  data = b"".join(
    data[at + _BLOCK_HEADER : at + _BLOCK].tobytes() for at in blocks
  )
  at = unpacked = 0
  while at + _CHUNK_HEADER.size <= len(data):
    _, packed, _, kind, room = _CHUNK_HEADER.unpack_from(data, at)
    at += _CHUNK_HEADER.size + packed
    kind, records = kind & 0xFF, kind >> 8
    unpacked += room
    # A chunk is padded to a byte a record, which no picture fits into.
    if kind not in _CHUNKS or records > _CHUNK_HEADER.size + packed:
      raise DataError(
        f"{path}: cannot be read: a chunk of kind 0x{kind:02x} packs"
        f" {records:,} records into {packed:,} bytes"
      )
    if unpacked > _MAX_BYTES:
      raise DataError(
        f"{path}: cannot be read: claims {unpacked:,} bytes when unpacked;"
        f" {_MAX_BYTES:,} are allowed"
      )


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


def _find_version(folder: pathlib.Path, name: str) -> pathlib.Path:
  """The directory with the highest version number among those that fit."""
  if (folder / "dataset_info.json").is_file():
    return folder
  for pattern in (f"{name}/*.*.*", "*.*.*"):
    versions = {
      tuple(int(part) for part in path.parent.name.split(".")): path.parent
      for path in folder.glob(f"{pattern}/dataset_info.json")
      if path.parent.name.replace(".", "").isdecimal()
    }
    if versions:
      return versions[max(versions)]
  how = "tensorflow-datasets makes it, with file_format=array_record"
  if name == "lnrnn_mnist":
    how = "`python scripts/prepare_data.py mnist --out DIR` makes it"
  raise DataError(f"{name}: not found under {folder}; {how}")
