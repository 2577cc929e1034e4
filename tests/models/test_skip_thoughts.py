"""Skip-thoughts against NumPy in float64: states, gradients, what is seen."""

import functools
from typing import NamedTuple

import drawn_variables
from drawn_variables import paths, single, slopes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_skip as reference

from lnrnn import losses
from lnrnn.models import skip_thoughts
from lnrnn.models.skip_thoughts import SIDES, SentenceEncoder, SkipThoughts

B, T, S, V, H, D = 3, 5, 6, 9, 4, 3
EPS = 0.1


def _batch():
  rng = np.random.default_rng(0)
  batch = {}
  for name, steps, lengths in (
    ("current", T, (5, 1, 3)),
    ("previous", S, (2, 6, 1)),
    ("next", S, (4, 3, 6)),
  ):
    batch[name] = rng.integers(0, V, (B, steps)).astype(np.int32)
    batch[f"{name}_length"] = np.array(lengths, np.int32)
  return batch


BATCH = _batch()


class Variant(NamedTuple):
  norm: str = "layer"
  condition: str = "initial"

  def model(self, **fields):
    wide = jax.config.jax_enable_x64
    return SkipThoughts(
      V,
      features=H,
      word_features=D,
      norm=self.norm,
      condition=self.condition,
      eps=EPS,
      t_max=S,
      param_dtype=jnp.float64 if wide else jnp.float32,
      **fields,
    )

  @property
  def how(self):
    return {**self._asdict(), "eps": EPS}


VARIANTS = [
  Variant(norm, condition)
  for norm in ("layer", "none")
  for condition in ("initial", "each_step")
]


def named(variant):
  return "-".join(variant)


@functools.cache
def variables(variant):
  """As after some training."""
  shapes = jax.eval_shape(variant.model().init, jax.random.key(0), **BATCH)
  drawn = drawn_variables.trained(shapes)
  drawn["params"]["bias"] *= 3  # No word as frequent as another.
  return drawn


def nats_of(variant, params, batch, **fields):
  """(summed loss, (states of both sides, thought))."""
  states, seen = variant.model(**fields).apply(
    {"params": params},
    **batch,
    capture_intermediates=lambda module, _: isinstance(module, SentenceEncoder),
    mutable=["intermediates"],
  )
  (thought,) = seen["intermediates"]["encoder"]["__call__"]
  total = 0.0
  for side, h in zip(SIDES, states, strict=True):
    live = jnp.arange(h.shape[1]) < batch[f"{side}_length"][:, None]
    args = h, params["kernel"], params["bias"], batch[side], live
    total += losses.softmax_nats(*args, chunk=4)
  return total, (states, thought)


@functools.cache
def forward(variant):
  """Compiled (params, batch) -> (loss, (states, thought)), for float32."""
  return jax.jit(functools.partial(nats_of, variant))


@functools.cache
def both(variant, wide=False):
  """Compiled (params, batch) -> (as of forward, gradients)."""
  del wide  # Another type of parameters is another program.
  # Of the two ways back, both; the simpler cell takes the plain one.
  backward = "plain" if variant.norm == "none" else "fast"
  of = functools.partial(nats_of, variant, backward=backward)
  return jax.jit(jax.value_and_grad(of, has_aux=True))


def single_all(tree):
  """In float32, whole numbers aside."""
  whole = lambda v: np.issubdtype(np.asarray(v).dtype, np.integer)
  return jax.tree.map(lambda v: v if whole(v) else single(v), tree)


def narrow(batch, variant=VARIANTS[0]):
  """(states of previous, of next, thought), in float32."""
  params = single(variables(variant)["params"])
  _, (states, thought) = forward(variant)(params, batch)
  return *(np.asarray(h) for h in states), np.asarray(thought)


# --- Against NumPy ---


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_states_and_loss_are_those_of_numpy(variant):
  params = variables(variant)["params"]
  triples = reference.triples(BATCH)

  def agree(found, rtol):
    total, (states, thoughts) = found
    expected = reference.total(params, triples, variant.how)
    np.testing.assert_allclose(total, expected, rtol=rtol)
    for row, triple in enumerate(triples):
      thought = reference.thought(params, triple["current"], variant.how)
      np.testing.assert_allclose(thoughts[row], thought, rtol=rtol, atol=rtol)
      for side, h in zip(SIDES, states, strict=True):
        own = reference.states(params, side, thought, triple[side], variant.how)
        np.testing.assert_allclose(
          h[row, : len(own)], own, rtol=rtol, atol=rtol
        )
        assert (h[row, len(own) :] == 0).all()

  agree(forward(variant)(single(params), BATCH), 1e-4)
  with jax.enable_x64(True):
    wide, _ = both(variant, True)(params, BATCH)
    assert all(a.dtype == jnp.float64 for a in jax.tree.leaves(wide))
    agree(wide, 1e-9)


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_gradients_are_central_differences_of_numpy(variant, x64):
  params = variables(variant)["params"]
  gradients = paths(both(variant, True)(params, BATCH)[1])
  triples = reference.triples(BATCH)
  value = lambda params: reference.total(params, triples, variant.how)
  for name, direction, slope in slopes(value, params):
    found = float((np.asarray(gradients[name]) * direction).sum())
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8, err_msg=name)
    assert slope != 0, name  # There is nothing that does not matter.


