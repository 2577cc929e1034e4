"""The claims that docs/claims.md lists, and which verdict is on which."""

from collections.abc import Iterable
import pathlib
import re
from typing import NamedTuple

from lnrnn.claims import Row

_PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "claims.md"


class Claim(NamedTuple):
  """A row of the page, or one of the several ids of a row.

  Attributes:
    id: as `order.faster`; `<...>` stands for any word.
    section: heading of the page.
    place: in the paper; "" where the claim is not the paper's.
    words: the claim.
    measured: what is measured, with the sign of the effect.
    rule: what decides.
  """

  id: str
  section: str
  place: str
  words: str
  measured: str
  rule: str

  def covers(self, name: str) -> bool:
    """Whether the verdict `name` is on this claim.

    A verdict may have words of its own behind: `.tuned`, ` (layer)`.
    """
    parts = re.split(r"<[^>]*>", self.id)
    pattern = r"[^. ]+".join(map(re.escape, parts))
    return re.fullmatch(rf"{pattern}([. ].*)?", name) is not None

  @property
  def is_many(self) -> bool:
    """Whether it is one claim on many cells, as those of Table 1."""
    return "<" in self.id and bool(self.place)

  @property
  def is_speed(self) -> bool:
    """Whether the effect is a logarithm of a ratio of updates or times."""
    return "faster" in self.id or self.measured.startswith(("faster", "ln("))


def read(path: pathlib.Path = _PAGE) -> list[Claim]:
  """The claims, in the order of the page."""
  found, section, columns = [], "", []
  for line in path.read_text("utf-8").splitlines():
    if line.startswith("## "):
      section, columns = line.removeprefix("## "), []
    elif not line.startswith("|"):
      columns = []
    elif not columns:
      columns = _cells(line)
    elif columns[0] == "id" and not set(line) <= set("| -"):
      cells = dict(zip(columns, _cells(line), strict=True))
      measured = next(v for k, v in cells.items() if k.startswith("measure"))
      for name in _ids(cells["id"]):
        place = cells.get("place", "")
        words = (cells["claim"], measured, cells["rule"])
        found.append(Claim(name, section, place, *words))
  return found


def grouped(rows: Iterable[Row]) -> dict[Claim, list[Row]]:
  """{claim: the verdicts on it}, every claim of the page.

  Raises:
    ValueError: a verdict is on no claim of the page.
  """
  listed = read()
  found: dict[Claim, list[Row]] = {claim: [] for claim in listed}
  for row in rows:
    covering = [claim for claim in listed if claim.covers(row.id)]
    if not covering:
      raise ValueError(f"{row.id}: no claim of {_PAGE.name}")
    found[max(covering, key=lambda claim: len(claim.id))].append(row)
  return found


def _cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _ids(cell: str) -> list[str]:
  """Reads "`a.b.c`, `.d`" as a.b.c and a.b.d."""
  found: list[str] = []
  for name in re.findall(r"`([^`]+)`", cell):
    stem = found[0].rpartition(".")[0] if found else ""
    found.append(stem + name if name.startswith(".") else name)
  return found
