"""The Fisher metric of section 5.2: closed form, autodiff, learning rates."""

import pathlib

import jax
import numpy as np

from experiments import fisher_runs as runs
from experiments.fisher_runs import Found
from experiments.sections import Section
from lnrnn import claims, plotting, report
from lnrnn.analysis import fisher

NETWORKS = 20
EXACT = 1e-8  # Tolerances of docs/claims.md.
HALF, SAME, DIFFERS = 1e-6, 1e-9, 1e-3


def section(out: pathlib.Path) -> Section:
  """Computes everything and draws it.

  Args:
    out: folder of the figure.

  Returns:
    The part of the report, with all `fisher.` rows of docs/claims.md.

  Source: Ba et al. 2016, section 5.2 and supplement, eqs. (8)-(14), (32)-(35).
  """
  with jax.enable_x64(True):
    models = fisher.draw(NETWORKS, seed=runs.SEED)
    forms, gains = runs.form_gaps(models), runs.gain_form_gaps(models)
    widths = dict(zip(runs.WIDTHS, runs.layer_gaps(), strict=True))
    along, lengths = runs.along_weights(models), runs.by_length(models)
    doubled, inputs = runs.on_doubling(models), runs.by_input(models)
  _draw(lengths, inputs, widths, out / "fisher.png")
  numbers = {
    "networks": NETWORKS,
    "form_gaps": forms,
    "gain_form_gaps": gains,
    "layer_gaps": {str(h): gap for h, gap in widths.items()},
    "along_weights": along,
    "doubling": doubled,
    "lengths": list(runs.LENGTHS),
    "by_length": {
      norm: {name: v.mean(axis=0).tolist() for name, v in row.items()}
      for norm, row in lengths.items()
    },
    "inputs": list(runs.INPUTS),
    "by_input": {
      norm: {name: v.max(axis=0).tolist() for name, v in row.items()}
      for norm, row in inputs.items()
    },
  }
  return Section(
    "The Fisher metric",
    _text(forms, gains, widths, along, doubled),
    _rows(forms, widths, doubled, lengths, inputs),
    numbers,
  )


def _rows(
  forms: Found,
  widths: dict[int, float],
  doubled: Found,
  lengths: Found,
  inputs: Found,
) -> list[claims.Row]:
  """The verdicts of docs/claims.md."""
  rows = []
  for norm, short in (("batch", "bn"), ("weight", "wn"), ("layer", "ln")):
    own = forms[norm]["own block"]
    beside = ""
    if norm == "layer":
      shown = [
        f"{widths[h]:.2g} at H = {h:,}" for h in (min(widths), max(widths))
      ]
      beside = f"mean with Gaussian outputs: {', '.join(shown)}"
    rows.append(
      claims.exact(
        f"fisher.form.{short}", own <= EXACT, f"largest gap {own:.1e}", beside
      )
    )
  claimed = [doubled[n]["own"] for n in ("batch", "weight")]
  half = all(abs(r - 0.5) <= HALF for pair in claimed for r in pair)
  told = ", ".join(
    f"{name} {_range(doubled[name]['own'])}"
    for name in ("batch", "weight", "layer, w_i alone", "layer, all of W")
  )
  crossed = ", ".join(
    f"{name} {_range(doubled[name]['cross'])}" for name in ("batch", "weight")
  )
  rows.append(
    claims.exact("fisher.half", half, told, f"cross blocks: {crossed}")
  )
  falls = all(
    bool((np.diff(lengths[norm][name], axis=1) < 0).all())
    for norm in ("batch", "weight", "layer")
    for name in ("trace", "eigenvalue")
  )
  told = ", ".join(
    f"{norm} {_spread(lengths[norm]['trace'])}"
    for norm in ("batch", "weight", "layer", "none")
  )
  rows.append(
    claims.exact(
      "fisher.early-stop", falls, f"trace at 1/4 over that at 4: {told}"
    )
  )
  for norm, short in (("batch", "bn"), ("layer", "ln")):
    largest = float(inputs[norm]["change"].max())
    rows.append(
      claims.exact(
        f"fisher.gain-scale.{short}",
        largest <= SAME,
        f"largest change {largest:.1e}",
      )
    )
  # At scale 1 itself nothing changes.
  other = np.array(runs.INPUTS) != 1
  least = {
    n: float(inputs[n]["change"][:, other].min()) for n in ("none", "weight")
  }
  rows.append(
    claims.exact(
      "fisher.plain-scale",
      least["none"] >= DIFFERS,
      f"least change {least['none']:.1e}",
      f"weight norm {least['weight']:.1e}",
    )
  )
  return rows


def _range(pair: list[float]) -> str:
  low, high = pair
  return f"{low:.4g}" if high - low < 1e-6 else f"{low:.3g} to {high:.3g}"


def _spread(trace: np.ndarray) -> str:
  return f"{np.median(trace[:, 0] / trace[:, -1]):.4g}"


