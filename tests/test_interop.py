"""Weights come in from other programs, and our cells run inside flax's tools.

The importers are compared with the other program where it is at hand, and
with its equations in NumPy.
"""

import functools
import io
import re

import flax
from flax import linen as nn
from flax import nnx, traverse_util
from flax.nnx import bridge
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from safetensors.flax import load_file, save_file

import lnrnn
from lnrnn import interop, linen_cells
from lnrnn.errors import DataError

B, T, D, H = 3, 4, 2, 3
KINDS = {"LSTM": lnrnn.LSTMCell, "GRU": lnrnn.GRUCell}
CELLS = [(k, n) for k in KINDS for n in ("layer", "weight", "rms", "none")]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_cell = pytest.mark.parametrize("kind, norm", CELLS)
# The programs are small and run once, so they are compiled in haste: in a
# tenth of the time.
HASTE = {
  "xla_backend_optimization_level": 0,
  "xla_cpu_parallel_codegen_split_count": 1,
}
# Later there is no choice of emitters.
if jax.__version_info__ < (0, 11):
  HASTE["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=HASTE)


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def draw(seed, *shape, dtype=np.float32):
  return np.random.default_rng(seed).normal(0.3, 0.8, shape).astype(dtype)


def drawn(module, *args, seed=5):
  """Random variables of a module, none of them where it starts."""
  declared = jax.eval_shape(module.init, jax.random.key(0), *args)
  leaves, structure = jax.tree.flatten(declared)
  return structure.unflatten(
    [draw([seed, i], *a.shape, dtype=a.dtype) for i, a in enumerate(leaves)]
  )


def shapes(tree):
  return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def make(kind, norm, **options):
  return KINDS[kind](H, norm=norm, **options)


def run(module, variables, *args, **options):
  """The outputs of a module, compiled."""
  return jit(lambda *args: module.apply(*args, **options))(variables, *args)


X, COTANGENT = draw(1, B, T, D), draw(2, B, T, H)


def pull_back(module, variables):
  """Outputs, and the gradients of <COTANGENT, outputs> by variables and X."""

  def product(variables, x):
    y = module.apply(variables, x)
    return (COTANGENT * y).sum(), y

  graded = jit(jax.value_and_grad(product, (0, 1), has_aux=True))
  (_, y), gradients = graded(variables, X)
  return y, gradients


@functools.cache
def expected(kind, norm):
  """Variables, outputs and gradients, where flax runs the cell over X."""
  rnn = nn.RNN(make(kind, norm))
  variables = drawn(rnn, X)
  return variables, *pull_back(rnn, variables)


def assert_close(got, expected, rtol=2e-5, atol=5e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    got,
    expected,
  )


def assert_same(got, expected):
  jax.tree.map(np.testing.assert_array_equal, got, expected)


# --- The authors' weights ---

AUTHORS = {
  "LSTM": {"W": (D, 4 * H), "U": (H, 4 * H), "b": (4 * H,)}
  | {name: (4 * H,) for name in ("s1", "b1", "s2", "b2")}
  | {"s3": (H,), "b3": (H,)},
  "GRU": {"W": (D, 2 * H), "U": (H, 2 * H), "b": (2 * H,)}
  | {"Wx": (D, H), "Ux": (H, H), "bx": (H,)}
  | {name: (2 * H,) for name in ("s1", "b1", "s3", "b3")}
  | {name: (H,) for name in ("s2", "b2", "s4", "b4")},
}


def authors_weights(kind, seed=0, dtype=np.float64):
  return {
    key: draw([seed, i], *shape, dtype=dtype)
    for i, (key, shape) in enumerate(AUTHORS[kind].items())
  }


def saved(path, layers, **more):
  """A file as theirs: the layers, by prefix, among other arrays."""
  arrays = {
    f"{prefix}_{key}": a for prefix, p in layers.items() for key, a in p.items()
  }
  # An empty list in the one file; objects would ask for a pickle.
  np.savez(
    path, history_errs=np.array([None]), Wemb=np.ones(2), **arrays, **more
  )
  return path


@every_kind
def test_the_authors_weights_compute_what_their_code_does(kind, tmp_path, x64):
  weights = authors_weights(kind)
  path = saved(tmp_path / "w.npz", {"encoder": weights})
  x = draw(1, B, T, D, dtype=np.float64)
  h0 = draw(2, B, H, dtype=np.float64)
  c0 = draw(3, B, H, dtype=np.float64)
  lengths = np.array([T, 1, 2])

  # Their masked step keeps the old state: m h + (1 - m) h_.
  c, h, expected = c0, h0, []
  for t in range(T):
    m = (t < lengths).astype(float)[:, None]
    if kind == "LSTM":
      new_c, new_h = references.authors_lstm(weights, (c, h), x[:, t], 1e-5)
      c = m * new_c + (1 - m) * c
    else:
      new_h = references.authors_gru(weights, h, x[:, t], 1e-5)
    h = m * new_h + (1 - m) * h
    expected.append(m * h)  # Ours puts out zero once a sequence is finished.

  cell, initial_h = interop.from_authors_npz(path, "encoder")
  assert initial_h is None
  rnn = lnrnn.RNN(KINDS[kind](H, form="authors"), return_carry=True)
  carry, y = run(
    rnn,
    {"params": {"cell": cell}},
    x,
    seq_lengths=lengths,
    initial_carry=(c0, h0) if kind == "LSTM" else h0,
  )
  assert_close(y, np.stack(expected, axis=1), rtol=1e-10, atol=1e-12)
  last = (c, h) if kind == "LSTM" else h
  assert_close(carry, last, rtol=1e-10, atol=1e-12)


@every_kind
def test_an_imported_tree_is_the_one_the_cell_declares(kind, tmp_path):
  path = saved(tmp_path / "w.npz", {"p": authors_weights(kind, 0, np.float32)})
  cell, _ = interop.from_authors_npz(path, "p", kind=kind.lower())
  rnn = lnrnn.RNN(KINDS[kind](H, form="authors"))
  declared = jax.eval_shape(rnn.init, jax.random.key(0), np.ones((B, T, D)))
  assert shapes(cell) == shapes(declared["params"]["cell"])


def test_a_prefix_is_matched_as_a_whole(tmp_path):
  layers = {
    prefix: authors_weights("GRU", seed, np.float32)
    for seed, prefix in enumerate(("encoder", "decoder_f", "decoder_b"), 1)
  }
  # encoder_b is the bias of "encoder", and a prefix of its own beside it.
  layers["encoder_b"] = authors_weights("LSTM", 9, np.float32)
  path = saved(tmp_path / "w.npz", layers)
  for prefix, weights in layers.items():
    cell, _ = interop.from_authors_npz(path, prefix)
    assert_same(cell["b"][-H:], weights["bx" if "Wx" in weights else "b"][-H:])
  with pytest.raises(DataError, match="decoder_W.*decoder_b, decoder_f, enc"):
    interop.from_authors_npz(path, "decoder")


def test_a_learned_initial_state_comes_along(tmp_path, x64):
  weights = authors_weights("LSTM")
  h0 = draw(4, H, dtype=np.float64)
  path = saved(tmp_path / "w.npz", {"q": weights, "q_r": weights}, q_h0=h0)
  cell, initial_h = interop.from_authors_npz(path, "q")
  assert interop.from_authors_npz(path, "q_r").initial_h is None
  rnn = lnrnn.RNN(lnrnn.LSTMCell(H, form="authors"), learned_carry="h")
  x = draw(1, B, 1, D, dtype=np.float64)
  y = run(rnn, {"params": {"cell": cell, "initial_h": initial_h}}, x)
  start = (np.zeros((B, H)), np.tile(h0, (B, 1)))
  _, expected = references.authors_lstm(weights, start, x[:, 0], 1e-5)
  assert_close(y[:, 0], expected, rtol=1e-10)


def test_a_weight_that_is_nan_is_the_users_business(tmp_path):
  weights = authors_weights("LSTM") | {"b": np.full(4 * H, np.nan)}
  path = saved(tmp_path / "w.npz", {"p": weights})
  assert np.isnan(interop.from_authors_npz(path, "p").cell["b"]).all()


def npy(a):
  file = io.BytesIO()
  np.save(file, a)
  return file.getvalue()


@pytest.mark.parametrize(
  ("name", "content", "said"),
  [
    ("w.npz", None, "no such file"),
    ("w.npz.pkl", b"", "a pickle can run code"),
    ("w.npz", b"", "is no .npz file"),
    ("w.npz", b"\x80\x04N.", "is no .npz file"),
    ("w.npz", b"PK\x03\x04", "is no .npz file, or is cut short"),
    ("w.npz", npy(np.ones(2)), "single array"),
  ],
)
def test_a_file_that_is_no_npz_is_named(name, content, said, tmp_path):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{said}"):
    interop.from_authors_npz(path, "p")


def test_a_folder_is_no_file(tmp_path):
  with pytest.raises(DataError, match="cannot be read"):
    interop.from_authors_npz(tmp_path, "p")


@pytest.mark.parametrize(
  ("kind", "change", "said"),
  [
    ("LSTM", {"s2": None}, r"has no p_s2; a layer-normalised LSTM has W, U, b"),
    (
      "GRU",
      {"Ux": None, "b4": None},
      r"has no p_Ux, p_b4; .* GRU .*W, U, b, Wx",
    ),
    ("GRU", {"s1": None}, r"has no p_s1; .*no such prefix"),
    ("LSTM", {"s3": np.ones(H + 1)}, r"p_s3 has the shape \(4,\); .* \(3,\)"),
    ("GRU", {"W": np.ones(4)}, r"p_W has the shape \(4,\); expected a matrix"),
    (
      "GRU",
      {"U": np.ones((2 * H, H))},
      r"p_W has .* expected \(2, 12\), .* p_U 6",
    ),
    ("GRU", {"Wx": np.ones((D + 1, H))}, r"p_Wx .*\(3, 3\); expected \(2, 3\)"),
    ("LSTM", {"h0": np.ones((1, H))}, r"p_h0 has the shape \(1, 3\); .*\(3,\)"),
    ("LSTM", {"b": np.ones(4 * H, int)}, "p_b holds int64; expected floats"),
    ("LSTM", {"b": np.array([None])}, "p_b cannot be read: .*allow_pickle"),
  ],
)
def test_a_wrong_array_is_named_with_its_file(kind, change, said, tmp_path):
  weights = authors_weights(kind) | change
  weights = {key: a for key, a in weights.items() if a is not None}
  path = saved(tmp_path / "w.npz", {"p": weights})
  with pytest.raises(DataError) as caught:
    interop.from_authors_npz(path, "p")
  (line,) = str(caught.value).splitlines()
  assert line.startswith(f"{path}: ") and re.search(said, line), line


def test_the_kind_can_be_said(tmp_path):
  path = saved(tmp_path / "w.npz", {"p": authors_weights("LSTM")})
  with pytest.raises(DataError, match="has no p_Wx, p_Ux, p_bx, p_s4, p_b4"):
    interop.from_authors_npz(path, "p", kind="gru")
  with pytest.raises(ValueError, match="kind='LSTM': .*did you mean 'lstm'"):
    interop.from_authors_npz(path, "p", kind="LSTM")


# --- flax ---


@pytest.mark.parametrize("theirs", [nn.OptimizedLSTMCell, nn.LSTMCell])
def test_an_lstm_of_flax_is_our_lstm_without_norm(theirs):
  rnn = nn.RNN(theirs(H), return_carry=True)
  variables = drawn(rnn, X)
  cell = interop.from_flax_lstm(variables["params"]["cell"])
  ours = lnrnn.RNN(lnrnn.LSTMCell(H, norm="none"), return_carry=True)
  lengths = np.array([T, 1, 2])
  carry, y = run(rnn, variables, X, seq_lengths=lengths)
  our_variables = {"params": {"cell": cell}}
  our_carry, our_y = run(ours, our_variables, X, seq_lengths=lengths)
  assert_close(our_carry, carry)
  live = np.arange(T) < lengths[:, None]  # flax does not blank the others.
  assert_close(our_y[live], y[live])
  frozen = flax.core.freeze(variables["params"]["cell"])
  assert_same(interop.from_flax_lstm(frozen), cell)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"hg": None}, "the keys hf, hi, ho, if, ig, ii, io; those of"),
    ({"cell": {}}, "the keys cell, hf,"),
    ({"ii": {"kernel": np.ones((D, H)), "bias": 1}}, "ii has bias, kernel"),
    ({"hf": {"kernel": np.ones((H, H))}}, "hf has kernel; expected bias, kern"),
    ({"if": {"kernel": np.ones(H)}}, r"if/kernel has the shape \(3,\)"),
    ({"io": {"kernel": np.ones((H, H))}}, r"io/kernel .*\(3, 3\).* \(2, 3\)"),
  ],
)
def test_what_is_no_lstm_of_flax_is_refused(change, said):
  p = {f"i{g}": {"kernel": np.ones((D, H))} for g in "fiog"}
  for g in "fiog":
    p[f"h{g}"] = {"kernel": np.ones((H, H)), "bias": np.ones(H)}
  interop.from_flax_lstm(p)
  p = {name: a for name, a in (p | change).items() if a is not None}
  with pytest.raises(ValueError, match=f"^from_flax_lstm: .*{said}"):
    interop.from_flax_lstm(p)


