"""Which units of a convnet are on, and where."""

import json
import shutil

import jax
import numpy as np
import pytest

from lnrnn.models.convnet import ConvNet


@pytest.fixture
def border(program):
  """The module; its flags are taken care of by `program`."""
  import importlib

  return importlib.import_module("experiments.border")


def test_distances_count_rings_from_the_border(border):
  assert border.distances(5).tolist() == [
    [0, 0, 0, 0, 0],
    [0, 1, 1, 1, 0],
    [0, 1, 2, 1, 0],
    [0, 1, 1, 1, 0],
    [0, 0, 0, 0, 0],
  ]


def test_units_are_measured_over_all_cases_whatever_the_batches(border):
  model = ConvNet(widths=(3,), depth=1, norm="layer")
  x = jax.random.normal(jax.random.key(1), (7, 8, 8, 2))
  variables = model.init(jax.random.key(0), x)
  found = border.measured(model, variables, [x[:3], x[3:]])
  assert list(found) == ["a_0", "a_1", "a_2", "a_3"]
  _, noted = model.apply(variables, x, mutable=["intermediates"])
  for name, units in found.items():
    a = np.asarray(noted["intermediates"][name][0], np.float64)
    np.testing.assert_allclose(units.on, (a > 0).mean(0))
    np.testing.assert_allclose(units.mean, a.mean(0), atol=1e-5)
    np.testing.assert_allclose(units.square, (a**2).mean(0), rtol=1e-4)


def test_a_summary_is_of_the_places_asked_for(border):
  on = np.full((3, 3, 2), 0.5)
  on[1, 1] = (0.01, 0.99)
  units = border.Units(on, np.ones((3, 3, 2)), np.full((3, 3, 2), 5.0))
  at = border.distances(3)
  edge = border.summary(units, at == 0)
  assert edge == {
    "places": 8,
    "on": 0.5,
    "rare": 0.0,
    "mean": 1.0,
    "deviation": 2.0,
  }
  middle = border.summary(units, at == 1)
  assert (middle["places"], middle["rare"]) == (1, 0.5)


def test_circular_padding_makes_border_and_rest_alike(border):
  # White noise has no border, and then no layer before the valid part has.
  x = jax.random.normal(jax.random.key(1), (200, 8, 8, 1))
  rare = {}
  for padding in ("zero", "circular"):
    model = ConvNet(widths=(4,), depth=2, norm="none", padding=padding)
    variables = model.init(jax.random.key(0), x)
    shifted = jax.tree.map(lambda p: p + 0.1, variables)
    units = border.measured(model, shifted, [x])["a_1"]
    at = border.distances(8)
    edge, rest = (border.summary(units, at == 0), border.summary(units, at > 0))
    rare[padding] = abs(edge["mean"] - rest["mean"]) / rest["deviation"]
  assert rare["circular"] < 0.05 < rare["zero"]


def test_the_program_draws_finished_runs_and_tells_of_others(
  program, tmp_path, few_digits
):
  spec = "configs/convnet.py:smoke,train_steps=2,eval_every=2"
  spec += ",checkpoint_every=2,log_every=2,data.train_cases=60,batch_size=20"
  for norm in ("layer", "batch"):
    ran = program(
      "train", f"--config={spec},norm={norm}", f"--workdir={tmp_path}/{norm}"
    )
    assert ran.code == 0, ran.err
  ran = program("border", f"--workdir={tmp_path}", "--cases=30")
  assert ran.code == 0, ran.err
  assert (tmp_path / "border.png").read_bytes().startswith(b"\x89PNG")
  found = json.loads((tmp_path / "border.json").read_text())
  assert [kind["norm"] for kind in found] == ["batch", "layer"]
  rings = found[0]["layers"]["a_0"]
  assert [ring["places"] for ring in rings[:2]] == [108, 100]
  twice = tmp_path / "again"
  shutil.copytree(tmp_path / "layer", twice)
  ran = program("border", f"--workdir={tmp_path}")
  assert ran.code == 2
  assert ran.lines == [
    f"{tmp_path}: two runs of layer norm, seed 0, one in layer"
  ]
  table = (tmp_path / "border.md").read_text()
  assert "layer norm" in table and "rare: border" in table


def test_an_unknown_split_is_one_line(program, tmp_path):
  ran = program("border", f"--workdir={tmp_path}", "--split=tset")
  assert ran.code == 2
  assert ran.lines == [
    "--split='tset': must be one of train, validation, test; did you mean"
    " 'test'?"
  ]


def test_a_folder_without_runs_is_one_line(program, tmp_path):
  ran = program("border", f"--workdir={tmp_path}")
  assert ran.code == 2
  assert ran.lines == [f"{tmp_path}: no finished runs of convnet there"]
