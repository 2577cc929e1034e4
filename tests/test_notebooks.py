"""The notebooks run from top to bottom, at smoke scale, in a kernel of ours."""

import base64
import functools
import io
import json
import os
import pathlib
from typing import Any, NamedTuple

import ipykernel.kernelspec
import nbclient
import nbformat
import numpy as np
from PIL import Image
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# What is asked of each notebook's variables when all its cells have run.
PROBES = {
  "layer_norm": """{
    "difference": float(difference),
    "invariance": invariance,
    "status": [s.kind for s in status.values()],
    "rows": drawn.rows,
    "nats": nats.tolist(),
    "points": [len(line) for line in lines],
    "finite": bool(np.isfinite(written.ink).all()),
    "window": [window.shape, float(window.min()), float(window.sum())],
    "characters": len(texts[0]),
    "written": sorted(str(path.relative_to(OUT)) for path in OUT.glob("*")),
    "out": str(OUT),
  }""",
}


class Executed(NamedTuple):
  """A notebook that has run.

  Attributes:
    notebook: with its outputs.
    probed: the value of its probe.
    folder: of all temporary files.
  """

  notebook: nbformat.NotebookNode
  probed: Any
  folder: pathlib.Path

  def outputs(self, cell: str) -> list[nbformat.NotebookNode]:
    """What the cell of that id has put out."""
    (found,) = (c.outputs for c in self.notebook.cells if c.id == cell)
    return found

  def shown(self, kind: str, cell: str) -> list[str]:
    """What that cell displays of one MIME type."""
    data = [o.data for o in self.outputs(cell) if "data" in o]
    return [d[kind] for d in data if kind in d]

  def printed(self, cell: str) -> str:
    """What that cell prints on standard output."""
    streams = [o for o in self.outputs(cell) if o.output_type == "stream"]
    return "".join(s.text for s in streams if s.name == "stdout")

  def pictures(self, cell: str) -> list[np.ndarray]:
    """The PNGs that a cell displays, [height, width, channels] each."""
    files = map(base64.b64decode, self.shown("image/png", cell))
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def read(path: pathlib.Path) -> nbformat.NotebookNode:
  return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def execute(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> None:
  """Runs all cells with this Python; the outputs go into the notebook.

  Args:
    notebook: to run.
    folder: of all temporary files; the kernel starts in its `work`.

  Raises:
    CellExecutionError: a cell has failed.
  """
  # A kernel that is installed for the user may be another Python's.
  ipykernel.kernelspec.write_kernel_spec(str(folder / "kernels" / "this"))
  # Nor is what the user has set up for notebooks read, or written.
  jupyters = ("PATH", "CONFIG_DIR", "RUNTIME_DIR")
  folders = [f"JUPYTER_{name}" for name in jupyters] + ["IPYTHONDIR"]
  temporary = ["TMPDIR", "TEMP", "TMP"]  # One for each kind of system.
  (folder / "work").mkdir()
  with pytest.MonkeyPatch.context() as patch:
    for name in (*folders, *temporary):
      patch.setenv(name, str(folder))
    patch.setenv("LNRNN_SMOKE", "1")
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # Compiles faster.
    nbclient.NotebookClient(
      notebook,
      kernel_name="this",
      resources={"metadata": {"path": str(folder / "work")}},
      timeout=600,
      startup_timeout=300,
    ).execute()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """path -> Executed; each notebook runs once."""

  @functools.cache
  def executed(path):
    notebook, folder = read(path), tmp_path_factory.mktemp(path.stem)
    # Around the cells alone: as it ends, the kernel warns of its own code.
    first = "import warnings\nwarnings.simplefilter('error')"
    last = "import json\nwarnings.resetwarnings()\n"
    last += f"print(json.dumps({PROBES[path.stem]}))"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    execute(notebook, folder)
    (output,) = notebook.cells[-1].outputs
    return Executed(notebook, json.loads(output.text), folder)

  return executed


@each
def test_the_file_holds_no_outputs(path):
  notebook = read(path)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  code = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert len(code) > 1
  assert [cell.id for cell in code if cell.outputs] == []
  assert [cell.id for cell in code if cell.execution_count is not None] == []


@each
def test_all_cells_run_in_order(path, run):
  code = [c for c in run(path).notebook.cells if c.cell_type == "code"]
  assert [c.execution_count for c in code] == list(range(1, len(code) + 1))


@pytest.fixture
def executed(run):
  """The notebook layer_norm."""
  return run(ROOT / "docs" / "notebooks" / "layer_norm.ipynb")


def test_layer_norm_is_equation_3(executed):
  assert executed.probed["difference"] < 1e-5
  assert "differ by" in executed.printed("equation")


def test_the_table_of_invariances_is_that_of_the_paper(executed):
  (table,) = executed.shown("text/markdown", "invariance")
  rows = {row["norm"]: row for row in executed.probed["invariance"]}
  assert list(rows) == ["none", "rms", "layer"]
  assert all(text in table for row in rows.values() for text in row.values())
  scaled, centred, gradient = (
    {name: float(row[field].strip("× ")) for name, row in rows.items()}
    for field in list(rows["none"])[1:]
  )
  assert scaled["layer"] < 1e-4 > scaled["rms"]
  assert scaled["none"] > 0.1
  assert centred["layer"] < 1e-4
  assert centred["none"] > 0.1 < centred["rms"]
  assert gradient["layer"] == gradient["rms"] == 0.1


def test_every_norm_is_trained_drawn_and_tabulated(executed):
  assert executed.probed["status"] == 6 * ["finished"]
  rows = executed.probed["rows"]
  wanted = [(n, b) for b in ("128", "4") for n in ("layer", "batch", "none")]
  assert [(row["norm"], row["batch_size"]) for row in rows] == wanted
  for row in rows:
    assert float(row["train/nll"]) > 0
    assert 0 < float(row["test/error"]) < 1
  (table,) = executed.shown("text/markdown", "draw-norms")
  lines = [line for line in table.splitlines() if line.startswith("| ")]
  cells = [line.strip("| ").split("|")[:2] for line in lines[2:]]
  assert [tuple(map(str.strip, pair)) for pair in cells] == wanted
  (figure,) = executed.pictures("draw-norms")
  assert is_drawn(figure)


def test_handwriting_is_trained_and_written(executed):
  probed = executed.probed
  assert len(probed["nats"]) > 1
  assert np.isfinite(probed["nats"]).all()
  assert len(probed["points"]) == 3
  assert min(probed["points"]) > 0
  assert probed["finite"]
  (figure,) = executed.pictures("write-lines")
  assert is_drawn(figure)


def test_the_window_on_the_text_is_drawn(executed):
  shape, least, total = executed.probed["window"]
  assert shape == [executed.probed["points"][0], executed.probed["characters"]]
  assert least >= 0 < total
  (figure,) = executed.pictures("draw-window")
  assert is_drawn(figure)


def is_drawn(picture: np.ndarray) -> bool:
  """Whether a picture is large, and neither blank nor a single colour."""
  grey = picture[..., :3].mean(axis=-1)
  dark = (grey < 100).mean()
  return min(grey.shape) > 200 and bool(1e-4 < dark < 0.5)


def test_all_that_is_written_is_temporary(executed):
  out = pathlib.Path(executed.probed["out"])
  assert out.is_relative_to(executed.folder)
  pictures = {"window.png", "written.png"}
  assert set(executed.probed["written"]) == {"handwriting", "mnist"} | pictures
  assert os.listdir(executed.folder / "work") == []
