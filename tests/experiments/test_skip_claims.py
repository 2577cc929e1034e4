"""The rules of docs/claims.md for skip-thoughts, on made-up runs."""

import json

import numpy as np
import pytest

from experiments import skip_claims as task
from lnrnn import claims
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib

EVERY, LENGTH = 10, 20
SCORES = {"skip.sick-mse": -1.0} | {
  f"skip.{name}": 1.0
  for name in ("sick-r", "sick-rho", "mr", "cr", "subj", "mpqa")
}


def run(
  norm,
  seed,
  *,
  pace=1.0,
  end=4.0,
  gain=0.0,
  rate=1e-3,
  seconds=1.0,
  at=(100, 200),
  before=6.0,
  length=LENGTH,
):
  """A run that falls from 6 nats to `end` in 200 / pace updates."""
  rows = []
  for step in EVERY * np.arange(1, length + 1):
    share = min(1.0, pace * step / 200)
    row = {"step": int(step), "time/train_seconds": seconds * int(step)}
    row["validation/nll"] = 6 - (6 - end) * share + 0.001 * seed
    row["validation/unigram"] = 5.5
    rows.append(row)
  for step in at:
    score = {
      # Before the last checkpoint all is the other way round.
      name: (gain if step == at[-1] else -gain) + 0.01 * seed
      for name in task.SCORES
    }
    row = {"step": step, "time/train_seconds": seconds * step}
    rows.append(row | {f"downstream/{k}": 3 + v for k, v in score.items()})
  if before is not None:
    rows.append({"step": 0, "untrained/nll": before})
  rows.sort(key=lambda row: row["step"])
  config = {
    "train_steps": EVERY * LENGTH,
    "eval_every": EVERY,
    "model": {"condition": "initial", "form": "separate", "features": 64},
    "loss": {"softmax": "full"},
    "downstream": {"every": 100},
  }
  key = claims.Key(norm, 64, rate, seed)
  return key, runs_lib.Curves(rows, 50, {"data": "", "config": config})


def both(seeds=3, none=(), **layer):
  """Runs of both norms; of LN as told, of none as in `none`."""
  return dict(
    run(norm, seed, **fields)
    for norm, fields in (("layer", layer), ("none", dict(none)))
    for seed in range(seeds)
  )


def judged(runs, chosen=None):
  return {row.id: row for row in task.judge(runs, chosen or {})}


def verdicts(rows):
  return {name: row.verdict for name, row in rows.items()}


def test_there_is_a_row_for_each_claim():
  names = ["skip.trained", "skip.nll", *SCORES]
  assert sorted(judged(both())) == sorted(names)


def test_twice_as_fast_and_better_vectors_hold():
  rows = judged(both(pace=2, seconds=1.5, gain=0.5))
  # Of the error less is better.
  mse = rows.pop("skip.sick-mse")
  assert set(verdicts(rows).values()) == {"holds"}
  assert mse.verdict == "contradicted" and mse.effect.startswith("+0.5")
  assert mse.beside == "3.510 against 3.010, after 200 updates"
  assert rows["skip.mr"].beside == "3.5 against 3.0, after 200 updates"
  nll = rows["skip.nll"]
  assert nll.effect.startswith("+0.693")
  assert nll.beside == (
    "speed-up 2.00, paired 2.00, in seconds 1.33; best 4.001 against 4.001"
    " nats per word"
  )
  trained = rows["skip.trained"]
  assert trained.effect.startswith("-2 ")
  assert trained.beside == (
    "4.001 nats per word, untrained 6.000, by the words' frequencies 5.500"
  )


def test_half_as_fast_and_worse_vectors_are_contradicted():
  found = verdicts(judged(both(pace=0.5, gain=-0.5)))
  assert found.pop("skip.trained") == "holds"
  assert found.pop("skip.sick-mse") == "holds"
  assert set(found.values()) == {"contradicted"}


def test_no_difference_is_undecided():
  found = verdicts(judged(both()))
  assert found.pop("skip.trained") == "holds"
  assert set(found.values()) == {"undecided"}


@pytest.mark.parametrize(
  ("before", "verdict"),
  [(3.0, "contradicted"), (4.001, "undecided"), (None, "not reached")],
)
def test_where_training_does_not_help_nothing_else_is_judged(before, verdict):
  rows = judged(both(pace=2, gain=0.5, before=before))
  gate = rows.pop("skip.trained")
  assert gate.verdict == verdict
  for row in rows.values():
    assert row[1:4] == ("not reached", "", None)
    assert row.beside == "the gate skip.trained is not passed"


def test_the_gate_is_of_layer_norm_alone():
  runs = both(pace=2, gain=0.5, none={"before": None, "end": 7.0})
  assert judged(runs)["skip.trained"].verdict == "holds"


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_the_gate_has_to_be_measured_only(seeds):
  rows = judged(both(seeds, pace=2, before=3.0))
  assert set(verdicts(rows).values()) == {f"undecided (n = {seeds})"}
  rows = judged(both(seeds, pace=2, before=None))
  assert set(verdicts(rows).values()) == {"not reached"}


