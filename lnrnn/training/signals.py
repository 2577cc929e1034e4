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


_received: list[int] = []
_deferred = 0


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
  global _deferred
  _deferred += 1
  try:
    yield
  finally:
    _deferred -= 1


@contextlib.contextmanager
def prompt() -> Generator[None]:
  """Inside `deferred`, a stretch that a signal may end anywhere."""
  global _deferred
  outer = _deferred
  try:
    _deferred = 0
    check()
    yield
  finally:
    _deferred = outer


@contextlib.contextmanager
def handled() -> Generator[None]:
  """Inside, SIGTERM and Ctrl-C raise `Interrupted`, unless `deferred`.

  To be entered in the main thread.
  """
  before = {number: signal.signal(number, _handle) for number in STOPS}
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
    for number, handler in before.items():
      signal.signal(number, handler)
    _received.clear()


def _handle(number: int, frame: object) -> None:
  del frame
  _received.append(number)
  if len(_received) > 1:
    os._exit(128 + number)
  if not _deferred:
    raise Interrupted(number)


def _listen(reader: int) -> None:
  seen = 0
  while data := os.read(reader, 64):
    for number in data:
      if number not in STOPS:
        continue
      seen += 1
      if seen > 1:
        os._exit(128 + number)
      name = signal.Signals(number).name
      print(f"{name}: stopping; again to stop at once", file=sys.stderr)
