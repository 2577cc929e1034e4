"""Figure and table of a set of runs: what `experiments.compare` shows."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from lnrnn import downstream, plotting
from lnrnn import metrics as metrics_lib
from lnrnn.training import runs as runs_lib
from lnrnn.training.runs import Curves, Run

Varied = tuple[str, Sequence[str]]


class Metric(NamedTuple):
  """A metric as it is shown."""

  name: str
  mode: metrics_lib.Mode
  log: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The runs of a comparison, as far as they have been trained.

  Attributes:
    runs: all of them.
    found: what those that have been trained measured.
    varied: fields and their values; the first gives the lines of a panel.
    metrics: what is shown; speed is measured on the first.
    last: single numbers are means over this many last evaluations.
    running_best: values are the best so far, carried on after a run has
      stopped.
  """

  runs: Sequence[Run]
  found: Mapping[Run, Curves]
  varied: Sequence[Varied]
  metrics: Sequence[Metric]
  last: int = 1
  running_best: bool = False

  @property
  def lines(self) -> Varied:
    """The first varied field and its values."""
    return self.varied[0] if self.varied else ("", ("",))

  def groups(self, *without: str) -> list[dict[str, str]]:
    """Every combination of the other fields, but for those named."""
    rest = [(f, v) for f, v in self.varied[1:] if f not in without]
    return [
      dict(zip((f for f, _ in rest), values, strict=True))
      for values in itertools.product(*(v for _, v in rest))
    ]

  def select(self, chosen: Mapping[str, str]) -> list[Run]:
    """The runs, a seed each, of one variant."""
    return [run for run in self.runs if dict(run.variant) == dict(chosen)]

  def variant(self, value: str, group: Mapping[str, str]) -> dict[str, str]:
    """The fields of one line of one group."""
    field = self.lines[0]
    return ({field: value} if field else {}) | dict(group)

  def curves(self, chosen: Mapping[str, str], metric: str) -> list[Curves]:
    """What the seeds of a variant measured; none that lack the metric."""
    there = [self.found[r] for r in self.select(chosen) if r in self.found]
    # A run that diverged before its first evaluation has no curve.
    return [curves for curves in there if len(curves.get(metric)[0])]

  def values(
    self, chosen: Mapping[str, str], metric: Metric
  ) -> list[metrics_lib.Curve]:
    """Updates and values of each seed of a variant."""
    found = [c.get(metric.name) for c in self.curves(chosen, metric.name)]
    if self.running_best:
      return metrics_lib.carried(found, mode=metric.mode)
    return list(found)

  def ends(self, chosen: Mapping[str, str], metric: Metric) -> list[float]:
    """The last value of each seed: a mean over the last evaluations."""
    return [
      float(np.asarray(values)[-self.last :].mean())
      for _, values in self.values(chosen, metric)
    ]


def panels(
  comparison: Comparison, x: str, *, logx: bool = False, columns: int = 0
) -> list[list[plotting.Panel]]:
  """The figure: a row for each metric, a column for each group.

  Args:
    comparison: to draw.
    x: "updates", "epochs" or "seconds"; or a varied field of numbers, other
      than the first, over whose values the last values are drawn.
    logx: a logarithmic axis; a varied field has one anyway.
    columns: above 0, rows of one panel are joined to so many.

  Returns:
    Rows of panels.
  """
  field, values = comparison.lines
  sweep = dict(comparison.varied[1:]).get(x)
  grid = []
  for metric in comparison.metrics:
    row = []
    for group in comparison.groups(x):
      lines = []
      for value in values:
        variant = comparison.variant(value, group)
        if sweep:
          line = _swept(comparison, variant, metric, x, sweep)
        else:
          line = _over_time(comparison, variant, metric, x)
        if line:
          label, colour = _label(field, value)
          if colour in {line.colour for line in lines}:
            colour = ""
          error = None
          if not sweep and not comparison.running_best:
            error = _error(comparison, variant, metric, len(line[0]))
          lines.append(plotting.Line(label, *line, colour, error))
      title = ", ".join(f"{k} = {v}" for k, v in group.items())
      xlabel = "training seconds" if x == "seconds" else x.split(".")[-1]
      row.append(
        plotting.Panel(
          title.replace("_", " "),
          xlabel.replace("_", " "),
          metric.name,
          lines,
          metric.log,
          logx=logx or bool(sweep),
        )
      )
    grid.append(row)
  if columns and len(grid[0]) == 1:
    flat = [panel for row in grid for panel in row]
    flat += [plotting.Panel("", "", "", [])] * (-len(flat) % columns)
    grid = [flat[i : i + columns] for i in range(0, len(flat), columns)]
  return grid


def _label(field: str, value: str) -> tuple[str, str]:
  """How a line is called, and its colour: a norm's, or "" for any."""
  (first, name), *others = runs_lib.apart(field, value)
  if first != "norm":
    return value, ""
  label = plotting.norm_label(name)
  for other, own in others:
    words = other.rpartition(".")[2].replace("_", " ")
    if own == "true":
      label += f", {words}"
    elif own != "false":
      label += f", {words} {own}"
  return label, name