def _text(
  forms: Found,
  gains: dict[str, float],
  widths: dict[int, float],
  along: Found,
  doubled: Found,
) -> str:
  gaps = [
    {
      "norm": plotting.norm_label(norm),
      **{name: f"{value:.1e}" for name, value in row.items()},
    }
    for norm, row in forms.items()
  ]
  by_width = [
    {
      "H": "gap",
      **{f"{h:,}": f"{value:.2g}" for h, value in widths.items()},
    }
  ]
  zero = [
    {
      "norm": plotting.norm_label(norm),
      **{name: f"{pair[0]:.0e} to {pair[1]:.0e}" for name, pair in row.items()},
    }
    for norm, row in along.items()
  ]
  ratios = [
    {
      "doubled": name,
      **{
        side: _range(row[side]) if side in row else "0 / 0"
        for side in ("own", "cross")
      },
    }
    for name, row in doubled.items()
  ]
  return f"""
Random models of 6 outputs and 8 inputs, {NETWORKS} of them, 64 cases each,
float64, eps 0; batch norm by the statistics of all cases, differentiated
through. Outputs are of a softmax, unless another family is named.

The closed form of eqs. (12) and (13) against automatic differentiation:
relative gap in the Frobenius norm, the largest over networks and outputs, and
over Gaussian, Bernoulli and softmax outputs.

{report.markdown(gaps)}
It is exact for batch and weight norm. Under layer norm the outputs share mean
and variance, so output j depends on w_i too, which chi_i leaves out. That gap
of the own block F_ii falls with the number of outputs H, about as 1/H (mean of
5 networks with Gaussian outputs):

{report.markdown(by_width)}
Along w_i itself batch and weight norm have no curvature at all, and layer norm
has none along the whole of W: |F u| / |F|, least and largest over networks.

{report.markdown(zero)}
So w_i can only grow by what is orthogonal to it, and there the metric falls
when it does. Section 5.2.2 says by 1/2 when the norm of w_i doubles. By its
own eq. (13) the own block falls to 1/4, and the cross blocks F_ij to 1/2;
under layer norm all blocks fall to 1/4 when all of W doubles, and there is no
fixed factor when w_i alone does: the metric may even grow. Ratios of d^T F_ii d
(own, d orthogonal to w_i) and d^T F_ij e (cross), least and largest over
networks:

{report.markdown(ratios)}
![The Fisher metric](fisher.png)

Above: trace and largest eigenvalue of F_ii's weight part against the norm of
w_i (of all of W for layer norm), each relative to that at norm 1, means over
networks. Batch, weight and layer norm are one line, the norm to the power of
-2. Without norm the metric follows the covariance of the outputs alone, and
with Gaussian outputs it would stay where it is.

Below, left: the trace of the metric along the gains when the inputs are scaled
and the covariance of the outputs is held, relative to that at scale 1. Batch
and layer norm do not see the scale. For weight norm the metric grows as its
square, just as along w_i / |w_i| without norm: eqs. (34) and (35) are one
expression. Eq. (32), for batch norm, has the mean 1 in place of the squared
normalised activity, which is right only where the covariance of the outputs
does not depend on x: its gap to the exact block is {gains["gaussian"]:.0e} at
most with Gaussian outputs, {gains["bernoulli"]:.2f} with Bernoulli outputs and
{gains["categorical"]:.2f} with a softmax. Right: the gap of layer norm's own
block.
"""


def _draw(
  lengths: Found,
  inputs: Found,
  widths: dict[int, float],
  path: pathlib.Path,
) -> None:
  line = lambda norm, x, y: plotting.Line(
    plotting.norm_label(norm), np.array(x), y, norm
  )
  middle = runs.LENGTHS.index(1.0)
  by_length = [
    plotting.Panel(
      title,
      "log2 of the norm of w",
      "relative to norm 1",
      # Logarithms, as the ticks of a short logarithmic axis run together.
      [
        line(
          norm,
          np.log2(runs.LENGTHS),
          (row[name] / row[name][:, [middle]]).mean(axis=0)[None],
        )
        for norm, row in lengths.items()
      ],
      log=True,
    )
    for title, name in (
      ("trace of F_ii", "trace"),
      ("largest eigenvalue of F_ii", "eigenvalue"),
    )
  ]
  by_input = plotting.Panel(
    "metric along the gain",
    "scale of the inputs",
    "trace relative to scale 1",
    [
      line(norm, runs.INPUTS, row["trace"].mean(axis=0)[None])
      for norm, row in inputs.items()
    ],
    log=True,
    logx=True,
  )
  gap = plotting.Panel(
    "closed form under layer norm",
    "outputs H",
    "relative gap of F_ii",
    [line("layer", list(widths), np.array([list(widths.values())]))],
    log=True,
    logx=True,
  )
  plotting.curves([by_length, [by_input, gap]], path)
