"""reproduce: runs a section, draws it beside the paper's, and judges it."""

import dataclasses
import json
import os
import re
import shutil
import threading

import pytest

from experiments import judging, launch, paper, reproduction, sets
from lnrnn.errors import UserError
from lnrnn.training import runs as runs_lib


@pytest.fixture
def section(spec, monkeypatch, few_digits):
  """A small section in the place of the paper's, trained in this process."""
  path, _, fields = spec.partition(":")
  short = f"{fields},train_steps=4,eval_every=2,steps_per_dispatch=2"
  task = paper.Task(
    title="Digits",
    place="section 6.6",
    sections=(
      "MNIST, section 6.6 and Figure 6",
      "Same computation in training and at test, section 3",
    ),
    page="mnist_mlp.md",
    config=path,
    sets=(
      paper.Set(
        "digits",
        {"smoke": paper.Plan(short), "cpu": paper.Plan(short, (0, 1))},
        ("norm=layer,none", "batch_size=16,4"),
      ),
      paper.Set("more", {"cpu": paper.Plan(short)}, ("norm=rms",)),
    ),
    shown=(
      paper.Shown(
        "Figure 6",
        ("digits",),
        "Two curves.",
        numbers=({"model": "theirs", "error": 0.01},),
      ),
      paper.Shown(
        "Table", ("digits",), "Numbers.", metrics=("test/error",), x=""
      ),
      paper.Shown("More", ("more",), "Not at this scale."),
    ),
  )
  monkeypatch.setattr(paper, "TASKS", {"digits": task})
  trained = []

  def train(self, run):
    trained.append(run.workdir.name)
    launch.train(run.spec, run.workdir)

  monkeypatch.setattr(sets.Processes, "train", train)
  return trained


def test_a_section_is_trained_drawn_judged_and_then_left_alone(
  program, section, tmp_path
):
  call = ("reproduce", "--scale=smoke", f"--workdir={tmp_path}")
  result = program(*call)
  assert result.code == 0, result.err
  assert len(section) == 4
  text = (tmp_path / "report.md").read_text()
  assert "no number or verdict of it is a result" in text
  figure = re.search(r"!\[Figure 6, ours\]\((.*)\)", text)
  assert figure and (tmp_path / figure[1]).read_bytes()[:4] == b"\x89PNG"
  assert "| theirs | 0.01  |" in text and "> The paper: Two curves." in text
  assert "![Table" not in text and "test/error" in text
  assert "### More" not in text
  # Every claim of the section, run or not, with its rule's verdict.
  rows = json.loads((tmp_path / "claims.json").read_text())
  assert {row["id"] for row in rows} >= {"mnist.online", "mnist.batch-robust"}
  assert "`same.train-test`" in text and "not run" in text
  assert "`order.faster`" not in text
  # One file: the pictures are in it.
  html = (tmp_path / "report.html").read_text()
  assert html.count("data:image/png;base64,") == 1
  assert "<table>" in html and not re.search(r'src="(?!data:)', html)
  # Again: nothing is trained, and the report is the same.
  assert program(*call).code == 0
  assert len(section) == 4
  assert (tmp_path / "report.md").read_text() == text


def test_what_cannot_be_trained_is_told_and_the_rest_is_reported(
  program, section, tmp_path, monkeypatch
):
  train = sets.Processes.train

  def fails(self, run):
    if "layer" in run.workdir.name:
      raise UserError("no such data")
    train(self, run)

  monkeypatch.setattr(sets.Processes, "train", fails)
  result = program("reproduce", "--scale=smoke", f"--workdir={tmp_path}")
  assert result.code == 2
  assert result.err.count("error: ") == 1
  assert "digits: 2 of 4 runs: no such data (the first: runs/norm" in result.err
  text = (tmp_path / "report.md").read_text()
  assert "2 of 4 runs: no such data" in text and "![Figure 6, ours]" in text


