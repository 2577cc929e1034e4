"""The engine against `lax.scan` in float64, each way of making a product.

The engine chooses by the sizes, which are small here; so the tests move its
thresholds, and make every step each way.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnrnn
from lnrnn import backward_plan, engine, linen_cells, norms

T, B, D, H = 4, 3, 2, 3
MANY = 10**9
WAYS = {
  # The products with the inputs ahead, the other gradients after the loop.
  "late": {"NARROW": 0, "ROWS_PER_WIDTH": 0},
  # All of it in the loop, but products are kept for the way back.
  "loop": {"NARROW": 0, "ROWS_PER_WIDTH": MANY},
  # Nor are they kept, as where a weight has few inputs.
  "narrow": {"NARROW": MANY, "ROWS_PER_WIDTH": 0},
}
every_way = pytest.mark.parametrize("way", WAYS)
both_ways = pytest.mark.parametrize("way", ["late", "loop"])
close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


def choose(monkeypatch, way):
  for name, value in WAYS[way].items():
    assert hasattr(backward_plan, name)
    monkeypatch.setattr(backward_plan, name, value)


class Case(NamedTuple):
  """A step, and what it runs on."""

  step: engine.Step
  args: tuple[Any, Any, Any, Any]  # weights, consts, carry, xs.
  late: list[str]  # The ways of its products under "late".
  options: dict[str, Any] = {}


def draw(*shape, seed=0):
  return np.random.default_rng([seed, *shape]).normal(0.2, 0.7, shape)


# --- The steps ---


def plain_rnn(steps=T, rows=B):
  def step(dot, consts, carry, x):
    h = jnp.tanh(dot(x, "w_x") + dot(carry, "w_h") + consts)
    return h, h

  weights = {"w_x": draw(D, H), "w_h": draw(H, H)}
  args = weights, draw(H), draw(rows, H), draw(steps, rows, D)
  return Case(step, args, ["ahead", "defer"])


def reader():
  """Reads its input where its state says, as DRAW does: two weights in turn.

  The second product depends on the first; what is put out is no carry.
  """

  def step(dot, consts, carry, x):
    focus = jax.nn.softmax(dot(carry, "focus") * consts["sharpness"])
    glimpse = focus * x
    h = jnp.tanh(dot(glimpse, "read") + consts["b"] * carry)
    return h, {"focus": focus, "square": jnp.square(h)}

  weights = {"focus": draw(H, 4), "read": draw(4, H)}
  consts = {"sharpness": 1 + draw(4), "b": draw(H)}
  args = weights, consts, draw(B, H), draw(T, B, 4, seed=1)
  return Case(step, args, ["defer", "defer"])


def many_sided():
  """One weight thrice a step; masks, counts and keys beside the floats."""

  def step(dot, consts, carry, x):
    # Not drawn from, as random numbers take long to compile.
    bits = jax.random.key_data(carry["key"])
    key = jax.random.wrap_key_data(bits * 3 + 1)
    kept = (jnp.arange(H) + x["k"] + bits[0]) % 3 > 0
    noise = jax.random.key_data(x["key"])[0] % 7 / 7
    u = jnp.where(kept, jnp.tanh(dot(x["x"], "w") + consts["b"]), noise)
    h = jnp.tanh(dot(carry["h"], "w") + dot(u, "w") + carry["still"])
    h = jnp.where(x["live"][:, None], h, carry["h"])
    count = carry["count"] + x["live"] * consts["one"]
    new = {"h": h, "still": carry["still"], "count": count, "key": key}
    # A carry, none, no float, and the carry of the step before.
    return new, (h, jnp.sin(u), count, x["live"], carry["h"])

  keys = jax.random.split(jax.random.key(3), T)
  live = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]], bool)
  xs = {"x": draw(T, B, H), "k": np.arange(T), "key": keys, "live": live}
  carry = {
    "h": draw(B, H),
    "still": draw(H),
    "count": np.zeros(B, np.int32),
    "key": jax.random.key(4),
  }
  consts = {"b": draw(H), "one": np.int32(1), "unread": draw(2)}
  args = {"w": draw(H, H), "unread": draw(2, 2)}, consts, carry, xs
  return Case(step, args, ["ahead", "defer", "defer"])


def without_inputs():
  """Runs on its own; the carry is a pair whose parts change places."""

  def step(dot, consts, carry, x):
    assert x is None
    old, now = carry
    new = jnp.tanh(dot(now, "w") + consts * old)
    return (now, new), old

  args = {"w": draw(H, H)}, draw(H), (draw(B, H), draw(B, H, seed=1)), None
  return Case(step, args, ["defer"], {"length": T})


def masked_lstm():
  cell = lnrnn.LSTMCell(H, param_dtype=jnp.float64)
  layer = recurrence(cell)
  live = np.arange(T)[:, None] < np.array([4, 0, 2])
  carry = draw(B, H), draw(B, H, seed=1)
  args = layer.weights, layer.consts, carry, (draw(T, B, D), live)
  return Case(engine.masked(layer.step), args, ["ahead", "defer"])


STEPS: dict[str, Callable[[], Case]] = {
  "plain_rnn": plain_rnn,
  "reader": reader,
  "many_sided": many_sided,
  "without_inputs": without_inputs,
  "masked_lstm": masked_lstm,
}
every_step = pytest.mark.parametrize("name", STEPS)


def recurrence(cell, d=D):
  """What a cell gives the engine, with random parameters."""
  keys = jax.random.key(0)
  shapes = jax.eval_shape(lambda: cell.init(keys, d, method="recurrences"))
  rng = np.random.default_rng(5)
  params = jax.tree.map(
    lambda p: rng.normal(0.5, 0.6, p.shape).astype(p.dtype), shapes
  )
  (layer,) = cell.apply(params, d, method="recurrences")
  return layer


# --- What is compared ---


def naive(case, *args):
  """`lax.scan`, written out."""
  weights, consts, carry, xs = args

  def body(carry, x):
    return case.step(lambda v, name: v @ weights[name], consts, carry, x)

  return jax.lax.scan(body, carry, xs, **case.options)


def ours(case, *args, **options):
  return engine.scan(case.step, *args, **case.options, **options)


def is_float(a):
  return jnp.issubdtype(a.dtype, jnp.inexact)


class Floats:
  """The arguments of a case as a list of its floats."""

  def __init__(self, case):
    leaves, self._structure = jax.tree.flatten(case.args)
    self._leaves = [jnp.asarray(leaf) for leaf in leaves]
    self.values = [leaf for leaf in self._leaves if is_float(leaf)]

  def args(self, values):
    values = iter(values)
    mine = [next(values) if is_float(a) else a for a in self._leaves]
    return jax.tree.unflatten(self._structure, mine)

  def directions(self):
    return [draw(*v.shape, seed=7 + i) for i, v in enumerate(self.values)]


def value_of(case, run, **options):
  """(loss, outputs) of the floats; of all outputs, at random weights."""
  floats = Floats(case)

  def value(values):
    out = run(case, *floats.args(values), **options)
    leaves = [leaf for leaf in jax.tree.leaves(out) if is_float(leaf)]
    weighted = [
      (a * draw(*a.shape, seed=20 + i)).sum() for i, a in enumerate(leaves)
    ]
    return sum(weighted), out

  return value, floats.values


def derivatives(case, run, **options):
  """Outputs, and the gradient of the loss by all floats; compiled."""
  value, floats = value_of(case, run, **options)
  gradient, out = jax.jit(jax.grad(value, has_aux=True))(floats)
  return out, gradient


def bare(a):
  """As NumPy; keys as their bits."""
  if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
    a = jax.random.key_data(a)
  return np.asarray(a)


def assert_same(got, expected, **tolerance):
  def same(a, b):
    assert a.dtype == b.dtype
    close(bare(a), bare(b), **tolerance)

  jax.tree.map(same, got, expected)


@functools.cache
def expected_of(name):
  with jax.enable_x64(True):
    case = STEPS[name]()
    out, gradient = derivatives(case, naive)
  for values, floats in zip(gradient, Floats(case).values, strict=True):
    assert values.shape == floats.shape
  # A test of zeros would test nothing; what is unread has two inputs.
  assert all(np.abs(g).max() > 1e-3 or 2 in g.shape for g in gradient)
  return out, gradient


# --- First derivatives ---


@every_step
def test_the_thresholds_choose_the_way_of_each_product(name, monkeypatch, x64):
  case = STEPS[name]()
  args = jax.tree.map(jnp.asarray, case.args)
  if case.args[3] is None:
    args = (*args[:3], None)

  def ways():
    calls, _ = backward_plan.plan(case.step, *args)
    return [call.way for call in calls]

  choose(monkeypatch, "late")
  assert ways() == case.late
  for way in ("loop", "narrow"):
    choose(monkeypatch, way)
    assert ways() == ["loop"] * len(case.late)


@pytest.mark.parametrize(
  "name, way",
  [(name, way) for name in STEPS for way in ("late", "loop")]
  + [("reader", "narrow")],
)
def test_outputs_and_all_gradients_are_those_of_a_scan(
  name, way, monkeypatch, x64
):
  choose(monkeypatch, way)
  assert_same(derivatives(STEPS[name](), ours), expected_of(name))


@pytest.mark.parametrize("name", ["reader", "many_sided"])
def test_plain_is_a_scan(name, x64):
  got = derivatives(STEPS[name](), ours, backward="plain")
  assert_same(got, expected_of(name))


CELLS = [
  (kind, norm, form)
  for kind in (lnrnn.LSTMCell, lnrnn.GRUCell)
  for norm in norms.NAMES
  for form in linen_cells.FORMS_OF[norm]
  if not (kind is lnrnn.GRUCell and form == "cell")
  # Batch norm has its own file, RMS norm stands where layer norm does, and
  # the forms of the others are one function.
  and form in {"layer": (form,), "batch": ()}.get(norm, ("separate",))
]


@pytest.mark.parametrize("kind, norm, form", CELLS)
def test_every_norm_and_form_has_the_gradients_of_a_scan(
  kind, norm, form, monkeypatch, x64
):
  layer = recurrence(
    kind(H, norm=norm, form=form, eps=0.1, param_dtype=jnp.float64)
  )
  carry = (draw(B, H), draw(B, H, seed=1))
  carry = carry if kind is lnrnn.LSTMCell else carry[1]
  args = layer.weights, layer.consts, carry, draw(2, B, D)
  case = Case(layer.step, args, [])
  # Uncompiled, as so many compilations would take long. The steps above are.
  with jax.disable_jit():
    value, floats = value_of(case, naive)
    expected = jax.grad(value, has_aux=True)(floats)
    assert all(np.abs(g).max() > 1e-4 for g in expected[0])
    for way in ("late", "loop"):
      choose(monkeypatch, way)
      value, floats = value_of(case, ours)
      assert_same(jax.grad(value, has_aux=True)(floats), expected)


@both_ways
def test_one_step_of_one_row(way, monkeypatch, x64):
  case = plain_rnn(1, 1)
  choose(monkeypatch, way)
  assert_same(derivatives(case, ours), derivatives(case, naive))


@both_ways
def test_axes_of_the_batch_may_be_none_or_several(way, monkeypatch, x64):
  choose(monkeypatch, way)
  for batch in ((), (2, 3)):
    weights, consts, *_ = (case := plain_rnn()).args
    args = weights, consts, draw(*batch, H), draw(T, *batch, D)
    case = case._replace(args=args)
    assert_same(derivatives(case, ours), derivatives(case, naive))


@both_ways
def test_gradients_over_2000_steps_are_finite_and_right(way, monkeypatch, x64):
  choose(monkeypatch, way)
  case = plain_rnn(2000, 2)
  expected = derivatives(case, naive)
  assert_same(derivatives(case, ours), expected)
  case = case._replace(args=jax.tree.map(np.float32, case.args))
  _, gradient = derivatives(case, ours)
  for got, want in zip(gradient, expected[1], strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@every_way
@pytest.mark.parametrize("remat_steps", [0, 5])
def test_the_program_does_not_grow_with_the_steps(
  way, remat_steps, monkeypatch
):
  choose(monkeypatch, way)

  def lines(steps):
    case = plain_rnn(steps)
    value, floats = value_of(case, ours, remat_steps=remat_steps)
    lowered = jax.jit(jax.grad(value, has_aux=True)).lower(floats)
    return lowered.as_text().count("\n")

  assert 20 < lines(20) == lines(200)


# --- Transformations ---


@pytest.mark.parametrize(
  "name, way",
  [("reader", "late"), ("reader", "loop"), ("many_sided", "late")],
)
def test_second_derivatives_are_those_of_a_scan(name, way, monkeypatch, x64):
  case = STEPS[name]()

  def products(run):
    """The Hessian's product with one vector, made in two ways."""
    value, floats = value_of(case, run)
    vector = list(map(jnp.asarray, Floats(case).directions()))
    gradient = jax.grad(value, has_aux=True)

    def slope(floats):
      pairs = zip(gradient(floats)[0], vector, strict=True)
      return sum((g * v).sum() for g, v in pairs)

    def both(floats):
      forward = jax.jvp(lambda f: gradient(f)[0], (floats,), (vector,))[1]
      return [forward] if run is naive else [forward, jax.grad(slope)(floats)]

    return jax.jit(both)(floats)

  expected = second_of(name, products)
  choose(monkeypatch, way)
  for got in products(ours):
    assert_same(got, expected)


