"""What is measured of hidden dynamics: invariance, random and trained nets."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lnrnn import linen_cells, losses, rnn
from lnrnn.analysis import dynamics
from lnrnn.data import mnist

KINDS = {"LSTM": linen_cells.LSTMCell, "GRU": linen_cells.GRUCell}
SCALES = np.geomspace(0.1, 10, 9)  # Of the recurrent weights; the fifth is 1.
SIDE = 28
RUN_IN = 50  # Steps before a random network is measured.
BLANK = 4  # Upper rows without ink, before a trained one is.
NOISE = 0.1  # Standard deviation of h at the start, as in configs/.
ENDS = [0, 4, 8]  # Of `SCALES`: 0.1, 1 and 10.


class Variant(NamedTuple):
  """A norm, and which of its parameters set the recurrent weights' scale."""

  norm: str
  part: str
  label: str


# Directions have no scale under weight norm; what a longer W_h is to the
# others, a larger gain is to it.
VARIANTS = (
  Variant("layer", "w_h", "layer norm"),
  Variant("batch", "w_h", "batch norm"),
  Variant("rms", "w_h", "RMS norm"),
  Variant("weight", "w_h", "weight norm"),
  Variant("weight", "wn_h", "weight norm, gain scaled"),
  Variant("none", "w_h", "no norm"),
)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much is computed; smaller in tests.

  Attributes:
    features: h, units.
    networks: random networks of each kind.
    steps: over which a random network is measured.
    sequences: b, over which batch norm's statistics are taken.
    products: random networks whose whole Jacobian product is followed.
    updates: of the training, each on 32 digits.
    seeds: trained networks of each norm.
    test: digits that accuracy is measured on.
    trained: {kind: norms that are trained}.
  """

  features: int = 64
  networks: int = 20
  steps: int = 200
  sequences: int = 32
  products: int = 4
  updates: int = 300
  seeds: int = 2
  test: int = 1000
  trained: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=lambda: {
      "LSTM": ("layer", "batch", "rms", "weight", "none"),
      "GRU": ("layer", "batch", "none"),
    }
  )


def _start(cell: Any, h: jax.Array) -> Any:
  """The carry that begins with h and, for an LSTM, c = 0."""
  return (jnp.zeros_like(h), h) if "c" in cell.carry_names() else h


def _factors(part: str, scales: np.ndarray = SCALES) -> dict[str, np.ndarray]:
  """{part: [s]} factors of the recurrent weights."""
  scales = scales.astype(np.float32)
  return {p: scales if p == part else scales**0 for p in ("w_h", "wn_h")}


# --- Exact invariance ---

PLACES = (
  ("layer", "separate"),
  ("layer", "sum"),
  ("layer", "cell"),
  ("batch", "separate"),
  ("batch", "sum"),
  ("rms", "separate"),
  ("rms", "sum"),
  ("weight", "directions"),
  ("weight", "gains"),
  ("none", "-"),
)


def changes() -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
  """{(kind, norm, form): {what is scaled: [networks] change of h}}.

  The change is relative, the largest over the scales, 20 steps and 8
  sequences; float64, eps 0.
  """
  found = {}
  for kind in KINDS:
    for norm, form in PLACES:
      if (kind, form) != ("GRU", "cell"):
        w = "wn" if form == "gains" else "w"
        parts = {"W_h": [f"{w}_h"], "W_x": [f"{w}_x"]}
        parts["both"] = parts["W_h"] + parts["W_x"]
        with jax.enable_x64(True):
          found[kind, norm, form] = _change(kind, norm, form, parts)
  return found


def _change(
  kind: str, norm: str, form: str, parts: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
  """{what is scaled: [networks]} of one place of a norm."""
  form = form if norm in ("layer", "batch", "rms") else "separate"
  cell = KINDS[kind](16, norm=norm, form=form, eps=0.0, param_dtype=jnp.float64)
  rng = np.random.default_rng(0)
  names = sorted({name for several in parts.values() for name in several})
  rows = [[1.0] * len(names)]
  for several in parts.values():
    rows += [[s if n in several else 1.0 for n in names] for s in SCALES]
  factors = dict(zip(names, np.array(rows).T, strict=True))

  @jax.jit
  def hidden(params, carry, x):
    def at(factors):
      scaled = dynamics.scaled(params, factors)
      moments = dynamics.statistics(cell, scaled, carry, x)
      step = dynamics.held_step(cell, scaled)
      states = dynamics.states(step, carry, (x, moments))
      return jax.tree.leaves(states)[-1]

    return jax.lax.map(at, factors)

  changes = []
  for key in jax.random.split(jax.random.key(0), 3):
    params = jax.tree.map(  # So that no bias is 0.
      lambda p: p + rng.normal(0, 0.1, p.shape), dynamics.draw(cell, key, 4)
    )
    carry = _start(cell, jnp.asarray(rng.normal(size=(8, 16))))
    h = np.asarray(hidden(params, carry, rng.normal(size=(20, 8, 4))))
    change = np.linalg.norm(h - h[0], axis=-1) / np.linalg.norm(h[0], axis=-1)
    changes.append(change[1:].reshape(len(parts), -1).max(axis=1))
  return dict(zip(parts, np.transpose(changes), strict=True))


# --- Random networks ---


class Random(NamedTuple):
  """Random networks and their inputs."""

  params: Any  # leaves [networks, ...]
  h: jax.Array  # [networks, b, h] at the start
  x: jax.Array  # [networks, t, b, d]
  key: jax.Array


def _draws(cell: Any, networks: int, sizes: Sizes) -> Random:
  """The same weights, states and inputs for all norms of a kind of cell."""
  keys = jax.random.split(jax.random.key(0), 4)
  drawn = jax.vmap(lambda key: dynamics.draw(cell, key, SIDE))
  shape = (networks, sizes.sequences)
  steps = RUN_IN + sizes.steps
  return Random(
    drawn(jax.random.split(keys[0], sizes.networks)[:networks]),
    NOISE * jax.random.normal(keys[1], (*shape, sizes.features)),
    jax.random.normal(keys[2], (networks, steps, sizes.sequences, SIDE)),
    keys[3],
  )


@functools.partial(jax.jit, static_argnums=0)
def _growth(cell, nets: Random, directions, factors):
  """[s, networks, t] growth in the first sequence of each network."""

  def of_network(params, h, x, v, factors):
    params = dynamics.scaled(params, factors)
    carry = _start(cell, h)
    moments = dynamics.statistics(cell, params, carry, x)
    step = dynamics.held_step(cell, params)
    carry = jax.tree.map(lambda a: a[0], carry)
    before, after = (
      jax.tree.map(lambda a, cut=cut: a[cut], (x[:, 0], moments))
      for cut in (slice(0, RUN_IN), slice(RUN_IN, None))
    )
    carry = jax.tree.map(lambda a: a[-1], dynamics.states(step, carry, before))
    return dynamics.log_growth(step, carry, after, v)

  networks = jax.vmap(of_network, (0, 0, 0, 0, None))
  return jax.lax.map(
    lambda f: networks(nets.params, nets.h, nets.x, directions, f), factors
  )


def _width(cell: Any) -> int:
  """How many numbers the state is."""
  return len(cell.carry_names()) * cell.features


def random(kind: str, sizes: Sizes) -> dict[str, np.ndarray]:
  """{label: [s, networks] growth rate, nats per step}."""
  rates = {}
  for norm, part, label in VARIANTS:
    cell = KINDS[kind](sizes.features, norm=norm)
    nets = _draws(cell, sizes.networks, sizes)
    shape = (sizes.networks, 1, _width(cell))
    v = jax.random.normal(nets.key, shape)
    grown = np.asarray(_growth(cell, nets, v, _factors(part)), np.float64)
    rates[label] = grown[..., -1] / sizes.steps
  return rates


def products(sizes: Sizes) -> dict[str, np.ndarray]:
  """{label: [3, networks, t]} of LSTMs: the whole product's norm, nats."""
  found = {}
  for norm, part, label in VARIANTS:
    if norm in ("layer", "none"):
      cell = KINDS["LSTM"](sizes.features, norm=norm)
      nets = _draws(cell, sizes.products, sizes)
      basis = jnp.broadcast_to(
        jnp.eye(_width(cell)), (sizes.products, *[_width(cell)] * 2)
      )
      factors = _factors(part, SCALES[ENDS])
      found[label] = np.asarray(_growth(cell, nets, basis, factors), np.float64)
  return found


