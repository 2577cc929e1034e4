"""Trains sections of the paper at a scale, runs what follows, judges."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
import re
from typing import Any, NamedTuple

from experiments import figures, forms_claims, judging, sets
from experiments.paper import RUNS, TRIALS, Set, Shown, Step, Task
from lnrnn import claims, files, report
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

_ROOT = pathlib.Path(__file__).resolve().parents[1]
Runs = dict[str, list[runs_lib.Run]]
Statuses = Mapping[runs_lib.Run, runs_lib.Status]


class Program(NamedTuple):
  """A step that is due, of one run where it is taken for each.

  Attributes:
    section: the section's name.
    name: of the step, and of the run.
    argv: of Python.
    out: folder of its log, NAME.log, and of NAME.done, which says that it has
      succeeded.
    alone: as of `paper.Step`.
  """

  section: str
  name: str
  argv: Sequence[str]
  out: pathlib.Path
  alone: bool


@dataclasses.dataclass
class Outcome:
  """What a section of the paper came to.

  Attributes:
    task: the section.
    data: what its runs were trained on, a line each.
    hardware: devices they ran on.
    drawn: [(figure or table, what was drawn, or None)].
    rows: verdicts.
    notes: what is missing and why, a line each.
    failed: those of the notes that are faults.
    judged: the verdicts' table with what stands below it, Markdown.
    pictures: [(caption, file)] that steps have made.
  """

  task: Task
  data: list[str] = dataclasses.field(default_factory=list)
  hardware: list[str] = dataclasses.field(default_factory=list)
  drawn: list[tuple[Shown, figures.Drawn | None]] = dataclasses.field(
    default_factory=list
  )
  rows: list[claims.Row] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  failed: list[str] = dataclasses.field(default_factory=list)
  judged: str = ""
  pictures: list[tuple[str, pathlib.Path]] = dataclasses.field(
    default_factory=list
  )


def runs_of(task: Task, scale: str, folder: pathlib.Path) -> Runs:
  """The runs of a section, by the names of its sets.

  Args:
    task: the section.
    scale: one of `paper.SCALES`; sets without it are left out.
    folder: of the section.
  """
  return {
    each.name: runs_lib.product(
      f"{_ROOT / task.config}" + (f":{plan.fields}" if plan.fields else ""),
      _varied(each, scale),
      plan.seeds,
      folder / each.folder,
    )
    for each in task.sets
    if (plan := each.at.get(scale))
  }


def train(
  runs: Sequence[runs_lib.Run], jobs: int, gpus: Sequence[str]
) -> Statuses:
  """Trains what is missing; returns how each run stands."""
  processes = sets.Processes(gpus, jobs)
  return runs_lib.run_missing(
    runs, processes.train, jobs=jobs, stop=processes.stop
  )


def unfinished(found: Statuses) -> list[str]:
  """What did not come to its end: a line a cause, as one may stop all runs."""
  causes: dict[str, list[str]] = {}
  for run, status in found.items():
    if status.kind == "finished":
      continue
    # "WORKDIR: exit code 2 (the fault), see its log.txt"
    cause = re.search(r"\((.*)\), see its ", status.text)
    causes.setdefault(cause[1] if cause else status.text, []).append(
      f"{run.workdir.parent.name}/{run.workdir.name}"
    )
  return [
    f"{len(names)} of {len(found)} runs: {cause} (the first: {names[0]})"
    for cause, names in causes.items()
  ]


def due(
  name: str, task: Task, scale: str, folder: pathlib.Path, found: Statuses
) -> tuple[list[Program], list[str]]:
  """The steps of a section that are to be taken, now that its runs are trained.

  One is due again when a run has measured more since it was taken; without a
  finished run none is that measures runs.

  Args:
    name: of the section.
    task: the section.
    scale: one of `paper.SCALES`.
    folder: of the section.
    found: how its runs stand.

  Returns:
    The programs, and what is left out and why, a line each.
  """
  runs = [
    run.workdir
    for run, status in found.items()
    if status.kind == "finished" and run.workdir.parent == folder / RUNS
  ]
  out, programs, lacking = folder / "out", [], []
  for step in task.steps:
    if scale not in step.at:
      continue
    if without := _lacking(step):
      lacking.append(without)
      continue
    each = any("{run}" in word for word in step.argv)
    if not runs and any("{runs}" in word for word in step.argv):
      continue
    for run in runs if each else [folder / RUNS]:
      called = f"{step.name},{run.name}" if each else step.name
      sources = [run] if each else runs
      if _is_newer(
        out / f"{called}.done", [source / "metrics.jsonl" for source in sources]
      ):
        continue
      places = {"root": _ROOT, "run": run, "runs": folder / RUNS, "out": out}
      argv = [word.format(**places) for word in step.argv]
      programs.append(Program(name, called, argv, out, step.alone))
  return programs, lacking


def take(
  programs: Sequence[Program], jobs: int, gpus: Sequence[str]
) -> dict[str, list[str]]:
  """Runs programs, those last that must be alone.

  Args:
    programs: of `due`.
    jobs: how many at a time.
    gpus: as of `sets.Processes`.

  Returns:
    {section: what went wrong, a line each}.
  """
  faults: dict[str, list[str]] = collections.defaultdict(list)
  processes = sets.Processes(gpus, jobs)
  for alone in (False, True):
    several = [program for program in programs if program.alone == alone]
    found = runs_lib.in_threads(
      several,
      lambda program: _take(program, processes),
      jobs=1 if alone else jobs,
      stop=processes.stop,
    )
    for program, fault in zip(several, found, strict=True):
      faults[program.section] += fault
  return faults


def outcome(
  task: Task,
  scale: str,
  folder: pathlib.Path,
  faults: Sequence[str] = (),
  lacking: Sequence[str] = (),
) -> Outcome:
  """Draws and judges a section by what its runs and steps have left.

  Args:
    task: the section.
    scale: one of `paper.SCALES`.
    folder: of the section; figures go to `figures/` in it.
    faults: what went wrong before, a line each.
    lacking: what was left out, a line each.

  Returns:
    What it came to; what cannot be done is told in its notes.
  """
  made = Outcome(task, notes=[*faults, *lacking], failed=list(faults))
  runs = runs_of(task, scale, folder)
  found = figures.found(run for several in runs.values() for run in several)
  records = [curves.record for curves in found.values()]
  made.data = sorted({record["data"] for record in records})
  made.hardware = sorted(
    {str(start.get("device")) for r in records for start in r["starts"]}
  )
  for shown in task.shown:
    if set(shown.of) & runs.keys():
      made.drawn.append((shown, _draw(task, shown, scale, runs, found, folder)))
  made.pictures = [
    (path.stem, path)
    for place in (folder / RUNS, folder / "out")
    for path in sorted(place.glob("*.png"))
  ]
  made.notes += (unjudged := _judge(made, folder))
  # The rules are for networks of another size than those of this scale.
  made.failed += [] if scale == "smoke" else unjudged
  return made


def _varied(each: Set, scale: str) -> list[report.Varied]:
  return [figures.varied(text) for text in each.at[scale].vary or each.vary]


def _draw(
  task: Task,
  shown: Shown,
  scale: str,
  runs: Runs,
  found: Mapping[runs_lib.Run, runs_lib.Curves],
  folder: pathlib.Path,
) -> figures.Drawn | None:
  """A figure or table, of the sets that have this scale; None if none ran."""
  of = [s for s in task.sets if s.name in shown.of and s.name in runs]
  several = [run for each in of for run in runs[each.name]]
  there = {run: found[run] for run in several if run in found}
  if not there:
    return None
  merged: dict[str, dict[str, None]] = {}
  for each in of:
    for field, values in _varied(each, scale):
      merged.setdefault(field, {}).update(dict.fromkeys(values))
  varied = [(field, tuple(values)) for field, values in merged.items()]
  options: dict[str, Any] = dict(shown.draw)
  config = next(iter(there.values())).record["config"]
  names = shown.metrics or config["compare_metrics"]
  comparison = report.Comparison(
    several,
    there,
    varied,
    [figures.metric(name) for name in names],
    options.pop("last", 1),
    options.pop("running_best", False),
  )
  name = re.sub(r"\W+", "_", shown.title.lower()).strip("_")
  return figures.draw(
    comparison,
    folder / "figures" / name,
    x=shown.x or "updates",
    against=figures.baseline(varied),
    **options,
  )


def _judge(made: Outcome, folder: pathlib.Path) -> list[str]:
  """Fills in the verdicts of the rules and of the steps; returns faults."""
  faults = []
  trials = folder / TRIALS
  timings = folder / "out" / "timings.json"
  if made.task.rules:
    by = forms_claims if made.task.rules == "forms" else None
    # One trial that is not done must not take the verdicts that need none.
    for tried in [trials, None] if trials.is_dir() else [None]:
      try:
        judged = judging.judge(
          folder / RUNS, tried, timings if timings.exists() else None, by
        )
      except UserError as error:
        faults.append(f"not judged{' with trials' * bool(tried)}: {error}")
        continue
      made.rows += judged.rows
      made.judged = judged.markdown()
      made.notes += judged.elsewhere
      break
  for path in (folder / RUNS / "same.json", folder / "out" / "claims.json"):
    if path.exists():
      rows = judging.read_rows(path)
      made.rows += rows
      made.judged += f"\n{judging.table(rows)}"
  return faults


def _lacking(step: Step) -> str:
  """Why a step is left out; "" if its data is there."""
  data_dir = os.environ.get("LNRNN_DATA_DIR")
  missing = [
    name
    for name in step.needs
    if not (data_dir and pathlib.Path(data_dir, name).is_dir())
  ]
  if not missing:
    return ""
  there = f"LNRNN_DATA_DIR={data_dir}" if data_dir else "LNRNN_DATA_DIR unset"
  return f"{step.name}: left out, no {', '.join(missing)} ({there})"


def _take(program: Program, processes: sets.Processes) -> list[str]:
  """Runs one; returns what went wrong."""
  name, out = program.name, program.out
  log = out / f"{name}.log"
  try:
    with files.writing(out):
      out.mkdir(parents=True, exist_ok=True)
      begins = f"{out.parent}: {name}, see {log}"
      code = processes.call(program.argv, log, begins)
      if not code:
        done = out / f"{name}.done"
        done.write_text(" ".join(program.argv) + "\n", "utf-8")
        return []
      lines = log.read_text("utf-8", errors="replace").splitlines()
  except UserError as error:
    return [f"{name}: {error}"]
  said = [x for x in lines if x.startswith("error: ")] or lines[-1:] or [""]
  error = said[-1].removeprefix("error: ")
  return [f"{name}: exit code {code} ({error}), see {log}"]


def _is_newer(done: pathlib.Path, sources: Sequence[pathlib.Path]) -> bool:
  """Whether a step is done, and later than what it was made of."""
  if not done.exists():
    return False
  return all(s.stat().st_mtime <= done.stat().st_mtime for s in sources)
