"""What is not finite stops a run, is named, and is never saved."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.errors import DivergedError
from lnrnn.training import checkpoints, health, loop, writers
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Eval, Experiment

_BIG = 3e38  # Times 10 it is infinite in float32.
_SCALE = 0.01  # Of the loss: a rate of 10 alone does no harm.


@jax.custom_vjp
def _zero(param, slope):
  """0, with a gradient that is given: nothing is seen in the loss."""
  del param, slope
  return 0.0


_zero.defvjp(
  lambda param, slope: (0.0, slope), lambda slope, ct: (slope, 0 * slope)
)


class Faulty:
  """Batches of a line, and what is to be added where in each step.

  Args:
    kind: "loss"; "w" or "unused", a parameter's gradient; "mean", a running
      mean that nothing reads; "" for none.
    at: the step, counted from 1 as in the metrics.
    value: that is added.
  """

  steps_per_epoch = 8
  fingerprint = "line"

  def __init__(self, kind="", at=0, value=math.nan):
    self._kind, self._at, self._value = kind, at, value

  def __getitem__(self, step):
    rng = np.random.default_rng(step)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    batch = {"x": x, "y": x.sum(axis=1)}
    for kind, size in (("loss", ()), ("w", 3), ("unused", 3), ("mean", 3)):
      added = np.zeros(size, np.float32)
      if step + 1 == self._at and kind == self._kind:
        added[...] = self._value
      batch[kind] = added
    return {k: v if k in "xy" else np.tile(v, (4, 1)) for k, v in batch.items()}


def _experiment(data, every=10):
  def init(key, batch):
    params = {"w": jnp.zeros(3), "unused": jnp.ones(3)}
    return {"params": params, "batch_stats": {"mean": jnp.zeros(3)}}

  def loss(variables, batch, key):
    p, mean = variables["params"], variables["batch_stats"]["mean"]
    value = _SCALE * jnp.square(batch["x"] @ p["w"] - batch["y"]).mean()
    value += batch["loss"].sum()
    value += _zero(p["w"], batch["w"][0])
    value += _zero(p["unused"], batch["unused"][0])
    new = 0.9 * mean + batch["mean"].sum(0)
    return value, ({"batch_stats": {"mean": new}}, {})

  def score(variables, split, key):
    return {"error": float(np.square(variables["params"]["w"] - 1).sum())}

  return Experiment(
    init=init,
    loss=loss,
    train_data=data,
    evals={"score": Eval(every, score, ("validation",))},
    data="made up",
  )


def _named(kind, value, optimizer):
  """What the message calls the fault."""
  if kind == "loss":
    return "loss"
  if kind == "mean":
    return "collection batch_stats/mean"
  if value != _BIG:
    return f"gradient params/{kind}"
  if optimizer == "sgd":
    return f"parameter params/{kind}"
  return f"optimizer state 0/nu/{kind}"  # The square is infinite.


def _all_good(config, experiment, workdir):
  """The steps of the checkpoints, all of which are finite."""
  steps = checkpoints.committed_steps(workdir)
  for step in steps:
    state = loop.restore(config, experiment, workdir, str(step))
    assert health.broken(jax.device_get(state)) is None
  return steps


def _diverges(settings, workdir, kind, at, value, optimizer, log, longest):
  """One fault, examined; returns the steps between it and the stop."""
  rate = 10 if value == _BIG else 0.02
  config = settings(
    log_every=log,
    steps_per_dispatch=longest,
    optimizer__name=optimizer,
    optimizer__learning_rate=rate,
  )
  experiment = _experiment(Faulty(kind, at, value))
  what = f"{_named(kind, value, optimizer)} is not finite at step {at}"
  kept = [10] if at > 10 else []
  for _ in range(2):  # Started again it ends the same, and loses nothing.
    with pytest.raises(DivergedError) as caught:
      loop.train(config, experiment, workdir)
    last = "the last checkpoint is kept"
    if not kept:
      last = "no checkpoint had been saved"
    assert str(caught.value) == f"{what}; {last}"
    assert _all_good(config, experiment, workdir) == kept
    rows = writers.read_metrics(workdir)
    assert rows[-1]["fault"] == what
    assert sum("fault" in row for row in rows) == 1
    last = max((r["step"] for r in rows if "loss" in r), default=0)
    # A state is looked at when it is saved, so nothing gets past that; a loss
    # or a parameter not even past the next log.
    end = 10 * math.ceil(at / 10)
    if kind != "mean" and value != _BIG:
      end = min(end, log * math.ceil(at / log))
    if kind == "loss":
      assert last == at
    assert last <= end
    assert not workdir_lib.is_finished(workdir, config)
  return last - at


@pytest.mark.parametrize(
  ("kind", "at", "value", "optimizer", "log", "longest"),
  [
    ("loss", 11, math.inf, "adam", 5, 7),
    ("w", 13, math.nan, "adam", 5, 5),
    ("w", 20, -math.inf, "sgd", 5, 7),
    ("unused", 6, math.nan, "sgd", 5, 7),
    ("unused", 10, math.inf, "adam", 50, 7),
    ("mean", 12, math.nan, "adam", 5, 7),
    ("w", 4, _BIG, "sgd", 5, 1),
    ("unused", 14, _BIG, "adam", 5, 7),
  ],
)
def test_a_fault_is_named_with_its_step_and_never_saved(
  settings, tmp_path, kind, at, value, optimizer, log, longest
):
  _diverges(settings, tmp_path, kind, at, value, optimizer, log, longest)


@pytest.mark.long
def test_every_fault_is_named_with_its_step_and_never_saved(settings, tmp_path):
  steps = (1, 4, 5, 6, 9, 10, 11, 19, 20)
  values = (math.nan, math.inf, _BIG)
  kinds = ("loss", "w", "unused", "mean")
  paces = ((1, 7), (5, 1), (5, 7), (50, 7))
  late = []
  for i, (kind, value, optimizer, at) in enumerate(
    itertools.product(kinds, values, ("sgd", "adam"), steps)
  ):
    if value == _BIG and kind in ("loss", "mean"):
      continue  # Finite.
    folder = tmp_path / str(i)
    late.append(
      _diverges(
        settings, folder, kind, at, value, optimizer, *paces[i % len(paces)]
      )
    )
  print(f"\nfaults: {len(late)} named and not saved, {max(late)} steps at most")


def test_a_fault_in_a_later_start_is_found_from_its_checkpoint(
  settings, tmp_path
):
  config = settings(train_steps=10)
  loop.train(config, _experiment(Faulty()), tmp_path)
  config = settings()
  with pytest.raises(DivergedError, match="^gradient params/unused.* step 12;"):
    loop.train(config, _experiment(Faulty("unused", 12)), tmp_path)
  assert _all_good(config, _experiment(Faulty()), tmp_path) == [10]


@pytest.mark.parametrize(("log", "accumulate"), [(1, 1), (5, 2)])
def test_norms_are_those_of_numpy(settings, tmp_path, log, accumulate):
  data, rate = Faulty(), 5.0
  config = settings(
    log_every=log,
    accumulate=accumulate,
    optimizer__name="sgd",
    optimizer__learning_rate=rate,
  )
  loop.train(config, _experiment(data), tmp_path)
  w, wanted = np.zeros(3), {}
  for step in range(20):
    x, y = (np.float64(data[step][k]) for k in "xy")
    gradient = _SCALE * 2 / len(y) * x.T @ (x @ w - y)
    w = w - rate * gradient
    # The other parameter is three ones, its gradient zero.
    wanted[step + 1] = (np.linalg.norm(gradient), np.sqrt(w @ w + 3))
  rows = [r for r in writers.read_metrics(tmp_path) if "loss" in r]
  assert [row["step"] for row in rows] == list(range(log, 21, log))
  for row in rows:
    got = row["grad_norm"], row["param_norm"]
    np.testing.assert_allclose(got, wanted[row["step"]], rtol=2e-5)


def test_the_norm_of_half_precision_is_taken_in_float32():
  tree = {"a": jnp.full(4, 300, jnp.float16), "b": jnp.ones(2, jnp.bfloat16)}
  found = jax.jit(health.norm)(tree)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, math.sqrt(4 * 300**2 + 2), rtol=1e-6)
  assert float(health.norm(tree, jnp.bool(False))) == 0


def test_whole_numbers_and_keys_are_left_alone():
  tree = {"n": np.arange(3), "flag": np.array(True), "x": np.ones(2)}
  assert health.broken(tree) is None
  assert int(health.first_fault([("collection", tree)])) == -1
  tree["x"][1] = math.inf
  assert health.broken(tree) == "x"
  index = int(health.first_fault([("collection", tree)]))
  assert health.name_fault(index, [("collection", tree)]) == "collection x"
