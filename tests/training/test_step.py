"""Microbatches, gradient norms, shares of a batch, and what a step costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lnrnn.data import batches
from lnrnn.training import cost, distributed, health
from lnrnn.training import step as step_lib
from lnrnn.training.experiment import Experiment


def _experiment(loss, rows=12):
  rng = np.random.default_rng(0)
  data = {
    "x": rng.normal(size=(rows, 3)).astype(np.float32),
    "y": rng.normal(size=rows).astype(np.float32),
    "shared": np.float32(0.5),
  }

  class Data:
    fingerprint, steps_per_epoch = "made up", 1

    def __getitem__(self, step):
      return data

  def init(key, batch):
    params = {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}
    return {"params": params, "count": {"calls": jnp.zeros((), jnp.int32)}}

  return Experiment(init, loss, Data(), {}, "made up"), data


def _squares(variables, batch, key):
  del key
  p = variables["params"]
  gap = batch["x"] @ p["w"] + p["b"] * batch["shared"] - batch["y"]
  calls = variables["count"]["calls"] + 1
  metrics = {"worst": jnp.abs(gap).mean()}
  return jnp.square(gap).mean(), ({"count": {"calls": calls}}, metrics)


@pytest.mark.parametrize("m", [1, 2, 3, 12])
def test_microbatches_give_the_update_of_the_whole_batch(m):
  experiment, data = _experiment(_squares)
  tx = optax.adam(0.1)
  state = step_lib.init_state(experiment, tx, jax.random.key(0))
  want, seen = step_lib.update(experiment, tx, state, data, jax.random.key(1))
  got, found = step_lib.update(
    experiment, tx, state, data, jax.random.key(1), accumulate=m
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    (got.variables["params"], got.opt_state, found),
    (want.variables["params"], want.opt_state, seen),
  )
  assert int(got.variables["count"]["calls"]) == m  # One after the other.


def test_each_microbatch_draws_its_own_random_numbers():
  def loss(variables, batch, key):
    noise = jax.random.normal(key)
    return variables["params"]["b"] * noise, ({}, {"noise": noise})

  experiment, data = _experiment(loss)
  state = step_lib.init_state(experiment, optax.sgd(1.0), jax.random.key(0))
  key = jax.random.key(3)
  (_, _, metrics), grads = step_lib.gradients(experiment, state, data, key, 2)
  drawn = [jax.random.normal(jax.random.fold_in(key, i)) for i in range(2)]
  assert drawn[0] != drawn[1]
  np.testing.assert_allclose(metrics["noise"], np.mean(drawn), rtol=1e-6)
  np.testing.assert_allclose(grads["b"], np.mean(drawn), rtol=1e-6)


def test_half_precision_gradients_are_summed_in_float32():
  def loss(variables, batch, key):
    value = (variables["params"]["w"] * batch["x"].astype(jnp.bfloat16)).sum()
    return value.astype(jnp.float32), ({}, {})

  experiment, data = _experiment(loss, rows=64)

  def init(key, batch):
    return {"params": {"w": jnp.ones(3, jnp.bfloat16)}}

  experiment = Experiment(init, loss, experiment.train_data, {}, "")
  state = step_lib.init_state(experiment, optax.sgd(1.0), jax.random.key(0))
  _, grads = step_lib.gradients(experiment, state, data, jax.random.key(0), 64)
  exact = data["x"].astype(jnp.bfloat16).astype(np.float64).mean(0)
  assert grads["w"].dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.asarray(grads["w"]).astype(np.float64), exact, rtol=2**-8, atol=0
  )


def test_the_gradient_norm_is_the_global_one_at_the_logs_and_zero_between():
  experiment, data = _experiment(_squares)
  tx = optax.sgd(0.1)
  state = step_lib.init_state(experiment, tx, jax.random.key(0))
  norms = []
  for _ in range(4):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), state.variables)
    w, b = p["params"]["w"], p["params"]["b"]
    gap = data["x"] @ w + 0.5 * b - data["y"]
    grad = np.append(2 * data["x"].T @ gap / 12, gap.mean())
    state, found = step_lib.update(
      experiment, tx, state, data, jax.random.key(0), log_every=2
    )
    norms.append((float(found["grad_norm"]), np.linalg.norm(grad)))
  assert [norms[0][0], norms[2][0]] == [0, 0]
  for got, want in (norms[1], norms[3]):
    assert got == pytest.approx(want, rel=1e-5)
  params = state.variables["params"]
  flat = np.append(params["w"], params["b"])
  assert float(health.norm(params)) == pytest.approx(np.linalg.norm(flat))


def test_the_shares_of_all_processes_make_up_the_batch():
  rows = {"x": np.arange(40).reshape(20, 2), "label": np.arange(20)}
  whole = batches.ShuffledBatches(rows, 6, seed=1, fingerprint="f")

  class Plain:  # Without a method `share`.
    def __getitem__(self, step):
      return {**whole[step], "temperature": np.float32(step)}

  for data in (whole, Plain()):
    shares = [batches.share(data, i, 3) for i in range(3)]
    for step in (0, 2, 3, 7):
      parts = [share[step] for share in shares]
      joined = np.concatenate([part["x"] for part in parts])
      np.testing.assert_array_equal(joined, whole[step]["x"])
      assert all(len(part["label"]) == 2 for part in parts)
  assert parts[0]["temperature"] == 7
  stacked = batches.share(whole, 1, 3).stacked(2, 5)
  np.testing.assert_array_equal(stacked["x"][1], whole[3]["x"][2:4])
  assert batches.share(whole, 0, 1) is whole


def test_a_batch_is_put_on_the_mesh_with_its_scalars_on_every_device():
  mesh = distributed.mesh()
  batch = {"x": np.zeros((5, 4, 3)), "step": np.arange(5)}
  put = distributed.shard(batch, mesh)
  assert put["x"].sharding.spec == jax.sharding.PartitionSpec(None, "data")
  assert put["step"].sharding.is_fully_replicated
  np.testing.assert_array_equal(put["step"], batch["step"])


def test_flops_count_a_loop_as_often_as_it_runs():
  w = jnp.ones((64, 64))

  def chain(x, length=10):
    def step(c, _):
      return jnp.tanh(c @ w), None

    return jax.lax.scan(step, x, None, length=length)[0].sum()

  def nested(x):
    return jax.lax.scan(lambda c, _: (c + chain(c), None), x, None, length=5)[
      0
    ].sum()

  x = jnp.ones((8, 64))
  once = 2 * 8 * 64 * 64
  for f, times in (
    (chain, 10),
    (jax.jit(chain), 10),
    (jax.grad(chain), 20),
    (nested, 50),
    (jax.vmap(lambda x: x @ w), 1),
  ):
    assert cost.flops(f, x) == pytest.approx(times * once, rel=0.05)


def test_iterations_count_the_steps_that_wait_for_each_other():
  def chain(x, length):
    step = lambda c, _: (jnp.tanh(c), None)
    return jax.lax.scan(step, x, None, length=length)[0]

  def nested(x):
    return jax.lax.scan(lambda c, _: (chain(c, 5), None), x, None, length=3)[0]

  x = jnp.ones(4)
  assert cost.iterations(lambda x: x * 2, x) == 0
  assert cost.iterations(lambda x: chain(x, 7) + chain(x, 2), x) == 9
  assert cost.iterations(jax.jit(nested), x) == 15
  # Forward and backward.
  assert cost.iterations(jax.grad(lambda x: chain(x, 7).sum()), x) == 14