# --- torch ---


def torch_state(layers=1, reverse=False, bias=True, dtype=np.float64):
  """Arrays in the shapes of torch.nn.LSTM(D, H, layers)."""
  state = {}
  for i in range(layers):
    for end in ("", "_reverse")[: 1 + reverse]:
      shapes = {"weight_ih": (4 * H, H if i else D), "weight_hh": (4 * H, H)}
      if bias:
        shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)}
      for name, shape in shapes.items():
        seed = [i, len(end), len(state)]
        state[f"{name}_l{i}{end}"] = draw(seed, *shape, dtype=dtype)
  return state


def torch_lstm(state, x, end):
  """torch.nn.LSTM's equations for one layer and direction; x [b, t, d]."""
  h = c = np.zeros((len(x), H))
  ys = []
  for t in range(x.shape[1]):
    gates = x[:, t] @ state[f"weight_ih_{end}"].T
    gates = gates + h @ state[f"weight_hh_{end}"].T
    gates = gates + state.get(f"bias_ih_{end}", 0)
    gates = gates + state.get(f"bias_hh_{end}", 0)
    i, f, g, o = np.split(gates, 4, axis=1)
    sigmoid = references.sigmoid
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    ys.append(h)
  return np.stack(ys, axis=1)


@pytest.mark.parametrize("layers, bias", [(1, True), (1, False), (3, True)])
def test_a_torch_lstm_is_our_lstm_without_norm(layers, bias, x64):
  x = draw(1, B, T, D, dtype=np.float64)
  state = torch_state(layers, bias=bias)
  expected = x
  for i in range(layers):
    expected = torch_lstm(state, expected, f"l{i}")
  cell = interop.from_torch_lstm(state)
  options = {"norm": "none", "layers": layers, "param_dtype": x.dtype}
  rnn = lnrnn.RNN(lnrnn.LSTMCell(H, **options))
  declared = jax.eval_shape(rnn.init, jax.random.key(0), x)["params"]["cell"]
  assert shapes(cell) == shapes(declared)
  y = run(rnn, {"params": {"cell": cell}}, x)
  assert_close(y, expected, rtol=1e-10)


