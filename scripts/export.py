r"""Writes the model of a run as a folder that lnrnn alone can load.

  python scripts/export.py WORKDIR OUT [--checkpoint=latest|best|STEP]

OUT, which must not exist or be empty, gets the weights as safetensors, the
module, its assets and the run's config as JSON, and a model card:

  found = lnrnn.load_exported(OUT)
  y = found.model.apply(found.variables, x)

The card shows what else a model of its task does. Batch norm's statistics are
those that the run is evaluated by: where a task takes them anew at each
evaluation, not the averages kept in training.

Exit codes: 0 done, 2 something the user can mend, said in one line, 130 and
143 interrupted by Ctrl-C and SIGTERM.
"""

import argparse
from collections.abc import Sequence
import pathlib
import re
import sys
from typing import Any

# The experiments are no part of the installed package.
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))

import export_card

from lnrnn.errors import UserError
from lnrnn.training import signals


class _Parser(argparse.ArgumentParser):
  """Tells a fault in one line."""

  def error(self, message: str):
    self.exit(2, f"error: {message}\n")


def parser() -> argparse.ArgumentParser:
  """The command line."""
  kind = argparse.RawDescriptionHelpFormatter
  made = _Parser(description=__doc__, formatter_class=kind, allow_abbrev=False)
  made.add_argument("workdir", metavar="WORKDIR", help="Of the run.")
  made.add_argument("out", metavar="OUT", help="The folder to make.")
  made.add_argument(
    "--checkpoint", default="latest", help="latest (the default), best or STEP"
  )
  made.add_argument(
    "--license",
    default="apache-2.0",
    help="Of the weights, as model hubs name it; apache-2.0, that of the code,"
    " by default. The data may ask for another.",
  )
  return made


def export(workdir: str, out: str, checkpoint: str, license: str) -> None:
  """Writes the folder.

  Args:
    workdir: of the run.
    out: the folder to make.
    checkpoint: latest, best or a step.
    license: of the weights.

  Raises:
    UserError: without a run or a checkpoint, or if the folder is taken.
  """
  # Imported late, so that --help and a wrong flag are answered at once.
  import jax

  from experiments import launch
  from lnrnn import export as export_lib
  from lnrnn import variables as variables_lib
  from lnrnn.errors import ConfigError
  from lnrnn.training import loop, writers
  from lnrnn.training import step as step_lib
  from lnrnn.training import workdir as workdir_lib

  if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
    raise ConfigError(f"--license={license!r}: is no name such as apache-2.0")
  export_lib.check_free(out)
  config, experiment = launch.reopen(workdir)
  if experiment.model is None:
    raise ConfigError(f"experiment={config.experiment!r}: has no model")
  record = workdir_lib.read_record(workdir) or {}
  state = loop.restore(config, experiment, workdir, checkpoint)
  splits = {s for ev in experiment.evals.values() for s in ev.splits}
  run = run_record(
    record,
    writers.read_metrics(workdir),
    splits,
    checkpoint=checkpoint,
    step=int(state.step),
  )
  keys = step_lib.Keys.of(config.seed)
  example = variables_lib.example_of(
    experiment.model, experiment.init, keys.init, experiment.train_data[0]
  )
  variables = state.variables
  if experiment.at_test is not None:
    # As the loop did at this step.
    key = jax.random.fold_in(keys.eval, state.step)
    variables = experiment.at_test(variables, key)
  # What training carries from batch to batch is no part of the model.
  variables = {k: v for k, v in variables.items() if k != "carry"}
  card = export_card.render(
    run,
    model=experiment.model,
    variables=variables,
    about=(launch.task(config).__doc__ or "").partition("\n")[0],
    assets=sorted(experiment.assets),
    example=example,
    folder=pathlib.Path(out).resolve().name,
    license=license,
  )
  export_lib.save(
    out,
    experiment.model,
    variables,
    assets=experiment.assets,
    example=example,
    record=run,
    card=card,
  )


def run_record(
  record: dict[str, Any],
  rows: Sequence[dict[str, Any]],
  splits: set[str],
  *,
  checkpoint: str,
  step: int,
) -> dict[str, Any]:
  """What is known of a run, without the folders of the machine it ran on.

  Args:
    record: config.json of the workdir.
    rows: of its metrics.
    splits: whose metrics are evaluations.
    checkpoint: latest, best or a step.
    step: of that checkpoint.

  Returns:
    JSON types. The metrics are those of the last evaluation up to the
    checkpoint; one that is not finite is None.
  """
  config = record["config"]
  if config.get("data", {}).get("dir"):
    config = {**config, "data": {**config["data"], "dir": ""}}
  last = record["starts"][-1]
  found = {}
  evaluated = None
  for row in rows:
    metrics = {
      name: None if value != value else value  # NaN is not JSON.
      for name, value in row.items()
      if name.partition("/")[0] in splits and isinstance(value, int | float)
    }
    if metrics and row["step"] <= step:
      found, evaluated = metrics, row["step"]
  return {
    "config": config,
    "checkpoint": checkpoint,
    "step": step,
    "data": re.sub(r"(?<!\S)~?/\S*/", "", record["data"]),
    "fingerprint": record["fingerprint"],
    "steps_per_epoch": record["steps_per_epoch"],
    "metrics": found,
    "metrics_step": evaluated,
    "git_commit": last.get("git_commit"),
    "device": last.get("device"),
    "python": last.get("python"),
    "versions": last.get("versions", {}),
  }


def main(arguments: Sequence[str] | None = None) -> int:
  """Exports one run; returns the exit code."""
  options = parser().parse_args(arguments)
  try:
    with signals.handled():
      export(**vars(options))
  except UserError as e:
    for line in str(e).split("\n"):
      print(f"error: {line}", file=sys.stderr)
    return 2
  except signals.Interrupted as e:
    signals.tell(f"error: {e}; nothing was written")
    return e.exit_code
  print(f"{options.out}: exported from {options.workdir}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
