"""How far two systems are apart on the same cases."""

import numpy as np
import pytest
from scipy import stats

from lnrnn import bootstrap


def test_the_interval_of_two_cases_is_as_by_hand():
  """One draws 00, 01, 10, 11: gaps 1, 1/2, 1/2, 0."""
  gap = bootstrap.paired_gap([True, True], [False, True])
  assert gap == (0.5, 0, 1)
  inner = bootstrap.paired_gap([True, True], [False, True], level=0.4)
  assert inner == (0.5, 0.5, 0.5)
  assert bootstrap.paired_gap([1, 0, 1], [1, 0, 1]) == (0, 0, 0)


def test_each_draw_has_as_many_cases():
  seen = []

  def statistic(counts):
    seen.append(counts)
    return counts[:, 0]

  found = bootstrap.paired_bootstrap(statistic, 5, draws=4000, level=0.5)
  counts = np.concatenate(seen[:-1])
  assert counts.shape == (4000, 5) and (counts.sum(1) == 5).all()
  # Binomial (5, 1/5), which four cases are as well.
  assert counts.mean(0) == pytest.approx([1] * 5, abs=0.06)
  assert counts.var(0) == pytest.approx([0.8] * 5, abs=0.08)
  assert found == (1, 0, 2)


def test_the_interval_of_accuracies_is_that_of_the_normal_law():
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 2000)) < [[0.8], [0.75]]
  d = a.astype(float) - b
  gap = bootstrap.paired_gap(a, b, seed=1)
  half = 1.96 * d.std() / np.sqrt(2000)
  assert gap.gap == pytest.approx(d.mean())
  assert gap.low == pytest.approx(d.mean() - half, abs=0.002)
  assert gap.high == pytest.approx(d.mean() + half, abs=0.002)
  assert gap == bootstrap.paired_gap(a, b, seed=1)
  other = bootstrap.paired_gap(b, a, seed=1)
  np.testing.assert_allclose(other, [-gap.gap, -gap.high, -gap.low], atol=1e-12)


@pytest.mark.parametrize("block", [7, 1 << 20])
@pytest.mark.parametrize("measure", ["pearson", "spearman", "mse"])
def test_gaps_are_those_of_scipy_on_the_drawn_cases(
  measure, block, monkeypatch
):
  monkeypatch.setattr(bootstrap, "_BLOCK", block)
  rng = np.random.default_rng(0)
  n, draws = 40, 50
  y = np.round(rng.uniform(1, 5, n), 1) + 1000  # With ties, far from zero.
  a = np.round(y + rng.normal(size=n))
  b = y + 2 * rng.normal(size=n)
  of = {
    "pearson": lambda p, y: stats.pearsonr(p, y)[0],
    "spearman": lambda p, y: stats.spearmanr(p, y)[0],
    "mse": lambda p, y: np.mean((p - y) ** 2),
  }[measure]
  found = bootstrap.relatedness_gap(a, b, y, measure, draws=draws, seed=3)
  assert found.gap == pytest.approx(of(a, y) - of(b, y))
  rows = np.random.default_rng(3).integers(n, size=(draws, n))
  gaps = [of(a[r], y[r]) - of(b[r], y[r]) for r in rows]
  expected = np.quantile(gaps, [0.025, 0.975])
  np.testing.assert_allclose(found[1:], expected, rtol=1e-7)


@pytest.mark.parametrize("measure", ["pearson", "spearman"])
def test_the_gap_to_a_constant_is_not_known(measure):
  y = np.arange(20.0)
  for bad in (np.full(20, 3.3), np.where(y == 4, np.nan, y)):
    gap = bootstrap.relatedness_gap(y, bad, y, measure, draws=20)
    assert np.isnan(gap).all()
  same = bootstrap.relatedness_gap(y, y, y, measure, draws=20)
  np.testing.assert_allclose(same, 0, atol=1e-12)


def test_gaps_of_what_does_not_fit_are_refused():
  y = np.arange(5.0)
  with pytest.raises(ValueError, match="did you mean 'pearson'"):
    bootstrap.relatedness_gap(y, y, y, "person")  # type: ignore
  with pytest.raises(ValueError, match="of the same cases are needed"):
    bootstrap.relatedness_gap(y, y[:4], y, "mse")
  with pytest.raises(ValueError, match="of the same cases are needed"):
    bootstrap.paired_gap([True], [True, False])
  for more in ({"draws": 0}, {"level": 1.0}, {"level": 0.0}):
    with pytest.raises(ValueError, match="cases, draws and a level"):
      bootstrap.paired_gap([True], [True], **more)
  with pytest.raises(ValueError, match="n=0"):
    bootstrap.paired_gap([], [])
