"""Which checkpoints stay, which is best, and what can be restored."""

import contextlib
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoint_files, checkpoint_record, checkpoints
from lnrnn.training.step import TrainState


def _state(step, width=3):
  params = {"w": jnp.arange(width, dtype=jnp.float32) + step}
  return TrainState(jnp.int32(step), {"params": params}, (jnp.int32(step),))


def _identity(fingerprint="toy", **fields):
  config = {"norm": "layer", "train_steps": 9, "dtype": "float32", **fields}
  config["optimizer"] = {"schedule": "constant"}
  return {"config": config, "fingerprint": fingerprint}


@contextlib.contextmanager
def _open(folder, best="", identity=None, **kwargs):
  saver = checkpoints.Checkpoints(
    folder, identity or _identity(), kept=2, best=best, **kwargs
  )
  with contextlib.closing(saver):
    yield saver


def _save(saver, values, first=1):
  for step, value in enumerate(values, first):
    score = saver.score({"v/e": value})
    saver.save(_state(step), {"value": str(value)}, score)
  saver.wait()


def _latest(saver):
  """The step and the state of the newest good checkpoint."""
  found = saver.restore_latest(_state(0))
  assert found is not None
  jax.tree.map(
    np.testing.assert_array_equal, found[0], _state(int(found[0].step))
  )
  return int(found[0].step)


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


@pytest.mark.parametrize(
  ("every", "kept"), [(3, [2, 3, 6, 7, 8]), (0, [2, 7, 8])]
)
def test_those_of_every_so_many_steps_are_kept_too(tmp_path, every, kept):
  values = [0.5, 0.1, 0.6, 0.4, 0.5, 0.6, 0.7, 0.8]
  with _open(tmp_path, "v/e:min", kept_every=every) as saver:
    _save(saver, values)
    assert saver.best_step() == 2
  assert checkpoints.committed_steps(tmp_path) == kept
  with _open(tmp_path, "v/e:min", kept_every=every) as saver:  # Later too.
    _save(saver, [0.9, 0.9], first=9)
  others = [step for step in kept if step in (2, 3, 6)]
  assert checkpoints.committed_steps(tmp_path) == [*others, 9, 10]


def test_a_state_is_restored_bit_for_bit_latest_or_by_step(tmp_path):
  with _open(tmp_path) as saver:
    assert saver.restore_latest(_state(0)) is None
    _save(saver, ["a", "b"])
  with _open(tmp_path) as saver:
    assert _latest(saver) == 2
    for step in (1, 2):
      state, progress = saver.restore(_state(0), step)
      jax.tree.map(np.testing.assert_array_equal, state, _state(step))
      assert progress == {"value": "ab"[step - 1]}


def test_a_state_may_be_donated_right_after_it_was_given_to_save(tmp_path):
  bump = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
  state = _state(1)
  with _open(tmp_path) as saver:
    saver.save(state, {}, 0.0)
    for _ in range(20):
      state = bump(state)
    saver.wait()
    assert _latest(saver) == 1


def test_a_step_that_was_not_committed_is_no_checkpoint(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  (tmp_path / "checkpoints" / "2" / "commit_success.txt").unlink()
  (tmp_path / "checkpoints" / "9" / "state").mkdir(parents=True)
  assert checkpoints.committed_steps(tmp_path) == [1]
  with _open(tmp_path) as saver:
    assert _latest(saver) == 1
  # What was cut off makes way for the next save of its step.
  assert not (tmp_path / "checkpoints" / "9").exists()


def test_a_reader_leaves_the_save_of_another_process_alone(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1])
  under_way = tmp_path / "checkpoints" / "9" / "state"
  under_way.mkdir(parents=True)
  with _open(tmp_path, writes=False) as saver:
    state, _ = saver.restore(_state(0), 1)
    assert int(state.step) == 1
  assert under_way.is_dir()
  with _open(tmp_path / "empty", writes=False) as saver:
    assert saver.steps() == []
  assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
  ("identity", "width", "dtype", "said"),
  [
    (_identity(norm="batch"), 3, None, "norm: 'layer' -> 'batch'"),
    (_identity(dtype="bfloat16"), 3, None, "'float32' -> 'bfloat16'"),
    (_identity("other"), 3, None, "data fingerprint: toy -> other"),
    (_identity(), 4, None, r"params/w: float32\[3\] -> float32\[4\]"),
    (_identity(), 3, jnp.bfloat16, r"float32\[3\] -> bfloat16\[3\]"),
  ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
  tmp_path, identity, width, dtype, said
):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  like = _state(0, width)
  like.variables["params"]["w"] = like.variables["params"]["w"].astype(dtype)
  with (
    _open(tmp_path, identity=identity) as saver,
    pytest.raises(WorkdirError, match=said) as caught,
  ):
    saver.restore_latest(like)
  assert str(tmp_path / "checkpoints" / "2") in str(caught.value)
  assert "\n" not in str(caught.value)
  assert checkpoints.committed_steps(tmp_path) == [1, 2]


def test_a_longer_run_of_the_same_config_may_go_on(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1])
  with _open(tmp_path, identity=_identity(train_steps=20)) as saver:
    assert _latest(saver) == 1


def test_the_best_k_are_kept_and_the_first_of_equals_is_the_best(tmp_path):
  with _open(tmp_path, "v/e:min", best_kept=2) as saver:
    _save(saver, [0.5, 0.2, 0.9, 0.2, 0.8, 0.7])
    assert saver.best_step() == 2
    assert not saver.is_among_best(-0.2) and saver.is_among_best(-0.1)
  assert checkpoints.committed_steps(tmp_path) == [2, 4, 5, 6]


