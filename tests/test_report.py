"""Figures and tables of made-up runs, read back from what would be drawn."""

import dataclasses
import pathlib

import numpy as np
import pytest

from lnrnn import plotting, report
from lnrnn.training.runs import Curves, Run

RATES = ("3e-4", "1e-2")
NLL = report.Metric("train/nll", "min", True)


def _comparison(*, missing=(), last=1):
  """Final values: layer 1 at the small rate, 3 at the large; none 2 and 4."""
  varied = [
    ("norm", ("layer", "none")),
    ("optimizer.learning_rate", RATES),
    ("batch_size", ("4", "128")),
  ]
  runs, found = [], {}
  for i, norm in enumerate(varied[0][1]):
    for j, rate in enumerate(RATES):
      for b in ("4", "128"):
        for seed in (0, 1):
          names = [name for name, _ in varied]
          variant = tuple(zip(names, (norm, rate, b), strict=True))
          run = Run(variant, seed, "", pathlib.Path())
          runs.append(run)
          if (norm, rate, b, seed) in missing:
            continue
          end = 1 + i + 2 * j + seed / 2
          rows = [
            {
              "step": 10 * e,
              "train/nll": end + 4 - e,
              "time/train_seconds": e / 5,
              "time/steps_per_s": 50.0,
            }
            for e in (1, 2, 3, 4)
          ]
          record = {"config": {"train_steps": 40}}
          found[run] = Curves(rows, 10, record)
  return report.Comparison(runs, found, varied, [NLL], last)


def test_the_figure_has_a_row_a_metric_and_a_column_a_group():
  (row,) = report.panels(_comparison(), "epochs")
  assert len(row) == 4 and row[0].title.startswith("optimizer.learning rate")
  line = row[0].lines[0]
  assert (line.label, line.colour) == ("layer norm", "layer")
  np.testing.assert_array_equal(line.x, [1, 2, 3, 4])
  np.testing.assert_array_equal(line.y, [[4, 3, 2, 1], [4.5, 3.5, 2.5, 1.5]])
  (row,) = report.panels(_comparison(), "updates", logx=True)
  assert all(panel.logx for panel in row)
  (row,) = report.panels(_comparison(), "seconds")
  assert not any(panel.logx for panel in row)
  np.testing.assert_allclose(row[0].lines[0].x, [0.2, 0.4, 0.6, 0.8])
  assert row[0].xlabel == "training seconds" and row[0].log


@pytest.mark.parametrize(
  ("field", "value", "wanted"),
  [
    ("norm", "batch", ("batch norm", "batch")),
    ("batch_size", "4", ("4", "")),
    ("norm+model.norm_everywhere", "batch+false", ("batch norm", "batch")),
    (
      "norm+model.norm_everywhere",
      "batch+true",
      ("batch norm, norm everywhere", "batch"),
    ),
    (
      "norm+optimizer.learning_rate",
      "layer+1e-3",
      ("layer norm, learning rate 1e-3", "layer"),
    ),
  ],
)
def test_a_line_is_called_by_its_norm_and_what_varies_with_it(
  field, value, wanted
):
  assert report._label(field, value) == wanted


def test_a_varied_field_can_be_the_abscissa():
  (row,) = report.panels(_comparison(last=2), "optimizer.learning_rate")
  assert [panel.title for panel in row] == [
    "batch size = 4",
    "batch size = 128",
  ]
  layer, none = row[0].lines
  np.testing.assert_allclose(layer.x, [3e-4, 1e-2])
  np.testing.assert_allclose(layer.y, [[1.5, 3.5], [2, 4]])
  np.testing.assert_allclose(none.y, [[2.5, 4.5], [3, 5]])
  assert row[0].logx


