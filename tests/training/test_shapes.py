"""Training on batches that differ in shape."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.training import loop, writers
from lnrnn.training import step as step_lib
from lnrnn.training.experiment import Eval, Experiment


class Lengths:
  """Batches [4, t, 2] whose t is 3, 5 or 8, by the step."""

  steps_per_epoch, fingerprint = 8, "lengths"

  def shape(self, step):
    return (3, 5, 5, 8)[(step // 2) % 4]

  def __getitem__(self, step):
    rng = np.random.default_rng(step)
    return {"x": rng.normal(size=(4, self.shape(step), 2)).astype(np.float32)}


def experiment(config):
  def loss(variables, batch, key):
    w = variables["params"]["w"]
    return jnp.square(batch["x"] @ w - 1).mean(), ({}, {})

  def score(variables, split, key):
    return {"w": float(variables["params"]["w"][0])}

  return Experiment(
    init=lambda key, batch: {"params": {"w": jax.random.normal(key, (2,))}},
    loss=loss,
    train_data=Lengths(),
    evals={"score": Eval(config.eval_every, score, ("validation",))},
    data="made up",
  )


@given(
  st.integers(0, 40), st.integers(0, 60), st.integers(1, 9), st.integers(1, 20)
)
def test_a_dispatch_holds_steps_of_one_shape(start, length, longest, event):
  shape = Lengths().shape
  plan = list(step_lib.chunks(start, start + length, [event], longest, shape))
  steps = [step for a, b in plan for step in range(a, b)]
  assert steps == list(range(start, start + length))
  for a, b in plan:
    assert b - a <= longest and len({shape(step) for step in range(a, b)}) == 1


def _rows(folder):
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(folder)
  ]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
  folder = tmp_path_factory.mktemp("shapes")
  config = settings(train_steps=20, log_every=1, steps_per_dispatch=4, epochs=0)
  loop.train(config, experiment(config), folder)
  return config, folder


def test_every_step_trains_on_its_own_batch(whole):
  config, folder = whole
  losses = {row["step"]: row["loss"] for row in _rows(folder) if "loss" in row}
  assert list(losses) == list(range(1, 21))
  data, tx = Lengths(), step_lib.Keys.of(config.seed)
  w = jax.random.normal(tx.init, (2,))
  first = np.square(data[0]["x"] @ np.asarray(w) - 1).mean()
  assert losses[1] == pytest.approx(first, rel=1e-5)


def test_each_shape_is_compiled_once(settings, tmp_path, monkeypatch):
  compiled = []
  real = step_lib.dispatcher

  def dispatcher(*args, **options):
    jitted = real(*args, **options)

    class Spy:
      def lower(self, state, batch, *rest):
        compiled.append(batch["x"].shape[2])
        return jitted.lower(state, batch, *rest)

    return Spy()

  monkeypatch.setattr(step_lib, "dispatcher", dispatcher)
  config = settings(train_steps=24, steps_per_dispatch=4, epochs=0)
  loop.train(config, experiment(config), tmp_path)
  assert sorted(compiled) == [3, 5, 8]


def test_a_run_that_stops_within_a_shape_goes_on_by_the_bit(
  whole, settings, tmp_path
):
  config, folder = whole
  for steps in (3, 11, 20):
    part = settings(
      train_steps=steps, log_every=1, steps_per_dispatch=4, epochs=0
    )
    loop.train(part, experiment(part), tmp_path)
  of = lambda path: {r["step"]: r["loss"] for r in _rows(path) if "loss" in r}
  assert of(tmp_path) == of(folder)
  jax.tree.map(
    np.testing.assert_array_equal,
    loop.restore(config, experiment(config), tmp_path, "latest"),
    loop.restore(config, experiment(config), folder, "latest"),
  )
