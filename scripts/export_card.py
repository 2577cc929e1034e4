"""The model card: README.md of an exported model."""

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any

from flax import linen as nn
import jax
import numpy as np

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

With the packages lnrnn and safetensors, from beside this folder:

```python
{code}
```

{files}

## Training

{training}

## Evaluation

{evaluation}

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
    code=usage(folder, example),
    files=" ".join(files),
    training=_training(run, normed),
    evaluation=_evaluation(run),
    limits=_limits(experiment),
  )


def usage(folder: str, example: Example | None) -> str:
  """Code that loads the model and applies it to zeros of the right shape."""
  named = json.dumps(folder, ensure_ascii=False)
  lines = ["import lnrnn", "", f"found = lnrnn.load_exported({named})"]
  if example is None:
    lines.append("# What found.model.apply takes after found.variables:")
    return "\n".join([*lines, "help(type(found.model).__call__)"])
  given = ["found.variables", *map(_code, example.args)]
  given += [f"{key}={_code(value)}" for key, value in example.kwargs.items()]
  if example.method != "__call__":
    given += [f"method={example.method!r}"]
  if keys := [name for name in example.rngs if name != "params"]:
    drawn = ", ".join(f"{name!r}: jax.random.key(0)" for name in keys)
    given += [f"rngs={{{drawn}}}"]
  call = f"y = found.model.apply({', '.join(given)})"
  lines.append(call)
  if "jnp." in call:
    lines.insert(0, "import jax.numpy as jnp")
  if "jax.random" in call:
    lines.insert(0, "import jax")
  return "\n".join(lines)


def _code(value: Any) -> str:
  """An argument as Python; arrays are zero."""
  if isinstance(value, jax.ShapeDtypeStruct):
    return f'jnp.zeros({value.shape}, "{np.dtype(value.dtype).name}")'
  if isinstance(value, Mapping):
    pairs = (f"{key!r}: {_code(held)}" for key, held in value.items())
    return f"{{{', '.join(pairs)}}}"
  if isinstance(value, list | tuple):
    return f"({''.join(f'{_code(held)}, ' for held in value)})"
  return repr(value)


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
  return _table(
    ("what", "value"),
    [
      ("normalisation", normed),
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