@pytest.mark.parametrize("norm", ["rms", "weight"])
def test_other_norms_are_those_of_numpy_too(norm):
  variant = Variant(norm)
  params = variables(variant)["params"]
  (total, _), gradients = both(variant)(single(params), BATCH)
  expected = reference.total(params, reference.triples(BATCH), variant.how)
  np.testing.assert_allclose(total, expected, rtol=1e-4)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_batch_norm_has_statistics_of_each_gru_and_step():
  model = Variant("batch").model()
  lengths = {n: np.full(B, S, np.int32) for n in BATCH if n.endswith("length")}
  lengths["current_length"] -= S - T
  batch = {**BATCH, **lengths}
  shapes = jax.eval_shape(model.init, jax.random.key(0), **batch)
  own = single_all(drawn_variables.trained(shapes))
  train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
  states, updated = jax.jit(train)(own, **batch)
  assert all(np.isfinite(h).all() and h.any() for h in states)
  assert updated["batch_stats"].keys() == {"encoder", *SIDES}
  for part, new in updated["batch_stats"].items():
    steps = T if part == "encoder" else S
    nothing = "/h_" if part == "encoder" else "/x_"  # There is, at step 0.
    for name, a in paths(new).items():
      first = 1 if nothing in name else 0
      told = np.asarray(a).reshape(S, -1).any(axis=1)
      own = (np.arange(S) >= first) & (np.arange(S) < steps)
      np.testing.assert_array_equal(told, own, err_msg=f"{part}{name}")


# --- What is seen ---


def test_what_fills_up_changes_no_bit(x64):
  batch = {**BATCH}
  for name in ("current", *SIDES):
    live = np.arange(BATCH[name].shape[1]) < BATCH[f"{name}_length"][:, None]
    batch[name] = np.where(live, BATCH[name], (BATCH[name] + 4) % V)
    assert (batch[name] != BATCH[name]).any()
  params = variables(Variant())["params"]
  found = (both(Variant(), True)(params, b) for b in (BATCH, batch))
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_array_equal(a, b)


def test_more_steps_change_nothing():
  longer = {
    name: np.pad(a, ((0, 0), (0, 2))) if a.ndim == 2 else a
    for name, a in BATCH.items()
  }
  params = single(variables(Variant())["params"])
  a, (few, thought) = forward(Variant())(params, BATCH)
  b, (many, same) = forward(Variant())(params, longer)
  np.testing.assert_allclose(b, a, rtol=1e-6)
  np.testing.assert_allclose(same, thought, rtol=1e-5, atol=1e-6)
  for one, other in zip(few, many, strict=True):
    np.testing.assert_allclose(other[:, :S], one, rtol=1e-5, atol=1e-6)
    assert (other[:, S:] == 0).all()


@pytest.mark.parametrize("variant", [Variant(), VARIANTS[1]], ids=named)
@pytest.mark.parametrize("side", SIDES)
def test_a_decoder_does_not_see_the_other_neighbour(variant, side):
  at = SIDES.index(side)
  other = SIDES[1 - at]
  batch = {
    **BATCH,
    other: (BATCH[other] + 2) % V,
    f"{other}_length": np.array([5, 2, 4], np.int32),
  }
  before, after = narrow(BATCH, variant), narrow(batch, variant)
  np.testing.assert_array_equal(after[at], before[at])
  np.testing.assert_array_equal(after[2], before[2])  # The thought.
  assert not np.allclose(after[1 - at], before[1 - at], atol=1e-3)


def test_sentences_of_a_batch_do_not_see_each_other():
  words = {n: BATCH[n].copy() for n in ("current", *SIDES)}
  for name in words:
    words[name][0] = (words[name][0] + 1) % V
  before, after = narrow(BATCH), narrow({**BATCH, **words})
  for a, b in zip(after, before, strict=True):
    np.testing.assert_array_equal(a[1:], b[1:])
    assert not np.allclose(a[0], b[0], atol=1e-3)