def _over_time(
  comparison: Comparison, variant: Mapping[str, str], metric: Metric, x: str
) -> tuple[np.ndarray, np.ndarray] | None:
  """X [n] and y [seeds, n] of one line."""
  curves = comparison.curves(variant, metric.name)
  if not curves:
    return None
  found = comparison.values(variant, metric)
  values = [np.asarray(v) for _, v in found]
  n = max(map(len, values))

  def whole(values):
    # What a run that diverged or is not done lacks is seen as a gap.
    return np.pad(
      values.astype(float), (0, n - len(values)), constant_values=np.nan
    )

  if x == "seconds":
    at = [c.abscissa(metric.name, x) for c in curves]
  else:  # Where the values stand, which running bests have filled in.
    per = [c.steps_per_epoch if x == "epochs" else 1 for c in curves]
    at = [np.asarray(s) / p for (s, _), p in zip(found, per, strict=True)]
  across = np.stack([whole(a) for a in at])
  # Where only time differs between seeds, the mean of those that got there.
  there = np.nanmean(across, axis=0)
  return there, np.stack([whole(v) for v in values])


def _error(
  comparison: Comparison, variant: Mapping[str, str], metric: Metric, n: int
) -> np.ndarray | None:
  """Standard errors [n] of a metric that is a mean over folds.

  Such a metric has its standard deviation over the folds beside it, under
  its own name and "_sd"; see `lnrnn.downstream`. The seeds' mean is given.
  """
  there = comparison.values(variant, metric._replace(name=f"{metric.name}_sd"))
  found = [a for a in (np.asarray(v) for _, v in there) if len(a) == n]
  return np.mean(found, axis=0) / np.sqrt(downstream.FOLDS) if found else None


def _swept(
  comparison: Comparison,
  variant: Mapping[str, str],
  metric: Metric,
  field: str,
  values: Sequence[str],
) -> tuple[np.ndarray, np.ndarray] | None:
  """The field's values [n] and the last values [seeds, n] of one line."""
  ends = {
    float(value): comparison.ends({**variant, field: value}, metric)
    for value in values
  }
  at = sorted(value for value, found in ends.items() if found)
  if not at:
    return None
  seeds = min(len(ends[value]) for value in at)
  return np.array(at), np.array([ends[value][:seeds] for value in at]).T


def table(
  comparison: Comparison, status: Mapping[Run, str], baseline: str
) -> list[dict[str, Any]]:
  """The numbers of a comparison.

  Args:
    comparison: to tabulate.
    status: {run: "finished" or why not}.
    baseline: the value of the first field that speed is measured against.

  Returns:
    A row for each variant: "mean" or "mean ± standard deviation over seeds"
    of the last values, the rate of training, and the speed-up of
    docs/claims.md with its interval.
  """
  first = comparison.metrics[0]
  rows = []
  for group in comparison.groups():
    for value in comparison.lines[1]:
      variant = comparison.variant(value, group)
      runs = comparison.select(variant)
      trained = [comparison.found[r] for r in runs if r in comparison.found]
      row: dict[str, Any] = dict(variant) | {"seeds": len(trained)}
      for metric in comparison.metrics:
        row[metric.name] = _spread(comparison.ends(variant, metric))
      row["steps/s"] = _rate(trained)
      against, curves = (
        comparison.values(v, first)
        for v in (comparison.variant(baseline, group), variant)
      )
      row["speed-up"] = (
        "1 (baseline)"
        if value == baseline
        else _speed_up(against, curves, first.mode)
      )
      notes = {status[r] for r in runs} - {"finished", ""}
      notes |= {c.unfinished for c in trained} - {""}
      if len(trained) < len(runs):
        notes.add("missing" if not trained else "seeds are missing")
      row["note"] = "; ".join(sorted(notes))
      rows.append(row)
  if not any(row["note"] for row in rows):
    for row in rows:
      del row["note"]
  return rows


def points(comparison: Comparison) -> list[dict[str, Any]]:
  """Every evaluation of every run: what the figure is drawn from.

  Args:
    comparison: to list.

  Returns:
    A row for each: the variant, seed, updates, epochs, training seconds and
    all metrics, empty where one was not measured.
  """
  rows, names = [], {}
  for run, curves in comparison.found.items():
    for row in curves.rows:
      values = {
        k: f"{v:.6g}"
        for k, v in row.items()
        if "/" in k and not k.startswith("time/") and isinstance(v, float)
      }
      if values:
        names |= dict.fromkeys(values)
        place = {
          "seed": run.seed,
          "updates": row["step"],
          "epochs": f"{row['step'] / curves.steps_per_epoch:.6g}",
          "seconds": f"{row['time/train_seconds']:.6g}",
        }
        rows.append(dict(run.variant) | place | values)
  return [row | {k: row.get(k, "") for k in names} for row in rows]


def _spread(values: Sequence[float]) -> str:
  if not values:
    return "missing"
  text = f"{np.mean(values):.4g}"
  if len(values) > 1:
    text += f" ± {np.std(values, ddof=1):.2g}"
  return text


def _rate(curves: Sequence[Curves]) -> str:
  """Updates per second of training, the median over the rows of all seeds."""
  rates = [
    row["time/steps_per_s"]
    for c in curves
    for row in c.rows
    if "time/steps_per_s" in row
  ]
  return f"{np.median(rates):.3g}" if rates else "missing"


def _speed_up(
  baseline: Sequence[metrics_lib.Curve],
  curves: Sequence[metrics_lib.Curve],
  mode: metrics_lib.Mode,
) -> str:
  if not baseline or not curves:
    return "missing"
  for side in (baseline, curves):
    # What is measured at the end alone, of runs that stopped early.
    if not set.intersection(*(set(np.asarray(steps)) for steps, _ in side)):
      return "no shared update"
  found = metrics_lib.speed_up(baseline, curves, mode=mode)
  text = "not reached" if found.ratio is None else f"{found.ratio:.2f}"
  if found.low is not None and math.isfinite(found.low):
    text += f" [{found.low:.2f}, {found.high:.2f}]"
  return text


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
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
