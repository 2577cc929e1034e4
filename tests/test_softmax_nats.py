"""A softmax that is never whole, and one of a few words, against the whole."""

import functools
import re

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn import losses

B, T, D, V = 6, 4, 3, 7
rng = np.random.default_rng(0)
STATES = rng.normal(size=(B, T, D)), rng.normal(size=(D, V)), rng.normal(size=V)
TARGETS = rng.integers(0, V, (B, T)).astype(np.int32)
LIVE = {
  "some": rng.random((B, T)) < 0.6,
  "ragged": np.arange(T) < np.array([4, 1, 0, 2, 3, 1])[:, None],
  "one": np.arange(B * T).reshape(B, T) == 13,
  "all": np.ones((B, T), bool),
  "none": np.zeros((B, T), bool),
}
# (chunk, groups); of a group there are 24, 12, 8 or 4 rows.
CUTS = [
  *((1, 1), (5, 1), (24, 1), (100, 1)),
  *((3, 2), (12, 2), (7, 3), (1, 6), (99, 6)),
]


def expected_nats(h, kernel, bias, targets, live):
  """Row by row, the textbook way."""
  total = 0.0
  for row in np.argwhere(live):
    a = h[tuple(row)] @ kernel + bias
    top = a.max()
    total += top + np.log(np.exp(a - top).sum()) - a[targets[tuple(row)]]
  return total


def plain(h, kernel, bias, targets, live):
  """The formula that JAX differentiates by itself."""
  log_p = jax.nn.log_softmax(h @ kernel + bias)
  own = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
  return -jnp.where(live, own, 0).sum()


@functools.cache
def chunked(chunk, groups, wide=False):
  """Compiled (h, kernel, bias, targets, live) -> (nats, three gradients)."""
  del wide  # Other types are another program.
  of = functools.partial(losses.softmax_nats, chunk=chunk, groups=groups)
  return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))


def single(arrays):
  return tuple(np.asarray(a, np.float32) for a in arrays)


@functools.cache
def plain_gradients(wide=False):
  del wide
  return jax.jit(jax.grad(plain, argnums=(0, 1, 2)))


# --- The whole softmax ---


@pytest.mark.parametrize("kind", LIVE)
def test_nats_are_those_of_numpy_in_both_precisions(kind):
  expected = expected_nats(*STATES, TARGETS, LIVE[kind])
  rest = TARGETS, LIVE[kind]
  for cut in ((5, 1), (3, 2)):
    found, _ = chunked(*cut)(*single(STATES), *rest)
    assert found.dtype == jnp.float32 and found.shape == ()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with jax.enable_x64(True):
      wide, _ = chunked(*cut, True)(*STATES, *rest)
      assert wide.dtype == jnp.float64
      np.testing.assert_allclose(wide, expected, rtol=1e-9)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_any_chunks_and_groups_have_the_gradient_of_the_formula(cut, x64):
  for kind, live in LIVE.items():
    rest = TARGETS, live
    nats, found = chunked(*cut, True)(*STATES, *rest)
    np.testing.assert_allclose(
      nats, expected_nats(*STATES, *rest), rtol=1e-9, err_msg=kind
    )
    expected = plain_gradients(True)(*STATES, *rest)
    for a, b in zip(found, expected, strict=True):
      assert a.shape == b.shape and a.dtype == b.dtype
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=kind)


def test_gradients_in_float32_are_those_of_the_formula():
  for live in LIVE.values():
    with jax.enable_x64(True):
      expected = plain_gradients(True)(*STATES, TARGETS, live)
    _, found = chunked(3, 2)(*single(STATES), TARGETS, live)
    for a, b in zip(found, expected, strict=True):
      assert a.dtype == jnp.float32
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_where_no_row_counts_all_is_zero():
  for cut in ((5, 1), (3, 2)):
    nats, slopes = chunked(*cut)(*single(STATES), TARGETS, LIVE["none"])
    assert nats == 0
    assert all((slope == 0).all() for slope in slopes)


