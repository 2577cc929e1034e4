"""Evaluates sentence vectors on the five tasks of section 6.3.

  python -m experiments.downstream --workdir=runs/skip_ln [--follow]

evaluates every kept checkpoint of a run that is not evaluated yet, and
`--checkpoint=best` (or latest, or a step) one of them anew. With `--follow` it
goes on until the run is finished. Rows go to the workdir's
`metrics_downstream.jsonl`, which all programs read with the run's own; what
each test case gave goes to `downstream/`.

  python -m experiments.downstream --vectors=glove_folder --out=runs/bag
  python -m experiments.downstream --model=exported_folder --out=runs/model

evaluate the mean of word vectors, or an exported model, in the same way.
`--workdir=A --against=B` tells how far two evaluations are apart.

The tasks are SICK relatedness and the classifications MR, CR, SUBJ and MPQA,
in the folders sick and sentence_classification of LNRNN_DATA_DIR. How strongly
a classifier is regularised is chosen for each fold within its training part:
by one split of it, once for a run (`--choice=kept`, which a first evaluation
makes) or anew (`split`), or by 10-fold cross-validation (`nested`, the
authors'). Nothing is chosen on what is tested.
"""

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
import time
from typing import Any

from absl import flags
import filelock
import numpy as np

from experiments import encoders, launch
from experiments.suite import CHOICES, TASKS, Encoder, Suite, folder
from lnrnn import arrays, bootstrap, downstream, files, report
from lnrnn.data import sentence_tasks, word_vectors
from lnrnn.errors import (
  ConfigError,
  DataError,
  WorkdirError,
  choices,
  one_line,
)
from lnrnn.sentence_encoder import SkipThoughtEncoder
from lnrnn.training import checkpoints, signals, writers
from lnrnn.training import runs as runs_lib
from lnrnn.training import workdir as workdir_lib

FOLDER, METRICS = "downstream", "downstream"
_POLL = 5.0  # Seconds.

_WORKDIR = flags.DEFINE_string("workdir", None, "of a run of skip_thoughts")
_VECTORS = flags.DEFINE_string(
  "vectors", None, "word vectors, whose mean is evaluated; a file or a folder"
)
_MODEL = flags.DEFINE_string("model", None, "folder of an exported model")
_OUT = flags.DEFINE_string(
  "out", None, "folder for what --vectors or --model give"
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "all", "all that are missing, or latest, best or a step anew"
)
_FOLLOW = flags.DEFINE_bool(
  "follow", False, "wait for further checkpoints until the run is finished"
)
_PARENT = flags.DEFINE_integer(
  "parent", 0, "process whose end is the end of --follow; 0: none"
)
_AFTER = flags.DEFINE_integer(
  "after", -1, "--follow waits for a start of the run after so many"
)
_UNTRAINED = flags.DEFINE_bool(
  "untrained", False, "evaluate the model of the run before its first update"
)
_TASKS = flags.DEFINE_list(
  "tasks", None, f"of {', '.join(TASKS)}; default: all, or those of the run"
)
_CHOICE = flags.DEFINE_enum("choice", "kept", CHOICES, "see above")
_EXPAND = flags.DEFINE_string(
  "expand", None, "word vectors by which the vocabulary is enlarged"
)
_AGAINST = flags.DEFINE_string(
  "against",
  None,
  "evaluate nothing; tell what separates the last evaluation in --workdir from"
  " that in this folder, with bootstrap intervals over the test cases",
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "of the tasks' files; default: LNRNN_DATA_DIR"
)


def _suffix(extra: Mapping[str, Any]) -> str:
  """What tells an evaluation from others of its step, in names of files."""
  return "".join(f"_{name}" for name in sorted(extra) if extra[name])


def _ways() -> dict[str, bool]:
  """What the flags change of the usual way to evaluate."""
  ways = {way: _CHOICE.value == way for way in ("nested", "split")}
  return ways | {"expanded": bool(_EXPAND.value)}


def _evaluated(
  workdir: pathlib.Path, tasks: Sequence[str], how: Mapping[str, bool]
) -> set[int]:
  """Steps at which all tasks have been evaluated in a way."""
  names = ["sick_pearson" if task == "sick" else task for task in tasks]
  found = set()
  for path in (workdir / FOLDER).glob("[0-9]*.json"):
    step, mark, rest = path.stem.partition("_")
    if mark + rest == _suffix(how) and set(names) <= _read_json(path).keys():
      found.add(int(step))
  if any(how.values()):
    return found  # No row tells of these.
  rows = writers.read_rows(workdir / writers.beside(METRICS))
  wanted = {f"downstream/{name}" for name in names}
  return {row["step"] for row in rows if wanted <= row.keys()}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  """What a file of ours holds; nothing, if there is none.

  Raises:
    WorkdirError: it is damaged.
  """
  try:
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
  except (OSError, ValueError) as error:
    raise WorkdirError(f"{path}: cannot be read: {one_line(error)}") from error
  if not isinstance(found, dict):
    raise WorkdirError(f"{path}: is no object of JSON")
  return found


