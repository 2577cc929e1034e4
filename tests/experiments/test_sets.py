"""Sets of runs: how they are listed, and their processes."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments import launch, sets
from lnrnn.errors import ConfigError, DivergedError, UserError, WorkdirError
from lnrnn.training import runs as runs_lib


@pytest.fixture
def run(tmp_path):
  return runs_lib.named("c.py", [("norm", "layer")], 0, tmp_path / "runs")


@pytest.fixture
def child(monkeypatch):
  """(Python code) -> what each process of a run does instead of training."""

  def set_code(code):
    monkeypatch.setattr(
      sets, "command", lambda run: [sys.executable, "-S", "-c", code]
    )

  return set_code


def test_a_run_is_trained_by_the_binary_in_a_folder_of_its_own(run):
  assert sets.command(run, "--distributed")[1:] == [
    "-m",
    "experiments.train",
    "--config=c.py:norm=layer,seed=0",
    f"--workdir={run.workdir}",
    "--distributed",
  ]


def test_a_process_writes_to_the_log_and_has_a_session_and_a_gpu(
  run, child, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  child(
    "import os, sys; print(os.getsid(0) == os.getpid());"
    "print(os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr)"
  )
  processes = sets.Processes(gpus=["3"], jobs=2)
  processes.train(run)
  processes.train(run)
  lines = (run.workdir / "log.txt").read_text().split()
  assert sorted(lines) == ["3", "3", "True", "True"]


@pytest.mark.parametrize(
  ("code", "kind", "parts"),
  [
    ("sys.exit('error: loss at step 3')", UserError, ["code 1", "at step 3"]),
    ("print('error: a\\nb'); sys.exit(3)", DivergedError, ["a"]),
    ("sys.exit(3)", DivergedError, [""]),
    ("sys.exit(4)", UserError, ["exit code 4", "log.txt"]),
    ("os.kill(os.getpid(), 9)", UserError, ["killed by SIGKILL", "log.txt"]),
  ],
)
def test_how_a_process_ended_is_told(run, child, code, kind, parts):
  child(f"import os, sys; {code}")
  run.workdir.mkdir(parents=True)
  (run.workdir / "log.txt").write_text("error: of an earlier start\n")
  with pytest.raises(kind) as caught:
    sets.Processes().train(run)
  assert type(caught.value) is kind
  text = str(caught.value)
  assert all(part in text for part in parts) and "earlier" not in text
  if kind is UserError:
    assert str(run.workdir) in text


def test_a_program_runs_on_a_gpu_with_its_output_in_the_log(tmp_path, capsys):
  log = tmp_path / "log"
  log.write_text("of an earlier call")
  code = sets.Processes(gpus=["3"]).call(
    (
      "-c",
      "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES']); sys.exit(4)",
    ),
    log,
    "it begins",
  )
  assert code == 4 and log.read_text() == "3\n"
  assert capsys.readouterr().out == "it begins\n"


def test_output_that_nobody_reads_loses_no_process(run, child, monkeypatch):
  class Gone:
    def write(self, text):
      raise BrokenPipeError

    def flush(self):
      raise BrokenPipeError

    def fileno(self):
      return os.open(os.devnull, os.O_WRONLY)

  child("import time; time.sleep(0.2); open('ended', 'w').close()")
  run.workdir.mkdir(parents=True)
  monkeypatch.chdir(run.workdir)
  monkeypatch.setattr(sys, "stdout", Gone())
  sets.Processes().train(run)
  assert (run.workdir / "ended").exists()


def test_what_a_stopped_program_has_begun_ends_too(tmp_path):
  pid = tmp_path / "pid"
  grandchild = "import time; time.sleep(60)"
  code = (
    "import pathlib, subprocess, sys, time;"
    f"child = subprocess.Popen([sys.executable, '-S', '-c', '{grandchild}']);"
    f"path = pathlib.Path({str(pid)!r});"
    "path.with_name('part').write_text(str(child.pid));"
    "path.with_name('part').rename(path);"
    "time.sleep(60)"
  )
  processes = sets.Processes()
  thread = threading.Thread(
    target=processes.call, args=(("-c", code), tmp_path / "log", "it begins")
  )
  thread.start()
  end = time.monotonic() + 30
  while not pid.exists() and time.monotonic() < end:
    time.sleep(0.01)
  processes.stop()
  thread.join(timeout=30)
  assert not thread.is_alive()
  status = pathlib.Path(f"/proc/{pid.read_text()}/stat")
  while (
    status.exists()
    and status.read_text().rpartition(")")[2].split()[0] != "Z"
    and time.monotonic() < end
  ):
    time.sleep(0.01)
  assert time.monotonic() < end


def test_fewer_jobs_than_gpus_are_refused():
  with pytest.raises(ConfigError, match="--jobs=1: are fewer than the 2"):
    sets.Processes(gpus=["0", "1"])


def test_what_was_stopped_begins_no_program(tmp_path):
  processes = sets.Processes()
  processes.stop()
  with pytest.raises(UserError, match="not started"):
    processes.call(("-c", ""), tmp_path / "log", "it begins")


def test_a_folder_that_cannot_be_made_is_the_fault_of_its_run(run, child):
  child("")
  run.workdir.parent.write_text("a file")
  with pytest.raises(WorkdirError, match="norm=layer,seed=0"):
    sets.Processes().train(run)


# A parent with runs like those of a sweep, and children that take a moment to
# save. Both write down the signals they get.
PARENT = """
import pathlib, sys
from experiments import launch, sets
from lnrnn.training import runs, signals

