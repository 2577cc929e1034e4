"""The same computation in training and at test: what the program measures."""

import jax
import numpy as np
import pytest

from experiments import same
from lnrnn.models.mlp import MLP


@pytest.fixture(scope="module")
def cases():
  return np.random.default_rng(0).random((200, 12)).astype(np.float32)


def _gaps(norm, cases):
  model = MLP((16, 16), 10, norm, norm == "batch")
  variables = model.init(jax.random.key(0), cases[:4])
  return same.gaps(model, variables, cases)


def test_layer_norm_is_the_same_and_batch_norm_is_not(cases):
  layer, batch = _gaps("layer", cases), _gaps("batch", cases)
  assert layer.modes == 0 and batch.modes > 0.1
  assert layer.batches <= 1e-12 and layer.alone <= 1e-12
  assert batch.batches > 1e-2 and np.isnan(batch.alone)


def _found(layer, batch):
  sizes = same.BATCH_SIZES
  return {("layer", b): [layer] for b in sizes} | {
    ("batch", b): [batch] for b in sizes
  }


def test_the_verdicts_follow_the_gaps():
  good = same.Gaps(0.0, 1e-15, 1e-15)
  other = same.Gaps(2.0, 0.5, np.nan)
  rows = same.judge(_found(good, other))
  assert [row.verdict for row in rows] == ["holds", "holds"]
  rows = same.judge(_found(good._replace(modes=1e-6, alone=1e-6), other))
  assert [row.verdict for row in rows] == ["contradicted", "contradicted"]


def test_a_check_that_batch_norm_passes_shows_nothing():
  good = same.Gaps(0.0, 1e-15, 1e-15)
  rows = same.judge(_found(good, same.Gaps(0.0, 1e-15, np.nan)))
  assert [row.verdict for row in rows] == ["not reached", "not reached"]
  assert "shows nothing" in rows[0].beside


def test_a_missing_network_is_named():
  (row, _) = same.judge({("layer", 128): [same.Gaps(0, 0, 0)]})
  assert row.verdict == "not reached"
  assert "norm=batch, batch_size=4" in row.beside


def test_trained_runs_are_measured(program, few_digits, spec, tmp_path):
  from experiments import judging, launch

  for norm in same.NORMS:
    path, _, fields = spec.partition(":")
    fields = fields.replace("batch_size=16", f"norm={norm},batch_size=4", 1)
    launch.train(f"{path}:{fields},train_steps=2,eval_every=2", tmp_path / norm)
  result = program("same", f"--workdir={tmp_path}")
  assert result.code == 0, result.err
  rows = judging.read_rows(tmp_path / "same.json")
  # The digits at hand are fewer than a batch of 128, so that half is missing.
  assert rows[0].verdict == "not reached" and "batch_size=128" in rows[0].beside
  assert program("same", f"--workdir={tmp_path / 'no'}").code == 2
