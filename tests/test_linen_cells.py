"""The linen cells: their parameters, their state, and that they are the cells.

The equations are held by test_cells.py; here every combination of norm and
form is compared with NumPy once more, from the parameters it declares.
"""

import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import lnrnn
from lnrnn import linen_cells, norms

B, D, H = 4, 2, 3
EPS = 0.1  # So large that it matters.
KINDS = {"LSTM": lnrnn.LSTMCell, "GRU": lnrnn.GRUCell}
GATES = {"LSTM": 4, "GRU": 3}
REFERENCES = {"LSTM": references.lstm, "GRU": references.gru}
# What each combination declares; what is not here is refused.
LSTM_ALL = "b ln_x/gain ln_x/bias ln_h/gain ln_h/bias ln_c/gain ln_c/bias"
LSTM_CELL = "b ln_c/gain ln_c/bias"
LSTM_SUM = "b ln_h/gain ln_c/gain ln_c/bias"
GRU_ALL = "ln_x/gain ln_x/bias ln_h/gain ln_h/bias"
WEIGHT = "b wn_x/gain wn_h/gain"
TREES = {
  ("LSTM", "layer", "separate"): LSTM_ALL,
  ("LSTM", "layer", "sum"): LSTM_SUM,
  ("LSTM", "layer", "per_gate"): LSTM_ALL,
  ("LSTM", "layer", "cell"): LSTM_CELL,
  ("LSTM", "layer", "authors"): LSTM_ALL,
  ("LSTM", "rms", "separate"): LSTM_ALL,
  ("LSTM", "rms", "sum"): LSTM_SUM,
  ("LSTM", "rms", "per_gate"): LSTM_ALL,
  ("LSTM", "rms", "cell"): LSTM_CELL,
  # Cooijmans et al.: no bias but the cell's, as b is one.
  ("LSTM", "batch", "separate"): "b ln_x/gain ln_h/gain ln_c/gain ln_c/bias",
  ("LSTM", "batch", "sum"): LSTM_SUM,
  ("LSTM", "batch", "cell"): LSTM_CELL,
  ("LSTM", "weight", "separate"): WEIGHT,
  ("LSTM", "weight", "sum"): WEIGHT,
  ("LSTM", "weight", "per_gate"): WEIGHT,
  ("LSTM", "weight", "cell"): WEIGHT,
  ("LSTM", "none", "separate"): "b",
  ("LSTM", "none", "sum"): "b",
  ("LSTM", "none", "per_gate"): "b",
  ("LSTM", "none", "cell"): "b",
  # Eqs. 26-28 have no b.
  ("GRU", "layer", "separate"): GRU_ALL,
  ("GRU", "layer", "sum"): "b ln_h/gain",
  ("GRU", "layer", "per_gate"): GRU_ALL,
  ("GRU", "layer", "authors"): "b " + GRU_ALL,
  ("GRU", "rms", "separate"): GRU_ALL,
  ("GRU", "rms", "sum"): "b ln_h/gain",
  ("GRU", "rms", "per_gate"): GRU_ALL,
  ("GRU", "batch", "separate"): "b ln_x/gain ln_h/gain",
  ("GRU", "batch", "sum"): "b ln_h/gain",
  ("GRU", "weight", "separate"): WEIGHT,
  ("GRU", "weight", "sum"): WEIGHT,
  ("GRU", "weight", "per_gate"): WEIGHT,
  ("GRU", "none", "separate"): "b",
  ("GRU", "none", "sum"): "b",
  ("GRU", "none", "per_gate"): "b",
}
every_cell = pytest.mark.parametrize("kind, norm, form", TREES)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_norm = pytest.mark.parametrize("norm", norms.NAMES)


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def make(kind, norm="layer", form="separate", **options):
  return KINDS[kind](H, norm=norm, form=form, **options)


def started(cell, d=D, seed=0):
  """The parameters that a cell declares, whatever its norm."""
  return cell.init(jax.random.key(seed), d, method="recurrences")["params"]


def declared(cell, d=D):
  """Shapes and dtypes of those."""
  return jax.eval_shape(lambda: started(cell, d))