CHILD = '''
import os, pathlib, signal, sys, time
seen = []
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, lambda number, frame: seen.append(number))
folder = pathlib.Path(sys.argv[1])
(folder / "begun").touch()
while not seen:
  time.sleep(0.01)
time.sleep(0.3)
(folder / "saved").write_text(repr([int(n) for n in seen]))
sys.exit(143)
'''

def main():
  sets.command = lambda run: [sys.executable, "-S", "-c", CHILD, run.workdir]
  made = [runs.named("c.py", [], seed, sys.argv[1]) for seed in range(3)]
  processes = sets.Processes(jobs=2)
  runs.run_missing(made, processes.train, jobs=2, stop=processes.stop)

try:
  with signals.handled():
    main()
except signals.Interrupted as e:
  sys.exit(e.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_run_once_and_all_are_waited_for(
  repo, tmp_path, number
):
  parent = subprocess.Popen(
    [sys.executable, "-c", PARENT, tmp_path],
    cwd=repo,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  begun = [tmp_path / f"seed={seed}" / "begun" for seed in (0, 1)]
  end = time.monotonic() + 60
  while not all(path.exists() for path in begun) and time.monotonic() < end:
    assert parent.poll() is None, parent.communicate()
    time.sleep(0.01)
  os.killpg(parent.pid, number)  # As a terminal does for Ctrl-C.
  _, err = parent.communicate(timeout=60)
  assert parent.returncode == 128 + number, err
  saved = {p.parent.name: p.read_text() for p in tmp_path.glob("*/saved")}
  terminated = repr([int(signal.SIGTERM)])
  assert saved == {"seed=0": terminated, "seed=1": terminated}
  assert not (tmp_path / "seed=2").exists()


@pytest.fixture
def config(repo, tmp_path):
  """(what sweep() returns, as code) -> path of a config with it."""

  def write(listed):
    path = tmp_path / "mine.py"
    path.write_text(
      "from configs import common, mnist_mlp\n"
      "get_config = mnist_mlp.get_config\n"
      f"def sweep():\n  return {listed}\n"
    )
    return str(path)

  return write


def test_a_sweep_is_named_as_a_comparison(config, tmp_path):
  path = config(
    "common.product({'norm': ('layer', 'none'), 'epochs': ('1', '2')}, (5, 6))"
  )
  assert sets.listed(f"{path}:smoke", tmp_path) == runs_lib.product(
    f"{path}:smoke",
    [("norm", ("layer", "none")), ("epochs", ("1", "2"))],
    (5, 6),
    tmp_path,
  )


def test_an_entry_may_hold_commas_and_bare_words(config, tmp_path):
  path = config("""['smoke,model.hidden=(8, 9),data.dir="a,b",seed=2']""")
  (run,) = sets.listed(path, tmp_path)
  found = launch.load(run.spec)
  assert found.train_steps == 20 and found.model.hidden == (8, 9)
  assert (found.data.dir, found.seed) == ("a,b", 2)
  assert run.workdir.name == (
    "smoke=true,model.hidden=(8,_9),data.dir=_a,b_,seed=2"
  )


def test_the_figure_of_the_paper_is_a_sweep(repo, tmp_path):
  made = sets.listed(f"{repo}/configs/mnist_mlp.py:data.source=idx", tmp_path)
  assert len(made) == 18 and {run.seed for run in made} == {0, 1, 2}
  sets.check(made)
  lengths = {launch.load(run.spec).epochs for run in made}
  assert lengths == {60.0, 20.0}


@pytest.mark.parametrize(
  ("listed", "arguments", "parts"),
  [
    ("['norm=layer', 'seed=0,norm=layer']", "", ["layer,seed=0 twice"]),
    ("['norm=layer', 3, 'seed=x']", "", ["lists 3", "seed='x'"]),
    ("['norm=layer']", ":norm=rms,smoke", ["norm= has no effect"]),
    ("[]", "", ["lists no run"]),
  ],
)
def test_a_wrong_list_is_told_in_a_line_each(
  config, tmp_path, listed, arguments, parts
):
  with pytest.raises(ConfigError) as caught:
    sets.listed(config(listed) + arguments, tmp_path)
  assert len(caught.value.faults) == len(parts)
  for part, fault in zip(parts, caught.value.faults, strict=True):
    assert part in fault


def test_every_entry_is_checked_before_the_first_run(config, tmp_path):
  path = config("['norm=layer', 'norm=lyer', 'batch_size=0', 'nrom=none']")
  made = sets.listed(f"{path}:smoke", tmp_path)
  with pytest.raises(ConfigError) as caught:
    sets.check(made)
  assert len(caught.value.faults) == 3


def test_a_config_without_a_sweep_is_told(repo, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("from configs.mnist_mlp import get_config\n")
  with pytest.raises(ConfigError, match=r"mine.py' has no function sweep"):
    sets.listed(str(path), tmp_path)
  with pytest.raises(ConfigError, match="not found"):
    sets.listed("nothing.py", tmp_path)


@pytest.mark.parametrize(
  ("kinds", "error"),
  [
    (["finished", "queued"], None),
    (["finished", "diverged"], DivergedError),
    (["diverged", "failed"], UserError),
  ],
)
def test_a_program_ends_by_how_its_runs_stand(tmp_path, kinds, error):
  found = {
    runs_lib.named("c.py", [], seed, tmp_path): runs_lib.Status(kind, "so")
    for seed, kind in enumerate(kinds)
  }
  lines = sets.summary(found).splitlines()
  assert lines[:2] == ["seed=0: so", "seed=1: so"]
  assert f"1 {kinds[0]}, 1 {kinds[1]}" in lines[2]
  if error is None:
    sets.conclude(found)
    return
  with pytest.raises(error) as caught:
    sets.conclude(found)
  assert type(caught.value) is error
