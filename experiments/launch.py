"""What the programs share: flags, errors, and from a string to an experiment.

Exit codes: 0 done; 1 a fault of ours, with a traceback; 2 something the user
can mend, said in one line; 3 the run diverged; 4 a step stalled; 130 stopped
by Ctrl-C and 143 by SIGTERM, with all work saved unless there was a second
signal.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import importlib
import os
import pathlib
import sys
import types
from typing import Any

from absl import app, flags, logging

from configs import common
from experiments import beside
from lnrnn.errors import (
  ConfigError,
  DivergedError,
  UserError,
  WorkdirError,
  choices,
  one_line,
)
from lnrnn.training import config as config_lib
from lnrnn.training import signals, watchdog, workdir_lock
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Experiment

DIVERGED = 3
STALLED = watchdog.EXIT_CODE


def fold_overrides(argv: Sequence[str]) -> list[str]:
  """Moves every `--config.key=value` into the value of `--config`.

  So one string names the run, and a derived field follows an override.

  Args:
    argv: the command line.

  Returns:
    The command line without them.
  """
  kept, overrides, words = [], [], list(argv)
  while words:
    word = words.pop(0)
    name, eq, value = word.lstrip("-").partition("=")
    if not (word.startswith("-") and name.startswith("config.")):
      kept.append(word)
      continue
    if not eq:
      spaced = words and not words[0].startswith("--")
      value = words.pop(0) if spaced else "true"
    quoted = f'"{value}"' if "," in value else value
    overrides.append(f"{name.removeprefix('config.')}={quoted}")
  for i, word in reversed(list(enumerate(kept))):  # Of several the last holds.
    spaced = word in ("--config", "-config") and i + 1 < len(kept)
    if spaced or word.lstrip("-").startswith("config="):
      at = i + 1 if spaced else i
      mark = "," if ":" in kept[at] else ":"
      kept[at] += "".join(
        (mark if j == 0 else ",") + o for j, o in enumerate(overrides)
      )
      return kept
  return list(argv)  # No --config: absl says what is wrong with the rest.


def run(main: Callable[[], None]) -> None:
  """Runs a program: parses the flags, turns users' errors into one line.

  Args:
    main: the program; reads its flags from `absl.flags.FLAGS`.
  """

  def parse(argv):
    try:
      rest = flags.FLAGS(fold_overrides(argv))
    except flags.Error as e:
      _fail(str(e).replace("FATAL Flags parsing error: ", ""))
    if flags.FLAGS["verbosity"].using_default_value:
      # orbax tells some fifty lines a checkpoint at the default, INFO.
      logging.set_verbosity(logging.WARNING)
      logging.get_absl_handler().addFilter(_has_no_traceback)
      sys.unraisablehook = _unraisable
    if rest[1:]:
      _fail(f"unexpected argument {rest[1]!r}: flags read --name=value")
    return rest

  def guarded(_):
    try:
      with signals.handled():
        main()
    except signals.Interrupted as e:
      signals.tell(f"error: {e}; start again to go on")
      sys.exit(e.exit_code)
    except DivergedError as e:
      _fail(str(e), code=DIVERGED)
    except UserError as e:
      _fail(str(e))

  app.run(guarded, flags_parser=parse)


# What a library logs with a traceback it also raises, and we say it in one
# line; a full disk makes two hundred of orbax's. --verbosity=0 shows them.
def _has_no_traceback(record: Any) -> bool:
  return not record.exc_info


def _unraisable(raised: Any) -> None:
  # tensorstore prints like this what nobody waits for any more.
  if raised.object is not None:
    sys.__unraisablehook__(raised)


def _fail(message: str, code: int = 2) -> None:
  for line in message.split("\n"):
    signals.tell(f"error: {line}")
  sys.exit(code)


def load(spec: str) -> config_lib.Config:
  """From `path.py:key=value,...` to a config that can be run.

  Args:
    spec: names the run.

  Returns:
    The config.

  Raises:
    ConfigError: listing every fault, of the arguments and of the fields.
  """
  config, faults = config_lib.parse(spec)
  if config is not None:
    try:
      faults += task(config).check(config)
    except ConfigError as e:
      faults += e.faults
  if config is None or faults:
    raise ConfigError(*faults)
  return config


def task(config: config_lib.Config) -> types.ModuleType:
  """The module of experiments/ that `config.experiment` names.

  It has `check(config)`, the faults as lines, and `build(config)`, the
  experiment.

  Raises:
    ConfigError: if there is no such task, listing those there are.
  """
  here = pathlib.Path(__file__).parent
  names = sorted(
    path.stem
    for path in here.glob("*.py")
    if (here.parent / "configs" / path.name).exists() and path.stem[0] != "_"
  )
  if config.experiment not in names:
    wrong = choices(config.experiment, names)
    raise ConfigError(f"experiment={config.experiment!r}: {wrong}")
  return importlib.import_module(f"experiments.{config.experiment}")


def config_of(workdir: str | os.PathLike[str]) -> config_lib.Config:
  """The config of the run in a workdir.

  A field that the record lacks came later than the run; its default keeps
  what was done before.

  Raises:
    WorkdirError: if no run has been started there.
    ConfigError: if its experiment is unknown.
  """
  return _completed(workdir_lib.read_config(workdir), f"workdir {workdir}")


def _completed(stored: config_lib.Config, place: str) -> config_lib.Config:
  """A config as it was stored at a place, with the fields that came later."""
  task(stored)
  module = importlib.import_module(f"configs.{stored.experiment}")
  config = module.get_config("")
  try:
    with config.unlocked():
      config.update(stored)
  except (TypeError, ValueError, AttributeError) as e:
    raise WorkdirError(
      f"{place}: {workdir_lib.RECORD} has a field of another type than"
      f" {stored.experiment}: {one_line(e)}"
    ) from e
  return config


def place(workdir: str | None, exported: str | None) -> str:
  """The one folder that `--workdir` or `--exported` of a program names.

  Raises:
    ConfigError: neither or both are given, or a checkpoint of a model.
  """
  named = [path for path in (workdir, exported) if path is not None]
  if len(named) != 1:
    raise ConfigError("either --workdir or --exported is needed")
  if exported is not None and flags.FLAGS["checkpoint"].present:
    raise ConfigError("--checkpoint: goes with --workdir; a model is of one")
  return named[0]


# Fields that say how a run is evaluated, and not what it is.
_EVALUATION = ("eval_", "importance_", "sample_")


def reopen(
  workdir: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> tuple[config_lib.Config, Experiment]:
  """The run in a workdir, on the data it was trained on.

  Args:
    workdir: of the run.
    overrides: `key=value` of fields that say how it is evaluated.

  Returns:
    (config, experiment).

  Raises:
    UserError: if no run is there, the data is another now, or a field is of
      another kind.
  """
  workdir_lib.read_config(workdir)  # Raises where no run is.
  record = workdir_lib.read_record(workdir) or {}
  return rebuild(record, f"workdir {workdir}", overrides)


def rebuild(
  record: Mapping[str, Any], place: str, overrides: Sequence[str] = ()
) -> tuple[config_lib.Config, Experiment]:
  """The run that a record describes, on the data it was trained on.

  Args:
    record: of the run, as of `workdir.checked`.
    place: where the record is, for errors.
    overrides: `key=value` of fields that say how it is evaluated.

  Returns:
    (config, experiment).

  Raises:
    UserError: as of `reopen`.
  """
  config = _completed(config_lib.from_dict(record["config"]), place)
  for override in overrides:
    field, _, text = override.partition("=")
    there = [f for f in config if f.startswith(_EVALUATION)]
    if field not in there:
      raise ConfigError(
        f"--override={override}: {choices(field, sorted(there))}"
      )
    try:
      common.set_field(config, field, text)
    except ValueError as e:
      raise ConfigError(str(e)) from None
  module = task(config)
  if faults := module.check(config):
    raise ConfigError(*faults)
  experiment = module.build(config)
  if record["fingerprint"] != experiment.train_data.fingerprint:
    raise WorkdirError(
      f"{place}: the run was trained on other data ({record['data']}) than"
      f" there is now ({experiment.data})"
    )
  return config, experiment


@signals.abrupt()
def train(spec: str, workdir: str | os.PathLike[str]) -> None:
  """Trains the run `spec` in `workdir`; a finished run is a no-op.

  Args:
    spec: `path.py:key=value,...`.
    workdir: where it writes and resumes from.

  Raises:
    UserError: of some kind; for what the user got wrong, before anything is
      compiled.
  """
  # Imported late: a user's error is answered before orbax and grain load.
  from lnrnn.training import distributed, loop

  config = load(spec)
  distributed.check_agreement("--config", config.to_json())
  distributed.on_main(lambda: workdir_lib.check(workdir, config))
  finished = distributed.broadcast_json(
    distributed.on_main(lambda: workdir_lib.finished_at(workdir, config))
  )
  if finished is not None:
    say(f"{workdir}: finished at step {finished}")
    return
  experiment = task(config).build(config)
  fingerprint = experiment.train_data.fingerprint
  distributed.check_agreement("the data's fingerprint", fingerprint)
  with contextlib.ExitStack() as stack:

    def claim():
      workdir_lib.claim(workdir, fingerprint, experiment.data)
      stack.enter_context(workdir_lock.lock(workdir))
      workdir_lib.write_assets(workdir, experiment.assets)

    distributed.on_main(claim)
    say(f"{workdir}: data: {experiment.data}")
    # A task may have beside(workdir, config), what runs beside its training.
    of = getattr(task(config), "beside", None)
    if of and distributed.is_main():
      stack.enter_context(beside.running(of(workdir, config)))
    loop.train(config, experiment, workdir)


def say(text: str) -> None:
  """Prints a line, once for all processes."""
  from lnrnn.training import distributed

  if distributed.is_main():
    signals.say(text)
