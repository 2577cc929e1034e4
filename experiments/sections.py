"""What one part of the analysis of section 5 gives to its report."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from lnrnn import claims


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report.

  Attributes:
    title: its heading.
    text: Markdown, with tables and links to figures beside the report.
    rows: verdicts by the rules of docs/claims.md.
    numbers: what the text and the figures show, for JSON.
  """

  title: str
  text: str
  rows: Sequence[claims.Row]
  numbers: dict[str, Any]