@pytest.mark.parametrize(
  ("flags", "part"),
  [
    (("--tasks=digitz",), "did you mean 'digits'"),
    (("--tasks=",), "--tasks"),
    (("--scale=huge",), "smoke"),
    (("--jobs=0",), "jobs"),
    ((), "--workdir"),
  ],
)
def test_a_wrong_flag_gets_one_line(program, section, flags, part):
  result = program("reproduce", *flags)
  assert result.code == 2 and part in result.lines[0]
  assert not section


def test_the_plan_costs_nothing_and_says_what_is_not_measured(
  program, section, tmp_path
):
  result = program("reproduce", "--scale=cpu", "--plan")
  assert result.code == 0 and not section
  (row,) = [x for x in result.out.splitlines() if x.startswith("| digits")]
  assert "| 9 " in row and "what was not measured" in row


def test_a_finished_section_stays_in_the_report(
  program, section, tmp_path, monkeypatch
):
  other = dataclasses.replace(paper.TASKS["digits"], title="Other")
  tasks = {**paper.TASKS, "other": other}
  monkeypatch.setattr(paper, "TASKS", tasks)
  call = ("reproduce", "--scale=smoke", f"--workdir={tmp_path}")
  assert program(*call, "--tasks=other").code == 0
  assert program(*call, "--tasks=digits").code == 0
  text = (tmp_path / "report.md").read_text()
  assert text.index("## Digits") < text.index("## Other")
  assert len(section) == 8


def test_a_section_not_asked_for_still_tells_what_it_lacks(
  program, section, tmp_path, monkeypatch
):
  other = dataclasses.replace(paper.TASKS["digits"], title="Other")
  monkeypatch.setattr(paper, "TASKS", {**paper.TASKS, "other": other})
  call = ("reproduce", "--scale=smoke", f"--workdir={tmp_path}")
  assert program(*call).code == 0
  shutil.rmtree(tmp_path / "other" / "runs" / "norm=none,batch_size=4,seed=0")
  assert program(*call, "--tasks=digits").code == 0
  text = (tmp_path / "report.md").read_text()
  assert "1 of 4 runs: not begun" in text and len(section) == 8


def test_only_reporting_says_what_is_missing(program, section, tmp_path):
  call = ("reproduce", "--scale=smoke", f"--workdir={tmp_path}")
  assert program(*call).code == 0
  shutil.rmtree(tmp_path / "digits" / "runs" / "norm=none,batch_size=4,seed=0")
  result = program(*call, "--report_only")
  assert result.code == 2 and len(section) == 4
  (line,) = result.lines
  assert "1 of 4 runs: not begun" in line and "batch_size=4" in line


def test_a_workdir_is_of_one_scale(program, section, tmp_path, monkeypatch):
  assert (
    program("reproduce", "--scale=smoke", f"--workdir={tmp_path}").code == 0
  )
  # This comes first, though its runs have other settings too.
  task = paper.TASKS["digits"]
  plan = paper.Plan(task.sets[0].at["cpu"].fields + ",batch_size=2")
  (digits, *_) = task.sets
  digits = dataclasses.replace(digits, at={**digits.at, "cpu": plan})
  task = dataclasses.replace(task, sets=(digits,))
  monkeypatch.setattr(paper, "TASKS", {"digits": task})
  result = program("reproduce", "--scale=cpu", f"--workdir={tmp_path}")
  assert result.code == 2 and "holds the scale smoke" in result.lines[0]
  assert len(section) == 4