def drawn(cell, d=D, seed=0):
  """Random parameters in their place; no gain is 1 and no bias 0."""
  rng = np.random.default_rng(seed)

  def draw(path, p):
    mean = 1 if path[-1].key == "gain" else 0.2
    return rng.normal(mean, 0.5, p.shape).astype(p.dtype)

  return jax.tree_util.tree_map_with_path(draw, declared(cell, d))


def draw_state(kind, dtype=np.float64, seed=1):
  c, h = np.random.default_rng(seed).normal(0.3, 0.9, (2, B, H)).astype(dtype)
  return (c, h) if kind == "LSTM" else h


def draw_inputs(steps, dtype=np.float64):
  rng = np.random.default_rng(2)
  return rng.normal(0.4, 1.2, (steps, B, D)).astype(dtype)


def step(cell, params, carry, x):
  """One step; with batch norm by the moments of the minibatch."""
  if cell.norm != "batch":
    return cell.apply({"params": params}, carry, x)
  (layer,) = cell.apply({"params": params}, D, method="recurrences")
  by_minibatch = layer.normalised(
    lambda site, a, affine: norms.batch_norm(
      a, *affine, norms.batch_moments(a), eps=cell.eps
    )
  )
  dot = lambda v, name: v @ layer.weights[name]
  return by_minibatch(dot, layer.consts, carry, x)


def hidden(carry):
  return carry[1] if isinstance(carry, tuple) else carry


def assert_close(got, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, expected
  )


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


# --- The equations ---


@every_cell
def test_a_linen_cell_agrees_with_numpy_over_several_steps(
  kind, norm, form, x64
):
  cell = make(kind, norm, form, eps=EPS, param_dtype=jnp.float64)
  params = drawn(cell)
  expected = ours = draw_state(kind)
  for x in draw_inputs(3):
    expected = REFERENCES[kind](params, expected, x, norm, form, EPS)
    ours, y = step(cell, params, ours, x)
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(y, hidden(ours))


@every_cell
def test_gradients_are_the_finite_differences_of_numpy(kind, norm, form, x64):
  cell = make(kind, norm, form, eps=EPS, param_dtype=jnp.float64)
  args = drawn(cell), draw_state(kind), draw_inputs(1)[0]
  leaves, structure = jax.tree.flatten(args)

  def reference(*leaves):
    params, carry, x = jax.tree.unflatten(structure, leaves)
    return np.stack(REFERENCES[kind](params, carry, x, norm, form, EPS))

  def ours(*leaves):
    return jnp.stack(step(cell, *jax.tree.unflatten(structure, leaves))[0])

  cotangent = np.random.default_rng(3).normal(size=reference(*leaves).shape)
  expected = references.central_differences(reference, leaves, cotangent)
  _, vjp = jax.vjp(ours, *map(jnp.asarray, leaves))
  for got, want in zip(vjp(jnp.asarray(cotangent)), expected, strict=True):
    assert np.abs(want).max() > 1e-2  # A test of zeros would test nothing.
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@every_kind
def test_by_default_it_is_the_supplements_layer_norm(kind, x64):
  cell = KINDS[kind](H, param_dtype=jnp.float64)
  params, carry, (x,) = drawn(cell), draw_state(kind), draw_inputs(1)
  # Products so small that their variance is of the size of epsilon.
  params |= {name: 2e-3 * params[name] for name in ("w_x", "w_h")}
  expected = REFERENCES[kind](params, carry, x, "layer", "separate", 1e-5)
  assert_close(step(cell, params, carry, x)[0], expected, rtol=1e-12)


@every_kind
@every_norm
def test_stacked_layers_read_the_outputs_of_the_layer_below(kind, norm, x64):
  options = {"eps": EPS, "param_dtype": jnp.float64}
  stack = make(kind, norm, layers=3, **options)
  one = make(kind, norm, **options)
  params = drawn(stack)
  assert list(params) == ["layer_0", "layer_1", "layer_2"]
  below, above = declared(one), declared(one, H)
  same_shapes = lambda a, b: (
    jax.tree.map(np.shape, a) == jax.tree.map(np.shape, b)
  )
  assert same_shapes(params["layer_0"], below)
  assert same_shapes(params["layer_1"], above)
  assert same_shapes(params["layer_2"], above)
  if norm == "batch":  # Its stack runs under lnrnn.RNN.
    return
  carry, (x,) = (
    tuple(draw_state(kind, seed=i) for i in range(3)),
    draw_inputs(1),
  )
  news, y = stack.apply({"params": params}, carry, x)
  for i, new in enumerate(news):
    expected = REFERENCES[kind](
      params[f"layer_{i}"], carry[i], x, norm, "separate", EPS
    )
    assert_close(new, expected, rtol=1e-12)
    x = hidden(expected)
  np.testing.assert_array_equal(y, hidden(news[-1]))


