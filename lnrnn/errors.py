"""The errors a user can mend: one clear line each, no traceback."""

from collections.abc import Sequence
import difflib


class UserError(Exception):
  """Base of the errors that a program prints as text, without a traceback.

  The message says which file or field, which value, and what is allowed.
  """


class ConfigError(UserError):
  """A config cannot be run; lists every fault, one a line.

  Attributes:
    faults: the faults, each one line.
  """

  def __init__(self, *faults: str):
    super().__init__("\n".join(faults))
    self.faults = faults


class DataError(UserError):
  """A data file is missing, damaged or of another format than declared."""


class WorkdirError(UserError):
  """A working directory cannot be used, or belongs to another run."""


class DivergedError(UserError):
  """Training met a loss that is not finite; the message names the step."""


def choices(value: object, allowed: Sequence[str]) -> str:
  """The end of a line on a wrong name: what is allowed, and a guess.

  Args:
    value: what was given.
    allowed: the valid names.

  Returns:
    "must be one of a, b; did you mean 'a'?"
  """
  close = difflib.get_close_matches(str(value).lower(), allowed, n=1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  return f"must be one of {', '.join(allowed)}{hint}"


def one_line(error: object) -> str:
  """What an error of other code says, fit to end a line of ours.

  Args:
    error: its text may hold what a file or a server made up: many lines, or
      characters that a terminal obeys.

  Returns:
    The first line, shortened, unprintable characters escaped; the name of the
    error's class where it says nothing.
  """
  line = str(error).strip().partition("\n")[0] or type(error).__name__
  line = line if len(line) <= 300 else f"{line[:297]}..."
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