def _one(
  tasks: Suite, encoder: Encoder, out: pathlib.Path, step: int, extra: Any
) -> dict[str, float]:
  """Evaluates a checkpoint and writes what came out."""
  files_of = out / FOLDER
  files_of.mkdir(parents=True, exist_ok=True)
  # Vectors of other words choose for themselves; the untrained model, which
  # shall not choose for the trained ones, does so every time.
  larger = _suffix({"expanded": extra.get("expanded")})
  path = files_of / f"regularisation{larger}.json"
  keeps = _CHOICE.value == "kept" and not extra.get("untrained")
  kept = _read_json(path) if keeps else {}
  for task, values in kept.items():
    if not (isinstance(values, list) and len(values) == downstream.FOLDS):
      raise WorkdirError(
        f"{path}: {task}: a list of {downstream.FOLDS} numbers is needed;"
        " without the file it is chosen anew"
      )
  found, cases = tasks.measure(encoder, _CHOICE.value, kept)
  if keeps:
    with files.atomic(path) as part:
      part.write_text(json.dumps(kept) + "\n", "utf-8")
  # What was evaluated before, of other tasks, stays.
  about = files_of / f"{step:08d}{_suffix(extra)}.json"
  shown = {k: v if math.isfinite(v) else None for k, v in found.items()}
  with files.atomic(about) as part:
    text = json.dumps(_read_json(about) | shown, indent=1)
    part.write_text(text + "\n", "utf-8")
  path = about.with_suffix(".npz")
  cases = (arrays.load_npz(path) if path.exists() else {}) | cases
  with files.atomic(path) as part, part.open("wb") as file:
    np.savez(file, **cases)  # type: ignore
  return found


def _seconds(workdir: pathlib.Path, step: int) -> dict[str, float]:
  """Training seconds at a step, or before it, for figures over them."""
  found = 0.0
  for row in writers.read_metrics(workdir):
    if row["step"] <= step and "time/train_seconds" in row:
      found = row["time/train_seconds"]
  return {"time/train_seconds": found}


def _starts(workdir: pathlib.Path) -> int:
  """How often the training of a run has been started."""
  record = workdir_lib.read_record(workdir)
  return len(record["starts"]) if record else 0


def _run(workdir: pathlib.Path) -> None:
  """Evaluates checkpoints of a run."""
  # The record of an earlier start may tell of fewer steps.
  while _FOLLOW.value and _starts(workdir) <= _AFTER.value:
    _wait()
  config = launch.config_of(workdir)
  if config.experiment != "skip_thoughts":
    raise WorkdirError(
      f"workdir {workdir}: is a run of {config.experiment}; sentence vectors"
      " are those of skip_thoughts"
    )
  tasks = Suite(_DATA_DIR.value, _tasks(config.downstream.tasks))
  larger = word_vectors.load(_EXPAND.value) if _EXPAND.value else None
  how = _ways()
  every = config.downstream.every or config.checkpoints_kept_every or 1

  def evaluate(model: SkipThoughtEncoder, step: int, **extra: Any) -> None:
    if larger:
      model = model.expanded(larger)
    began = time.monotonic()
    # By one process at a time: what is kept is read and written.
    with (
      files.writing(workdir),
      filelock.FileLock(workdir / f"{FOLDER}.lock"),
    ):
      found = _one(tasks, Encoder.of(model), workdir, step, extra | how)
      # Curves are drawn of one way to evaluate, at the steps of all.
      split, named = "downstream", found
      if extra.get("untrained"):
        split = "untrained"
        named = found | {"nll": encoders.untrained_nll(config)}
      row = {f"{split}/{name}": value for name, value in named.items()}
      if not any(how.values()) and (
        step % every == 0 or step == config.train_steps
      ):
        row |= _seconds(workdir, step)
        writers.put_row(workdir / writers.beside(METRICS), step, row)
    took = time.monotonic() - began
    signals.say(f"{workdir}: step {step}: {_told(found)}  ({took:.0f} s)")

  if _UNTRAINED.value:
    evaluate(encoders.untrained_encoder(workdir), 0, untrained=True)
    return
  if _CHECKPOINT.value != "all":
    evaluate(*encoders.restored(workdir, _CHECKPOINT.value))
    return
  while True:
    # Asked before the checkpoints are, so that none is missed.
    ended = workdir_lib.is_finished(workdir, config)
    ended = ended or runs_lib.Curves.read(workdir).diverged
    done = _evaluated(workdir, tasks.names, how)
    due = [
      step
      for step in checkpoints.committed_steps(workdir)
      if step not in done and (step % every == 0 or step == config.train_steps)
    ]
    for step in due:
      _check_parent()
      # It may have been cleared away meanwhile.
      if step in checkpoints.committed_steps(workdir):
        evaluate(*encoders.restored(workdir, str(step)))
    if due:
      continue
    if ended or not _FOLLOW.value:
      return
    _wait()