def test_rows_that_do_not_count_may_have_any_word_and_state():
  live = LIVE["ragged"]
  h, kernel, bias = single(STATES)
  other = np.where(live[..., None], h, np.float32(1e6))
  for wild in (-1, V, 2**31 - 1):
    targets = np.where(live, TARGETS, wild).astype(np.int32)
    for cut in ((5, 1), (3, 2)):
      expected = chunked(*cut)(h, kernel, bias, TARGETS, live)
      found = chunked(*cut)(other, kernel, bias, targets, live)
      for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
      assert (found[1][0][~live] == 0).all()


def test_the_cotangent_scales_all_gradients(x64):
  rest = TARGETS, LIVE["some"]

  @jax.jit
  def of(h, kernel, bias):
    def loss(*args):
      nats = losses.softmax_nats(*args, *rest, chunk=5)
      return 2.5 * nats + nats**2

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(h, kernel, bias)

  value, found = of(*STATES)
  nats = expected_nats(*STATES, *rest)
  np.testing.assert_allclose(value, 2.5 * nats + nats**2, rtol=1e-9)
  for a, b in zip(found, plain_gradients(True)(*STATES, *rest), strict=True):
    np.testing.assert_allclose(a, (2.5 + 2 * nats) * b, rtol=1e-9, atol=1e-10)


def test_a_program_may_close_over_arrays_of_numpy():
  args = *single(STATES), TARGETS, LIVE["some"]
  expected = expected_nats(*STATES, *args[3:])
  nats = jax.jit(lambda h: losses.softmax_nats(h, *args[1:], chunk=5))
  np.testing.assert_allclose(nats(args[0]), expected, rtol=1e-5)
  words = functools.partial(losses.sampled_softmax_nats, samples=9)
  found = jax.jit(functools.partial(words, *args))(jax.random.key(0))
  given, _ = sampled(9)(*args, jax.random.key(0))
  np.testing.assert_allclose(found, given, rtol=1e-6)


def test_gradients_flow_on_into_what_made_the_states(x64):
  """As in training: two sums share the kernel, the states have parameters."""
  rest = TARGETS, LIVE["some"]

  def loss(nats, params):
    h = jnp.tanh(params["in"] * STATES[0])
    first = nats(h, params["kernel"], params["bias"], *rest)
    second = nats(h[:, ::-1] ** 2, params["kernel"], params["bias"], *rest)
    return first + 2 * second

  params = {"in": np.array(0.7), "kernel": STATES[1], "bias": STATES[2]}
  nats = functools.partial(losses.softmax_nats, chunk=5, groups=2)
  found, expected = (
    jax.jit(jax.grad(functools.partial(loss, of)))(params)
    for of in (nats, plain)
  )
  for name in params:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)


def test_other_numbers_of_live_rows_are_the_same_program():
  traced = []

  @jax.jit
  def of(*args):
    traced.append(len(args))
    return jax.value_and_grad(losses.softmax_nats)(*args, chunk=5)

  for n in range(0, B * T + 1, 5):
    live = (np.arange(B * T) < n).reshape(B, T)
    nats, _ = of(*single(STATES), TARGETS, live)
    expected = expected_nats(*STATES, TARGETS, live)
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
  assert len(traced) == 1


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_have_finite_nats_and_gradients(scale):
  h, kernel, bias = single(STATES)
  args = h, kernel * np.float32(scale), bias
  rest = TARGETS, LIVE["some"]
  nats, slopes = chunked(5, 1)(*args, *rest)
  wide = tuple(np.float64(a) for a in args)
  assert np.abs(wide[0] @ wide[1]).max() > scale
  np.testing.assert_allclose(nats, expected_nats(*wide, *rest), rtol=1e-5)
  assert all(np.isfinite(slope).all() for slope in slopes)


def test_a_shift_of_all_logits_changes_nothing(x64):
  h, kernel, bias = STATES
  rest = TARGETS, LIVE["some"]
  a, slopes = chunked(5, 1, True)(h, kernel, bias, *rest)
  b, _ = chunked(5, 1, True)(h, kernel, bias + 100, *rest)
  np.testing.assert_allclose(b, a, rtol=1e-12)
  np.testing.assert_allclose(slopes[2].sum(), 0, atol=1e-12)


