"""The cells against hand values, NumPy in float64, and Table 1 of the paper."""

import functools
import math
import re

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from lnrnn import cells, norms

pytestmark = pytest.mark.usefixtures("optimised")  # As in a user's run.

B, D, H = 4, 2, 3
# So large that it matters where it stands, and that it stands everywhere.
EPS = 0.1
GATES = {"LSTM": 4, "GRU": 3}
# Batch norm has no form "per_gate" of its own, weight norm and none have but
# one; these would only be the same test again.
FORMS = {
  "layer": ("separate", "sum", "per_gate", "cell", "authors"),
  "rms": ("separate", "sum", "per_gate", "cell"),
  "batch": ("separate", "sum", "cell"),
  "weight": ("separate",),
  "none": ("separate", "sum"),
}
CELLS = [
  (kind, norm, form)
  for kind in GATES
  for norm, forms in FORMS.items()
  for form in forms
  if (kind, form) != ("GRU", "cell")
]
every_cell = pytest.mark.parametrize("kind, norm, form", CELLS)
every_kind = pytest.mark.parametrize("kind", GATES)
UPDATES = {"LSTM": cells.lstm_update, "GRU": cells.gru_update}
REFERENCES = {"LSTM": references.lstm, "GRU": references.gru}


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def draw_params(kind, norm, form, seed=0, d=D, h=H):
  """Parameters of a cell as a dict, float64; no gain is 1 and no bias 0."""
  rng = np.random.default_rng(seed)
  n = GATES[kind] * h
  p = {"w_x": (d, n), "w_h": (h, n), "b": (n,)}
  p = {name: rng.normal(0.2, 0.8, shape) for name, shape in p.items()}

  def affine(width):
    return {
      "gain": rng.normal(1, 0.4, width),
      "bias": rng.normal(0, 0.5, width),
    }

  if norm == "weight":
    p["wn_x"], p["wn_h"] = ({"gain": rng.normal(1, 0.4, n)} for _ in "xh")
  elif norm != "none":
    if form not in ("sum", "cell"):
      p["ln_x"] = affine(n)
    if form != "cell":
      p["ln_h"] = affine(n)
    if kind == "LSTM":
      p["ln_c"] = affine(h)
  return p


def draw_state(kind, seed=1, batch=(B,), h=H):
  rng = np.random.default_rng(seed)
  c, h = rng.normal(0.3, 0.9, (2, *batch, h))
  return (c, h) if kind == "LSTM" else h


def draw_inputs(steps, seed=2, batch=(B,), d=D):
  return np.random.default_rng(seed).normal(0.4, 1.2, (steps, *batch, d))


def named_tuple(kind, p):
  def affine(name):
    return norms.Affine(p[name]["gain"], p[name].get("bias"))

  w_x, w_h = p["w_x"], p["w_h"]
  if "wn_x" in p:
    w_x = norms.weight_norm(w_x, p["wn_x"]["gain"])
    w_h = norms.weight_norm(w_h, p["wn_h"]["gain"])
  names = ("ln_x", "ln_h", "ln_c") if kind == "LSTM" else ("ln_x", "ln_h")
  affines = [affine(name) if name in p else None for name in names]
  made = {"LSTM": cells.LSTMParams, "GRU": cells.GRUParams}[kind]
  return made(w_x, w_h, p.get("b"), *affines)


def by_minibatch(eps):
  """Batch norm by the moments of the minibatch at hand."""
  return lambda site, a, affine: norms.batch_norm(
    a, *affine, norms.batch_moments(a), eps=eps
  )


def how(norm, form, eps=EPS):
  """The options of a step."""
  if norm in ("weight", "none"):
    return {"form": form}
  if norm == "batch":
    return {"norm": by_minibatch(eps), "form": form}
  return {"norm": norm, "form": form, "eps": eps}


def step(kind, p, carry, x, options):
  """One step of our cell: (the new carry, the output)."""
  p = named_tuple(kind, p)
  if kind == "LSTM":
    return cells.lstm_step(p, carry, cells.lstm_inputs(p, x), **options)
  return cells.gru_step(p, carry, cells.gru_inputs(p, x), **options)


def hidden(carry):
  return carry[1] if isinstance(carry, tuple) else carry


