"""SIGTERM and Ctrl-C in every phase of the programs, once and twice."""

import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import child
import jax
import numpy as np
import pytest

from lnrnn.training import checkpoints, writers
from lnrnn.training import config as config_lib
from lnrnn.training import workdir as workdir_lib

SLOW = 2.5  # Seconds that a spot takes which cannot be interrupted,
LONG = 60.0  # and one that can be.
# Seconds that a signal may take beyond those of such a spot, and a second one.
# The short tests allow for a machine that is busy with other things.
GRACE, AT_ONCE, BUSY = 2.0, 1.0, 15.0
TERM, INT = signal.SIGTERM, signal.SIGINT
NUMBERS = {TERM: 143, INT: 130}


class Phase(NamedTuple):
  """Where a signal finds the training.

  Attributes:
    spot: of `child`.
    saved: the step that is saved; None before the first dispatch.
    evaluated: what the checkpoint says of it.
    waits: whether the spot cannot be interrupted.
  """

  spot: str
  saved: int | None
  evaluated: bool = True
  waits: bool = True

  @property
  def seconds(self) -> float:
    """That the spot takes."""
    return SLOW if self.waits else LONG


PHASES = (
  Phase("build", None, waits=False),
  Phase("data 0", None, waits=False),
  Phase("compile", None),
  Phase("data 7", 8),
  Phase("step 7", 8),
  Phase("data 9", 10, evaluated=False),
  Phase("eval 10", 10, evaluated=False, waits=False),
  Phase("kernel 10", 10, evaluated=False, waits=False),
  Phase("before save 10", 10),
  Phase("save 10", 15),
  Phase("step 19", 20, evaluated=False),
  Phase("eval 20", 20, evaluated=False, waits=False),
  Phase("before save 20", 20),
)


