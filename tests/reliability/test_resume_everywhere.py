"""Stopped and resumed at every saved step, under every norm."""

import dataclasses
import hashlib
import shutil
import types

import pytest
import toy

from experiments import launch, mnist_mlp
from lnrnn import norms
from lnrnn.training import checkpoints


class _Watched:
  """Batches, and a record of those that were read."""

  def __init__(self, data):
    self._data = data
    self.fingerprint = data.fingerprint
    self.steps_per_epoch = data.steps_per_epoch
    self.read: list[tuple[int, str]] = []

  def __getitem__(self, step):
    batch = self._data[step]
    content = hashlib.sha256()
    for name in sorted(batch):
      content.update(batch[name].tobytes())
    self.read.append((step, content.hexdigest()))
    return batch


def _train(monkeypatch, task, spec, workdir):
  """Trains; returns the batches that were read, but that of `init`."""
  watched = []

  def build(config):
    experiment = task.build(config)
    watched.append(_Watched(experiment.train_data))
    return dataclasses.replace(experiment, train_data=watched[0])

  module = types.SimpleNamespace(check=task.check, build=build)
  monkeypatch.setattr(launch, "task", lambda config: module)
  launch.train(spec, workdir)
  return watched[0].read[1:]


def _resume_everywhere(monkeypatch, task, spec, folder) -> int:
  """Checks a run at every saved step; how many those were."""
  whole = folder / "whole"
  read = _train(monkeypatch, task, spec, whole)
  config = launch.load(spec)
  experiment = task.build(config)
  wanted = toy.final(config, experiment, whole)
  saved = checkpoints.committed_steps(whole)
  assert len(set(read)) == len(read) == config.train_steps == saved[-1]
  for step in saved[:-1]:
    cut = folder / str(step)
    shutil.copytree(whole, cut)
    for later in saved[saved.index(step) + 1 :]:
      shutil.rmtree(cut / "checkpoints" / str(later))
    assert _train(monkeypatch, task, spec, cut) == read[step:]
    assert toy.starts(cut) == [0, step]
    assert toy.final(config, experiment, cut) == wanted
    assert toy.rows(cut) == toy.rows(whole)
    assert checkpoints.committed_steps(cut) == saved
    shutil.rmtree(cut)
  return len(saved) - 1


def _mnist(norm, steps, every):
  return (
    f"{toy.ROOT}/configs/mnist_mlp.py:smoke,norm={norm},model.hidden=(8,8),"
    f"batch_size=16,data.train_cases=100,train_steps={steps},log_every=1,"
    f"checkpoint_every={every},checkpoints_kept=1000,eval_every={steps},"
    "steps_per_dispatch=1"
  )


def _toy(norm, steps, every, **more):
  return toy.spec(
    norm=norm,
    train_steps=steps,
    checkpoint_every=every,
    eval_every=2,
    checkpoints_kept=1000,
    steps_per_dispatch=1,
    **more,
  )


def _campaign(monkeypatch, folder, task, norm, *, steps, every, widths):
  if task == "digits":
    args = mnist_mlp, _mnist(norm, steps, every)
  else:
    args = toy, _toy(norm, steps, every, model__hidden=widths)
  stops = _resume_everywhere(monkeypatch, *args, folder)
  assert stops == steps // every - 1
  print(f"\nresume everywhere: {task}, {norm}: {stops} stops, all the same")


# More of the digits is in tests/experiments/test_resume.py.
@pytest.mark.parametrize(
  ("task", "norm"),
  [("digits", "weight"), ("digits", "rms"), ("recurrent", "layer")],
)
def test_a_run_resumes_at_every_step(monkeypatch, tmp_path, task, norm):
  sizes = {"steps": 3, "every": 1, "widths": "(8,)"}
  _campaign(monkeypatch, tmp_path, task, norm, **sizes)


@pytest.mark.long
@pytest.mark.parametrize("task", ["digits", "recurrent"])
@pytest.mark.parametrize("norm", norms.NAMES)
def test_every_norm_resumes_at_every_saved_step(
  monkeypatch, tmp_path, task, norm
):
  # More than two epochs of the digits; a GRU with an LSTM on it.
  sizes = {"steps": 16, "every": 2, "widths": "(8,6)"}
  _campaign(monkeypatch, tmp_path, task, norm, **sizes)
