"""Files made to harm: each is refused in one line, and nothing comes of it.

What test_idx.py, test_fetch.py and test_mnist.py have is not repeated.
"""

import bz2
import gzip
import hashlib
import importlib.resources
import io
import json
import lzma
import pathlib
import pickle
import re
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib

import numpy as np
import pytest

from lnrnn import interop
from lnrnn.arrays import load_npy, load_npz, npz_names
from lnrnn.data import mnist
from lnrnn.data.fetch import extract, fetch
from lnrnn.data.idx import read_idx
from lnrnn.errors import DataError

MIB = 1 << 20
CLAIM = 10**13
# What a reader may take beside the numbers that it returns.
ROOM = 128 * MIB


def refused(read, *arguments, **options) -> str:
  """The line that a reader refuses with."""
  with pytest.raises(DataError) as caught:
    read(*arguments, **options)
  line = str(caught.value)
  assert line.isprintable() and len(line) < 1000, line
  return line


def npy(shape="(2,)", descr="'<f8'", content=bytes(16)) -> bytes:
  """An .npy file whose header says whatever it should."""
  text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
  head = text.encode()
  return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + content


def npz(content: bytes, *, name=b"x.npy", crc=None, **claims: int) -> bytes:
  """An archive of one member, of which its directory claims anything.

  Args:
    content: a deflate stream, or what to pack as one.
    name: of the member.
    crc: the check sum; of `content` by default.
    claims: packed and size, the sizes; method and flags.
  """
  if crc is None:
    crc, claims["size"] = zlib.crc32(content), len(content)
    packer = zlib.compressobj(wbits=-15)
    content = packer.compress(content) + packer.flush()
  packed = claims.get("packed", len(content))
  sizes = struct.pack("<3I", crc, packed, claims["size"])
  how = struct.pack("<2H", claims.get("flags", 0), claims.get("method", 8))
  how += struct.pack("<2H", 0, 33) + sizes + struct.pack("<H", len(name))
  local = b"PK\3\4" + struct.pack("<H", 20) + how + bytes(2) + name + content
  central = b"PK\1\2" + struct.pack("<2H", 20, 20) + how + bytes(16) + name
  end = struct.pack("<4H2IH", 0, 0, 1, 1, len(central), len(local), 0)
  return local + central + b"PK\5\6" + end


def zeros(before: bytes, blocks: int, *, wbits: int) -> bytes:
  """Packs `before` and so many blocks of 16 MiB of zeros, one block's work."""
  packer = zlib.compressobj(9, wbits=wbits)
  # A full flush forgets what was before, so every block packs as the first.
  start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
  block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
  return start + block * blocks + packer.flush()


def tar(*members: tarfile.TarInfo | tuple[str, bytes], end=True) -> bytes:
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as archive:
    for member in members:
      if isinstance(member, tarfile.TarInfo):
        archive.addfile(member)
      else:
        info = tarfile.TarInfo(member[0])
        info.size = len(member[1])
        archive.addfile(info, io.BytesIO(member[1]))
    length = archive.offset
  return file.getvalue() if end else file.getvalue()[:length]


def tar_header(kind: bytes, size: int, name="x") -> bytes:
  """The header of a member that need not follow."""
  info = tarfile.TarInfo(name)
  info.type, info.size = kind, size
  return info.tobuf(tarfile.GNU_FORMAT)


# --- Nothing is executed ---


