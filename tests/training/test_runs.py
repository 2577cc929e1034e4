"""Sets of runs: which are trained, how they end, and what a signal does."""

import concurrent.futures
import json
import os
import signal
import threading
import time

import pytest

from lnrnn.errors import DivergedError, UserError, WorkdirError
from lnrnn.training import config as config_lib
from lnrnn.training import runs as runs_lib
from lnrnn.training import signals, workdir, writers


@pytest.fixture
def run(repo, tmp_path):
  """(seed, rows of its metrics) -> a run, begun if there are rows."""

  def make(seed, *rows):
    spec = f"{repo}/configs/mnist_mlp.py:smoke"
    made = runs_lib.named(spec, [("norm", "layer")], seed, tmp_path)
    if rows:
      made.workdir.mkdir()
      config = config_lib.to_dict(config_lib.load_config(made.spec))
      record = {"config": config, "data": "", "fingerprint": "", "starts": []}
      record["steps_per_epoch"] = 7
      (made.workdir / "config.json").write_text(json.dumps(record))
      writer = writers.JsonlWriter(made.workdir)
      for step, row in rows:
        text = isinstance(next(iter(row.values())), str)
        write = writer.write_texts if text else writer.write_scalars
        write(step, row)
      writer.close()
    return made

  return make


NAN = float("nan")
REASON = "gradient of w is not finite at step 12"
FAULT = (12, {"fault": REASON})


def test_fields_that_vary_together_are_each_in_the_name_and_the_spec():
  field = "norm+model.norm_everywhere"
  run = runs_lib.named("c.py", [(field, "batch+true")], 3, "runs")
  assert run.variant == ((field, "batch+true"),)
  assert run.spec == "c.py:norm=batch,model.norm_everywhere=true,seed=3"
  assert run.workdir.name == "norm=batch,model.norm_everywhere=true,seed=3"
  with pytest.raises(UserError, match="2 fields vary together, with 1 values"):
    runs_lib.named("c.py", [(field, "batch")], 3, "runs")
  # A sign in a number joins nothing.
  assert runs_lib.apart("rate", "1e+3") == [("rate", "1e+3")]


def test_a_run_is_named_for_what_distinguishes_it():
  run = runs_lib.named("c.py", [("model.hidden", "(8, 8)")], 3, "runs")
  assert run.workdir.name == "model.hidden=(8,_8),seed=3"
  assert run.spec == "c.py:model.hidden=(8, 8),seed=3"
  assert runs_lib.named("c.py:smoke", [], 3, "runs").spec == (
    "c.py:smoke,seed=3"
  )
  first, *_, last = runs_lib.product(
    "c.py", [("norm", ("layer", "none")), ("batch_size", ("4",))], (0, 1), "r"
  )
  assert first == runs_lib.named(
    "c.py", [("norm", "layer"), ("batch_size", "4")], 0, "r"
  )
  assert last.workdir.name == "norm=none,batch_size=4,seed=1"


@pytest.mark.parametrize(
  ("rows", "kind", "text"),
  [
    ([], "missing", "not begun"),
    ([(5, {"loss": 1.0})], "begun", "at step 5 of 20"),
    ([(5, {"loss": 1.0, "grad_norm": NAN})], "begun", "at step 5 of 20"),
    ([(11, {"loss": 1.0}), FAULT], "diverged", f"at step 12 of 20: {REASON}"),
    ([(7, {"loss": NAN})], "diverged", "diverged at step 7 of 20"),
    ([(7, {"params": NAN})], "diverged", "diverged at step 7 of 20"),
  ],
)
def test_a_workdir_tells_how_its_run_stands(run, rows, kind, text):
  found = runs_lib.standing(run(0, *rows))
  assert found.kind == kind and text in found.text


def test_only_what_is_missing_or_begun_is_trained(run, monkeypatch):
  missing, begun, diverged, finished = (
    run(0),
    run(1, (5, {"loss": 1.0})),
    run(2, FAULT),
    run(3, (20, {"loss": 1.0})),
  )
  monkeypatch.setattr(
    workdir, "is_finished", lambda folder, config: config.seed == 3
  )
  trained = []
  found = runs_lib.run_missing(
    [missing, begun, diverged, finished], trained.append
  )
  assert trained == [missing, begun]
  assert [found[r].kind for r in (missing, begun, diverged, finished)] == [
    "finished",
    "finished",
    "diverged",
    "finished",
  ]


@pytest.mark.parametrize("threads", [False, True])
def test_a_run_that_fails_or_diverges_keeps_no_other_from_running(run, threads):
  def train(run):
    if run.seed == 0:
      raise WorkdirError("the disk is full")
    if run.seed == 1:
      raise DivergedError("loss is not finite at step 3")
    return runs_lib.Status("queued", "as job 7") if run.seed == 2 else None

  made = [run(seed) for seed in range(4)]
  stop = (lambda: None) if threads else None
  found = runs_lib.run_missing(made, train, jobs=2, stop=stop)
  assert list(found) == made
  assert list(found.values()) == [
    ("failed", "the disk is full"),
    ("diverged", "loss is not finite at step 3"),
    ("queued", "as job 7"),
    runs_lib.FINISHED,
  ]


def test_as_many_run_at_a_time_as_there_are_jobs(run):
  both = threading.Barrier(2)
  running, most = [], []

  def train(run):
    running.append(run)
    most.append(len(running))
    both.wait(timeout=20)  # Fails unless another one runs.
    running.remove(run)

  made = [run(seed) for seed in range(4)]
  runs_lib.run_missing(made, train, jobs=2, stop=lambda: None)
  assert max(most) == 2


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_signal_stops_what_runs_and_starts_nothing_more(run, number):
  begun, ended, stopped = [], [], threading.Event()

  def train(run):
    begun.append(run.seed)
    if len(begun) == 2:
      os.kill(os.getpid(), number)
    assert stopped.wait(timeout=20)
    time.sleep(0.1)  # It saves.
    ended.append(run.seed)

  with signals.handled(), pytest.raises(signals.Interrupted) as caught:
    runs_lib.run_missing(
      [run(seed) for seed in range(4)], train, jobs=2, stop=stopped.set
    )
  assert caught.value.number == number
  assert sorted(begun) == sorted(ended) == [0, 1]


def test_a_signal_while_the_threads_start_begins_nothing(run, monkeypatch):
  pool = concurrent.futures.ThreadPoolExecutor
  submit, made = pool.submit, []

  def interrupted(*args):
    made.append(submit(*args))
    if len(made) == 2:
      signal.raise_signal(signal.SIGTERM)
    return made[-1]

  monkeypatch.setattr(pool, "submit", interrupted)
  begun = []
  with signals.handled(), pytest.raises(signals.Interrupted):
    runs_lib.run_missing(
      [run(seed) for seed in range(4)],
      lambda run: begun.append(run.seed),
      jobs=2,
      stop=lambda: None,
    )
  assert len(made) == 2 and begun == []


def test_without_processes_a_signal_ends_the_run_that_got_it(run):
  begun = []

  def train(run):
    begun.append(run.seed)
    signal.raise_signal(signal.SIGTERM)

  with signals.handled(), pytest.raises(signals.Interrupted):
    runs_lib.run_missing([run(0), run(1)], train)
  assert begun == [0]