def bidirectional():
  rnns = [lnrnn.RNN(lnrnn.LSTMCell(H, norm="none")) for _ in range(2)]
  return lnrnn.Bidirectional(*rnns)


def both_ways(pair):
  names = ("forward_rnn", "backward_rnn")
  cells = zip(names, pair, strict=True)
  return {"params": {name: {"cell": cell} for name, cell in cells}}


def test_a_bidirectional_torch_lstm_is_a_pair(x64):
  x = draw(1, B, T, D, dtype=np.float64)
  state = torch_state(reverse=True)
  ahead = torch_lstm(state, x, "l0")
  back = torch_lstm(state, x[:, ::-1], "l0_reverse")[:, ::-1]
  y = run(bidirectional(), both_ways(interop.from_torch_lstm(state)), x)
  assert_close(y, np.concatenate([ahead, back], axis=-1), rtol=1e-10)


def test_a_torch_lstm_is_found_in_a_larger_module():
  state = torch_state(dtype=np.float32)
  more = {f"encoder.lstm.{name}": a for name, a in state.items()}
  more["encoder.embedding.weight"] = np.ones((2, 2))
  found = interop.from_torch_lstm(more, prefix="encoder.lstm.")
  assert_same(found, interop.from_torch_lstm(state))


@pytest.mark.parametrize(
  ("state", "said"),
  [
    ({}, "no key under prefix=''"),
    ({"lstm.weight_ih_l0": 1}, "lstm.weight_ih_l0 under prefix=''; .*'lstm.'"),
    (torch_state(2, True), "2 bidirectional layers"),
    (torch_state() | {"weight_hr_l0": np.ones((2, H))}, "no projection"),
    (torch_state(bias=False) | {"bias_ih_l0": 1}, "has no bias_hh_l0"),
    ({"weight_ih_l1": 1}, "has no weight_ih_l0, weight_hh_l0"),
    ({"weight_ih_l0_reverse": 1}, "has no weight_ih_l0, weight_hh_l0"),
    (
      torch_state() | {"weight_hh_l0": np.ones(3)},
      r"\(3,\); expected a matrix",
    ),
    (
      torch_state() | {"weight_ih_l0": np.ones((3 * H, D))},
      r"weight_ih_l0 has the shape \(9, 2\); expected \(12, 2\)",
    ),
    (
      torch_state(2) | {"weight_ih_l1": np.ones((4 * H, D))},
      "weight_ih_l1 takes 2 inputs; expected the 3 outputs",
    ),
  ],
)
def test_what_is_no_lstm_of_torch_is_refused(state, said):
  with pytest.raises(ValueError, match=f"^from_torch_lstm: .*{said}") as caught:
    interop.from_torch_lstm(state)
  assert "\n" not in str(caught.value)


