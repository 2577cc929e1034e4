"""Table 1 of the paper, computed: invariances of normalised networks."""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.sections import Section
from lnrnn import claims, norms, plotting, report
from lnrnn.analysis import invariance

NETWORKS, SEED = 32, 0
EPS = 1e-5  # The usual one.
SCALES = tuple(10.0**-k for k in np.arange(0, 4.5, 0.5))  # Of the inputs.
# Tolerances of docs/claims.md.
SAME, DIFFERS = 1e-9, 1e-3
SHOWN = {
  "batch": "Batch norm",
  "weight": "Weight norm",
  "layer": "Layer norm",
  "rms": "RMS norm (not the paper's)",
  "none": "No norm (not the paper's)",
}
PAPERS = ("batch", "weight", "layer")

Cells = Mapping[str, Mapping[str, np.ndarray]]


def cells(draws: invariance.Draw, **options: float) -> Cells:
  """{norm: {transformation: [networks] changes}}; as `invariance.changes`."""
  return {
    norm: {
      name: invariance.changes(norm, name, draws, **options)
      for name in invariance.TRANSFORMATIONS
    }
    for norm in invariance.NORMS
  }


def shift_change(*, seed: int, cases: int = 64, h: int = 16) -> float:
  """Largest change of layer norm's output when a becomes a + c 1.

  Source: Ba et al. 2016, section 7, on shifts of a case's features; it holds
  of the summed inputs, not of the data (Table 1).
  """
  rng = np.random.default_rng(seed)
  a, c = rng.normal(size=(cases, h)), rng.normal(size=(cases, 1)) * 10
  before, after = (
    norms.layer_norm(jnp.asarray(v), jnp.ones(h), None, eps=0.0)
    for v in (a, a + c)
  )
  return float(jnp.abs(after - before).max())


def section(out: pathlib.Path) -> Section:
  """Computes the table, and what the usual eps makes of it.

  Args:
    out: folder of the figure.
  """
  with jax.enable_x64(True):
    draws = invariance.draw(NETWORKS, seed=SEED)
    exact = cells(draws)
    by_scale = {
      norm: {
        name: [
          float(
            invariance.changes(norm, name, draws, eps=EPS, scale=scale).max()
          )
          for scale in SCALES
        ]
        for name in invariance.TRANSFORMATIONS
        if name in invariance.INVARIANT[norm]
      }
      for norm in invariance.NORMS
    }
    shift = shift_change(seed=SEED)
  _draw(by_scale, out / "table1_eps.png")
  return Section(
    "Table 1: invariances",
    _text(exact, by_scale, shift),
    _rows(exact, shift),
    {
      "networks": NETWORKS,
      "changes": {
        norm: {
          name: [float(v.min()), float(v.max())] for name, v in row.items()
        }
        for norm, row in exact.items()
      },
      "scales": list(SCALES),
      "with_eps": by_scale,
      "shift": shift,
    },
  )


def _rows(exact: Cells, shift: float) -> list[claims.Row]:
  """The verdicts of docs/claims.md."""
  rows = []
  for norm in PAPERS:
    for name, found in exact[norm].items():
      claim = f"table1.{norm}.{name.replace(' ', '-')}"
      if name in invariance.INVARIANT[norm]:
        met, effect = found.max() <= SAME, f"largest change {found.max():.1e}"
      else:
        met, effect = found.min() >= DIFFERS, f"least change {found.min():.1e}"
      rows.append(claims.exact(claim, bool(met), effect))
  largest = {n: float(exact[n]["dataset re-scaling"].max()) for n in PAPERS}
  told = ", ".join(f"{norm} {value:.1e}" for norm, value in largest.items())
  rows.append(claims.exact("table1.prose", max(largest.values()) <= SAME, told))
  moved = float(exact["layer"]["dataset re-centering"].min())
  rows.append(
    claims.exact(
      "invariant.shift",
      shift <= SAME,
      f"largest change {shift:.1e}",
      f"under a shift of the data {moved:.1e} at least",
    )
  )
  return rows


def _text(exact: Cells, by_scale: Mapping[str, Any], shift: float) -> str:
  table = []
  for norm, row in exact.items():
    cell: dict[str, str] = {"": SHOWN[norm]}
    for name, found in row.items():
      invariant = name in invariance.INVARIANT[norm]
      number = found.max() if invariant else found.min()
      cell[name] = f"{'invariant' if invariant else 'no'} ({number:.0e})"
    table.append(cell)
  eps = []
  for norm, row in by_scale.items():
    for name, values in row.items():
      at = dict(zip(SCALES, values, strict=True))
      eps.append(
        {
          "": SHOWN[norm],
          "transformation": name,
          **{f"scale {s:g}": f"{at[s]:.0e}" for s in (1.0, 1e-2, 1e-4)},
        }
      )
  return f"""
The largest relative change of a case's outputs, over the {NETWORKS} random
networks of two normalised layers (float64, eps 0): the maximum over networks
where the paper's table says "invariant", the minimum where it says "no".

{report.markdown(table)}
The text of section 5.1 says that all three are invariant to re-scaling the
data; the table, and the numbers, say that weight norm is not. Layer norm does
not see a shift of a case's summed inputs ({shift:.0e}), but it sees one of the
data.

With the usual eps of {EPS:g} an invariance to a scale is approximate, and it is
gone where the variance of the summed inputs is no longer large against eps: the
changes below are at inputs of standard deviation 1, 1e-2 and 1e-4. Invariances
to a shift stay, as eps does not enter the mean (what grows there for batch norm
is rounding: the shift is not scaled with the data). Weight norm has no eps.

{report.markdown(eps)}
![Invariance and eps](table1_eps.png)
"""


def _draw(by_scale: Mapping[str, Any], path: pathlib.Path) -> None:
  panels = [
    plotting.Panel(
      name,
      "standard deviation of the inputs",
      "largest relative change",
      [
        plotting.Line(
          plotting.norm_label(norm),
          np.array(SCALES),
          np.maximum([row[name]], 1e-17),
          norm,
        )
        for norm, row in by_scale.items()
        if name in row
      ],
      log=True,
      logx=True,
    )
    for name in invariance.TRANSFORMATIONS
  ]
  plotting.curves([panels[:3], panels[3:]], path)
