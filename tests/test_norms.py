"""The norms against hand values, NumPy in float64, and Table 1 of the paper."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest
from references import central_differences

from lnrnn import norms

pytestmark = pytest.mark.usefixtures("optimised")  # As in a user's run.

EPS = 1e-5
EIGHT = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]  # Mean 5, deviation 2.

# What stands here is what the paper's equations say, not what the code does.


def np_layer(a, gain, bias, eps=EPS):
  mean, var = a.mean(-1, keepdims=True), a.var(-1, keepdims=True)
  return gain * (a - mean) / np.sqrt(var + eps) + bias


def np_rms(a, gain, bias, eps=EPS):
  return gain * a / np.sqrt((a * a).mean(-1, keepdims=True) + eps) + bias


def np_batch(a, gain, bias, eps=EPS, ddof=0):
  flat = a.reshape(-1, a.shape[-1])
  mean, var = flat.mean(0), flat.var(0, ddof=ddof)
  return gain * (a - mean) / np.sqrt(var + eps) + bias


def np_batch_test(a, gain, bias, mean, deviation):
  return gain * (a - mean) / np.sqrt(deviation**2 + EPS) + bias


def np_weight(v, gain):
  flat = v.reshape(-1, v.shape[-1])
  return gain * v / np.sqrt((flat * flat).sum(0))


def batch_train(a, gain, bias, eps=EPS, unbiased=False):
  """Batch norm by the moments of its own minibatch, as in training."""
  moments = norms.batch_moments(a, unbiased=unbiased)
  return norms.batch_norm(a, gain, bias, moments, eps=eps)


def batch_test(a, gain, bias, mean, deviation):
  """Batch norm by given moments, as at test; var = deviation^2 is positive."""
  moments = norms.Moments(mean, deviation**2)
  return norms.batch_norm(a, gain, bias, moments)


class Op(NamedTuple):
  fn: Callable[..., jax.Array]
  reference: Callable[..., np.ndarray]
  vectors: int  # How many arguments of [n] follow the first, [..., n].


OPS = {
  "layer": Op(norms.layer_norm, np_layer, 2),
  "rms": Op(norms.rms_norm, np_rms, 2),
  "batch": Op(batch_train, np_batch, 2),
  "batch_unbiased": Op(
    functools.partial(batch_train, unbiased=True),
    functools.partial(np_batch, ddof=1),
    2,
  ),
  "batch_test": Op(batch_test, np_batch_test, 4),
  "weight": Op(norms.weight_norm, np_weight, 1),
}
every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
every_norm = pytest.mark.parametrize("norm", norms.NAMES)


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def draw(op: Op, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
  """Random arguments of an op, float64; nothing is centred or of unit size."""
  rng = np.random.default_rng(seed)
  a = rng.normal(0.7, 1.8, shape)
  return [a, *rng.normal(0.5, 0.8, (op.vectors, shape[-1]))]


# --- Values ---


def test_layer_norm_by_hand():
  a, one, zero = jnp.array([EIGHT]), jnp.ones(8), jnp.zeros(8)
  y = norms.layer_norm(a, one, zero, eps=0)
  np.testing.assert_allclose(y, [[-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2]])
  y = norms.layer_norm(a, 2 * one, one, eps=0)
  np.testing.assert_allclose(y, [[-2, 0, 0, 0, 1, 1, 3, 5]])


def test_rms_norm_by_hand():
  y = norms.rms_norm(jnp.array([1.0, 7.0]), jnp.ones(2), jnp.zeros(2), eps=0)
  np.testing.assert_allclose(y, [0.2, 1.4], rtol=1e-6)


def test_batch_norm_by_hand():
  a = jnp.array([[1.0, 0.0], [2.0, 4.0], [3.0, 8.0]])
  moments = norms.batch_moments(a)
  np.testing.assert_allclose(moments.mean, [2, 4])
  np.testing.assert_allclose(moments.var, [2 / 3, 32 / 3], rtol=1e-6)
  moments = norms.batch_moments(a, unbiased=True)
  np.testing.assert_allclose(moments.var, [1, 16], rtol=1e-6)
  y = norms.batch_norm(a, jnp.ones(2), jnp.array([0.0, 5.0]), moments, eps=0)
  np.testing.assert_allclose(y, [[-1, 4], [0, 5], [1, 6]], rtol=1e-6)


def test_weight_norm_by_hand():
  v, gain = jnp.array([[3.0, 0.0], [4.0, 2.0]]), jnp.array([10.0, -1.0])
  w = norms.weight_norm(v, gain)
  np.testing.assert_allclose(w, [[6, 0], [8, -1]], rtol=1e-6)


def test_eps_is_added_to_the_variance_under_the_root():
  a = jnp.array(EIGHT)
  y = norms.layer_norm(a, jnp.ones(8), jnp.zeros(8), eps=5)
  np.testing.assert_allclose(y, (a - 5) / 3, rtol=1e-6)
  y = batch_train(a[:, None], jnp.ones(1), jnp.zeros(1), eps=5)
  np.testing.assert_allclose(y[:, 0], (a - 5) / 3, rtol=1e-6)
  y = norms.rms_norm(jnp.array([1.0, 7]), jnp.ones(2), jnp.zeros(2), eps=11)
  np.testing.assert_allclose(y, [1 / 6, 7 / 6], rtol=1e-6)


@every_op
@pytest.mark.parametrize("shape", [(7, 5), (3, 2, 4, 6)], ids=str)
def test_an_op_agrees_with_numpy(op, shape):
  args = draw(op, shape, seed=len(shape))
  expected = op.reference(*args)
  fn = jax.jit(op.fn)
  narrow = fn(*(jnp.asarray(x, jnp.float32) for x in args))
  assert narrow.dtype == jnp.float32
  np.testing.assert_allclose(narrow, expected, rtol=1e-5, atol=1e-5)
  with jax.enable_x64(True):
    wide = fn(*map(jnp.asarray, args))
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, rtol=1e-12, atol=1e-12)


@every_op
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["b", "h"])
def test_half_precision_is_the_float32_result_rounded_once(op, dtype):
  first, *rest = draw(op, (16, 40))
  half = jnp.asarray(first, dtype)
  rest = [jnp.asarray(x, jnp.float32) for x in rest]
  y = op.fn(half, *rest)
  expected = op.fn(half.astype(jnp.float32), *rest).astype(dtype)
  assert y.dtype == dtype
  np.testing.assert_array_equal(
    y.astype(jnp.float32), expected.astype(jnp.float32)
  )


def test_moments_and_lengths_of_half_precision_are_float32():
  a = jnp.full((300, 2), 256.0, jnp.bfloat16)  # bfloat16 sums stop growing.
  moments = norms.batch_moments(a)
  assert moments.mean.dtype == moments.var.dtype == jnp.float32
  np.testing.assert_array_equal(moments.mean, [256, 256])
  length = norms.direction_norm(a)
  assert length.dtype == jnp.float32
  np.testing.assert_allclose(length, 256 * 300**0.5, rtol=1e-6)


@pytest.mark.parametrize("mean, error", [(0, 1e-6), (100, 5e-5), (1e4, 2e-3)])
@pytest.mark.parametrize("op", [OPS["layer"], OPS["batch"]], ids=["l", "b"])
def test_a_large_mean_costs_no_more_than_its_own_rounding(op, mean, error):
  rng = np.random.default_rng(0)
  a = (mean + rng.normal(size=(400, 400))).astype(np.float32)
  y = op.fn(jnp.asarray(a), jnp.ones(400), jnp.zeros(400))
  expected = op.reference(a.astype(np.float64), 1, 0)
  assert np.abs(y - expected).max() <= error


@pytest.mark.parametrize("h", [2, 4, 16])
def test_a_narrow_layer_is_as_precise_at_a_mean_of_1e4(h):
  rng = np.random.default_rng(0)
  a = (1e4 + rng.normal(size=(1000, h))).astype(np.float32)
  y = norms.layer_norm(jnp.asarray(a), jnp.ones(h), jnp.zeros(h))
  expected = np_layer(a.astype(np.float64), 1, 0)
  assert np.abs(y - expected).max() <= 2e-3


@pytest.mark.parametrize("value", [0.1, 100.1, 10000.1])
def test_layer_norm_of_equal_inputs_is_the_bias(value):
  a, bias = jnp.full((2, 400), value), jnp.linspace(-1, 1, 400)
  y = norms.layer_norm(a, jnp.ones(400), bias)
  assert np.abs(y - bias).max() <= 2e-3


# --- Derivatives ---


@every_op
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)], ids=str)
def test_gradients_are_the_finite_differences_of_numpy(op, shape, x64):
  args = draw(op, shape)
  cotangent = np.random.default_rng(1).normal(size=shape)
  expected = central_differences(op.reference, args, cotangent)
  _, vjp = jax.vjp(jax.jit(op.fn), *map(jnp.asarray, args))
  actual = vjp(jnp.asarray(cotangent))
  assert len(actual) == len(expected) == 1 + op.vectors
  for got, want in zip(actual, expected, strict=True):
    assert np.abs(want).max() > 1e-2  # A test of zeros would test nothing.
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@every_op
def test_second_derivatives_are_finite_differences_of_the_first(op, x64):
  args = [jnp.asarray(x) for x in draw(op, (3, 4))]
  check_grads(
    jax.jit(op.fn), args, order=2, modes=["rev"], atol=1e-4, rtol=1e-4
  )


@every_op
def test_forward_mode_is_the_finite_difference_along_a_direction(op, x64):
  args = draw(op, (4, 5))
  along = draw(op, (4, 5), seed=1)
  sides = (
    op.reference(*(x + t * d for x, d in zip(args, along, strict=True)))
    for t in (1e-5, -1e-5)
  )
  expected = (next(sides) - next(sides)) / 2e-5
  y, got = jax.jvp(op.fn, *(tuple(map(jnp.asarray, v)) for v in (args, along)))
  np.testing.assert_allclose(y, op.reference(*args), rtol=1e-12)
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)
  assert np.abs(expected).max() > 1e-2


@every_op
def test_forward_over_reverse_is_reverse_over_reverse(op, x64):
  """A Hessian times a vector, both ways; the test above holds the second."""
  first, *rest = map(jnp.asarray, draw(op, (3, 4)))
  along, *_ = map(jnp.asarray, draw(op, (3, 4), seed=1))
  slope = jax.grad(
    lambda a: (op.fn(a, *rest) ** 3 @ jnp.arange(1.0, 5.0)).sum()
  )
  forward = jax.jit(lambda a: jax.jvp(slope, (a,), (along,))[1])(first)
  reverse = jax.jit(jax.grad(lambda a: (slope(a) * along).sum()))(first)
  np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-10)
  assert np.abs(reverse).max() > 1e-2


@pytest.mark.parametrize("op", ["layer", "rms", "batch"])
def test_a_bias_that_is_none_is_zero(op, x64):
  op = OPS[op]
  a, gain, cotangent = (jnp.asarray(draw(op, (4, 5), s)[0]) for s in range(3))
  y, vjp = jax.vjp(lambda a, g: op.fn(a, g, None), a, gain[0])
  expected, with_zero = jax.vjp(op.fn, a, gain[0], jnp.zeros(5))
  np.testing.assert_array_equal(y, expected)
  for got, want in zip(vjp(cotangent), with_zero(cotangent)[:2], strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-12)


@every_op
def test_a_second_derivative_is_not_lost(op, x64):
  args = [jnp.asarray(x) for x in draw(op, (3, 4))]

  def cubed(a):
    return (op.fn(a, *args[1:]) ** 3 @ jnp.arange(1.0, 5.0)).sum()

  slope = jax.jit(jax.grad(lambda a: (jax.grad(cubed)(a) ** 2).sum()))
  second = slope(args[0])
  assert np.isfinite(second).all() and np.abs(second).max() > 1e-2


def test_the_gradient_of_a_plain_sum_through_layer_norm_is_zero(x64):
  """Why the tests above draw a random cotangent."""
  a = jnp.asarray(draw(OPS["layer"], (3, 4))[0])
  gradient = jax.grad(
    lambda a: norms.layer_norm(a, jnp.ones(4), jnp.zeros(4)).sum()
  )(a)
  np.testing.assert_allclose(gradient, 0, atol=1e-12)


@every_op
@pytest.mark.parametrize(
  "value, dtype", [(0.0, jnp.float32), (3.0, jnp.bfloat16)], ids=["0", "3"]
)
def test_zero_variance_has_finite_value_and_derivatives(op, value, dtype):
  a = jnp.full((6, 4), value, dtype)
  rest = [jnp.arange(1, 5) / 2] * op.vectors
  cotangent = jnp.linspace(-1, 1, 24).reshape(6, 4)

  @jax.jit
  def derivatives(a, *rest):
    def value(*args):
      return (cotangent * op.fn(*args)).sum()

    by_all = tuple(range(len(rest) + 1))
    first = jax.grad(value, by_all)(a, *rest)
    second = jax.jvp(jax.grad(value), (a, *rest), (a + 1, *rest))[1]
    return op.fn(a, *rest), first, second

  for leaf in jax.tree.leaves(derivatives(a, *rest)):
    assert np.isfinite(np.asarray(leaf, np.float64)).all()


def test_the_gradient_of_a_weight_is_orthogonal_to_its_direction(x64):
  v, gain = map(jnp.asarray, draw(OPS["weight"], (3, 2, 5, 4)))
  cotangent = jnp.asarray(np.random.default_rng(1).normal(size=v.shape))
  by_v = jax.vjp(norms.weight_norm, v, gain)[1](cotangent)[0]
  np.testing.assert_allclose((v * by_v).sum((0, 1, 2)), 0, atol=1e-12)
  assert np.abs(by_v).max() > 1e-2


# --- Table 1 of the paper ---


class Net(NamedTuple):
  """One hidden layer, so that a whole network is invariant or is not."""

  x: Any  # [b, d] the data set.
  w: Any  # [d, n]; the paper's w_i is a column.
  delta: Any  # A positive scale.
  gamma: Any  # [d] a shift.


TRANSFORMATIONS = {
  "weights re-scaled": lambda n: (n.x, n.delta * n.w),
  "weights re-centred": lambda n: (n.x, n.delta * n.w + n.gamma[:, None]),
  "one unit re-scaled": lambda n: (n.x, n.w.at[:, 1].multiply(n.delta)),
  "data re-scaled": lambda n: (n.delta * n.x, n.w),
  "data re-centred": lambda n: (n.x + n.gamma, n.w),
  "one case re-scaled": lambda n: (n.x.at[2].multiply(n.delta), n.w),
}
# The paper's three rows, in the order above; then RMS norm and no norm.
TABLE_1 = {
  "batch": (True, False, True, True, True, False),
  "weight": (True, False, True, False, False, False),
  "layer": (True, True, False, True, False, True),
  "rms": (True, False, False, True, False, True),
  "none": (False, False, False, False, False, False),
}


def output(norm, x, w):
  """A network with gain and bias of every unit apart; eps is 0."""
  gain, bias = jnp.linspace(0.5, 1.5, 6), jnp.linspace(-0.4, 0.6, 6)
  if norm == "weight":
    a = x @ norms.weight_norm(w, gain) + bias
  elif norm == "none":
    a = x @ w + bias
  else:
    fn = {
      "layer": norms.layer_norm,
      "rms": norms.rms_norm,
      "batch": batch_train,
    }[norm]
    a = fn(x @ w, gain, bias, eps=0)
  read_out = jnp.cos(jnp.arange(18.0)).reshape(6, 3)
  # Leaky: a unit that no case switches on would hide what changes it.
  return nn.leaky_relu(a, 0.2) @ read_out


@functools.partial(jax.jit, static_argnums=0)
def largest_changes(norm, net):
  """How far each transformation moves the output, in the order above."""
  before = output(norm, net.x, net.w)
  after = (output(norm, *t(net)) for t in TRANSFORMATIONS.values())
  return [jnp.abs(y - before).max() for y in after]


@pytest.mark.parametrize("norm", TABLE_1)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
@hypothesis.given(
  delta=st.floats(0.1, 0.8) | st.floats(1.25, 10), seed=st.integers(0, 999)
)
def test_table_1(norm, delta, seed):
  rng = np.random.default_rng(seed)
  x, w = rng.normal(0.3, 1, (8, 5)), rng.normal(0.1, 1, (5, 6))
  gamma = rng.uniform(0.5, 1, 5) * rng.choice([-1, 1], 5)
  with jax.enable_x64(True):
    net = Net(*map(jnp.asarray, (x, w, delta, gamma)))
    changes = map(float, largest_changes(norm, net))
    changes = dict(zip(TRANSFORMATIONS, changes, strict=True))
  expected = dict(zip(TRANSFORMATIONS, TABLE_1[norm], strict=True))
  # Between the bounds a cell would be neither.
  found = {t: c <= 1e-9 or (c <= 1e-3 and None) for t, c in changes.items()}
  assert found == expected, changes


@hypothesis.settings(deadline=None, derandomize=True, max_examples=12)
@hypothesis.given(shift=st.floats(-100, 100), seed=st.integers(0, 999))
def test_layer_norm_forgets_a_shift_of_the_summed_inputs(shift, seed):
  """Section 7's claim, which holds before the norm, not before the weights."""
  with jax.enable_x64(True):
    a, gain, bias = map(jnp.asarray, draw(OPS["layer"], (3, 6), seed))
    y = norms.layer_norm(a, gain, bias)
    moved = norms.layer_norm(a + shift, gain, bias)
    np.testing.assert_allclose(moved, y, atol=1e-9)