@pytest.mark.torch
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"bias": False},
    {"num_layers": 3},
    {"bidirectional": True},
    {"dtype": "bfloat16"},
  ],
  ids=str,
)
def test_torch_itself_agrees(options):
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  dtype = getattr(torch, options.pop("dtype", "float32"))
  theirs = torch.nn.LSTM(D, H, batch_first=True, dtype=dtype, **options)
  x = torch.from_numpy(draw(1, B, T, D)).to(dtype)
  expected, _ = theirs(x)
  half = dtype == torch.bfloat16
  cell = interop.from_torch_lstm(theirs.state_dict())
  for leaf in jax.tree.leaves(cell):
    assert leaf.dtype == (jnp.bfloat16 if half else jnp.float32)
  if theirs.bidirectional:
    module, variables = bidirectional(), both_ways(cell)
  else:
    layers = theirs.num_layers
    module = lnrnn.RNN(lnrnn.LSTMCell(H, norm="none", layers=layers))
    variables = {"params": {"cell": cell}}
  y = module.apply(variables, x.float().numpy())
  tolerance = 2e-2 if half else 1e-6
  assert_close(
    y.astype(jnp.float32),
    expected.detach().float().numpy(),
    rtol=tolerance,
    atol=tolerance,
  )


# --- flax's and JAX's tools around our cells ---


