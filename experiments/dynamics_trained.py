"""Networks trained on digits, and how their dynamics scale."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import dynamics_runs as runs
from lnrnn import losses, rnn
from lnrnn.analysis import dynamics
from lnrnn.data import mnist


class Rows(NamedTuple):
  """Digits read row by row."""

  x: jax.Array  # [28, b, 28] ink, 0 to 1
  h: jax.Array  # [b, h] at the start
  labels: jax.Array  # [b]


def _rows(split: mnist.Arrays, at: Any, key: jax.Array, features: int) -> Rows:
  x = jnp.swapaxes(split.images[at] / 255.0, 0, 1)
  h = runs.NOISE * jax.random.normal(key, (x.shape[1], features))
  return Rows(jnp.asarray(x, jnp.float32), h, jnp.asarray(split.labels[at]))


@functools.partial(jax.jit, static_argnums=0)
def _fitted(cell, net, split: mnist.Arrays, keys):
  """Trains by Adam, an update for each key: {"cell", "kernel", "bias"}."""
  layer = rnn.RNN(cell, time_major=True, t_max=runs.SIDE, bn_test="minibatch")
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
  averages = dict(layer.init(keys[0], jnp.zeros((runs.SIDE, 2, runs.SIDE))))
  del averages["params"]  # What is left, batch norm's, is never looked at.

  def loss(net, rows):
    y = layer.apply(
      {"params": {"cell": net["cell"]}, **averages},
      rows.x,
      initial_carry=runs.start(cell, rows.h),
      train=True,
    )
    logits = y[-1] @ net["kernel"] + net["bias"]
    return losses.cross_entropy(logits, rows.labels).mean()

  def update(state, key):
    net, moments = state
    key, noise = jax.random.split(key)
    at = jax.random.randint(key, (32,), 0, len(split.labels))
    gradient = jax.grad(loss)(net, _rows(split, at, noise, cell.features))
    change, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(net, change), moments), None

  return jax.lax.scan(update, (net, optimizer.init(net)), keys)[0][0]


@functools.partial(jax.jit, static_argnums=0)
def _measured(cell, net, train: Rows, test: Rows, directions, factors):
  """Accuracy and growth rates of a trained network at each scale.

  Args:
    cell: of the network.
    net: of `_fitted`.
    train: digits for batch norm's statistics.
    test: digits to name.
    directions: [m, n] of perturbations, in the first m of these.
    factors: {part: [s]}.

  Returns:
    [s] each: accuracy; accuracy under the statistics of scale 1; growth rate.
  """
  moments_of = lambda p: dynamics.statistics(
    cell, p, runs.start(cell, train.h), train.x
  )
  old = moments_of(net["cell"])

  def at(factors):
    params = dynamics.scaled(net["cell"], factors)
    step = dynamics.held_step(cell, params)

    def read(moments):
      start = runs.start(cell, test.h)
      states = dynamics.states(step, start, (test.x, moments))
      h = jax.tree.leaves(states)[-1][-1]
      named = (h @ net["kernel"] + net["bias"]).argmax(axis=-1)
      return states, (named == test.labels).mean()

    moments = moments_of(params)
    states, accuracy = read(moments)
    carry = jax.tree.map(lambda a: a[runs.BLANK - 1, : len(directions)], states)
    after = jax.tree.map(lambda a: a[runs.BLANK :], moments)

    def grown(carry, x, v):
      return dynamics.log_growth(step, carry, (x, after), v[None])[-1]

    x = test.x[runs.BLANK :, : len(directions)]
    rate = jax.vmap(grown, (0, 1, 0))(carry, x, directions)
    return accuracy, read(old)[1], rate.mean() / (runs.SIDE - runs.BLANK)

  return jax.lax.map(at, factors)


def trained(sizes: runs.Sizes) -> dict[str, dict[str, dict[str, np.ndarray]]]:
  """{kind: {label: {"accuracy", "kept", "growth": [s, seeds]}}}."""
  splits = mnist.load("embedded").splits
  digits = jax.tree.map(jnp.asarray, splits["train"])
  keys = jax.random.split(jax.random.key(1), 4)
  some = jax.random.permutation(keys[0], len(digits.labels))[:256]
  train = _rows(digits, some, keys[1], sizes.features)
  some = jax.random.permutation(keys[0], len(splits["test"].labels))
  some = some[: sizes.test]
  test = _rows(splits["test"], np.asarray(some), keys[2], sizes.features)
  found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
  for kind, names in sizes.trained.items():
    found[kind] = {}
    nets = {}
    for norm, part, label in runs.VARIANTS:
      if norm not in names:
        continue
      cell = runs.KINDS[kind](sizes.features, norm=norm)
      v = jax.random.normal(keys[3], (min(32, sizes.test), runs.width(cell)))
      measured = []
      for seed in range(sizes.seeds):
        key = jax.random.key(100 + seed)
        if (norm, seed) not in nets:
          net = {
            "cell": dynamics.draw(cell, key, runs.SIDE),
            "kernel": jnp.zeros((sizes.features, 10)),
            "bias": jnp.zeros(10),
          }
          updates = jax.random.split(key, sizes.updates)
          nets[norm, seed] = _fitted(cell, net, digits, updates)
        measured.append(
          _measured(
            cell, nets[norm, seed], train, test, v, runs.factors_of(part)
          )
        )
      arrays = np.asarray(measured, np.float64).transpose(1, 2, 0)
      names_of = ("accuracy", "kept", "growth")
      found[kind][label] = dict(zip(names_of, arrays, strict=True))
  return found
