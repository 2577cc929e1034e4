"""Table 1, cell by cell, and the networks it is computed on, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.analysis import invariance

CELLS = [
  (norm, name)
  for norm in invariance.NORMS
  for name in invariance.TRANSFORMATIONS
]


@pytest.fixture(scope="module")
def draws():
  with jax.enable_x64(True):
    return invariance.draw(20, seed=7, cases=32, d=9, h=8)


def _normalised(norm, x, w, gain, bias):
  """The layer in NumPy."""
  a = x @ w
  if norm == "none":
    return a + bias
  if norm == "weight":
    return gain * a / np.sqrt((w**2).sum(0)) + bias
  if norm == "rms":
    return gain * a / np.sqrt((a**2).mean(1, keepdims=True)) + bias
  axis = {"batch": 0, "layer": 1}[norm]
  centred = a - a.mean(axis, keepdims=True)
  return gain * centred / a.std(axis, keepdims=True) + bias


@pytest.mark.parametrize("norm", invariance.NORMS)
def test_outputs_are_those_of_the_equations(norm, draws, x64):
  network, x = jax.tree.map(lambda a: np.asarray(a[0]), draws[:2])
  h = np.tanh(_normalised(norm, x, *network.first))
  h = np.tanh(_normalised(norm, h, *network.second))
  found = invariance.outputs(norm, *jax.tree.map(jnp.asarray, (network, x)))
  np.testing.assert_allclose(found, h @ network.out, rtol=1e-10)


@pytest.mark.parametrize(("norm", "name"), CELLS)
def test_each_cell_is_as_the_table_says_by_six_orders(norm, name, draws, x64):
  found = invariance.changes(norm, name, draws)
  assert found.shape == (20,) and found.dtype == np.float64
  if name in invariance.INVARIANT[norm]:
    assert found.max() <= 1e-11
  else:
    assert found.min() >= 1e-3


def test_the_table_is_the_papers():
  # Ba et al. 2016, Table 1, in the order of its columns.
  yes = {
    norm: [name in invariance.INVARIANT[norm] for name in order]
    for order in [list(invariance.TRANSFORMATIONS)]
    for norm in ("batch", "weight", "layer")
  }
  assert yes["batch"] == [True, False, True, True, True, False]
  assert yes["weight"] == [True, False, True, False, False, False]
  assert yes["layer"] == [True, True, False, True, False, True]


def test_a_transformation_changes_what_it_says_and_nothing_else(draws, x64):
  one = jax.tree.map(lambda a: a[3], draws)
  w, x = one.network.first.w, one.x
  by = {n: f(one) for n, f in invariance.TRANSFORMATIONS.items()}
  moved = {
    n: (d.network.first.w - w, d.x - x, d.network.second) for n, d in by.items()
  }
  for name, (dw, dx, second) in moved.items():
    assert second is one.network.second
    assert (np.abs(dw).max() > 0) == name.startswith("weight")
    assert (np.abs(dx).max() > 0) != name.startswith("weight")
  centred = moved["weight matrix re-centering"][0]  # [d, h]
  np.testing.assert_allclose(
    centred, np.broadcast_to(centred[:, :1], centred.shape), atol=1e-14
  )
  assert (
    np.flatnonzero(np.abs(moved["weight vector re-scaling"][0]).max(0)) == 0
  )
  assert np.flatnonzero(np.abs(moved["single case re-scaling"][1]).max(1)) == 0


def test_factors_are_positive_and_away_from_one(draws):
  factor = np.asarray(draws.factor)
  assert (
    (factor >= 2) & (factor <= 4) | (factor >= 0.25) & (factor <= 0.5)
  ).all()
  assert (factor > 1).any() and (factor < 1).any()


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_eps_takes_the_invariance_where_inputs_are_small(norm, draws, x64):
  name = "dataset re-scaling"
  found = [
    invariance.changes(norm, name, draws, eps=1e-5, scale=s).max()
    for s in (1.0, 1e-2, 1e-4)
  ]
  assert found[0] < 1e-2 < found[1] and found[2] > 0.1


def test_weight_norm_has_no_eps_to_lose(draws, x64):
  found = invariance.changes(
    "weight", "weight matrix re-scaling", draws, eps=1e-5, scale=1e-4
  )
  assert found.max() <= 1e-11
