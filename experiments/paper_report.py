"""The report of a reproduction: Markdown, and the same as one HTML file."""

import base64
import collections
from collections.abc import Collection, Mapping, Sequence
import math
import mimetypes
import os
import pathlib
import re
from typing import Any

from experiments import claim_list
from experiments.reproduction import Outcome
from lnrnn import claims, report

_NUMBER = r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan)"
_EFFECT = re.compile(rf"({_NUMBER})(?: \[({_NUMBER}), ({_NUMBER})\])?(.*)")
NOT_RUN = "not run"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: auto;
  padding: 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto;
  font-size: 13px; }
th, td { border: 1px solid #ccc; padding: 0.2rem 0.5rem; text-align: left;
  vertical-align: top; }
th { background: #f3f3f3; }
img { max-width: 100%; }
code { font-size: 12px; }
blockquote { border-left: 3px solid #ccc; margin-left: 0; padding-left: 1rem;
  color: #555; }
"""


def effect(claim: claim_list.Claim, row: claims.Row) -> str:
  """What was found, in numbers that can be read.

  Args:
    claim: that the verdict is on.
    row: with an effect "mean [low, high]".

  Returns:
    The effect, a logarithm as the ratio it is of: of speeds "ratio", of times
    or updates "of the time".
  """
  match = _EFFECT.fullmatch(row.effect)
  if not (match and claim.is_speed):
    return row.effect
  numbers = [f"{math.exp(float(n)):.2f}" for n in match.groups()[:3] if n]
  interval = f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else ""
  if claim.measured.startswith("ln("):
    return f"{numbers[0]}{interval} of the time{match[4]}"
  return f"ratio {numbers[0]}{interval}{match[4]}"


def claims_table(rows: Sequence[claims.Row], sections: Collection[str]) -> str:
  """Every claim of some sections of docs/claims.md, and what became of it.

  Args:
    rows: verdicts.
    sections: headings.

  Returns:
    Markdown. A claim without a verdict is "not run"; of a claim on many cells,
    such as those of Table 1, the verdicts are counted.
  """
  lines = lines_of(
    {
      claim: found
      for claim, found in claim_list.grouped(rows).items()
      if claim.section in sections
    }
  )
  return report.markdown(lines) if lines else ""


def lines_of(
  grouped: Mapping[claim_list.Claim, Sequence[claims.Row]],
) -> list[dict[str, Any]]:
  """Claims and their verdicts as rows of a table; see `claims_table`."""
  lines = []
  for claim, found in grouped.items():
    shared = {
      "claim": claim.words,
      "place": claim.place,
      "how measured": claim.measured,
    }
    if claim.is_many and found:
      counts = collections.Counter(row.verdict for row in found)
      verdict = ", ".join(
        f"{v}: {n} of {len(found)}" for v, n in counts.items()
      )
      lines.append(_line(claim.id, shared, verdict, "", ""))
      continue
    if not found:
      lines.append(_line(claim.id, shared, NOT_RUN, "", ""))
    for row in found:
      beside = row.beside + (f" (epoch {row.epoch})" if row.epoch else "")
      lines.append(
        _line(row.id, shared, row.verdict, effect(claim, row), beside)
      )
  return lines


def _line(
  name: str, shared: Mapping[str, Any], verdict: str, found: str, beside: str
) -> dict[str, Any]:
  bold = verdict.startswith(("holds", "contradicted"))
  return {
    "id": f"`{name}`",
    **shared,
    "verdict": f"**{verdict}**" if bold else verdict,
    "ours [95 % interval]": found,
    "beside": beside,
  }


def markdown(
  outcomes: Sequence[Outcome],
  scale: str,
  cost: str,
  folder: pathlib.Path,
) -> str:
  """The report.

  Args:
    outcomes: of the sections that were run.
    scale: one of `paper.SCALES`.
    cost: the table of what it costs.
    folder: of the report; figures are named from there.
  """
  text = ["# Layer Normalization (Ba, Kiros and Hinton 2016), reproduced\n"]
  text.append(f"Scale `{scale}`: {_SCALES[scale]}\n")
  hardware = sorted({h for o in outcomes for h in o.hardware})
  text.append(f"Trained on {', '.join(hardware) or 'nothing yet'}.\n")
  notes = [f"- {o.task.title}: {note}" for o in outcomes for note in o.notes]
  if notes:
    text.append("**Not as planned:**\n\n" + "\n".join(notes) + "\n")
  text.append("## The paper's claims\n")
  text.append(
    "Computed from the runs by the rules of docs/claims.md. A ratio is of"
    " speeds, above 1 where the claim has it; the interval is over seeds.\n"
  )
  sections = list(dict.fromkeys(s for o in outcomes for s in o.task.sections))
  rows = [row for outcome in outcomes for row in outcome.rows]
  text.append(claims_table(rows, sections))
  for outcome in outcomes:
    text.append(_section(outcome, folder))
  text.append(f"## What it costs\n\n{cost}")
  return "\n".join(text)


_SCALES = {
  "smoke": "tiny networks on embedded data. It shows that everything runs;"
  " **no number or verdict of it is a result.**",
  "cpu": "reduced where a CPU asks for it, as in docs/results.",
  "gpu": "networks of the paper's sizes, shorter, on data that can be had.",
  "paper": "the paper's sizes, data and lengths.",
}


def _section(outcome: Outcome, folder: pathlib.Path) -> str:
  task = outcome.task
  text = [f"## {task.title} ({task.place})\n"]
  text += [f"Data: {line}.\n" for line in outcome.data]
  for shown, drawn in outcome.drawn:
    text.append(f"### {shown.title}\n\n> The paper: {shown.paper}\n")
    if shown.numbers:
      text.append(report.markdown(shown.numbers))
    if drawn is None:
      text.append("Nothing has been trained for it.\n")
      continue
    if shown.x:
      where = os.path.relpath(drawn.picture, folder)
      text.append(f"![{shown.title}, ours]({where})\n")
    text.append(f"Ours:\n\n{drawn.table}")
  for name, picture in outcome.pictures:
    text.append(f"![{name}]({os.path.relpath(picture, folder)})\n")
  if outcome.judged:
    text.append(f"### Verdicts\n\n{outcome.judged}")
  return "\n".join(text)


def html(text: str, folder: pathlib.Path) -> str:
  """Markdown as one page that needs no other file.

  Args:
    text: of `markdown`.
    folder: from which its pictures are named.
  """
  from markdown_it import MarkdownIt

  body = MarkdownIt("commonmark").enable("table").render(text)

  def inline(match: re.Match[str]) -> str:
    path = folder / match[1]
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'src="data:{kind};base64,{data}"'

  body = re.sub(r'src="([^":]+)"', inline, body)
  return (
    '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width">\n'
    f"<title>Layer Normalization, reproduced</title>\n<style>{_STYLE}</style>\n"
    f"<body>\n{body}</body></html>\n"
  )
