"""The network of section 6.6: its size, its norms, what it ignores."""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn import norms
from lnrnn.models.mlp import MLP

every_norm = pytest.mark.parametrize("norm", norms.NAMES)


def shapes(model, inputs=784):
  """The variables' shapes, computed without making them."""
  x = jnp.zeros((2, inputs))
  return jax.tree.map(
    lambda v: v.shape, jax.eval_shape(model.init, jax.random.key(0), x)
  )


def count(params):
  leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, tuple))
  return sum(map(math.prod, leaves))


def small(norm, **kwargs):
  """A small network, its variables with random gains and biases, its input."""
  model = MLP(hidden=(7, 6), classes=3, norm=norm, **kwargs)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(0.5, 1, (8, 5)), jnp.float32)
  variables = model.init(jax.random.key(0), x)
  params = jax.tree.map(
    lambda p: p + jnp.asarray(rng.normal(0, 0.3, p.shape), p.dtype),
    variables["params"],
  )
  return model, {**variables, "params": params}, x


# Kernels and the output's bias; then a bias, and but for none a gain, of each
# hidden unit.
KERNELS = 784 * 1000 + 1000 * 1000 + 1000 * 10 + 10  # 1,794,010


@every_norm
def test_the_paper_s_network_has_its_number_of_parameters(norm):
  variables = shapes(MLP(norm=norm))
  own = 2000 if norm == "none" else 4000
  assert count(variables["params"]) == KERNELS + own
  hidden = [variables["params"][f"hidden_{i}"]["layer"] for i in (0, 1)]
  assert [p["kernel"] for p in hidden] == [(784, 1000), (1000, 1000)]
  if norm == "batch":  # Mean and variance of each unit, and the count.
    assert count(variables["batch_stats"]) == 2 * (2 * 1000 + 1)
  else:
    assert set(variables) == {"params"}


@every_norm
def test_the_logits_have_a_norm_only_where_asked(norm):
  without = shapes(MLP(norm=norm))["params"]["output"]
  assert without == {"layer": {"kernel": (1000, 10), "bias": (10,)}}
  asked = shapes(MLP(norm=norm, norm_output=True))
  own = {"gain": (10,), "bias": (10,)}
  kernel = {"layer": {"kernel": (1000, 10)}}
  with_norm = without if norm == "none" else {**kernel, "norm": own}
  assert asked["params"]["output"] == with_norm
  if norm == "batch":
    assert asked["batch_stats"]["output"]["norm"]["var"] == (10,)


def test_batch_norm_on_all_layers_normalises_the_logits():
  model, variables, x = small("batch", norm_output=True)
  norm = variables["params"]["output"]["norm"]
  logits = model.apply(variables, x, train=True)
  np.testing.assert_allclose(logits.mean(0), norm["bias"], atol=1e-5)
  np.testing.assert_allclose(logits.std(0), abs(norm["gain"]), rtol=1e-3)


@every_norm
def test_the_network_is_its_equations(norm):
  model, variables, x = small(norm)
  p = jax.tree.map(np.float64, variables["params"])
  h = np.float64(x)
  for name in ("hidden_0", "hidden_1"):
    layer = p[name]
    kernel = layer["layer"]["kernel"]
    if norm == "weight":
      kernel = kernel / np.sqrt((kernel**2).sum(0)) * layer["norm"]["gain"]
    a = h @ kernel
    if norm in ("layer", "rms", "batch"):
      axis = 0 if norm == "batch" else 1
      if norm != "rms":
        a = a - a.mean(axis, keepdims=True)
      a = a / np.sqrt((a * a).mean(axis, keepdims=True) + 1e-5)
      a = a * layer["norm"]["gain"] + layer["norm"]["bias"]
    else:
      a = a + layer["norm" if norm == "weight" else "layer"]["bias"]
    h = np.where(a > 0, a, 0)  # ReLU.
  expected = h @ p["output"]["layer"]["kernel"] + p["output"]["layer"]["bias"]
  logits = model.apply(variables, x, train=True)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@every_norm
def test_the_order_of_the_pixels_does_not_matter(norm):
  model, variables, x = small(norm)
  order = np.array([3, 0, 4, 2, 1])
  moved = jax.tree.map(jnp.array, variables)
  first = moved["params"]["hidden_0"]["layer"]
  first["kernel"] = first["kernel"][order]
  expected = model.apply(variables, x, train=True)
  logits = model.apply(moved, x[:, order], train=True)
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  unmoved = model.apply(variables, x[:, order], train=True)
  assert np.abs(unmoved - expected).max() > 1e-2


@every_norm
def test_networks_of_one_key_have_the_same_kernels(norm):
  init = lambda norm: MLP(hidden=(7, 6), norm=norm, norm_output=True).init(
    jax.random.key(4), jnp.ones((2, 5))
  )
  plain, params = init("none")["params"], init(norm)["params"]
  for name in ("hidden_0", "hidden_1", "output"):
    np.testing.assert_array_equal(
      params[name]["layer"]["kernel"], plain[name]["layer"]["kernel"]
    )


def test_weight_norm_starts_as_the_network_without_a_norm():
  x = jax.random.normal(jax.random.key(1), (8, 5))
  outputs = [
    MLP(hidden=(7, 6), norm=norm).init_with_output(jax.random.key(0), x)[0]
    for norm in ("none", "weight")
  ]
  np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_hidden_kernels_have_he_s_variance():
  params = MLP(hidden=(400, 400)).init(jax.random.key(0), jnp.ones((1, 400)))
  for name in ("hidden_0", "hidden_1"):
    kernel = params["params"][name]["layer"]["kernel"]
    np.testing.assert_allclose(kernel.var() * 400, 2, rtol=0.02)


@pytest.mark.parametrize("norm", ["layer", "rms", "weight", "none"])
def test_one_case_alone_can_be_trained_on(norm):
  """The abstract's online claim: only batch norm needs a batch."""
  model, variables, x = small(norm)
  alone = model.apply(variables, x[:1], train=True)
  together = model.apply(variables, x, train=True)
  np.testing.assert_allclose(alone, together[:1], rtol=1e-4, atol=1e-5)


def test_batch_norm_refuses_one_case_in_training_and_takes_it_at_test():
  model, variables, x = small("batch")
  with pytest.raises(ValueError, match="at least 2 cases"):
    model.apply(variables, x[:1], train=True)
  assert model.apply(variables, x[:1]).shape == (1, 3)


def test_a_misspelt_norm_is_refused_by_name():
  with pytest.raises(ValueError, match="did you mean 'layer'"):
    shapes(MLP(norm="lyer"))


def test_a_hidden_layer_of_one_unit_is_refused_under_layer_norm():
  with pytest.raises(ValueError, match="over one unit"):
    shapes(MLP(hidden=(4, 1)))


@every_norm
def test_every_parameter_gets_a_gradient(norm):
  model, variables, x = small(norm)

  def value(params):
    logits = model.apply({**variables, "params": params}, x, train=True)
    return nn.log_softmax(logits)[:, 0].sum()

  for leaf in jax.tree.leaves(jax.jit(jax.grad(value))(variables["params"])):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
