"""Damaged checkpoints: found, named, never restored, never in the way."""

import contextlib
import json
import random
import shutil
import subprocess
import sys

import pytest
import toy

from experiments import launch
from lnrnn.errors import WorkdirError
from lnrnn.training import checkpoints, loop, optim
from lnrnn.training import step as step_lib

COMMIT = "commit_success.txt"
METADATA = "_CHECKPOINT_METADATA"


def _files(folder):
  return sorted(p for p in folder.rglob("*") if p.is_file())


def _flip(rng, folder):
  path = rng.choice([p for p in _files(folder) if p.stat().st_size])
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(bytes(data))
  return path


def _truncate(rng, folder):
  path = rng.choice([p for p in _files(folder) if p.stat().st_size])
  path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
  return path


def _zero(rng, folder):
  path = rng.choice([p for p in _files(folder) if p.stat().st_size])
  data = bytearray(path.read_bytes())
  first = rng.randrange(len(data))
  last = min(len(data), first + rng.choice([1, 512, 4096, len(data)]))
  data[first:last] = bytes(last - first)
  path.write_bytes(bytes(data))
  return path


def _delete(rng, folder):
  path = rng.choice(_files(folder))
  path.unlink()
  return path


def _empty(rng, folder):
  del rng
  for path in folder.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  return folder


def _uncommit(rng, folder):
  del rng
  (folder / COMMIT).unlink()
  return folder / COMMIT


_ONE = (_flip, _flip, _flip, _truncate, _zero, _delete)


def _several(rng, folder):
  for kind in rng.choices(_ONE, k=rng.randint(2, 5)):
    path = kind(rng, folder)
  return path


_KINDS = (*_ONE, _several, _empty, _uncommit)


def _contents(folder):
  return {
    p.relative_to(folder).as_posix(): p.read_bytes() for p in _files(folder)
  }


def _is_read(old, new) -> bool:
  """Whether something has changed that a restore depends on."""
  if old.keys() != new.keys():
    return True
  changed = {name for name in old if old[name] != new[name]}
  if changed - {COMMIT, METADATA}:
    return True
  try:  # That they are there and readable is all that counts.
    json.loads(new[METADATA].decode())
  except ValueError:
    return True
  return False


