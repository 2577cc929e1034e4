"""Optimisers, schedules and clipping against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lnrnn.training import optim

SHAPES = {"a": (3, 2), "b": (2,)}
BASE = {
  "optimizer__learning_rate": 0.1,
  "optimizer__b1": 0.8,
  "optimizer__b2": 0.95,
  "optimizer__eps": 1e-3,
}


def _adam(p, g, s, t, o):
  s["m"] = o.b1 * s.get("m", 0) + (1 - o.b1) * g
  s["v"] = o.b2 * s.get("v", 0) + (1 - o.b2) * g * g
  m, v = s["m"] / (1 - o.b1**t), s["v"] / (1 - o.b2**t)
  return m / (np.sqrt(v) + o.eps)


def _adam_authors(p, g, s, t, o):
  """As the authors' code has it, whose b1 and b2 are the complements."""
  b1, b2 = 1 - o.b1, 1 - o.b2
  s["m"] = b1 * g + (1 - b1) * s.get("m", 0)
  s["v"] = b2 * g * g + (1 - b2) * s.get("v", 0)
  factor = np.sqrt(1 - b2**t) / (1 - b1**t)
  return factor * s["m"] / (np.sqrt(s["v"]) + o.eps)


def _adamw(p, g, s, t, o):
  return _adam(p, g, s, t, o) + o.weight_decay * p


def _sgd(p, g, s, t, o):
  return g


def _momentum(p, g, s, t, o):
  s["m"] = o.b1 * s.get("m", 0) + g
  return s["m"]


def _rmsprop(p, g, s, t, o):
  s["v"] = o.b2 * s.get("v", 0) + (1 - o.b2) * g * g
  return g / np.sqrt(s["v"] + o.eps)


RULES = {
  "adam": _adam,
  "adam_authors": _adam_authors,
  "adamw": _adamw,
  "sgd": _sgd,
  "momentum": _momentum,
  "rmsprop": _rmsprop,
}


def _clip(gs, o):
  if o.clip:
    norm = np.sqrt(sum((g * g).sum() for g in gs.values()))
    if o.clip_rule == "authors":  # As their Theano code has it.
      times = o.clip / np.sqrt(norm) if norm > o.clip**2 else 1
      return {k: times * g for k, g in gs.items()}
    gs = {k: g * min(1, o.clip / norm) if norm else g for k, g in gs.items()}
  if o.clip_per_tensor:
    norms = {k: np.sqrt((g * g).sum()) for k, g in gs.items()}
    gs = {
      k: g * min(1, o.clip_per_tensor / norms[k]) if norms[k] else g
      for k, g in gs.items()
    }
  return gs


@pytest.mark.parametrize(
  "clips",
  [
    {},
    {"clip": 1.0},
    {"clip_per_tensor": 0.5},
    {"clip": 1.5, "clip_rule": "authors"},
  ],
)
@pytest.mark.parametrize("name", optim.NAMES)
def test_five_steps_equal_numpy(settings, name, clips):
  extra = {f"optimizer__{k}": v for k, v in clips.items()}
  decay = 0.3 if name == "adamw" else 0.0
  config = settings(
    **BASE, **extra, optimizer__name=name, optimizer__weight_decay=decay
  )
  o = config.optimizer
  tx = optim.make(o, 5)
  rng = np.random.default_rng(0)
  want = {k: rng.normal(size=shape) for k, shape in SHAPES.items()}
  got: Any = {k: jnp.asarray(v, jnp.float32) for k, v in want.items()}
  state, memory = tx.init(got), {k: {} for k in SHAPES}
  for t in range(1, 6):
    # The third gradient of b is zero: nothing may become 0/0.
    gs = {k: 2 * rng.normal(size=shape) for k, shape in SHAPES.items()}
    gs["b"] *= t != 3
    updates, state = tx.update(
      {k: jnp.asarray(g, jnp.float32) for k, g in gs.items()}, state, got
    )
    got = optax.apply_updates(got, updates)
    for k, g in _clip(gs, o).items():
      want[k] = want[k] - 0.1 * RULES[name](want[k], g, memory[k], t, o)
  for k in SHAPES:
    np.testing.assert_allclose(got[k], want[k], rtol=2e-5, atol=2e-6)