@every_kind
@pytest.mark.parametrize("norm", ["layer", "weight"])
def test_flax_runs_a_cell_over_time(kind, norm):
  cell = make(kind, norm, eps=EPS)
  params = drawn(cell)
  first, xs = draw_state(kind, np.float32), draw_inputs(3, np.float32)
  rnn = nn.RNN(cell, time_major=True, return_carry=True)
  run = jax.jit(lambda p: rnn.apply(p, xs, initial_carry=first))
  last, ys = run({"params": {"cell": params}})
  carry, wide = jax.tree.map(np.float64, (first, params))
  for x, y in zip(np.float64(xs), ys, strict=True):
    carry = REFERENCES[kind](wide, carry, x, norm, "separate", EPS)
    np.testing.assert_allclose(y, hidden(carry), rtol=1e-4, atol=1e-5)
  assert_close(last, carry, rtol=1e-4, atol=1e-5)


@every_kind
def test_our_rnn_normalises_by_the_minibatch_of_each_step(kind):
  cell = make(kind, "batch", eps=EPS)
  rnn = lnrnn.RNN(cell, time_major=True, return_carry=True, t_max=3)
  params = drawn(cell)
  first, xs = draw_state(kind, np.float32), draw_inputs(3, np.float32)
  own = jax.eval_shape(lambda: rnn.init(jax.random.key(0), xs)["params"])
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  assert shapes(own) == {"cell": shapes(params)}
  run = jax.jit(
    lambda p: rnn.apply(
      p, xs, initial_carry=first, train=True, mutable=["batch_stats"]
    )[0]
  )
  last, ys = run({"params": {"cell": params}})
  carry, wide = jax.tree.map(np.float64, (first, params))
  for x, y in zip(np.float64(xs), ys, strict=True):
    carry = REFERENCES[kind](wide, carry, x, "batch", "separate", EPS)
    np.testing.assert_allclose(y, hidden(carry), rtol=1e-4, atol=1e-5)
  assert_close(last, carry, rtol=1e-4, atol=1e-5)


# --- The parameters ---


@every_cell
def test_the_tree_of_the_parameters_is_the_documented_one(
  kind, norm, form, x64
):
  n = GATES[kind] * H
  shapes = {"w_x": (D, n), "w_h": (H, n), "b": (n,)}
  shapes |= {"ln_c/gain": (H,), "ln_c/bias": (H,)}
  names = ["w_x", "w_h", *TREES[kind, norm, form].split()]
  got = flat(declared(make(kind, norm, form)))
  assert {k: v.shape for k, v in got.items()} == {
    name: shapes.get(name, (n,)) for name in names
  }
  assert {v.dtype for v in got.values()} == {jnp.dtype(jnp.float32)}
  if norm != "batch":  # A call declares what `recurrences` does.
    cell = make(kind, norm, form)
    called = jax.eval_shape(
      lambda: cell.init(jax.random.key(0), draw_state(kind), draw_inputs(1)[0])[
        "params"
      ]
    )
    assert flat(called) == got


@every_kind
@every_norm
def test_gains_start_at_1_or_a_tenth_and_biases_at_0(kind, norm):
  params = started(make(kind, norm))
  for name, p in flat(params).items():
    if name.startswith("ln_") and name.endswith("gain"):
      expected = 0.1 if norm == "batch" else 1.0
      np.testing.assert_array_equal(p, np.full_like(p, expected))
    elif name == "b" or name.endswith("bias"):
      np.testing.assert_array_equal(p, np.zeros_like(p))
  if norm == "weight":
    for term in "xh":
      lengths = np.linalg.norm(params[f"w_{term}"], axis=0)
      np.testing.assert_allclose(
        params[f"wn_{term}"]["gain"], lengths, rtol=1e-6
      )


