"""Reproduces the paper: every figure, table and claim, in one report.

  python -m experiments.reproduce --scale=cpu --workdir=runs/paper [--jobs=2]

trains what is missing, resumes what was begun, skips what is done, and writes

  report.html   every figure and table beside what the paper's shows, and every
                claim with its verdict; one file that needs no other
  report.md     the same, with the figures beside it
  claims.json   the verdicts

`--tasks=mnist_mlp,analysis` does these sections alone, `--plan` only tells what
it would cost. The scales are smoke (minutes, no result), cpu (the runs behind
docs/results), gpu and paper; experiments/paper.py lists their runs.

All runs are trained first, then come the programs that measure them, and at the
end the report; `--report_only`, in another shell, reports what there is so far.
Sections that were run in the same workdir before stay in the report. Where a
run cannot be trained, because its data is missing, say, the report says so and
the rest is done. Exit codes: 0 all that can be run with the data at hand is
there; 2 a run or a program has failed, diverged or was not run; 130 and 143 as
of scripts/sweep.py.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from experiments import (
  costs,
  judging,
  launch,
  paper,
  paper_report,
  reproduction,
  sets,
)
from lnrnn import files
from lnrnn.errors import ConfigError, UserError, choices
from lnrnn.training import runs as runs_lib
from lnrnn.training import signals

_MARK = "scale.txt"  # In the workdir.

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the runs and the report"
)
_SCALE = flags.DEFINE_enum("scale", "cpu", paper.SCALES, "how much is run")
_TASKS = flags.DEFINE_list("tasks", list(paper.TASKS), "sections of the paper")
_JOBS = flags.DEFINE_integer("jobs", 1, "runs at a time", lower_bound=1)
_GPUS = flags.DEFINE_list(
  "gpus", [], "one of these each, as CUDA_VISIBLE_DEVICES; default: all see all"
)
_PLAN = flags.DEFINE_bool("plan", False, "only tell what it would cost")
_REPORT = flags.DEFINE_bool(
  "report_only", False, "train nothing; report what there is"
)


def main() -> None:
  """Trains what is missing and writes the report."""
  for name in _TASKS.value:
    if name not in paper.TASKS:
      raise ConfigError(f"--tasks={name!r}: {choices(name, list(paper.TASKS))}")
  names = list(dict.fromkeys(_TASKS.value))
  if not names:
    raise ConfigError(f"--tasks=: names none of {', '.join(paper.TASKS)}")
  cost = costs.table(names, _SCALE.value)
  if _PLAN.value:
    print(cost)
    return
  if _WORKDIR.value is None:
    raise ConfigError("--workdir: must be given, unless with --plan")
  folder = pathlib.Path(_WORKDIR.value)
  # What was run before stays in the report.
  there = [
    name for name in paper.TASKS if name in names or (folder / name).is_dir()
  ]
  planned = {
    name: [
      run
      for several in reproduction.runs_of(
        paper.TASKS[name], _SCALE.value, folder / name
      ).values()
      for run in several
    ]
    for name in there
  }
  runs = [run for name in names for run in planned[name]]
  _check_scale(folder)
  sets.check(runs)
  _mark(folder)
  signals.say(cost)
  # All runs, and then all steps, so that no job is idle while others end.
  found: reproduction.Statuses = {}
  if not _REPORT.value:
    found = reproduction.train(runs, _JOBS.value, _GPUS.value)
  standing = {
    name: {
      run: found.get(run) or runs_lib.standing(run) for run in planned[name]
    }
    for name in there
  }
  due = {
    name: reproduction.due(
      name, paper.TASKS[name], _SCALE.value, folder / name, standing[name]
    )
    for name in there
  }
  # Those of sections that train nothing take longest, so they begin first.
  taken = sorted(names, key=lambda name: len(planned[name]))
  taken = [] if _REPORT.value else taken
  faults = reproduction.take(
    [program for name in taken for program in due[name][0]],
    _JOBS.value,
    _GPUS.value,
  )
  for name in there:
    if name not in taken:
      faults[name] = [f"{program.name}: not run" for program in due[name][0]]
  outcomes, failed = [], []
  for name in there:
    wrong = [*reproduction.unfinished(standing[name]), *faults.get(name, [])]
    outcomes.append(
      reproduction.outcome(
        paper.TASKS[name], _SCALE.value, folder / name, wrong, due[name][1]
      )
    )
    if name in names:
      failed += [f"{name}: {note}" for note in outcomes[-1].failed]
  _write(outcomes, cost, folder)
  signals.say(f"report: {folder / 'report.html'}, report.md, claims.json")
  if failed:
    raise UserError("\n".join(failed))


def _check_scale(folder: pathlib.Path) -> None:
  """Raises ConfigError if the folder is of another scale."""
  if not (folder / _MARK).exists():
    return
  with files.writing(folder):
    there = (folder / _MARK).read_text("utf-8").strip()
  if there != _SCALE.value:
    raise ConfigError(
      f"--workdir={folder}: holds the scale {there}; name another for"
      f" --scale={_SCALE.value}"
    )


def _mark(folder: pathlib.Path) -> None:
  """Makes the folder, and says of which scale it is.

  Raises:
    WorkdirError: it cannot be written.
  """
  with files.writing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _MARK).exists():
      with files.atomic(folder / _MARK) as part:
        part.write_text(f"{_SCALE.value}\n", "utf-8")


def _write(
  outcomes: Sequence[reproduction.Outcome], cost: str, folder: pathlib.Path
) -> None:
  """Writes the report and the verdicts."""
  text = paper_report.markdown(outcomes, _SCALE.value, cost, folder)
  with files.writing(folder):
    for path, content in (
      (folder / "report.md", text),
      (folder / "report.html", paper_report.html(text, folder)),
    ):
      with files.atomic(path) as part:
        part.write_text(content, encoding="utf-8")
  rows = [row for outcome in outcomes for row in outcome.rows]
  judging.write_rows(folder / "claims.json", rows)


if __name__ == "__main__":
  launch.run(main)
