"""SIGTERM and Ctrl-C: the first one stops in good order, the second at once.

Python runs its handlers between two instructions of the main thread, not
while that waits in XLA or on a disk; so a thread of its own listens too.
"""

from collections.abc import Generator
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
  """A signal asked the program to stop; no Exception, as Ctrl-C is none.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int):
    super().__init__(f"interrupted by {signal.Signals(number).name}")
    self.number = number

  @property
  def exit_code(self) -> int:
    """What a shell reports for the signal: 143 or 130."""
    return 128 + self.number


# Slurm sends SIGTERM twice, 10 to 30 ms apart, where it preempts without a
# grace time; that is one request. Nobody presses Ctrl-C twice in so short.
_ECHO = 0.1

_received: list[int] = []
_handled_at = 0.0
_RAISE, _NOTE, _EXIT = range(3)
_mode = _RAISE
_installed = False


def received() -> int | None:
  """The number of the signal that asked to stop, None if there was none."""
  return _received[0] if _received else None


def check() -> None:
  """Raises `Interrupted` if a signal has asked to stop."""
  if _received:
    raise Interrupted(_received[0])


@contextlib.contextmanager
def deferred() -> Generator[None]:
  """Inside, a signal is only noted: ask `received()` where it suits."""
  with _answer(_NOTE):
    yield


@contextlib.contextmanager
def prompt() -> Generator[None]:
  """Inside `deferred`, a stretch that a signal may end anywhere.

  Raises:
    Interrupted: if there was a signal before or inside.
  """
  try:
    with _answer(_RAISE):
      check()
      yield
  except Exception:
    # XLA turns what is raised in one of its callbacks into an error of its
    # own, and so does the import of an extension.
    check()
    raise


@contextlib.contextmanager
def abrupt() -> Generator[None]:
  """Inside, a signal ends the process at once: there is nothing to lose yet.

  An exception would have to come through the import of extensions, some of
  which do not survive that.
  """
  with _answer(_EXIT):
    yield


@contextlib.contextmanager
def _answer(mode: int) -> Generator[None]:
  global _mode
  outer, _mode = _mode, mode
  try:
    yield
  finally:
    _mode = outer


@contextlib.contextmanager
def handled() -> Generator[None]:
  """Inside, SIGTERM and Ctrl-C raise `Interrupted`, if nothing else is said.

  To be entered in the main thread.
  """
  global _installed
  before = {number: signal.signal(number, _handle) for number in STOPS}
  _installed = True
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  listener = threading.Thread(target=_listen, args=(reader,), daemon=True)
  listener.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old)
    os.close(writer)  # Ends the listener.
    listener.join()
    os.close(reader)
    _installed = False
    for number, handler in before.items():
      signal.signal(number, handler)
    _received.clear()


def tell(line: str, stream: Any = None) -> None:
  """Prints a line; that nobody reads it any more is no error.

  Ctrl-C ends the `tee` of `train ... 2>&1 | tee log` as well, and `| head`
  goes away by itself.

  Args:
    line: without its end.
    stream: standard error by default.
  """
  stream = stream or sys.stderr
  try:
    print(line, file=stream, flush=True)
  except OSError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say(line: str) -> None:
  """Prints a line on standard output, as `tell` does."""
  tell(line, sys.stdout)


def take_over() -> None:
  """Sets the handlers of `handled` again, where a library has set its own."""
  if _installed:
    for number in STOPS:
      signal.signal(number, _handle)


def _handle(number: int, frame: object) -> None:
  del frame
  if _received:
    if time.monotonic() - _handled_at > _ECHO:
      os._exit(128 + number)
    return
  _note(number)
  if _mode == _RAISE:
    raise Interrupted(number)


def _note(number: int) -> None:
  global _handled_at
  _handled_at = time.monotonic()
  _received.append(number)


def _listen(reader: int) -> None:
  first = None
  while data := os.read(reader, 64):
    for number in data:
      if number not in STOPS:
        continue
      if first is not None:
        if time.monotonic() - first > _ECHO:
          os._exit(128 + number)
        continue
      first = time.monotonic()
      if _mode == _EXIT:
        end = Interrupted(number)
        tell(f"error: {end}; start again to go on")
        os._exit(end.exit_code)
      tell(f"{signal.Signals(number).name}: stopping; again to stop at once")