@pytest.fixture
def stepping(tmp_path, monkeypatch):
  """A folder with one finished run, and what the steps there have called."""
  run = tmp_path / "runs" / "one"
  run.mkdir(parents=True)
  (run / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')
  calls, codes = [], [0]

  def call(self, argv, log, begins):
    calls.append(list(argv))
    log.write_text("something\nerror: no luck\n")
    return codes[0]

  monkeypatch.setattr(sets.Processes, "call", call)
  return run, calls, codes


def taken(tmp_path, *steps, kind="finished"):
  """Takes the steps of a section that are due; returns what went wrong."""
  task = dataclasses.replace(paper.TASKS["analysis"], steps=steps)
  run = runs_lib.Run((), 0, "", tmp_path / "runs" / "one")
  found = {run: runs_lib.Status(kind, "")}
  programs, lacking = reproduction.due("a", task, "smoke", tmp_path, found)
  assert not lacking
  return reproduction.take(programs, 2, [])["a"]


def test_a_step_is_taken_until_it_succeeds_and_there_is_no_more(
  stepping, tmp_path
):
  run, calls, codes = stepping
  step = paper.Step("s", ("-m", "x", "--workdir={runs}"))
  codes[0] = 2
  (fault,) = taken(tmp_path, step)
  assert "s: exit code 2 (no luck)" in fault and "s.log" in fault
  codes[0] = 0
  assert taken(tmp_path, step) == []
  assert calls == [["-m", "x", f"--workdir={tmp_path}/runs"]] * 2
  taken(tmp_path, step)
  assert len(calls) == 2
  later = (tmp_path / "out" / "s.done").stat().st_mtime + 5
  os.utime(run / "metrics.jsonl", (later, later))
  taken(tmp_path, step)
  assert len(calls) == 3


def test_a_step_for_each_run_waits_for_its_end(stepping, tmp_path):
  run, calls, _ = stepping
  step = paper.Step("s", ("-m", "x", "--workdir={run}"))
  of_all = paper.Step("t", ("-m", "y", "--workdir={runs}"))
  # All of its updates may be there, but not yet its last evaluation.
  assert taken(tmp_path, step, of_all, kind="begun") == [] and calls == []
  taken(tmp_path, step)
  assert calls == [["-m", "x", f"--workdir={run}"]]
  assert (tmp_path / "out" / "s,one.done").exists()


def test_a_step_that_cannot_write_keeps_no_other_from_running(
  stepping, tmp_path
):
  _, calls, _ = stepping
  steps = [
    paper.Step("a", ("-m", "a")),
    paper.Step("b", ("-m", "b"), alone=True),
  ]
  (tmp_path / "out" / "a.log").mkdir(parents=True)
  (fault,) = taken(tmp_path, *steps)
  assert fault.startswith("a: ") and "cannot be written" in fault
  assert ["-m", "b"] in calls and (tmp_path / "out" / "b.done").exists()


def test_steps_run_together_but_for_one_that_must_be_alone(
  tmp_path, monkeypatch
):
  both = threading.Barrier(2)
  running = set()

  def call(self, argv, log, begins):
    running.add(argv[-1])
    if argv[-1] == "alone":
      assert running == {"alone"}
    else:
      both.wait(timeout=20)  # Fails unless another one runs.
    running.discard(argv[-1])
    return 0

  monkeypatch.setattr(sets.Processes, "call", call)
  steps = [
    paper.Step("t", ("-m", "alone"), alone=True),
    paper.Step("a", ("-m", "a")),
    paper.Step("b", ("-m", "b")),
  ]
  assert taken(tmp_path, *steps) == []
  assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
    "a.done",
    "b.done",
    "t.done",
  ]


def test_a_step_without_its_data_is_left_out(tmp_path, monkeypatch):
  monkeypatch.setenv("LNRNN_DATA_DIR", str(tmp_path))
  step = paper.Step("s", ("-m", "x"), needs=("sick",))
  note = reproduction._lacking(step)
  assert "left out" in note and "sick" in note and str(tmp_path) in note
  (tmp_path / "sick").mkdir()
  assert reproduction._lacking(step) == ""


def test_verdicts_are_read_as_they_were_written(tmp_path):
  from lnrnn import claims

  rows = [claims.exact("a.b", True, "0", "beside")]
  judging.write_rows(tmp_path / "r.json", rows)
  assert judging.read_rows(tmp_path / "r.json") == rows
  (tmp_path / "r.json").write_text('[{"id": 1}]')
  with pytest.raises(UserError, match=r"r\.json: cannot be read"):
    judging.read_rows(tmp_path / "r.json")