def test_the_authors_clip_leaves_a_gradient_far_above_its_number():
  """10 means: above 100, so 10 times the root of the length."""
  tx = optim.clip_authors(10.0)
  for length, wanted in ((99.0, 99.0), (400.0, 200.0), (0.0, 0.0)):
    g = {"a": jnp.array([0.6 * length]), "b": jnp.array([[0.8 * length]])}
    clipped, _ = tx.update(g, tx.init(g))
    found = np.hypot(clipped["a"][0], clipped["b"][0, 0])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_an_unknown_clip_rule_is_refused(settings):
  o = settings(optimizer__clip=1.0, optimizer__clip_rule="author").optimizer
  with pytest.raises(ValueError, match="clip_rule 'author' is not one of"):
    optim.make(o, 1)


def test_adams_first_step_is_the_learning_rate_long_by_bias_correction(
  settings,
):
  o = settings(optimizer__learning_rate=0.25, optimizer__eps=1e-12).optimizer
  tx = optim.make(o, 1)
  g = {"w": jnp.array([1e-3, -5.0])}
  updates: Any
  updates, _ = tx.update(g, tx.init(g), g)
  np.testing.assert_allclose(updates["w"], [-0.25, 0.25], rtol=1e-4)


def test_clipping_leaves_small_gradients_alone_and_zero_finite():
  small = {"a": jnp.array([0.3, -0.4]), "b": jnp.zeros(2)}
  for tx in (optim.clip_per_tensor(1.0), optax.clip_by_global_norm(1.0)):
    out, _ = tx.update(small, tx.init(small))
    jax.tree.map(np.testing.assert_array_equal, out, small)


def test_clipping_per_tensor_clips_each_and_keeps_its_direction():
  tx = optim.clip_per_tensor(2.0)
  out: Any
  out, _ = tx.update({"a": jnp.array([30.0, 40.0]), "b": jnp.ones(1)}, ())
  np.testing.assert_allclose(out["a"], [1.2, 1.6], rtol=1e-6)
  np.testing.assert_array_equal(out["b"], [1.0])


def _rates(settings, steps, **fields):
  fields = {f"optimizer__{k}": v for k, v in fields.items()}
  o = settings(**{"optimizer__learning_rate": 0.8} | fields).optimizer
  schedule = optim.schedule(o, steps)
  return [np.asarray(schedule(jnp.int32(i))).item() for i in range(steps + 1)]


def test_warm_up_rises_linearly_from_the_first_update_to_the_rate(settings):
  rates = _rates(settings, 8, warmup_steps=4)
  np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, *[0.8] * 6], rtol=1e-6)
  np.testing.assert_allclose(
    _rates(settings, 3, warmup_steps=1), [0.8] * 4, rtol=1e-6
  )


@pytest.mark.parametrize("warmup", [0, 5])
def test_linear_and_cosine_go_from_the_rate_to_zero(settings, warmup):
  steps = 25
  along = np.arange(steps - warmup + 1) / (steps - warmup)
  for name, want in (
    ("linear", 0.8 * (1 - along)),
    ("cosine", 0.4 * (1 + np.cos(np.pi * along))),
    ("constant", np.full_like(along, 0.8)),
  ):
    rates = _rates(settings, steps, schedule=name, warmup_steps=warmup)
    np.testing.assert_allclose(rates[warmup:], want, rtol=1e-5, atol=1e-7)


def test_unknown_names_are_refused(settings):
  config = settings(optimizer__name="adm", optimizer__schedule="step")
  with pytest.raises(ValueError, match="'step' is not one of constant"):
    optim.make(config.optimizer, 5)
  config = settings(optimizer__name="adm")
  with pytest.raises(ValueError, match="'adm' is not one of adam"):
    optim.make(config.optimizer, 5)