@pytest.fixture(scope="module")
def server():
  with child.Server() as server:
    yield server


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
  """(spec, final state, rows) of a run that nothing stopped."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  spec = child.spec()
  server.finish(folder, spec)
  return spec, _state(spec, folder), _rows(folder)


def _state(spec, workdir):
  return child.final(_config(spec), workdir)


def _config(spec):
  return config_lib.load_config(spec)


def _rows(workdir):
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in writers.read_metrics(workdir)
  ]


def _check_stopped(end, number, workdir, phase):
  """Nothing is lost, all is said, in time."""
  assert end.code in (NUMBERS[number], -number), end.err
  assert "Traceback" not in end.err
  assert end.seconds < BUSY + phase.seconds * phase.waits, end
  last = max(checkpoints.committed_steps(workdir), default=None)
  said = re.findall(r": saved at step (\d+)\n", end.err)
  assert said == ([] if phase.saved is None else [str(phase.saved)]), end.err
  assert last == phase.saved
  if last is None:
    return
  assert max(r["step"] for r in _rows(workdir) if "loss" in r) == last
  assert _evaluated(workdir, last) is phase.evaluated
  assert workdir_lib.is_finished(workdir, _config(child.spec())) is (
    last == 20 and phase.evaluated
  )


def _evaluated(workdir, step):
  path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
  return json.loads(path.read_text())["progress"]["evaluated"]


def _check_end(server, workdir, whole, spec=None):
  """The run is, after one more start, as if nothing had been."""
  _, state, rows = whole
  spec = spec or whole[0]
  server.finish(workdir, spec)
  jax.tree.map(np.testing.assert_array_equal, _state(spec, workdir), state)
  assert _rows(workdir) == rows
  assert workdir_lib.is_finished(workdir, _config(spec))
  assert not (workdir / "damaged").exists()


def _interrupt(server, workdir, spec, phase, number):
  program = server.start(workdir, spec, {phase.spot: phase.seconds})
  program.reach(f"@{phase.spot}")
  # It waits now; or, while a save goes on, for that when it saves again.
  time.sleep(1.0 if phase.spot.startswith("save") else 0.1)
  program.send(number)
  end = program.wait()
  _check_stopped(end, number, workdir, phase)
  return end.seconds - phase.seconds * phase.waits


def _interrupt_twice(server, workdir, spec, slow, number, again):
  """Seconds from the second signal to the end; slow: the spots, in order."""
  program = server.start(workdir, spec, dict.fromkeys(slow, LONG))
  for spot, sent in zip(slow, (number, again), strict=False):
    program.reach(f"@{spot}")
    time.sleep(0.1)
    program.send(sent)
  if len(slow) == 1:
    time.sleep(0.3)
    program.send(again)
  end = program.wait()
  assert end.code == NUMBERS[again], end.err
  assert end.seconds < BUSY and "Traceback" not in end.err, end
  return end.seconds


def _summary(name, seconds):
  figures = {
    "stops": len(seconds),
    "most_s": round(max(seconds), 2),
    "median_s": round(statistics.median(seconds), 2),
  }
  print(f"\n{name}:", json.dumps(figures))


def test_a_run_stopped_again_and_again_ends_as_the_unbroken_one(
  server, whole, tmp_path
):
  spec, workdir = whole[0], tmp_path / "run"
  seconds = [_interrupt(server, workdir, spec, Phase("step 7", 8), TERM)]
  # A second signal cuts off the save that the first has asked for.
  slow = ("eval 20", "save 20")
  second = _interrupt_twice(server, workdir, spec, slow, INT, TERM)
  assert checkpoints.committed_steps(workdir)[-1] == 15
  last = Phase("eval 20", 20, evaluated=False, waits=False)
  for number in (INT, TERM):  # Then in the evaluation that is repeated.
    seconds.append(_interrupt(server, workdir, spec, last, number))
  _check_end(server, workdir, whole)
  _summary("signals", seconds)
  print(f"second signal: {second:.2f} s")


@pytest.mark.long
@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_in_any_phase_loses_no_step(server, whole, tmp_path, number):
  seconds = []
  for i, phase in enumerate(PHASES):
    workdir = tmp_path / f"run{i}"
    seconds.append(_interrupt(server, workdir, whole[0], phase, number))
    _check_end(server, workdir, whole)
  _summary(f"{signal.Signals(number).name} in each phase", seconds)
  assert max(seconds) < GRACE


@pytest.mark.long
def test_a_second_signal_ends_any_phase_at_once(server, whole, tmp_path):
  slows = (
    *(("compile",), ("data 7",), ("step 7",)),
    *(("before save 10",), ("save 10",)),
    *(("eval 10", "before save 10"), ("eval 10", "save 10")),
    ("eval 20", "save 20"),
  )
  seconds = []
  for i, (slow, pair) in enumerate(
    (slow, pair)
    for slow in slows
    for pair in ((TERM, TERM), (INT, INT), (TERM, INT))
  ):
    workdir = tmp_path / f"run{i}"
    seconds.append(_interrupt_twice(server, workdir, whole[0], slow, *pair))
    _check_end(server, workdir, whole)
  _summary("second signal", seconds)
  assert max(seconds) < AT_ONCE


@pytest.mark.long
@pytest.mark.parametrize("best", ["", "validation/error:min"])
def test_a_signal_in_the_last_evaluation_is_made_good_by_the_next_start(
  server, whole, tmp_path, best
):
  spec = child.spec(best=best)
  workdir = tmp_path / "run"
  phase = Phase("eval 20", 20, evaluated=False, waits=False)
  for number in (TERM, INT):
    _interrupt(server, workdir, spec, phase, number)
  _check_end(server, workdir, whole, spec)


@pytest.mark.long
def test_a_kill_while_an_evaluated_step_is_saved_again_leaves_a_run(
  server, tmp_path
):
  # The only checkpoint is one that was not evaluated, and is saved anew.
  spec = child.spec(checkpoint_every=40)
  server.finish(tmp_path / "whole", spec)
  rows = _rows(tmp_path / "whole")
  workdir = tmp_path / "run"
  phase = Phase("eval 5", 5, evaluated=False, waits=False)
  _interrupt(server, workdir, spec, phase, TERM)
  slow = {"before save 5": 0.01, "save 5": LONG}
  program = server.start(workdir, spec, slow)
  program.reach("@before save 5")
  time.sleep(2)
  program.send(signal.SIGKILL)
  program.wait()
  server.finish(workdir, spec)
  assert _rows(workdir) == rows


@pytest.mark.long
def test_signals_at_random_moments_damage_nothing(server, whole, tmp_path):
  rng = random.Random(0)
  began = time.monotonic()
  server.finish(tmp_path / "timed", whole[0])
  length = time.monotonic() - began
  seconds, stops, chains = [], 0, 0
  while stops < 60:
    workdir = tmp_path / f"run{chains}"
    chains += 1
    for _ in range(6):
      program = server.start(workdir, whole[0])
      program.reach("@main")
      time.sleep(rng.uniform(0, length))
      number = rng.choice([TERM, INT])
      program.send(number)
      if rng.random() < 0.3:
        time.sleep(rng.uniform(0, 0.1))
        program.send(number)
      end = program.wait()
      if end.code == 0:
        break
      assert end.code in (NUMBERS[number], -number), end.err
      assert "Traceback" not in end.err, end.err
      stops += 1
      seconds.append(end.seconds)
      said = re.findall(r": saved at step (\d+)\n", end.err)
      if said:
        assert checkpoints.committed_steps(workdir)[-1] == int(said[0])
    _check_end(server, workdir, whole)
  _summary("random moments", seconds)
  # The longest that cannot be interrupted is a compilation.
  assert max(seconds) < BUSY and statistics.median(seconds) < GRACE


def _start(repo, program, *arguments):
  """The real program, telling each module that it has imported."""
  return subprocess.Popen(
    [
      *(sys.executable, "-X", "importtime"),
      *("-m", f"experiments.{program}", *map(str, arguments)),
    ],
    cwd=repo,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _stop_at(process, module, number):
  """Sends a signal when a module has been imported; the other lines."""
  lines = []
  for line in process.stderr:
    if "import time:" not in line:
      lines.append(line)
    elif line.split("|")[-1].strip() == module:
      process.send_signal(number)
      break
  began = time.monotonic()
  out, err = process.communicate(timeout=60)
  lines += [x for x in err.splitlines() if "import time:" not in x]
  assert process.returncode in (NUMBERS[number], -number), lines
  assert "Traceback" not in "".join(lines)
  assert out == "" or "finished" not in out
  return time.monotonic() - began


@pytest.mark.parametrize(
  ("program", "module", "number"),
  [
    ("train", "experiments", INT),
    ("evaluate", "jax", INT),
    *(
      pytest.param(program, module, number, marks=pytest.mark.long)
      for program in ("train", "evaluate")
      for module in (
        "experiments",
        "absl",
        "numpy",
        "lnrnn.training.signals",
        "jax._src.xla_bridge",
        "jax",
        "optax",
        "orbax.checkpoint",
        "lnrnn.training.loop",
        *(["tensorboardX", "grain"] if program == "train" else []),
      )
      for number in (TERM, INT)
    ),
  ],
)
def test_a_signal_during_the_imports_ends_a_program_without_a_word(
  repo, tmp_path, trained, program, module, number
):
  arguments = [f"--workdir={trained}"]
  if program == "train":
    arguments = ["--config=configs/mnist_mlp.py:smoke"]
    arguments.append(f"--workdir={tmp_path / 'run'}")
  process = _start(repo, program, *arguments)
  assert _stop_at(process, module, number) < BUSY


@pytest.fixture(scope="module")
def trained(repo, tmp_path_factory, request):
  """The workdir of a run; made for the long tests alone."""
  folder = tmp_path_factory.mktemp("trained") / "run"
  if "long" in request.config.option.markexpr.replace("not long", ""):
    spec = "configs/mnist_mlp.py:smoke,model.hidden=(8,8)"
    command = ["-m", "experiments.train", f"--config={spec}"]
    subprocess.run(
      [sys.executable, *command, f"--workdir={folder}"],
      cwd=repo,
      check=True,
      capture_output=True,
    )
  return folder


@pytest.mark.long
def test_evaluate_ends_at_once_wherever_a_signal_finds_it(
  server, whole, tmp_path
):
  workdir = tmp_path / "run"
  server.finish(workdir, whole[0])
  seconds = []
  for spot in ("build", "eval 20", "kernel 20"):
    for number in (TERM, INT):
      program = server.start(workdir, None, {spot: LONG})
      program.reach(f"@{spot}")
      program.send(number)
      end = program.wait()
      assert end.code == NUMBERS[number] and "Traceback" not in end.err
      assert end.err.splitlines()[-1].startswith("error: interrupted by SIG")
      seconds.append(end.seconds)
  _summary("evaluate", seconds)
  assert max(seconds) < AT_ONCE


@pytest.mark.long
def test_a_run_whose_output_nobody_reads_any_more_is_saved(repo, tmp_path):
  # As in `train ... 2>&1 | tee log`: Ctrl-C ends the tee as well.
  spec = "configs/mnist_mlp.py:smoke,model.hidden=(8,8),train_steps=1000000"
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.train", f"--config={spec}"),
      f"--workdir={tmp_path / 'run'}",
    ],
    cwd=repo,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  while not checkpoints.committed_steps(tmp_path / "run"):
    assert process.poll() is None
    time.sleep(0.01)
  process.stdout.close()
  before = checkpoints.committed_steps(tmp_path / "run")[-1]
  process.send_signal(INT)
  assert process.wait(30) == 130
  last = checkpoints.committed_steps(tmp_path / "run")[-1]
  rows = [r for r in writers.read_metrics(tmp_path / "run") if "loss" in r]
  assert last >= before and rows[-1]["step"] > last - 5
