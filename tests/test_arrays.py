"""What NumPy saves is read back; tests/data/test_hostile.py has the rest."""

import io

import numpy as np
import pytest

from lnrnn.arrays import load_npy, load_npz, npz_names
from lnrnn.errors import DataError

MATRIX = np.arange(12.0).reshape(3, 4)


def assert_same(got, expected):
  np.testing.assert_array_equal(got, expected)
  assert got.dtype == expected.dtype.newbyteorder("=")
  assert got.flags.f_contiguous == expected.flags.f_contiguous


@pytest.mark.parametrize(
  "array",
  [
    MATRIX,
    np.asfortranarray(MATRIX),
    MATRIX[:, :0],
    np.array(3, np.int8),
    np.array([True, False]),
    np.float16([1, np.nan]),
    np.complex64([1j]),
    np.arange(5, dtype=">u4"),
    np.asfortranarray(MATRIX.astype(">f8")),
  ],
)
def test_what_is_saved_is_read_back(tmp_path, array):
  np.save(tmp_path / "a.npy", array)
  assert_same(load_npy(tmp_path / "a.npy"), array)
  np.testing.assert_array_equal(
    load_npy(str(tmp_path / "a.npy"), mmap=True), array
  )
  for save in (np.savez, np.savez_compressed):
    save(tmp_path / "a.npz", x=array, y=MATRIX)
    found = load_npz(tmp_path / "a.npz")
    assert_same(found["x"], array)
    assert_same(found["y"], MATRIX)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(tmp_path, version):
  file = io.BytesIO()
  np.lib.format.write_array(file, MATRIX, version=version)
  (tmp_path / "a.npy").write_bytes(file.getvalue())
  assert_same(load_npy(tmp_path / "a.npy"), MATRIX)


def test_the_header_of_python_2_is_read(tmp_path):
  text = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2L,), }"
  head = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text
  (tmp_path / "a.npy").write_bytes(head + np.int32([5, 6]).tobytes())
  np.testing.assert_array_equal(load_npy(tmp_path / "a.npy"), [5, 6])


def test_a_mapped_array_stays_on_the_disk(tmp_path):
  np.save(tmp_path / "a.npy", MATRIX)
  mapped = load_npy(tmp_path / "a.npy", mmap=True, max_bytes=0)
  assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
  assert load_npy(tmp_path / "a.npy").flags.writeable


def test_of_an_archive_what_is_asked_for_is_read(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, x=MATRIX, words=np.array(["a"]), y=np.ones(2), z=np.ones(3))
  assert npz_names(path) == ["x", "words", "y", "z"]
  assert list(load_npz(path, ["z", "x"])) == ["z", "x"]
  with pytest.raises(DataError, match="has no array w, v; it has: words, x, y"):
    load_npz(path, ["w", "x", "v"])
  with pytest.raises(DataError, match="words cannot be read: booleans and num"):
    load_npz(path)


def test_more_than_is_allowed_is_not_read(tmp_path):
  np.save(tmp_path / "a.npy", MATRIX)
  load_npy(tmp_path / "a.npy", max_bytes=96)
  with pytest.raises(DataError, match=r"\[3, 4\] .* 96 bytes; 95 are allowed"):
    load_npy(tmp_path / "a.npy", max_bytes=95)
  np.savez(tmp_path / "a.npz", x=MATRIX, y=MATRIX)
  load_npz(tmp_path / "a.npz", ["x"], max_bytes=100)
  with pytest.raises(DataError, match="y cannot .* 96 bytes; 4 are allowed"):
    load_npz(tmp_path / "a.npz", max_bytes=100)