# --- Modules ---


def bound(norm, shape=(8, 5), seed=0, layer=None, **options):
  """A normed layer with random input and non-trivial gains and biases."""
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(0.5, 2, shape), jnp.float32)
  module = norms.normed(layer or nn.Dense(4), norm, norms.Options(**options))
  variables = module.init(jax.random.key(seed), x)
  params = jax.tree.map(
    lambda p: p + jnp.asarray(rng.normal(0, 0.2, p.shape), p.dtype),
    variables["params"],
  )
  return module, {**variables, "params": params}, x


@pytest.mark.parametrize("norm", ["layer", "rms", "weight", "none"])
def test_a_norm_without_statistics_is_the_same_at_train_and_test(norm):
  module, variables, x = bound(norm)
  assert set(variables) == {"params"}
  np.testing.assert_array_equal(
    module.apply(variables, x, train=True),
    module.apply(variables, x, train=False),
  )


@pytest.mark.parametrize("norm", ["layer", "rms", "weight", "none"])
def test_a_norm_without_statistics_takes_each_case_by_itself(norm):
  module, variables, x = bound(norm)
  together = module.apply(variables, x, train=True)
  alone = module.apply(variables, x[3:4], train=True)
  np.testing.assert_allclose(together[3:4], alone, rtol=1e-5, atol=1e-6)


