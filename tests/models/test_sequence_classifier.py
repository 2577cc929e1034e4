"""The classifier of sequences against NumPy, and where its noise is."""

import functools

import drawn_variables
from drawn_variables import paths, single, slopes
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import references_bn

from lnrnn import rnn
from lnrnn.models.sequence_classifier import SequenceClassifier

B, T, D, H, K = 4, 6, 2, 5, 3
EPS = 0.1  # So large that it matters.
X = np.random.default_rng(2).normal(0.4, 1.2, (B, T, D))
LABELS = np.array([0, 2, 1, 2])
KEY = jax.random.key(0)
SITES = {"x": 4 * H, "h": 4 * H, "c": H}


def model_of(norm, **fields):
  own = {"classes": K, "features": H, "eps": EPS, "t_max": T}
  return SequenceClassifier(norm=norm, **own | fields)


@functools.cache
def variables_of(norm):
  """Random parameters; for batch norm, averages of 9 minibatches."""
  shapes = jax.eval_shape(model_of(norm).init, KEY, X)
  variables = drawn_variables.trained(shapes)
  if norm == "batch":
    rng = np.random.default_rng(3)
    table = {"seen": np.full(T, 9, np.int32)}
    for site, n in SITES.items():
      table[f"{site}_mean"] = rng.normal(0, 0.5, (T, n))
      table[f"{site}_var"] = rng.uniform(0.2, 2, (T, n))
    variables["batch_stats"] = {"encoder": {"statistics": table}}
  return variables


def expected(norm, variables, by=None):
  """Logits [b, k] in float64."""
  p = variables["params"]
  cell, out = p["encoder"]["cell"], p["output"]
  carry = (np.zeros((B, H)), np.zeros((B, H)))
  xs = np.swapaxes(X, 0, 1)
  if norm == "batch":
    if by is None:
      table = variables["batch_stats"]["encoder"]["statistics"]
      by = {s: (table[f"{s}_mean"], table[f"{s}_var"]) for s in SITES}
    carry, *_ = references_bn.run(
      "LSTM", cell, carry, xs, "separate", EPS, by=by
    )
  else:
    for x in xs:
      carry = references.lstm(cell, carry, x, norm, "separate", EPS)
  return carry[1] @ out["kernel"] + out["bias"]


@functools.cache
def applied(model, train=False):
  """Compiled (variables, x, key of the noise) -> logits."""
  return jax.jit(
    lambda variables, x, key: model.apply(
      variables, x, train=train, rngs={"noise": key}
    )
  )


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_logits_are_those_of_numpy(norm):
  variables = variables_of(norm)
  run = applied(model_of(norm, state_noise=0.5))
  wanted = expected(norm, variables)
  narrow = run(single(variables), np.float32(X), KEY)
  assert narrow.dtype == jnp.float32
  np.testing.assert_allclose(narrow, wanted, rtol=1e-4, atol=1e-5)
  with jax.enable_x64(True):
    wide = run(variables, X, KEY)
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, wanted, rtol=1e-9, atol=1e-9)


def test_batch_norm_takes_the_minibatch_where_asked(x64):
  variables = variables_of("batch")
  wanted = expected("batch", variables, by="all")
  for model, train in (
    (model_of("batch", bn_test="minibatch"), False),
    (model_of("batch"), True),
  ):
    found = applied(model, train)(variables, X, KEY)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_gradients_are_central_differences(norm, x64):
  model = model_of(norm)

  @jax.jit
  def both(params):
    def nll(params):
      logits = model.apply({"params": params}, X)
      return -jax.nn.log_softmax(logits)[np.arange(B), LABELS].sum()

    return jax.value_and_grad(nll)(params)

  params = variables_of(norm)["params"]
  gradients = paths(both(params)[1])
  for name, direction, slope in slopes(lambda p: both(p)[0], params):
    found = float((np.asarray(gradients[name]) * direction).sum())
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8, err_msg=name)


# --- The noise ---


