"""Writes the files of a small CIFAR-10, in its binary version."""

import io
import tarfile

import numpy as np

RECORD = 3_073
BIN = "cifar-10-batches-bin"


def records(n, seed=0):
  """n records of random pictures; the labels go round."""
  rows = np.random.default_rng(seed).integers(0, 256, (n, RECORD), np.uint8)
  rows[:, 0] = np.arange(n) % 10
  return rows


def parts(**changes):
  """{name: content} of a small binary version; None takes a file away."""
  found = {
    "data_batch_1.bin": records(80, 1).tobytes(),
    "data_batch_2.bin": records(60, 2).tobytes(),
    "data_batch_10.bin": records(60, 10).tobytes(),
    "test_batch.bin": records(30, 3).tobytes(),
    "batches.meta.txt": b"airplane\n",
  }
  found |= {f"{name}.bin": content for name, content in changes.items()}
  return {name: content for name, content in found.items() if content}


def write_tree(folder, files=None):
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in (files or parts()).items():
    (folder / name).write_bytes(content)
  return folder


def write_tar(path, files=None, within=f"{BIN}/"):
  """Packs the files by what the name of the archive asks for."""
  modes = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".tar": "w"}
  mode = modes[path.suffix]
  fast = {"preset": 0} if mode == "w:xz" else {}
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode, **fast) as archive:  # type: ignore
    for name, content in reversed((files or parts()).items()):
      info = tarfile.TarInfo(within + name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return path.parent
