"""Files of tensorflow-datasets in the format array_record, without TensorFlow.

Importing this module needs tensorflow-datasets and array_record.
"""

from collections.abc import Iterator, Sequence
import json
import pathlib
import struct

from array_record.python.array_record_data_source import ArrayRecordDataSource
import numpy as np
import tensorflow_datasets as tfds

from lnrnn.errors import DataError

# array_record keeps to the format of Riegeli: chunk after chunk, a header in
# front of each chunk and of each block of the file.
_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK_HEADER = struct.Struct("<QQQQQ")
_CHUNKS = b"srp"  # The signature, plain records and padding.


def splits(
  version: pathlib.Path, names: Sequence[str], needed: Sequence[str], how: str
) -> dict[str, list[int]]:
  """The number of examples in each file of each split.

  Args:
    version: the directory of one version.
    names: of the splits to look for.
    needed: of them, those that must be there.
    how: to get the data in this format, for the message.

  Returns:
    {name: [examples of each file]} of those of `names` that are there.

  Raises:
    DataError: the data is in another format, or a split is missing.
  """
  # Not by `tfds.builder_from_directory`: it imports any module that
  # features.json names, and believes any length.
  info = json.loads((version / "dataset_info.json").read_bytes())
  stored = info.get("fileFormat")
  if stored != tfds.core.FileFormat.ARRAY_RECORD.value:
    raise DataError(
      f"{version}: is in format {stored}; "
      f"only array_record can be read without TensorFlow: {how}"
    )
  held = {
    s["name"]: [int(n) for n in s["shardLengths"]] for s in info["splits"]
  }
  if missing := set(needed).difference(held):
    raise DataError(f"{version}: has no split {', '.join(sorted(missing))}")
  return {name: held[name] for name in names if name in held}


def records(
  version: pathlib.Path, split: str, shards: list[int], *, max_bytes: int
) -> Iterator[bytes]:
  """Reads the examples of one split, in the order of its files.

  Args:
    version: the directory of one version.
    split: its name.
    shards: examples of each file.
    max_bytes: the most that a file may have, packed and unpacked.

  Yields:
    The examples, as they are stored.

  Raises:
    DataError: files are missing, or claim what cannot be true.
  """
  # Five digits each: array_record would obey a name that ends in [0:999].
  numbers = f"{'[0-9]' * 5}-of-{'[0-9]' * 5}"
  paths = sorted(version.glob(f"*-{split}.array_record-{numbers}"))
  if len(paths) != len(shards):
    raise DataError(
      f"{version}: cannot be read: {len(paths)} files of split {split} are"
      f" there; dataset_info.json has {len(shards)}"
    )
  for path, length in zip(paths, shards, strict=True):
    _check_chunks(path, max_bytes)
    with ArrayRecordDataSource(str(path)) as source:
      if len(source) != length:
        raise DataError(
          f"{path}: holds {len(source):,} examples; dataset_info.json has"
          f" {length:,}"
        )
      yield from source.__getitems__(range(length))


def _check_chunks(path: pathlib.Path, max_bytes: int) -> None:
  """Adds up what the chunks of a file claim, before they are unpacked.

  Source: google/riegeli, doc/riegeli_records_file_format.md.
  """
  size = path.stat().st_size
  if size > max_bytes:
    raise DataError(f"{path}: has {size:,} bytes; {max_bytes:,} are allowed")
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
    if unpacked > max_bytes:
      raise DataError(
        f"{path}: cannot be read: claims {unpacked:,} bytes when unpacked;"
        f" {max_bytes:,} are allowed"
      )


def find_version(folder: pathlib.Path, name: str, how: str) -> pathlib.Path:
  """The directory with the highest version number among those that fit.

  Args:
    folder: it, or one that holds `<version>` or `<name>/<version>`.
    name: of the dataset, with its config if it has one.
    how: to get the data, for the message.

  Raises:
    DataError: there is none.
  """
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
  raise DataError(f"{name}: not found under {folder}; {how}")
