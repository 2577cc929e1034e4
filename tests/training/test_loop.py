"""The loop: which steps in which dispatch, what an update does, resuming."""

import dataclasses
import json
import math

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lnrnn.errors import DivergedError, WorkdirError
from lnrnn.training import checkpoints, distributed, loop, optim, writers
from lnrnn.training import step as step_lib
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Eval

_events = st.lists(st.integers(1, 60), min_size=1, max_size=3)


def _plan(start, stop, events, longest):
  return list(step_lib.chunks(start, stop, events, longest))


@given(st.integers(0, 300), st.integers(0, 200), _events, st.integers(1, 50))
def test_chunks_cover_every_step_once_and_end_at_events(
  start, length, events, longest
):
  stop = start + length
  plan = _plan(start, stop, events, longest)
  steps = [step for a, b in plan for step in range(a, b)]
  assert steps == list(range(start, stop))
  assert all(1 <= b - a <= longest for a, b in plan)
  ends = {b for _, b in plan}
  for event in events:
    assert set(range(start - start % event + event, stop, event)) <= ends


def _final(workdir, experiment, config):
  return loop.restore(config, experiment, workdir, "latest")


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _rows(workdir):
  """The rows without what a clock decides."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, task, settings):
  """(final state, rows, workdir) of 20 steps in one go."""
  config = settings()
  workdir = tmp_path_factory.mktemp("unbroken")
  loop.train(config, task(config), workdir)
  return _final(workdir, task(config), config), _rows(workdir), workdir


def test_a_run_equals_a_plain_python_loop_with_optax(task, settings, unbroken):
  config = settings()
  experiment = task(config)
  init_key, step_key, _ = jax.random.split(jax.random.key(config.seed), 3)
  tx = optax.adam(0.02)
  variables = experiment.init(init_key, experiment.train_data[0])
  params, stats = variables["params"], variables["batch_stats"]
  opt_state, losses, noises = tx.init(params), [], []

  @jax.jit
  def step(params, stats, opt_state, batch, key):
    def f(params):
      return experiment.loss(
        {"params": params, "batch_stats": stats}, batch, key
      )

    (value, (others, metrics)), grads = jax.value_and_grad(f, has_aux=True)(
      params
    )
    updates, opt_state = tx.update(grads, opt_state)
    params = optax.apply_updates(params, updates)
    return params, others["batch_stats"], opt_state, value, metrics["noise"]

  for i in range(20):
    key = jax.random.fold_in(step_key, i)
    params, stats, opt_state, value, noise = step(
      params, stats, opt_state, experiment.train_data[i], key
    )
    losses.append(float(value))
    noises.append(float(noise))

  state, rows, _ = unbroken
  assert int(state.step) == 20
  for got, want in (
    (state.variables["params"], params),
    (state.variables["batch_stats"], stats),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      got,
      want,
    )
  shown = [row for row in rows if "loss" in row]
  assert [row["step"] for row in shown] == [5, 10, 15, 20]
  at = np.array([4, 9, 14, 19])
  np.testing.assert_allclose(
    [row["loss"] for row in shown], np.array(losses)[at], rtol=1e-5
  )
  np.testing.assert_allclose(
    [row["noise"] for row in shown], np.array(noises)[at], rtol=1e-6
  )


def test_the_other_collections_are_carried_and_not_optimised(
  task, settings, unbroken
):
  mean = np.zeros(3)
  for i in range(20):
    mean = 0.9 * mean + 0.1 * task(settings()).train_data[i]["x"].mean(0)
  state, _, _ = unbroken
  np.testing.assert_allclose(
    state.variables["batch_stats"]["mean"], mean, rtol=1e-5, atol=1e-7
  )
  shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
  assert sorted(shapes) == [(), (), (), (), (3,), (3,)]  # 2 counts; b, w twice


@pytest.mark.parametrize("longest", [1, 7])
def test_steps_per_dispatch_changes_no_bit(
  task, settings, unbroken, tmp_path, longest
):
  config = settings(steps_per_dispatch=longest)
  loop.train(config, task(config), tmp_path)
  state, rows, _ = unbroken
  _equal(_final(tmp_path, task(config), config), state)
  assert _rows(tmp_path) == rows


def test_all_lengths_of_dispatches_share_one_program(task, settings, tmp_path):
  # A recurrent model takes a minute to compile.
  traced = []

  def run(name, **periods):
    config = settings(checkpoint_every=20, eval_every=20, **periods)
    experiment = task(config)

    def loss(variables, batch, key):
      traced.append(name)
      return experiment.loss(variables, batch, key)

    loop.train(
      config, dataclasses.replace(experiment, loss=loss), tmp_path / name
    )

  run("one", log_every=20)
  run("many", log_every=7, steps_per_dispatch=3)
  assert traced.count("one") == traced.count("many")


def test_the_state_of_an_update_is_donated(task, settings):
  config = settings()
  experiment = task(config)
  tx = optim.make(config.optimizer, config.train_steps)
  state = step_lib.init_state(experiment, tx, jax.random.key(0))
  old = state.variables["params"]["w"]
  batches = jax.tree.map(lambda a: a[None], experiment.train_data[0])
  dispatch = step_lib.dispatcher(experiment, tx, distributed.mesh())
  key = jax.random.key_data(jax.random.key(1))
  new, _ = dispatch(state, batches, np.int32(1), key)
  assert old.is_deleted() and int(new.step) == 1


@pytest.mark.parametrize("stop", [7, 10, 13])
def test_a_run_that_grows_equals_one_that_was_always_long(
  task, settings, unbroken, tmp_path, stop
):
  # 7 and 13 are no multiples of any period: no step may be left out.
  for steps in (stop, 20):
    config = settings(train_steps=steps)
    loop.train(config, task(config), tmp_path)
  state, rows, workdir = unbroken
  _equal(_final(tmp_path, task(config), config), state)
  found = _rows(tmp_path)
  extra = [r for r in found if r["step"] == stop and "loss" not in r]
  if stop % 10:  # The last step of the short run was evaluated too.
    found = [row for row in found if row not in extra]
  assert found == rows
  seconds = [
    row["time/train_seconds"]
    for row in writers.read_metrics(tmp_path)
    if "loss" in row
  ]
  assert seconds == sorted(seconds) and seconds[0] > 0
  record = json.loads((tmp_path / "config.json").read_text())
  assert [start["step"] for start in record["starts"]] == [0, stop]
  assert not (workdir / "config.tmp").exists()


def test_changed_periods_alter_no_update_of_a_resumed_run(
  task, settings, unbroken, tmp_path
):
  for more in ({"train_steps": 10}, {"eval_every": 7, "checkpoint_every": 70}):
    config = settings(**more)
    loop.train(config, task(config), tmp_path)
  _equal(_final(tmp_path, task(config), config), unbroken[0])


def test_rows_of_one_metric_have_strictly_increasing_steps(unbroken):
  _, rows, _ = unbroken
  assert rows
  for metric in ("loss", "validation/error", "validation/note"):
    steps = [row["step"] for row in rows if metric in row]
    assert steps and steps == sorted(set(steps))


def test_other_data_is_refused_when_a_run_goes_on(task, settings, tmp_path):
  config = settings(train_steps=10)
  loop.train(config, task(config), tmp_path)
  rows = (tmp_path / "metrics.jsonl").read_bytes()
  workdir_lib.claim(tmp_path, "toy", "the same")
  with pytest.raises(WorkdirError, match="the data has changed.*toy -> other"):
    workdir_lib.claim(tmp_path, "other", "another")
  assert (tmp_path / "metrics.jsonl").read_bytes() == rows
  assert checkpoints.committed_steps(tmp_path) == [10]


def test_a_run_killed_before_its_first_checkpoint_leaves_no_double_rows(
  task, settings, unbroken, tmp_path
):
  (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1}\n{"st')
  config = settings()
  loop.train(config, task(config), tmp_path)
  assert _rows(tmp_path) == unbroken[1]


def test_a_loss_that_is_not_a_number_stops_the_run_and_is_recorded(
  task, settings, tmp_path
):
  config = settings()
  with pytest.raises(DivergedError, match="^loss is not finite at step 14;"):
    loop.train(config, task(config, nan_from=13), tmp_path)
  *_, row, fault = writers.read_metrics(tmp_path)
  assert row["step"] == 14 and math.isnan(row["loss"])
  assert fault == {"step": 14, "fault": "loss is not finite at step 14"}
  assert checkpoints.committed_steps(tmp_path) == [10]
  state = _final(tmp_path, task(config), config)
  assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(state))


def test_parameters_that_are_not_finite_never_become_a_checkpoint(
  task, settings, tmp_path
):
  # The loss that the last update follows from is still finite.
  config = settings(train_steps=1)
  with pytest.raises(
    DivergedError, match="^gradient params/b is not finite at"
  ):
    loop.train(config, task(config, nan_grads=True), tmp_path)
  assert checkpoints.committed_steps(tmp_path) == []


def test_the_best_checkpoint_is_kept_beside_the_latest(
  task, settings, tmp_path
):
  # A rate so high that the first evaluations are not the best ones.
  config = settings(
    train_steps=60,
    eval_every=5,
    checkpoint_every=5,
    optimizer__learning_rate=0.3,
  )
  loop.train(config, task(config), tmp_path)
  steps, errors = writers.curve(
    writers.read_metrics(tmp_path), "validation/error"
  )
  best = int(steps[errors.argmin()])
  state = loop.restore(config, task(config), tmp_path, "best")
  assert int(state.step) == best
  assert set(checkpoints.committed_steps(tmp_path)) == {best, 55, 60}
  by_step = loop.restore(config, task(config), tmp_path, str(best))
  _equal(by_step, state)
  for wrong in ("3", "-1", "newest"):
    with pytest.raises(WorkdirError, match="there is latest, best and the st"):
      loop.restore(config, task(config), tmp_path, wrong)


def _with(experiment, **fields):
  return dataclasses.replace(experiment, **fields)


@pytest.mark.parametrize("name", ["loss", "step", "fault", "time/x", "a/b"])
def test_a_training_metric_may_not_take_a_name_of_the_loop_s(
  task, settings, tmp_path, name
):
  config = settings()
  experiment = task(config)

  def loss(variables, batch, key):
    value, (changed, _) = experiment.loss(variables, batch, key)
    return value, (changed, {name: value})

  with pytest.raises(ValueError, match=f"training metric '{name}'"):
    loop.train(config, _with(experiment, loss=loss), tmp_path)
  assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize("value", [None, 1j, np.zeros(3), object()])
def test_a_metric_of_no_known_kind_is_named_and_costs_no_update(
  task, settings, tmp_path, value
):
  config = settings(checkpoint_every=10, eval_every=10)
  experiment = task(config)
  wrong = Eval(10, lambda *_: {"odd": value}, ("validation",))
  with pytest.raises(TypeError, match="metric 'validation/odd' is "):
    loop.train(config, _with(experiment, evals={"odd": wrong}), tmp_path)
  assert checkpoints.committed_steps(tmp_path) == [10]
  loop.train(config, experiment, tmp_path)
  assert {r["step"] for r in _rows(tmp_path) if "validation/error" in r} == {
    10,
    20,
  }


def test_two_evaluations_may_not_give_one_metric(task, settings, tmp_path):
  config = settings(eval_every=10)
  experiment = task(config)
  evals = {"a": experiment.evals["score"], "b": experiment.evals["score"]}
  with pytest.raises(ValueError, match="give the metric 'validation/error'"):
    loop.train(config, _with(experiment, evals=evals), tmp_path)


def test_a_run_is_not_made_shorter_than_it_is(task, settings, tmp_path):
  loop.train(settings(), task(settings()), tmp_path)
  with pytest.raises(WorkdirError, match="train_steps=10, but its run is at"):
    workdir_lib.check(tmp_path, settings(train_steps=10))
