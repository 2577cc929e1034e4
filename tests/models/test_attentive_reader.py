"""The attentive reader against NumPy in float64; options and padding."""

import functools
from typing import NamedTuple

import drawn_variables
from drawn_variables import paths, single, slopes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_reader as reference

from lnrnn import losses
from lnrnn.models.attentive_reader import AttentiveReader

B, T, S, V, H = 4, 6, 4, 11, 4
EPS = 0.1
LENGTHS, ASKED = np.array([[6, 2, 4, 3], [1, 4, 3, 2]], np.int32)
rng = np.random.default_rng(0)
PASSAGE = rng.integers(0, V, (B, T)).astype(np.int32)
QUERY = rng.integers(0, V, (B, S)).astype(np.int32)
ANSWER = np.array([3, 0, 7, 10], np.int32)


class Variant(NamedTuple):
  norm: str = "layer"
  everywhere: bool = False
  form: str = "separate"
  similarity: bool = True
  skip: bool = True
  bidirectional: bool = False

  def model(self, **fields):
    wide = jax.config.jax_enable_x64
    return AttentiveReader(
      V,
      features=H,
      norm=self.norm,
      norm_everywhere=self.everywhere,
      form=self.form,
      similarity=self.similarity,
      skip=self.skip,
      bidirectional=self.bidirectional,
      eps=EPS,
      param_dtype=jnp.float64 if wide else jnp.float32,
      t_passage=T - 2,  # Batch norm has no statistics beyond.
      t_query=S - 1,
      **fields,
    )


VARIANTS = [
  Variant(),
  Variant("none"),
  Variant("batch"),
  Variant("batch", everywhere=True),
  Variant("layer", everywhere=True),
  Variant("weight", everywhere=True),
  Variant("rms", form="sum"),
  Variant("none", similarity=False, skip=False),
  Variant("layer", bidirectional=True),
]


def named(variant):
  return "-".join(map(str, variant))


@functools.cache
def variables(variant):
  """As after some training; statistics that no minibatch has."""
  model = variant.model()
  given = (PASSAGE, LENGTHS, QUERY, ASKED)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *given)
  drawn = drawn_variables.trained(shapes)
  own = np.random.default_rng(2)

  def statistic(path, leaf):
    name = path[-1].key
    if name == "seen":
      return np.ones(leaf.shape, np.int32)
    if name.endswith("var"):
      return own.uniform(0.5, 2, leaf.shape)
    return own.normal(0, 0.3, leaf.shape)

  if "batch_stats" in drawn:
    drawn["batch_stats"] = jax.tree_util.tree_map_with_path(
      statistic, drawn["batch_stats"]
    )
  return drawn


def statistics(variant):
  """{part: moments}, as the reference wants them."""
  found = {}
  for name, held in variables(variant).get("batch_stats", {}).items():
    if "norm" in held:
      found[name] = (held["norm"]["mean"], held["norm"]["var"])
    else:
      own = held["statistics"]
      found[name] = {s: (own[f"{s}_mean"], own[f"{s}_var"]) for s in "xhc"}
  return found or None


def nll_of(variant, variables, passage=PASSAGE, query=QUERY, **fields):
  found = variant.model(**fields).apply(
    variables, passage, LENGTHS, query, ASKED
  )
  return losses.cross_entropy(found.logits, ANSWER).mean(), found


@functools.cache
def forward(variant, wide=False):
  """Compiled (variables, passage, query) -> (nll, reading)."""
  del wide  # Another type of parameters is another program.
  return jax.jit(functools.partial(nll_of, variant))


@functools.cache
def gradients(variant):
  """Compiled (params, others) -> slopes."""

  def of(params, others):
    return nll_of(variant, {**others, "params": params})[0]

  return jax.jit(jax.grad(of))


def expected(variant):
  how = {**variant._asdict(), "eps": EPS}
  params = dict(variables(variant)["params"])
  if variant.bidirectional:
    for name in ("passage_reader", "query_reader"):
      params[f"{name}_ahead"] = params[name]["forward_rnn"]
      params[f"{name}_back"] = params[name]["backward_rnn"]
  return [
    reference.answer(params, p[:n], q[:m], how, statistics(variant))
    for p, n, q, m in zip(PASSAGE, LENGTHS, QUERY, ASKED, strict=True)
  ]


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_forward_pass_is_that_of_numpy(variant):
  """With lengths beyond those that batch norm has statistics of."""
  wanted = expected(variant)
  nll = np.mean(
    [reference.nll(s, a) for (s, _), a in zip(wanted, ANSWER, strict=True)]
  )

  def agree(found, rtol):
    value, reading = found
    np.testing.assert_allclose(value, nll, rtol=rtol)
    for row, (scores, weights) in enumerate(wanted):
      np.testing.assert_allclose(
        reading.logits[row], scores, rtol=rtol, atol=rtol
      )
      own = reading.attention[row]
      np.testing.assert_allclose(own[: len(weights)], weights, atol=rtol)
      assert (own[len(weights) :] == 0).all()

  agree(forward(variant)(single_all(variables(variant)), PASSAGE, QUERY), 1e-4)
  with jax.enable_x64(True):
    found = forward(variant, True)(variables(variant), PASSAGE, QUERY)
    assert found[0].dtype == jnp.float64
    agree(found, 1e-9)


def single_all(tree):
  """In float32, whole numbers aside."""
  whole = lambda v: np.issubdtype(np.asarray(v).dtype, np.integer)
  return jax.tree.map(lambda v: v if whole(v) else single(v), tree)