def initial_state(model, variables, x, *, train, key=KEY):
  """(c, h) that the LSTM begins with."""
  seen = []

  def watch(run, args, kwargs, context):
    if isinstance(context.module, rnn.RNN) and "initial_carry" in kwargs:
      seen.append(kwargs["initial_carry"])
      return seen[0], None  # What comes of it does not matter.
    return run(*args, **kwargs)

  with nn.intercept_methods(watch):
    model.apply(variables, x, train=train, rngs={"noise": key})
  (carry,) = seen
  return carry


def test_only_training_starts_from_noise_of_its_standard_deviation():
  model = model_of("none", state_noise=0.3)
  variables, x = single(variables_of("none")), np.zeros((2000, T, D))
  c, h = initial_state(model, variables, x, train=True)
  assert not c.any()
  np.testing.assert_allclose(h.mean(axis=0), 0, atol=5 * 0.3 / 2000**0.5)
  np.testing.assert_allclose(h.std(axis=0), 0.3, rtol=0.1)
  np.testing.assert_allclose(np.corrcoef(h.T), np.eye(H), atol=0.15)
  _, other = initial_state(
    model, variables, x, train=True, key=jax.random.key(1)
  )
  assert (other != h).all()
  for part in initial_state(model, variables, x, train=False):
    assert part.shape == (2000, H) and not part.any()
  silent = model_of("none")
  assert not initial_state(silent, variables, x, train=True)[1].any()


def test_the_noise_reaches_the_logits_in_training_alone():
  variables, x = single(variables_of("layer")), np.float32(X)
  model = model_of("layer", state_noise=0.3)
  keys = jax.random.split(KEY, 2)
  first, second = (applied(model, True)(variables, x, k) for k in keys)
  assert np.abs(first - second).max() > 1e-3
  first, second = (applied(model)(variables, x, k) for k in keys)
  np.testing.assert_array_equal(first, second)


def test_without_noise_the_gradient_through_equal_inputs_explodes():
  """Cooijmans et al., section 5.1: black pixels at first, then the digit."""
  x = np.zeros((8, 65, 1), np.float32)
  x[:, 60:] = np.random.default_rng(0).random((8, 5, 1))
  model = model_of("batch", form="cell", eps=1e-5, t_max=65)
  variables = jax.jit(model.init)(KEY, x)

  def size_of_gradient(noise):
    @jax.jit
    def gradient(params):
      def loss(params):
        logits = model.clone(state_noise=noise).apply(
          {**variables, "params": params}, x, train=True, rngs={"noise": KEY}
        )
        return jax.nn.log_softmax(logits)[:, 0].sum()

      return jax.grad(loss)(params)

    found = gradient(variables["params"])["encoder"]["cell"]["w_h"]
    return float(jnp.linalg.norm(found))

  assert not size_of_gradient(0.0) < 1e6  # Nor is a NaN.
  assert 0 < size_of_gradient(0.1) < 10


# --- The first parameters ---


@pytest.mark.parametrize(
  ("norm", "asked", "gain"),
  # Cooijmans et al. 2016, section 4: 0.1.
  [("batch", None, 0.1), ("layer", 0.5, 0.5)],
)
def test_the_first_parameters_are_those_of_the_docstring(norm, asked, gain):
  model = SequenceClassifier(
    features=20, norm=norm, gain_init=asked, forget_bias=1.0, t_max=4
  )
  variables = jax.jit(model.init)(KEY, np.zeros((2, 4, 1), np.float32))
  cell = variables["params"]["encoder"]["cell"]
  assert (cell["b"][:20] == 1).all() and not cell["b"][20:].any()
  for name in ("ln_x", "ln_h", "ln_c"):
    assert (cell[name]["gain"] == np.float32(gain)).all()
  for block in np.split(np.asarray(cell["w_h"]), 4, axis=1):
    np.testing.assert_allclose(block @ block.T, np.eye(20), atol=1e-5)
  kernel = variables["params"]["output"]["kernel"]
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(10), atol=1e-5)
