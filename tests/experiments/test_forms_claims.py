"""The rules on the forms of layer norm, on curves with a known answer."""

import numpy as np
import pytest

from experiments import forms_claims
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

METRIC = {"attentive_reader": "validation/error"}
METRIC["order_embedding"] = "validation/recall_sum"


def _runs(experiment, curves, *, seeds=3, budget=50):
  """Runs of {form: values}, a little apart from seed to seed."""
  found = {}
  for form, values in curves.items():
    for seed in range(seeds):
      config = {
        "experiment": experiment,
        "norm": "none" if form == "none" else "layer",
        "seed": seed,
        "batch_size": 8,
        "train_steps": budget,
        "eval_every": 10,
        "optimizer": {"learning_rate": 1e-3},
        "model": {"form": "separate" if form == "none" else form},
      }
      rows = [
        {"step": 10 * (i + 1), METRIC[experiment]: float(v) + 1e-3 * seed}
        for i, v in enumerate(values)
      ]
      key = claims.Key(forms_claims.system(config), 8, 1e-3, seed)
      record = {"config": config, "data": ""}
      found[key] = runs_lib.Curves(rows, 10, record)
  return found


def _rows(*args, **options):
  found = forms_claims.judge(_runs(*args, **options), {})
  return {row.id: row for row in found}


def test_a_form_with_less_error_is_better_and_faster():
  slow, fast = [0.9, 0.8, 0.7, 0.6, 0.5], [0.7, 0.5, 0.4, 0.3, 0.2]
  rows = _rows("attentive_reader", {"separate": slow, "sum": fast})
  assert rows["forms.reader.sum"].verdict == "holds"
  assert rows["forms.reader.sum"].effect.startswith("-0.3 ")
  faster = rows["forms.reader.sum.faster"]
  assert faster.verdict == "holds"
  effect = float(faster.effect.split()[0])
  assert effect == pytest.approx(np.log(5 / 2), rel=1e-2)


def test_where_more_is_better_the_sign_turns():
  curves = {"separate": [1, 2, 3, 4, 5], "authors": [0, 0, 1, 2, 3]}
  rows = _rows("order_embedding", curves | {"none": [3, 5, 6, 7, 8]})
  assert rows["forms.order.authors"].verdict == "contradicted"
  assert rows["forms.order.authors.faster"].verdict == "contradicted"
  assert rows["forms.order.no-norm"].verdict == "holds"


def test_a_form_alone_is_not_reached_and_other_budgets_are_refused():
  rows = _rows("attentive_reader", {"sum": [0.5] * 5})
  assert rows["forms.reader.sum"].verdict == "not reached"
  runs = _runs("attentive_reader", {"separate": [0.5] * 5})
  runs |= _runs("attentive_reader", {"sum": [0.5] * 4}, budget=40)
  with pytest.raises(UserError, match="train_steps"):
    forms_claims.judge(runs, {})


def test_only_layer_norm_and_no_norm_are_judged():
  config = {"experiment": "order_embedding", "norm": "batch"}
  assert not forms_claims.judged(config)
  assert forms_claims.judged(config | {"norm": "none"})
  assert not forms_claims.judged({"experiment": "draw", "norm": "layer"})