def assert_close(got, expected, **tolerance):
  close = functools.partial(np.testing.assert_allclose, **tolerance)
  jax.tree.map(close, got, expected)


# --- Values ---


def test_one_step_of_an_lstm_by_hand():
  # x W_x has mean 5 and deviation 2, h W_h mean 10 and deviation 3:
  x_n = np.array([-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2])
  h_n = np.array([1.0, -1, -1, 1, 1, -1, 1, -1])
  w_x = 5 + 2 * x_n[None]
  w_h = np.stack([10 + 3 * h_n, np.full(8, 99.0)])
  # b brings 2 LN(x W_x) + 3 LN(h W_h) + b to these summed inputs. The sigmoid
  # of 0 and log 3 is 1/2 and 3/4, the tanh of log 2 and -log 3 3/5 and -4/5.
  log2, log3 = math.log(2), math.log(3)
  f, i, o, g = [0, log3], [log3, 0], [0, log3], [log2, -log3]
  b = np.array([*f, *i, *o, *g]) - 2 * x_n - 3 * h_n
  # c = (1/2 2 + 3/4 3/5, 3/4 4 - 1/2 4/5) = (1.45, 2.6); LN(c) = (-1, 1).
  # With gain log 2 and bias (0, log 3 - log 2) the tanh is of -log 2, log 3:
  # h = (-1/2 3/5, 3/4 4/5).
  p = cells.LSTMParams(
    *map(jnp.asarray, (w_x, w_h, b)),
    norms.Affine(jnp.full(8, 2.0), jnp.zeros(8)),
    norms.Affine(jnp.full(8, 3.0), jnp.zeros(8)),
    norms.Affine(jnp.full(2, log2), jnp.array([0, log3 - log2])),
  )
  carry = jnp.array([2.0, 4.0]), jnp.array([1.0, 0.0])
  x_in = cells.lstm_inputs(p, jnp.ones(1))
  np.testing.assert_allclose(x_in, [2, 4, 4, 4, 5, 5, 7, 9])
  run = jax.jit(functools.partial(cells.lstm_step, eps=0))
  (c, h), y = run(p, carry, x_in)
  np.testing.assert_allclose(c, [1.45, 2.6], rtol=1e-5)
  np.testing.assert_allclose(h, [-0.3, 0.6], rtol=1e-5)
  np.testing.assert_array_equal(y, h)


def test_one_step_of_a_gru_by_hand():
  log2, log3 = math.log(2), math.log(3)
  # Gates and candidate are normalised apart. Gates of x W_x: 1, 3, 1, 3 are
  # -1, 1, -1, 1; of h W_h: 5, 5, 7, 7 are -1, -1, 1, 1. With the gain log 3 / 2
  # z = (-log 3, 0) and r = (0, log 3), so that their sigmoids are 1/4, 1/2 and
  # 1/2, 3/4. Candidate of x W_x: 0, 4 are -1, 1, times log 2. Of h W_h: 9, 1
  # are 1, -1; times the gain and sigmoid(r) they are 2 log 2, -log 2 - log 3.
  # The sums are log 2, -log 3, whose tanh is 3/5, -4/5, and
  # h = (3/4 1 + 1/4 3/5, 1/2 1/2 - 1/2 4/5) = (0.9, -0.15).
  half = log3 / 2
  p = cells.GRUParams(
    w_x=jnp.array([[1.0, 3, 1, 3, 0, 4]]),
    w_h=jnp.array([[5.0, 5, 7, 7, 9, 1], [0, 0, 0, 0, 0, 0]]),
    b=None,
    ln_x=norms.Affine(jnp.array([half] * 4 + [log2] * 2), jnp.zeros(6)),
    ln_h=norms.Affine(
      jnp.array([half] * 4 + [4 * log2, 4 / 3 * (log2 + log3)]), jnp.zeros(6)
    ),
  )
  x_in = cells.gru_inputs(p, jnp.ones(1))
  run = jax.jit(functools.partial(cells.gru_step, eps=0))
  h, y = run(p, jnp.array([1.0, 0.5]), x_in)
  np.testing.assert_allclose(h, [0.9, -0.15], rtol=1e-5)
  np.testing.assert_array_equal(y, h)


