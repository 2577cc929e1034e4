"""Does a network compute the same in training and at test (section 3)?

  python -m experiments.same --workdir=runs/mnist

restores every finished run of mnist_mlp with layer or batch norm at batch
sizes 128 and 4 in a folder of `experiments.compare`, and measures by the rules
of docs/claims.md how far the logits of test cases are apart

  between training mode and evaluation mode, in one program, and
  between two batches that share a case, in training mode and float64.

It writes `same.json`, the verdicts, and prints them.
"""

import functools
import pathlib
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments import judging, launch, mnist_mlp
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib
from lnrnn.training import signals

_WORKDIR = flags.DEFINE_string("workdir", None, "of the runs", required=True)
CASES = 1000
BATCH = 128
EXACT = 1e-9  # Relative, of layer norm in float64.
SHOWN = 1e-3  # What batch norm has to differ by.
NORMS, BATCH_SIZES = ("layer", "batch"), (128, 4)


class Gaps(NamedTuple):
  """How far the logits of one network are apart.

  Attributes:
    modes: largest difference between training and evaluation mode.
    batches: largest relative difference between two batches, float64.
    alone: the same between a batch and the case alone; NaN for batch norm.
  """

  modes: float
  batches: float
  alone: float


def gaps(model: Any, variables: Any, x: np.ndarray) -> Gaps:
  """Measures one network.

  Args:
    model: a feed-forward network with `train=`.
    variables: its collections.
    x: [n, d] cases, more than `BATCH`.

  Returns:
    How far its logits are apart.
  """

  @functools.partial(jax.jit, static_argnums=2)
  def logits(variables, x, train):
    found = model.apply(variables, x, train=train, mutable=["batch_stats"])
    return found[0]

  # One shape for both modes, so that XLA has no reason to order sums anew.
  modes = np.abs(logits(variables, x, True) - logits(variables, x, False)).max()
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
    rows = jnp.asarray(x, jnp.float64)
    # The first half of the cases, each time with another half beside it.
    half = BATCH // 2
    first = np.asarray(logits(wide, rows[:BATCH], True))[:half]
    other = jnp.concatenate([rows[:half], rows[BATCH : BATCH + half]])
    second = np.asarray(logits(wide, other, True))[:half]
    alone = np.nan
    if model.norm != "batch":
      single = [logits(wide, rows[i : i + 1], True) for i in range(half)]
      alone = _relative(first, np.concatenate(single))
  return Gaps(float(modes), _relative(first, second), alone)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
  return float(np.abs(a - b).max() / np.abs(a).max())


def judge(found: dict[tuple[str, int], list[Gaps]]) -> list[claims.Row]:
  """The rows of section "Same computation" of docs/claims.md.

  Args:
    found: {(norm, batch size): gaps, a network each}.
  """
  by_norm = {
    norm: [g for (n, _), several in found.items() if n == norm for g in several]
    for norm in NORMS
  }
  missing = [
    f"norm={norm}, batch_size={size}"
    for norm in NORMS
    for size in BATCH_SIZES
    if not found.get((norm, size))
  ]
  names = ("same.train-test", "same.batch-independent")
  if missing:
    told = f"no finished run of {'; '.join(missing)}"
    return [claims.row(name, None, None, "", told) for name in names]
  layer, batch = (np.array(by_norm[norm]) for norm in NORMS)
  modes = layer[:, 0].max()
  least = batch[:, 0].min()
  apart = layer[:, 1:].max()
  least_apart = batch[:, 1].min()
  count = f"{len(layer)} networks with layer norm, {len(batch)} with batch norm"
  return [
    _exact(
      names[0],
      modes == 0,
      least > 0,
      f"{modes:.2g}",
      f"batch norm {least:.2g} at least; {count}",
    ),
    _exact(
      names[1],
      apart <= EXACT,
      least_apart > SHOWN,
      f"{apart:.2g}",
      f"batch norm {least_apart:.2g} at least; {count}",
    ),
  ]


def _exact(name, met, shown, effect, beside) -> claims.Row:
  """A row that shows nothing if batch norm passes the check as well."""
  if not shown:
    told = f"the check shows nothing: {beside}"
    return claims.row(name, None, None, "", told)
  return claims.exact(name, met, effect, beside)


@signals.abrupt()
def main() -> None:
  """Measures every network and prints the verdicts."""
  from lnrnn.training import loop

  folder = pathlib.Path(_WORKDIR.value)
  found: dict[tuple[str, int], list[Gaps]] = {}
  for path in sorted(folder.glob("*/config.json")):
    curves = runs_lib.Curves.read(path.parent)
    stored = curves.record["config"]
    key = stored["norm"], stored["batch_size"]
    wanted = key[0] in NORMS and key[1] in BATCH_SIZES
    if stored["experiment"] != "mnist_mlp" or not wanted or curves.unfinished:
      continue
    config, experiment = launch.reopen(path.parent)
    state = loop.restore(config, experiment, path.parent, "latest")
    x = mnist_mlp.inputs(config, "test", CASES)
    found.setdefault(key, []).append(
      gaps(experiment.model, state.variables, np.asarray(x))
    )
  if not found:
    raise UserError(f"--workdir={folder}: no finished run of mnist_mlp there")
  rows = judge(found)
  judging.write_rows(folder / "same.json", rows)
  signals.say(judging.table(rows))


if __name__ == "__main__":
  launch.run(main)