SECOND: dict[str, Any] = {}


def second_of(name, products):
  if name not in SECOND:
    (forward,) = products(naive)
    assert all(np.abs(g).max() > 1e-3 or 2 in g.shape for g in forward)
    SECOND[name] = forward
  return SECOND[name]


def test_jacobians_and_maps_are_those_of_a_scan(monkeypatch, x64):
  case = plain_rnn()
  weights, consts, carry, xs = jax.tree.map(jnp.asarray, case.args)
  many = lambda a: a + jnp.asarray(draw(2, *a.shape))
  wide_xs, wide_weights = many(xs), jax.tree.map(many, weights)

  def all_of(run):
    def last(weights, carry, xs):
      last, ys = run(case, weights, consts, carry, xs)
      return jnp.sin(last) + ys[1]

    def slopes(weights, carry, xs):
      loss = lambda *args: (last(*args) * draw(B, H, seed=9)).sum()
      return jax.grad(loss, (0, 1, 2))(weights, carry, xs)

    return (
      jax.jacrev(last, (0, 1, 2))(weights, carry, xs),
      jax.vmap(slopes, (None, None, 0))(weights, carry, wide_xs),
      jax.vmap(slopes, (0, None, 0))(wide_weights, carry, wide_xs),
    )

  expected = jax.jit(lambda: all_of(naive))()
  choose(monkeypatch, "late")
  assert_same(jax.jit(lambda: all_of(ours))(), expected)


