"""The model card: README.md of an exported model."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import export_usage
from flax import linen as nn
import jax

from lnrnn.variables import Example

_CARD = """\
---
license: {license}
library_name: lnrnn
tags:
{tags}
---

# {title}

{about}

From ["Layer Normalization"](https://arxiv.org/abs/1607.06450) (Ba, Kiros and
Hinton, 2016), as reproduced by lnrnn; `{kind}`,
{size:,} parameters.

## Use

With lnrnn, safetensors and what these lines import, from beside this folder:

```python
{code}
```

{files}

## Training

{training}

## Evaluation

{evaluation}

With the data, from the root of lnrnn's repository, where FOLDER is this one:

```bash
python -m experiments.evaluate --exported=FOLDER
```

## Limits

{limits}
"""


def render(
  run: Mapping[str, Any],
  *,
  model: nn.Module,
  variables: Mapping[str, Any],
  about: str,
  assets: Sequence[str],
  example: Example | None,
  folder: str,
  license: str,
) -> str:
  """The text of the card.

  Args:
    run: of `export.run_record`.
    model: the module.
    variables: its collections.
    about: one line on the experiment, with its section of the paper.
    assets: names of what comes with the model.
    example: how the module is called; None if that is not known.
    folder: name of the exported folder.
    license: of the weights.

  Returns:
    Markdown, after the metadata in YAML that model hubs read.
  """
  config = run["config"]
  experiment, norm = config["experiment"], config["norm"]
  normed = "no norm" if norm == "none" else f"{norm} norm"
  tags = ["jax", "flax", "safetensors", "layer-normalization", experiment]
  kind = type(model)
  files = ["`config.json` holds the module's fields and the run's config."]
  files += [
    f"`{name}.json`, which `found.assets[{name!r}]` gives, comes with it."
    for name in assets
  ]
  return _CARD.format(
    license=license,
    tags="\n".join(f"- {tag}" for tag in tags),
    title=f"{experiment} with {normed}",
    about=about,
    kind=f"{kind.__module__}.{kind.__qualname__}",
    size=sum(math.prod(a.shape) for a in jax.tree.leaves(variables["params"])),
    code=export_usage.usage(config, folder, example),
    files=" ".join(files),
    training=_training(run, normed),
    evaluation=_evaluation(run),
    limits=_limits(experiment),
  )


def _training(run: Mapping[str, Any], normed: str) -> str:
  config = run["config"]
  optimizer = config["optimizer"]
  epochs = run["step"] / run["steps_per_epoch"]
  by = config.get("best")
  why = {"latest": "the last", "best": f"the best by {by}"}
  commit = run["git_commit"] or "not known"
  if commit.endswith("+"):
    commit = f"{commit[:-1]}, with changes"
  versions = {"python": run["python"], **run["versions"]}
  statistics = []
  if config["norm"] == "batch":
    most = config.get("eval_bn_batches", 0)
    how = f"taken anew over {most} minibatches of training, or all there are"
    statistics = [
      ("statistics", how if most else "the averages kept in training")
    ]
  return _table(
    ("what", "value"),
    [
      ("normalisation", normed),
      *statistics,
      ("data", run["data"]),
      ("fingerprint of the data", run["fingerprint"]),
      ("updates", f"{run['step']:,} of {config['train_steps']:,}"),
      ("epochs", f"{epochs:.3g}"),
      ("batch size", config["batch_size"]),
      ("checkpoint", why.get(run["checkpoint"], "chosen by its step")),
      (
        "optimiser",
        f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}"
        f" ({optimizer['schedule']})",
      ),
      ("seed", config["seed"]),
      ("commit of the code", commit),
      ("device", run["device"]),
      ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
    ],
  )


def _evaluation(run: Mapping[str, Any]) -> str:
  if not run["metrics"]:
    return "The run holds no evaluation up to this checkpoint."
  step = run["metrics_step"]
  when = "" if step == run["step"] else ", not that of this checkpoint"
  rows = [
    (name, "not finite" if value is None else f"{value:.5g}")
    for name, value in sorted(run["metrics"].items())
  ]
  return f"After update {step:,}{when}:\n\n{_table(('metric', 'value'), rows)}"


def _limits(experiment: str) -> str:
  return "\n".join(
    (
      "- A model for research on normalisation, of one run and one seed; it is",
      "  tested on the splits above and for nothing else.",
      f"- `experiments/{experiment}.py` of lnrnn prepares the inputs and has",
      "  the loss; here is the model alone.",
      "- The data is not part of this folder, and has a licence of its own.",
    )
  )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A Markdown table."""
  lines = [head, ["---"] * len(head), *rows]
  cells = ([str(cell).replace("|", "\\|") for cell in row] for row in lines)
  return "\n".join(f"| {' | '.join(row)} |" for row in cells)