def test_a_step_saved_without_a_score_is_replaced_when_it_has_one(tmp_path):
  with _open(tmp_path, "v/e:min") as saver:
    saver.save(_state(1), {"evaluated": False})
    saver.save(_state(1), {"evaluated": True}, -0.5)
    saver.save(_state(1), {"evaluated": None}, -0.4)  # It has a score.
    saver.wait()
    assert saver.restore(_state(0), 1)[1] == {"evaluated": True}
    assert saver.best_step() == 1


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(bytes(data))


_DAMAGES = {
  "flip": _flip,
  "truncate": lambda path: path.write_bytes(
    path.read_bytes()[: path.stat().st_size // 2]
  ),
  "zero": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
  "delete": lambda path: path.unlink(),
  "pickle": lambda path: path.write_bytes(b"cos\nabort\n(tR."),
}


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_list_of_sums_that_was_cut_is_damage(tmp_path, lines):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  newest = tmp_path / "checkpoints" / "2"
  sums = newest / "SHA256SUMS"
  kept = sums.read_text().splitlines(keepends=True)[:lines]
  sums.write_text("".join(kept))
  assert not checkpoint_files.is_complete(tmp_path, 2)
  with _open(tmp_path) as saver:
    assert _latest(saver) == 1


@pytest.mark.parametrize("kind", _DAMAGES)
def test_every_damaged_file_is_named_and_the_step_before_restored(
  tmp_path, kind, capfd
):
  whole = tmp_path / "whole"
  with _open(whole) as saver:
    _save(saver, [1, 2])
  newest = whole / "checkpoints" / "2"
  files = sorted(p for p in newest.rglob("*") if p.is_file())
  assert len(files) > 8
  for i, path in enumerate(files):
    name = path.relative_to(newest)
    if str(name) == "commit_success.txt" and kind != "delete":
      continue  # That it is there counts; nothing reads what it says.
    if name.name == "_CHECKPOINT_METADATA" and kind == "flip":
      continue  # Nothing reads its times.
    copy = tmp_path / str(i)
    shutil.copytree(whole, copy)
    _DAMAGES[kind](copy / "checkpoints" / "2" / name)
    capfd.readouterr()
    with _open(copy) as saver:
      assert _latest(saver) == 1, name
      said = capfd.readouterr().err
      _save(saver, [2], first=2)  # The step is free again.
      assert _latest(saver) == 2
    assert "checkpoint 2 " in said
    if str(name) != "commit_success.txt" or kind != "delete":
      assert name.name in said or name.name == checkpoint_files.SUMS
      assert len(list((copy / "damaged").iterdir())) == 1


def test_a_number_that_is_not_the_one_saved_is_found_without_the_sums(
  tmp_path, monkeypatch
):
  with _open(tmp_path) as saver:
    _save(saver, [1])
    # As if a bit of the stored array had changed: valid, but another number.
    honest = checkpoint_record.digest
    monkeypatch.setattr(
      checkpoint_record, "digest", lambda s, m: honest(_state(7), m)
    )
    _save(saver, [2], first=2)
    monkeypatch.setattr(checkpoint_record, "digest", honest)
  monkeypatch.setattr(checkpoints, "check_files", lambda folder: None)
  with _open(tmp_path) as saver:
    assert _latest(saver) == 1


def test_if_none_is_good_all_are_listed_and_none_is_deleted(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  for step, name in ((1, "state/_METADATA"), (2, "meta/metadata")):
    _flip(tmp_path / "checkpoints" / str(step) / name)
  before = sorted((tmp_path / "checkpoints").rglob("*"))
  with (
    _open(tmp_path) as saver,
    pytest.raises(WorkdirError, match="step 2: .*step 1: ") as caught,
  ):
    saver.restore_latest(_state(0))
  assert "\n" not in str(caught.value)
  assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_a_run_never_begins_anew_when_all_lost_their_commit_file(tmp_path):
  with _open(tmp_path) as saver:
    _save(saver, [1, 2])
  for step in "12":
    (tmp_path / "checkpoints" / step / "commit_success.txt").unlink()
  with (
    _open(tmp_path) as saver,
    pytest.raises(WorkdirError, match="1: not committed.*2: not comm"),
  ):
    saver.restore_latest(_state(0))
  assert len(list((tmp_path / "checkpoints").glob("[12]/state"))) == 2


def test_a_first_save_that_was_cut_off_is_removed_and_said(tmp_path, capfd):
  (tmp_path / "checkpoints" / "5" / "state").mkdir(parents=True)
  with _open(tmp_path) as saver:
    assert saver.restore_latest(_state(0)) is None
    _save(saver, [0.1], first=5)
    assert _latest(saver) == 5
  assert "checkpoint 5 was not committed" in capfd.readouterr().err


def test_a_failed_save_is_an_error_of_one_line(tmp_path, monkeypatch):
  def fail(self):
    raise OSError(28, "No space left on device\nand more")

  monkeypatch.setattr(checkpoints.Checkpoints, "_before_commit", fail)
  with (
    pytest.raises(WorkdirError, match="No space left") as caught,
    _open(tmp_path) as saver,
  ):
    saver.save(_state(1), {})
    saver.wait()
  assert "\n" not in str(caught.value)
