"""Hand values and edge cases of the numbers read off training curves."""

import math
import subprocess
import sys

import numpy as np
import pytest

from lnrnn import metrics

NAN, INF = math.nan, math.inf
STEPS = [10, 20, 30, 40]


def test_running_best_passes_over_what_is_not_finite():
  values = [NAN, 3.0, -INF, 4.0, 1.0, INF]
  np.testing.assert_array_equal(
    metrics.running_best(values, mode="min"), [NAN, 3, 3, 3, 1, 1]
  )
  np.testing.assert_array_equal(
    metrics.running_best(values, mode="max"), [NAN, 3, 3, 4, 4, 4]
  )
  assert metrics.running_best([], mode="min").shape == (0,)


def test_running_bests_are_carried_on_to_the_longest_curve():
  short, long = ([0, 2, 4], [9, 1, 3]), ([2, 4, 6, 8], [math.nan, 2, 1, 5])
  found = metrics.carried([short, long], mode="max")
  for steps, _ in found:
    np.testing.assert_array_equal(steps, [2, 4, 6, 8])
  np.testing.assert_array_equal(found[0][1], [1, 3, 3, 3])
  np.testing.assert_array_equal(found[1][1], [math.nan, 2, 2, 5])
  (only,) = metrics.carried([([3, 5], [4, 6])], mode="min")
  np.testing.assert_array_equal(only[1], [4, 4])
  assert metrics.carried([], mode="min") == []


def test_updates_to_is_the_first_evaluation_at_the_value_or_beyond():
  values = [5.0, 3.0, 2.0, 3.0]
  assert metrics.updates_to(STEPS, values, 3.0, mode="min") == 20
  assert metrics.updates_to(STEPS, values, 2.5, mode="min") == 30
  assert metrics.updates_to(STEPS, values, 1.0, mode="min") is None
  assert metrics.updates_to(STEPS, values, 5.0, mode="max") == 10
  assert metrics.updates_to(STEPS, values, 5.1, mode="max") is None


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_diverged_run_reaches_nothing(broken):
  dead, late = [broken] * 4, [5.0, broken, broken, broken]
  for mode in ("min", "max"):
    assert metrics.updates_to(STEPS, dead, 5.0, mode=mode) is None
    assert metrics.updates_to(STEPS, late, NAN, mode=mode) is None
  assert metrics.updates_to(STEPS, late, 4.0, mode="min") is None
  assert metrics.updates_to(STEPS, late, 6.0, mode="max") is None


def test_malformed_input_is_refused():
  with pytest.raises(ValueError, match="use 'min' or 'max'"):
    metrics.running_best([1.0], mode="least")  # pyright: ignore
  with pytest.raises(ValueError, match="steps \\[n\\]"):
    metrics.updates_to([1, 2], [1.0], 0, mode="min")
  with pytest.raises(ValueError, match="increasing"):
    metrics.updates_to([1, 1], [1.0, 2.0], 0, mode="min")
  with pytest.raises(ValueError, match="no curves"):
    metrics.speed_up([], [([1], [1.0])])
  with pytest.raises(ValueError, match="share no"):
    metrics.speed_up([([1], [1.0]), ([2], [1.0])], [([1], [1.0])])
  with pytest.raises(ValueError, match="2 baseline seeds"):
    metrics.paired_log_speed_ups([([1], [1.0])] * 2, [([1], [1.0])])
  with pytest.raises(ValueError, match="claimed='less'"):
    metrics.verdict([1, 2, 3], claimed="less")  # pyright: ignore
  with pytest.raises(ValueError, match="one per seed"):
    metrics.verdict([[1, 2, 3]], claimed="negative")


def test_speed_up_by_hand():
  # The mean baseline is 8, 5, 2, 3: best 2 at 30. The mean variant is
  # 4, 2, 1: at 2 after 20.
  baseline = [(STEPS, [9, 5, 1, 2]), (STEPS, [7, 5, 3, 4])]
  variant = [(STEPS[:3], [5, 2, 1]), (STEPS[:3], [3, 2, 1])]
  result = metrics.speed_up(baseline, variant)
  assert result.ratio == 1.5
  assert result[3:] == (2.0, 30, 20)
  assert result.low is not None and result.high is not None
  assert result.low <= 1.5 <= result.high
  assert result == metrics.speed_up(baseline, variant)
  negated = [
    [(s, [-x for x in v]) for s, v in side] for side in (baseline, variant)
  ]
  mirrored = metrics.speed_up(negated[0], negated[1], mode="max")
  assert mirrored[:3] == result[:3] and mirrored.target == -2


