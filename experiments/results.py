"""Writes the tables of results in the docs from the verdicts kept there.

  python -m experiments.results [--check]

reads docs/results/*_claims.json, what `experiments.claims`, `.analysis` and
`.same` wrote of the reported runs, and makes docs/results/index.md, every claim
with its verdict, and the table of the README; and of docs/results/costs.json,
docs/results/costs.md, what the scales cost. `--check` only says whether they
are as they would be made.
"""

from collections.abc import Mapping
import pathlib

from absl import flags

from experiments import claim_list, costs, judging, launch, paper, paper_report
from lnrnn import claims, files, report
from lnrnn.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
BEGIN, END = "<!-- results: experiments.results -->", "<!-- end of results -->"

# What the README tells, in the order of the paper, {id: the claim}. Of rows at
# several rates it is the one at the best rate, if that was run.
HEADLINES = {
  "order.own-best": "order embeddings: best model in 60 % of the time",
  "order.curve.r1": "order embeddings: higher R@1 at every iteration",
  "order.table": "order embeddings: better recalls in the end",
  "reader.faster.lstm": "attentive reader: faster than the LSTM",
  "reader.faster.bn-lstm": "attentive reader: faster than BN-LSTM",
  "reader.faster.bn-everywhere.minibatch": (
    "attentive reader: faster than BN-everywhere by minibatches"
  ),
  "reader.lower.lstm": "attentive reader: lower error than the LSTM",
  "reader.lower.bn-everywhere": "attentive reader: lower than BN-everywhere",
  "reader.gain": "attentive reader: gains from 1 better than from 0.1",
  "skip.nll": "skip-thoughts: faster learning",
  "skip.sick-r": "skip-thoughts: better sentence vectors (SICK)",
  "skip.equal-time": "skip-thoughts: the same time per update",
  "draw.faster": "DRAW: almost twice as fast",
  "draw.bound": "DRAW: 82.09 against 82.36 nats after 200 epochs",
  "hand.faster": "handwriting: much faster",
  "mnist.batch-robust": "MNIST: robust to a batch of 4, batch norm is not",
  "mnist.faster-than-bn.b128": "MNIST: faster than batch norm, batch 128",
  "mnist.faster-than-bn.b4": "MNIST: faster than batch norm, batch 4",
  "mnist.online": "MNIST: trains on one case at a time",
  "conv.ln-faster-than-none": "convnets: layer norm faster than no norm",
  "conv.bn-best": "convnets: batch norm better than both",
  "table1.<norm>.<transformation>": "Table 1: the 18 invariances",
  "table1.prose": "section 5.1: all three invariant to the data's scale",
  "fisher.form.bn": "Fisher metric: closed form, batch norm",
  "fisher.form.ln": "Fisher metric: closed form, layer norm",
  "fisher.half": "Fisher metric: half the curvature at twice the norm",
  "same.train-test": "the same computation in training and at test",
  "stable.scale": "the scale of recurrent weights does not matter",
  "stable.jacobian": "more stable hidden dynamics",
}

# What their numbers are of, where they are no ratios.
UNITS = {
  "order.curve.r1": "points of R@1, LN - none",
  "order.table": "points of summed recalls, LN - none",
  "reader.lower.lstm": "of error, LN - LSTM",
  "reader.lower.bn-everywhere": "of error, LN - BN",
  "reader.gain": "of error, gain 1 - gain 0.1",
  "skip.sick-r": "of Pearson's r, LN - none",
  "mnist.batch-robust": "of ln NLL, lost by LN - lost by BN",
  "mnist.online": "of error, less the threshold",
  "same.train-test": "is the largest change",
  "stable.jacobian": "of spread of growth, LN - none",
}

_CHECK = flags.DEFINE_bool("check", False, "write nothing; compare")
Kept = dict[str, list[claims.Row]]


def kept(folder: pathlib.Path = FOLDER) -> Kept:
  """{name of the file, less _claims.json: its verdicts}."""
  return {
    path.name.removesuffix("_claims.json"): judging.read_rows(path)
    for path in sorted(folder.glob("*_claims.json"))
  }


