"""Which checkpoints stay, which is best, and what can be restored."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoints
from lnrnn.training.step import TrainState


def _state(step, width=3):
  params = {"w": jnp.arange(width, dtype=jnp.float32) + step}
  return TrainState(jnp.int32(step), {"params": params}, (jnp.int32(step),))


@contextlib.contextmanager
def _open(folder, best="", **kwargs):
  saver = checkpoints.Checkpoints(folder, kept=2, best=best, **kwargs)
  with contextlib.closing(saver):
    yield saver


def _save(saver, values, first=1):
  for step, value in enumerate(values, first):
    score = saver.score({"v/e": value})
    saver.save(_state(step), {"value": str(value)}, score)
  saver.wait()


@pytest.mark.parametrize(
  ("mode", "kept", "best"), [("min", [3, 6, 7], 3), ("max", [1, 6, 7], 1)]
)
def test_the_latest_two_and_the_best_are_kept_also_over_a_restart(
  tmp_path, mode, kept, best
):
  values = [0.9, 0.5, 0.2, 0.6, math.nan, 0.8, 0.7]
  with _open(tmp_path, f"v/e:{mode}") as saver:
    _save(saver, values)
    assert saver.best_step() == best
  assert checkpoints.committed_steps(tmp_path) == kept
  with _open(tmp_path, f"v/e:{mode}") as saver:
    assert saver.best_step() == best
    _save(saver, [0.6, 0.5], first=8)
    assert saver.best_step() == best
  assert checkpoints.committed_steps(tmp_path) == [best, 8, 9]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path, mode):
  with _open(tmp_path, f"v/e:{mode}") as saver:
    _save(saver, [math.nan, math.inf, -math.inf])
    assert saver.best_step() is None
    _save(saver, [0.5, math.nan], first=4)
    assert saver.best_step() == 4
    assert saver.score({}) == -math.inf


def test_without_a_deciding_metric_the_latest_are_kept_and_none_is_best(
  tmp_path,
):
  with _open(tmp_path) as saver:
    _save(saver, [0.1, 0.2, 0.3])
    assert saver.best_step() is None
  assert checkpoints.committed_steps(tmp_path) == [2, 3]


def test_a_state_is_restored_bit_for_bit_latest_or_by_step(tmp_path):
  with _open(tmp_path) as saver:
    assert saver.restore(_state(0)) is None
    _save(saver, ["a", "b"])
  with _open(tmp_path) as saver:
    for step, want in ((None, 2), (1, 1)):
      found = saver.restore(_state(0), step)
      assert found is not None
      state, meta = found
      jax.tree.map(np.testing.assert_array_equal, state, _state(want))
      assert meta == {"value": "ab"[want - 1]}


def test_a_state_may_be_donated_right_after_it_was_given_to_save(tmp_path):
  bump = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
  state = _state(1)
  with _open(tmp_path) as saver:
    saver.save(state, {}, 0.0)
    for _ in range(20):
      state = bump(state)
    saver.wait()
    found = saver.restore(_state(0))
  assert found is not None
  jax.tree.map(np.testing.assert_array_equal, found[0], _state(1))


def test_a_step_that_was_not_committed_is_no_checkpoint(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  (tmp_path / "checkpoints" / "2" / "commit_success.txt").unlink()
  (tmp_path / "checkpoints" / "9" / "state").mkdir(parents=True)
  assert checkpoints.committed_steps(tmp_path) == [1]
  with _open(tmp_path) as saver:
    found = saver.restore(_state(0))
    assert found is not None and int(found[0].step) == 1


def test_a_reader_leaves_the_save_of_another_process_alone(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1])
  under_way = tmp_path / "checkpoints" / "9" / "state"
  under_way.mkdir(parents=True)
  with _open(tmp_path, writes=False) as saver:
    found = saver.restore(_state(0))
    assert found is not None and int(found[0].step) == 1
  assert under_way.is_dir()
  with _open(tmp_path / "empty", writes=False) as saver:
    assert saver.restore(_state(0)) is None
  assert not (tmp_path / "empty").exists()


def test_a_state_of_another_shape_is_refused_with_the_checkpoints_path(
  tmp_path,
):
  with _open(tmp_path) as saver:
    _save(saver, [1])
    with pytest.raises(WorkdirError) as caught:
      saver.restore(_state(0, width=4))
  assert str(tmp_path / "checkpoints" / "1") in str(caught.value)
  assert "\n" not in str(caught.value)