def test_bfloat16_is_summed_in_float32():
  half = [jnp.asarray(a, jnp.bfloat16) for a in STATES]
  rest = TARGETS, LIVE["some"]
  nats, slopes = chunked(5, 1)(*half, *rest)
  assert nats.dtype == jnp.float32
  rounded = [np.asarray(a, np.float64) for a in half]
  np.testing.assert_allclose(nats, expected_nats(*rounded, *rest), rtol=1e-5)
  with jax.enable_x64(True):
    expected = plain_gradients(True)(*rounded, *rest)
  for a, b in zip(slopes, expected, strict=True):
    assert a.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(a, float), b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
  ("shapes", "groups"),
  [
    (((B, T - 1), (B, T)), 1),
    (((B, T), (B, T + 1)), 1),
    (((T, B), (T, B)), 1),
    (((B * T,), (B, T)), 1),
    (((B, T), (B, T)), 4),
  ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, groups):
  targets, live = np.zeros(shapes[0], int), np.ones(shapes[1], bool)
  with pytest.raises(ValueError, match=r"must be \(6, 4\), and groups="):
    losses.softmax_nats(*single(STATES), targets, live, groups=groups)


# --- What it holds at once ---


def held(jaxpr):
  """Sizes of all that a program makes, programs inside it too."""
  for eqn in jaxpr.eqns:
    yield from (v.aval.size for v in eqn.outvars if hasattr(v.aval, "size"))
    for inner in jax.tree.leaves(
      eqn.params,
      is_leaf=lambda v: isinstance(v, (core.Jaxpr, core.ClosedJaxpr)),
    ):
      if isinstance(inner, core.ClosedJaxpr):
        inner = inner.jaxpr
      if isinstance(inner, core.Jaxpr):
        yield from held(inner)


@pytest.mark.parametrize("groups", [1, 2])
def test_logits_of_all_rows_are_never_there(groups):
  b, t, d, v, chunk = 8, 16, 4, 50, 5
  shaped = jax.ShapeDtypeStruct
  args = (
    *(shaped(s, jnp.float32) for s in ((b, t, d), (d, v), (v,))),
    shaped((b, t), jnp.int32),
    shaped((b, t), bool),
  )
  largest = max(b * t * d, groups * max(chunk, d) * v)
  assert largest < b * t * v / 4
  nats = functools.partial(losses.softmax_nats, chunk=chunk, groups=groups)

  def sizes(of):
    program = jax.jit(jax.grad(of, argnums=(0, 1, 2)))
    text = program.lower(*args).compile().as_text()
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", text)
    compiled = [np.prod(list(map(int, s.split(",")))) for s in shapes]
    return max(held(jax.make_jaxpr(program)(*args).jaxpr)), max(compiled)

  if groups == 1:  # What is looked for is found.
    assert min(sizes(plain)) >= b * t * v
  assert max(sizes(nats)) <= largest


# --- A few words of it ---


SAMPLED_V = 50
SAMPLED = (
  rng.normal(size=(3, 4, D)),
  rng.normal(size=(D, SAMPLED_V)),
  rng.normal(size=SAMPLED_V),
  rng.integers(0, SAMPLED_V, (3, 4)).astype(np.int32),
  np.arange(4) < np.array([4, 1, 2])[:, None],
)


@functools.cache
def sampled(samples):
  """Compiled (h, kernel, bias, targets, live, key) -> (nats, gradients)."""
  of = functools.partial(losses.sampled_softmax_nats, samples=samples)
  return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))


def sampled_at(key, samples, args=SAMPLED):
  return sampled(samples)(*single(args[:3]), *args[3:], jax.random.key(key))


def test_many_samples_come_near_the_whole_softmax_and_its_gradient():
  expected = expected_nats(*SAMPLED)
  slopes = plain_gradients()(*single(SAMPLED[:3]), *SAMPLED[3:])
  far = []
  for samples in (20, 20_000):
    nats, found = sampled_at(1, samples)
    far.append(abs(float(nats) / expected - 1))
  assert far[1] < 0.01 < far[0]
  for a, b in zip(found, slopes, strict=True):
    assert np.linalg.norm(a - b) < 0.06 * np.linalg.norm(b)


