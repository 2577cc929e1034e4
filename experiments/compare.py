"""Trains variants of one config and compares them: one figure, one table.

  python -m experiments.compare --config=configs/mnist_mlp.py \
      --vary=norm=layer,batch,none --vary=batch_size=128,4 --seeds=0,1,2 \
      --workdir=runs/mnist

Every combination of the `--vary` lists is trained for every seed, each in a
folder of its own under the workdir, unless it is finished there. The first
list gives the lines of the figure, the others its columns, `--metrics` its
rows. Fields joined by + vary together, as in
`--vary=norm+model.norm_everywhere=layer+false,batch+false,batch+true`. Beside
the figure stand table.md, table.csv and, with every evaluation, curves.csv.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from configs import common
from experiments import figures, launch, sets
from lnrnn import report
from lnrnn.errors import ConfigError, UserError
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
  "metrics", None, "rows of the figure; default: compare_metrics of the config"
)
_X = flags.DEFINE_string(
  "x",
  "epochs",
  "abscissa of the figure: updates, epochs, seconds (of training), or a field"
  " of --vary after the first, over which the last values are drawn",
)
_COLUMNS = flags.DEFINE_integer(
  "columns",
  0,
  "wrap the metrics to so many columns, where each would have one panel; 0:"
  " a row for each",
  lower_bound=0,
)
_LOGX = flags.DEFINE_bool("logx", False, "a logarithmic abscissa")
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
_RUNNING_BEST = flags.DEFINE_bool(
  "running_best",
  False,
  "draw and tabulate the best value so far, carried on after a run has stopped",
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
  varied = [figures.varied(text) for text in _VARY.value]
  fields = [field for text, _ in varied for field in text.split("+")]
  for field, values in varied:
    for value in values:
      runs_lib.apart(field, value)  # Raises where they do not fit.
  if "seed" in common.parse_arg(_CONFIG.value.partition(":")[2]):
    raise ConfigError("--config: seed= has no effect here; use --seeds")
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
  sets.check(runs, fresh=_FRESH.value)
  names = _METRICS.value or list(launch.load(runs[0].spec).compare_metrics)
  metrics = [figures.metric(name) for name in names]
  x, against = _abscissa(varied), figures.baseline(varied, _BASELINE.value)
  status = _train(runs)
  found = figures.found(runs)
  failed = [s.text for s in status.values() if s.kind == "failed"]
  if not found:
    failed.append(f"--workdir={folder}: no run has been trained there")
    raise UserError("\n".join(failed))
  measured = {key for c in found.values() for row in c.rows for key in row}
  for name, *_ in metrics:
    if _METRICS.value and name not in measured:
      there = ", ".join(sorted(key for key in measured if "/" in key))
      raise ConfigError(f"--metrics: no run has {name!r}; there are: {there}")
  drawn = figures.draw(
    report.Comparison(
      runs, found, varied, metrics, _LAST.value, _RUNNING_BEST.value
    ),
    folder,
    x=x,
    against=against,
    status=status,
    logx=_LOGX.value,
    columns=_COLUMNS.value,
  )
  print(f"\n{next(iter(found.values())).record['data']}\n\n{drawn.table}")
  print(f"figure: {drawn.picture}\ntable:  {folder / 'table.md'}, table.csv")
  print(f"curves: {folder / 'curves.csv'}")
  if failed:
    raise UserError("\n".join(failed))


def _abscissa(varied: Sequence[report.Varied]) -> str:
  """What --x says, if it can be drawn."""
  x = _X.value
  if x in figures.ABSCISSAE:
    return x
  values = dict(varied[1:]).get(x)
  if values is None:
    raise ConfigError(
      f"--x={x}: must be one of {', '.join(figures.ABSCISSAE)}, or a field of"
      " --vary after the first"
    )
  try:
    _ = [float(value) for value in values]
  except ValueError:
    raise ConfigError(f"--x={x}: its values are no numbers") from None
  return x


def _train(
  runs: Sequence[runs_lib.Run],
) -> dict[runs_lib.Run, runs_lib.Status]:
  if _DRAW.value:
    return dict.fromkeys(runs, runs_lib.Status("missing", ""))
  if _FRESH.value:
    sets.delete(runs)
  if _JOBS.value > 1:
    processes = sets.Processes(jobs=_JOBS.value)
    found = runs_lib.run_missing(
      runs, processes.train, jobs=_JOBS.value, stop=processes.stop
    )
  else:
    found = runs_lib.run_missing(
      runs, lambda run: launch.train(run.spec, run.workdir)
    )
  for run, status in found.items():
    if status.kind == "diverged":
      print(f"{run.workdir}: diverged; --fresh, or deleting it, trains it anew")
  return found


if __name__ == "__main__":
  launch.run(main)
