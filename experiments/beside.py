"""A program that runs beside the training, in a process of its own."""

from collections.abc import Generator, Sequence
import contextlib
import os
import subprocess
import sys

from lnrnn.training import signals


@contextlib.contextmanager
def running(arguments: Sequence[str] | None) -> Generator[None]:
  """Runs a program while the body runs, and waits for its end.

  It computes on the CPU. If the body raises, it is ended; what it has not done
  is done when it is called again. That it fails is told, and stops nothing.

  Args:
    arguments: of `python -m`; None runs nothing. `--parent` is added.
  """
  if arguments is None:
    yield
    return
  process = subprocess.Popen(
    [sys.executable, "-m", *arguments, f"--parent={os.getpid()}"],
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    # Ctrl-C shall reach the training alone, which ends this in good order.
    start_new_session=True,
  )
  try:
    yield
    if process.poll() is None:
      signals.say(f"waiting for {arguments[0]}")
    code = process.wait()
  except BaseException:
    process.terminate()
    process.wait()
    raise
  if code:
    told = f"python -m {' '.join(arguments)}"
    signals.tell(f"{arguments[0]} ended with exit code {code}; again by {told}")
