"""A profile of some steps, and what a step costs."""

from collections.abc import Sequence
import os
import pathlib

import jax

from lnrnn.training import signals

FOLDER = "profile"


class Profiler:
  """Traces the dispatches that hold the steps of a range.

  Args:
    workdir: of the run; the trace goes to its folder `profile`.
    steps: (first, last) step to trace; () for none.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], steps: Sequence[int] = ()
  ):
    self._folder = pathlib.Path(workdir, FOLDER)
    self._steps: Sequence[int] = tuple(steps)
    self._began: int | None = None

  def before(self, first: int, end: int) -> None:
    """Starts tracing if the dispatch of (first, end] is the first wanted."""
    wanted = self._steps and self._steps[0] <= end and first < self._steps[1]
    if wanted and self._began is None:
      jax.profiler.start_trace(self._folder)
      self._began = first + 1

  def after(self, end: int) -> None:
    """Stops tracing if the dispatch up to `end` was the last wanted."""
    if self._began is not None and end >= self._steps[1]:
      self._stop(end)

  def close(self) -> None:
    """Stops tracing."""
    if self._began is not None:
      self._stop(None)

  def _stop(self, end: int | None) -> None:
    jax.profiler.stop_trace()
    signals.say(
      f"steps {self._began} to {end or 'the last'}: traced in {self._folder}"
    )
    self._began, self._steps = None, ()