@every_cell
def test_a_cell_agrees_with_numpy_over_several_steps(kind, norm, form, x64):
  p, options = draw_params(kind, norm, form), how(norm, form)
  expected = ours = draw_state(kind)
  for x in draw_inputs(4):
    expected = REFERENCES[kind](p, expected, x, norm, form, EPS)
    ours, y = step(kind, p, ours, x, options)
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y, hidden(ours))


@every_kind
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_epsilon_is_1e_5_if_nothing_is_said(kind, norm, x64):
  p = draw_params(kind, norm, "separate")
  carry, (x,) = draw_state(kind), draw_inputs(1)
  # Products so small that their variance is of the size of epsilon.
  p |= {"w_x": p["w_x"] * 2e-3, "w_h": p["w_h"] * 2e-3}
  expected = REFERENCES[kind](p, carry, x, norm, "separate", 1e-5)
  ours, _ = step(kind, p, carry, x, {"norm": norm})
  assert_close(ours, expected, rtol=1e-12, atol=1e-12)
  # Nor is another norm or form taken than the layer norm of the supplement.
  by_default, _ = step(kind, p, carry, x, {})
  other = np.abs(hidden(by_default) - hidden(ours)).max()
  assert other == 0 if norm == "layer" else other > 1e-3


@every_kind
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_a_bias_that_is_none_is_zero(kind, norm, x64):
  p = draw_params(kind, norm, "separate")
  del p["b"]
  for name in p.keys() & {"ln_x", "ln_h", "ln_c"}:
    del p[name]["bias"]
  carry, (x,) = draw_state(kind), draw_inputs(1)
  expected = REFERENCES[kind](p, carry, x, norm, "separate", EPS)
  ours, _ = step(kind, p, carry, x, how(norm, "separate"))
  assert_close(ours, expected, rtol=1e-12)


@every_kind
@pytest.mark.parametrize("form", ["separate", "sum", "per_gate", "authors"])
def test_a_case_does_not_see_the_others(kind, form, x64):
  p, options = draw_params(kind, "layer", form), how("layer", form)
  carry, (x,) = draw_state(kind), draw_inputs(1)
  expected, _ = step(kind, p, carry, x, options)
  others = np.arange(B)[:, None] != 2
  moved = jax.tree.map(lambda v: v + 3 * others, carry)
  got, _ = step(kind, p, moved, x - 2 * others, options)
  row = lambda t: jax.tree.map(lambda v: v[2], t)
  assert_close(row(got), row(expected), rtol=1e-12)
  assert np.abs(hidden(got)[1] - hidden(expected)[1]).max() > 1e-3


@every_kind
def test_every_axis_but_the_last_counts_cases(kind, x64):
  p, options = draw_params(kind, "layer", "separate"), how("layer", "separate")
  carry, (x,) = draw_state(kind), draw_inputs(1)
  flat, _ = step(kind, p, carry, x, options)
  cut = lambda t: jax.tree.map(lambda v: v.reshape(2, 2, -1), t)
  got, _ = jax.jit(lambda *args: step(kind, *args, options))(
    p, cut(carry), cut(x)
  )
  assert_close(got, cut(flat), rtol=1e-12)


# --- Dtypes ---


@every_cell
def test_a_cell_in_float32_stays_there(kind, norm, form, x64):
  args = draw_params(kind, norm, form), draw_state(kind), draw_inputs(1)[0]
  shapes = jax.tree.map(
    lambda v: jax.ShapeDtypeStruct(v.shape, jnp.float32), args
  )
  run = lambda *args: step(kind, *args, how(norm, form))
  text = str(jax.make_jaxpr(run)(*shapes))
  assert re.search(r"f32\[\d", text) and not re.search(r"f64\[\d", text)


