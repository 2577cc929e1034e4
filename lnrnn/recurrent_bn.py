"""Recurrent batch normalisation: statistics for each time step.

Source: Cooijmans et al. 2016, sections 3 and 4. Theirs is for the LSTM; for
the GRU it is our extension. Gain and bias are shared over time, and belong
to the cell; here are the statistics, which belong to the sequence.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn import engine, norms
from lnrnn.norms import Affine, Moments

PADDING = ("masked", "all")
TEST = norms.TEST
# Fewer live rows than this tell little about the others.
MIN_ROWS = 8

SiteMoments = dict[str, Moments]
# (step, consts, carry, xs) -> (carry, ys).
Scan = Callable[[engine.Step, Any, Any, Any], tuple[Any, Any]]


def by_minibatch(
  recurrence: engine.Recurrence, eps: float, padding: str
) -> engine.Step:
  """The step that normalises by the minibatch at hand.

  Args:
    recurrence: of a cell.
    eps: added to the variance, in squared units of the summed inputs.
    padding: "all" takes the statistics over all rows, finished ones too, as
      the authors of the method did. "masked" takes them over the live rows,
      and keeps those of the last step that had at least 8 of them, or as
      many as the first step if that has fewer.

  Returns:
    A step on the carry (state, moments), the consts (consts, rows) and the
    input (x, live); live [...] are the booleans of the unfinished rows, or
    None, and rows their number at the first step. It puts out (y, moments).
  """

  def step(dot, consts, carry, x_live):
    consts, first_rows = consts
    (state, previous), (x, live) = carry, x_live
    found: SiteMoments = {}

    def normalise(site: str, a: jax.Array, affine: Affine) -> jax.Array:
      if live is None or padding == "all":
        moments = norms.batch_moments(a)
      else:
        moments = engine.select(
          enough(live.sum(), first_rows),
          norms.batch_moments(a, live=live),
          previous[site],
        )
      found[site] = moments
      return norms.batch_norm(a, *affine, moments, eps=eps)

    inner = _renormalised(recurrence, normalise)
    if live is not None:
      inner, x = engine.masked(inner), (x, live)
    state, y = inner(dot, consts, state, x)
    return (state, found), (y, found)

  return step


def by_population(recurrence: engine.Recurrence, eps: float) -> engine.Step:
  """The step that normalises by given moments, the input (x, moments)."""

  def step(dot, consts, carry, x_moments):
    x, moments = x_moments

    def normalise(site: str, a: jax.Array, affine: Affine) -> jax.Array:
      return norms.batch_norm(a, *affine, moments[site], eps=eps)

    return _renormalised(recurrence, normalise)(dot, consts, carry, x)

  return step


def _renormalised(recurrence: engine.Recurrence, normalise) -> engine.Step:
  assert recurrence.normalised, "a cell with `sites` must set `normalised`"
  return recurrence.normalised(normalise)


def enough(rows: jax.Array, first_rows: jax.Array) -> jax.Array:
  """Whether so many live rows give a step statistics of its own.

  Args:
    rows: [...] numbers of live rows.
    first_rows: [] their number at the first step.

  Returns:
    [...] booleans.
  """
  return rows >= jnp.minimum(first_rows, MIN_ROWS)


def _masked_with_moments(step):
  """`engine.masked` for a step whose input is ((x, live), moments)."""

  def masked_step(dot, consts, carry, t):
    (x, live), moments = t
    inner = engine.masked(
      lambda dot, consts, carry, x: step(dot, consts, carry, (x, moments))
    )
    return inner(dot, consts, carry, (x, live))

  return masked_step


class StepStatistics(nn.Module):
  """Averages of the moments of each time step, in `batch_stats`.

  Variables: for each site the mean and the variance, [t_max, n] each, and
  `seen` [t_max], the number of minibatches that had statistics at this step.
  Each step's average is debiased by its own count (`norms.running_average`).

  Attributes:
    sites: {site: width}.
    t_max: number of steps that have statistics.
    momentum: weight of the past in the averages, in [0, 1).
    dtype: of the averages.
  """

  sites: Mapping[str, int]
  t_max: int
  momentum: float
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the averages."""
    self.seen = self.variable(
      "batch_stats", "seen", jnp.zeros, (self.t_max,), jnp.int32
    )
    self.means = {
      site: self._average(f"{site}_mean", jnp.zeros, width)
      for site, width in self.sites.items()
    }
    self.vars = {
      site: self._average(f"{site}_var", jnp.ones, width)
      for site, width in self.sites.items()
    }

  def _average(self, name, start, width):
    shape = (self.t_max, width)
    return self.variable("batch_stats", name, start, shape, self.dtype)

  def run(
    self,
    scan: Scan,
    layer: engine.Recurrence,
    carry: Any,
    x: jax.Array,
    live: jax.Array | None = None,
    *,
    eps: float,
    train: bool,
    test: str = "population",
    padding: str = "masked",
  ) -> tuple[Any, Any]:
    """Runs a recurrence with its sites normalised.

    Args:
      scan: (step, consts, carry, xs) -> (carry, ys), by the engine.
      layer: with the `sites` of this module.
      carry: the first.
      x: [t, ...] inputs.
      live: [t, ...] whether a row is unfinished; None if all are.
      eps: added to the variance.
      train: normalise by the minibatch, and take it into the averages where
        these are mutable.
      test: one of `TEST`; what to do where `train` is false.
      padding: of `by_minibatch`.

    Returns:
      The last carry, and the outputs.

    Raises:
      ValueError: training on more than `t_max` steps.
    """
    steps = len(x)
    if not train and test == "population":
      step, xs = by_population(layer, eps), x
      if live is not None:
        # The moments of a step belong to no row, so they stay outside.
        step = _masked_with_moments(step)
        xs = (x, live)
      return scan(step, layer.consts, carry, (xs, self.population(steps)))
    if train and steps > self.t_max:
      raise ValueError(
        f"RNN: training sequences of {steps} steps are longer than"
        f" t_max={self.t_max}"
      )
    rows = None if live is None else live.reshape(steps, -1).sum(axis=1)
    first_rows = jnp.zeros((), jnp.int32) if rows is None else rows[0]
    (last, _), (y, found) = scan(
      by_minibatch(layer, eps, padding),
      (layer.consts, first_rows),
      (carry, self.start()),
      (x, live),
    )
    mutable = self.is_mutable_collection("batch_stats")
    if train and mutable and not self.is_initializing():
      if rows is None:
        counts = jnp.ones(steps, bool)
      elif padding == "all":
        counts = rows > 0
      else:
        counts = (rows > 0) & enough(rows, rows[0])
      self.update(jax.lax.stop_gradient(found), counts)
    return last, y

  def start(self) -> SiteMoments:
    """Moments to begin a scan with; no step normalises by them."""
    return {
      site: Moments(jnp.zeros(n, self.dtype), jnp.ones(n, self.dtype))
      for site, n in self.sites.items()
    }

  def population(self, steps: int) -> SiteMoments:
    """The averages for `steps` time steps, [steps, n] each.

    Beyond the last step that was ever seen, its averages are used again.
    """
    last = jnp.max(jnp.arange(self.t_max) * (self.seen.value > 0))
    at = jnp.minimum(jnp.arange(steps), last)
    return {
      site: Moments(self.means[site].value[at], self.vars[site].value[at])
      for site in self.sites
    }

  def update(self, found: SiteMoments, counts: jax.Array) -> None:
    """Takes the moments of a minibatch into the averages.

    Args:
      found: [t, n] each.
      counts: [t] booleans of the steps that count.
    """
    t = len(counts)
    # A restored checkpoint may hold NumPy arrays.
    seen = jnp.asarray(self.seen.value).at[:t].add(counts.astype(jnp.int32))
    self.seen.value = seen

    def take(variable, new):
      old = variable.value[:t]
      # A step that does not count may have seen none, so never divide by 0.
      times = jnp.maximum(seen[:t, None], 1)
      new = norms.running_average(old, new, times, self.momentum)
      kept = jnp.where(counts[:, None], new, old)
      variable.value = jnp.asarray(variable.value).at[:t].set(kept)

    for site, moments in found.items():
      take(self.means[site], moments.mean)
      take(self.vars[site], moments.var)
