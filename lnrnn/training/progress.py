"""How far a run is: a bar on a terminal, lines elsewhere."""

import sys
import time

from rich import console as rich_console
from rich import progress as rich_progress

from lnrnn.training import signals


class Progress:
  """Shows step, loss, steps/s and the time left.

  Args:
    name: of the run.
    start: step the run (re)starts from.
    stop: step it ends at.
    every: seconds between two lines where there is no terminal.
  """

  def __init__(self, name: str, start: int, stop: int, *, every: float = 10.0):
    self._name, self._start, self._stop = name, start, stop
    self._every = every
    self._shown = self._began = time.monotonic()
    self._bar = None
    if sys.stderr.isatty():
      self._bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[text]}"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("ETA"),
        rich_progress.TimeRemainingColumn(),
        console=rich_console.Console(stderr=True),
      )
      self._task = self._bar.add_task(
        name, total=stop, completed=start, text=""
      )
      self._bar.start()

  def update(self, step: int, loss: float, rate: float) -> None:
    """Shows the state after `step`, `rate` being steps/s of training."""
    text = f"loss {loss:.4g}  {rate:.0f} steps/s"
    if self._bar is not None:
      self._bar.update(self._task, completed=step, text=text)
      return
    now = time.monotonic()
    if step < self._stop and now - self._shown < self._every:
      return
    self._shown = now
    # Evaluation and saving included: when will it be done?
    pace = (now - self._began) / max(step - self._start, 1)
    left = int(pace * (self._stop - step))
    signals.tell(
      f"{self._name}: step {step}/{self._stop}  {text}  ETA"
      f" {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    )

  def close(self) -> None:
    """Gives the terminal back."""
    if self._bar is not None:
      self._bar.stop()