@pytest.mark.parametrize(
  "name, options",
  [
    ("without_inputs", {"remat_steps": 1}),
    ("without_inputs", {"remat_steps": 3, "backward": "plain"}),
    ("without_inputs", {"unroll": 3}),
    ("many_sided", {"remat_steps": 3, "unroll": 2}),
  ],
  ids=str,
)
def test_remat_steps_and_unroll_change_nothing(name, options, monkeypatch, x64):
  choose(monkeypatch, "late")
  assert_same(derivatives(STEPS[name](), ours, **options), expected_of(name))


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_remat_steps_keeps_the_carries_of_every_so_many_steps(steps):
  """Of 20 steps; what else of [t, ...] is kept are inputs and outputs."""
  case = plain_rnn(20)
  value, floats = value_of(case, ours, remat_steps=steps)
  _, pullback = jax.vjp(lambda floats: value(floats)[0], floats)
  kept = [a.shape for a in jax.tree.leaves(pullback)]
  assert (20 // steps, B, H) in kept
  if steps > 1:
    assert (20, B, H) not in [s for s in kept if s == (20, steps, B, H)]
    assert not any(s[:2] == (20 // steps, steps) and s[-1] == H for s in kept)


@both_ways
def test_a_checkpoint_around_it_changes_nothing(way, monkeypatch, x64):
  choose(monkeypatch, way)
  run = lambda case, *args: jax.checkpoint(functools.partial(ours, case))(*args)
  assert_same(derivatives(STEPS["reader"](), run), expected_of("reader"))


def test_weights_that_no_step_reads_have_zero_gradients(x64):
  case = STEPS["many_sided"]()
  _, gradient = derivatives(case, ours)
  unread = [g for g in gradient if 2 in g.shape]
  assert len(unread) == 2 and not any(g.any() for g in unread)


# --- Forward mode ---


@pytest.mark.parametrize("argument", [0, 1, 2, 3])
@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_fast_refuses_forward_mode_in_one_line(argument, jit):
  case = plain_rnn()
  args = jax.tree.map(np.float32, case.args)
  for remat_steps in (0, 2):

    def f(value, remat_steps=remat_steps):
      mine = (*args[:argument], value, *args[argument + 1 :])
      return ours(case, *mine, remat_steps=remat_steps)

    run = jit(lambda value, f=f: jax.jvp(f, (value,), (value,)))
    with pytest.raises(TypeError) as fault:
      run(args[argument])
    assert str(fault.value) == (
      'backward="fast" has no forward mode (jvp); use backward="plain"'
    )


def test_plain_has_forward_mode(x64):
  case = STEPS["many_sided"]()
  value, floats = value_of(case, ours, backward="plain")
  loss = jax.jit(lambda floats: value(floats)[0])
  directions = Floats(case).directions()
  moved = lambda by: [
    f + by * d for f, d in zip(floats, directions, strict=True)
  ]
  tangents = list(map(jnp.asarray, directions))
  _, slope = jax.jvp(loss, (floats,), (tangents,))
  difference = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
  assert abs(slope) > 0.1
  np.testing.assert_allclose(slope, difference, rtol=1e-7)


# --- Dtypes ---


@every_way
@pytest.mark.parametrize("kind", [lnrnn.LSTMCell, lnrnn.GRUCell])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_have_the_dtypes_of_what_they_are_of(
  kind, dtype, way, monkeypatch
):
  choose(monkeypatch, way)
  layer = recurrence(kind(H, dtype=dtype))
  h = jnp.zeros((B, H), dtype)
  carry = (jnp.zeros((B, H)), h) if kind is lnrnn.LSTMCell else h
  args = layer.weights, layer.consts, carry, jnp.zeros((T, B, D), dtype)

  def loss(args):
    last, ys = engine.scan(layer.step, *args)
    return ys.sum() + sum(a.sum() for a in jax.tree.leaves(last))

  got = jax.eval_shape(jax.grad(loss), args)
  dtypes = lambda tree: jax.tree.map(lambda a: a.dtype, tree)
  assert dtypes(got) == dtypes(args)
  assert {a.dtype for a in jax.tree.leaves(got[0])} == {jnp.dtype(dtype)}


@both_ways
def test_bfloat16_is_close_to_float32(way, monkeypatch):
  choose(monkeypatch, way)
  case = plain_rnn(20)
  found = []
  for dtype in (jnp.bfloat16, jnp.float32):
    args = jax.tree.map(lambda a, d=dtype: jnp.asarray(a, d), case.args)
    (last, ys), gradient = derivatives(case._replace(args=args), ours)
    assert {a.dtype for a in (last, ys, *gradient)} == {jnp.dtype(dtype)}
    found.append([np.float32(a) for a in (last, ys, *gradient)])
  for narrow, wide in zip(*found, strict=True):
    assert 0 < np.abs(narrow - wide).max() < 0.05 * np.abs(wide).max()


def test_a_late_gradient_of_bfloat16_adds_up_in_float32(monkeypatch):
  """In bfloat16, a sum of 1000 ones would stop at 256."""
  choose(monkeypatch, "late")

  def step(dot, consts, carry, x):
    y = dot(x, "w")
    return carry + dot(carry, "u").sum() * 0, y

  one = jnp.ones((1, 1), jnp.bfloat16)
  xs = jnp.ones((1000, 1, 1), jnp.bfloat16)
  loss = lambda w: engine.scan(step, {"w": w, "u": one}, (), one, xs)[1].sum()
  assert jax.grad(loss)(one) == 1000


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_inputs_may_be_integers(dtype, monkeypatch, x64):
  choose(monkeypatch, "late")
  weights, consts, carry, xs = (case := plain_rnn()).args
  args = weights, consts, carry, jnp.asarray(xs > 0, dtype)
  case = case._replace(args=args)
  assert_same(derivatives(case, ours), derivatives(case, naive))


# --- Parts ---


def test_a_finished_sequence_keeps_its_carry_to_the_bit():
  live = jnp.array([True, False])

  def step(dot, consts, carry, x):
    new = {"a": carry["a"] + x, "n": carry["n"] + 1}
    return new, (new["a"], 2 * x)

  carry = {"a": jnp.full((2, 3), 0.1), "n": jnp.zeros(2, jnp.int32)}
  x = jnp.array([[1.0] * 3, [jnp.nan] * 3])
  new, (y, other) = engine.masked(step)(None, None, carry, (x, live))
  np.testing.assert_array_equal(new["a"], np.float32([[1.1] * 3, [0.1] * 3]))
  np.testing.assert_array_equal(new["n"], [1, 0])
  assert y is new["a"]  # So it is stored once.
  np.testing.assert_array_equal(other[0], [2, 2, 2])


def test_select_begins_with_the_axes_of_the_mask():
  live = jnp.array([[True, False], [False, True]])
  new, old = jnp.ones((2, 2, 3)), jnp.zeros((2, 2, 3))
  got = engine.select(live, (new, new[..., 0]), (old, old[..., 0]))
  np.testing.assert_array_equal(got[1], live)
  np.testing.assert_array_equal(got[0], np.stack([live] * 3, axis=-1))


def test_wrong_options_are_refused_in_one_line():
  case = plain_rnn()
  with pytest.raises(ValueError) as fault:
    ours(case, *case.args, backward="quick")
  said = "backward='quick': must be one of fast, plain"
  assert str(fault.value).startswith(said)
  with pytest.raises(ValueError) as fault:
    ours(case, *case.args, remat_steps=-1)
  assert str(fault.value) == "remat_steps=-1 is negative"


def test_precision_reaches_the_products_of_both_passes(monkeypatch):
  for way in WAYS:
    choose(monkeypatch, way)
    value, floats = value_of(plain_rnn(), ours, precision="highest")
    text = str(jax.make_jaxpr(jax.grad(value, has_aux=True))(floats))
    products = text.count("dot_general[")
    assert products >= 6
    assert text.count("precision=(Precision.HIGHEST") == products


def test_a_weight_that_is_no_matrix_is_refused():
  case = plain_rnn()
  args = {"w_x": draw(2, D, H)}, *case.args[1:]
  with pytest.raises(ValueError) as fault:
    ours(case, *args)
  assert str(fault.value) == "weights['w_x'] of shape (2, 2, 3) is not [d, n]"


def test_a_gradient_that_would_be_lost_is_refused(x64):
  case = plain_rnn()

  def loss(outer, **options):
    def step(dot, consts, carry, x):
      carry, y = case.step(dot, consts, carry, x)
      return carry + outer, y

    return engine.scan(step, *case.args, **options)[0].sum()

  outer = jnp.asarray(draw(H))
  with pytest.raises(ValueError, match="pass it in `consts`") as fault:
    jax.grad(loss)(outer)
  assert "\n" not in str(fault.value)
  assert jax.grad(functools.partial(loss, backward="plain"))(outer).any()
  close(loss(outer), loss(outer, backward="plain"))


@both_ways
def test_no_steps_return_the_initial_carry(way, monkeypatch, x64):
  choose(monkeypatch, way)
  weights, consts, carry, xs = plain_rnn().args
  case = plain_rnn()._replace(args=(weights, consts, carry, xs[:0]))
  (last, ys), gradient = derivatives(case, ours)
  np.testing.assert_array_equal(last, carry)
  assert ys.shape == (0, B, H)
  _, expected = derivatives(case, naive)
  assert_same(gradient, expected)


@pytest.mark.parametrize("rows", [1, 64])
def test_gradients_of_weights_in_half_precision_are_summed_in_float32(rows):
  steps, ones = 1000, jnp.ones((rows, 8), jnp.bfloat16)

  def total(w):
    step = lambda dot, consts, h, x: (h, dot(h, "w"))
    return engine.scan(step, {"w": w}, (), ones, None, length=steps)[1].sum()

  # Added up in bfloat16 it would stay at 256 times the rows.
  gradient = jax.jit(jax.grad(total))(jnp.ones((8, 8), jnp.bfloat16))
  want = np.full((8, 8), steps * rows)
  np.testing.assert_allclose(np.float32(gradient), want, rtol=0.004)