@every_kind
@pytest.mark.parametrize("form", ["separate", "sum"])
def test_half_precision_is_the_float32_update_rounded_once(kind, form):
  half = lambda v: jnp.asarray(v, jnp.bfloat16)
  wide = lambda v: jnp.asarray(v, jnp.float32)
  p = draw_params(kind, "layer", form)
  p = jax.tree.map(wide, named_tuple(kind, p))
  update = functools.partial(UPDATES[kind], p, form=form)
  for seed in range(5):
    carry = draw_state(kind, seed)
    c, h = wide(carry[0]), half(hidden(carry))
    x_in, h_in = map(half, draw_inputs(2, seed, d=GATES[kind] * H))
    lstm = kind == "LSTM"
    got, y = update((c, h) if lstm else h, x_in, h_in)
    expected, _ = update(
      (c, wide(h)) if lstm else wide(h), wide(x_in), wide(h_in)
    )
    assert hidden(got).dtype == y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
      wide(hidden(got)), wide(half(hidden(expected)))
    )
    if lstm:
      assert got[0].dtype == jnp.float32
      np.testing.assert_array_equal(got[0], expected[0])


@every_kind
def test_precision_reaches_both_products(kind):
  p = named_tuple(kind, draw_params(kind, "layer", "separate"))
  inputs, update = {
    "LSTM": (cells.lstm_inputs, cells.lstm_step),
    "GRU": (cells.gru_inputs, cells.gru_step),
  }[kind]

  def run(p, carry, x):
    x_in = inputs(p, x, precision="highest")
    return update(p, carry, x_in, precision="highest")

  args = p, draw_state(kind), draw_inputs(1)[0]
  text = str(jax.make_jaxpr(run)(*args))
  assert text.count("dot_general") == text.count("Precision.HIGHEST, ") == 2


# --- Derivatives ---


@every_cell
def test_gradients_are_the_finite_differences_of_numpy(kind, norm, form, x64):
  args = draw_params(kind, norm, form), draw_state(kind), draw_inputs(1)[0]
  leaves, structure = jax.tree.flatten(args)

  def reference(*leaves):
    p, carry, x = jax.tree.unflatten(structure, leaves)
    new = REFERENCES[kind](p, carry, x, norm, form, EPS)
    return np.stack(new) if kind == "LSTM" else new

  def ours(*leaves):
    p, carry, x = jax.tree.unflatten(structure, leaves)
    new, _ = step(kind, p, carry, x, how(norm, form))
    return jnp.stack(new) if kind == "LSTM" else new

  shape = (2, B, H) if kind == "LSTM" else (B, H)
  cotangent = np.random.default_rng(3).normal(size=shape)
  expected = references.central_differences(reference, leaves, cotangent)
  _, vjp = jax.vjp(ours, *map(jnp.asarray, leaves))
  for got, want in zip(vjp(jnp.asarray(cotangent)), expected, strict=True):
    assert np.abs(want).max() > 1e-2  # A test of zeros would test nothing.
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


# --- Table 1 of the paper ---

TRANSFORMATIONS = (
  "weights re-scaled",
  "weights re-centred",
  "one unit re-scaled",
  "data re-scaled",
  "data re-centred",
  "one case re-scaled",
)
# The paper's three rows, in the order above; then RMS norm and no norm.
TABLE_1 = {
  "batch": (True, False, True, True, True, False),
  "weight": (True, False, True, False, False, False),
  "layer": (True, True, False, True, False, True),
  "rms": (True, False, False, True, False, True),
  "none": (False, False, False, False, False, False),
}


def transformed(v, w, delta, gamma):
  """The factors of a summed input after each transformation, stacked."""
  one_unit, one_case = w.copy(), v.copy()
  one_unit[:, 1] *= delta
  one_case[2] *= delta
  pairs = (
    (v, delta * w),
    (v, delta * w + gamma[:, None]),
    (v, one_unit),
    (delta * v, w),
    (v + gamma, w),
    (one_case, w),
  )
  return [np.stack(side) for side in zip((v, w), *pairs, strict=True)]


def largest_changes(after):
  """How far each of a stack of carries is from the first."""
  c_and_h = after if isinstance(after, tuple) else (after,)
  moved = [np.abs(v - v[0])[1:].max(axis=(1, 2)) for v in c_and_h]
  return np.max(moved, axis=0)


@functools.partial(jax.jit, static_argnames=("kind", "norm", "form"))
def several(kind, norm, form, p, carry, vs, ws, us, ms):
  """The cell for each of some (v, w) of the x and (u, m) of the h terms."""

  def one(v, w, u, m):
    tuple_ = named_tuple(kind, p | {"w_x": w, "w_h": m})
    new, _ = UPDATES[kind](
      tuple_, carry, v @ tuple_.w_x, u @ tuple_.w_h, **how(norm, form, eps=0)
    )
    return new

  return jax.vmap(one)(vs, ws, us, ms)