@every_norm
def test_a_module_is_its_equation(norm):
  module, variables, x = bound(norm)
  p = variables["params"]
  x64, kernel = np.float64(x), np.float64(p["layer"]["kernel"])
  if norm == "none":
    expected = x64 @ kernel + p["layer"]["bias"]
  elif norm == "weight":
    expected = (
      x64 @ np_weight(kernel, np.float64(p["norm"]["gain"])) + p["norm"]["bias"]
    )
  else:
    reference = {"layer": np_layer, "rms": np_rms, "batch": np_batch}[norm]
    expected = reference(x64 @ kernel, p["norm"]["gain"], p["norm"]["bias"])
  y = module.apply(variables, x, train=True)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [norms.LayerNorm, norms.RMSNorm])
def test_gain_and_bias_start_as_they_are_told(kind):
  a = jnp.array([[1.0, 2.0, 4.0]])
  started = kind().init(jax.random.key(0), a)["params"]
  np.testing.assert_array_equal(started["gain"], [1, 1, 1])
  np.testing.assert_array_equal(started["bias"], [0, 0, 0])
  constant = nn.initializers.constant
  module = kind(
    gain_init=constant(0.1), bias_init=constant(3), param_dtype=jnp.bfloat16
  )
  started = module.init(jax.random.key(0), a)["params"]
  assert {p.dtype for p in started.values()} == {jnp.dtype(jnp.bfloat16)}
  np.testing.assert_array_equal(started["bias"], [3, 3, 3])