@every_kind
def test_weight_norm_starts_as_no_norm(kind):
  carry = draw_state(kind, np.float32)
  (x,) = draw_inputs(1, np.float32)
  none, weight = (make(kind, norm) for norm in ("none", "weight"))
  expected, _ = step(none, started(none), carry, x)
  got, _ = step(weight, started(weight), carry, x)
  assert_close(got, expected, rtol=1e-6)


@every_kind
@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_initialisers_reach_their_parameters(kind, norm):
  constant = nn.initializers.constant
  cell = make(
    kind,
    norm,
    form="sum",
    layers=2,
    gain_init=constant(0.25),
    kernel_init=constant(2.0),
    recurrent_init=constant(3.0),
    bias_init=constant(0.5),
  )
  params = started(cell)
  for layer in ("layer_0", "layer_1"):
    p = flat(params[layer])
    expected = {"w_x": 2, "w_h": 3, "b": 0.5, "ln_h/gain": 0.25}
    expected |= {"ln_c/gain": 0.25} if kind == "LSTM" else {}
    for name, value in expected.items():
      np.testing.assert_array_equal(p[name], np.full_like(p[name], value))


def test_the_forget_bias_is_added_to_the_first_gate_alone():
  constant = nn.initializers.constant
  b = started(make("LSTM", forget_bias=1.0))["b"]
  np.testing.assert_array_equal(b, [1] * H + [0] * 3 * H)
  cell = make("LSTM", layers=2, forget_bias=2.0, bias_init=constant(0.5))
  for layer in started(cell).values():
    np.testing.assert_array_equal(layer["b"], [2.5] * H + [0.5] * 3 * H)
  # The first gate is f: it multiplies the old c.
  cell = make("LSTM", "none", forget_bias=50.0)
  params = jax.tree.map(jnp.zeros_like, started(cell)) | {
    "b": started(cell)["b"]
  }
  c, h = draw_state("LSTM", np.float32)
  (new, _), _ = step(cell, params, (c, h), draw_inputs(1, np.float32)[0])
  np.testing.assert_allclose(new, c, rtol=1e-6)


def blocks(w, kind):
  return np.split(np.asarray(w), GATES[kind], axis=1)


def assert_apart(drawn):
  for i, a in enumerate(drawn):
    for b in drawn[:i]:
      assert np.abs(a - b).max() > 1e-2


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_each_gate_starts_with_an_orthogonal_matrix_of_its_own(kind, layers):
  params = started(make(kind, layers=layers))
  stack = [params] if layers == 1 else list(params.values())
  squares = [w for p in stack for w in blocks(p["w_h"], kind)]
  # Their helper treats every square matrix so, and W_x of the second layer is.
  squares += [w for p in stack[1:] for w in blocks(p["w_x"], kind)]
  assert_apart(squares)
  for w in squares:
    np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-5)


@every_kind
def test_input_weights_start_uniform_unless_they_are_square(kind):
  w_x = started(make(kind), d=100)["w_x"]
  assert w_x.dtype == jnp.float32
  assert_apart(blocks(w_x, kind))
  for w in blocks(w_x, kind):
    assert -0.1 <= w.min() < -0.09 and 0.09 < w.max() <= 0.1
    # 300 draws of a standard deviation 0.2 / sqrt(12) = 0.0577.
    assert abs(w.mean()) < 0.01 and abs(w.std() - 0.0577) < 0.005
  square = blocks(started(make(kind), d=H)["w_x"], kind)
  assert_apart(square)
  for w in square:
    np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-5)


def test_the_authors_initialiser_takes_shape_and_dtype():
  draw = linen_cells.authors_kernel_init
  key = jax.random.key(0)
  assert draw(key, (2, 5), jnp.bfloat16).dtype == jnp.bfloat16
  assert draw(key, (2, 5)).dtype == draw(key, (5, 5)).dtype == jnp.float32
  w = np.asarray(draw(key, (5, 5)))
  np.testing.assert_allclose(w.T @ w, np.eye(5), atol=1e-5)


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_the_matrices_start_alike_whatever_the_norm_and_form(kind, layers):
  def matrices(norm, form):
    params = started(make(kind, norm, form, layers=layers))
    return {k: v for k, v in flat(params).items() if k[-3:] in ("w_x", "w_h")}

  expected = matrices("none", "separate")
  assert len(expected) == 2 * layers
  for one, norm, form in TREES:
    if one == kind and (layers == 1 or form == "separate"):
      jax.tree.map(
        np.testing.assert_array_equal, matrices(norm, form), expected
      )


