"""scripts/extract_features.py: from images and a network to a matrix."""

import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from lnrnn.data.text_files import NAMES_FILE, NamedRows

NETWORKS = """
import numpy as np

def corners(pictures):
  assert pictures.dtype == np.uint8 and pictures.shape[1:] == (8, 8, 3)
  return pictures[:, 0, 0].astype(float)

def wrong(pictures):
  return pictures.sum()

number = 3

def large(pictures):
  return np.full((len(pictures), 2), 1e6)

def lost(pictures):
  return np.full((len(pictures), 2), np.nan)
"""


@pytest.fixture
def folder(tmp_path):
  """Three pictures, a file that is none, and a module with networks."""
  images = tmp_path / "images"
  images.mkdir()
  rng = np.random.default_rng(0)
  for name, size in (
    ("b.png", (16, 20)),
    ("a.jpg", (30, 10)),
    ("c.PNG", (9, 9)),
  ):
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(images / name)
  (images / "notes.txt").write_text("none")
  (tmp_path / "nets.py").write_text(NETWORKS)
  return tmp_path


@pytest.fixture
def extract(repo, folder):
  def run(*arguments, network="nets:corners"):
    return subprocess.run(
      [
        sys.executable,
        repo / "scripts/extract_features.py",
        f"--images={folder / 'images'}",
        f"--network={network}",
        f"--out={folder / 'out'}",
        "--size=8",
        "--short_side=8",
        *arguments,
      ],
      capture_output=True,
      text=True,
      cwd=folder,
      env=os.environ | {"PYTHONPATH": str(repo)},
    )

  return run


def test_rows_are_means_over_ten_crops_and_named(extract, folder):
  done = extract("--batch_size=2")
  assert done.returncode == 0, done.stderr
  matrix = np.load(folder / "out" / "features.npy")
  names = (folder / "out" / NAMES_FILE).read_text().split()
  assert names == ["a.jpg", "b.png", "c.PNG"] and matrix.shape == (3, 3)
  with Image.open(folder / "images" / "b.png") as picture:
    # 16 x 20 becomes 8 x 10: crops at rows 0, 1 and 2, and mirrored.
    scaled = np.asarray(picture.resize((8, 10), Image.Resampling.BICUBIC))
  rows = scaled[[0, 0, 2, 2, 1]].astype(float)  # Twice, as there is one column.
  expected = np.concatenate([rows[:, 0], rows[:, -1]]).mean(axis=0)
  np.testing.assert_allclose(matrix[1], expected, rtol=1e-6)
  rows = NamedRows(folder / "out" / "features.npy")
  np.testing.assert_array_equal(rows.of(["b.png"]), matrix[1:2])


def test_one_crop_is_the_centre(extract, folder):
  assert extract("--crops=1", "--dtype=float16").returncode == 0
  matrix = np.load(folder / "out" / "features.npy")
  assert matrix.dtype == np.float16
  with Image.open(folder / "images" / "c.PNG") as picture:
    scaled = np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC))
  np.testing.assert_array_equal(matrix[2], scaled[0, 0])


def test_a_mistake_is_one_line_and_writes_nothing(extract, folder):
  for network, told in (
    ("nets", "must read module:function"),
    ("nets:nix", "has no attribute 'nix'"),
    ("nix:nix", "No module named 'nix'"),
    ("nets:wrong", "returns [] for 30 pictures; a row for each"),
    ("nets:lost", "the features of a.jpg are not finite"),
    ("nets:number", "is no function"),
  ):
    done = extract(network=network)
    assert done.returncode == 2 and told in done.stderr
    assert done.stderr.count("\n") == 1
  done = extract("--dtype=float16", network="nets:large")
  assert done.returncode == 2 and "are not finite" in done.stderr
  (folder / "images" / "b.png").rename(folder / "images" / " b.png")
  done = extract()
  assert done.returncode == 2 and "' b.png' cannot be listed" in done.stderr
  (folder / "images" / " b.png").rename(folder / "images" / "b.png")
  (folder / "images" / "b.png").write_bytes(b"no picture")
  done = extract("--name=x.npy")
  assert done.returncode == 2 and "b.png: cannot be read" in done.stderr
  done = extract("--size=9")
  assert done.returncode == 2 and "--size=9: must be at most" in done.stderr
  assert not (folder / "out").exists()
