"""Peepholes and norms apart of the LSTM, under lnrnn.RNN and flax's."""

from flax import linen as nn
import jax
import numpy as np
import pytest
import references_handwriting

import lnrnn

H, D = 4, 5
WIDE = {"param_dtype": np.float64}


def trained(module, x):
  rng = np.random.default_rng(0)
  made = jax.eval_shape(module.init, jax.random.key(0), x)
  return jax.tree.map(lambda a: rng.normal(0, 0.5, a.shape), made)


def outputs(step, x):
  carry, ys = (np.zeros((len(x), H)), np.zeros((len(x), H))), []
  for t in range(x.shape[1]):
    carry = step(carry, x[:, t])
    ys.append(carry[1])
  return np.stack(ys, axis=1)


@pytest.mark.parametrize("layer", [lnrnn.RNN, nn.RNN])
def test_peepholes_are_those_of_graves(layer, x64):
  x = np.random.default_rng(1).normal(size=(3, 6, D))
  module = layer(lnrnn.LSTMCell(H, norm="none", peepholes=True, **WIDE))
  variables = trained(module, x)
  p = variables["params"]["cell"]
  assert p["peepholes"].shape == (3 * H,)
  step = lambda carry, x: references_handwriting.with_peepholes(
    p, carry, x, p["w_x"]
  )
  np.testing.assert_allclose(
    module.apply(variables, x), outputs(step, x), rtol=1e-9
  )


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_each_source_has_its_norm(norm, x64):
  x = np.random.default_rng(1).normal(size=(3, 6, D))
  widths = (2, 3)
  module = lnrnn.RNN(
    lnrnn.LSTMCell(H, norm=norm, sources=widths, **WIDE), t_max=6
  )
  variables = trained(module, x)
  p = variables["params"]["cell"]
  step = lambda carry, x: references_handwriting.apart(
    p, carry, x, widths, norm, 1e-5
  )
  np.testing.assert_allclose(
    module.apply(variables, x, train=True), outputs(step, x), rtol=1e-8
  )


def test_without_a_norm_sources_change_nothing():
  x = np.random.default_rng(1).normal(size=(3, 6, D)).astype(np.float32)
  plain = lnrnn.RNN(lnrnn.LSTMCell(H, norm="none"))
  apart = lnrnn.RNN(lnrnn.LSTMCell(H, norm="none", sources=(2, 3)))
  variables = plain.init(jax.random.key(0), x)
  np.testing.assert_array_equal(
    plain.apply(variables, x), apart.apply(variables, x)
  )


def test_widths_and_forms_that_do_not_go_with_sources_are_refused():
  x = np.zeros((1, 2, D), np.float32)
  with pytest.raises(ValueError, match=r"width 5; sources=\(2, 2\) ask for 4"):
    lnrnn.RNN(lnrnn.LSTMCell(H, sources=(2, 2))).init(jax.random.key(0), x)
  with pytest.raises(
    ValueError, match="form='sum': only in separate, per_gate"
  ):
    lnrnn.LSTMCell(H, form="sum", sources=(2, 3))
  with pytest.raises(ValueError, match="are of one layer"):
    lnrnn.LSTMCell(H, layers=2, sources=(2, 3))
