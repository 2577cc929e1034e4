"""What every config has, and how `file.py:key=value,...` is read."""

import ast
import difflib
import itertools
import math
import re
from typing import Any

from ml_collections import config_dict

# The length of a run with the argument `smoke`, for those that take it.
SMOKE = {
  "train_steps": 4,
  "eval_every": 2,
  "checkpoint_every": 2,
  "log_every": 1,
  "steps_per_dispatch": 1,
}


def base() -> Any:
  """The fields that every config has, with their defaults: a ConfigDict."""
  return config_dict.create(
    experiment="",  # A module of experiments/.
    norm="layer",
    seed=0,
    batch_size=128,
    epochs=0.0,  # Length of the run, where train_steps is not given.
    train_steps=config_dict.placeholder(int),
    log_every=100,  # Steps between two training rows of metrics.jsonl.
    eval_every=config_dict.placeholder(int),  # Steps.
    checkpoint_every=config_dict.placeholder(int),  # Steps.
    checkpoints_kept=2,  # The latest n; the best one is kept beside them.
    checkpoints_kept_every=0,  # And those of every so many steps; 0: none.
    best_kept=1,  # The best n by the metric that `best` names.
    # Updates in one compiled call, at most. A signal waits for its end, so
    # where a step takes long it should be few.
    steps_per_dispatch=50,
    # Microbatches that a batch is cut into, where memory is short: the same
    # update, if the loss is a mean over cases. Batch norm takes its statistics
    # over a microbatch then.
    accumulate=1,
    stall_seconds=600.0,  # A dispatch that takes longer ends the run; 0: never.
    profile_steps=(),  # First and last step to trace, as 10,20.
    # What compare draws: split/metric, with :log for the axis, :max where
    # higher is better. Speed is measured on the first.
    compare_metrics=(),
    best="",  # What decides early saving, as "split/metric:min".
    # Evaluations without a new best value after which a run stops; 0: never.
    patience=0,
    optimizer=dict(
      name="adam",
      learning_rate=1e-3,
      schedule="constant",
      warmup_steps=0,
      b1=0.9,
      b2=0.999,
      eps=1e-8,
      weight_decay=0.0,
      clip=0.0,  # Global norm; 0 is off.
      # "authors": the attentive reader's, see lnrnn/training/optim.py.
      clip_rule="global",
      clip_per_tensor=0.0,  # Norm of each parameter tensor; 0 is off.
    ),
    model=dict(),
    data=dict(),
  )


class ArgumentError(ValueError):
  """Arguments that do not fit the config; one line each.

  Attributes:
    config: the config with the arguments that did fit.
  """

  def __init__(self, faults, config):
    super().__init__("\n".join(faults))
    self.config = config


def split(text):
  """Splits at the commas that are not inside brackets or double quotes."""
  parts = re.findall(r"(?:\([^()]*\)|\[[^\[\]]*\]|\"[^\"]*\"|[^,])+", text)
  return [part.strip() for part in parts]


def parse_arg(arg):
  """Reads "norm=layer,model.hidden=(10,10),smoke" into a dict of strings.

  A bare word means word=true; double quotes hold a value together.
  """
  pairs = (part.partition("=") for part in split(arg or ""))
  return {k.strip(): v.strip('"') if eq else "true" for k, eq, v in pairs}


def finish(config, arg, *, smoke, derive):
  """Applies the arguments, then computes the fields nobody has set.

  Args:
    config: the task's config.
    arg: what stands behind the colon of `--config=file.py:...`.
    smoke: {dotted field: value} of the argument `smoke`: seconds on a CPU,
      the same path through the code.
    derive: function of the config; sets fields that are still None.

  Returns:
    The config, locked.

  Raises:
    ArgumentError: for unknown fields and values of a wrong type, all at once.
  """
  arguments = parse_arg(arg)
  faults = []
  wanted = arguments.pop("smoke", "false")
  if wanted not in ("true", "false"):
    faults.append(f"smoke={wanted!r}: must be true or false")
  if wanted == "true":
    config.update_from_flattened_dict(smoke)
  config.lock()
  for field, text in arguments.items():
    try:
      set_field(config, field, text)
    except ValueError as e:
      faults.append(str(e))
  derive(config)
  if faults:
    raise ArgumentError(faults, config)
  return config


def _fields(config, prefix=""):
  for key in config:
    if isinstance(config[key], config_dict.ConfigDict):
      yield from _fields(config[key], f"{prefix}{key}.")
    else:
      yield prefix + key


def set_field(config, field, text):
  """Sets a dotted field to the value that its default's type reads.

  Raises:
    ValueError: there is no such field, or its type is another.
  """
  names = list(_fields(config))
  if field not in names:
    close = difflib.get_close_matches(field, [*names, "smoke"], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
      f"unknown config field {field!r}; {hint}there are: {', '.join(names)}"
    )
  *path, key = field.split(".")
  for part in path:
    config = config[part]
  kind = config.get_type(key)
  try:
    config[key] = _read(text, kind, config[key])
  except (ValueError, SyntaxError, TypeError):
    raise ValueError(f"{field}={text!r}: must be {_NAMES[kind]}") from None


_NAMES = {
  bool: "true or false",
  int: "a whole number",
  float: "a number",
  str: "a word",
  tuple: "a list such as (1000,1000), its parts typed as the default's",
}


def _read(text, kind, default):
  if kind is bool:
    if text.lower() not in ("true", "1", "false", "0"):
      raise ValueError(text)
    return text.lower() in ("true", "1")
  if kind is tuple:
    value = ast.literal_eval(text)
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if any(type(v) is not type(d) for v in value for d in default[:1]):
      raise ValueError(text)
    return value
  return kind(text)


def steps_per_epoch(examples, batch_size):
  """Whole batches in one pass; 1 where the numbers make no sense (yet)."""
  return max(1, examples // max(1, batch_size))


def steps_in(epochs, epoch):
  """Updates in that many epochs; 1 where the numbers make no sense."""
  steps = epochs * epoch
  return max(1, round(steps)) if math.isfinite(steps) else 1


def set_steps(config, examples, *, eval_every=None, evals=1):
  """Sets `train_steps`, `eval_every`, `checkpoint_every` where nobody has.

  Args:
    config: with `epochs`.
    examples: of one epoch.
    eval_every: steps between two evaluations; None is an epoch.
    evals: evaluations between two checkpoints.
  """
  epoch = steps_per_epoch(examples, config.batch_size)
  if config.train_steps is None:
    config.train_steps = steps_in(config.epochs, epoch)
  if config.eval_every is None:
    config.eval_every = eval_every or epoch
  if config.checkpoint_every is None:
    config.checkpoint_every = evals * config.eval_every


def product(fields, seeds=(0,)):
  """The runs of a sweep: every combination of the values, for every seed.

  Args:
    fields: {dotted field: its values}; a folder bears a value as it is
      written here, so write a rate as it shall read, "3e-4".
    seeds: of each combination.

  Returns:
    A list of arguments, as "norm=layer,batch_size=128,seed=0", the seeds in
    the outer loop.
  """
  return [
    ",".join(f"{k}={v}" for k, v in zip([*fields, "seed"], values, strict=True))
    for seed in seeds
    for values in itertools.product(*fields.values(), (seed,))
  ]