def test_scores_are_those_of_the_last_checkpoint_that_both_have():
  # At 200 of LN alone; at 100 it is worse.
  rows = judged(both(gain=0.5, none={"at": (50, 100)}))
  assert rows["skip.mr"].verdict == "contradicted"
  assert rows["skip.mr"].effect.startswith("-0.5")
  rows = judged(both(gain=0.5, none={"at": (50, 150)}))
  assert {rows[name].verdict for name in SCORES} == {"not reached"}
  assert rows["skip.nll"].verdict == "undecided"


def test_the_model_before_training_is_no_checkpoint():
  rows = judged(both(gain=0.5, at=(0,), none={"at": (0,)}))
  assert {rows[name].verdict for name in SCORES} == {"not reached"}


def test_of_two_evaluations_of_a_checkpoint_the_later_counts():
  runs = both(gain=0.5)
  for key, curves in runs.items():
    if key.norm == "layer":
      curves.rows.append({"step": 200, "downstream/mr": 1.0})
  rows = judged(runs)
  assert rows["skip.mr"].verdict == "contradicted"
  assert rows["skip.cr"].verdict == "holds"


def test_runs_that_are_not_done_are_left_out():
  runs = both(4, pace=2, gain=0.5)
  del runs[claims.Key("layer", 64, 1e-3, 3)].rows[-5:]
  assert verdicts(judged(runs))["skip.nll"] == "holds"
  assert judged(runs)["skip.trained"].beside.startswith("4.001")
  for seed in (0, 1):
    del runs[claims.Key("none", 64, 1e-3, seed)].rows[-5:]
  assert verdicts(judged(runs))["skip.nll"] == "undecided (n = 1)"


def test_a_run_that_diverged_is_judged_by_what_it_had():
  runs = both(pace=2)
  curves = runs[claims.Key("none", 64, 1e-3, 1)]
  fault = {"step": 105, "fault": "loss is not finite at step 105"}
  curves.rows[:] = [r for r in curves.rows if r["step"] <= 100] + [fault]
  rows = judged(runs)
  assert rows["skip.nll"].verdict == "holds"
  assert rows["skip.mr"].verdict == "undecided"


def test_without_a_baseline_nothing_is_reached():
  runs = dict(run("layer", seed, pace=2) for seed in range(3))
  assert set(verdicts(judged(runs)).values()) == {"not reached"}


def test_each_norm_is_at_the_rate_that_its_trials_chose():
  runs = both(pace=2, gain=0.5)
  runs |= dict(run("none", s, pace=4, rate=2e-3) for s in range(3))
  with pytest.raises(UserError, match="norm none has runs at the rates"):
    judged(runs)
  chosen = {("layer", 64): (1e-3, False), ("none", 64): (2e-3, True)}
  rows = judged(runs, chosen)
  assert rows["skip.nll"].verdict == "contradicted"
  assert rows["skip.nll"].effect.startswith("-0.693")
  chosen[("none", 64)] = (1e-3, False)
  assert judged(runs, chosen)["skip.nll"].effect.startswith("+0.693")


def test_a_trial_is_as_good_as_its_best_value():
  trials = dict(
    run(norm, 100, rate=rate, end=end)
    for norm, ends in (("layer", (5, 3, 4)), ("none", (4, 5, 5.5)))
    for rate, end in zip((5e-4, 1e-3, 2e-3), ends, strict=True)
  )
  for curves in trials.values():  # What comes after the best does not count.
    curves.rows[-2]["validation/nll"] = 9.0
  found = claims.best_rates(trials, task.CHOSEN_BY, task.level)
  assert found == {("layer", 64): (1e-3, False), ("none", 64): (5e-4, True)}
  (curves, *_) = trials.values()
  assert np.isinf(task.level(curves, "validation/absent"))


@pytest.mark.parametrize("field", ["train_steps", "eval_every"])
def test_unequal_budgets_are_refused(field):
  runs = both()
  runs[claims.Key("none", 64, 1e-3, 1)].record["config"][field] += 1
  with pytest.raises(UserError, match=f"runs differ in {field}"):
    judged(runs)


def test_unequal_models_are_refused_and_unequal_evaluations_not():
  runs = both()
  config = runs[claims.Key("none", 64, 1e-3, 1)].record["config"]
  config["downstream"]["every"] = 50
  judged(runs)
  config["model"]["features"] = 128
  with pytest.raises(UserError, match=r"runs differ in model\.features"):
    judged(runs)


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    ("loss", "softmax", "sampled"),
    ("model", "condition", "each_step"),
    ("model", "form", "authors"),
  ],
)
def test_the_papers_model_and_loss_are_judged_and_no_data_is_its(
  part, field, value
):
  _, curves = run("layer", 0)
  config = curves.record["config"]
  assert task.judged(config) and not task.is_papers(curves)
  config[part][field] = value
  assert not task.judged(config)


# --- What an update costs ---