changes_of = hypothesis.given(
  delta=st.floats(0.1, 0.8) | st.floats(1.25, 10), seed=st.integers(0, 999)
)


def draw_factors(kind, norm, form, seed):
  """Parameters, carry, x, and what stands in for h in the product."""
  p = draw_params(kind, norm, form, seed)
  carry, (x,) = draw_state(kind, seed + 1), draw_inputs(1, seed + 2)
  (u,) = draw_inputs(1, seed + 3, d=H)
  return p, carry, x, u


def draw_shift(seed, n):
  rng = np.random.default_rng(seed)
  return rng.uniform(0.5, 1, n) * rng.choice([-1, 1], n)


@pytest.mark.parametrize("term", ["x", "h"])
@pytest.mark.parametrize("norm", TABLE_1)
@every_kind
@hypothesis.settings(max_examples=10)
@changes_of
def test_table_1_holds_of_each_term_apart(kind, norm, term, delta, seed):
  p, carry, x, u = draw_factors(kind, norm, "separate", seed)
  factors = {"x": (x, p["w_x"]), "h": (u, p["w_h"])}
  changed, same = term, "h" if term == "x" else "x"
  stack = transformed(
    *factors[changed], delta, draw_shift(seed, len(factors[changed][1]))
  )
  count = len(stack[0])
  still = [np.stack([v] * count) for v in factors[same]]
  terms = {changed: stack, same: still}
  with jax.enable_x64(True):
    after = several(kind, norm, "separate", p, carry, *terms["x"], *terms["h"])
  found = largest_changes(jax.tree.map(np.asarray, after))
  expected = np.array(TABLE_1[norm])
  named = dict(zip(TRANSFORMATIONS, found, strict=True))
  assert (found[expected] <= 1e-9).all(), named
  assert (found[~expected] > 1e-5).all(), named


# Which changes of the weights of both terms, of each by itself, and of one
# gate alone leave each form as it is.
FORM_INVARIANCES = {
  "separate": {"both", "x alone", "h alone"},
  "authors": {"h alone"},
  "sum": {"both"},
  "per_gate": {"both", "x alone", "h alone", "one gate"},
  "cell": set(),
}


@pytest.mark.parametrize(
  "kind, form",
  [("LSTM", form) for form in FORM_INVARIANCES]
  + [("GRU", form) for form in FORM_INVARIANCES if form != "cell"],
)
@hypothesis.settings(max_examples=10)
@changes_of
def test_what_is_normalised_together_is_rescaled_together(
  kind, form, delta, seed
):
  p, carry, x, u = draw_factors(kind, "layer", form, seed)
  w_x, w_h = p["w_x"], p["w_h"]
  one_gate = w_x.copy()
  one_gate[:, :H] *= delta
  pairs = {
    "as it was": (w_x, w_h),
    "both": (delta * w_x, delta * w_h),
    "x alone": (delta * w_x, w_h),
    "h alone": (w_x, delta * w_h),
    "one gate": (one_gate, w_h),
  }
  ws, ms = map(np.stack, zip(*pairs.values(), strict=True))
  xs, us = (np.stack([v] * len(pairs)) for v in (x, u))
  with jax.enable_x64(True):
    after = several(kind, "layer", form, p, carry, xs, ws, us, ms)
  found = largest_changes(jax.tree.map(np.asarray, after))
  for name, change in zip(list(pairs)[1:], found, strict=True):
    invariant = name in FORM_INVARIANCES[form]
    assert change <= 1e-9 if invariant else change > 1e-5, (name, change)


def test_the_sum_form_forgets_a_shift_of_either_summed_input(x64):
  """And the GRU's candidate one of W x, but not one of U h: r multiplies it."""
  for kind, of_h in (("LSTM", True), ("GRU", False)):
    p, carry, x, u = draw_factors(kind, "layer", "sum", 0)
    p = named_tuple(kind, p)
    run = lambda x_in, h_in, p=p, carry=carry, kind=kind: hidden(
      UPDATES[kind](p, carry, x_in, h_in, form="sum", eps=0)[0]
    )
    x_in, h_in = x @ p.w_x, u @ p.w_h
    before = run(x_in, h_in)
    np.testing.assert_allclose(run(x_in + 5, h_in), before, atol=1e-9)
    moved = np.abs(run(x_in, h_in + 5) - before).max()
    assert moved <= 1e-9 if of_h else moved > 1e-3


