"""What several tasks check of their configs alike."""

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


def feed_forward(c: config_lib.Checker, names: tuple[str, ...]) -> None:
  """Checks the norm of a feed-forward network, and what it may vary.

  Args:
    c: of a config with the fields that `labelled.norm_options` reads.
    names: the norms there are.
  """
  config = c.config
  if fault := norms.unknown_name(config.norm, names):
    c.faults.append(fault)
  cases = config.batch_size // max(1, config.accumulate)
  if config.norm == "batch" and cases < 2:
    c.add(
      "batch_size",
      "batch norm needs at least 2 cases in a minibatch: the variance over"
      f" one is zero (accumulate={config.accumulate})",
    )
  if config.model.wn_data_dependent_init and config.batch_size == 1:
    c.add(
      "model.wn_data_dependent_init",
      "needs at least 2 cases in the first batch (batch_size=1)",
    )
  c.within("eval_batch_size", 1)
  c.within("model.eps", 0)
  c.within("model.gain_init", 0, open_low=True)
  c.within("model.bn_average_cases", 1)


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