@pytest.mark.parametrize("variant", [Variant(), VARIANTS[1]], ids=named)
@pytest.mark.parametrize("side", SIDES)
def test_a_state_knows_the_words_before_its_own_alone(variant, side):
  at = SIDES.index(side)
  full = {**BATCH, f"{side}_length": np.full(B, S, np.int32)}
  before = narrow(full, variant)[at]
  for i in range(S):
    words = BATCH[side].copy()
    words[:, i] = (words[:, i] + 1) % V
    after = narrow({**full, side: words}, variant)[at]
    np.testing.assert_array_equal(after[:, : i + 1], before[:, : i + 1])
    if i + 1 < S:
      assert (np.abs(after - before)[:, i + 1].max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("variant", [Variant(), VARIANTS[1]], ids=named)
def test_every_state_of_both_decoders_knows_the_sentence(variant):
  words = BATCH["current"].copy()
  words[:, 0] = (words[:, 0] + 1) % V
  before, after = (
    narrow(BATCH, variant),
    narrow({**BATCH, "current": words}, variant),
  )
  for side, a, b in zip(SIDES, before[:2], after[:2], strict=True):
    live = np.arange(S) < BATCH[f"{side}_length"][:, None]
    assert (np.abs(a - b).max(axis=2) > 1e-6)[live].all()


def test_the_decoders_have_weights_of_their_own():
  batch = {
    **BATCH,
    "next": BATCH["previous"],
    "next_length": BATCH["previous_length"],
  }
  previous, following, _ = narrow(batch)
  assert not np.allclose(previous, following, atol=1e-2)


# --- The encoder by itself ---


@pytest.mark.parametrize("norm", ["layer", "none", "weight", "batch"])
def test_the_encoders_variables_are_those_under_encoder(norm):
  model = Variant(norm, "each_step").model(gain_init=0.3, bn_momentum=0.5)
  key, words = jax.random.key(0), (BATCH["current"], BATCH["current_length"])
  whole = jax.eval_shape(model.init, key, **BATCH)
  encoder = model.sentence_encoder()
  own = jax.eval_shape(encoder.init, key, *words)
  assert own == {name: tree["encoder"] for name, tree in whole.items()}
  for field in set(encoder.__dataclass_fields__) - {"parent", "name"}:
    assert getattr(encoder, field) == getattr(model, field), field


def test_the_encoder_alone_encodes_as_within():
  words = BATCH["current"], BATCH["current_length"]
  params = single(variables(Variant())["params"])
  encoder = Variant().model().sentence_encoder()
  apply = jax.jit(encoder.apply, static_argnames="method")
  own = {"params": params["encoder"]}
  thought = narrow(BATCH)[2]
  np.testing.assert_array_equal(apply(own, *words), thought)
  # Words of a larger vocabulary come in as vectors.
  vectors = params["encoder"]["embeddings"][words[0]].swapaxes(0, 1)
  np.testing.assert_array_equal(
    apply(own, vectors, words[1], method="of_vectors"), thought
  )


def test_logits_are_a_softmax_layer_on_any_axes():
  params = variables(Variant())["params"]
  h = np.random.default_rng(1).normal(size=(2, 3, H))
  found = (
    Variant()
    .model()
    .apply({"params": single(params)}, np.float32(h), method="logits")
  )
  expected = h @ params["kernel"] + params["bias"]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# --- Variables ---


def test_the_norm_stands_in_the_three_grus_alone():
  for norm, own in (("layer", {"ln_x", "ln_h"}), ("none", {"b"})):
    params = variables(Variant(norm))["params"]
    assert params.keys() == {"encoder", "previous", "next", "kernel", "bias"}
    assert params["encoder"].keys() == {"embeddings", "gru"}
    for gru in (params["encoder"]["gru"], params["previous"], params["next"]):
      assert gru["cell"].keys() == {"w_x", "w_h"} | own


@pytest.mark.parametrize(
  ("condition", "width"), [("initial", D), ("each_step", D + H)]
)
def test_the_sentence_is_an_input_where_it_is_no_start(condition, width):
  params = variables(Variant(condition=condition))["params"]
  for side in SIDES:
    assert params[side]["cell"]["w_x"].shape == (width, 3 * H)
  assert params["encoder"]["gru"]["cell"]["w_x"].shape == (D, 3 * H)


def test_initial_weights_are_those_of_the_authors():
  model = SkipThoughts(400, features=16, word_features=20)
  init = jax.jit(lambda key: model.init(key, **BATCH)["params"])
  params = init(jax.random.key(0))
  grus = [params["encoder"]["gru"], params["previous"], params["next"]]
  for drawn in (
    params["encoder"]["embeddings"],
    params["kernel"],
    *(gru["cell"]["w_x"] for gru in grus),
  ):
    assert 0.095 < np.abs(drawn).max() <= 0.1
    assert abs(np.mean(drawn)) < 0.01
  assert not params["bias"].any()
  for gru in grus:
    for block in np.split(np.asarray(gru["cell"]["w_h"]), 3, axis=1):
      np.testing.assert_allclose(block @ block.T, np.eye(16), atol=1e-5)
    for name in ("ln_x", "ln_h"):
      assert (gru["cell"][name]["gain"] == 1).all()
      assert not gru["cell"][name]["bias"].any()
  a, b, c = (np.asarray(gru["cell"]["w_h"]) for gru in grus)
  assert not (np.allclose(a, b) or np.allclose(a, c) or np.allclose(b, c))


def test_parameters_are_of_the_type_asked_for(x64):
  shapes = jax.eval_shape(Variant().model().init, jax.random.key(0), **BATCH)
  assert all(a.dtype == jnp.float64 for a in jax.tree.leaves(shapes))


def test_an_unknown_condition_is_refused_in_one_line():
  model = Variant(condition="first").model()
  told = "condition='first': one of initial, each_step"
  with pytest.raises(ValueError, match=f"^{told}"):
    jax.eval_shape(model.init, jax.random.key(0), **BATCH)
  assert skip_thoughts.CONDITIONS == ("initial", "each_step")
