"""Stability of the hidden dynamics: the paper's central sentence, measured."""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import numpy as np

from experiments import dynamics_runs as runs
from experiments import dynamics_trained
from experiments.dynamics_runs import (
  BLANK,
  ENDS,
  KINDS,
  NOISE,
  RUN_IN,
  SCALES,
  SIDE,
  VARIANTS,
  Sizes,
)
from experiments.sections import Section
from lnrnn import claims, metrics, plotting, report

TOLERANCE = 1e-9  # Of `stable.scale`.


def section(out: pathlib.Path, *, sizes: Sizes | None = None) -> Section:
  """Measures the hidden dynamics, and draws dynamics.png.

  Args:
    out: folder of the figure.
    sizes: how much is computed; None for all of it.

  Returns:
    The part of the report, with `stable.scale` and `stable.jacobian`.

  Source: Ba et al. 2016, sections 1, 3.1 and 7.
  """
  sizes = sizes or Sizes()
  changes = runs.changes()
  random = {kind: runs.random(kind, sizes) for kind in KINDS}
  products = runs.products(sizes)
  trained = dynamics_trained.trained(sizes)
  _draw(out / "dynamics.png", random, products, trained)

  worst = max(changes[kind, "layer", "separate"]["W_h"].max() for kind in KINDS)
  beside = [f"GRU {_effect(random['GRU']).mean():+.3g}"]
  for kind, found in trained.items():
    rates = {label: m["growth"] for label, m in found.items()}
    beside.append(f"trained {kind} {_effect(rates).mean():+.3g}")
  rows = [
    claims.exact(
      "stable.scale",
      bool(worst <= TOLERANCE),
      f"largest relative change {worst:.1e}",
      "LSTM and GRU",
    ),
    claims.told(
      "stable.jacobian",
      metrics.verdict(_effect(random["LSTM"]), claimed="negative"),
      None,
      ", ".join(beside),
    ),
  ]
  numbers = {
    "scales": SCALES.tolist(),
    "change": {
      " ".join(place): {what: v.tolist() for what, v in found.items()}
      for place, found in changes.items()
    },
    "growth": _listed(random),
    "product": _listed(products),
    "trained": _listed(trained),
  }
  text = _text(sizes, changes, random, trained)
  return Section("Stability of the hidden dynamics", text, rows, numbers)


def _effect(rates: Mapping[str, np.ndarray]) -> np.ndarray:
  """Spread over the scales, layer norm - none: {label: [s, n]} -> [n]."""
  spread = lambda label: np.ptp(rates[label], axis=0)
  return spread("layer norm") - spread("no norm")


def _listed(tree: Any) -> Any:
  return jax.tree.map(np.ndarray.tolist, tree)


