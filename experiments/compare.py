"""Trains variants of one config and compares them: one figure, one table.

  python -m experiments.compare --config=configs/mnist_mlp.py \
      --vary=norm=layer,batch,none --vary=batch_size=128,4 --seeds=0,1,2 \
      --workdir=runs/mnist

Every combination of the `--vary` lists is trained for every seed, each in a
folder of its own under the workdir, unless it is finished there. The first
list gives the lines of the figure, the others its columns, `--metrics` its
rows. Beside the figure stand table.md and table.csv.
"""

from collections.abc import Sequence
import csv
import itertools
import math
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from absl import flags
import numpy as np

from configs import common
from experiments import launch
from lnrnn import metrics as metrics_lib
from lnrnn import plotting
from lnrnn.errors import ConfigError, DivergedError, UserError
from lnrnn.training import runs as runs_lib

_CONFIG = flags.DEFINE_string(
  "config", None, "configs/NAME.py:key=value,... common to all", required=True
)
_VARY = flags.DEFINE_multi_string(
  "vary", [], "field=value,value,...; may be given several times"
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "seeds of every variant")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the runs, figure and table", required=True
)
_METRICS = flags.DEFINE_list(
  "metrics", None, "rows of the figure; default: the config's compare.metrics"
)
_X = flags.DEFINE_enum(
  "x", "epochs", ["updates", "epochs", "seconds"], "abscissa of the figure"
)
_BASELINE = flags.DEFINE_string(
  "baseline",
  None,
  "value of the first --vary field that speed is measured"
  " against; default: none if it is there, else the first",
)
_LAST = flags.DEFINE_integer(
  "last",
  1,
  "the table's values are means over this many last evaluations",
  lower_bound=1,
)
_JOBS = flags.DEFINE_integer("jobs", 1, "runs at a time", lower_bound=1)
_FRESH = flags.DEFINE_bool("fresh", False, "delete the runs and train anew")
_DRAW = flags.DEFINE_bool(
  "draw_only", False, "train nothing; draw what there is, mark what is missing"
)


def main() -> None:
  """Trains what is missing, then draws and prints."""
  if _FRESH.value and _DRAW.value:
    raise ConfigError("--fresh deletes the runs that --draw_only would draw")
  varied = [_parse_vary(text) for text in _VARY.value]
  fields = [field for field, _ in varied]
  if "seed" in fields or len(set(fields)) < len(fields):
    raise ConfigError(
      f"--vary: {', '.join(fields)}: each field once, and seeds in --seeds"
    )
  try:
    seeds = list(dict.fromkeys(int(seed) for seed in _SEEDS.value))
    _ = seeds[0]
  except (ValueError, IndexError):
    raise ConfigError(f"--seeds={','.join(_SEEDS.value)}: whole numbers") from (
      None
    )
  folder = pathlib.Path(_WORKDIR.value)
  runs = runs_lib.product(_CONFIG.value, varied, seeds, folder)
  _check(runs)
  names = _METRICS.value or list(launch.load(runs[0].spec).compare_metrics)
  metrics = [_metric(name) for name in names]
  lines = varied[0] if varied else ("", ("",))
  baseline = _baseline(lines[1])
  status = _train(runs)
  found = {
    run: runs_lib.Curves.read(run.workdir)
    for run in runs
    if (run.workdir / "metrics.jsonl").exists()
  }
  if not found:
    raise UserError(f"--workdir={folder}: no run has been trained there")
  measured = {key for c in found.values() for row in c.rows for key in row}
  for name, _, _ in metrics:
    if _METRICS.value and name not in measured:
      there = ", ".join(sorted(key for key in measured if "/" in key))
      raise ConfigError(f"--metrics: no run has {name!r}; there are: {there}")
  picture = plotting.curves(
    _panels(runs, found, metrics, lines, varied[1:]),
    folder / f"figure_{_X.value}.png",
  )
  rows = table(runs, found, status, metrics, lines, varied[1:], baseline)
  text = markdown(rows)
  (folder / "table.md").write_text(text, encoding="utf-8")
  with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  print(f"\n{next(iter(found.values())).record['data']}\n\n{text}")
  print(f"figure: {picture}\ntable:  {folder / 'table.md'}, table.csv")


def _parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
  field, eq, values = text.partition("=")
  parts = tuple(common.split(values))
  if not eq or not parts:
    raise ConfigError(f"--vary={text!r}: must read field=value,value,...")
  return field.strip(), parts


def _metric(text: str) -> tuple[str, metrics_lib.Mode, bool]:
  """Reads "train/nll:log" as ("train/nll", "min", True)."""
  name, *options = text.split(":")
  if wrong := set(options) - {"log", "max"}:
    raise ConfigError(f"--metrics={text}: {wrong.pop()!r} is not log or max")
  return name, "max" if "max" in options else "min", "log" in options


def _baseline(values: Sequence[str]) -> str:
  """Which of the first field's values speed is measured against."""
  default = "none" if "none" in values else values[0]
  baseline = default if _BASELINE.value is None else _BASELINE.value
  if baseline not in values:
    raise ConfigError(
      f"--baseline={baseline!r}: must be one of {', '.join(values)}"
    )
  return baseline


def _check(runs: Sequence[runs_lib.Run]) -> None:
  """Checks every run before the first one starts."""
  faults = {}
  for run in runs:
    try:
      launch.load(run.spec)
    except ConfigError as e:
      faults |= dict.fromkeys(e.faults)
  if faults:
    raise ConfigError(*faults)


