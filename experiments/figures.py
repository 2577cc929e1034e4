"""The figure and the table of a set of runs, as files of a folder."""

from collections.abc import Iterable, Mapping, Sequence
import csv
import itertools
import pathlib
from typing import Any, NamedTuple

from configs import common
from lnrnn import files, plotting, report
from lnrnn.errors import ConfigError, choices
from lnrnn.training import runs as runs_lib

ABSCISSAE = ("updates", "epochs", "seconds")


class Drawn(NamedTuple):
  """What stands in the folder.

  Attributes:
    picture: the figure, a PNG.
    table: Markdown, as in table.md.
    rows: the table's.
  """

  picture: pathlib.Path
  table: str
  rows: list[dict[str, Any]]


def found(runs: Iterable[runs_lib.Run]) -> dict[runs_lib.Run, runs_lib.Curves]:
  """What those runs have measured that have begun."""
  return {
    run: runs_lib.Curves.read(run.workdir)
    for run in runs
    if (run.workdir / "metrics.jsonl").exists()
  }


def varied(text: str) -> report.Varied:
  """Reads "field=value,value" as ("field", ("value", "value")).

  Raises:
    ConfigError: it reads otherwise.
  """
  field, eq, values = text.partition("=")
  parts = tuple(common.split(values))
  if not eq or not parts:
    raise ConfigError(f"--vary={text!r}: must read field=value,value,...")
  return field.strip(), parts


def metric(text: str) -> report.Metric:
  """Reads "train/nll:log" as ("train/nll", "min", True).

  Raises:
    ConfigError: an option is not log or max.
  """
  name, *options = text.split(":")
  if wrong := set(options) - {"log", "max"}:
    raise ConfigError(f"--metrics={text}: {wrong.pop()!r} is not log or max")
  mode = "max" if "max" in options else "min"
  return report.Metric(name, mode, "log" in options)


def baseline(varied: Sequence[report.Varied], chosen: str | None = None) -> str:
  """Which of the first field's values speed is measured against.

  Args:
    varied: fields and their values.
    chosen: by the user; None: none if it is there, else the first.

  Raises:
    ConfigError: the value is not one of the field's.
  """
  values = varied[0][1] if varied else ("",)
  norms = (value.partition("+")[0] == "none" for value in values)
  default = next(itertools.compress(values, norms), values[0])
  against = default if chosen is None else chosen
  if against not in values:
    raise ConfigError(f"--baseline={against!r}: {choices(against, values)}")
  return against


def draw(
  comparison: report.Comparison,
  folder: pathlib.Path,
  *,
  x: str = "epochs",
  against: str = "",
  status: Mapping[runs_lib.Run, runs_lib.Status] | None = None,
  logx: bool = False,
  columns: int = 0,
) -> Drawn:
  """Writes figure_X.png, table.md, table.csv and curves.csv.

  Args:
    comparison: to draw.
    folder: to write into; it is made.
    x: one of `ABSCISSAE`, or a varied field other than the first.
    against: of `baseline`.
    status: how the runs stand, for the table's notes.
    logx: a logarithmic abscissa.
    columns: of `report.panels`.

  Returns:
    What was written.

  Raises:
    WorkdirError: the folder cannot be written.
  """
  # The curves of a run that diverged say so themselves.
  notes = {
    run: "" if s.kind == "diverged" else s.text
    for run, s in (status or {}).items()
  }
  rows = report.table(
    comparison, {run: notes.get(run, "") for run in comparison.runs}, against
  )
  text = report.markdown(rows)
  if len(rows) > 1:
    text += (
      f"\nSpeed-up: updates to the best {comparison.metrics[0].name} of"
      f" {against}, over those to the same value (docs/claims.md).\n"
    )
  with files.writing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    picture = plotting.curves(
      report.panels(comparison, x, logx=logx, columns=columns),
      folder / f"figure_{x.split('.')[-1]}.png",
    )
    with files.atomic(folder / "table.md") as part:
      part.write_text(text, encoding="utf-8")
    _write_csv(folder / "table.csv", rows)
    _write_csv(folder / "curves.csv", report.points(comparison))
  return Drawn(picture, text, rows)


def _write_csv(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  names = list(dict.fromkeys(key for row in rows for key in row))
  with (
    files.atomic(path) as part,
    part.open("w", newline="", encoding="utf-8") as file,
  ):
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