def readme_table(found: Kept) -> str:
  """The table of the README.

  Args:
    found: of `kept`.

  Returns:
    Markdown: claim, place, verdict, what was found, and where.
  """
  pages = _pages()
  # Of a task with two sets of data the one whose rows are tuned comes first.
  rows = [row for several in found.values() for row in several]
  grouped = claim_list.grouped(rows)
  lines = []
  for name, words in HEADLINES.items():
    claim = max(
      (c for c in grouped if c.id == name or c.covers(name)),
      key=lambda c: len(c.id),
    )
    own = [r for r in grouped[claim] if claim.is_many or r.id.startswith(name)]
    best = [
      row
      for row in own
      if row.id.endswith(".tuned") and row.verdict != "not reached"
    ]
    page = pages[claim.section]
    line = {
      "the paper's claim": words,
      "place": claim.place,
      "verdict": paper_report.NOT_RUN,
      "ours": "",
      "page": f"[{page.removesuffix('.md')}](docs/results/{page})",
    }
    if claim.is_many and own:
      holding = sum(row.verdict == "holds" for row in own)
      line["verdict"] = f"{holding} of {len(own)} hold"
    elif own:
      row = (best or own)[0]
      line["verdict"] = row.verdict
      told = [paper_report.effect(claim, row)]
      if told[0] and name in UNITS:
        told[0] += f" {UNITS[name]}"
      if row.beside.startswith("all of"):
        told = [", ".join(r.beside.partition(";")[0] for r in own[1:3])]
      elif not claim.is_speed or not told[0]:
        told.append(row.beside.partition(";")[0])
      line["ours"] = "; ".join(filter(None, told))
    lines.append(line)
  return report.markdown(lines)


def index(found: Kept) -> str:
  """docs/results/index.md: every claim and its verdict, by what judged it.

  Args:
    found: of `kept`.
  """
  text = [
    "# Results\n",
    "Every verdict that the reported runs got by the rules of"
    " [claims.md](../claims.md). This page is written by `python -m"
    " experiments.results` from the files named in it; the pages linked tell"
    " the commands, data, figures and what it means. A ratio is of speeds,"
    " above 1 where the claim has it, with a 95 % interval over seeds.\n",
  ]
  pages = _pages()
  for name, rows in found.items():
    title = name.replace("_", " ")
    text.append(f"## {title[0].upper()}{title[1:]}\n")
    judged = {c: own for c, own in claim_list.grouped(rows).items() if own}
    page = pages[next(iter(judged)).section]
    text.append(f"[{page}]({page}); [{name}_claims.json]({name}_claims.json)\n")
    text.append(report.markdown(paper_report.lines_of(judged)))
  every = [row for several in found.values() for row in several]
  missing = [c for c, own in claim_list.grouped(every).items() if not own]
  if missing:
    text.append("## Not run\n")
    text.append("\n".join(f"- `{c.id}`: {c.words}" for c in missing) + "\n")
  return "\n".join(text)


def scales() -> str:
  """docs/results/costs.md: what every scale costs."""
  text = [
    "# What the scales cost\n",
    "What `python -m experiments.reproduce --scale=SCALE --plan` says of every"
    " scale, from [costs.json](costs.json), which `python -m experiments.costs`"
    " measures. This page is written by `python -m experiments.results`.\n",
  ]
  for scale in paper.SCALES:
    how, _, rows = costs.table(list(paper.TASKS), scale).partition("\n\n")
    if scale == paper.SCALES[0]:
      text.append(f"{how}\n")
    text.append(f"## Scale {scale}\n\n{rows}")
  return "\n".join(text)


def _pages() -> dict[str, str]:
  """{section of docs/claims.md: the page of docs/results that tells of it}."""
  return {
    section: task.page
    for task in paper.TASKS.values()
    for section in task.sections
  }


def made(found: Kept) -> Mapping[pathlib.Path, str]:
  """{file: its text}, of all that is written.

  Raises:
    UserError: the README lacks the marks between which its table stands.
  """
  readme = ROOT / "README.md"
  text = readme.read_text("utf-8")
  head, begin, rest = text.partition(BEGIN)
  _, end, tail = rest.partition(END)
  if not (begin and end):
    raise UserError(f"{readme}: lacks the lines {BEGIN} and {END}")
  table = f"{head}{BEGIN}\n{readme_table(found)}{END}{tail}"
  return {
    readme: table,
    FOLDER / "index.md": index(found),
    FOLDER / "costs.md": scales(),
  }


def main() -> None:
  """Writes the tables, or compares."""
  for path, text in made(kept()).items():
    there = path.read_text("utf-8") if path.exists() else ""
    if there == text:
      continue
    if _CHECK.value:
      raise UserError(
        f"{path}: is not as `python -m experiments.results` makes"
      )
    with files.writing(path), files.atomic(path) as part:
      part.write_text(text, encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
  launch.run(main)