def test_few_samples_are_too_low_on_average():
  of = functools.partial(losses.sampled_softmax_nats, samples=5)
  many = jax.jit(jax.vmap(of, in_axes=(None,) * 5 + (0,)))
  args = *single(SAMPLED[:3]), *SAMPLED[3:]
  found = many(*args, jax.random.split(jax.random.key(0), 500))
  off = np.mean(found) - expected_nats(*SAMPLED)
  assert off < -4 * np.std(found) / np.sqrt(500)


def test_the_draw_is_the_keys_and_the_same_for_all_rows():
  first, again, other = (sampled_at(key, 20) for key in (3, 3, 4))
  for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert first[0] != other[0]
  # Words that were not drawn and are nobody's target have no gradient.
  _, (_, by_kernel, by_bias) = first
  touched = np.flatnonzero(by_bias)
  assert len(touched) < SAMPLED_V
  np.testing.assert_array_equal(touched, np.flatnonzero(by_kernel.any(axis=0)))


def test_rows_that_do_not_count_are_not_in_the_estimate():
  h, kernel, bias, targets, live = SAMPLED
  other = np.where(live[..., None], h, h + 3)
  words = np.where(live, targets, (targets + 5) % SAMPLED_V).astype(np.int32)
  whole = sampled_at(0, 20)
  found = sampled_at(0, 20, (other, kernel, bias, words, live))
  for a, b in zip(*map(jax.tree.leaves, (found, whole)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (found[1][0][~live] == 0).all()
  nothing = sampled_at(0, 20, (h, kernel, bias, targets, np.zeros_like(live)))
  assert all((a == 0).all() for a in jax.tree.leaves(nothing))


def test_a_target_that_is_drawn_is_not_counted_twice():
  """Where no other word can be, the target is certain, though it is drawn."""
  h, live = SAMPLED[0], SAMPLED[4]
  one = h, SAMPLED[1][:, :1], SAMPLED[2][:1], np.zeros((3, 4), np.int32), live
  nats, slopes = sampled_at(0, 20, one)
  assert nats == 0 and all((slope == 0).all() for slope in slopes)
  kernel, bias = np.zeros((D, 2)), np.array([0, -1e4])
  nats, slopes = sampled_at(0, 20, (h, kernel, bias, *one[3:]))
  assert nats == 0 and all(np.isfinite(slope).all() for slope in slopes)


def test_words_are_drawn_as_often_as_is_stated():
  """A row whose logits are all 0 tells by its gradient what was drawn."""
  samples, target = 20_000, SAMPLED_V - 1
  args = (
    *(np.zeros(shape) for shape in ((1, 1, D), (D, SAMPLED_V), SAMPLED_V)),
    np.full((1, 1), target, np.int32),
    np.ones((1, 1), bool),
  )
  _, (_, _, slope) = sampled_at(5, samples, args)
  slope = np.asarray(slope, np.float64)
  word = np.arange(SAMPLED_V)
  p = np.log((word + 2) / (word + 1)) / np.log(SAMPLED_V + 1)
  np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
  # Of exp(0) / (samples p) for each draw, a softmax beside the target's 1.
  count = slope / (1 + slope[target]) * samples * p
  count[target] = 0
  np.testing.assert_allclose(count, np.round(count), rtol=5e-5, atol=0.01)
  count[target] = samples - count.sum()
  surprise = ((count - samples * p) ** 2 / (samples * p)).sum()
  assert surprise < 85.4  # Chi-square with 49 degrees: 1 in 1000 is above.
  assert surprise > 23.9  # And 1 in 1000 below.


@pytest.mark.parametrize("samples", [1, 20])
def test_estimates_of_extreme_logits_are_finite(samples):
  h, kernel, *rest = SAMPLED
  nats, slopes = sampled_at(0, samples, (h, kernel * 1e4, *rest))
  assert np.isfinite(nats) and nats >= 0
  assert all(np.isfinite(slope).all() for slope in slopes)


def test_an_estimate_from_bfloat16_is_in_float32():
  args = [jnp.asarray(a, jnp.bfloat16) for a in SAMPLED[:3]]
  of = functools.partial(losses.sampled_softmax_nats, samples=20)
  nats = jax.jit(of)(*args, *SAMPLED[3:], jax.random.key(0))
  assert nats.dtype == jnp.float32
  np.testing.assert_allclose(nats, sampled_at(0, 20)[0], rtol=0.05)