def test_what_has_not_been_trained_is_left_out_and_said():
  gone = [("layer", "3e-4", "4", 0), ("layer", "3e-4", "4", 1)]
  gone.append(("none", "3e-4", "4", 1))
  found = _comparison(missing=gone)
  (row,) = report.panels(found, "optimizer.learning_rate")
  layer, none = row[0].lines
  np.testing.assert_allclose(layer.x, [1e-2])
  assert none.y.shape == (1, 2)
  rows = report.table(found, dict.fromkeys(found.runs, ""), "none")
  assert rows[0]["note"] == "missing" and rows[0]["train/nll"] == "missing"
  assert rows[1]["note"] == "seeds are missing" and rows[1]["seeds"] == 1


def test_the_table_gives_mean_spread_rate_and_speed_up():
  found = _comparison()
  rows = report.table(found, dict.fromkeys(found.runs, "finished"), "none")
  assert len(rows) == 8 and "note" not in rows[0]
  layer, none = rows[0], rows[1]
  assert layer["train/nll"] == "1.25 ± 0.35"
  assert layer["steps/s"] == "50" and layer["seeds"] == 2
  assert none["speed-up"] == "1 (baseline)"
  assert layer["speed-up"].startswith("1.33")  # 40 updates to 2.25, and 30.
  text = report.markdown(rows[:2])
  lines = text.splitlines()
  assert len({len(line) for line in lines}) == 1 and len(lines) == 4


def test_every_evaluation_is_listed():
  rows = report.points(_comparison())
  assert len(rows) == 16 * 4
  assert rows[0] == {
    "norm": "layer",
    "optimizer.learning_rate": "3e-4",
    "batch_size": "4",
    "seed": 0,
    "updates": 10,
    "epochs": "1",
    "seconds": "0.2",
    "train/nll": "4",
  }


@pytest.mark.parametrize("x", ["epochs", "optimizer.learning_rate"])
def test_a_picture_is_drawn(tmp_path, x):
  path = plotting.curves(
    report.panels(_comparison(), x), tmp_path / "a" / "b.png"
  )
  assert path.read_bytes().startswith(b"\x89PNG")
  assert path.stat().st_size > 10_000


def test_a_picture_that_is_interrupted_leaves_the_old_one(
  tmp_path, monkeypatch
):
  from matplotlib.figure import Figure

  def interrupted(figure, path, **options):
    path.write_bytes(b"half")
    raise KeyboardInterrupt

  monkeypatch.setattr(Figure, "savefig", interrupted)
  path = tmp_path / "a.png"
  path.write_bytes(b"old")
  with pytest.raises(KeyboardInterrupt):
    plotting.curves(report.panels(_comparison(), "epochs"), path)
  assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [
    ("a.png", b"old")
  ]


def test_a_seed_that_diverged_shows_as_a_gap():
  from matplotlib.figure import Figure

  y = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
  ax = Figure().subplots()
  line = plotting.Line("layer norm", np.arange(3), y, "layer")
  plotting._draw(plotting.Panel("", "x", "y", [line]), ax)
  (drawn,) = ax.get_lines()
  np.testing.assert_array_equal(drawn.get_ydata(), [1, np.nan, 3])
  assert drawn.get_color() == plotting.COLOURS["layer"]


def test_running_bests_are_carried_on_after_a_run_has_stopped():
  whole = _comparison()
  for run in whole.runs:
    rows = whole.found[run].rows
    rows[3]["train/nll"] = 9.0  # The last value is the worst.
    if run.seed:
      del rows[2:]  # Seed 1 has stopped by then.
  best = dataclasses.replace(whole, running_best=True)
  (row,) = report.panels(best, "updates")
  np.testing.assert_array_equal(
    row[0].lines[0].y, [[4, 3, 2, 2], [4.5, 3.5, 3.5, 3.5]]
  )
  np.testing.assert_array_equal(row[0].lines[0].x, [10, 20, 30, 40])
  (row,) = report.panels(whole, "updates")
  assert np.isnan(row[0].lines[0].y[1, 2:]).all()
  status = dict.fromkeys(whole.runs, "finished")
  assert report.table(best, status, "none")[0]["train/nll"] == "2.75 ± 1.1"