def test_layer_norm_refuses_one_unit():
  with pytest.raises(ValueError, match="over one unit.*at least 2"):
    norms.layer_norm(jnp.ones((3, 1)), jnp.ones(1), jnp.zeros(1))
  with pytest.raises(ValueError, match="at least 2"):
    norms.normed(nn.Dense(1), "layer").init(jax.random.key(0), jnp.ones((3, 2)))


# --- Batch norm's statistics ---


def minibatches(n, scale=1.0):
  rng = np.random.default_rng(0)
  batches = scale * rng.normal([1, -2, 5], [1, 2, 0.5], (n, 6, 3))
  return batches.astype(np.float32)


def updated(module, batches):
  """The statistics after training on minibatches, one after another."""
  variables = module.init(jax.random.key(0), batches[0])
  step = jax.jit(
    lambda v, a: module.apply(v, a, train=True, mutable=["batch_stats"])[1]
  )
  history = []
  for a in batches:
    variables = {**variables, **step(variables, a)}
    history.append(variables["batch_stats"])
  return variables, history


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_averages_are_a_mean_and_later_exponential(unbiased):
  batches = minibatches(9).astype(np.float64)
  module = norms.BatchNorm(momentum=0.75, unbiased=unbiased)
  _, history = updated(module, batches.astype(np.float32))
  moments = {
    "mean": batches.mean(1),
    "var": batches.var(1, ddof=1 if unbiased else 0),
  }
  for name, values in moments.items():
    for seen in range(1, 5):  # Up to 1 / (1 - momentum): the plain mean.
      expected = values[:seen].mean(0)
      got = history[seen - 1][name]
      np.testing.assert_allclose(got, expected, rtol=1e-5)
    for seen in range(5, 10):
      expected = 0.75 * expected + 0.25 * values[seen - 1]
      got = history[seen - 1][name]
      np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert [int(stats["seen"]) for stats in history] == list(range(1, 10))


