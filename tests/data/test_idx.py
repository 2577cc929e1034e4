import functools
import gzip
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from lnrnn.data.idx import idx_bytes, read_idx
from lnrnn.errors import DataError

# By hand: two zeros, type 8, two dimensions of 2 and 3, six bytes.
HAND = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes([1, 2, 3, 4, 5, 255])


class Trap:
  """Pickles into a call that would end the test."""

  def __reduce__(self):
    return pytest.exit, ("a pickle was loaded",)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_reads_the_hand_made_file(tmp_path, pack):
  path = tmp_path / "file"
  path.write_bytes(pack(HAND))
  array = read_idx(path)
  assert array.dtype == np.uint8
  np.testing.assert_array_equal(array, [[1, 2, 3], [4, 5, 255]])


@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 28, 28), (2, 3, 1, 2)])
def test_what_is_written_is_read_back(tmp_path, shape):
  array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  (tmp_path / "file").write_bytes(idx_bytes(array))
  np.testing.assert_array_equal(read_idx(str(tmp_path / "file")), array)


def test_idx_bytes_makes_the_hand_made_file():
  assert idx_bytes(np.array([[1, 2, 3], [4, 5, 255]], np.uint8)) == HAND


def flipped(data: bytes, position: int) -> bytes:
  return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


# Without the time, which would be in the names of tests.
gz = functools.partial(gzip.compress, mtime=0)
PACKED = gz(HAND)


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b"", "only 0 bytes"),
    (gz(b""), "only 0 bytes"),
    (HAND[:3], "only 3 bytes"),
    (HAND[:9], "ends within its header"),
    (HAND[:-1], "6 bytes; a file of this size can hold 5"),
    (HAND + b"\0", "but more follow"),
    (gz(HAND[:-1]), "6 bytes, but 5 follow"),
    (gz(HAND + b"\0"), "but more follow"),
    (bytes([0, 0, 9]) + HAND[3:], "starts with 0x00000902"),
    (bytes([1]) + HAND[1:], "starts with 0x01000802"),
    (bytes([0, 0, 8, 0]), "starts with 0x00000800"),
    (bytes([0, 0, 8, 200]) + bytes(800), "starts with 0x000008c8"),
    (b"<!DOCTYPE html>", "starts with 0x3c21444f"),
    (pickle.dumps(Trap()), "starts with 0x80"),
    (b"\x93NUMPY" + bytes(100), "starts with 0x934e554d"),
    (PACKED[:-10], "cannot be read"),
    (PACKED[:-3], "cannot be read"),
    (PACKED[:4], "cannot be read"),
    (flipped(PACKED, len(PACKED) - 7), "CRC"),
    (flipped(PACKED, len(PACKED) - 2), "length"),
    (b"\x1f\x8b" + b"garbage" * 9, "cannot be read"),
  ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, content, reason):
  path = tmp_path / "bad-ubyte"
  path.write_bytes(content)
  with pytest.raises(DataError, match=reason) as error:
    read_idx(path)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
  with pytest.raises(DataError, match="nothing: no such file"):
    read_idx(tmp_path / "nothing")
  with pytest.raises(DataError, match="cannot be read"):
    read_idx(tmp_path)


@pytest.mark.parametrize(
  "content",
  [
    # 10^13 elements claimed by the header of a file of 1 kB.
    struct.pack(">I3I", 0x803, 10**4, 10**4, 10**5) + bytes(1000),
    gz(struct.pack(">I3I", 0x803, 10**4, 10**4, 10**5)),
    # Within the ratio of gzip for its size, yet never there.
    gz(struct.pack(">I2I", 0x802, 784, 25) + bytes(500)),
    # 64 MiB of zeros in 64 kB, of which the header claims 784.
    gz(struct.pack(">I2I", 0x802, 28, 28) + bytes(1 << 26), 1),
  ],
  ids=["claim", "claim-gz", "hollow-gz", "bomb"],
)
def test_neither_a_claim_nor_a_bomb_takes_memory(tmp_path, content):
  path = tmp_path / "file"
  path.write_bytes(content)
  tracemalloc.start()
  try:
    with pytest.raises(DataError, match="the header claims"):
      read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 4 << 20
