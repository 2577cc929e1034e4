"""The recurrent layers against flax's, and what padding must not do."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnrnn

B, T, D, H = 3, 4, 2, 3
LENGTHS = [4, 0, 2]
same = functools.partial(jax.tree.map, np.testing.assert_array_equal)


ORDER = {"recurrent_init": nn.initializers.ones}  # Quick to draw.
CELLS = {
  "LSTM": lambda: lnrnn.LSTMCell(H, **ORDER),
  "stack": lambda: lnrnn.GRUCell(H, norm="rms", layers=2, **ORDER),
  "flax LSTM": lambda: nn.OptimizedLSTMCell(H),
  "flax GRU": lambda: nn.GRUCell(H),
  "flax ConvLSTM": lambda: nn.ConvLSTMCell(2, kernel_size=(2,)),
}


def draw(*shape, seed=0):
  rng = np.random.default_rng([seed, *shape])
  return jnp.asarray(rng.normal(0.3, 0.8, shape), jnp.float32)


def draw_like(tree, seed=0):
  """Random numbers in the shapes of a tree."""
  leaves, structure = jax.tree.flatten(tree)
  drawn = [draw(*a.shape, seed=seed + i) for i, a in enumerate(leaves)]
  return jax.tree.unflatten(structure, drawn)


def shapes_of(rnn, x, **options):
  run = lambda: rnn.init(jax.random.key(0), x, **options)
  return jax.eval_shape(run)


def started(rnn, x, **options):
  """Random parameters; statistics as they start."""
  shapes = shapes_of(rnn, x, **options)
  rest = {
    name: jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), tree)
    for name, tree in shapes.items()
    if name != "params"
  }
  return {"params": draw_like(shapes["params"]), **rest}


def inputs_of(name, batch=(B,), steps=T):
  features = (2, D) if "Conv" in name else (D,)
  return draw(*batch, steps, *features)


def carry_of(cell, x):
  """A random initial carry."""
  shape = (
    *x.shape[: -1 - cell.num_feature_axes],
    *x.shape[-cell.num_feature_axes :],
  )
  start = lambda: cell.initialize_carry(jax.random.key(0), shape)
  return draw_like(jax.eval_shape(start), seed=50)


def close(got, expected, **tolerance):
  tolerance = {"rtol": 1e-5, "atol": 1e-6} | tolerance
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, expected
  )


def assert_valid_close(got, expected, lengths, time_axis):
  """Outputs agree where sequences run; ours are zero elsewhere."""
  got, expected = (np.moveaxis(y, time_axis, 0) for y in (got, expected))
  live = np.arange(len(got)).reshape(-1, *[1] * np.ndim(lengths)) < lengths
  close(got[live], expected[live])
  assert not got[~live].any() and got[live].any()


# --- The arguments of flax's RNN ---


@pytest.mark.parametrize("name", ["LSTM", "stack", "flax ConvLSTM"])
def test_variables_move_to_flax_and_back(name):
  ours, theirs = lnrnn.RNN(CELLS[name]()), nn.RNN(CELLS[name]())
  x, key = inputs_of(name), jax.random.key(1)
  start = lambda rnn: jax.jit(rnn.init)(key, x)
  variables, expected = start(ours), start(theirs)
  assert set(variables) == {"params"} and set(variables["params"]) == {"cell"}
  same(variables, expected)


# time_major, reverse, keep_order, lengths.
CALLS = {
  "plain": (False, False, True, None),
  "time-major": (True, True, False, None),
  "reversed": (False, True, False, [4, 1, 2]),
  "in order": (True, True, True, [4, 1, 2]),
}


@pytest.mark.parametrize(
  "name, call",
  [(name, call) for name in ("LSTM", "flax LSTM") for call in CALLS]
  + [(name, "in order") for name in ("stack", "flax GRU", "flax ConvLSTM")],
)
def test_the_outputs_are_those_of_flax(name, call):
  time_major, reverse, keep_order, lengths = CALLS[call]
  cell, x = CELLS[name](), inputs_of(name)
  variables, first = started(lnrnn.RNN(cell), x), carry_of(cell, x)
  if time_major:
    x = jnp.moveaxis(x, 1, 0)
  options = {
    "time_major": time_major,
    "reverse": reverse,
    "keep_order": keep_order,
    "return_carry": True,
  }
  own = {
    "initial_carry": first,
    "seq_lengths": None if lengths is None else jnp.array(lengths),
  }
  expected_last, expected = nn.RNN(cell, **options).apply(variables, x, **own)
  last, y = lnrnn.RNN(cell, **options).apply(variables, x, **own)
  close(last, expected_last)
  assert_valid_close(y, expected, lengths or [T] * B, 0 if time_major else 1)
  if name == "LSTM":  # Arguments are before attributes.
    opposite = {name: not value for name, value in options.items()}
    rnn = lnrnn.RNN(cell, **opposite)
    same(rnn.apply(variables, x, **own, **options), (last, y))


@pytest.mark.parametrize("name", ["LSTM", "flax LSTM"])
def test_a_batch_may_have_any_number_of_axes(name):
  cell = CELLS[name]()
  rnn = lnrnn.RNN(cell, return_carry=True, reverse=True, keep_order=True)
  run = jax.jit(rnn.apply)
  x, lengths = inputs_of(name, (2, 3)), jnp.array([[1, 2, 3], [4, 0, 1]])
  variables, first = started(rnn, x), carry_of(cell, x)
  call = {"initial_carry": first, "reverse": True, "keep_order": True}
  last, y = run(variables, x, seq_lengths=lengths, initial_carry=first)
  # Without carries, which flax selects for one axis alone.
  expected = nn.RNN(cell).apply(variables, x, seq_lengths=lengths, **call)
  assert_valid_close(y, expected, lengths, 2)
  flat = lambda tree: jax.tree.map(lambda a: a.reshape(6, *a.shape[2:]), tree)
  got = run(
    variables, flat(x), seq_lengths=lengths.ravel(), initial_carry=flat(first)
  )
  close(got, flat((last, y)))
  row = lambda tree: jax.tree.map(lambda a: a[0, 2], tree)
  alone = run(
    variables, x[0, 2], seq_lengths=lengths[0, 2], initial_carry=row(first)
  )
  close(alone, row((last, y)))


@pytest.mark.parametrize("name", ["LSTM", "stack", "flax GRU"])
def test_init_key_draws_the_initial_carry(name):
  init = {"carry_init": nn.initializers.normal(1.0)}
  cell, x = CELLS[name]().clone(**init), inputs_of(name)
  variables = started(lnrnn.RNN(cell), x)
  zeros = jnp.zeros(B, jnp.int32)  # Which returns the initial carry.

  def start(**options):
    rnn = lnrnn.RNN(cell, return_carry=True)
    return rnn.apply(variables, x, seq_lengths=zeros, **options)[0]

  drawn = lambda key: cell.initialize_carry(key, (B, D))
  same(start(init_key=jax.random.key(5)), drawn(jax.random.key(5)))
  same(start(), drawn(jax.random.key(0)))
  given = carry_of(cell, x)
  same(start(initial_carry=given, init_key=jax.random.key(5)), given)


@pytest.mark.parametrize("name", ["LSTM", "flax GRU", "flax ConvLSTM"])
def test_the_gradients_are_those_of_flax(name):
  cell, x = CELLS[name](), inputs_of(name)
  variables, first = started(lnrnn.RNN(cell), x), carry_of(cell, x)
  lengths = jnp.array([4, 1, 2])

  def gradients(rnn, variables, x, first):
    def loss(variables, x, first):
      last, y = rnn.apply(
        variables, x, initial_carry=first, seq_lengths=lengths
      )
      live = (jnp.arange(T) < lengths[:, None]).reshape(
        B, T, *[1] * (y.ndim - 2)
      )
      y = jnp.where(live, y, 0) * draw(*y.shape, seed=3)
      last = jax.tree.map(lambda a: (a * draw(*a.shape, seed=4)).sum(), last)
      return y.sum() + sum(jax.tree.leaves(last))

    return jax.grad(loss, (0, 1, 2))(variables, x, first)

  run = jax.jit(gradients, static_argnums=0)
  args = variables, x, first
  expected = run(nn.RNN(cell, return_carry=True, reverse=True), *args)
  assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(expected))
  ours = lnrnn.RNN(cell, return_carry=True, reverse=True)
  close(run(ours, *args), expected, atol=1e-5)


def test_the_arguments_of_scan_reach_a_cell_that_is_not_ours():
  """A cell that counts its steps, and draws another number in each."""

  class Counter(nn.RNNCellBase):
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
      steps = self.variable("count", "steps", jnp.zeros, ())
      steps.value += 1
      noise = jax.random.normal(self.make_rng("noise"), ())
      return carry + x, jnp.stack([steps.value, noise])

    def initialize_carry(self, rng, input_shape):
      return jnp.zeros(input_shape)

  options = {
    "variable_carry": "count",
    "split_rngs": {"params": False, "noise": True},
    "unroll": 2,
  }
  found = [
    kind(Counter(), **options).apply(
      {"count": {"cell": {"steps": jnp.zeros(())}}},
      draw(T, D),
      rngs={"noise": jax.random.key(1)},
      mutable=["count"],
    )
    for kind in (lnrnn.RNN, nn.RNN)
  ]
  same(*found)
  y, state = found[0]
  np.testing.assert_array_equal(y[:, 0], [1, 2, 3, 4])
  assert len(set(np.asarray(y[:, 1]).tolist())) == T
  assert state["count"]["cell"]["steps"] == T


# --- Padding ---

KINDS = {
  "layer": {"norm": "layer"},
  "rms": {"norm": "rms"},
  "weight": {"norm": "weight"},
  "none": {"norm": "none"},
  "batch masked": {"norm": "batch", "bn_padding": "masked", "train": True},
  "batch all": {"norm": "batch", "bn_padding": "all", "train": True},
  "batch population": {"norm": "batch"},
  "batch minibatch": {"norm": "batch", "bn_test": "minibatch"},
}


@functools.cache
def padding_run(kind, cell=lnrnn.LSTMCell, **more):
  """Compiled: (x, lengths) -> all that a training step or test makes."""
  options = KINDS[kind] | more
  train, norm = options.pop("train", False), options.pop("norm")
  layers = options.pop("layers", 1)
  rnn = lnrnn.RNN(
    cell(H, norm=norm, layers=layers), t_max=8, return_carry=True, **options
  )
  variables = started(rnn, draw(B, T, D))

  @jax.jit
  def run(x, lengths):
    def loss(params, x):
      out, state = rnn.apply(
        variables | {"params": params},
        x,
        seq_lengths=lengths,
        train=train,
        mutable=["batch_stats"],
      )
      (last, y), weights = out, draw(8, H, seed=5)
      total = sum((a * weights[:B]).sum() for a in jax.tree.leaves(last))
      return total + (y * weights[: y.shape[1]]).sum(), (last, y, state)

    both = jax.value_and_grad(loss, (0, 1), has_aux=True)
    (_, (last, y, state)), (by_params, by_x) = both(variables["params"], x)
    return last, y, state, by_params, by_x

  return run


def padded_with(x, lengths, value):
  live = np.arange(x.shape[1]) < np.asarray(lengths)[:, None]
  return jnp.where(live[..., None], x, value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_padding_holds_changes_nothing_by_a_bit(kind):
  run = padding_run(kind)
  x, lengths = draw(B, T, D), jnp.array(LENGTHS)
  expected = run(padded_with(x, LENGTHS, 0.0), lengths)
  last, y, state, by_params, by_x = expected
  for value in (np.nan, 1e9, -np.inf):
    same(run(padded_with(x, LENGTHS, value), lengths), expected)
  live = np.arange(T) < np.array(LENGTHS)[:, None]
  assert not np.asarray(y)[~live].any() and not np.asarray(by_x)[~live].any()
  # Where something could have changed.
  assert np.asarray(y)[live].all() and np.asarray(by_x)[live].any()
  for leaf in jax.tree.leaves((last, y, state, by_params, by_x)):
    assert np.isfinite(leaf).all()
  assert any(np.abs(g).max() > 1e-2 for g in jax.tree.leaves(by_params))
  # A length of 0 returns the initial carry.
  assert not any(np.asarray(a)[1].any() for a in last)
  assert bool(state) == (kind.startswith("batch"))


@pytest.mark.parametrize("kind", ["layer", "batch masked", "batch all"])
def test_two_lengths_of_padding_agree(kind):
  run = padding_run(kind)
  x, lengths = draw(B, 8, D), jnp.array(LENGTHS)
  short, long = run(x[:, :4], lengths), run(x, lengths)
  cut = lambda tree: (*tree[:1], tree[1][:, :4], *tree[2:4], tree[4][:, :4])
  close(cut(long), short, rtol=1e-6, atol=1e-6)
  assert not long[1][:, 4:].any() and not long[4][:, 4:].any()


def test_padding_under_a_stack_of_grus_changes_nothing():
  run = padding_run("batch masked", lnrnn.GRUCell, layers=2, reverse=True)
  x, lengths = draw(B, T, D), jnp.array(LENGTHS)
  expected = run(padded_with(x, LENGTHS, 0.0), lengths)
  same(run(padded_with(x, LENGTHS, np.nan), lengths), expected)
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(expected))


@pytest.mark.parametrize("name", ["flax LSTM", "flax ConvLSTM"])
def test_padding_of_a_cell_that_is_not_ours_changes_nothing(name):
  cell, x = CELLS[name](), inputs_of(name)
  rnn = lnrnn.RNN(cell, return_carry=True)
  variables, first = started(rnn, x), carry_of(cell, x)
  live = np.arange(T) < np.array(LENGTHS)[:, None]
  run = lambda value: rnn.apply(
    variables,
    jnp.where(live.reshape(B, T, *[1] * (x.ndim - 2)), x, value),
    initial_carry=first,
    seq_lengths=jnp.array(LENGTHS),
  )
  expected = last, y = run(0.0)
  same(run(np.nan), expected)
  assert not np.asarray(y)[~live].any() and np.isfinite(y).all()
  row = lambda tree: jax.tree.map(lambda a: a[1], tree)
  same(row(last), row(first))


# --- The initial carry as a parameter ---


@pytest.mark.parametrize(
  "cell, learned, names",
  [
    (lnrnn.LSTMCell(H), "none", set()),
    (lnrnn.LSTMCell(H), "h", {"initial_h"}),
    (lnrnn.LSTMCell(H), "all", {"initial_c", "initial_h"}),
    (lnrnn.GRUCell(H), "h", {"initial_h"}),
    (lnrnn.LSTMCell(H, layers=2), "h", {"initial_h_0", "initial_h_1"}),
    (
      lnrnn.LSTMCell(H, layers=2),
      "all",
      {"initial_c_0", "initial_h_0", "initial_c_1", "initial_h_1"},
    ),
    (nn.OptimizedLSTMCell(H), "all", {"initial_0", "initial_1"}),
  ],
)
def test_a_learned_carry_is_one_for_all_rows(cell, learned, names):
  rnn = lnrnn.RNN(cell, learned_carry=learned, return_carry=True)
  x = draw(B, T, D)
  variables = started(rnn, x)
  params = variables["params"]
  assert set(params) == {"cell"} | names
  assert all(params[name].shape == (H,) for name in names)
  none = jnp.zeros(B, jnp.int32)

  def start(params, **options):
    run = functools.partial(rnn.apply, {"params": params}, x)
    return run(seq_lengths=none, **options)[0]

  leaves = jax.tree.leaves(start(params))
  wide = lambda a: np.broadcast_to(a, (B, H))
  layers = getattr(cell, "layers", 1)
  each = ["h"] if isinstance(cell, lnrnn.GRUCell) else ["c", "h"]
  order = [
    f"initial_{n}" + (f"_{i}" if layers > 1 else "")
    for i in range(layers)
    for n in each
  ]
  if isinstance(cell, nn.OptimizedLSTMCell):
    order = ["initial_0", "initial_1"]
  for name, leaf in zip(order, leaves, strict=True):
    # c stays at zero where only h is learned.
    same(leaf, wide(params[name] if name in names else np.zeros(H)))
  # A carry that is given replaces it.
  given = carry_of(cell, x)
  same(start(params, initial_carry=given), given)
  if names:
    loss = lambda p: (rnn.apply({"params": p}, x)[1] * draw(B, T, H)).sum()
    gradient = jax.grad(loss)(params)
    assert all(np.abs(gradient[name]).max() > 1e-3 for name in names)


def test_a_learned_carry_starts_as_the_cell_starts():
  cell = lnrnn.LSTMCell(H, carry_init=nn.initializers.constant(0.25), **ORDER)
  rnn = lnrnn.RNN(cell, learned_carry="all")
  params = jax.jit(rnn.init)(jax.random.key(0), draw(B, T, D))["params"]
  for name in ("initial_c", "initial_h"):
    np.testing.assert_array_equal(params[name], np.float32([0.25] * H))


def test_a_learned_h_asks_what_the_parts_of_the_carry_are():
  rnn = lnrnn.RNN(nn.OptimizedLSTMCell(H), learned_carry="h")
  with pytest.raises(ValueError) as fault:
    shapes_of(rnn, draw(B, T, D))
  said = 'RNN: learned_carry="h" needs a cell with `carry_names`; use "all"'
  assert str(fault.value) == said


# --- Stacks, remat, two directions ---


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", [lnrnn.LSTMCell, lnrnn.GRUCell])
def test_stacked_layers_are_layers_in_turn(cell, lengths, norm):
  x = draw(B, T, D)
  options = {"return_carry": True, "t_max": T}
  stack = lnrnn.RNN(cell(H, norm=norm, layers=2), **options)
  one = lnrnn.RNN(cell(H, norm=norm), **options)
  variables, first = started(stack, x), carry_of(stack.cell, x)
  call = {
    "train": True,
    "mutable": ["batch_stats"],
    "seq_lengths": None if lengths is None else jnp.array(lengths),
  }
  (last, y), state = stack.apply(variables, x, initial_carry=first, **call)
  for i in range(2):
    own = {"params": {"cell": variables["params"]["cell"][f"layer_{i}"]}}
    if norm == "batch":
      statistics = variables["batch_stats"][f"statistics_{i}"]
      own |= {"batch_stats": {"statistics": statistics}}
    (want, x), new = one.apply(own, x, initial_carry=first[i], **call)
    close(last[i], want)
    if norm == "batch":
      got = state["batch_stats"][f"statistics_{i}"]
      close(got, new["batch_stats"]["statistics"])
  close(y, x)


@pytest.mark.parametrize(
  "kind, options",
  [
    ("layer", {"remat_steps": 3, "unroll": 2}),
    ("batch population", {"remat_steps": 2}),
    ("batch masked", {"backward": "plain"}),
  ],
  ids=str,
)
def test_remat_steps_unroll_and_plain_change_nothing(kind, options):
  x, lengths = draw(B, T, D), jnp.array(LENGTHS)
  expected = padding_run(kind)(x, lengths)
  close(padding_run(kind, **options)(x, lengths), expected, atol=1e-5)


def test_the_options_reach_the_engine():
  def program(**options):
    rnn = lnrnn.RNN(lnrnn.LSTMCell(H), **options)
    variables = started(rnn, draw(B, T, D))
    value = lambda v: rnn.apply(v, draw(B, T, D)).sum()
    return value, variables, str(jax.make_jaxpr(jax.grad(value))(variables))

  value, variables, fast = program()
  with pytest.raises(TypeError, match='use backward="plain"'):
    jax.jvp(value, (variables,), (variables,))
  value, variables, plain = program(backward="plain")
  jax.eval_shape(lambda v: jax.jvp(value, (v,), (v,)), variables)
  _, _, chunks = program(remat_steps=2)
  _, _, unrolled = program(unroll=2)
  assert len({fast, plain, chunks, unrolled}) == 4
  assert chunks.count("scan[") > fast.count("scan[")
  assert "unroll=2" in unrolled and "unroll=2" not in fast
  exact = lnrnn.RNN(lnrnn.LSTMCell(H, precision="highest"))
  x = draw(B, T, D)
  run = jax.grad(lambda v: exact.apply(v, x).sum())
  text = str(jax.make_jaxpr(run)(started(exact, x)))
  products = text.count("dot_general[")
  assert text.count("precision=(Precision.HIGHEST") == products >= 4


@pytest.mark.parametrize(
  "time_major, lengths", [(False, [4, 1, 2]), (True, None)]
)
def test_bidirectional_is_that_of_flax(time_major, lengths):
  x = draw(T, B, D) if time_major else draw(B, T, D)
  cells = lnrnn.LSTMCell(H), nn.GRUCell(H)
  init = nn.initializers.normal(1.0)
  cells = [c.clone(carry_init=init) for c in cells]
  merge = lambda a, b: a + 2 * b
  options = {"time_major": time_major, "merge_fn": merge, "return_carry": True}
  ours = lnrnn.Bidirectional(*map(lnrnn.RNN, cells), **options)
  theirs = nn.Bidirectional(*map(nn.RNN, cells), **options)
  variables = started(ours, x)
  assert jax.tree.structure(variables) == jax.tree.structure(
    shapes_of(theirs, x)
  )
  first = jnp.stack([draw(B, H)] * 2), draw(B, H, seed=1)
  for call in (
    {"init_key": jax.random.key(3)},
    {"initial_carry": ((first[0][0], first[0][1]), first[1])},
  ):
    call["seq_lengths"] = None if lengths is None else jnp.array(lengths)
    carries, y = ours.apply(variables, x, **call)
    expected_carries, expected = theirs.apply(variables, x, **call)
    close(carries, expected_carries)
    assert_valid_close(y, expected, lengths or [T] * B, 0 if time_major else 1)


def test_bidirectional_by_default_joins_the_outputs():
  rnn = lnrnn.Bidirectional(
    lnrnn.RNN(lnrnn.GRUCell(H, norm="batch"), t_max=T),
    lnrnn.RNN(lnrnn.GRUCell(H, norm="batch"), t_max=T),
  )
  x, lengths = draw(B, T, D), jnp.array([4, 1, 2])
  variables = started(rnn, x)
  call = {"seq_lengths": lengths, "train": True, "mutable": ["batch_stats"]}
  y, state = rnn.apply(variables, x, **call)
  for name, part, reverse in (
    ("forward_rnn", y[..., :H], False),
    ("backward_rnn", y[..., H:], True),
  ):
    one = lnrnn.RNN(lnrnn.GRUCell(H, norm="batch"), t_max=T)
    own = {kind: tree[name] for kind, tree in variables.items()}
    expected, new = one.apply(own, x, reverse=reverse, keep_order=True, **call)
    close(part, expected)
    close(state["batch_stats"][name], new["batch_stats"])


# --- What is refused ---


@pytest.mark.parametrize(
  "options, said",
  [
    ({"backward": "quick"}, "backward='quick': must be one of fast, plain"),
    (
      {"learned_carry": "c"},
      "learned_carry='c': must be one of none, h, all",
    ),
    (
      {"bn_padding": "mask"},
      "bn_padding='mask': must be one of masked, all; did you mean 'masked'?",
    ),
    (
      {"bn_test": "average"},
      "bn_test='average': must be one of population, minibatch",
    ),
  ],
)
def test_an_unknown_value_is_answered_by_the_known_ones(options, said):
  with pytest.raises(ValueError) as fault:
    lnrnn.RNN(lnrnn.LSTMCell(H), **options)
  assert str(fault.value) == f"RNN: {said}"


@pytest.mark.parametrize(
  "shape, lengths, said",
  [
    ((3, 4, 2), (4,), "(4,); the inputs (3, 4, 2) ask for (3,)"),
    ((3, 4, 2), (3, 1), "(3, 1); the inputs (3, 4, 2) ask for (3,)"),
    ((3, 4, 2), (), "(); the inputs (3, 4, 2) ask for (3,)"),
    ((5, 3, 4, 2), (3,), "(3,); the inputs (5, 3, 4, 2) ask for (5, 3)"),
    ((4, 2), (1,), "(1,); the inputs (4, 2) ask for ()"),
  ],
)
@pytest.mark.parametrize("cell", [lnrnn.LSTMCell(H), nn.GRUCell(H)])
def test_lengths_of_a_wrong_shape_are_refused(cell, shape, lengths, said):
  with pytest.raises(ValueError) as fault:
    shapes_of(
      lnrnn.RNN(cell), draw(*shape), seq_lengths=jnp.ones(lengths, jnp.int32)
    )
  assert str(fault.value) == f"RNN: seq_lengths of shape {said}"


def test_inputs_without_time_are_refused():
  with pytest.raises(ValueError, match="have no time axis") as fault:
    shapes_of(lnrnn.RNN(lnrnn.LSTMCell(H)), draw(2))
  assert "\n" not in str(fault.value)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_length_that_no_sequence_has_is_refused(wrong):
  layer = lnrnn.RNN(lnrnn.LSTMCell(3))
  x = jnp.ones((2, 4, 2))
  variables = layer.init(jax.random.key(0), x)
  line = r"seq_lengths from -?\d to \d; the inputs have 4 steps"
  with pytest.raises(ValueError, match=line):
    layer.apply(variables, x, seq_lengths=jnp.array([wrong, 2]))


def test_lengths_not_known_yet_count_up_to_the_steps_there_are():
  layer = lnrnn.RNN(lnrnn.LSTMCell(3), reverse=True)
  x = jax.random.normal(jax.random.key(1), (2, 4, 2))
  variables = layer.init(jax.random.key(0), x)
  run = jax.jit(lambda n: layer.apply(variables, x, seq_lengths=n))
  np.testing.assert_array_equal(run(jnp.array([-1, 9])), run(jnp.array([0, 4])))


def test_known_lengths_may_be_closed_over_by_a_jitted_function():
  layer = lnrnn.RNN(lnrnn.LSTMCell(3))
  x, lengths = jnp.ones((2, 4, 2)), jnp.array([1, 4], jnp.int8)
  variables = layer.init(jax.random.key(0), x)
  y = jax.jit(lambda x: layer.apply(variables, x, seq_lengths=lengths))(x)
  assert not y[0, 1:].any() and y[1].all()


def test_lengths_of_a_narrow_type_do_not_overflow():
  layer = lnrnn.RNN(lnrnn.LSTMCell(2))
  x = jnp.ones((2, 200, 1))
  variables = layer.init(jax.random.key(0), x)
  lengths = np.array([100, 120])
  narrow = layer.apply(variables, x, seq_lengths=lengths.astype(np.int8))
  wide = layer.apply(variables, x, seq_lengths=lengths)
  np.testing.assert_array_equal(narrow, wide)
  with pytest.raises(ValueError, match="dtype float32; they are integers"):
    layer.apply(variables, x, seq_lengths=jnp.array([1.0, 2.0]))


class Fives(lnrnn.LSTMCell):
  """A cell whose `__call__` says other things than its `recurrences`."""

  def __call__(self, carry, x):
    new, y = super().__call__(carry, x)
    return new, 0 * y + 5.0


def test_a_cell_with_a_call_of_its_own_is_heard():
  x = jnp.ones((2, 4, 2))
  y, _ = lnrnn.RNN(Fives(3)).init_with_output(jax.random.key(0), x)
  assert (y == 5).all()
  many = nn.vmap(
    lnrnn.LSTMCell,
    variable_axes={"params": 0},
    split_rngs={"params": True},
  )
  shapes = jax.eval_shape(lnrnn.RNN(many(3)).init, jax.random.key(0), x)
  assert shapes["params"]["cell"]["w_h"].shape == (2, 3, 12)


def test_a_given_carry_may_be_whole_numbers_and_must_have_the_shape():
  layer = lnrnn.RNN(lnrnn.LSTMCell(3))
  x = jnp.ones((2, 4, 2))
  variables = layer.init(jax.random.key(0), x)
  zeros = jnp.zeros((2, 3), jnp.int32)
  y = layer.apply(variables, x, initial_carry=(zeros, zeros))
  np.testing.assert_array_equal(y, layer.apply(variables, x))
  for wrong in ([zeros, zeros], zeros, (zeros[:1], zeros[:1])):
    with pytest.raises(ValueError, match=r"initial_carry of shapes .*ask for"):
      layer.apply(variables, x, initial_carry=wrong)


@pytest.mark.parametrize(
  ("options", "line"),
  [
    ({"t_max": 0}, "t_max=0 is not 1 or more steps"),
    ({"t_max": 7.5}, "t_max=7.5 is not 1 or more steps"),
    ({"bn_momentum": -1.0}, r"bn_momentum=-1.0 is not in \[0, 1\)"),
  ],
)
def test_a_wrong_number_is_refused_at_once(options, line):
  with pytest.raises(ValueError, match=line):
    lnrnn.RNN(lnrnn.LSTMCell(3), **options)
  with pytest.raises(ValueError, match="cell=LSTMCell is a class; call it"):
    lnrnn.RNN(lnrnn.LSTMCell)


def test_a_random_learned_carry_depends_on_the_key():
  cell = lnrnn.LSTMCell(3, carry_init=nn.initializers.normal())
  layer = lnrnn.RNN(cell, learned_carry="all")
  x = jnp.ones((2, 4, 2))
  first, second = (layer.init(jax.random.key(i), x)["params"] for i in (0, 1))
  assert (first["initial_h"] != second["initial_h"]).all()
