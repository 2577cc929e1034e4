"""Computes what section 5 of the paper says, and the stability of section 3.1.

  python -m experiments.analysis --workdir=runs/analysis

needs no data and no GPU: two to three minutes on two cores, `--small`, which
shows that it works and no more, under one. In the workdir it leaves

  analysis.md     the tables of all parts, and the verdicts
  *.png           the figures
  analysis.json   the numbers behind both
  claims.json     the verdicts, by the rules of docs/claims.md

`--parts=table1,fisher` computes these alone.
"""

from collections.abc import Callable
import json
import pathlib
import time

from absl import flags

from experiments import dynamics, dynamics_runs, fisher, launch, table1
from experiments.sections import Section
from lnrnn import files, report
from lnrnn.errors import ConfigError, choices
from lnrnn.training import signals

# What the report consists of, in its order.
PARTS: dict[str, Callable[..., Section]] = {
  "table1": table1.section,
  "fisher": fisher.section,
  "dynamics": dynamics.section,
}

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of report and figures", required=True
)
_PARTS = flags.DEFINE_list("parts", list(PARTS), "what is computed")
_SMALL = flags.DEFINE_bool("small", False, "fewer and smaller networks")

_FEW = dynamics_runs.Sizes(
  features=16,
  networks=4,
  steps=40,
  sequences=8,
  products=2,
  updates=10,
  seeds=1,
  test=100,
  trained={"LSTM": ("layer", "none"), "GRU": ("layer", "none")},
)


@signals.abrupt()
def main() -> None:
  """Computes the parts and writes the report."""
  for part in _PARTS.value:
    if part not in PARTS:
      raise ConfigError(f"--parts={part!r}: {choices(part, list(PARTS))}")
  folder = pathlib.Path(_WORKDIR.value)
  sections = {}
  with files.writing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(_PARTS.value):
      start = time.perf_counter()
      how = {"sizes": _FEW} if _SMALL.value and name == "dynamics" else {}
      sections[name] = PARTS[name](folder, **how)
      signals.say(f"{name}: {time.perf_counter() - start:.0f} s")
  rows = [row for section in sections.values() for row in section.rows]
  verdicts = report.markdown(
    [
      {
        "claim": f"`{row.id}`",
        "verdict": row.verdict,
        "found": row.effect,
        "beside": row.beside,
      }
      for row in rows
    ]
  )
  parts = [f"## {s.title}\n\n{s.text.strip()}\n" for s in sections.values()]
  parts.append(f"## Verdicts\n\n{verdicts}")
  written = {
    "analysis.md": "\n".join(parts),
    "analysis.json": _json({k: s.numbers for k, s in sections.items()}),
    "claims.json": _json([row._asdict() for row in rows]),
  }
  for name, text in written.items():
    with files.writing(folder), files.atomic(folder / name) as part:
      part.write_text(text, encoding="utf-8")
  signals.say(f"{verdicts}\nwritten: {folder}/{', '.join(written)}")


def _json(value: object) -> str:
  return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
  launch.run(main)