def test_speed_up_of_a_run_over_itself_is_one_and_ties_reach():
  curves = [(STEPS, [4.0, 2.0, 2.0, 2.0])] * 3
  assert metrics.speed_up(curves, curves) == (1, 1, 1, 2.0, 20, 20)


def test_speed_up_with_one_seed_has_no_interval():
  one, two = [(STEPS, [4, 3, 2, 1])], [(STEPS, [3, 1, 1, 1])] * 2
  assert metrics.speed_up(one, one) == (1.0, None, None, 1.0, 40, 40)
  assert metrics.speed_up(one, two) == (2.0, None, None, 1.0, 40, 20)


def test_speed_up_not_reached_counts_as_zero_in_the_bootstrap():
  baseline = [(STEPS, [4, 3, 2, 1])] * 2
  never = [(STEPS, [9, 9, 9, 9])] * 2
  assert metrics.speed_up(baseline, never) == (None, 0, 0, 1.0, 40, None)
  # One seed of two reaches: samples with the other among them do not.
  mixed = [(STEPS, [9, 9, 9, 9]), (STEPS, [2, 1, 1, 1])]
  result = metrics.speed_up(baseline, mixed)
  assert (result.ratio, result.low, result.high) == (None, 0, 2)


def test_speed_up_uses_the_steps_that_seeds_share_and_none_at_zero():
  baseline = [([0, 10, 20, 30], [0, 4, 3, 2]), ([0, 10, 30, 50], [0, 4, 2, 0])]
  variant = [([5, 15], [3, 2])]
  assert metrics.speed_up(baseline, variant)[3:] == (2.0, 30, 15)


def test_speed_up_with_diverged_seeds():
  # The mean is finite at 10 only.
  baseline = [(STEPS, [4, NAN, NAN, NAN]), (STEPS, [4, 3, 2, 1])]
  variant = [(STEPS, [5, 4, 3, 2])] * 2
  result = metrics.speed_up(baseline, variant)
  assert (result.ratio, result.target) == (0.5, 4.0)
  dead = [(STEPS, [NAN, INF, -INF, NAN])] * 2
  assert metrics.speed_up(dead, variant) == (None,) * 6
  assert metrics.speed_up(variant, dead) == (None, 0, 0, 2.0, 40, None)


def test_paired_log_speed_ups_by_hand_and_antisymmetric():
  slow, fast = (STEPS, [9, 8, 7, 6]), (STEPS, [6, 5, 4, 3])
  # 6 is the best value both reach: after 40 updates and after 10.
  assert metrics.paired_log_speed_ups([slow], [fast]) == [math.log(4)]
  assert metrics.paired_log_speed_ups([fast], [slow]) == [-math.log(4)]
  up = [(STEPS, -np.array(values)) for _, values in (slow, fast)]
  assert metrics.paired_log_speed_ups(up[:1], up[1:], mode="max") == [
    math.log(4)
  ]


def test_one_evaluation_apart_is_a_tie():
  baseline = (STEPS, [4, 3, 2, 1])
  near, far = (STEPS, [4, 3, 1, 1]), (STEPS, [4, 1, 1, 1])
  np.testing.assert_allclose(
    metrics.paired_log_speed_ups([baseline] * 2, [near, far]),
    [0.0, math.log(2)],
  )


def test_a_pair_with_a_dead_run_is_infinite_and_two_are_nothing():
  live, dead = (STEPS, [4, 3, 2, 1]), (STEPS, [NAN] * 4)
  np.testing.assert_array_equal(
    metrics.paired_log_speed_ups([live, dead, dead], [dead, live, dead]),
    [-INF, INF, NAN],
  )


def test_verdict_by_hand():
  # Mean -2, deviation 1, t(0.975, 2) = 4.302653: half width 2.484138.
  result = metrics.verdict([-1, -2, -3], claimed="negative")
  assert (result.verdict, result.mean, result.n) == ("undecided", -2, 3)
  assert result.low == pytest.approx(-4.484138, abs=1e-6)
  assert result.high == pytest.approx(0.484138, abs=1e-6)
  assert metrics.verdict([-5, -6, -7], claimed="negative").verdict == "holds"
  assert (
    metrics.verdict([-5, -6, -7], claimed="positive").verdict == "contradicted"
  )
  assert metrics.verdict([5, 6, 7], claimed="positive").verdict == "holds"


