"""The Fisher metric against its definition, and the statements on it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import fisher_runs as part
from lnrnn.analysis import fisher
from lnrnn.analysis.fisher import Model

NORMS = part.NORMS


@pytest.fixture(scope="module")
def models():
  with jax.enable_x64(True):
    return fisher.draw(3, seed=3, cases=7, d=4, outputs=3)


def exact_metric(norm, model, family):
  """The metric of one model, [H, d + 2, H, d + 2]."""
  return part.exact(norm, jax.tree.map(lambda a: a[None], model), family)[0]


@pytest.fixture(scope="module")
def model(models):
  return jax.tree.map(lambda a: a[0], models)


def _log_likelihoods(family, z):
  """log P of every outcome of one case, [outcomes], from z [H]."""
  if family == "categorical":
    return jax.nn.log_softmax(z)
  every = jnp.array(list(itertools.product((0.0, 1.0), repeat=len(z))))
  return every @ z - jax.nn.softplus(z).sum()


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_metric_is_the_mean_square_of_the_scores(norm, family, model, x64):
  def log_p(w, bias, gain):
    z = fisher.natural(norm, Model(w, bias, gain, model.x))
    return jax.vmap(lambda z: _log_likelihoods(family, z))(z)

  at = (model.w, model.bias, model.gain)
  w, bias, gain = jax.jacfwd(log_p, (0, 1, 2))(*at)
  score = jnp.concatenate([w, bias[..., None], gain[..., None]], -1)
  p = jnp.exp(log_p(*at))
  wanted = jnp.einsum("no,noip,nojq->ipjq", p, score, score) / len(model.x)
  found = exact_metric(norm, model, family)
  np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_half_the_metric_is_the_divergence_of_near_models(norm, model, x64):
  rng = np.random.default_rng(0)
  delta = jnp.asarray(rng.normal(size=(3, 6)))

  def log_p(t):
    moved = Model(
      model.w + t * delta[:, :4],
      model.bias + t * delta[:, 4],
      model.gain + t * delta[:, 5],
      model.x,
    )
    return jax.nn.log_softmax(fisher.natural(norm, moved))

  t = 1e-4
  before, after = log_p(0.0), log_p(t)
  kl = (jnp.exp(before) * (before - after)).sum(-1).mean()
  f = exact_metric(norm, model, "categorical")
  half = jnp.einsum("ip,ipjq,jq", delta, f, delta) / 2
  assert float(kl / t**2) == pytest.approx(float(half), rel=1e-2)


def test_the_gaussian_metric_divides_by_the_variance(model, x64):
  z = fisher.natural("layer", model)
  one, four = (
    fisher.covariance("gaussian", z, dispersion=phi) for phi in (1.0, 4.0)
  )
  np.testing.assert_allclose(one, 4 * four)
  np.testing.assert_array_equal(one[0], np.eye(3))


def test_the_closed_form_is_exact_for_batch_and_weight_norm(models, x64):
  found = part.form_gaps(models)
  for norm in ("batch", "weight"):
    assert max(found[norm].values()) <= 1e-8
  assert min(found["layer"].values()) > 1e-2


def test_under_layer_norm_it_misses_what_outputs_share(model, x64):
  cov = fisher.covariance("bernoulli", fisher.natural("layer", model))
  closed = fisher.closed_form("layer", model, cov)
  derived = fisher.derivatives("layer", model)
  assert float(fisher.gap(closed, fisher.metric(derived, cov))) > 1e-2
  # What it has of output i's dependence on its own parameters is right.
  own = jnp.einsum("niip->nip", derived)
  chi, n, sigma = fisher.chi("layer", model)
  np.testing.assert_allclose(
    own[..., :-2], (model.gain / sigma)[..., None] * chi, atol=1e-12
  )
  np.testing.assert_allclose(own[..., -1], n, atol=1e-12)
  # Independent outputs have cross blocks all the same; weight norm's do not.
  assert float(jnp.abs(fisher.metric(derived, cov)[0, :, 1]).max()) > 1e-3
  plain = exact_metric("weight", model, "bernoulli")
  assert float(jnp.abs(plain[0, :, 1]).max()) == 0


def test_the_gap_under_layer_norm_falls_with_the_outputs(monkeypatch, x64):
  monkeypatch.setattr(part, "WIDTHS", (4, 16, 64))
  found = part.layer_gaps()
  assert found[0] > 2 * found[1] > 4 * found[2] > 0


@pytest.mark.parametrize("norm", NORMS)
def test_own_derivatives_are_a_part_of_all(norm, model, x64):
  whole = fisher.derivatives(norm, model)
  for i in range(3):
    np.testing.assert_allclose(
      fisher.own_derivatives(norm, model, i), whole[:, :, i], atol=1e-13
    )


def test_there_is_no_curvature_along_normalised_weights(models, x64):
  found = part.along_weights(models)
  for norm in ("batch", "weight"):
    assert found[norm]["along w_i"][1] <= 1e-12
    assert found[norm]["along all of W"][1] <= 1e-12
  assert found["layer"]["along all of W"][1] <= 1e-12
  assert found["layer"]["along w_i"][0] >= 1e-3
  assert found["none"]["along w_i"][0] >= 1e-3


def test_doubling_a_weight_vector_quarters_its_curvature(models, x64):
  found = part.on_doubling(models)
  assert found["none, Gaussian"]["own"] == pytest.approx([1, 1], abs=1e-12)
  for name in ("batch", "weight"):
    assert found[name]["own"] == pytest.approx([0.25, 0.25], abs=1e-9)
    assert found[name]["cross"] == pytest.approx([0.5, 0.5], abs=1e-9)
  for side in ("own", "cross"):
    assert found["layer, all of W"][side] == pytest.approx([0.25] * 2, abs=1e-9)
  low, high = found["layer, w_i alone"]["own"]
  assert high - low > 1e-3


def test_the_metric_falls_strictly_as_weights_grow(models, x64):
  found = part.by_length(models)
  for norm in ("batch", "weight", "layer"):
    for values in found[norm].values():
      assert (np.diff(values, axis=1) < 0).all()
      # As 1 / |w|^2.
      np.testing.assert_allclose(
        values[:, 0] / values[:, -1], (part.LENGTHS[-1] / part.LENGTHS[0]) ** 2
      )


def test_along_the_gain_batch_and_layer_norm_do_not_see_the_inputs_scale(
  models, x64
):
  found = part.by_input(models)
  for norm in ("batch", "layer"):
    assert found[norm]["change"].max() <= 1e-9
    np.testing.assert_allclose(found[norm]["trace"], 1)
  # Eqs. (34) and (35) are one expression: both grow as the square.
  square = np.square(part.INPUTS)
  for norm in ("weight", "none"):
    change, trace = found[norm]["change"], found[norm]["trace"]
    np.testing.assert_allclose(
      change, np.broadcast_to(np.abs(square - 1), change.shape), atol=1e-9
    )
    np.testing.assert_allclose(trace, np.broadcast_to(square, trace.shape))


def test_eq_32_holds_where_the_covariance_does_not_depend_on_x(models, x64):
  found = part.gain_form_gaps(models)
  assert found["gaussian"] <= 1e-12
  assert min(found["bernoulli"], found["categorical"]) >= 1e-2