def timings(ratios, size="small", baseline=50.0):
  """A file of rounds in which LN takes `ratios` of the time of none."""
  rates = {
    "lnrnn": [baseline / ratio for ratio in ratios],
    "lnrnn_none": [baseline] * len(ratios),
    "other": [1.0] * len(ratios),
  }
  return [
    {"size": size, "contender": name, "rates": found}
    for name, found in rates.items()
  ]


def timed(*rows):
  return task.timed({"results": [r for some in rows for r in some]})


def test_equal_times_hold_and_others_are_contradicted():
  near = np.array([0.99, 1.0, 1.01, 1.0, 1.02])
  (row,) = timed(timings(near))
  assert row.id == "skip.equal-time" and row.verdict == "holds"
  assert row.beside == "small: 1.004 of the time"
  assert row.effect.startswith(f"+{np.log(near).mean():.3g} [-")
  for factor in (1.3, 0.7):
    (row,) = timed(timings(factor * near))
    assert row.verdict == "contradicted"
    assert row.effect.startswith("+0.26" if factor > 1 else "-0.35")
  for factor in (1.1, 0.9):  # Across a margin.
    (row,) = timed(timings(factor * near))
    assert row.verdict == "undecided"


def test_fewer_than_five_rounds_decide_nothing():
  for n in (1, 2, 4):
    (row,) = timed(timings([1.0, 1.01, 0.99, 1.0][:n]))
    assert row.verdict == "undecided"
  (row,) = timed(timings([1.0] * 5))
  assert row.verdict == "holds" and row.effect == "+0 [+0, +0]"


def test_each_size_has_a_row_of_its_own():
  rows = timed(timings([1.0] * 5), timings([1.2] * 5, "paper"))
  assert [row.verdict for row in rows] == ["holds", "contradicted"]
  assert [row.beside.split(":")[0] for row in rows] == ["small", "paper"]


@pytest.mark.parametrize(
  "found",
  [
    {},
    [],
    {"results": []},
    {"results": timings([1.0] * 5)[:1]},
    {"results": timings([])},
  ],
)
def test_a_file_without_rounds_is_refused(found):
  with pytest.raises(UserError, match="--timings: has no rounds of lnrnn and"):
    task.timed(found)


# --- The program ---


def test_the_program_reads_runs_trials_and_timings(tmp_path, program):
  for folder, runs in (
    ("runs", both(pace=2, gain=0.5)),
    ("trials", dict(run(n, 100) for n in ("layer", "none"))),
  ):
    for key, curves in runs.items():
      place = tmp_path / folder / f"{key.norm}{key.seed}"
      place.mkdir(parents=True)
      config = curves.record["config"] | {
        **{"experiment": "skip_thoughts", "norm": key.norm},
        **{"seed": key.seed, "batch_size": key.batch_size},
        "optimizer": {"learning_rate": key.rate},
      }
      record = {"config": config, "data": "made up", "fingerprint": "0"}
      record |= {"steps_per_epoch": 50, "starts": [{"git_commit": "c0ffee"}]}
      (place / "config.json").write_text(json.dumps(record))
      beside = [r for r in curves.rows if "validation/nll" not in r]
      for name, rows in (
        ("metrics.jsonl", [r for r in curves.rows if r not in beside]),
        ("metrics_downstream.jsonl", beside),
      ):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (place / name).write_text(text)
  path = tmp_path / "timings.json"
  call = (
    *("claims", f"--workdir={tmp_path / 'runs'}"),
    *(f"--trials={tmp_path / 'trials'}", f"--timings={path}"),
  )
  path.write_text(json.dumps({"results": timings([1.0] * 5)}))
  result = program(*call)
  assert result.code == 0, result.err
  rows = json.loads((tmp_path / "runs" / "claims.json").read_text())
  found = {row["id"]: row["verdict"] for row in rows}
  assert found.pop("skip.sick-mse") == "contradicted on substitute data"
  assert found.pop("skip.equal-time") == "holds"  # Of no data.
  assert set(found.values()) == {"holds on substitute data"}
  assert len(found) == 8
  for text in ("{", "[]", '{"results": [{}]}', '{"results": [1]}'):
    path.write_text(text)
    result = program(*call)
    assert result.code == 2 and "--timings" in result.lines[0]


def test_the_gate_needs_every_seed_of_three():
  runs = both()
  key, curves = run("layer", 2, before=None)
  rows = judged(runs | {key: curves})
  assert rows["skip.trained"].verdict == "undecided (n = 2)"
  assert rows["skip.nll"].verdict == "not reached"
  assert rows["skip.mr"].verdict == "not reached"


def test_all_seeds_are_judged_at_one_checkpoint():
  runs = both(gain=0.5)
  key, curves = run("none", 1, at=(100,))
  rows = judged(runs | {key: curves})
  assert rows["skip.mr"].beside.endswith("after 100 updates")


def test_a_seed_that_diverged_takes_the_interval_away():
  runs = both(gain=0.5)
  key, curves = run("none", 1)
  curves.rows.append({"step": 200, "fault": "loss"})
  found = judged(runs | {key: curves})["skip.mr"]
  assert (found.verdict, found.effect) == ("undecided", "")