@pytest.mark.parametrize("variant", [VARIANTS[i] for i in (0, 3)], ids=named)
def test_gradients_are_central_differences(variant, x64):
  own = variables(variant)
  others = {k: v for k, v in own.items() if k != "params"}
  made = paths(gradients(variant)(own["params"], others))

  def value(params):
    own_params = {**own, "params": params}
    return forward(variant, True)(own_params, PASSAGE, QUERY)[0]

  for name, direction, slope in slopes(value, own["params"]):
    found = float((np.asarray(made[name]) * direction).sum())
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8, err_msg=name)


def test_padding_changes_nothing():
  variant = Variant()
  own = single_all(variables(variant))
  before = forward(variant)(own, PASSAGE, QUERY)
  passage = np.where(np.arange(T) < LENGTHS[:, None], PASSAGE, 5)
  query = np.where(np.arange(S) < ASKED[:, None], QUERY, 9)
  assert (passage != PASSAGE).any()
  assert (query != QUERY).any()
  after = forward(variant)(own, passage, query)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(a, b)


def test_minibatch_statistics_can_be_used_at_test():
  """Without dropout that is the pass of training."""
  variant = Variant("batch", everywhere=True)
  own = single_all(variables(variant))
  given = (PASSAGE[:, : T - 2], np.minimum(LENGTHS, T - 2))
  given += (QUERY[:, : S - 1], np.minimum(ASKED, S - 1))

  @functools.partial(jax.jit, static_argnames=("bn_test", "train"))
  def run(own, bn_test="population", train=False):
    model = variant.model(dropout=0.0, bn_test=bn_test)
    return model.apply(own, *given, train=train)

  test, train = run(own, "minibatch"), run(own, train=True)
  np.testing.assert_allclose(test.logits, train.logits, rtol=1e-5, atol=1e-6)
  population = run(own)
  assert not np.allclose(population.logits, test.logits, atol=1e-2)


@functools.cache
def start(**fields):
  model = AttentiveReader(V, features=H, **fields)
  own = jax.jit(model.init)(jax.random.key(0), PASSAGE, LENGTHS, QUERY, ASKED)
  return own["params"]


def test_authors_initialisation_is_small_and_begins_gates_equal():
  params = start(weight_init="authors", norm="none")
  cell = params["passage_reader"]["cell"]
  for matrix in (cell["w_x"], cell["w_h"]):
    gates = np.split(np.asarray(matrix), 4, axis=1)
    for gate in gates:
      np.testing.assert_array_equal(gate, gates[0])
      np.testing.assert_allclose(gate @ gate.T, 0.0025 * np.eye(H), atol=1e-8)
  # The generator starts anew for each matrix.
  np.testing.assert_array_equal(
    cell["w_h"], params["query_reader"]["cell"]["w_h"]
  )
  bound = np.sqrt(6 / (V + H + 1))
  assert np.abs(params["embeddings"]).max() <= bound
  assert np.abs(params["embeddings"]).max() > 0.8 * bound
  assert not cell["b"].any()


def test_sound_initialisation_draws_each_gate_by_itself():
  params = start(weight_init="sound", norm="none")
  cell = params["passage_reader"]["cell"]
  gates = np.split(np.asarray(cell["w_h"]), 4, axis=1)
  for gate in gates:
    np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-5)
  assert not np.allclose(gates[0], gates[1])
  assert not np.allclose(cell["w_h"], params["query_reader"]["cell"]["w_h"])
  np.testing.assert_array_equal(cell["b"][:H], 1)  # Forget gates.
  assert not cell["b"][H:].any()


@pytest.mark.parametrize("weight_init", ["sound", "authors"])
def test_systems_begin_with_the_same_matrices(weight_init):
  """So that a comparison of norms is one of norms."""
  found = [
    start(norm=norm, weight_init=weight_init, t_passage=T, t_query=S)
    for norm in ("none", "layer", "batch")
  ]
  for name in ("w_x", "w_h"):
    for other in found[1:]:
      np.testing.assert_array_equal(
        other["passage_reader"]["cell"][name],
        found[0]["passage_reader"]["cell"][name],
      )
  for other in found[1:]:
    np.testing.assert_array_equal(other["embeddings"], found[0]["embeddings"])


@pytest.mark.parametrize(
  ("norm", "gain", "wanted"),
  [("layer", None, 1.0), ("layer", 0.1, 0.1), ("batch", None, 0.1)],
)
def test_gains_begin_as_told(norm, gain, wanted):
  params = start(
    norm=norm, gain_init=gain, norm_everywhere=True, t_passage=T, t_query=S
  )
  gains = [v for k, v in paths(params).items() if k.endswith("gain")]
  assert len(gains) == 11
  for own in gains:
    np.testing.assert_allclose(own, wanted, rtol=1e-6)


def test_an_unknown_initialisation_is_refused_in_one_line():
  with pytest.raises(ValueError, match="weight_init='athors'.*authors"):
    start(weight_init="athors")


def test_dropout_is_of_training_alone():
  model = Variant("none").model()
  own = single_all(variables(Variant("none")))
  given = (PASSAGE, LENGTHS, QUERY, ASKED)
  quiet = model.apply(own, *given).logits
  np.testing.assert_array_equal(quiet, model.apply(own, *given).logits)
  noisy = [
    model.apply(own, *given, train=True, rngs={"dropout": jax.random.key(k)})
    for k in (0, 1)
  ]
  assert not np.allclose(noisy[0].logits, noisy[1].logits)
  assert not np.allclose(noisy[0].logits, quiet)
