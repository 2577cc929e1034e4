"""Runs that stop by their patience, and what is measured of the best state."""

import dataclasses
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.errors import WorkdirError
from lnrnn.training import (
  checkpoint_files,
  checkpoints,
  early,
  loop,
  runs,
  signals,
  writers,
)
from lnrnn.training import config as config_lib
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Eval

BEST = "validation/value:max"


def rows(values, metric="validation/value"):
  return [{"step": 2 * i + 2, metric: v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
  ("values", "patience", "expected"),
  [
    ([], 1, False),
    ([1], 1, False),
    ([1, 1], 1, True),  # To equal is not to be better.
    ([1, 2], 1, False),
    ([3, 1, 2], 2, True),
    ([3, 1, 4], 2, False),
    ([3, 1, 4, 4, 4], 2, True),
    ([3, 1, 2], 0, False),
    ([math.nan, math.nan], 2, True),
    ([math.nan, 1, math.inf], 2, False),
    ([1, math.inf, math.inf], 2, True),
  ],
)
def test_patience_is_spent_when_so_many_brought_no_new_best(
  values, patience, expected
):
  assert early.is_spent(rows(values), BEST, patience) is expected
  lower = rows([-v for v in values])
  assert early.is_spent(lower, "validation/value:min", patience) is expected


def test_other_rows_and_later_ones_do_not_count():
  found = rows([3, 1, 2])
  found[1:1] = [{"step": 3, "loss": 9.0}, {"step": 3, "test/value": 9.0}]
  assert early.is_spent(found, BEST, 2)
  assert not early.is_spent(found, BEST, 2, step=4)


# --- In the loop: validation gets worse from step 6 on ---

VALUES = {2: 1.0, 4: 2.0, 6: 5.0, 8: 3.0, 10: 4.0, 12: 4.5, 14: 9.0}


@pytest.fixture
def parts(task, settings):
  """(**settings) -> (config, experiment) whose validation is `VALUES`."""

  def make(fingerprint="toy", **overrides):
    fields = {"train_steps": 14, "eval_every": 2, "patience": 3, "best": BEST}
    fields |= {"checkpoint_every": 2, "epochs": 0}
    config = settings(**fields | overrides)
    experiment = task(config, fingerprint=fingerprint)
    seen = []

    def validate(variables, split, key):
      w = np.asarray(variables["params"]["w"]).tolist()
      seen.append((split, w))
      return {"value": VALUES[2 * len([s for s, _ in seen if s == split])]}

    def finally_(variables, split, key):
      seen.append((split, np.asarray(variables["params"]["w"]).tolist()))
      return {"value": 1.0}

    evals = {
      "validate": Eval(config.eval_every, validate, ("validation",)),
      "late": Eval(10_000, finally_, ("train",)),
      "test": Eval(config.eval_every, finally_, ("test",), of_best=True),
    }
    return config, dataclasses.replace(experiment, evals=evals), seen

  return make


def test_a_run_stops_after_so_many_evaluations_without_a_new_best(
  parts, tmp_path, capfd
):
  config, experiment, _ = parts()
  loop.train(config, experiment, tmp_path)
  steps, values = writers.curve(
    writers.read_metrics(tmp_path), "validation/value"
  )
  assert steps.tolist() == [2, 4, 6, 8, 10, 12]
  assert values.tolist() == [VALUES[s] for s in steps]
  assert checkpoints.committed_steps(tmp_path)[-1] == 12
  assert "finished by its patience at step 12" in capfd.readouterr().out


def test_a_run_without_patience_goes_to_its_end(parts, tmp_path):
  config, experiment, _ = parts(patience=0)
  loop.train(config, experiment, tmp_path)
  assert checkpoints.committed_steps(tmp_path)[-1] == 14


def test_what_is_of_the_best_is_measured_once_on_the_best_state(
  parts, tmp_path
):
  config, experiment, seen = parts()
  loop.train(config, experiment, tmp_path)
  of = lambda split: [w for s, w in seen if s == split]
  (test,), (late,) = of("test"), of("train")
  assert test == of("validation")[2] != of("validation")[-1]
  assert late == of("validation")[-1]
  last = writers.read_metrics(tmp_path)[-1]
  assert last["step"] == 12 and last["test/value"] == last["train/value"] == 1
  # Of which state the row tells, too.
  assert last["test/of_step"] == 6 and "train/of_step" not in last


def test_the_best_state_is_measured_by_the_same_program(parts, tmp_path):
  traced = []

  @jax.jit
  def norm(variables):
    traced.append(variables)
    return jnp.square(variables["params"]["w"]).sum()

  def measured(ev):
    def fn(variables, split, key):
      norm(variables)
      places.append({a.sharding for a in jax.tree.leaves(variables)})
      return ev.fn(variables, split, key)

    return dataclasses.replace(ev, fn=fn)

  places = []
  config, experiment, _ = parts()
  evals = {name: measured(ev) for name, ev in experiment.evals.items()}
  loop.train(config, dataclasses.replace(experiment, evals=evals), tmp_path)
  assert len(traced) == 1 and norm._cache_size() == 1
  assert len(places) == 8 and all(p == places[0] for p in places)


def test_a_damaged_best_checkpoint_does_not_keep_a_run_from_its_end(
  parts, tmp_path, capfd
):
  config, experiment, _ = parts()
  evals = dict(experiment.evals)
  validate = evals["validate"].fn

  def damage(variables, split, key):
    found = validate(variables, split, key)
    if found["value"] == VALUES[12]:  # Just before the end.
      path = tmp_path / "checkpoints" / "6" / checkpoint_files.SUMS
      path.write_text("0" * 64 + "  meta/metadata\n")
    return found

  evals["validate"] = dataclasses.replace(evals["validate"], fn=damage)
  loop.train(config, dataclasses.replace(experiment, evals=evals), tmp_path)
  assert workdir_lib.finished_at(tmp_path, config) == 12
  last = writers.read_metrics(tmp_path)[-1]
  assert last["train/value"] == 1 and "test/value" not in last
  told = capfd.readouterr().err
  assert "nothing is measured of the best state: checkpoint" in told


def test_the_last_state_may_be_the_best(parts, tmp_path):
  config, experiment, seen = parts(patience=0)
  loop.train(config, experiment, tmp_path)
  of = lambda split: [w for s, w in seen if s == split]
  assert of("test") == [of("validation")[-1]]


def test_without_best_the_last_state_is_measured(parts, tmp_path):
  config, experiment, seen = parts(patience=0, best="")
  loop.train(config, experiment, tmp_path)
  of = lambda split: [w for s, w in seen if s == split]
  assert of("test") == [of("validation")[-1]]


def test_a_stopped_run_is_finished_and_can_be_given_more_patience(
  parts, tmp_path
):
  config, experiment, _ = parts()
  loop.train(config, experiment, tmp_path)
  assert workdir_lib.is_finished(tmp_path, config)
  assert workdir_lib.finished_at(tmp_path, config) == 12
  assert runs.Curves.read(tmp_path).unfinished == ""
  workdir_lib.check(tmp_path, config)

  longer, experiment, seen = parts(patience=4)
  workdir_lib.check(tmp_path, longer)
  assert not workdir_lib.is_finished(tmp_path, longer)
  seen += [("validation", None)] * 6
  loop.train(longer, experiment, tmp_path)
  assert workdir_lib.finished_at(tmp_path, longer) == 14
  steps, values = writers.curve(
    writers.read_metrics(tmp_path), "validation/value"
  )
  assert steps.tolist() == list(VALUES) and values[-1] == 9

  less, *_ = parts(patience=2)
  with pytest.raises(WorkdirError, match="it can have more"):
    workdir_lib.check(tmp_path, less)


def test_a_resumed_run_counts_what_was_measured_before(parts, tmp_path):
  config, experiment, _ = parts(train_steps=8)
  loop.train(config, experiment, tmp_path)
  config, experiment, seen = parts()
  seen += [("validation", None)] * 4
  loop.train(config, experiment, tmp_path)
  assert checkpoints.committed_steps(tmp_path)[-1] == 12


def test_a_signal_in_the_last_evaluation_leaves_it_to_the_next_start(
  parts, tmp_path
):
  config, experiment, seen = parts()

  def interrupted(variables, split, key):
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("the signal ends an evaluation at once")

  evals = dict(experiment.evals)
  evals["test"] = dataclasses.replace(evals["test"], fn=interrupted)
  broken = dataclasses.replace(experiment, evals=evals)
  with signals.handled(), pytest.raises(signals.Interrupted):
    loop.train(config, broken, tmp_path)
  assert checkpoints.committed_steps(tmp_path)[-1] == 12
  assert not workdir_lib.is_finished(tmp_path, config)
  del seen[:]
  seen += [("validation", None)] * 5
  loop.train(config, experiment, tmp_path)
  assert workdir_lib.finished_at(tmp_path, config) == 12
  found = writers.read_metrics(tmp_path)
  assert [row["step"] for row in found if "test/value" in row] == [12]


def test_patience_needs_something_to_get_better(settings):
  config = settings(patience=3, best="")
  (fault,) = config_lib.check_common(config).faults
  assert fault.startswith("patience=3: needs best")
