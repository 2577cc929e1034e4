"""The list of claims, and which verdict is on which."""

import pytest

from experiments import claim_list, paper_report
from lnrnn import claims

PAGE = """# Claims

## One

| id | place | claim | measurement and sign | rule |
| --- | --- | --- | --- | --- |
| `a.fast` | 6.1 | quick | faster: B -> A | t |
| `a.curve.r1`, `.r10` | Fig. 1 | high | A - B | t |

| what | else |
| --- | --- |
| `a.no` | none |

## Two

| id | place | claim | measurement | rule |
| --- | --- | --- | --- | --- |
| `cell.<norm>.<by>` | Table 1 | cells | change | exact |
| `a.fast.late` | 6.2 | later | A - B | t |
"""


@pytest.fixture
def listed(tmp_path):
  path = tmp_path / "claims.md"
  path.write_text(PAGE)
  return claim_list.read(path)


def test_rows_of_several_ids_are_taken_apart(listed):
  assert [(c.id, c.section) for c in listed] == [
    ("a.fast", "One"),
    ("a.curve.r1", "One"),
    ("a.curve.r10", "One"),
    ("cell.<norm>.<by>", "Two"),
    ("a.fast.late", "Two"),
  ]
  assert listed[1].words == "high" and listed[1].place == "Fig. 1"


@pytest.mark.parametrize(
  ("name", "claim"),
  [
    ("a.fast", "a.fast"),
    ("a.fast.tuned", "a.fast"),
    ("a.fast (layer)", "a.fast"),
    ("a.curve.r1", "a.curve.r1"),
    ("a.curve.r10.tuned", "a.curve.r10"),
    ("cell.layer.scale", "cell.<norm>.<by>"),
    ("a.faster", None),
    ("cell.layer", None),
  ],
)
def test_a_verdict_is_on_the_claim_whose_name_it_begins_with(
  listed, name, claim
):
  covering = [c.id for c in listed if c.covers(name)]
  assert covering == ([claim] if claim else [])


def test_the_longest_name_decides(monkeypatch, listed):
  monkeypatch.setattr(claim_list, "read", lambda: listed)
  row = claims.exact("a.fast.late.tuned", True, "0")
  grouped = {c.id: r for c, r in claim_list.grouped([row]).items()}
  assert grouped["a.fast.late"] == [row] and grouped["a.fast"] == []
  with pytest.raises(ValueError, match=r"b\.unknown: no claim"):
    claim_list.grouped([claims.exact("b.unknown", True, "0")])


@pytest.mark.parametrize(
  ("effect", "told"),
  [
    ("+0.693 [+0.405, +1.1]", "ratio 2.00 [1.50, 3.00]"),
    ("-0.693", "ratio 0.50"),
    ("+0 [+0, +0]", "ratio 1.00 [1.00, 1.00]"),
    ("", ""),
  ],
)
def test_an_effect_on_speed_is_told_as_a_ratio(listed, effect, told):
  row = claims.Row("a.fast", "holds", effect, None, "")
  assert paper_report.effect(listed[0], row) == told
  assert paper_report.effect(listed[1], row) == effect
  timed = listed[0]._replace(measured="ln(A's updates / B's)")
  if told:
    assert paper_report.effect(timed, row) == f"{told[6:]} of the time"


def test_cells_are_counted_and_what_was_not_run_is_said(monkeypatch, listed):
  monkeypatch.setattr(claim_list, "read", lambda: listed)
  rows = [
    claims.exact("cell.layer.one", True, "0"),
    claims.exact("cell.batch.one", True, "0"),
    claims.exact("cell.batch.two", False, "1"),
  ]
  text = paper_report.claims_table(rows, {c.section for c in listed})
  assert "**holds: 2 of 3, contradicted: 1 of 3**" in text
  assert text.count("not run") == 4
  assert "cell" not in paper_report.claims_table(rows, ["One"])