# --- Trained networks ---


class Rows(NamedTuple):
  """Digits read row by row."""

  x: jax.Array  # [28, b, 28] ink, 0 to 1
  h: jax.Array  # [b, h] at the start
  labels: jax.Array  # [b]


def _rows(split: mnist.Arrays, at: Any, key: jax.Array, features: int) -> Rows:
  x = jnp.swapaxes(split.images[at] / 255.0, 0, 1)
  h = NOISE * jax.random.normal(key, (x.shape[1], features))
  return Rows(jnp.asarray(x, jnp.float32), h, jnp.asarray(split.labels[at]))


@functools.partial(jax.jit, static_argnums=0)
def _fitted(cell, net, split: mnist.Arrays, keys):
  """Trains by Adam, an update for each key: {"cell", "kernel", "bias"}."""
  layer = rnn.RNN(cell, time_major=True, t_max=SIDE, bn_test="minibatch")
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
  averages = dict(layer.init(keys[0], jnp.zeros((SIDE, 2, SIDE))))
  del averages["params"]  # What is left, batch norm's, is never looked at.

  def loss(net, rows):
    y = layer.apply(
      {"params": {"cell": net["cell"]}, **averages},
      rows.x,
      initial_carry=_start(cell, rows.h),
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
    cell, p, _start(cell, train.h), train.x
  )
  old = moments_of(net["cell"])

  def at(factors):
    params = dynamics.scaled(net["cell"], factors)
    step = dynamics.held_step(cell, params)

    def read(moments):
      start = _start(cell, test.h)
      states = dynamics.states(step, start, (test.x, moments))
      h = jax.tree.leaves(states)[-1][-1]
      named = (h @ net["kernel"] + net["bias"]).argmax(axis=-1)
      return states, (named == test.labels).mean()

    moments = moments_of(params)
    states, accuracy = read(moments)
    carry = jax.tree.map(lambda a: a[BLANK - 1, : len(directions)], states)
    after = jax.tree.map(lambda a: a[BLANK:], moments)

    def grown(carry, x, v):
      return dynamics.log_growth(step, carry, (x, after), v[None])[-1]

    x = test.x[BLANK:, : len(directions)]
    rate = jax.vmap(grown, (0, 1, 0))(carry, x, directions)
    return accuracy, read(old)[1], rate.mean() / (SIDE - BLANK)

  return jax.lax.map(at, factors)


def trained(sizes: Sizes) -> dict[str, dict[str, dict[str, np.ndarray]]]:
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
    for norm, part, label in VARIANTS:
      if norm not in names:
        continue
      cell = KINDS[kind](sizes.features, norm=norm)
      v = jax.random.normal(keys[3], (min(32, sizes.test), _width(cell)))
      measured = []
      for seed in range(sizes.seeds):
        key = jax.random.key(100 + seed)
        if (norm, seed) not in nets:
          net = {
            "cell": dynamics.draw(cell, key, SIDE),
            "kernel": jnp.zeros((sizes.features, 10)),
            "bias": jnp.zeros(10),
          }
          updates = jax.random.split(key, sizes.updates)
          nets[norm, seed] = _fitted(cell, net, digits, updates)
        measured.append(
          _measured(cell, nets[norm, seed], train, test, v, _factors(part))
        )
      arrays = np.asarray(measured, np.float64).transpose(1, 2, 0)
      names_of = ("accuracy", "kept", "growth")
      found[kind][label] = dict(zip(names_of, arrays, strict=True))
  return found