def _restore(workdir, config, experiment, like):
  """(step, digest) of what a run that starts in `workdir` goes on from."""
  saver = checkpoints.Checkpoints(
    workdir, loop.identity(config, experiment), kept=3
  )
  with contextlib.closing(saver):
    found = saver.restore_latest(like)
  assert found is not None
  return int(found[0].step), toy.digest(found[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(spec, workdir) of a finished run with three checkpoints: 5, 10, 15."""
  spec = toy.spec(
    model__hidden="()",
    train_steps=15,
    checkpoint_every=5,
    eval_every=5,
    checkpoints_kept=3,
    steps_per_dispatch=1,
  )
  workdir = tmp_path_factory.mktemp("trained") / "run"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(launch, "task", lambda config: toy)
    launch.train(spec, workdir)
  assert checkpoints.committed_steps(workdir) == [5, 10, 15]
  return spec, workdir


def _campaign(trained, folder, damages, seed, capfd):
  """Damages copies of a run and examines what each goes on from."""
  spec, workdir = trained
  config = launch.load(spec)
  experiment = toy.build(config)
  good = {
    step: toy.digest(loop.restore(config, experiment, workdir, str(step)))
    for step in (5, 10, 15)
  }
  tx = optim.make(config.optimizer, config.train_steps)
  like = step_lib.init_state(experiment, tx, step_lib.Keys.of(0).init)
  rng = random.Random(seed)
  copy = folder / "copy"
  named = unread = both = 0
  kinds: dict[str, int] = {}
  while named < damages:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)
    kind = rng.choice(_KINDS)
    hurt = []
    for step in (15, 10):
      if step == 15 or rng.random() < 0.2:  # At times the one before as well.
        target = copy / "checkpoints" / str(step)
        before = _contents(target)
        kind(rng, target)
        if _is_read(before, _contents(target)):
          hurt.append(step)
    capfd.readouterr()
    step, sha256 = _restore(copy, config, experiment, like)
    said = capfd.readouterr().err
    assert sha256 == good[step], f"{kind.__name__}: wrong, and nothing said"
    assert step == max({5, 10, 15} - {*hurt}), said
    assert all(f"checkpoint {s} " in said for s in hurt if s > step), said
    # What a run would do next: its checkpoints are out of the way.
    assert max(checkpoints.committed_steps(copy)) == step
    if step < 15:
      named += 1
      both += step == 5
      name = kind.__name__.strip("_")
      kinds[name] = kinds.get(name, 0) + 1
    else:
      assert "damaged" not in said
      unread += 1
  with capfd.disabled():
    print(
      f"\ndamage: {named} fell back and were named ({both} past two damaged"
      f" steps), {unread} hit bytes that nothing reads (state exact), 0 wrong:"
      f" {json.dumps(kinds)}"
    )


def test_damaged_checkpoints_are_named_and_the_one_before_restored(
  trained, toy_task, tmp_path, capfd
):
  _campaign(trained, tmp_path, 30, 0, capfd)


@pytest.mark.long
def test_two_hundred_damages_are_all_named_and_none_is_restored(
  trained, toy_task, tmp_path, capfd
):
  _campaign(trained, tmp_path, 200, 1, capfd)


def _ruin(workdir):
  """Damages every checkpoint; what is there then."""
  rng = random.Random(0)
  for step in checkpoints.committed_steps(workdir):
    _flip_read(rng, workdir / "checkpoints" / str(step))
  return _contents(workdir / "checkpoints")


def _flip_read(rng, folder):
  path = folder / "state" / "_METADATA"
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1
  path.write_bytes(bytes(data))


def test_a_run_whose_checkpoints_are_all_damaged_stops_and_deletes_nothing(
  trained, toy_task, tmp_path, monkeypatch
):
  spec, workdir = trained
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  ruined = _ruin(copy)
  rows = (copy / "metrics.jsonl").read_bytes()
  monkeypatch.setattr(loop, "_dispatches", None)  # Training would fail.
  with pytest.raises(WorkdirError) as caught:
    launch.train(spec, copy)
  said = str(caught.value)
  for step in (5, 10, 15):
    assert f"step {step}: file 'state/_METADATA' has changed" in said
  assert _contents(copy / "checkpoints") == ruined
  assert (copy / "metrics.jsonl").read_bytes() == rows
  assert toy.starts(copy) == [0]


def test_a_finished_run_that_lost_its_end_trains_it_again(
  trained, toy_task, tmp_path, capfd
):
  spec, workdir = trained
  config = launch.load(spec)
  experiment = toy.build(config)
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  _flip_read(random.Random(0), copy / "checkpoints" / "15")
  launch.train(spec, copy)
  out, err = capfd.readouterr()
  assert "finished at step" not in out and "checkpoint 15 is damaged" in err
  assert toy.starts(copy) == [0, 10]
  assert toy.final(config, experiment, copy) == toy.final(
    config, experiment, workdir
  )
  assert toy.rows(copy) == toy.rows(workdir)
  launch.train(spec, copy)
  assert "finished at step 15" in capfd.readouterr().out


_TORN = {
  "a line cut off": lambda text: text[:-20],
  "zeros": lambda text: text + bytes(300),
  "no text": lambda text: text[:-30] + b"\xff" * 20,
  "no row": lambda text: text + b"7\n[]\n",
}


@pytest.mark.parametrize(
  "kind",
  [
    "a line cut off",
    "zeros",
    "no text",
    "no row",
  ],
)
def test_damage_at_the_end_of_the_metrics_is_mended_by_going_on(
  trained, toy_task, tmp_path, kind
):
  # The end: past the last checkpoint, before which everything is on the disk.
  spec, workdir = trained
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  shutil.rmtree(copy / "checkpoints" / "15")
  path = copy / "metrics.jsonl"
  path.write_bytes(_TORN[kind](path.read_bytes()))
  launch.train(spec, copy)
  assert toy.rows(copy) == toy.rows(workdir)


def test_a_checkpoint_that_was_half_deleted_is_not_in_the_way(
  trained, toy_task, tmp_path
):
  # As if killed while the oldest made way for a new one.
  spec, workdir = trained
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  shutil.rmtree(copy / "checkpoints" / "5" / "state")
  shutil.rmtree(copy / "checkpoints" / "15")
  spec += ",checkpoints_kept=2"
  launch.train(spec, copy)
  assert toy.starts(copy) == [0, 10]
  assert toy.rows(copy) == toy.rows(workdir)
  assert checkpoints.committed_steps(copy) == [10, 15]


def test_a_damaged_record_stops_the_run_and_nothing_is_touched(
  trained, toy_task, tmp_path
):
  spec, workdir = trained
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  path = copy / "config.json"
  whole = path.read_bytes()
  for damaged in (b"", whole[:100], bytes(len(whole)), b"\xff" + whole, b"[]"):
    path.write_bytes(damaged)
    before = _contents(copy)
    with pytest.raises(WorkdirError, match="config.json is not the record of"):
      launch.train(spec, copy)
    assert _contents(copy) == before


@pytest.mark.long
def test_the_binary_says_with_exit_code_2_that_all_are_damaged(repo, tmp_path):
  command = [
    *(sys.executable, "-m", "experiments.train"),
    *("--config=configs/mnist_mlp.py:smoke", f"--workdir={tmp_path}"),
  ]
  run = lambda: subprocess.run(
    command, cwd=repo, capture_output=True, text=True, timeout=300
  )
  assert run().returncode == 0
  ruined = _ruin(tmp_path)
  rows = (tmp_path / "metrics.jsonl").read_bytes()
  done = run()
  assert done.returncode == 2 and "Traceback" not in done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: no checkpoint in ")
  assert "step 10: file" in line and "step 20: file" in line
  assert _contents(tmp_path / "checkpoints") == ruined
  assert (tmp_path / "metrics.jsonl").read_bytes() == rows
