"""A wait that does not end ends the process, with every thread's stack."""

import subprocess
import sys
import time

import pytest

from lnrnn.training import watchdog


def test_a_body_in_time_is_left_alone():
  before = time.monotonic()
  for seconds in (0, 60):
    with watchdog.limit(seconds, "nothing"):
      pass
  with pytest.raises(ZeroDivisionError), watchdog.limit(60, "an error"):
    _ = 1 / 0
  assert time.monotonic() - before < 10


def test_a_body_that_hangs_ends_the_process_and_says_where(repo):
  code = """
import threading, watchdog
def stuck(lock):
  lock.acquire()
with watchdog.limit(0.2, "reading steps 3 to 4"):
  lock = threading.Lock()
  lock.acquire()
  threading.Thread(target=stuck, args=(lock,), daemon=True).start()
  lock.acquire()
"""
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-c", code],
    # The module alone: jax takes a second.
    cwd=repo / "lnrnn" / "training",
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == watchdog.EXIT_CODE == 4
  first, *stacks = done.stderr.splitlines()
  assert first == (
    "error: reading steps 3 to 4 has taken more than 0.2 s (stall_seconds);"
    " what every thread waits for:"
  )
  text = "\n".join(stacks)
  assert "in stuck" in text and "<module>" in text
  assert time.monotonic() - began < 30