# --- The state ---


@pytest.mark.parametrize("batch", [(), (4,), (2, 5)], ids=str)
def test_the_state_starts_at_zero(batch):
  key, shape = jax.random.key(0), (*batch, D)
  zeros = np.zeros((*batch, H), np.float32)
  same = lambda got, expected: jax.tree.map(
    np.testing.assert_array_equal, got, expected
  )
  same(make("LSTM").initialize_carry(key, shape), (zeros, zeros))
  same(make("GRU").initialize_carry(key, shape), zeros)
  lstm, gru = (make(kind, layers=2) for kind in KINDS)
  same(lstm.initialize_carry(key, shape), ((zeros, zeros),) * 2)
  same(gru.initialize_carry(key, shape), (zeros, zeros))
  assert lstm.num_feature_axes == gru.num_feature_axes == 1
  assert lstm.carry_names() == ("c", "h") and gru.carry_names() == ("h",)


@every_kind
def test_every_part_of_a_drawn_state_is_drawn_apart(kind):
  cell = make(kind, layers=2, carry_init=nn.initializers.normal(1.0))
  draw = lambda seed: jax.tree.leaves(
    cell.initialize_carry(jax.random.key(seed), (B, D))
  )
  parts = draw(0)
  assert len(parts) == (4 if kind == "LSTM" else 2)
  assert_apart([*parts, *draw(1)])
  jax.tree.map(np.testing.assert_array_equal, draw(0), parts)


# --- Dtypes ---

DTYPES = [  # dtype, param_dtype; of h, of c.
  (None, jnp.float32, jnp.float32, jnp.float32),
  (None, jnp.bfloat16, jnp.bfloat16, jnp.float32),
  (None, jnp.float64, jnp.float64, jnp.float64),
  (jnp.bfloat16, jnp.float32, jnp.bfloat16, jnp.float32),
  (jnp.float32, jnp.bfloat16, jnp.float32, jnp.float32),
]


@pytest.mark.parametrize("dtype, param_dtype, of_h, of_c", DTYPES)
@every_kind
@pytest.mark.parametrize("norm", ["layer", "batch", "weight"])
def test_products_and_h_have_the_dtype_and_c_is_float32_or_wider(
  kind, norm, dtype, param_dtype, of_h, of_c, x64
):
  cell = make(kind, norm, dtype=dtype, param_dtype=param_dtype)
  params = declared(cell)
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(param_dtype)}
  carry = jax.eval_shape(
    lambda: cell.initialize_carry(jax.random.key(0), (B, D))
  )
  assert hidden(carry).dtype == of_h
  # The inputs are float32 whatever the cell is, as data is.
  x = jax.ShapeDtypeStruct((B, D), jnp.float32)
  if norm == "batch":
    x = jax.ShapeDtypeStruct((B, D), of_h)  # As lnrnn.RNN casts them.

  def value(params, carry, x):
    return step(cell, params, carry, x)

  new, y = jax.eval_shape(value, params, carry, x)
  assert jax.tree.map(lambda v: v.dtype, new) == jax.tree.map(
    lambda v: v.dtype, carry
  )
  assert y.dtype == of_h
  if kind == "LSTM":
    assert new[0].dtype == of_c

  def total(params, carry, x):
    return sum(v.sum() for v in jax.tree.leaves(value(params, carry, x)))

  jaxpr = jax.make_jaxpr(total)(params, carry, x)
  factors = {v.aval.dtype for p in products(jaxpr.jaxpr) for v in p.invars}
  assert factors == {jnp.dtype(of_h)}
  gradient = jax.make_jaxpr(jax.grad(total, (0, 1, 2)))(params, carry, x)
  wide = re.search(r"f64\[\d", str(gradient))
  assert bool(wide) == (param_dtype == jnp.float64)