def test_verdict_needs_three_seeds():
  assert metrics.verdict([], claimed="positive") == (
    "undecided (n = 0)",
    None,
    None,
    None,
    0,
  )
  result = metrics.verdict([-5, -7], claimed="negative")
  assert result == ("undecided (n = 2)", -6, None, None, 2)


def test_verdict_of_no_spread_and_of_ties():
  assert metrics.verdict([0, 0, 0], claimed="positive") == (
    "undecided",
    0,
    0,
    0,
    3,
  )
  assert metrics.verdict([-1, -1, -1], claimed="negative").verdict == "holds"


def test_verdict_never_drops_a_seed():
  for broken in (NAN, INF, -INF):
    result = metrics.verdict([-5, -6, -7, broken], claimed="negative")
    assert result == ("undecided", None, None, None, 4)
  assert metrics.verdict([NAN] * 3, claimed="negative").verdict == "undecided"
  everywhere = metrics.verdict([INF] * 3, claimed="positive")
  assert everywhere == ("holds", INF, INF, INF, 3)
  assert metrics.verdict([NAN, 1], claimed="positive").mean is None


@pytest.mark.parametrize(
  ("effects", "verdict"),
  [
    ([-0.01, 0, 0.01], "holds"),  # 0 -+ 0.0248
    ([0.02, 0.03, 0.04], "holds"),  # The interval need not contain 0.
    ([-0.05, 0, 0.05], "undecided"),  # 0 -+ 0.124
    ([0.09, 0.1, 0.11], "undecided"),  # 0.1 -+ 0.0248: across a margin
    ([-0.07, -0.08, -0.09], "undecided"),  # To -0.105
    ([0.19, 0.2, 0.21], "contradicted"),  # From 0.175
    ([-0.19, -0.2, -0.21], "contradicted"),
    ([0.1, 0.1, 0.1], "undecided"),  # On a margin it is neither.
    ([0.0, 0.0, 0.0], "holds"),
    ([INF, INF, INF], "contradicted"),
    ([0, 0, 0, NAN], "undecided"),
    ([0, 0, INF], "undecided"),
    ([0, 0], "undecided (n = 2)"),
    ([], "undecided (n = 0)"),
  ],
)
def test_equality_is_an_interval_within_margins(effects, verdict):
  found = metrics.equality(effects, low=-0.1, high=0.1)
  assert found.verdict == verdict
  # Mean and interval are those of any other verdict.
  np.testing.assert_equal(
    found[1:], metrics.verdict(effects, claimed="negative")[1:]
  )


def test_equality_by_hand_values():
  # The standard error is 0.01 / sqrt(3), and t at two degrees 4.302653.
  found = metrics.equality([0.02, 0.03, 0.04], low=-0.06, high=0.055)
  assert found.mean == pytest.approx(0.03)
  assert found.low == pytest.approx(0.03 - 0.024841, abs=1e-6)
  assert found.high == pytest.approx(0.03 + 0.024841, abs=1e-6)
  assert found.verdict == "holds" and found.n == 3
  closer = metrics.equality([0.02, 0.03, 0.04], low=-0.06, high=0.054)
  assert closer.verdict == "undecided"


@pytest.mark.parametrize(
  ("low", "high"), [(0, 1), (-1, 0), (1, 2), (1, -1), (NAN, 1)]
)
def test_margins_are_around_0(low, high):
  with pytest.raises(ValueError, match="must be around 0"):
    metrics.equality([1, 2, 3], low=low, high=high)


def test_the_t_interval_covers_as_often_as_it_says():
  rng = np.random.default_rng(0)
  wrong = sum(
    metrics.verdict(rng.normal(size=3), claimed="negative").verdict
    != "undecided"
    for _ in range(2000)
  )
  assert 0.035 < wrong / 2000 < 0.065


def test_the_module_loads_without_scipy():
  code = (
    "import sys, importlib.util as u;"
    "s = u.spec_from_file_location('m', sys.argv[1]);"
    "m = u.module_from_spec(s); s.loader.exec_module(m);"
    "assert not {'scipy', 'jax'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code, metrics.__file__], check=True)