def test_an_average_weighs_each_minibatch_alike_until_momentum_takes_over():
  old, new = jnp.full((4, 2), 8.0), jnp.full((4, 2), 4.0)
  seen = jnp.array([[1], [2], [4], [100]])  # Of each row by itself.
  got = norms.running_average(old, new, seen, 0.75)
  np.testing.assert_allclose(got, np.repeat([[4], [6], [7], [7]], 2, axis=1))
  got = norms.running_average(old, new, jnp.array(10), 0)  # The last alone.
  np.testing.assert_array_equal(got, new)
  assert got.dtype == jnp.float32


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e4])
def test_the_first_averages_are_the_moments_at_any_scale(scale):
  batches = minibatches(1, scale)
  _, (stats,) = updated(norms.BatchNorm(), batches)
  wide = batches[0].astype(np.float64)
  np.testing.assert_allclose(stats["mean"], wide.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats["var"], wide.var(0), rtol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_trains_by_the_minibatch_and_tests_by_averages(unbiased):
  batches = minibatches(3)
  module = norms.BatchNorm(unbiased=unbiased)
  variables, (*_, last) = updated(module, batches)
  a = batches[1].astype(np.float64)
  y, _ = module.apply(variables, batches[1], train=True, mutable="batch_stats")
  expected = np_batch(a, 1, 0, ddof=1 if unbiased else 0)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  y = module.apply(variables, batches[1])
  expected = (a - last["mean"]) / np.sqrt(last["var"] + EPS)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  # At test a case does not see the others, so one alone will do.
  alone = module.apply(variables, batches[1][:1])
  np.testing.assert_allclose(alone, y[:1], rtol=1e-6)


def test_cases_that_do_not_count_are_not_in_the_statistics():
  """Not even where they are no numbers; the others are as if alone."""
  a = np.array(minibatches(1)[0])
  live = np.arange(len(a)) % 3 > 0
  module = norms.BatchNorm(momentum=0.5)
  variables = module.init(jax.random.key(0), a)
  how = dict(train=True, mutable=["batch_stats"])
  alone, wanted = module.apply(variables, a[live], **how)
  a[~live] = 1e30
  y, found = module.apply(variables, a, live=live, **how)
  np.testing.assert_allclose(y[live], alone, rtol=1e-5, atol=1e-6)
  for name, value in wanted["batch_stats"].items():
    np.testing.assert_allclose(
      found["batch_stats"][name], value, rtol=1e-5, atol=1e-7
    )


def test_the_minibatch_can_be_used_at_test_and_no_average_moves():
  batches = minibatches(3)
  module = norms.BatchNorm(test="minibatch")
  variables, _ = updated(module, batches[:2])
  y, same = module.apply(variables, batches[2], mutable=["batch_stats"])
  trained = module.apply(variables, batches[2], train=True)
  np.testing.assert_array_equal(y, trained)
  jax.tree.map(
    np.testing.assert_array_equal,
    same["batch_stats"],
    variables["batch_stats"],
  )


def test_immutable_averages_are_left_alone_and_the_minibatch_is_used():
  batches = minibatches(3)
  module = norms.BatchNorm()
  variables, _ = updated(module, batches[:2])
  y = module.apply(variables, batches[2], train=True)
  y_mutable, changed = module.apply(
    variables, batches[2], train=True, mutable=["batch_stats"]
  )
  np.testing.assert_array_equal(y, y_mutable)
  kept, moved = variables["batch_stats"], changed["batch_stats"]
  assert np.abs(kept["mean"] - moved["mean"]).min() > 0
  _, untouched = module.apply(variables, batches[2], mutable=["batch_stats"])
  jax.tree.map(np.testing.assert_array_equal, untouched["batch_stats"], kept)


def test_initialising_counts_no_minibatch():
  a = minibatches(1)[0]
  stats = norms.BatchNorm().init(jax.random.key(0), a, train=True)
  assert int(stats["batch_stats"]["seen"]) == 0
  y = norms.BatchNorm(eps=0).apply(stats, a)
  np.testing.assert_allclose(y, a)  # Averages of nothing change nothing.


def test_every_axis_but_the_last_counts_cases():
  a = minibatches(4)
  moments = norms.batch_moments(jnp.asarray(a))
  flat = norms.batch_moments(jnp.asarray(a.reshape(24, 3)))
  np.testing.assert_allclose(moments.mean, flat.mean, rtol=1e-5)
  np.testing.assert_allclose(moments.var, flat.var, rtol=1e-5)


LIVE = np.array([[1, 0, 1], [1, 1, 0]], bool)


@pytest.mark.parametrize("padding", [0, 1e4, np.nan, np.inf])
def test_moments_are_those_of_the_live_cases(padding):
  a = np.random.default_rng(0).normal(0.7, 1.8, (2, 3, 4))
  kept = a[LIVE]
  a[~LIVE] = padding
  moments = jax.jit(lambda a, live: norms.batch_moments(a, live=live))(
    jnp.asarray(a, jnp.float32), jnp.asarray(LIVE)
  )
  assert moments.mean.dtype == moments.var.dtype == jnp.float32
  np.testing.assert_allclose(moments.mean, kept.mean(0), rtol=1e-5)
  np.testing.assert_allclose(moments.var, kept.var(0), rtol=1e-5)


def test_moments_of_all_cases_and_of_none():
  a = jnp.asarray(minibatches(4))
  every = norms.batch_moments(a, live=jnp.ones((4, 6), bool))
  expected = norms.batch_moments(a)
  np.testing.assert_allclose(every.mean, expected.mean, rtol=1e-6)
  np.testing.assert_allclose(every.var, expected.var, rtol=1e-6)
  none = norms.batch_moments(a, live=jnp.zeros((4, 6), bool))
  np.testing.assert_array_equal(none, np.zeros((2, 3)))
  half = norms.batch_moments(
    jnp.full((300, 2), 256, jnp.bfloat16), live=jnp.ones(300, bool)
  )
  np.testing.assert_array_equal(half.mean, [256, 256])


def test_only_live_cases_have_a_gradient_through_their_moments(x64):
  a = np.random.default_rng(0).normal(0.7, 1.8, (2, 3, 4))
  cotangent = np.random.default_rng(1).normal(size=(2, 4))

  def reference(a):
    return np.stack([a[LIVE].mean(0), a[LIVE].var(0)])

  (expected,) = central_differences(reference, [a], cotangent)
  _, vjp = jax.vjp(
    lambda a: jnp.stack(norms.batch_moments(a, live=jnp.asarray(LIVE))),
    jnp.asarray(a),
  )
  (got,) = vjp(jnp.asarray(cotangent))
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
  assert np.abs(expected[LIVE]).min() > 1e-3
  np.testing.assert_array_equal(got[~LIVE], 0)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 1, 3), (3,)], ids=str)
