"""Judges the paper's claims on a task by the rules of docs/claims.md.

  python -m experiments.claims --workdir=runs/mnist --trials=runs/mnist_trials

reads every run under the two folders and prints one row a claim. The trials
are the runs of the rate grid, with a seed of their own; the "tuned" rows need
the reported runs to have been made at the rates that the trials choose.
`--rules=forms` compares the forms of layer norm instead.
"""

import pathlib

from absl import flags

from experiments import forms_claims, judging, launch
from lnrnn import files

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the reported runs", required=True
)
_TRIALS = flags.DEFINE_string("trials", None, "folder of the rate grid's runs")
_TIMINGS = flags.DEFINE_string(
  "timings", None, "JSON file of scripts/benchmark.py, for what time costs"
)
_RULES = flags.DEFINE_enum(
  "rules", "task", ["task", "forms"], "which section of docs/claims.md"
)


def main() -> None:
  """Prints and writes the verdicts."""
  by = forms_claims if _RULES.value == "forms" else None
  found = judging.judge(_WORKDIR.value, _TRIALS.value, _TIMINGS.value, by)
  text = found.markdown()
  path = pathlib.Path(_WORKDIR.value, "claims.md")
  with files.writing(path.parent), files.atomic(path) as part:
    part.write_text(text, encoding="utf-8")
  judging.write_rows(path.with_suffix(".json"), found.rows)
  print(f"{text}\nwritten: {path}, {path.with_suffix('.json')}")


if __name__ == "__main__":
  launch.run(main)