def test_running_bests_stand_at_their_own_updates():
  whole = _comparison()
  for run in whole.runs:
    if run.seed:
      del whole.found[run].rows[:2]  # Was measured from update 30 on.
  best = dataclasses.replace(whole, running_best=True)
  line = report.panels(best, "updates")[0][0].lines[0]
  np.testing.assert_array_equal(line.x, [10, 20, 30, 40])
  np.testing.assert_array_equal(line.y[1], [np.nan, np.nan, 2.5, 1.5])


def test_what_seeds_measured_at_different_updates_has_no_speed_up():
  whole = _comparison()
  for run in whole.runs:
    rows = whole.found[run].rows
    del rows[1 + 2 * run.seed :]
    del rows[:-1]
  status = dict.fromkeys(whole.runs, "finished")
  row = report.table(whole, status, "layer")[-1]
  assert row["speed-up"] == "no shared update" and row["train/nll"] != "missing"


def _scores(running_best=False):
  """Two seeds of a score at four steps, a mean over folds with its spread."""
  runs = [Run((), seed, "", pathlib.Path()) for seed in (0, 1)]
  record = {"config": {"train_steps": 40}}
  found = {}
  for run in runs:
    rows = [
      {"step": 10 * e, "d/mr": 50.0 + e, "d/mr_sd": 2.0 + run.seed, "d/x": 1.0}
      for e in (1, 2, 3, 4)
    ]
    found[run] = Curves(rows, 10, record)
  shown = [report.Metric(f"d/{n}", "max", False) for n in ("mr", "x", "mr_sd")]
  return report.Comparison(runs, found, [], shown, running_best=running_best)


@pytest.mark.parametrize(
  ("columns", "widths"), [(0, [1, 1, 1]), (1, [1, 1, 1]), (2, [2, 2]), (3, [3])]
)
def test_rows_of_one_panel_are_joined_to_columns(columns, widths):
  grid = report.panels(_scores(), "updates", columns=columns)
  assert [len(row) for row in grid] == widths
  flat = [panel for row in grid for panel in row]
  names = [panel.ylabel for panel in flat]
  assert names == ["d/mr", "d/x", "d/mr_sd", ""][: sum(widths)]
  if columns == 2:  # What fills up is empty.
    assert not flat[3].lines and not flat[3].title


def test_columns_leave_several_groups_as_they_are():
  (row,) = report.panels(_comparison(), "epochs", columns=2)
  assert len(row) == 4


def test_a_mean_over_folds_has_its_standard_error():
  lines = [row[0].lines[0] for row in report.panels(_scores(), "updates")]
  # The seeds' mean of 2 and 3, over the root of ten folds.
  np.testing.assert_allclose(lines[0].error, np.full(4, 2.5 / np.sqrt(10)))
  assert lines[1].error is None and lines[2].error is None
  best = report.panels(_scores(running_best=True), "updates")
  assert best[0][0].lines[0].error is None


def test_error_bars_and_an_empty_panel_are_drawn(tmp_path, monkeypatch):
  from matplotlib.axes import Axes

  drawn, off = [], []
  bar, hide = Axes.errorbar, Axes.set_axis_off
  monkeypatch.setattr(
    Axes,
    "errorbar",
    lambda self, x, y, yerr, **k: (
      drawn.append((x, y, yerr)) or bar(self, x, y, yerr, **k)
    ),
  )
  monkeypatch.setattr(
    Axes, "set_axis_off", lambda self: off.append(self) or hide(self)
  )
  grid = report.panels(_scores(), "updates", columns=2)
  path = plotting.curves(grid, tmp_path / "b.png")
  assert path.read_bytes().startswith(b"\x89PNG")
  ((x, y, error),) = drawn
  np.testing.assert_array_equal(x, [10, 20, 30, 40])
  np.testing.assert_array_equal(y, [51, 52, 53, 54])
  np.testing.assert_allclose(error, 2.5 / np.sqrt(10))
  assert len(off) == 1