def products(jaxpr):
  """The matrix products in a jaxpr, however deep."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "dot_general":
      yield eqn
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")
    ):
      if hasattr(inner, "jaxpr"):
        yield from products(inner.jaxpr)


@every_kind
@pytest.mark.parametrize("norm", ["layer", "weight", "none"])
def test_bfloat16_is_close_to_float32(kind, norm):
  narrow, wide = make(kind, norm, dtype=jnp.bfloat16), make(kind, norm)
  params = drawn(wide)
  got = narrow.initialize_carry(jax.random.key(0), (B, D))
  expected = wide.initialize_carry(jax.random.key(0), (B, D))
  for x in draw_inputs(3, np.float32):
    got, y = step(narrow, params, got, x)
    expected, _ = step(wide, params, expected, x)
    assert y.dtype == jnp.bfloat16
    error = np.abs(np.float32(y) - hidden(expected)).max()
    assert 1e-5 < error < 0.05  # Of numbers below 1.


@every_kind
def test_a_cell_can_start_in_half_precision(kind):
  params = started(make(kind, param_dtype=jnp.bfloat16))
  for w in blocks(np.float32(params["w_h"]), kind):
    np.testing.assert_allclose(w.T @ w, np.eye(H), atol=0.03)


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_precision_reaches_every_product(kind, layers):
  cell = make(kind, layers=layers, precision="highest")
  carry = cell.initialize_carry(jax.random.key(0), (B, D))
  run = lambda *args: cell.apply({"params": args[0]}, *args[1:])
  jaxpr = jax.make_jaxpr(run)(drawn(cell), carry, draw_inputs(1)[0])
  found = [p.params["precision"] for p in products(jaxpr.jaxpr)]
  assert found == [(jax.lax.Precision.HIGHEST,) * 2] * 2 * layers


# --- What is refused ---


@every_kind
@every_norm
@pytest.mark.parametrize(
  "form", ["separate", "sum", "per_gate", "cell", "authors", "pergate", None]
)
def test_a_form_that_a_norm_has_not_is_answered_by_those_it_has(
  kind, norm, form
):
  allowed = [f for k, n, f in TREES if (k, n) == (kind, norm)]
  if form in allowed:
    assert make(kind, norm, form).form == form
    return
  with pytest.raises(ValueError) as fault:
    make(kind, norm, form)
  (line,) = str(fault.value).splitlines()
  said = f"{kind}Cell: form={form!r} with norm={norm!r}: must be one of "
  assert line.startswith(said + ", ".join(allowed))


@every_kind
def test_an_unknown_norm_is_answered_by_the_known_ones(kind):
  with pytest.raises(ValueError) as fault:
    make(kind, "lyer")
  assert str(fault.value) == f"{kind}Cell: {norms.unknown_name('lyer')}"


@every_kind
@every_norm
def test_one_unit_can_not_be_normalised(kind, norm):
  cell = KINDS[kind]
  assert cell(2, norm=norm).features == 2
  if norm not in ("layer", "rms"):
    assert cell(1, norm=norm).features == 1
    said = "features=0 is below 1"
    fault = pytest.raises(ValueError, cell, 0, norm=norm)
  else:
    said = "features=1 is below 2, the least that can be normalised"
    fault = pytest.raises(ValueError, cell, 1, norm=norm)
  assert str(fault.value) == f"{kind}Cell: {said}"


@every_kind
def test_no_layers_are_refused(kind):
  with pytest.raises(ValueError) as fault:
    make(kind, layers=0)
  assert str(fault.value) == f"{kind}Cell: layers=0 is below 1"


@every_kind
def test_batch_norm_under_flax_says_where_it_runs(kind):
  rnn = nn.RNN(make(kind, "batch"))
  with pytest.raises(ValueError) as fault:
    rnn.init(jax.random.key(0), jnp.ones((B, 3, D)))
  (line,) = str(fault.value).splitlines()
  assert 'norm="batch"' in line and "run the cell under lnrnn.RNN" in line


# --- What the engine and batch norm are told ---


@every_cell
def test_statistics_are_kept_of_what_batch_norm_normalises(kind, norm, form):
  cell = make(kind, norm, form)
  (layer,) = cell.apply({"params": drawn(cell)}, D, method="recurrences")
  found = {}

  def normalise(site, a, affine):
    found[site] = a.shape[-1]
    return a

  dot = lambda v, name: v @ layer.weights[name]
  args = draw_state(kind, np.float32), draw_inputs(1, np.float32)[0]
  jax.eval_shape(
    lambda *args: layer.normalised(normalise)(dot, layer.consts, *args), *args
  )
  assert layer.sites == (found if norm == "batch" else {})
  assert bool(found) == (norm in ("layer", "rms", "batch"))
