"""Batch norm's statistics, taken anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn import norms
from lnrnn.training import population


@pytest.mark.parametrize("n", [1, 3, 30])
def test_statistics_are_plain_means_over_the_batches(n):
  """Whatever there was before, and however many batches there are."""
  batches = np.random.default_rng(0).normal(2, 3, (n, 8, 5)).astype(np.float32)
  module = norms.BatchNorm(momentum=population.momentum(n))
  params = {"gain": jnp.ones(5), "bias": jnp.zeros(5)}
  stale = {"mean": jnp.full(5, 9.0), "var": jnp.full(5, 7.0), "seen": 500}
  stale["seen"] = jnp.int32(500)
  variables = {"params": params, "batch_stats": stale, "other": {"a": 1}}

  def update(variables, batch, key):
    del key
    own = {k: variables[k] for k in ("params", "batch_stats")}
    return module.apply(own, batch, train=True, mutable=["batch_stats"])[1]

  found = population.estimated(variables, batches, update, jax.random.key(0))
  assert found["other"] == {"a": 1}
  assert int(found["batch_stats"]["seen"]) == n
  np.testing.assert_allclose(
    found["batch_stats"]["mean"], batches.mean(axis=(0, 1)), rtol=1e-5
  )
  np.testing.assert_allclose(
    found["batch_stats"]["var"], batches.var(axis=1).mean(axis=0), rtol=1e-5
  )
  # What was given is as it was.
  assert int(variables["batch_stats"]["seen"]) == 500


def test_each_batch_has_a_key_of_its_own():
  seen = []

  def update(variables, batch, key):
    seen.append(jax.random.key_data(key).tolist())
    return {}

  population.estimated({"batch_stats": {}}, range(3), update, jax.random.key(0))
  assert len({tuple(key) for key in seen}) == 3
