"""What is measured of hidden dynamics: exact invariance, random networks."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import linen_cells
from lnrnn.analysis import dynamics

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


def start(cell: Any, h: jax.Array) -> Any:
  """The carry that begins with h and, for an LSTM, c = 0."""
  return (jnp.zeros_like(h), h) if "c" in cell.carry_names() else h


def factors_of(part: str, scales: np.ndarray = SCALES) -> dict[str, np.ndarray]:
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
    carry = start(cell, jnp.asarray(rng.normal(size=(8, 16))))
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
    carry = start(cell, h)
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


def width(cell: Any) -> int:
  """How many numbers the state is."""
  return len(cell.carry_names()) * cell.features


def random(kind: str, sizes: Sizes) -> dict[str, np.ndarray]:
  """{label: [s, networks] growth rate, nats per step}."""
  rates = {}
  for norm, part, label in VARIANTS:
    cell = KINDS[kind](sizes.features, norm=norm)
    nets = _draws(cell, sizes.networks, sizes)
    shape = (sizes.networks, 1, width(cell))
    v = jax.random.normal(nets.key, shape)
    grown = np.asarray(_growth(cell, nets, v, factors_of(part)), np.float64)
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
        jnp.eye(width(cell)), (sizes.products, *[width(cell)] * 2)
      )
      factors = factors_of(part, SCALES[ENDS])
      found[label] = np.asarray(_growth(cell, nets, basis, factors), np.float64)
  return found
