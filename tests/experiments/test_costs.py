"""What a scale costs: arithmetic on measured steps, and the measuring."""

import json

import pytest

from experiments import costs, paper
from lnrnn.errors import UserError


@pytest.fixture
def section(monkeypatch, spec, tmp_path):
  """A section of two runs of 40 updates and 4 evaluations each."""
  path, _, fields = spec.partition(":")
  short = f"{fields},train_steps=40,eval_every=10"
  plan = {"cpu": paper.Plan(short)}
  task = paper.Task(
    title="Digits",
    place="",
    sections=(),
    page="",
    config=path,
    sets=(paper.Set("digits", plan, ("norm=layer,none",)),),
  )
  monkeypatch.setattr(paper, "TASKS", {"digits": task})
  monkeypatch.setattr(costs, "PATH", tmp_path / "costs.json")
  return short


def _keep(**fields):
  found = costs.Measured(10.0, 2.0, 5.0, 512.0, 100.0, 1e12, 1000)
  stored = {
    "machine": "a machine",
    "measured": {"digits/digits/cpu": found._replace(**fields)._asdict()},
  }
  costs.PATH.write_text(json.dumps(stored))


def _cells(text, name):
  (line,) = [x for x in text.splitlines() if x.startswith(f"| {name} ")]
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_time_memory_and_disk_are_added_up(section):
  _keep()
  # On a CPU 2 x (10 + 40 x 2 + 4 x 5) = 220 s; on a GPU an update takes
  # 1e12 / 1e13 + 1000 x 40e-6 = 0.14 s, an evaluation 2.5 of it:
  # 2 x (10 + 50 x 0.14) = 34 s.
  text = costs.table(["digits"], "cpu")
  # Two checkpoints, and the best one.
  cells = ["digits", "2", "4 minutes", "34 seconds", "0.5 GiB", "0.6 GiB"]
  assert _cells(text, "digits") == cells
  assert "a machine" in text and "10 TFLOP/s" in text


def test_what_was_not_measured_is_said_and_a_broken_file_named(section):
  costs.PATH.write_text(json.dumps({"machine": "m", "measured": {}}))
  text = costs.table(["digits"], "cpu")
  assert "what was not measured" in _cells(text, "digits")[2]
  assert "what was not measured" in _cells(text, "all")[2]
  costs.PATH.write_text("{")
  with pytest.raises(UserError, match=r"costs\.json: cannot be read"):
    costs.table(["digits"], "cpu")


@pytest.mark.parametrize(
  ("seconds", "told"),
  [
    (3, "3 seconds"),
    (150, "2 minutes"),
    (3 * 3600, "3 hours"),
    (1e6, "12 days"),
  ],
)
def test_a_duration_is_told_in_a_unit_that_fits(seconds, told):
  assert costs._duration(seconds) == told


def test_a_run_is_measured(section, spec, few_digits, tmp_path):
  found = costs.measure(f"{spec},norm=layer", tmp_path / "run")
  assert 0 < found.update < 1 and found.start > 0 and found.evaluation >= 0
  # Forward and backward through 784-8-8-10, 16 cases: 6 FLOP a weight.
  weights = 784 * 8 + 8 * 8 + 8 * 10
  assert found.flops == pytest.approx(6 * 16 * weights, rel=0.6)
  assert found.iterations == 0 and found.memory > 50 and found.disk > 0


def test_every_scale_is_measured_whole():
  stored = json.loads(costs.PATH.read_text("utf-8"))
  found = {k: costs.Measured(**v) for k, v in stored["measured"].items()}
  lacking = [
    (name, each.name, scale)
    for name, task in paper.TASKS.items()
    for each in task.sets
    for scale in each.at
    if costs._cost(found, name, each.name, scale) is None
  ]
  assert not lacking
