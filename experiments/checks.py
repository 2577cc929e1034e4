"""What the recurrent tasks check of their configs alike."""

from lnrnn import cells, norms
from lnrnn.linen_cells import FORMS_OF
from lnrnn.training import config as config_lib


def recurrent(c: config_lib.Checker) -> None:
  """Checks the norm, and where it stands.

  Args:
    c: of a config with `model.form`, `model.eps` and `model.gain_init`, which
      may be None.
  """
  config = c.config
  if fault := norms.unknown_name(config.norm):
    c.faults.append(fault)
  if config.norm == "batch" and config.batch_size < 2 * config.accumulate:
    c.add("batch_size", "batch norm needs at least 2 cases in a microbatch")
  c.one_of("model.form", FORMS_OF.get(config.norm, tuple(cells.FORMS)))
  c.within("model.eps", 0)
  if config.model.gain_init is not None:
    c.within("model.gain_init", 0, 100, open_low=True)


def train_cases(c: config_lib.Checker, size: int | None) -> None:
  """Checks how much of the training set is used.

  Args:
    c: of a config with `data.train_cases`.
    size: of the training set, if it is known.
  """
  config = c.config
  if size:
    c.within("data.train_cases", 1, size)
  if config.batch_size > config.data.train_cases:
    c.add(
      "batch_size",
      f"is larger than the training set (data.train_cases ="
      f" {config.data.train_cases})",
    )
