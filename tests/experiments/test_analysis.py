"""The report on section 5: its verdicts, its files, its errors."""

import errno
import json

import numpy as np
import pytest

from experiments import fisher, fisher_runs, table1
from experiments.sections import Section
from lnrnn import claims
from lnrnn.analysis import invariance


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """{part: (section, folder of its figures)} of few networks."""
  folder = tmp_path_factory.mktemp("analysis")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(table1, "NETWORKS", 3)
    patch.setattr(table1, "SCALES", (1.0, 1e-2, 1e-4))
    patch.setattr(fisher, "NETWORKS", 2)
    patch.setattr(fisher_runs, "WIDTHS", (4, 8))
    patch.setattr(fisher_runs, "LENGTHS", (0.5, 1.0, 2.0))
    patch.setattr(fisher_runs, "INPUTS", (0.1, 1.0, 10.0))
    return {
      "table1": (table1.section(folder), folder),
      "fisher": (fisher.section(folder), folder),
    }


def verdicts(section):
  return {row.id: row.verdict for row in section.rows}


def test_all_18_cells_of_table_1_hold_and_the_text_beside_it_does_not(small):
  found = verdicts(small["table1"][0])
  cells = {k: v for k, v in found.items() if k not in _TEXTS}
  assert len(cells) == 18
  assert set(cells.values()) == {"holds"}
  assert found["table1.prose"] == "contradicted"
  assert found["invariant.shift"] == "holds"


_TEXTS = ("table1.prose", "invariant.shift")


def test_a_cell_that_is_not_as_the_table_says_is_contradicted(monkeypatch):
  exact = {
    norm: {
      name: np.full(2, 1e-15 if name in invariance.INVARIANT[norm] else 0.1)
      for name in invariance.TRANSFORMATIONS
    }
    for norm in invariance.NORMS
  }
  exact["layer"]["dataset re-scaling"] = np.array([1e-15, 2e-9])
  exact["batch"]["single case re-scaling"] = np.array([0.1, 9e-4])
  found = {row.id: row.verdict for row in table1._rows(exact, 2e-9)}
  wrong = {name for name, verdict in found.items() if verdict != "holds"}
  assert wrong == {
    "table1.layer.dataset-re-scaling",
    "table1.batch.single-case-re-scaling",
    "table1.prose",
    "invariant.shift",
  }


def test_the_statements_on_the_fisher_metric(small):
  assert verdicts(small["fisher"][0]) == {
    "fisher.form.bn": "holds",
    "fisher.form.wn": "holds",
    "fisher.form.ln": "contradicted",
    "fisher.half": "contradicted",  # It is 1/4.
    "fisher.early-stop": "holds",
    "fisher.gain-scale.bn": "holds",
    "fisher.gain-scale.ln": "holds",
    "fisher.plain-scale": "holds",
  }


def test_every_row_stands_in_the_rules(small, repo):
  text = (repo / "docs/claims.md").read_text("utf-8")
  for name in verdicts(small["fisher"][0]):
    stem, _, norm = name.rpartition(".")
    assert f"`{name}`" in text or (f"`{stem}." in text and f"`.{norm}`" in text)


@pytest.mark.parametrize(
  ("part", "figure"), [("table1", "table1_eps.png"), ("fisher", "fisher.png")]
)
def test_figures_are_drawn_and_linked_and_numbers_are_json(small, part, figure):
  section, folder = small[part]
  assert (folder / figure).read_bytes().startswith(b"\x89PNG")
  assert f"({figure})" in section.text
  assert json.loads(json.dumps(section.numbers)) == section.numbers


def test_the_table_shows_a_number_in_every_cell(small):
  text = small["table1"][0].text
  row = next(line for line in text.split("\n") if line.startswith("| Layer"))
  cells = [cell.strip() for cell in row.split("|")[2:-1]]
  kinds = [cell.partition(" ")[0] for cell in cells]
  assert kinds == ["invariant", "invariant", "no", "invariant", "no"] + [
    "invariant"
  ]
  assert all("e-" in cell or "e+" in cell for cell in cells)


def made_up(out):
  """A part of the report."""
  row = claims.exact("some.claim", True, "1e-12", "beside")
  return Section("A title", "Some text.", [row], {"one": 1.0})


def test_the_program_writes_report_numbers_and_verdicts(
  program, monkeypatch, tmp_path
):
  monkeypatch.setattr(table1, "section", made_up)
  ran = program("analysis", f"--workdir={tmp_path}/new", "--parts=table1")
  assert ran.code == 0
  folder = tmp_path / "new"
  text = (folder / "analysis.md").read_text()
  assert "## A title\n\nSome text.\n" in text and "some.claim" in text
  assert json.loads((folder / "analysis.json").read_text()) == {
    "table1": {"one": 1.0}
  }
  (row,) = json.loads((folder / "claims.json").read_text())
  assert (row["id"], row["verdict"]) == ("some.claim", "holds")


def test_an_unknown_part_is_one_line_and_nothing_is_written(program, tmp_path):
  ran = program("analysis", f"--workdir={tmp_path}/new", "--parts=tabel1")
  assert ran.code == 2
  assert ran.lines == [
    "--parts='tabel1': must be one of table1, fisher, dynamics; did you mean"
    " 'table1'?"
  ]
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_folder_that_cannot_be_written_is_one_line(
  kind, program, monkeypatch, tmp_path
):
  def full(out):
    raise OSError(errno.ENOSPC, "No space left on device")

  folder = tmp_path / "new"
  if kind == "file":
    folder.write_text("mine")
  monkeypatch.setattr(table1, "section", full)
  ran = program("analysis", f"--workdir={folder}", "--parts=table1")
  assert ran.code == 2
  (line,) = ran.lines
  assert line.startswith(f"{folder} cannot be written: ")
  assert ("File exists" if kind == "file" else "No space left") in line
  if kind == "file":
    assert folder.read_text() == "mine"
