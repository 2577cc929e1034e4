"""What a scale of `experiments.reproduce` costs, from measured steps.

  python -m experiments.costs [--tasks=...] [--scales=...]

trains one run of every set for a few updates and writes
docs/results/costs.json, from which `experiments.reproduce --plan` estimates.
Where the paper's data is not at hand, a substitute of the same sizes is timed
(`SUBSTITUTES`).
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from absl import flags

from experiments import launch, paper, reproduction
from lnrnn import files, report
from lnrnn.errors import UserError, one_line
from lnrnn.training import config as config_lib

PATH = pathlib.Path(__file__).resolve().parents[1] / "docs/results/costs.json"
UPDATES = 12
# What stands for data that is not at hand; no estimate counts on its content.
SUBSTITUTES = {
  "data.source=cnn,": "data.source=cnn_top4,model.features=240,",
  "data.source=coco": "data.source=flickr8k",
  "data.source=lines": "data.source=novels",
  "data.source=binary,model": (
    "data.source=binary,data.train_cases=14400,model"
  ),
}
# Assumed of one GPU, as none was at hand: FLOP/s that are sustained, and
# seconds of launches for each step of a recurrence, forward or backward.
GPU_FLOPS, GPU_LAUNCH = 1e13, 40e-6
_UNKNOWN = " and what was not measured"


class Measured(NamedTuple):
  """What one run of a set costs on the machine that it was measured on.

  Attributes:
    start: seconds before the first update, compilation included.
    update: seconds.
    evaluation: seconds, with the checkpoint after it.
    memory: peak, MiB.
    disk: of a checkpoint, MiB.
    flops: of an update.
    iterations: of the loops of an update, one after the other.
  """

  start: float
  update: float
  evaluation: float
  memory: float
  disk: float
  flops: float
  iterations: int


def table(names: Sequence[str], scale: str) -> str:
  """What the sections cost at a scale.

  Args:
    names: of `paper.TASKS`.
    scale: of `paper.SCALES`.

  Returns:
    Markdown: a line on the machine, and a row a section.

  Raises:
    UserError: the measurements cannot be read.
  """
  try:
    stored = json.loads(PATH.read_text("utf-8"))
    found = {k: Measured(**v) for k, v in stored["measured"].items()}
    machine = stored["machine"]
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise UserError(f"{PATH}: cannot be read: {one_line(error)}") from error
  rows, total, every = [], [0, 0.0, 0.0, 0.0], ""
  for name in names:
    runs = reproduction.runs_of(
      paper.TASKS[name], scale, pathlib.Path("of_no_use")
    )
    own = [0, 0.0, 0.0, 0.0]  # Runs, CPU and GPU seconds, disk.
    memory, unknown = 0.0, ""
    for each, several in runs.items():
      cost = _cost(found, name, each, scale)
      own[0] += len(several)
      if cost is None:
        unknown = _UNKNOWN
        continue
      memory = max(memory, cost.memory)
      for run in several:
        config = launch.load(run.spec)
        cpu, gpu = _seconds(config, cost)
        own[1] += cpu
        own[2] += gpu
        own[3] += cost.disk * _checkpoints(config)
    every += unknown
    total = [a + b for a, b in zip(total, own, strict=True)]
    rows.append(_row(name, own, memory, unknown))
  rows.append(_row("all", total, 0.0, _UNKNOWN if every else ""))
  return (
    f"One after the other, from steps measured on {machine}; programs that run"
    " after the training are not counted. The GPU's times are an estimate, as"
    f" none was at hand: {GPU_FLOPS / 1e12:g} TFLOP/s sustained, and"
    f" {GPU_LAUNCH * 1e6:g} microseconds of launches for each step of a"
    f" recurrence.\n\n{report.markdown(rows)}"
  )


def _key(task: str, of: str, scale: str) -> str:
  return f"{task}/{of}/{scale}"


def _cost(
  found: Mapping[str, Measured], task: str, of: str, scale: str
) -> Measured | None:
  """What a run of a set costs, or one like it; None if none was measured."""
  by_name = {each.name: each for each in paper.TASKS[task].sets}
  measured = by_name[by_name[of].like or of]
  # The scale gpu has the networks of the paper.
  scales = (_first(measured, scale), "paper" if scale == "gpu" else scale)
  costs = (found.get(_key(task, measured.name, each)) for each in scales)
  return next((cost for cost in costs if cost), None)


def _first(each: paper.Set, scale: str) -> str:
  """The first scale at which a set is as at this one."""
  return next(s for s in paper.SCALES if each.at.get(s) == each.at.get(scale))


def _checkpoints(config: config_lib.Config) -> int:
  """How many a run leaves behind."""
  kept = config.checkpoints_kept + (config.best_kept if config.best else 0)
  every = config.checkpoints_kept_every
  return kept + (config.train_steps // every if every else 0)


def _seconds(config: config_lib.Config, cost: Measured) -> tuple[float, float]:
  """Of a run, on the machine of the measurement and on one GPU."""
  evaluations = config.train_steps // config.eval_every
  rest = cost.start + evaluations * cost.evaluation
  update = cost.flops / GPU_FLOPS + cost.iterations * GPU_LAUNCH
  # An evaluation is mostly arithmetic of the same kind.
  return (
    rest + config.train_steps * cost.update,
    cost.start
    + (config.train_steps + evaluations * cost.evaluation / cost.update)
    * update,
  )


def _row(
  name: str, own: Sequence[float], memory: float, unknown: str
) -> dict[str, Any]:
  return {
    "section": name,
    "runs": own[0],
    "CPU time": _duration(own[1]) + unknown,
    "one GPU, estimated": _duration(own[2]) + unknown,
    "memory of a run": f"{memory / 1024:.1f} GiB" if memory else "",
    "disk": f"{own[3] / 1024:.1f} GiB",
  }


def _duration(seconds: float) -> str:
  for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
    if seconds >= 2 * size:
      return f"{seconds / size:.0f} {unit}"
  return f"{seconds:.0f} seconds"


def measure(spec: str, workdir: pathlib.Path) -> Measured:
  """Trains a run for a few updates, in this process.

  Args:
    spec: of the run.
    workdir: an empty folder.
  """
  import resource
  import time

  import jax

  from lnrnn.training import cost, optim, writers
  from lnrnn.training import step as step_lib

  began = time.perf_counter()
  for whole, instead in SUBSTITUTES.items():
    spec = spec.replace(whole, instead)
  # Two dispatches of the same length, each with an evaluation behind it, so
  # that the second compiles nothing.
  half = UPDATES // 2
  fields = {
    "train_steps": UPDATES,
    "eval_every": half,
    "checkpoint_every": half,
    "log_every": half,
    "steps_per_dispatch": half,
  }
  if "draw" in spec.partition(":")[0]:  # Once, at the end of a run.
    fields |= {"importance_samples": 2, "importance_cases": 2}
  mark = "," if ":" in spec else ":"
  spec += mark + ",".join(f"{k}={v}" for k, v in fields.items())
  launch.train(spec, workdir)
  rows = [r for r in writers.read_metrics(workdir) if "loss" in r]
  first, last = rows[0], rows[-1]
  trained = last["time/train_seconds"] - first["time/train_seconds"]
  ended = writers.read_metrics(workdir)[-1]
  start = time.perf_counter() - began - ended["time/wall_seconds"]
  config = launch.load(spec)
  experiment = launch.task(config).build(config)
  keys = step_lib.Keys.of(config.seed)
  tx = optim.make(config.optimizer, config.train_steps)
  state = jax.eval_shape(lambda: step_lib.init_state(experiment, tx, keys.init))
  batch = experiment.train_data[0]
  update = lambda s, b: step_lib.update(
    experiment, tx, s, b, keys.step, accumulate=config.accumulate
  )
  size = sum(p.stat().st_size for p in workdir.rglob("*") if p.is_file())
  return Measured(
    start=round(max(0.0, start) + first["time/wall_seconds"], 2),
    update=float(f"{trained / (last['step'] - first['step']):.3g}"),
    evaluation=round(ended["time/wall_seconds"] - last["time/wall_seconds"], 2),
    memory=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0),
    disk=round(size / 2 / 2**20, 1),  # Two were saved.
    flops=float(f"{cost.flops(update, state, batch):.3g}"),
    iterations=cost.iterations(update, state, batch),
  )


def main() -> None:
  """Measures the sets of runs that the flags name, each in a process."""
  if _ONE.value:
    with tempfile.TemporaryDirectory() as folder:
      found = measure(_ONE.value, pathlib.Path(folder, "run"))
    print(json.dumps(found._asdict()))
    return
  stored = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}
  measured = stored.get("measured", {})
  for scale in _SCALES.value:
    for name in _TASKS.value:
      runs = reproduction.runs_of(paper.TASKS[name], scale, PATH.parent)
      of = {each.name: each for each in paper.TASKS[name].sets}
      for each, several in runs.items():
        if of[each].like or _first(of[each], scale) != scale:
          continue
        done = subprocess.run(
          [
            *(sys.executable, "-m", "experiments.costs"),
            f"--one={several[0].spec}",
          ],
          capture_output=True,
          text=True,
        )
        key = _key(name, each, scale)
        if done.returncode:
          said = done.stderr.strip().splitlines()[-1:] or [""]
          print(f"{key}: not measured: {said[0]}", flush=True)
          continue
        measured[key] = json.loads(done.stdout.splitlines()[-1])
        print(f"{key}: {measured[key]}", flush=True)
        stored = {"machine": _machine(), "measured": measured}
        with files.atomic(PATH) as part:
          part.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


def _machine() -> str:
  import os

  import jax

  cores = len(os.sched_getaffinity(0))
  return (
    f"a machine with {cores} CPU cores ({platform.machine()}, jax"
    f" {jax.__version__})"
  )


if __name__ == "__main__":
  _ONE = flags.DEFINE_string("one", None, "spec of a run to measure here")
  _TASKS = flags.DEFINE_list("tasks", list(paper.TASKS), "sections")
  _SCALES = flags.DEFINE_list(
    "scales", ["smoke", "cpu", "paper"], "how much is run"
  )
  launch.run(main)