class Plant:
  """Whoever unpickles it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


@pytest.fixture
def plant(tmp_path):
  """Fails the test if the plant came up."""
  folder = tmp_path / "came-up"
  folder.mkdir()
  found = Plant(folder / "file")
  yield found
  assert not list(folder.iterdir())


def test_the_plant_would_come_up(tmp_path):
  call, arguments = Plant(tmp_path / "file").__reduce__()
  assert b"touch" in pickle.dumps(Plant(tmp_path / "file"))
  call(*arguments)
  assert (tmp_path / "file").exists()


def test_no_reader_loads_a_pickle(tmp_path, plant):
  bare = pickle.dumps(plant)
  objects = io.BytesIO()
  np.save(objects, np.array([plant]), allow_pickle=True)
  lying = npy("(1,)", "'<f8'", bare)  # Numbers by its header.
  path = tmp_path / "file"
  for content in (bare, objects.getvalue(), lying, npz(bare)):
    path.write_bytes(content)
    for read in (load_npy, load_npz, read_idx):
      assert str(path) in refused(read, path) or read is load_npz
    assert str(path) in refused(interop.from_authors_npz, path, "x")
    refused(extract, path, tmp_path / "out")
    path.write_bytes(gzip.compress(content))
    refused(read_idx, path)
  path.write_bytes(npz(objects.getvalue()))
  assert "x cannot be read: it holds Python obj" in refused(load_npz, path)
  assert "pickle" in refused(interop.from_authors_npz, "w.pkl", "x")


def test_a_member_that_is_no_array_is_not_offered(tmp_path, plant):
  path = tmp_path / "w.npz"
  np.savez(path, p_W=np.ones(2))
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("p_U", pickle.dumps(plant))
    archive.writestr("two\nlines.npy", npy())
  assert npz_names(path) == ["p_W"]
  assert "no p_U" in refused(interop.from_authors_npz, path, "p", kind="lstm")


@pytest.mark.parametrize(
  "descr",
  ["'|O'", "[('a', '|O')]", "[('a', '<f8')]", "'|V8'", "'<M8[s]'", "'<U2'"]
  + ["'<f3'", "'(9999,9999)f8'", "'<f8', 'x': __import__('os')", "9"],
)
def test_only_numbers_are_read(tmp_path, descr):
  path = tmp_path / "a.npy"
  path.write_bytes(npy(descr=descr))
  if "import" in descr:  # It is text to us.
    np.testing.assert_array_equal(load_npy(path), [0, 0])
    return
  assert re.search("Python objects|numbers are read", refused(load_npy, path))


# --- Memory is bounded ---

# Reads each file, with no more than ROOM to take, and tells what came of it.
READ = """
import json, pathlib, resource, sys
from lnrnn import interop
from lnrnn.arrays import load_npy, load_npz
from lnrnn.data import mnist
from lnrnn.data.fetch import extract
from lnrnn.data.idx import read_idx
from lnrnn.errors import DataError

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

readers = {
  "npy": load_npy,
  "map": lambda path: load_npy(path, mmap=True),
  "npz": load_npz,
  "authors": lambda path: interop.from_authors_npz(path, "p"),
  "idx": read_idx,
  "tar": lambda path: extract(path, path.with_suffix(".out")),
}
room, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + room
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
answers, before = {}, peak()
for path in sorted(folder.iterdir()):
  try:
    readers[path.name.partition("-")[0]](path)
  except DataError as error:
    answers[path.name] = str(error)