def test_batch_norm_refuses_to_train_on_one_case(shape):
  module = norms.BatchNorm()
  variables = module.init(jax.random.key(0), jnp.ones((2, 3)))
  with pytest.raises(ValueError, match="at least 2 cases"):
    module.apply(variables, jnp.ones(shape), train=True)


def test_averages_are_float32_under_bfloat16():
  a = jnp.asarray(minibatches(1)[0], jnp.bfloat16)
  module = norms.BatchNorm()
  variables = module.init(jax.random.key(0), a)
  y, changed = module.apply(variables, a, train=True, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  assert changed["batch_stats"]["mean"].dtype == jnp.float32
  assert jax.tree.map(jnp.shape, changed) == {
    "batch_stats": {"mean": (3,), "var": (3,), "seen": ()}
  }


# --- Weight norm's start ---

LAYERS = {
  "dense": (nn.Dense(6), (16, 5)),
  "conv": (nn.Conv(6, (3, 3)), (4, 8, 8, 2)),
}
every_layer = pytest.mark.parametrize(
  "layer, shape", LAYERS.values(), ids=LAYERS
)


@every_layer
def test_weight_norm_starts_as_no_norm(layer, shape):
  x = jax.random.normal(jax.random.key(1), shape)
  plain, weight = (norms.normed(layer, norm) for norm in ("none", "weight"))
  expected, _ = plain.init_with_output(jax.random.key(0), x)
  y, variables = weight.init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
  y = weight.apply(variables, x)
  np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@every_layer
def test_a_weight_is_as_long_as_its_gain(layer, shape):
  x = jax.random.normal(jax.random.key(1), shape)
  params = norms.normed(layer, "weight").init(jax.random.key(0), x)["params"]
  w = norms.weight_norm(params["layer"]["kernel"], jnp.arange(6.0) - 2)
  length = np.sqrt((np.asarray(w) ** 2).sum(tuple(range(w.ndim - 1))))
  np.testing.assert_allclose(length, [2, 1, 0, 1, 2, 3], rtol=1e-5)


class Stack(nn.Module):
  """Conv, Conv, Dense, Dense, each normed, with ReLU in between."""

  norm: str
  options: norms.Options = norms.Options()

  @nn.compact
  def __call__(self, x, train=False):
    for i in range(4):
      if i == 2:
        x = x.reshape(x.shape[0], -1)
      layer = nn.Conv(3, (3,), use_bias=i > 0) if i < 2 else nn.Dense(4)
      named = norms.normed(layer, self.norm, self.options, name=f"layer_{i}")
      x = nn.relu(named(x, train=train))
    return x


def test_the_data_dependent_start_normalises_every_layer_of_its_batch():
  module = Stack("weight", norms.Options(data_dependent=True))
  x = jax.random.normal(jax.random.key(1), (32, 6, 2)) * 7 + 3
  variables = jax.jit(module.init)(jax.random.key(0), x)
  _, state = module.apply(
    variables,
    x,
    capture_intermediates=lambda m, _: isinstance(m, norms.WeightNorm),
  )
  for i in range(4):
    (a,) = state["intermediates"][f"layer_{i}"]["norm"]["__call__"]
    moments = norms.batch_moments(a)
    np.testing.assert_allclose(moments.var, 1, rtol=1e-3)
    if i > 0:  # The first has no bias to shift by.
      np.testing.assert_allclose(moments.mean, 0, atol=1e-4)


def test_the_data_dependent_start_is_not_taken_again():
  module = norms.normed(
    nn.Dense(4), "weight", norms.Options(data_dependent=True)
  )
  x = jax.random.normal(jax.random.key(1), (16, 5))
  variables = module.init(jax.random.key(0), x)
  a = module.apply(variables, 3 * x + 1)
  assert np.abs(norms.batch_moments(a).var - 1).min() > 1


def test_the_data_dependent_start_survives_a_batch_of_equal_cases():
  options = norms.Options(data_dependent=True)
  module = norms.normed(nn.Dense(4), "weight", options)
  variables = module.init(jax.random.key(0), jnp.zeros((8, 3)))
  for leaf in jax.tree.leaves(variables):
    assert np.isfinite(leaf).all()


# --- One name, one module ---


def kernels(variables):
  flat = jax.tree_util.tree_leaves_with_path(variables["params"])
  return [x for path, x in flat if path[-1].key == "kernel"]


@every_norm
def test_kernels_are_drawn_alike_whatever_the_norm(norm):
  x = jnp.ones((4, 6, 2))
  init = lambda norm: Stack(norm).init(jax.random.key(3), x)
  expected, got = kernels(init("none")), kernels(init(norm))
  assert len(got) == 4
  jax.tree.map(np.testing.assert_array_equal, got, expected)


class Unnamed(nn.Module):
  """Two normed layers that flax has to name."""

  norm: str

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      x = norms.normed(nn.Dense(3), self.norm)(x)
    return x


@every_norm
def test_kernels_are_drawn_alike_under_automatic_names(norm):
  init = lambda norm: Unnamed(norm).init(jax.random.key(3), jnp.ones((4, 2)))
  expected, got = kernels(init("none")), kernels(init(norm))
  assert len(got) == 2
  jax.tree.map(np.testing.assert_array_equal, got, expected)


@every_norm
def test_the_bias_of_the_layer_is_replaced(norm):
  module, variables, _ = bound(norm)
  biases = [
    path
    for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
    if path[-1].key == "bias"
  ]
  assert len(biases) == 1
  inside = biases[0][0].key == "layer"
  assert inside == (norm == "none")


@every_norm
def test_the_module_that_is_handed_in_is_left_as_it_was(norm):
  layer = nn.Dense(3)
  for _ in range(2):
    module = norms.normed(layer, norm)
    module.init(jax.random.key(0), jnp.ones((4, 2)))
  assert layer == nn.Dense(3)


@pytest.mark.parametrize(
  "name, close",
  [
    ("lyer", "layer"),
    ("Batch", "batch"),
    ("weigth", "weight"),
    ("non", "none"),
  ],
)
def test_an_unknown_norm_names_the_valid_ones_and_a_near_one(name, close):
  with pytest.raises(ValueError) as fault:
    norms.normed(nn.Dense(3), name)
  (line,) = str(fault.value).splitlines()
  assert line == norms.unknown_name(name)
  assert f"norm={name!r}: must be one of {', '.join(norms.NAMES)}" in line
  assert f"did you mean {close!r}?" in line


@pytest.mark.parametrize("name", ["xyz", "", 3, ["layer"], {"layer": 1}, None])
def test_what_resembles_no_name_gets_one_line_too(name):
  line = norms.unknown_name(name)
  assert line is not None and "layer, batch, weight, rms, none" in line
  assert "\n" not in line


@pytest.mark.parametrize("name", norms.NAMES)
def test_a_known_norm_has_no_fault(name):
  assert norms.unknown_name(name) is None


def test_options_are_frozen_and_hashable():
  options = norms.Options(momentum=0.5)
  assert hash(options) == hash(norms.Options(momentum=0.5))
  assert options == norms.Options(momentum=0.5) != norms.Options()
  with pytest.raises(AttributeError):
    options.momentum = 0.1  # pyright: ignore[reportAttributeAccessIssue]


def test_options_reach_their_norms():
  x = minibatches(1)[0]
  for norm in ("layer", "rms", "batch"):
    module, variables, _ = bound(norm, gain_init=0.1, eps=100.0)
    gain = module.init(jax.random.key(0), x)["params"]["norm"]["gain"]
    np.testing.assert_allclose(gain, 0.1, rtol=1e-6)
    assert module.norm.eps == 100
  module, _, _ = bound("batch", momentum=0.5, unbiased=True)
  assert module.norm.momentum == 0.5 and module.norm.unbiased


# --- Under the transformations of JAX and Flax ---


@every_norm
def test_a_convolution_can_be_normed(norm):
  layer = nn.Conv(4, (3, 3))
  module, variables, x = bound(norm, (2, 5, 5, 3), layer=layer)
  p = variables["params"]
  y = module.apply(variables, x, train=True)
  a = layer.clone(use_bias=False).apply(
    {"params": {"kernel": p["layer"]["kernel"]}}, x
  )
  a = np.float64(a)
  if norm == "none":
    expected = a + p["layer"]["bias"]
  elif norm == "weight":
    length = norms.direction_norm(p["layer"]["kernel"])
    expected = a * p["norm"]["gain"] / length + p["norm"]["bias"]
  else:
    reference = {"layer": np_layer, "rms": np_rms, "batch": np_batch}[norm]
    expected = reference(a, p["norm"]["gain"], p["norm"]["bias"])
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@every_norm
def test_jit_vmap_and_remat_change_nothing(norm):
  module, variables, _ = bound(norm)
  x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 8, 5)), jnp.float32)

  def value(params, x):
    y = module.apply({**variables, "params": params}, x, train=True)
    return (y * jnp.cos(jnp.arange(32.0)).reshape(8, 4)).sum()

  each = jax.value_and_grad(value)
  params = variables["params"]
  expected = [each(params, one) for one in x]
  several = jax.jit(jax.vmap(each, (None, 0)))(params, x)
  rematted = jax.jit(jax.value_and_grad(jax.checkpoint(value)))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  for i, one in enumerate(x):
    jax.tree.map(close, jax.tree.map(lambda v, i=i: v[i], several), expected[i])
    jax.tree.map(close, rematted(params, one), expected[i])