def _wait() -> None:
  """Waits for a training to go on."""
  time.sleep(_POLL)
  _check_parent()


def _check_parent() -> None:
  """Ends this process where the training has been ended.

  Raises:
    WorkdirError: it has.
  """
  if _PARENT.value and os.getppid() != _PARENT.value:
    raise WorkdirError("the training has ended before its end")


def _told(found: dict[str, float]) -> str:
  names = [n for n in found if not n.endswith(("_sd", "_unknown"))]
  return ", ".join(f"{name} {found[name]:.4g}" for name in names)


def _tasks(default: Sequence[str]) -> Sequence[str]:
  names = _TASKS.value or default
  for name in names:
    if name not in TASKS:
      raise ConfigError(f"--tasks={name}: {choices(name, TASKS)}")
  return names


def _gaps(ours: pathlib.Path, theirs: pathlib.Path) -> str:
  """What separates two evaluations, by the test cases they share, as a table.

  Raises:
    WorkdirError: there are none.
    DataError: a file is damaged, or of other cases.
  """
  there = []
  for out in (ours, theirs):
    paths = {p.stem: p for p in (out / FOLDER).glob("[0-9]*[0-9].npz")}
    if not paths:
      raise WorkdirError(f"{out}: no sentence vectors were evaluated there")
    there.append(paths)
  # The last step of both, or of each where they share none: word vectors have
  # no steps.
  shared = set.intersection(*map(set, there))
  chosen = [paths[max(shared or paths)] for paths in there]
  found = [(path, arrays.load_npz(path)) for path in chosen]
  (a_path, a), (b_path, b) = found
  rows = []
  for task in TASKS:
    if task not in a or task not in b:
      continue
    if a[task].shape != b[task].shape:
      raise DataError(f"{a_path} and {b_path}: {task} is of other test cases")
    if task == "sick":
      pairs = sentence_tasks.read_sick(folder(_DATA_DIR.value, task))
      scores = pairs["test"].scores
      for measure in ("pearson", "spearman", "mse"):
        gap = bootstrap.relatedness_gap(a[task], b[task], scores, measure)
        rows.append((f"sick {measure}", gap))
    else:
      gap = bootstrap.paired_gap(100.0 * a[task], 100.0 * b[task])
      rows.append((task, gap))
  table = [
    {"task": name, "gap": f"{g.gap:+.3g}", "low": f"{g.low:+.3g}"}
    | {"high": f"{g.high:+.3g}"}
    for name, g in rows
  ]
  return f"{a_path} less {b_path}:\n\n{report.markdown(table)}"


@signals.abrupt()
def main() -> None:
  """Evaluates a run, a model or word vectors."""
  given = [f for f in (_WORKDIR, _VECTORS, _MODEL) if f.value]
  if len(given) != 1:
    raise ConfigError("one of --workdir, --vectors and --model is needed")
  for flag, other in (
    (_FOLLOW, _UNTRAINED),
    (_EXPAND, _VECTORS),
    (_UNTRAINED, _VECTORS),
    (_UNTRAINED, _MODEL),
    (_OUT, _WORKDIR),
  ):
    if flag.value and other.value:
      raise ConfigError(f"--{flag.name} has no effect with --{other.name}")
  if _FOLLOW.value and _CHECKPOINT.value != "all":
    raise ConfigError("--follow has no effect with --checkpoint")
  if _AGAINST.value:
    if not _WORKDIR.value:
      raise ConfigError("--against: needs --workdir")
    both = pathlib.Path(_WORKDIR.value), pathlib.Path(_AGAINST.value)
    signals.say(_gaps(*both))
    return
  if _FOLLOW.value and hasattr(os, "nice"):
    os.nice(10)  # The training comes first.
  if _WORKDIR.value:
    _run(pathlib.Path(_WORKDIR.value))
    return
  if not _OUT.value:
    raise ConfigError("--out: a folder for the results is needed")
  how = _ways()
  taken = pathlib.Path(_OUT.value, FOLDER, f"{0:08d}{_suffix(how)}.json")
  if taken.exists():
    raise ConfigError(f"--out={_OUT.value}: {taken} is there; name another")
  tasks = Suite(_DATA_DIR.value, _tasks(TASKS))
  if _VECTORS.value:
    encoder = Encoder.bag(word_vectors.load(_VECTORS.value))
  else:
    model = SkipThoughtEncoder.load(str(_MODEL.value))
    if _EXPAND.value:
      model = model.expanded(word_vectors.load(_EXPAND.value))
    encoder = Encoder.of(model)
  out = pathlib.Path(_OUT.value)
  with files.writing(out):
    found = _one(tasks, encoder, out, 0, how)
  signals.say(json.dumps(found, indent=1))


if __name__ == "__main__":
  launch.run(main)