def _train(runs: Sequence[runs_lib.Run]) -> dict[runs_lib.Run, str]:
  if _FRESH.value:
    for run in runs:
      shutil.rmtree(run.workdir, ignore_errors=True)
  if _DRAW.value:
    return dict.fromkeys(runs, "")

  def here(run: runs_lib.Run) -> None:
    launch.train(run.spec, run.workdir)

  def apart(run: runs_lib.Run) -> None:
    run.workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "experiments.train"]
    command += [f"--config={run.spec}", f"--workdir={run.workdir}"]
    with (run.workdir / "log.txt").open("a") as log:
      code = subprocess.run(
        command, stdout=log, stderr=log, check=False
      ).returncode
    if code == launch.DIVERGED:
      said = (run.workdir / "log.txt").read_text().splitlines()
      raise DivergedError(said[-1].removeprefix("error: "))
    if code:
      raise UserError(f"{run.workdir}: exit code {code}, see its log.txt")

  train = here if _JOBS.value == 1 else apart
  return runs_lib.run_missing(runs, train, jobs=_JOBS.value)


def _groups(varied: Sequence[tuple[str, Sequence[str]]]) -> list[tuple]:
  """The columns of the figure: every combination of the other fields."""
  fields = [field for field, _ in varied]
  return [
    tuple(zip(fields, values, strict=True))
    for values in itertools.product(*(values for _, values in varied))
  ]


def _seeds_of(runs, found, variant) -> list[runs_lib.Run]:
  return [run for run in runs if run.variant == variant and run in found]


def _panels(runs, found, metrics, lines, columns) -> list[list[plotting.Panel]]:
  field, values = lines
  grid = []
  for metric, _, log in metrics:
    row = []
    for group in _groups(columns):
      drawn = []
      for value in values:
        variant = (((field, value),) if field else ()) + group
        # A run that diverged before its first evaluation has no curve.
        seeds = [
          run
          for run in _seeds_of(runs, found, variant)
          if len(found[run].get(metric)[0])
        ]
        if not seeds:
          continue
        curves = [found[run].get(metric) for run in seeds]
        n = min(len(s) for s, _ in curves)
        label = plotting.norm_label(value) if field == "norm" else value
        drawn.append(
          plotting.Line(
            label,
            np.mean(
              [found[r].abscissa(metric, _X.value)[:n] for r in seeds], axis=0
            ),
            np.stack([v[:n] for _, v in curves]),
            value if field == "norm" else "",
          )
        )
      title = ", ".join(f"{k} = {v}" for k, v in group).replace("_", " ")
      xlabel = "training seconds" if _X.value == "seconds" else _X.value
      row.append(plotting.Panel(title, xlabel, metric, drawn, log))
    grid.append(row)
  return grid


def table(
  runs, found, status, metrics, lines, columns, baseline
) -> list[dict[str, Any]]:
  """The numbers of the comparison.

  Args:
    runs: all runs.
    found: {run: Curves} of those that have been trained.
    status: {run: "finished" or why not}.
    metrics: (name, "min" or "max", logarithmic) each; speed is measured on
      the first.
    lines: the first varied field and its values.
    columns: the others.
    baseline: the value of the first field that speed is measured against.

  Returns:
    A row for each variant: values as "mean" or "mean ± standard deviation
    over seeds" of the mean over the last evaluations, the rate of training,
    and the speed-up of docs/claims.md with its interval.
  """
  field, values = lines
  rows = []
  for group in _groups(columns):

    def curves(value, group=group):
      variant = (((field, value),) if field else ()) + group
      seeds = _seeds_of(runs, found, variant)
      return [
        c for run in seeds if len((c := found[run].get(metrics[0][0]))[0])
      ]

    for value in values:
      variant = (((field, value),) if field else ()) + group
      seeds = _seeds_of(runs, found, variant)
      row: dict[str, Any] = dict(variant) | {"seeds": len(seeds)}
      for name, _, _ in metrics:
        row[name] = _spread(
          [
            found[run].get(name)[1][-_LAST.value :].mean()
            for run in seeds
            if len(found[run].get(name)[1])
          ]
        )
      row["steps/s"] = _rate([found[run] for run in seeds])
      row["speed-up"] = _speed_up(
        curves(baseline), curves(value), metrics[0][1], value == baseline
      )
      notes = {status[r] for r in runs if r.variant == variant}
      row["note"] = "; ".join(sorted(notes - {"finished", ""})) or (
        "" if seeds else "missing"
      )
      rows.append(row)
  if not any(row["note"] for row in rows):
    for row in rows:
      del row["note"]
  return rows


def _spread(values: Sequence[float]) -> str:
  if not values:
    return "missing"
  text = f"{np.mean(values):.4g}"
  if len(values) > 1:
    text += f" ± {np.std(values, ddof=1):.2g}"
  return text


def _rate(curves: Sequence[runs_lib.Curves]) -> str:
  """Updates per second of training, the median over the rows of all seeds."""
  rates = [
    row["time/steps_per_s"]
    for c in curves
    for row in c.rows
    if "time/steps_per_s" in row
  ]
  return f"{np.median(rates):.0f}" if rates else "missing"


def _speed_up(baseline, curves, mode: metrics_lib.Mode, itself: bool) -> str:
  if itself:
    return "1 (baseline)"
  if not baseline or not curves:
    return "missing"
  found = metrics_lib.speed_up(baseline, curves, mode=mode)
  text = "not reached" if found.ratio is None else f"{found.ratio:.2f}"
  if found.low is not None and math.isfinite(found.low):
    text += f" [{found.low:.2f}, {found.high:.2f}]"
  return text


def markdown(rows: Sequence[dict[str, Any]]) -> str:
  """Rows as an aligned Markdown table."""
  names = list(rows[0])
  cells = [names, *([str(row[n]) for n in names] for row in rows)]
  widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
  cells.insert(1, ["-" * width for width in widths])
  lines = (
    " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
    for row in cells
  )
  return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
  launch.run(main)