class Rematted(nn.Module):
  norm: str
  remat: bool

  @nn.compact
  def __call__(self, x):
    layer = norms.normed(nn.Dense(4), self.norm, name="layer")
    call = lambda layer, x: layer(x, train=True)
    return (nn.remat(call) if self.remat else call)(layer, x)


@every_norm
def test_flax_remat_changes_nothing(norm):
  x = jax.random.normal(jax.random.key(0), (8, 5))
  results = []
  for remat in (False, True):
    module = Rematted(norm, remat)
    variables = module.init(jax.random.key(1), x)

    def value(params, module=module, variables=variables):
      y, changed = module.apply(
        {**variables, "params": params}, x, mutable=["batch_stats"]
      )
      return (y * y * y).sum(), changed

    results.append(jax.grad(value, has_aux=True)(variables["params"]))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, *results)
  stats = results[1][1].get("batch_stats")
  assert (stats is not None) == (norm == "batch")
  if stats:
    assert int(stats["layer"]["norm"]["seen"]) == 1  # Not once more backward.


@every_norm
def test_a_normed_layer_keeps_the_dtype_of_its_layer(norm):
  x = jnp.ones((4, 3))
  for dtype in (jnp.float32, jnp.bfloat16):
    module = norms.normed(nn.Dense(2, dtype=dtype), norm)
    y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert y.dtype == dtype
    assert {p.dtype for p in jax.tree.leaves(variables["params"])} == {
      jnp.dtype(jnp.float32)
    }