@every_cell
def test_variables_move_between_our_rnn_and_flaxs(kind, norm):
  variables, y, gradients = expected(kind, norm)
  rnn = lnrnn.RNN(make(kind, norm))
  declared = jax.eval_shape(rnn.init, jax.random.key(0), X)
  assert shapes(declared) == shapes(variables)
  assert_close(pull_back(rnn, variables), (y, gradients))


@every_cell
def test_flax_runs_a_cell_both_ways(kind, norm):
  variables, y, _ = expected(kind, norm)
  cell = variables["params"]["cell"]
  rnns = [nn.RNN(make(kind, norm)) for _ in range(2)]
  x = np.concatenate([X, X[:, ::-1]])  # Backwards in front of each other.
  got = run(nn.Bidirectional(*rnns), both_ways((cell, cell)), x)
  ahead, back = np.split(np.asarray(got), 2, axis=-1)
  assert_close(ahead[:B], y)
  assert_close(back[B:, ::-1], y)


def one_step(kind):
  """A carry and an input."""
  c, h = draw(3, 2, B, H)
  return ((c, h) if kind == "LSTM" else h), X[:, 0]


@every_cell
def test_flaxs_vmap_makes_an_ensemble(kind, norm):
  ensemble = nn.vmap(
    KINDS[kind],
    in_axes=(None, None),
    variable_axes={"params": 0},
    split_rngs={"params": True},
    axis_size=2,
  )(H, norm=norm)
  carry, x = one_step(kind)
  variables = drawn(ensemble, carry, x)
  got = run(ensemble, variables, carry, x)
  one = jit(make(kind, norm).apply)
  for i in range(2):
    member = jax.tree.map(lambda p, i=i: p[i], variables)
    mine = jax.tree.map(lambda a, i=i: a[i], got)
    assert_close(mine, one(member, carry, x))


@every_cell
def test_flaxs_jit_and_remat_change_nothing(kind, norm):
  variables, y, gradients = expected(kind, norm)
  cell = nn.jit(nn.remat(KINDS[kind]))(H, norm=norm)
  assert_close(pull_back(nn.RNN(cell), variables), (y, gradients))


@every_kind
def test_our_rnn_takes_a_rematerialised_cell(kind):
  variables, y, _ = expected(kind, "layer")
  cell = nn.remat(KINDS[kind])(H)
  assert_close(run(lnrnn.RNN(cell), variables, X), y)


