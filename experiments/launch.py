"""What the programs share: flags, errors, and from a string to an experiment.

Exit codes: 0 done; 2 something the user can mend, said in one line; 3 the run
diverged; 130 interrupted by Ctrl-C; 1 a fault of ours, with a traceback.
"""

from collections.abc import Callable, Sequence
import importlib
import os
import pathlib
import sys
import types

from absl import app, flags, logging

from lnrnn.errors import ConfigError, DivergedError, UserError, choices
from lnrnn.training import config as config_lib
from lnrnn.training import workdir as workdir_lib

DIVERGED = 3
INTERRUPTED = 130


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
    overrides.append(f"{name.removeprefix('config.')}={value}")
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
    if rest[1:]:
      _fail(f"unexpected argument {rest[1]!r}: flags read --name=value")
    return rest

  def guarded(_):
    try:
      main()
    except KeyboardInterrupt:
      _fail("interrupted; start again to go on", code=INTERRUPTED)
    except DivergedError as e:
      _fail(str(e), code=DIVERGED)
    except UserError as e:
      _fail(str(e))

  app.run(guarded, flags_parser=parse)


def _fail(message: str, code: int = 2) -> None:
  for line in message.split("\n"):
    print(f"error: {line}", file=sys.stderr)
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


def train(spec: str, workdir: str | os.PathLike[str]) -> None:
  """Trains the run `spec` in `workdir`; a finished run is a no-op.

  Args:
    spec: `path.py:key=value,...`.
    workdir: where it writes and resumes from.

  Raises:
    UserError: of some kind, before anything is compiled.
  """
  # Imported late: a user's error is answered before orbax and grain load.
  from lnrnn.training import loop

  config = load(spec)
  workdir_lib.check(workdir, config)
  if workdir_lib.is_finished(workdir, config):
    print(f"{workdir}: finished at step {config.train_steps}")
    return
  experiment = task(config).build(config)
  fingerprint = experiment.train_data.fingerprint
  workdir_lib.claim(workdir, fingerprint, experiment.data)
  print(f"{workdir}: data: {experiment.data}", flush=True)
  loop.train(config, experiment, workdir)