def _draw(
  path: pathlib.Path,
  random: Mapping[str, Mapping[str, np.ndarray]],
  products: Mapping[str, np.ndarray],
  trained: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> None:
  """Draws the three rows: LSTMs, GRUs, products of Jacobians."""
  colours = {v.label: v.norm for v in VARIANTS}
  colours["weight norm, gain scaled"] = ""  # The one without a colour.
  line = lambda label, x, y: plotting.Line(label, x, y, colours[label])
  rate, scale = "growth, nats per step", "factor of the recurrent weights"
  grid = []
  for kind in KINDS:
    drawn = {
      f"random {kind}": (rate, random[kind]),
      f"trained {kind}": (
        rate,
        {k: m["growth"] for k, m in trained[kind].items()},
      ),
      f"trained {kind}, not trained again": (
        "test accuracy",
        {k: m["accuracy"] for k, m in trained[kind].items()},
      ),
    }
    grid.append(
      [
        plotting.Panel(
          title,
          scale,
          ylabel,
          [line(label, SCALES, y.T) for label, y in found.items()],
          logx=True,
        )
        for title, (ylabel, found) in drawn.items()
      ]
    )
  grid.append(
    [
      plotting.Panel(
        f"random LSTM, factor {factor:g}",
        "time step",
        "ln norm of the Jacobian product",
        [
          line(label, np.arange(1, y.shape[-1] + 1), y[i])
          for label, y in products.items()
        ],
      )
      for i, factor in enumerate(SCALES[ENDS])
    ]
  )
  plotting.curves(grid, path)


def _text(
  sizes: Sizes,
  changes: Mapping[tuple[str, str, str], Mapping[str, np.ndarray]],
  random: Mapping[str, Mapping[str, np.ndarray]],
  trained: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> str:
  """Tables, figure and how to read it."""
  first = []
  for (kind, norm, form), found in changes.items():
    row = {"cell": kind, "norm": norm, "form": form}
    for what, values in found.items():
      same = values.max() <= TOLERANCE
      shown = values.max() if same else values.min()
      row[f"{what} scaled"] = f"{shown:.1e}" + (" (same)" if same else "")
    first.append(row)
  second, third = [], []
  for kind, several in random.items():
    for label, r in several.items():
      row = {"cell": kind, "norm": label}
      row |= {f"growth at {SCALES[i]:g}": f"{r[i].mean():+.3f}" for i in ENDS}
      row["spread"] = f"{np.ptp(r, axis=0).mean():.3f}"
      second.append(row)
  for kind, several in trained.items():
    for label, m in several.items():
      row = {"cell": kind, "norm": label}
      for i in ENDS:
        shown = f"{m['accuracy'][i].mean():.3f}"
        if label == "batch norm":
          shown += f" ({m['kept'][i].mean():.3f})"
        row[f"accuracy at {SCALES[i]:g}"] = shown
      row |= {
        f"growth at {SCALES[i]:g}": f"{m['growth'][i].mean():+.3f}"
        for i in ENDS
      }
      row["spread"] = f"{np.ptp(m['growth'], axis=0).mean():.3f}"
      third.append(row)
  at_one = lambda kind, label: random[kind][label][4].mean()
  growing = (random["LSTM"]["layer norm"][4] > 0).sum()
  return f"""The state is (c, h) of an LSTM and h of a GRU. Weights start as in
all tasks here: recurrent matrices orthogonal, input matrices uniform in
+-0.1, gains 1 (batch norm's 0.1), biases 0; equal draws for all norms. Every
sequence starts from c = 0 and h of standard deviation {NOISE:g}. W_h is
multiplied by 0.1 ... 10. Under weight norm W_h holds directions, which have no
scale, so its gain is scaled too; before training that is the same as no norm.

**What leaves the hidden states as they are.** Relative change of h over 20
steps in float64 with eps 0: the largest over networks where it is within
{TOLERANCE:g}, else the smallest.

{report.markdown(first)}
**Random networks.** Mean growth of a perturbation, nats per step, over
{sizes.steps} steps of normal inputs after {RUN_IN} to run in;
{sizes.networks} networks of {sizes.features} units, eps 1e-5. Spread is the
largest rate over the scales less the smallest. Batch norm's statistics are
taken anew at each scale, of {sizes.sequences} sequences, and then held as at
test, so that the perturbation is of one case as for the other norms.

{report.markdown(second)}
**Trained networks.** Digits of the embedded sample read row by row,
{sizes.updates} updates of Adam (3e-3, 32 digits, clipped at 1),
{sizes.seeds} seeds. W_h is scaled afterwards, nothing is trained again; the
growth is that over rows {BLANK + 1} to {SIDE} of test digits, as the upper rows
are blank. Accuracy of batch norm: with statistics taken anew at each scale (in
brackets with those of scale 1).

{report.markdown(third)}
![growth rates, accuracy and Jacobian products](dynamics.png)

**Reading the figure.** Lines are means over networks or seeds, bands their
range. A flat line is a network whose dynamics do not know the scale of W_h; a
line below 0 forgets what happened to its state, one above 0 amplifies it. The
lower row follows the Frobenius norm of the whole product of Jacobians. Layer
norm takes the scale out, as batch and RMS norm and weight norm's directions
do: so the small spread is less a finding than the invariance of the first
table, up to eps. What level it leaves is another matter. At factor 1 an
LN-LSTM's perturbations change by {at_one("LSTM", "layer norm"):+.3f} nats per
step, and grow in {growing} of {sizes.networks} networks; without norm it is
{at_one("LSTM", "no norm"):+.3f}, and for GRUs
{at_one("GRU", "layer norm"):+.3f} against {at_one("GRU", "no norm"):+.3f}. A
rate above 0 means that layer norm does not make the dynamics contract: it
keeps them from depending on the scale of the weights."""