@every_cell
def test_jaxs_vmap_over_sequences_is_a_batch(kind, norm):
  variables, y, _ = expected(kind, norm)
  rnn = lnrnn.RNN(make(kind, norm))
  one = lambda x: rnn.apply(variables, x)
  assert_close(jit(jax.vmap(one))(X), y)


@every_cell
def test_jvp_is_the_transpose_of_vjp(kind, norm):
  variables, y, gradients = expected(kind, norm)
  rnn = lnrnn.RNN(make(kind, norm), backward="plain")
  tangents = drawn(rnn, X, seed=6), draw(7, *X.shape)
  push = jit(lambda *args: jax.jvp(rnn.apply, args, tangents))
  got, tangent = push(variables, X)
  assert_close(got, y)
  products = jax.tree.map(lambda a, b: (a * b).sum(), gradients, tangents)
  along = sum(jax.tree.leaves(products))
  assert_close((COTANGENT * tangent).sum(), along, rtol=1e-4, atol=1e-4)


@every_cell
def test_nnx_runs_and_differentiates_our_rnn(kind, norm):
  variables, y, gradients = expected(kind, norm)
  rnn = lnrnn.RNN(make(kind, norm))

  def start():
    model = bridge.ToNNX(rnn, rngs=nnx.Rngs(0))
    return nnx.split(bridge.lazy_init(model, X), nnx.Param, ...)

  graph, params, rest = jit(start)()
  assert shapes(nnx.to_pure_dict(params)) == shapes(variables["params"])
  nnx.replace_by_pure_dict(params, variables["params"])

  def product(model):
    y = model(X)
    return (COTANGENT * y).sum(), y

  @jit
  def graded(params, rest):
    model = nnx.merge(graph, params, rest)
    return nnx.value_and_grad(product, has_aux=True)(model)

  (_, got), found = graded(params, rest)
  assert_close(got, y)
  assert_close(nnx.to_pure_dict(found), gradients[0]["params"])


@pytest.mark.parametrize("layers", [1, 2])
@every_cell
def test_tabulate_counts_the_parameters(kind, norm, layers):
  rnn = lnrnn.RNN(make(kind, norm, layers=layers))
  declared = jax.eval_shape(rnn.init, jax.random.key(0), X)
  total = sum(a.size for a in jax.tree.leaves(declared))
  table = nn.tabulate(rnn, jax.random.key(0))(X)
  assert f"Total Parameters: {total}" in table
  assert f"{kind}Cell" in table


def test_the_guide_has_the_forms_that_exist(repo):
  text = (repo / "docs" / "reuse.md").read_text(encoding="utf-8")
  table = text[text.index("| `norm` |") :].partition("\n\n")[0]
  rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
  forms = [re.findall("`(.*)`", cell)[0] for cell in rows[0][1:]]
  found = {
    row[0].strip("`"): {
      form for form, cell in zip(forms, row[1:], strict=True) if cell != "no"
    }
    for row in rows[2:]
  }
  assert found == {k: set(v) for k, v in linen_cells.FORMS_OF.items()}


# --- Storing and training ---


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_cell
def test_safetensors_keep_every_bit(kind, norm, dtype, tmp_path):
  x = jnp.asarray(X, dtype)
  rnn = lnrnn.RNN(make(kind, norm, dtype=dtype), learned_carry="h")
  params = jax.tree.map(lambda p: p.astype(dtype), drawn(rnn, x)["params"])
  flat = traverse_util.flatten_dict(params, sep="/")
  save_file(jax.tree.map(jnp.asarray, flat), tmp_path / "w.safetensors")
  loaded = load_file(tmp_path / "w.safetensors")
  again = traverse_util.unflatten_dict(loaded, sep="/")
  assert shapes(again) == shapes(params)
  apply = jit(lambda params: rnn.apply({"params": params}, x))
  y = apply(params)
  assert y.dtype == dtype
  assert_same(apply(again), y)


@every_kind
def test_optax_trains_our_rnn(kind):
  rnn = lnrnn.RNN(make(kind, "layer"))
  optimizer = optax.adam(3e-2)

  def loss(variables):
    return jnp.square(rnn.apply(variables, X) - np.sign(COTANGENT) / 2).mean()

  @jit
  def train(variables, state):
    value, gradients = jax.value_and_grad(loss)(variables)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(variables, updates), state, value

  variables, values = drawn(rnn, X), []
  state = optimizer.init(variables)
  for _ in range(20):
    variables, state, value = train(variables, state)
    values.append(float(value))
  assert values[-1] < 0.7 * values[0]
