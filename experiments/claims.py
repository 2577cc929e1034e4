"""Judges the paper's claims on a task by the rules of docs/claims.md.

  python -m experiments.claims --workdir=runs/mnist --trials=runs/mnist_trials

reads every run under the two folders and prints one row a claim. The trials
are the runs of the rate grid, with a seed of their own; the "tuned" rows need
the reported runs to have been made at the rates that the trials choose.
"""

import json
import pathlib
from typing import Any

from absl import flags

from experiments import (
  convnet_claims,
  draw_claims,
  handwriting_claims,
  launch,
  mnist_claims,
  order_claims,
  reader_claims,
  skip_claims,
)
from lnrnn import claims, files, report
from lnrnn.errors import UserError, one_line
from lnrnn.training import workdir as workdir_lib

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the reported runs", required=True
)
_TRIALS = flags.DEFINE_string("trials", None, "folder of the rate grid's runs")

_TIMINGS = flags.DEFINE_string(
  "timings", None, "JSON file of scripts/benchmark.py, for what time costs"
)

# Each has CHOSEN_BY, judged(config), is_papers(curves), judge(runs, chosen),
# and may have level(curves, metric), by which trials are compared, and
# timed(found), which judges the file of --timings.
TASKS: dict[str, Any] = {
  "mnist_mlp": mnist_claims,
  "draw": draw_claims,
  "handwriting": handwriting_claims,
  "order_embedding": order_claims,
  "attentive_reader": reader_claims,
  "skip_thoughts": skip_claims,
  "convnet": convnet_claims,
}


def _task(folder: str) -> Any:
  """The rules for the runs in a folder, by the first of them."""
  for path in sorted(pathlib.Path(folder).glob("*/config.json")):
    name = workdir_lib.read_config(path.parent).experiment
    if name not in TASKS:
      raise UserError(f"{folder}: no claim is judged on {name!r} yet")
    return TASKS[name]
  raise UserError(f"{folder}: no runs there")


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


def main() -> None:
  """Prints and writes the verdicts."""
  task = _task(_WORKDIR.value)
  # A task may have system(config), what stands for the norm.
  how = [task.judged, *filter(None, [getattr(task, "system", None)])]
  runs = claims.read(_WORKDIR.value, *how)
  trials = claims.read(_TRIALS.value, *how) if _TRIALS.value else {}
  if shared := {k.seed for k in runs} & {k.seed for k in trials}:
    raise UserError(f"seeds {sorted(shared)} are in the trials and reported")
  level = getattr(task, "level", claims.last_epochs)
  chosen = claims.best_rates(trials, task.CHOSEN_BY, level)
  rows = task.judge(runs, chosen)
  if not all(task.is_papers(c) for c in (*runs.values(), *trials.values())):
    rows = [r._replace(verdict=f"{r.verdict} on substitute data") for r in rows]
  if _TIMINGS.value:  # Of no data.
    rows += _timed(task, pathlib.Path(_TIMINGS.value))
  head = ("claim", "verdict", "effect", "at epoch", "beside")
  text = report.markdown(
    [
      dict(
        zip(head, (f"`{r.id}`", *r[1:3], r.epoch or "", r.beside), strict=True)
      )
      for r in rows
    ]
  )
  if chosen:
    text += "\n" + report.markdown(
      [
        {
          "norm": norm,
          "batch size": b,
          "best rate": f"{rate:g}" + (" (edge of the grid)" if edge else ""),
        }
        for (norm, b), (rate, edge) in sorted(chosen.items())
      ]
    )
  starts = [s for c in runs.values() for s in c.record["starts"]]
  commits = sorted({str(start["git_commit"])[:8] for start in starts})
  text += f"\n{len(runs)} runs, by commits {', '.join(commits)}.\n"
  path = pathlib.Path(_WORKDIR.value, "claims.md")
  with files.writing(path.parent):
    with files.atomic(path) as part:
      part.write_text(text, encoding="utf-8")
    with files.atomic(path.with_suffix(".json")) as part:
      part.write_text(
        json.dumps([row._asdict() for row in rows], indent=2) + "\n"
      )
  print(f"{text}\nwritten: {path}, {path.with_suffix('.json')}")


if __name__ == "__main__":
  launch.run(main)
