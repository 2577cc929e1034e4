"""Numbers read off training curves: time to a value, speed-up, verdict.

Every number here is defined in words in `docs/claims.md`. A curve is a pair
of arrays, the updates at which a run was evaluated and what it measured
there. A value that is not finite is never a best value and reaches nothing.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Mode = Literal["min", "max"]
Curve = tuple[ArrayLike, ArrayLike]


class SpeedUp(NamedTuple):
  """How many times fewer updates a variant needs than its baseline."""

  ratio: float | None  # None: not reached, or the baseline has no best value
  low: float | None  # 95 % bootstrap interval; None with one seed on a side
  high: float | None
  target: float | None  # the baseline's best value
  baseline_updates: int | None
  variant_updates: int | None  # None: not reached


class Verdict(NamedTuple):
  """What the seeds say of a claim, with the 95 % t interval behind it."""

  verdict: str  # "holds", "contradicted", "undecided", "undecided (n = 2)"
  mean: float | None
  low: float | None
  high: float | None
  n: int


def running_best(values: ArrayLike, *, mode: Mode) -> np.ndarray:
  """Gives the best value seen so far at each evaluation.

  Args:
    values: [n] measured values; non-finite ones are passed over.
    mode: "min" where lower is better, "max" where higher is.

  Returns:
    [n] float64; NaN before the first finite value.

  Source: `docs/claims.md`, "Definitions".
  """
  sign = _sign(mode)
  signed = sign * _finite_or_nan(values)
  return sign * np.fmin.accumulate(signed)


def carried(curves: Sequence[Curve], *, mode: Mode) -> list[Curve]:
  """Gives running bests, each carried on to the end of the longest curve.

  So runs that stopped by their patience can be compared with those that went
  on: a run that has stopped keeps what it has saved.

  Args:
    curves: each (steps [n], values [n]); n may differ.
    mode: "min" where lower is better, "max" where higher is.

  Returns:
    Curves at all steps above 0 of any of them; NaN before a curve's first
    finite value.

  Source: `docs/claims.md`, "Order embeddings".
  """
  pairs = [_curve(curve) for curve in curves]
  steps = np.unique(np.concatenate([s for s, _ in pairs] or [[]]))
  steps = steps[steps > 0].astype(np.int64)
  found: list[Curve] = []
  for own, values in pairs:
    own, values = own[own > 0], values[own > 0]
    best = np.concatenate([[np.nan], running_best(values, mode=mode)])
    found.append((steps, best[np.searchsorted(own, steps, side="right")]))
  return found


def updates_to(
  steps: ArrayLike, values: ArrayLike, target: float, *, mode: Mode
) -> int | None:
  """Gives the first evaluated update at which a curve is at a value.

  Args:
    steps: [n] updates done at each evaluation, strictly increasing.
    values: [n] measured values.
    target: the value to reach; to equal it is to reach it.
    mode: "min" where lower is better, "max" where higher is.

  Returns:
    The number of updates, or None if the value is not reached.

  Raises:
    ValueError: steps and values do not form a curve.

  Source: `docs/claims.md`, "Definitions".
  """
  steps, values = _curve((steps, values))
  sign = _sign(mode)
  (reached,) = np.nonzero(sign * values <= sign * target)
  return int(steps[reached[0]]) if reached.size else None


def speed_up(
  baseline_curves: Sequence[Curve],
  variant_curves: Sequence[Curve],
  *,
  mode: Mode = "min",
  resamples: int = 2000,
  seed: int = 0,
) -> SpeedUp:
  """Gives the shared speed-up number of a variant over its baseline.

  It is the baseline's updates to its best running-best value, over the
  variant's updates to that value, on the mean curve over each side's seeds
  (at the updates that all seeds of the side share; where one seed is not
  finite the mean is not either). Rows at update 0 are left out.

  Args:
    baseline_curves: one curve per seed, each (steps [n], values [n]).
    variant_curves: likewise; the number of seeds may differ.
    mode: "min" where lower is better, "max" where higher is.
    resamples: bootstrap samples; each draws both sides' seeds anew. A sample
      in which the variant does not reach the target counts as ratio 0.
    seed: of the bootstrap.

  Returns:
    The ratio (above 1: the variant is faster) and its 95 % percentile
    interval over seeds, which describes and decides no verdict.

  Raises:
    ValueError: no curves, malformed curves, or seeds without a shared step.

  Source: `docs/claims.md`, "The speed-up number".
  """
  base_steps, base = _stack(baseline_curves)
  steps, variant = _stack(variant_curves)

  def measure(base_rows: np.ndarray, rows: np.ndarray):
    base_mean, mean = base[base_rows].mean(0), variant[rows].mean(0)
    target = float(running_best(base_mean, mode=mode)[-1])
    return (
      target,
      updates_to(base_steps, base_mean, target, mode=mode),
      updates_to(steps, mean, target, mode=mode),
    )

  def ratio(baseline_updates: int, updates: int | None) -> float:
    return baseline_updates / updates if updates else 0.0

  target, baseline_updates, updates = measure(
    np.arange(len(base)), np.arange(len(variant))
  )
  if baseline_updates is None:
    return SpeedUp(None, None, None, None, None, None)
  low = high = None
  if min(len(base), len(variant)) > 1:
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
      _, numerator, denominator = measure(
        rng.integers(len(base), size=len(base)),
        rng.integers(len(variant), size=len(variant)),
      )
      # A value finite in the mean of all seeds is finite in any sample.
      assert numerator is not None
      ratios.append(ratio(numerator, denominator))
    low, high = (float(q) for q in np.percentile(ratios, [2.5, 97.5]))
  reached = ratio(baseline_updates, updates) if updates else None
  return SpeedUp(reached, low, high, target, baseline_updates, updates)


def paired_log_speed_ups(
  baseline_curves: Sequence[Curve],
  variant_curves: Sequence[Curve],
  *,
  mode: Mode = "min",
) -> np.ndarray:
  """Gives the natural log of the speed-up for each seed, for `verdict`.

  The target of a pair is the best value that both of its runs reach: the
  baseline's best, as in `speed_up`, where the variant reaches it, else the
  variant's best. So the effect is always defined, and it changes its sign,
  and nothing else, when the two sides are swapped. Updates that lie at most
  one evaluation apart are a tie: 0.

  Args:
    baseline_curves: one curve per seed, each (steps [n], values [n]).
    variant_curves: the same seeds in the same order.
    mode: "min" where lower is better, "max" where higher is.

  Returns:
    [seeds] positive where the variant is faster. +inf (-inf) where the
    baseline (the variant) alone never had a finite value, NaN where both.

  Raises:
    ValueError: unequal numbers of seeds, or malformed curves.

  Source: `docs/claims.md`, "Faster: the paired effect".
  """
  if len(baseline_curves) != len(variant_curves):
    raise ValueError(
      f"paired curves: {len(baseline_curves)} baseline seeds, "
      f"{len(variant_curves)} variant seeds; give the same seeds of both"
    )
  sign = _sign(mode)
  effects = []
  for pair in zip(baseline_curves, variant_curves, strict=True):
    steps, values = _stack(pair)
    best = [sign * running_best(row, mode=mode) for row in values]
    base_failed, failed = (bool(np.isnan(row[-1])) for row in best)
    if base_failed or failed:
      both = base_failed and failed
      effects.append(np.nan if both else np.inf if base_failed else -np.inf)
      continue
    # Each row falls to its end, and the higher end is at or above the other.
    target = max(row[-1] for row in best)
    base_at, at = (int(np.argmax(row <= target)) for row in best)
    tie = abs(base_at - at) <= 1
    effects.append(0.0 if tie else float(np.log(steps[base_at] / steps[at])))
  return np.array(effects, np.float64)


def verdict(
  differences: ArrayLike, *, claimed: Literal["negative", "positive"]
) -> Verdict:
  """Judges a claim by the sign of an effect measured once per seed.

  "holds" if the 95 % t interval of the mean lies wholly on the claimed side
  of 0, "contradicted" if wholly on the other, else "undecided". Under three
  seeds there is no interval: "undecided (n = 2)". A value that is not finite
  is not dropped: it takes the interval away, unless every seed has the same
  infinity, which then is mean and interval.

  Args:
    differences: [n] one effect per seed: paired differences, or log ratios;
      for a threshold other than 0, subtract it first.
    claimed: the sign that the claim gives the effect.

  Returns:
    The verdict with mean and interval; None for what cannot be formed.

  Raises:
    ValueError: `claimed` is neither sign, or the array is not [n].

  Source: `docs/claims.md`, "The verdict".
  """
  if claimed not in ("negative", "positive"):
    raise ValueError(f"claimed={claimed!r}: use 'negative' or 'positive'")
  effects = np.asarray(differences, np.float64)
  if effects.ndim != 1:
    raise ValueError(f"differences of shape {effects.shape}: one per seed")
  n = len(effects)
  finite = bool(np.isfinite(effects).all())
  mean = float(effects.mean()) if n and finite else None
  if n < 3:
    return Verdict(f"undecided (n = {n})", mean, None, None, n)
  if mean is not None:
    # Lazily: importing lnrnn needs numpy and jax only.
    from scipy import stats

    half = stats.t.ppf(0.975, n - 1) * effects.std(ddof=1) / np.sqrt(n)
    low, high = mean - float(half), mean + float(half)
  elif np.isinf(effects[0]) and (effects == effects[0]).all():
    mean = low = high = float(effects[0])
  else:
    return Verdict("undecided", None, None, None, n)
  if low <= 0 <= high:
    return Verdict("undecided", mean, low, high, n)
  holds = (low > 0) == (claimed == "positive")
  return Verdict("holds" if holds else "contradicted", mean, low, high, n)


def equality(differences: ArrayLike, *, low: float, high: float) -> Verdict:
  """Judges a claim that there is no effect.

  "holds" if the 95 % t interval of the mean lies inside the margins,
  "contradicted" if it lies wholly outside, else "undecided"; as `verdict` in
  all else.

  Args:
    differences: [n] one effect per seed, or per pair of timings.
    low: margin below, under 0.
    high: margin above, over 0.

  Returns:
    The verdict with mean and interval of the effect.

  Raises:
    ValueError: the margins are not around 0, or the array is not [n].

  Source: `docs/claims.md`, "The verdict".
  """
  if not low < 0 < high:
    raise ValueError(f"low={low}, high={high}: must be around 0")
  found = verdict(differences, claimed="positive")
  if found.low is None or found.high is None:
    return found
  if low < found.low and found.high < high:
    return found._replace(verdict="holds")
  outside = found.low > high or found.high < low
  return found._replace(verdict="contradicted" if outside else "undecided")


def _sign(mode: Mode) -> int:
  """Turns "better" into "smaller"."""
  if mode not in ("min", "max"):
    raise ValueError(f"mode={mode!r}: use 'min' or 'max'")
  return 1 if mode == "min" else -1


def _finite_or_nan(values: ArrayLike) -> np.ndarray:
  """Makes infinities NaN, so that means and minima treat them alike."""
  wide = np.asarray(values, np.float64)
  return np.where(np.isfinite(wide), wide, np.nan)


def _curve(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
  """Checks one curve and returns it as arrays [n], [n]."""
  steps, values = np.asarray(curve[0]), _finite_or_nan(curve[1])
  if steps.ndim != 1 or steps.shape != values.shape:
    raise ValueError(
      f"a curve is steps [n] and values [n]; got {steps.shape} and "
      f"{values.shape}"
    )
  if (np.diff(steps) <= 0).any():
    raise ValueError("the steps of a curve must be strictly increasing")
  return steps, values


def _stack(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Gives the steps [n] above 0 that all curves share, and values [k, n]."""
  pairs = [_curve(curve) for curve in curves]
  if not pairs:
    raise ValueError("no curves: give at least one seed")
  shared = pairs[0][0]
  for steps, _ in pairs[1:]:
    shared = np.intersect1d(shared, steps)
  shared = shared[shared > 0]
  if not shared.size:
    raise ValueError("the seeds share no evaluated step above 0")
  rows = [values[np.isin(steps, shared)] for steps, values in pairs]
  return shared, np.stack(rows)
