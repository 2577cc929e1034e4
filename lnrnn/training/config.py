"""Loading, checking and recording configs.

A run is named by one string, `path.py:key=value,...`; a flag
`--config.key=value` means the same as `key=value` in that string.
"""

from collections.abc import Sequence
import json
import math
import pathlib
import runpy
from typing import Any

from ml_collections import config_dict

from lnrnn.errors import ConfigError, choices, one_line
from lnrnn.training import optim

# An ml_collections.ConfigDict. Its own annotations give every field the union
# of all types, which no use of a field would satisfy.
Config = Any

# What may change between two starts of a run: how long it is, how often it
# reports, where its data lies. None of these alters an update.
RESUMABLE = frozenset(
  {
    "train_steps",
    "epochs",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "checkpoints_kept",
    "checkpoints_kept_every",
    "best_kept",
    "patience",
    "steps_per_dispatch",
    "stall_seconds",
    "profile_steps",
    "compare_metrics",
    "downstream.every",
    "downstream.tasks",
    "data.dir",  # Where the data lies; its fingerprint says what it is.
  }
)


def parse(
  spec: str, overrides: Sequence[str] = ()
) -> tuple[Config | None, list[str]]:
  """Loads a config and returns it with the faults of its arguments.

  Args:
    spec: `path.py` or `path.py:key=value,...`.
    overrides: further arguments, each `key=value`.

  Returns:
    The config as far as its arguments could be applied (None if there is no
    such file), and a line for each argument that could not.
  """
  path, _, arg = spec.partition(":")
  arg = ",".join([*filter(None, [arg]), *overrides])
  file = pathlib.Path(path)
  if not file.is_file():
    folders = (file.parent, pathlib.Path("configs"))
    globs = ([str(f) for f in d.glob("[!_]*.py")] for d in folders)
    there = next(filter(None, globs), [])
    listed = sorted(f for f in there if not f.endswith("common.py"))
    return None, [f"config file {path!r} not found; {choices(path, listed)}"]
  try:
    module = runpy.run_path(str(file))
  except (SyntaxError, UnicodeDecodeError) as e:
    return None, [f"config file {path!r} is no Python: {one_line(e)}"]
  if "get_config" not in module:
    return None, [f"config file {path!r} has no function get_config"]
  try:
    config = module["get_config"](arg)
    none = [] if config else [f"get_config of {path!r} returns no config"]
    return config, none
  except ValueError as e:
    # configs/common.py attaches what it could make of the arguments.
    config = getattr(e, "config", None)
    if config is None:
      raise
    return config, str(e).split("\n")


def load_config(spec: str, overrides: Sequence[str] = ()) -> Config:
  """Loads a config, as the binaries do; for notebooks and tests.

  Args:
    spec: `path.py` or `path.py:key=value,...`.
    overrides: further arguments, each `key=value`.

  Returns:
    The config, its fields locked.

  Raises:
    ConfigError: for a missing file, unknown keys or values of a wrong type.
  """
  config, faults = parse(spec, overrides)
  if config is None or faults:
    raise ConfigError(*faults)
  return config


class Checker:
  """Collects the faults of a config's fields, a line each.

  Attributes:
    faults: the lines so far.
  """

  def __init__(self, config: Config):
    self.config = config
    self.faults: list[str] = []

  def get(self, field: str) -> Any:
    """The value of a dotted field."""
    value: Any = self.config
    for key in field.split("."):
      value = value[key]
    return value

  def add(self, field: str, allowed: str) -> None:
    """Notes that a field's value is not what is allowed."""
    self.faults.append(f"{field}={self.get(field)!r}: {allowed}")

  def one_of(self, field: str, allowed: Sequence[str]) -> None:
    """The field must be one of the names, or a suggestion is made."""
    value = self.get(field)
    if value not in allowed:
      self.add(field, choices(value, allowed))

  def within(
    self,
    field: str,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
  ) -> None:
    """The field must be a finite number from low to high."""
    value = self.get(field)
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (math.isfinite(value) and above and below):
      text = f"must be {'above' if open_low else 'at least'} {low}"
      if high < math.inf:
        text += f" and {'below' if open_high else 'at most'} {high}"
      self.add(field, text)

  def decided_by(self, names: Sequence[str]) -> None:
    """What `best` names, if anything, must be one of these metrics."""
    metric = self.config.best.partition(":")[0]
    if metric and metric not in names:
      self.add("best", f"must be one of {', '.join(names)}, with :min or :max")


