"""What a signal does in each stretch of a program."""

import os
import signal
import subprocess
import sys

import pytest

from lnrnn.training import signals

TERM, INT = signal.SIGTERM, signal.SIGINT


def _send(number=TERM):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_signal_raises_interrupted_with_the_code_a_shell_reports(
  number, code
):
  with signals.handled():
    with pytest.raises(signals.Interrupted) as caught:
      _send(number)
      pytest.fail("it was not raised here")
    assert (caught.value.number, caught.value.exit_code) == (number, code)
    assert signals.received() == number


def test_interrupted_passes_what_catches_every_exception():
  assert not issubclass(signals.Interrupted, Exception)


def test_a_deferred_signal_is_noted_and_nothing_else(capfd):
  with signals.handled(), signals.deferred():
    signals.check()
    assert signals.received() is None
    _send()
    assert signals.received() == TERM
    with pytest.raises(signals.Interrupted):
      signals.check()
  assert capfd.readouterr().err == "SIGTERM: stopping; again to stop at once\n"


def test_a_stretch_that_may_end_anywhere_ends_where_the_signal_comes():
  after = False
  with signals.handled(), signals.deferred():
    with pytest.raises(signals.Interrupted), signals.prompt():
      _send()
      after = True
    assert not after
    with pytest.raises(signals.Interrupted), signals.prompt():
      after = True  # Nor is it entered after one.
  assert not after


def test_what_is_deferred_stays_so_after_a_stretch_that_is_not():
  with signals.handled(), signals.deferred():
    with signals.prompt():
      pass
    with signals.deferred():
      pass
    _send()
    assert signals.received() == TERM


def test_an_error_that_a_signal_was_turned_into_is_a_signal_again():
  # As XLA does with what is raised in one of its callbacks.
  def kernel():
    try:
      _send()
    except signals.Interrupted as e:
      raise RuntimeError("INTERNAL: CpuCallback error") from e

  with signals.handled(), signals.deferred():
    with pytest.raises(ZeroDivisionError), signals.prompt():
      _ = 1 / 0
    with pytest.raises(signals.Interrupted), signals.prompt():
      kernel()


def test_handlers_and_what_was_received_are_as_before_afterwards():
  before = [signal.getsignal(number) for number in signals.STOPS]
  with pytest.raises(signals.Interrupted), signals.handled():
    _send()
  assert [signal.getsignal(number) for number in signals.STOPS] == before
  assert signals.received() is None
  assert signal.set_wakeup_fd(-1) == -1
  signals.check()
  with signals.handled(), pytest.raises(signals.Interrupted):
    _send(INT)


def _run(repo, body):
  """Runs a program whose body may use `send()`."""
  head = (
    "import os, sys, time, signals; send = lambda: os.kill(os.getpid(), 15)"
  )
  return subprocess.run(
    [sys.executable, "-c", f"{head}\n{body}\nprint('not reached')"],
    cwd=repo / "lnrnn" / "training",  # signals alone: jax takes a second.
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_a_second_signal_ends_the_process(repo):
  done = _run(
    repo,
    """
with signals.handled(), signals.deferred():
  send()
  time.sleep(0.2)
  send()
  time.sleep(9)
""",
  )
  assert (done.returncode, done.stdout) == (143, "")


def test_an_echo_of_the_first_signal_is_the_same_request(repo):
  # As Slurm sends it, 10 to 30 ms apart.
  done = _run(
    repo,
    """
with signals.handled(), signals.deferred():
  send()
  time.sleep(0.03)
  send()
  time.sleep(0.3)
sys.exit(signals._ECHO > 0.05)
""",
  )
  assert (done.returncode, done.stdout) == (1, "")


def test_where_there_is_nothing_to_lose_the_first_one_ends_it(repo):
  done = _run(
    repo, "with signals.handled(), signals.abrupt(): send(); time.sleep(9)"
  )
  assert (done.returncode, done.stdout) == (143, "")
  assert done.stderr == "error: interrupted by SIGTERM; start again to go on\n"


def test_that_nobody_reads_what_is_said_is_no_error(repo):
  done = _run(
    repo,
    """
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
try:
  with signals.handled():
    send()
except signals.Interrupted as e:
  signals.tell("saved")
  sys.exit(e.exit_code)
""",
  )
  assert (done.returncode, done.stdout) == (143, "")
