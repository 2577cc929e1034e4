"""The section on hidden dynamics, in small."""

import json

import numpy as np
import pytest

from experiments import dynamics, dynamics_runs
from lnrnn.data import mnist


@pytest.fixture(scope="module")
def sizes():
  trained = {"LSTM": ("layer", "none"), "GRU": ("layer", "none")}
  return dynamics_runs.Sizes(
    features=8,
    networks=4,
    steps=20,
    sequences=8,
    products=2,
    updates=2,
    seeds=1,
    test=20,
    trained=trained,
  )


@pytest.fixture(scope="module")
def made(sizes, digits, tmp_path_factory):
  out = tmp_path_factory.mktemp("section")
  variants = [v for v in dynamics_runs.VARIANTS if v.norm in ("layer", "none")]
  places = (("layer", "separate"), ("layer", "sum"), ("none", "-"))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mnist, "load", lambda source: digits)
    patch.setattr(dynamics_runs, "PLACES", places)
    patch.setattr(dynamics_runs, "VARIANTS", variants)
    return dynamics.section(out, sizes=sizes), out


def test_the_recurrence_of_layer_norm_ignores_the_scale(made):
  section, _ = made
  (row,) = [r for r in section.rows if r.id == "stable.scale"]
  assert row.verdict == "holds"
  change = section.numbers["change"]
  assert max(change["LSTM layer sum"]["both"]) <= 1e-9
  assert min(change["LSTM layer sum"]["W_h"]) > 1e-2
  assert min(change["GRU none -"]["W_h"]) > 1e-2


def test_the_spread_is_judged_per_random_lstm(made, sizes):
  section, _ = made
  (row,) = [r for r in section.rows if r.id == "stable.jacobian"]
  assert row.verdict in ("holds", "undecided", "contradicted")
  rates = {k: np.array(v) for k, v in section.numbers["growth"]["LSTM"].items()}
  effect = np.ptp(rates["layer norm"], axis=0) - np.ptp(
    rates["no norm"], axis=0
  )
  assert effect.shape == (sizes.networks,)
  assert row.effect.startswith(f"{effect.mean():+.3g} [")
  for part in ("GRU", "trained LSTM", "trained GRU"):
    assert part in row.beside


def test_the_report_has_figure_tables_and_numbers(made):
  section, out = made
  assert (out / "dynamics.png").stat().st_size > 10_000
  assert "](dynamics.png)" in section.text
  assert section.text.count("| cell") == 3
  json.dumps(section.numbers, allow_nan=False)
