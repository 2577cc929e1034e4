"""Growth of perturbations, against explicit Jacobians and known systems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import lnrnn
from lnrnn.analysis import dynamics

D, H, T, B = 3, 4, 6, 5
KINDS = {"LSTM": lnrnn.LSTMCell, "GRU": lnrnn.GRUCell}
NORMS = ("layer", "batch", "weight", "rms", "none")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_norm = pytest.mark.parametrize("norm", NORMS)


def make(kind, norm, **options):
  return KINDS[kind](H, norm=norm, param_dtype=jnp.float64, **options)


def draw(cell, seed=0):
  """Parameters, none of them 0 or 1; a first carry; inputs [t, b, d]."""
  rng = np.random.default_rng(seed)
  params = dynamics.draw(cell, jax.random.key(seed), D)
  params = jax.tree.map(lambda p: p + rng.normal(0, 0.3, p.shape), params)
  c, h = rng.normal(0, 0.5, (2, B, H))
  carry = (c, h) if isinstance(cell, lnrnn.LSTMCell) else h
  return params, carry, rng.normal(size=(T, B, D))


def of_case(step, carry, x, moments, case):
  """The step, first carry and inputs of one sequence."""
  carry = jax.tree.map(lambda a: jnp.asarray(a[case]), carry)
  return step, carry, (jnp.asarray(x[:, case]), moments)


def explicit(step, carry, inputs):
  """[t, n, n] products J_t ... J_1, each Jacobian written out."""
  flat, unravel = jax.flatten_util.ravel_pytree(carry)
  on = jax.jit(
    lambda s, x: jax.flatten_util.ravel_pytree(step(unravel(s), x))[0]
  )
  jacobian = jax.jit(jax.jacfwd(on))
  product, products = np.eye(flat.size), []
  for t in range(T):
    x = jax.tree.map(lambda a, t=t: a[t], inputs)
    product = np.asarray(jacobian(flat, x)) @ product
    flat = on(flat, x)
    products.append(product)
  return np.stack(products)


@pytest.mark.parametrize(
  "kind, norm",
  [
    ("LSTM", "layer"),
    ("LSTM", "batch"),
    ("LSTM", "none"),
    ("GRU", "layer"),
    ("GRU", "batch"),
  ],
)
def test_growth_is_that_of_the_explicit_product_of_jacobians(x64, kind, norm):
  cell = make(kind, norm)
  params, carry, x = draw(cell)
  moments = dynamics.statistics(cell, params, carry, x)
  case = of_case(dynamics.held_step(cell, params), carry, x, moments, 1)
  products = explicit(*case)
  n = products.shape[-1]
  v = np.random.default_rng(3).normal(size=(1, n))
  one = dynamics.log_growth(*case, jnp.asarray(v))
  length = np.linalg.norm(products @ v[0], axis=-1) / np.linalg.norm(v)
  np.testing.assert_allclose(one, np.log(length), atol=1e-10)
  whole = dynamics.log_growth(*case, jnp.eye(n))
  frobenius = np.linalg.norm(products, axis=(1, 2)) / np.sqrt(n)
  np.testing.assert_allclose(whole, np.log(frobenius), atol=1e-10)
  # No direction grows by more than the largest singular value.
  assert (length <= np.linalg.norm(products, 2, axis=(1, 2))).all()


@pytest.mark.parametrize("norm", ["layer", "rms"])
@every_kind
def test_growth_is_that_of_finite_differences_in_numpy(x64, kind, norm):
  cell = make(kind, norm)
  params, carry, x = draw(cell, seed=1)
  case = of_case(dynamics.held_step(cell, params), carry, x, {}, 0)
  n = H * len(cell.carry_names())
  v = np.random.default_rng(2).normal(size=n)
  p = jax.tree.map(np.asarray, params)

  def last(sign, size=1e-6):
    state = np.concatenate(
      [np.atleast_2d(a[0]) for a in jax.tree.leaves(carry)]
    )
    state = state + sign * size * (v / np.linalg.norm(v)).reshape(state.shape)
    for t in range(T):
      row = x[t, :1]
      if kind == "LSTM":
        new = references.lstm(
          p, (state[:1], state[1:]), row, norm, "separate", 1e-5
        )
        state = np.concatenate(new)
      else:
        state = references.gru(p, state, row, norm, "separate", 1e-5)
    return state

  expected = np.log(np.linalg.norm(last(1) - last(-1)) / 2e-6)
  grown = dynamics.log_growth(*case, jnp.asarray(v)[None])
  np.testing.assert_allclose(grown[-1], expected, atol=1e-6)


def test_a_linear_system_grows_at_its_largest_eigenvalue(x64):
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
  a = jnp.asarray(basis @ np.diag([1.5, 1.1, -0.7, 0.2]) @ basis.T)
  inputs = jnp.zeros((2000, 1))
  grown = dynamics.log_growth(
    lambda state, x: state @ a, jnp.zeros(4), inputs, jnp.ones((1, 4))
  )
  # 2000 steps of 1.5 are beyond float64; only the first few are not 1.5.
  np.testing.assert_allclose(grown[-1] / 2000, np.log(1.5), atol=2e-3)
  np.testing.assert_allclose(np.diff(grown)[200:], np.log(1.5), atol=1e-10)


@every_kind
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_states_are_those_of_the_engine(x64, kind, norm):
  cell = make(kind, norm)
  params, carry, x = draw(cell)
  moments = dynamics.statistics(cell, params, carry, x)
  step = dynamics.held_step(cell, params)
  carry, x = jax.tree.map(jnp.asarray, (carry, x))
  states = dynamics.states(step, carry, (x, moments))
  layer = lnrnn.RNN(cell, time_major=True, t_max=T, bn_test="minibatch")
  variables = dict(layer.init(jax.random.key(0), x))
  variables["params"] = {"cell": params}
  expected = layer.apply(variables, x, initial_carry=carry)
  np.testing.assert_allclose(jax.tree.leaves(states)[-1], expected, atol=1e-12)
  assert bool(moments) == (norm == "batch")


@pytest.mark.parametrize("form", ["separate", "sum"])
@every_kind
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_form_decides_which_scales_are_invisible(x64, kind, norm, form):
  cell = make(kind, norm, form=form, eps=0.0)
  params, carry, x = draw(cell)
  carry, x = jax.tree.map(jnp.asarray, (carry, x))

  @jax.jit
  def hidden(factors):
    p = dynamics.scaled(params, factors)
    moments = dynamics.statistics(cell, p, carry, x)
    states = dynamics.states(dynamics.held_step(cell, p), carry, (x, moments))
    return jax.tree.leaves(states)[-1]

  change = lambda w_h, w_x: np.abs(
    hidden({"w_h": w_h, "w_x": w_x}) - hidden({"w_h": 1.0, "w_x": 1.0})
  ).max()
  assert change(7.0, 7.0) < 1e-10
  if form == "separate":
    assert change(0.1, 1.0) < 1e-10
  else:
    assert change(0.1, 1.0) > 1e-2


@every_kind
def test_weight_norm_has_its_scale_in_the_gain(x64, kind):
  cell = make(kind, "weight")
  params, carry, x = draw(cell)
  carry, x = jax.tree.map(jnp.asarray, (carry, x))
  hidden = lambda p: dynamics.states(
    dynamics.held_step(cell, p), carry, (x, {})
  )
  h, turned, longer = (
    jax.tree.leaves(hidden(dynamics.scaled(params, f)))[-1]
    for f in ({}, {"w_h": 7.0}, {"wn_h": 7.0})
  )
  np.testing.assert_allclose(turned, h, atol=1e-12)
  assert np.abs(longer - h).max() > 1e-2


@every_kind
def test_random_weights_are_the_same_for_all_norms(kind):
  drawn = [
    dynamics.draw(KINDS[kind](H, norm=norm), jax.random.key(4), D)
    for norm in NORMS
  ]
  for params in drawn[1:]:
    for name in ("w_x", "w_h"):
      np.testing.assert_array_equal(params[name], drawn[0][name])