print(json.dumps([answers, peak() - before]))
"""


def xz_of_4_gib() -> bytes:
  """An archive that asks the one who unpacks it for a window of 4 GiB."""
  data = bytearray(lzma.compress(tar(("file", b"x"))))
  size = (data[12] + 1) * 4  # Of the block's header, its check sum last.
  data[12 + 4] = 40
  check = zlib.crc32(data[12 : 12 + size - 4])
  data[12 + size - 4 : 12 + size] = struct.pack("<I", check)
  return bytes(data)


def sparse() -> bytes:
  """A file with holes, whose map of them goes on and on."""
  head = bytearray(tar_header(tarfile.GNUTYPE_SPARSE, 0))
  head[386 + 96] = 1
  head[148:156] = b" " * 8
  head[148:156] = b"%06o\0 " % sum(head)
  block = (b"00000000001\0" * 42).ljust(504, b"\0") + b"\1" + bytes(7)
  return gzip.compress(head) + gzip.compress(block * 1000) * 2000


def true_bomb() -> bytes:
  """4 GiB of zeros, and all that is claimed of them is true."""
  start = npy(f"({(MOST - 96) // 8},)", content=b"")
  size = len(start) + (MOST - 96) // 8 * 8
  return npz(zeros(start, 256, wbits=-15), crc=0, size=size)


def authors() -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for key in ("W", "U", "b", "s1", "b1", "s2", "b2", "s3", "b3"):
      archive.writestr(f"p_{key}.npy", HUGE)
  return file.getvalue()


CLAIMED = f"the header claims [{CLAIM}] of float64 = {8 * CLAIM:,} bytes"
HUGE = npy(f"({CLAIM},)")
LONG = b"\x93NUMPY\2\0\xf0\xff\xff\xff"  # A header of 4 GiB follows.
MOST = (1 << 32) - 2  # What an archive without extensions can tell.
IDX = struct.pack(">I3I", 0x803, 10_000, 28, 28)
# Small files that ask for much memory, and what is said of them. The name
# begins with the reader.
BOMBS = {
  "npy-claim": (lambda: HUGE, f"{CLAIMED}, but 16 follow"),
  "map-claim": (lambda: HUGE, f"{CLAIMED}, but 16 follow"),
  "npz-claim": (lambda: npz(HUGE), f"x cannot be read: {CLAIMED}, but 16"),
  "authors-claim": (authors, f"p_W cannot be read: {CLAIMED}, but 16"),
  "npy-header": (lambda: LONG, "4,294,967,280 bytes; 10,000 are allowed"),
  "npz-header": (
    lambda: npz(zeros(LONG, 255, wbits=-15), crc=0, size=255 * 16 * MIB),
    "its header has 4,294,967,280 bytes; 10,000 are allowed",
  ),
  "npz-true": (true_bomb, "4,294,967,192 bytes; 2,147,483,648 are allowed"),
  # A bomb by its content only, not by what the archive's directory says.
  "npz-content": (
    lambda: npz(
      zeros(npy("(2,)", content=b""), 256, wbits=-15), crc=0, size=len(npy())
    ),
    "x cannot be read: Bad CRC-32",
  ),
  # A bomb by the directory only, which may lie about both sizes.
  "npz-size": (
    lambda: npz(HUGE, crc=0, size=MOST),
    f"the archive claims {MOST:,} bytes for it",
  ),
  "npz-sizes": (
    lambda: npz(HUGE, crc=0, size=MOST, packed=MOST),
    f"the archive claims {MOST:,} bytes for it",
  ),
  "idx-claim": (
    lambda: struct.pack(">I3I", 0x803, 10**4, 10**4, 10**5) + bytes(100),
    f"= {CLAIM:,} bytes; a file of this size can hold 100 at most",
  ),
  "idx-bomb": (
    lambda: zeros(IDX, 512, wbits=31),
    "= 7,840,000 bytes, but more follow",
  ),
  "idx-members": (
    lambda: gzip.compress(IDX) + gzip.compress(bytes(16 * MIB)) * 512,
    "= 7,840,000 bytes, but more follow",
  ),
  "idx-true": (
    lambda: zeros(struct.pack(">I2I", 0x802, MIB, 4096), 256, wbits=31),
    "= 4,294,967,296 bytes; any file may hold 1,073,741,824 at most",
  ),
  "tar-name": (
    lambda: zeros(tar_header(tarfile.GNUTYPE_LONGNAME, MOST), 256, wbits=31),
    "asks for 4,294,967,296 bytes; 1,048,064 are allowed",
  ),
  "tar-pax": (
    lambda: zeros(tar_header(tarfile.XHDTYPE, MOST), 256, wbits=31),
    "asks for 4,294,967,296 bytes; 1,048,064 are allowed",
  ),
  "tar-sparse": (sparse, "asks for 512 bytes; 0 are allowed"),
  "tar-tail": (
    lambda: zeros(tar(("file", b"x")), 256, wbits=31),
    "1,048,576 bytes and more follow its end",
  ),
  "tar-window": (xz_of_4_gib, "emory usage limit"),
}


@pytest.fixture(scope="module")
def answers(repo, tmp_path_factory):
  """What a process with little memory said of each file, and its growth."""
  if not sys.platform.startswith("linux"):
    pytest.skip("memory is limited and measured in the way of Linux")
  folder = tmp_path_factory.mktemp("bombs")
  for name, (make, _) in BOMBS.items():
    (folder / name).write_bytes(make())
    assert (folder / name).stat().st_size < 10 * MIB
  # A file with a hole takes no room on the disk.
  hollow = npy(f"({1 << 36},)", content=b"")
  with (folder / "npy-hollow").open("wb") as file:
    file.write(hollow)
    file.truncate(len(hollow) + (8 << 36))
  done = subprocess.run(
    [sys.executable, "-c", READ, str(ROOM), folder],
    capture_output=True,
    text=True,
    cwd=repo,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*BOMBS, "npy-hollow"])
def test_a_small_file_cannot_take_much_memory(answers, name):
  assert name in answers[0], "it was read"
  line = answers[0][name]
  said = BOMBS[name][1] if name in BOMBS else "bytes; 2,147,483,648 are allowed"
  assert f"{name}: " in line and said in line and line.isprintable()


def test_the_memory_taken_for_all_of_them_is_small(answers):
  assert answers[1] < 64 * MIB


# --- Damage ---


def saved(save, **arrays) -> bytes:
  file = io.BytesIO()
  save(file, **arrays)
  return file.getvalue()


ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "y": np.arange(3)}
WHOLE = {
  "npy": npy(content=b"0123456789abcdef"),
  "npz": saved(np.savez, **ARRAYS),
  "packed": saved(np.savez_compressed, **ARRAYS),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_an_array_cut_anywhere_is_refused(tmp_path, kind):
  path, read = tmp_path / "a", load_npy if kind == "npy" else load_npz
  path.write_bytes(WHOLE[kind])
  read(path)
  for length in range(len(WHOLE[kind]) - 1, -1, -3):
    path.write_bytes(WHOLE[kind][:length])
    assert str(path) in refused(read, path)


@pytest.mark.parametrize("kind", ["npz", "packed"])
def test_a_flipped_bit_is_refused_or_harmless(tmp_path, kind):
  path = tmp_path / "a"
  wrong = []
  for i in range(0, len(WHOLE[kind]), 3):
    content = bytearray(WHOLE[kind])
    content[i] ^= 1 << i % 8
    path.write_bytes(content)
    try:
      found = load_npz(path)
    except DataError as error:
      wrong.append(str(error))
      continue
    for name in found.keys() & ARRAYS.keys():
      np.testing.assert_array_equal(found[name], ARRAYS[name])
  assert all(line.isprintable() for line in wrong)
  assert any("Bad CRC-32" in line for line in wrong)


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"", "it starts with 0x;"),
    (b"PK\3\4" + bytes(40), "it starts with 0x504b0304"),
    (b"\x93NUMPY\x09\0" + bytes(40), "it starts with 0x934e554d505909"),
    (b"\x93NUMPY\1\0\x50\0{'descr'", "ends within its header"),
    (npy(content=bytes(15)), "16 bytes, but 15 follow"),
    (npy(content=bytes(17)), "16 bytes, but 17 follow"),
    (npy("(-2,)"), "numbers are read"),
    (npy("(" + "9" * 5000 + ",)"), "numbers are read"),
    (npy(f"(0, {CLAIM**2})", content=b""), "numbers are read"),
    (npy(f"(0, {10**19 - 1})", content=b""), "cannot be read"),
    (npy("(" + "1," * 99 + ")", content=bytes(8)), "cannot be read"),
    (npy("(" * 9000), "numbers are read"),
    (npy("(2,)", "'\n\x1b[2J'"), "of something else"),
  ],
)
def test_an_array_with_a_wrong_header_is_refused(tmp_path, content, said):
  path = tmp_path / "a.npy"
  path.write_bytes(content)
  for mmap in (False, True):
    assert said in refused(load_npy, path, mmap=mmap)


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"", "is no .npz file, or is cut short"),
    (npy(), "is a single array; expected an .npz file"),
    (npz(npy(), name=b"y.npy"), "has no array x; it has: y"),
    (npz(npy())[:-30], "is no .npz file, or is cut short"),
    (npz(npy(), flags=1), "x cannot be read: .* encrypted"),
    (npz(npy(), method=14), "packed by method 14; NumPy packs by 0 or 8"),
    (npz(npy(), method=99), "packed by method 99"),
    (npz(b"noise" * 9, crc=0, size=45), "x cannot be read: Error -3"),
    (npz(npy(content=bytes(8))), "16 bytes, but 8 follow"),
  ],
)
def test_a_wrong_archive_is_refused(tmp_path, content, said):
  path = tmp_path / "a.npz"
  path.write_bytes(content)
  assert re.search(said, refused(load_npz, path, ["x"]))


def test_files_that_are_none_are_named(tmp_path):
  for read in (load_npy, load_npz, npz_names):
    assert "none: no such file" in refused(read, tmp_path / "none")
    assert "cannot be read: [Errno 21]" in refused(read, tmp_path)


# --- Archives ---


def link(kind: bytes, name="link", target="file") -> tarfile.TarInfo:
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, target
  return info


@pytest.mark.parametrize(
  ("members", "said"),
  [
    ([("fine", b"x"), ("../escaped", b"x")], "escaped"),
    # Python before 3.11.13 can be led outside by links that seem to stay.
    ([("file", b"x"), link(tarfile.SYMTYPE)], "'link' is a link"),
    ([("file", b"x"), link(tarfile.LNKTYPE)], "'link' is a link"),
    ([link(tarfile.SYMTYPE, target="."), ("link/x", b"")], "'link' is a link"),
    ([link(tarfile.LNKTYPE, target="/etc/passwd")], "'link' is a link"),
    ([link(tarfile.FIFOTYPE)], "'link' is a link, a device"),
    ([link(tarfile.CHRTYPE)], "'link' is a link, a device"),
    ([link(tarfile.BLKTYPE)], "'link' is a link, a device"),
    ([link(b"Z")], "'link' is a link, a device"),
    ([("../\x1b[2J\nsecond\u202e line" + "x" * 5000, b"")], "unsafe archive"),
  ],
)
def test_an_archive_of_more_than_files_is_refused_whole(
  tmp_path, members, said
):
  path = tmp_path / "a.tar"
  path.write_bytes(tar(*members))
  line = refused(extract, path, tmp_path / "out")
  assert line.startswith(f"{path}: unsafe archive: ") and said in line
  assert list(tmp_path.iterdir()) == [path]


def test_an_absolute_name_stays_inside(tmp_path):
  (tmp_path / "a.tar").write_bytes(tar((f"/{tmp_path}/escaped", b"x")))
  extract(tmp_path / "a.tar", tmp_path / "out")
  assert not (tmp_path / "escaped").exists()
  assert (tmp_path / f"out/{tmp_path}/escaped").is_file()


@pytest.mark.parametrize("size", [CLAIM, -CLAIM, -512])
def test_a_member_of_an_impossible_size_is_refused(tmp_path, size):
  path = tmp_path / "a.tar"
  path.write_bytes(tar_header(tarfile.REGTYPE, size) + bytes(2048))
  line = refused(extract, path, tmp_path / "out")
  assert f"{size:,}" in line or "cannot be unpacked" in line
  assert list(tmp_path.iterdir()) == [path]


def test_an_archive_may_not_fill_the_disk(tmp_path):
  path = tmp_path / "a.tar"
  path.write_bytes(tar(("a", bytes(5000)), ("b", bytes(5000))))
  line = refused(extract, path, tmp_path / "out", max_bytes=10_000)
  assert "'b' has 5,000 bytes; 10,000 are allowed for the whole" in line
  assert list(tmp_path.iterdir()) == [path]
  extract(path, tmp_path / "out", max_bytes=12_000)


PAIR = tar(("first", b"1"), ("second", b"2"))


@pytest.mark.parametrize(
  "content",
  [
    tar(("first", b"1"), end=False),  # tarfile takes this for an end,
    PAIR[:1024] + b"\xff" + PAIR[1025:],  # and this for one after "first".
    PAIR[:1200],
    gzip.compress(PAIR)[:-6],
    gzip.compress(PAIR)[:-8] + bytes(8),
    bz2.compress(PAIR)[:-6],
    lzma.compress(PAIR)[:-6],
    lzma.compress(PAIR) + b"noise",
    tar_header(tarfile.XHDTYPE, 512) * 5000,  # One within the other.
  ],
)
def test_a_damaged_end_is_noticed(tmp_path, content):
  path = tmp_path / "a.tar"
  path.write_bytes(content)
  assert "a.tar: cannot be unpacked" in refused(extract, path, tmp_path / "out")
  assert list(tmp_path.iterdir()) == [path]


def test_streams_of_xz_in_a_row_are_one_archive(tmp_path):
  path = tmp_path / "a.tar"
  path.write_bytes(lzma.compress(PAIR[:700]) + lzma.compress(PAIR[700:]))
  extract(path, tmp_path / "out")
  assert (tmp_path / "out/second").read_bytes() == b"2"


def test_a_mirror_that_never_stops_is_given_up(tmp_path):
  path = tmp_path / "out" / "file"
  line = refused(fetch, ["file:///dev/zero"], path, "0" * 64, max_bytes=MIB)
  assert "zero: sends more than the 1,048,576 bytes allowed" in line
  assert not list(path.parent.iterdir())


class Mirror(socketserver.StreamRequestHandler):
  """Answers with the bytes that stand under the address asked for."""

  answers = {
    b"/said": b"HTTP/1.1 500 sorry\x1b[2J\x85second line\r\n\r\n",
    b"/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndig",
    b"/none": b"\x80\x04pickle\r\n\r\n",
    b"/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\ndig\r\n3\r\nits\r\n0\r\n\r\n",
    b"/plain": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndigits",
  }

  def handle(self):
    _, name, _ = self.rfile.readline().split()
    while self.rfile.readline().strip():
      pass
    self.wfile.write(self.answers[name])


def test_what_a_server_makes_up_is_told_in_one_line(tmp_path):
  sha256 = hashlib.sha256(b"digits").hexdigest()
  with socketserver.TCPServer(("127.0.0.1", 0), Mirror) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    bad = [f"{url}/said", f"{url}/cut", f"{url}/none"]
    try:
      line = refused(fetch, bad, tmp_path / "file", sha256)
      assert not list(tmp_path.iterdir())
      for name in ("plain", "chunks"):
        fetch([*bad, f"{url}/{name}"], tmp_path / name, sha256)
        assert (tmp_path / name).read_bytes() == b"digits"
    finally:
      server.shutdown()
      thread.join()
  assert r"/said: HTTP Error 500: sorry\x1b[2J\x85second line; " in line
  assert "/cut: has sha256" in line and r"\x80" in line


# --- MNIST ---


def test_embedded_digits_are_read_with_the_same_care(tmp_path, monkeypatch):
  bomb = zeros(IDX, 8, wbits=31)
  (tmp_path / "embedded").mkdir()
  name = "mnist-train-images-idx3-ubyte.gz"
  (tmp_path / "embedded" / name).write_bytes(bomb)
  monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
  assert f"{name}: the header claims" in refused(mnist.load)


@pytest.fixture
def records(tmp_path):
  """Writes a tensorflow-datasets folder with these records as its digits."""
  tfds_mnist = pytest.importorskip("lnrnn.data.tfds_mnist")
  from array_record.python import array_record_module
  from tensorflow_datasets.proto import tf_example_pb2

  def example(image: bytes) -> bytes:
    found = tf_example_pb2.Example()
    found.features.feature["image"].bytes_list.value.append(image)
    found.features.feature["label"].int64_list.value.append(3)
    return found.SerializeToString()

  def write(*images: bytes, raw=(), lengths=None):
    folder = tmp_path / "mnist"
    folder.mkdir()
    rows = [*map(example, images), *raw]
    for split in ("train", "test"):
      path = folder / f"mnist-{split}.array_record-00000-of-00001"
      writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
      for row in rows:
        writer.write(row)
      writer.close()
    lengths = [str(n) for n in lengths or [len(rows)]]
    splits = [
      {"name": n, "shardLengths": lengths, "filepathTemplate": "/etc/passwd"}
      for n in ("train", "test")
    ]
    info = {"name": "mnist", "version": "3.0.1", "fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(
      json.dumps(info | {"splits": splits})
    )
    return folder

  write.read = tfds_mnist.read
  return write


def picture(*shape: int, kind="PNG") -> bytes:
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(np.zeros(shape, np.uint8)).save(file, kind)
  return file.getvalue()


def test_a_dataset_names_no_code_to_import(records, tmp_path, monkeypatch):
  folder = records(picture(28, 28))
  (tmp_path / "planted.py").write_text("raise SystemExit('it was imported')")
  monkeypatch.syspath_prepend(tmp_path)
  (folder / "features.json").write_text('{"pythonClassName": "planted.X"}')
  info = json.loads((folder / "dataset_info.json").read_text())
  info |= {
    "features": {"pythonClassName": "planted.X"},
    "moduleName": "planted",
  }
  (folder / "dataset_info.json").write_text(json.dumps(info))
  images, labels = records.read(folder)["train"]
  assert images.shape == (1, 28, 28) and labels.tolist() == [3]


@pytest.mark.parametrize("lengths", [[CLAIM], [0], [-1], [1, CLAIM], ["x"]])
def test_a_dataset_is_as_long_as_its_files(records, lengths):
  folder = records(picture(28, 28), lengths=lengths)
  assert str(folder) in refused(records.read, folder)


@pytest.mark.parametrize(
  ("image", "said"),
  [
    # 10^8 pixels in 100 kB.
    (lambda: picture(9_000, 9_000), r"\(9000, 9000\) pixels"),
    (lambda: picture(28, 28, 3), "mode RGB"),
    # Pillow would start Ghostscript.
    (lambda: picture(28, 28, 3, kind="EPS"), "cannot identify"),
    (lambda: picture(28, 28, kind="GIF"), "cannot identify"),
  ],
  ids=["size", "colour", "eps", "gif"],
)
def test_only_pictures_of_digits_are_decoded(records, image, said):
  folder = records(picture(28, 28), image())
  assert re.search(said, refused(records.read, folder))


def test_records_that_would_unpack_to_much_are_not_unpacked(records):
  folder = records(raw=[bytes(128 * MIB)])
  size = (folder / "mnist-train.array_record-00000-of-00001").stat().st_size
  assert size < MIB
  line = refused(records.read, folder)
  assert "claims 134,217,728 bytes when unpacked; 67,108,864 are" in line
