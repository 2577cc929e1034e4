"""Ends a process that waits for something that does not come.

A collective whose partner is alive but stuck waits for ever, and so does a
read from a file system that is gone.
"""

from collections.abc import Generator
import contextlib
import faulthandler
import os
import sys
import threading

EXIT_CODE = 4


@contextlib.contextmanager
def limit(seconds: float, what: str) -> Generator[None]:
  """Ends the process, with every thread's stack, if the body takes longer.

  Args:
    seconds: that the body may take; 0 for any time.
    what: the body does, for the message.
  """
  if not seconds:
    yield
    return

  def give_up():
    print(
      f"error: {what} has taken more than {seconds:g} s (stall_seconds); what"
      " every thread waits for:",
      file=sys.stderr,
      flush=True,
    )
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_CODE)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