def check_common(config: Config) -> Checker:
  """Checks the fields that every config has; the task adds its own.

  Args:
    config: any config made from `configs.common.base()`.

  Returns:
    A checker with the faults found so far.
  """
  check = Checker(config)
  check.within("seed", 0, 2**31 - 1)
  check.within("epochs", 0, 2**31 - 1)
  check.within("train_steps", 1, 2**31 - 1)  # The step is an int32.
  for field in (
    "batch_size",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "checkpoints_kept",
    "best_kept",
    "steps_per_dispatch",
    "accumulate",
  ):
    check.within(field, 1, 2**31 - 1)
  check.within("checkpoints_kept_every", 0, 2**31 - 1)
  check.within("stall_seconds", 0, 1e6)  # A timer cannot wait for ever.
  if config.accumulate > 0 and config.batch_size % config.accumulate:
    check.add("accumulate", f"must divide batch_size={config.batch_size}")
  check.within("patience", 0, 2**31 - 1)
  if config.patience and not config.best:
    check.add("patience", "needs best, which says what has to get better")
  steps = config.profile_steps
  if steps and not (
    [type(s) for s in steps] == [int, int]
    and 0 < steps[0] <= steps[1]
    and steps[0] <= config.train_steps
  ):
    why = "must be the first and the last step to trace, as (10,20)"
    check.add("profile_steps", why)
  check.one_of("optimizer.name", optim.NAMES)
  check.one_of("optimizer.schedule", optim.SCHEDULES)
  check.one_of("optimizer.clip_rule", optim.CLIP_RULES)
  check.within("optimizer.learning_rate", 0, open_low=True)
  check.within("optimizer.warmup_steps", 0, max(config.train_steps, 0))
  for field in ("b1", "b2"):
    check.within(f"optimizer.{field}", 0, 1, open_high=True)
  if config.optimizer.name == "adam_authors":
    for field in ("b1", "b2"):  # Its bias correction divides by them.
      check.within(f"optimizer.{field}", 0, 1, open_low=True, open_high=True)
  check.within("optimizer.eps", 0, open_low=True)
  for field in ("weight_decay", "clip", "clip_per_tensor"):
    check.within(f"optimizer.{field}", 0)
  if config.optimizer.weight_decay and config.optimizer.name != "adamw":
    check.add("optimizer.weight_decay", "needs optimizer.name='adamw'")
  if config.best:
    metric, _, mode = config.best.partition(":")
    if "/" not in metric or mode not in ("min", "max"):
      check.add("best", "must read split/metric:min or split/metric:max")
  return check


def to_dict(config: Config) -> dict[str, Any]:
  """A config as plain JSON types (tuples become lists)."""
  return json.loads(config.to_json())


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} -> {"a.b": 1}."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """The fields in which two configs differ, each `key: old -> new`.

  Args:
    old: a config of `to_dict`, as found in a workdir.
    new: a config of `to_dict`, as asked for.

  Returns:
    The lines, without the fields that may change when a run resumes. Where a
    schedule depends on the length of the run, that is not one of them.
  """
  ignored = RESUMABLE
  if old.get("optimizer", {}).get("schedule") != "constant":
    ignored = RESUMABLE - {"train_steps"}
  a, b = flatten(old), flatten(new)
  missing = "(absent)"
  # A field that the record lacks came later than the run, with a default that
  # keeps what was done before (CONTRIBUTING.md).
  return [
    f"{key}: {a[key]!r} -> {b.get(key, missing)!r}"
    for key in sorted(a)
    if key not in ignored and a[key] != b.get(key, missing)
  ]


def from_dict(tree: dict[str, Any]) -> Config:
  """The config of `to_dict`, lists being tuples again; locked."""

  def freeze(value):
    if isinstance(value, dict):
      return {k: freeze(v) for k, v in value.items()}
    return tuple(map(freeze, value)) if isinstance(value, list) else value

  return config_dict.ConfigDict(freeze(tree)).lock()
