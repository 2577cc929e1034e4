"""Verdicts on the runs in a folder, by the rules of docs/claims.md."""

from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any, NamedTuple

from experiments import (
  convnet_claims,
  draw_claims,
  handwriting_claims,
  mnist_claims,
  order_claims,
  reader_claims,
  skip_claims,
)
from lnrnn import claims, files, report
from lnrnn.errors import UserError, one_line
from lnrnn.training import workdir as workdir_lib

# Each has CHOSEN_BY, judged(config), is_papers(curves), judge(runs, chosen),
# and may have level(curves, metric), by which trials are compared,
# system(config), what stands for the norm, and timed(found), which judges the
# file of a benchmark.
TASKS: dict[str, Any] = {
  "mnist_mlp": mnist_claims,
  "draw": draw_claims,
  "handwriting": handwriting_claims,
  "order_embedding": order_claims,
  "attentive_reader": reader_claims,
  "skip_thoughts": skip_claims,
  "convnet": convnet_claims,
}


class Judged(NamedTuple):
  """What the runs in a folder say.

  Attributes:
    rows: a verdict each.
    chosen: {(norm, batch size): (rate, whether it is at the grid's edge)}, by
      the trials.
    note: how many runs, by which commits.
    elsewhere: where the runs are at other rates than the trials chose, a line
      each; their rows at the best rate are "not reached".
  """

  rows: list[claims.Row]
  chosen: dict[claims.Group, tuple[float, bool]]
  note: str
  elsewhere: list[str]

  def markdown(self) -> str:
    """The tables of the verdicts and of the rates."""
    text = table(self.rows)
    if self.chosen:
      text += "\n" + report.markdown(
        [
          {
            "norm": norm,
            "batch size": b,
            "best rate": f"{rate:g}" + (" (edge of the grid)" if edge else ""),
          }
          for (norm, b), (rate, edge) in sorted(self.chosen.items())
        ]
      )
    return "\n".join([text, self.note, *self.elsewhere]) + "\n"


def rules(folder: str | os.PathLike[str]) -> Any:
  """The rules for the runs in a folder, by the first of them.

  Raises:
    UserError: if there is no run, or no claim on its task.
  """
  for path in sorted(pathlib.Path(folder).glob("*/config.json")):
    name = workdir_lib.read_config(path.parent).experiment
    if name not in TASKS:
      raise UserError(f"{folder}: no claim is judged on {name!r} yet")
    return TASKS[name]
  raise UserError(f"{folder}: no runs there")


def judge(
  folder: str | os.PathLike[str],
  trials: str | os.PathLike[str] | None = None,
  timings: str | os.PathLike[str] | None = None,
  by: Any = None,
) -> Judged:
  """Judges every claim on a task.

  Args:
    folder: of the reported runs.
    trials: folder of the rate grid's runs.
    timings: JSON file of scripts/benchmark.py, for what time costs.
    by: the rules; by default those of the runs' task.

  Returns:
    The verdicts.

  Raises:
    UserError: if there are no runs, they differ in what no rule looks at, the
      trials share a seed with them, or the timings cannot be read.
  """
  task = by or rules(folder)
  how = [task.judged, *filter(None, [getattr(task, "system", None)])]
  runs = claims.read(folder, *how)
  tried = claims.read(trials, *how) if trials else {}
  if shared := {k.seed for k in runs} & {k.seed for k in tried}:
    raise UserError(f"seeds {sorted(shared)} are in the trials and reported")
  level = getattr(task, "level", claims.last_epochs)
  chosen = claims.best_rates(tried, task.CHOSEN_BY, level)
  rows = task.judge(runs, chosen)
  if not all(task.is_papers(c) for c in (*runs.values(), *tried.values())):
    rows = [r._replace(verdict=f"{r.verdict} on substitute data") for r in rows]
  if timings:  # Of no data.
    rows += _timed(task, pathlib.Path(timings))
  starts = [s for c in runs.values() for s in c.record["starts"]]
  commits = sorted({str(start["git_commit"])[:8] for start in starts})
  note = f"{len(runs)} runs, by commits {', '.join(commits)}."
  elsewhere = []
  for (norm, b), (rate, _) in sorted(chosen.items()):
    own = sorted({key.rate for key in runs if key[:2] == (norm, b)})
    if own and rate not in own:
      elsewhere.append(
        f"{norm}, batch size {b}: reported at {own}, but the trials chose"
        f" {rate:g}, so that rows at the best rate are not reached"
      )
  return Judged(rows, chosen, note, elsewhere)


def table(rows: Sequence[claims.Row]) -> str:
  """Verdicts as a Markdown table."""
  head = ("claim", "verdict", "effect", "at epoch", "beside")
  return report.markdown(
    [
      dict(
        zip(head, (f"`{r.id}`", *r[1:3], r.epoch or "", r.beside), strict=True)
      )
      for r in rows
    ]
  )


def write_rows(path: pathlib.Path, rows: Sequence[claims.Row]) -> None:
  """Writes verdicts as JSON."""
  with files.writing(path.parent), files.atomic(path) as part:
    part.write_text(json.dumps([r._asdict() for r in rows], indent=2) + "\n")


def read_rows(path: pathlib.Path) -> list[claims.Row]:
  """Reads what `write_rows` wrote.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    found = json.loads(path.read_text("utf-8"))
    return [claims.Row(**row) for row in found]
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f"{path}: cannot be read: {one_line(error)}") from error


def _timed(task: Any, path: pathlib.Path) -> list[claims.Row]:
  """The rows that a benchmark's file decides."""
  if not hasattr(task, "timed"):
    raise UserError(f"--timings={path}: no claim of this task is about time")
  try:
    return task.timed(json.loads(path.read_text("utf-8")))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"--timings={path}: cannot be read: {one_line(error)}"
    ) from error