# --- Beside PyTorch ---


@pytest.mark.torch
def test_layer_and_batch_norm_agree_with_torch(x64):
  torch = pytest.importorskip("torch")
  a, gain, bias = draw(OPS["layer"], (7, 5))
  cotangent = np.random.default_rng(1).normal(size=a.shape)
  for fn, theirs in (
    (
      norms.layer_norm,
      lambda a, g, b: torch.nn.functional.layer_norm(a, (5,), g, b, eps=EPS),
    ),
    (
      batch_train,
      lambda a, g, b: torch.nn.functional.batch_norm(
        a, None, None, g, b, training=True, eps=EPS
      ),
    ),
  ):
    y, vjp = jax.vjp(fn, *map(jnp.asarray, (a, gain, bias)))
    inputs = [torch.tensor(x, requires_grad=True) for x in (a, gain, bias)]
    expected = theirs(*inputs)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    expected.backward(torch.tensor(cotangent))
    for got, want in zip(vjp(jnp.asarray(cotangent)), inputs, strict=True):
      np.testing.assert_allclose(got, want.grad.numpy(), atol=1e-12)


@pytest.mark.torch
def test_batch_norm_at_test_and_its_averages_agree_with_torch():
  torch = pytest.importorskip("torch")
  batches = minibatches(4)
  # Cumulative averages, and torch's are of the unbiased variance.
  theirs = torch.nn.BatchNorm1d(3, momentum=None, eps=EPS)
  for batch in batches:
    theirs(torch.tensor(batch))
  ours = norms.BatchNorm(unbiased=True)
  variables, (*_, last) = updated(ours, batches)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  close(last["mean"], theirs.running_mean.numpy())
  close(last["var"], theirs.running_var.numpy())
  y = ours.apply(variables, batches[0])
  close(y, theirs.eval()(torch.tensor(batches[0])).detach().numpy())


def test_whole_numbers_are_normalised_to_fractions():
  y = norms.layer_norm(jnp.arange(4), jnp.ones(4), None)
  np.testing.assert_allclose(y, (np.arange(4) - 1.5) / 1.25**0.5, rtol=1e-5)