# --- What a step asks of a normaliser ---

SITES = {
  ("LSTM", "separate"): {"x": 12, "h": 12, "c": 3},
  ("LSTM", "sum"): {"h": 12, "c": 3},
  ("LSTM", "cell"): {"c": 3},
  ("LSTM", "per_gate"): {
    **dict.fromkeys(("x_f", "x_i", "x_o", "x_g"), 3),
    **dict.fromkeys(("h_f", "h_i", "h_o", "h_g"), 3),
    "c": 3,
  },
  ("GRU", "separate"): {
    "x_gates": 6,
    "x_candidate": 3,
    "h_gates": 6,
    "h_candidate": 3,
  },
  ("GRU", "sum"): {"h_gates": 6, "h_candidate": 3},
  ("GRU", "per_gate"): {
    **dict.fromkeys(("x_z", "x_r", "x_candidate"), 3),
    **dict.fromkeys(("h_z", "h_r", "h_candidate"), 3),
  },
}


@pytest.mark.parametrize("kind, form", SITES)
def test_a_normaliser_is_told_the_site_of_what_it_is_handed(kind, form):
  found = []

  def normalise(site, a, affine):
    assert a.dtype == jnp.float32
    assert affine.gain.shape == affine.bias.shape == a.shape[-1:]
    found.append((site, a.shape[-1]))
    return a

  p = draw_params(kind, "layer", form)
  shapes = jax.tree.map(
    lambda v: jax.ShapeDtypeStruct(v.shape, jnp.bfloat16),
    (p, draw_state(kind), draw_inputs(1)[0]),
  )
  options = {"norm": normalise, "form": form}
  jax.eval_shape(lambda *args: step(kind, *args, options), *shapes)
  # In the order of the columns.
  assert found == list(SITES[kind, form].items())


# --- Wrong names ---


@every_kind
@pytest.mark.parametrize(
  "options, said",
  [
    (
      {"form": "per-gate"},
      "form='per-gate': must be one of separate, sum, per_gate, cell, authors;"
      " did you mean 'per_gate'?",
    ),
    (
      {"norm": "layr"},
      "norm='layr': must be one of layer, rms; did you mean 'layer'?",
    ),
    ({"norm": "batch"}, "norm='batch': must be one of layer, rms"),
  ],
)
def test_a_wrong_name_is_answered_by_the_right_ones(kind, options, said):
  p = draw_params(kind, "layer", "separate")
  with pytest.raises(ValueError) as fault:
    step(kind, p, draw_state(kind), draw_inputs(1)[0], options)
  assert str(fault.value) == said


def test_a_gru_has_no_cell_to_normalise():
  p = draw_params("GRU", "layer", "separate")
  with pytest.raises(ValueError, match="a GRU has no cell") as fault:
    step("GRU", p, draw_state("GRU"), draw_inputs(1)[0], {"form": "cell"})
  assert "\n" not in str(fault.value)


def test_the_form_cell_leaves_the_gates_alone_whatever_it_is_given():
  r = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(r.standard_normal(shape), jnp.float32)
  affine = lambda n: norms.Affine(draw(n), draw(n))
  p = cells.LSTMParams(
    draw(2, 12), draw(3, 12), draw(12), affine(12), affine(12), affine(3)
  )
  carry, x_in = (draw(4, 3), draw(4, 3)), draw(4, 12)
  bare = p._replace(ln_x=None, ln_h=None)
  want = cells.lstm_step(bare, carry, x_in)[1]
  got = cells.lstm_step(p, carry, x_in, form="cell")[1]
  np.testing.assert_array_equal(got, want)
  none = cells.lstm_step(bare._replace(ln_c=None), carry, x_in)[1]
  got = cells.lstm_step(p, carry, x_in, norm="none")[1]
  np.testing.assert_array_equal(got, none)
