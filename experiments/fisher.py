"""The Fisher metric of section 5.2: closed form, autodiff, learning rates."""

from collections.abc import Callable
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.sections import Section
from lnrnn import claims, plotting, report
from lnrnn.analysis import fisher
from lnrnn.analysis.fisher import Model

NETWORKS, SEED = 20, 0
LENGTHS = tuple(2.0**k for k in np.arange(-2, 2.25, 0.25))  # Of w, relative.
INPUTS = tuple(10.0**k for k in np.arange(-1, 1.25, 0.25))  # Scale of x.
WIDTHS = tuple(2**k for k in range(2, 11))  # H, of the gap under layer norm.
EXACT = 1e-8  # Tolerances of docs/claims.md.
HALF, SAME, DIFFERS = 1e-6, 1e-9, 1e-3
NORMS = ("none", "weight", "batch", "layer")

Found = dict[str, Any]


def _over(models: Model, one: Callable[[Model], Any]) -> Any:
  """`one` of every network, as NumPy arrays with a leading axis."""
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(models))


def longer(norm: str, model: Model, factor: Any, *, alone: bool = False):
  """The model with w_0 longer, or, under layer norm, all of W.

  Args:
    norm: of the model.
    model: to change.
    factor: of the length.
    alone: w_0 alone under layer norm too.
  """
  if norm == "layer" and not alone:
    return model._replace(w=model.w * factor)
  return model._replace(w=model.w.at[0].multiply(factor))


def exact_metric(norm: str, model: Model, family: str) -> jax.Array:
  """The metric by automatic differentiation, [H, d + 2, H, d + 2]."""
  cov = fisher.covariance(family, fisher.natural(norm, model))
  return fisher.metric(fisher.derivatives(norm, model), cov)


def form_gaps(models: Model) -> Found:
  """Relative gap of own blocks and of the whole metric, closed form to exact.

  The largest over networks and families.
  """
  found: Found = {}
  for norm in ("weight", "batch", "layer"):

    def one(model: Model, family: str, norm: str = norm):
      z = fisher.natural(norm, model)
      cov = fisher.covariance(family, z)
      closed = fisher.closed_form(norm, model, cov)
      exact = fisher.metric(fisher.derivatives(norm, model), cov)
      own = jnp.stack(
        [fisher.gap(closed[i, :, i], exact[i, :, i]) for i in range(len(z[0]))]
      )
      return own.max(), fisher.gap(closed, exact)

    gaps = [
      _over(models, lambda m, f=family: one(m, f)) for family in fisher.FAMILIES
    ]
    own, whole = (float(np.max([g[i] for g in gaps])) for i in (0, 1))
    found[norm] = {"own block": own, "all blocks": whole}
  return found


def layer_gaps() -> list[float]:
  """Mean relative gap of layer norm's own block, for each of `WIDTHS`."""

  def one(model: Model):
    cov = fisher.covariance("gaussian", fisher.natural("layer", model))
    exact = fisher.own_block(fisher.own_derivatives("layer", model, 0), cov)
    # The closed form's own block needs output 0 alone.
    chi, n, sigma = fisher.chi("layer", model)
    by_w = (model.gain[0] / sigma[:, 0])[:, None] * chi[:, 0]
    v = jnp.concatenate([by_w, jnp.ones_like(n[:, :1]), n[:, :1]], axis=1)
    closed = jnp.einsum("n,np,nq->pq", cov[:, 0, 0], v, v) / len(cov)
    return fisher.gap(closed, exact)

  return [
    float(_over(fisher.draw(5, seed=SEED, outputs=h), one).mean())
    for h in WIDTHS
  ]


def along_weights(models: Model) -> Found:
  """|F u| / |F| for u along w_0; and, beside, along all of W.

  The largest over networks; the outputs are of a softmax.
  """
  found: Found = {}
  for norm in NORMS:

    def one(model: Model, norm: str = norm):
      f = exact_metric(norm, model, "categorical")
      d = model.w.shape[1]
      alone = jnp.zeros(f.shape[:2]).at[0, :d].set(model.w[0])
      whole = jnp.zeros(f.shape[:2]).at[:, :d].set(model.w)
      size = jnp.linalg.norm(f.reshape(f.shape[0] * f.shape[1], -1))
      return [
        jnp.linalg.norm(jnp.tensordot(f, u / jnp.linalg.norm(u), 2)) / size
        for u in (alone, whole)
      ]

    alone, whole = _over(models, one)
    found[norm] = {
      "along w_i": [float(alone.min()), float(alone.max())],
      "along all of W": [float(whole.min()), float(whole.max())],
    }
  return found


def by_length(models: Model) -> Found:
  """Trace and largest eigenvalue of F_ii's weight part by the length of w_i.

  {norm: {"trace", "eigenvalue": [networks, lengths]}}; the outputs are of a
  softmax, and under layer norm all of W gets longer.
  """
  found: Found = {}
  for norm in NORMS:

    def one(model: Model, norm: str = norm):
      d = model.w.shape[1]

      def at(factor):
        f = exact_metric(norm, longer(norm, model, factor), "categorical")
        block = f[0, :d, 0, :d]
        return jnp.trace(block), jnp.linalg.eigvalsh(block)[-1]

      return jax.vmap(at)(jnp.array(LENGTHS))

    trace, eigenvalue = _over(models, one)
    found[norm] = {"trace": trace, "eigenvalue": eigenvalue}
  return found


def on_doubling(models: Model) -> Found:
  """Ratios of curvatures after w_0 has doubled to those before.

  {case: {"own", "cross": [least, largest]}}: d^T F_00 d for a d orthogonal to
  w_0, and d^T F_01 e for some e. The outputs are of a softmax.
  """
  found: Found = {}
  cases = [(norm, False) for norm in NORMS] + [("layer", True)]
  for norm, alone in cases:

    def one(model: Model, norm: str = norm, alone: bool = alone):
      d = model.w.shape[1]
      # Some direction, made orthogonal, and another for the other side.
      w, u = model.w[0], model.w[1]
      u = u - w * (u @ w) / (w @ w)
      e = model.w[2]

      def curvatures(model):
        f = exact_metric(norm, model, "categorical")
        return u @ f[0, :d, 0, :d] @ u, u @ f[0, :d, 1, :d] @ e

      before = curvatures(model)
      after = curvatures(longer(norm, model, 2.0, alone=alone))
      return [a / b for a, b in zip(after, before, strict=True)]

    own, cross = _over(models, one)
    name = {"layer": "layer, all of W"}.get(norm, norm)
    found["layer, w_i alone" if alone else name] = {
      "own": [float(own.min()), float(own.max())],
      "cross": [float(cross.min()), float(cross.max())],
    }
  return found


def by_input(models: Model) -> Found:
  """The metric along the gains by the scale of the inputs.

  {norm: [networks, scales]}: relative change of the blocks of all gains; for
  no norm, along w_i / |w_i| of all i (eq. 35). The covariance of the outputs
  is held at what it is at scale 1.
  """
  found: Found = {}
  for norm in NORMS:

    def one(model: Model, norm: str = norm):
      cov = fisher.covariance("categorical", fisher.natural(norm, model))

      def along(scale):
        scaled = model._replace(x=model.x * scale)
        derived = fisher.derivatives(norm, scaled)
        if norm != "none":
          return fisher.metric(derived, cov)[:, -1, :, -1]
        unit = model.w / jnp.linalg.norm(model.w, axis=1, keepdims=True)
        d = model.w.shape[1]
        own = jnp.einsum("nkid,id->nki", derived[..., :d], unit)[..., None]
        return fisher.metric(own, cov)[:, 0, :, 0]

      at_one = along(1.0)
      return jax.vmap(lambda s: fisher.gap(along(s), at_one))(jnp.array(INPUTS))

    found[norm] = _over(models, one)
  return found


def section(out: pathlib.Path) -> Section:
  """Computes everything and draws it.

  Args:
    out: folder of the figure.
  """
  with jax.enable_x64(True):
    models = fisher.draw(NETWORKS, seed=SEED)
    forms, widths = form_gaps(models), layer_gaps()
    along, lengths = along_weights(models), by_length(models)
    doubled, inputs = on_doubling(models), by_input(models)
  _draw(lengths, inputs, widths, out / "fisher.png")
  numbers = {
    "networks": NETWORKS,
    "form_gaps": forms,
    "layer_gaps": dict(zip(map(str, WIDTHS), widths, strict=True)),
    "along_weights": along,
    "doubling": doubled,
    "lengths": list(LENGTHS),
    "by_length": {
      norm: {name: v.mean(axis=0).tolist() for name, v in row.items()}
      for norm, row in lengths.items()
    },
    "inputs": list(INPUTS),
    "by_input": {norm: v.max(axis=0).tolist() for norm, v in inputs.items()},
  }
  return Section(
    "The Fisher metric",
    _text(forms, widths, along, doubled),
    _rows(forms, widths, doubled, lengths, inputs),
    numbers,
  )


def _rows(
  forms: Found,
  widths: list[float],
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
      beside = f"gap {widths[0]:.2g} at H = {WIDTHS[0]}"
      beside += f", {widths[-1]:.2g} at H = {WIDTHS[-1]:,}"
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
    largest = float(inputs[norm].max())
    rows.append(
      claims.exact(
        f"fisher.gain-scale.{short}",
        largest <= SAME,
        f"largest change {largest:.1e}",
      )
    )
  # At scale 1 itself nothing changes.
  other = np.abs(np.log(INPUTS)) > 1e-9
  least = {n: float(inputs[n][:, other].min()) for n in ("none", "weight")}
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
  forms: Found, widths: list[float], along: Found, doubled: Found
) -> str:
  gaps = [
    {
      "norm": plotting.norm_label(norm),
      **{name: f"{value:.1e}" for name, value in row.items()},
    }
    for norm, row in forms.items()
  ]
  by_width = [
    {str(h): f"{value:.3f}" for h, value in zip(WIDTHS, widths, strict=True)}
  ]
  zero = [
    {
      "norm": plotting.norm_label(norm),
      **{name: f"{pair[0]:.0e} to {pair[1]:.0e}" for name, pair in row.items()},
    }
    for norm, row in along.items()
  ]
  ratios = [
    {"doubled": name, **{k: _range(v) for k, v in row.items()}}
    for name, row in doubled.items()
  ]
  return f"""
Random models of 6 outputs and 8 inputs, {NETWORKS} of them, 64 cases each,
float64, eps 0; batch norm by the statistics of all cases, differentiated
through. Outputs are Gaussian, Bernoulli or a softmax.

The closed form of eqs. (12) and (13) against automatic differentiation:
relative gap in the Frobenius norm, the largest over networks and outputs.

{report.markdown(gaps)}
It is exact for batch and weight norm. Under layer norm the outputs share mean
and variance, so output j depends on w_i too, which chi_i leaves out. That gap
of the own block F_ii falls with the number of outputs H:

{report.markdown(by_width)}
Along w_i itself batch and weight norm have no curvature at all, and layer norm
has none along the whole of W: |F u| / |F|, least and largest over networks.

{report.markdown(zero)}
So w_i can only grow by what is orthogonal to it, and there the metric falls
when it does. Section 5.2.2 says by 1/2 when the norm of w_i doubles. By its
own eq. (13) the own block falls by 1/4, and the cross blocks F_ij by 1/2;
under layer norm all blocks fall by 1/4 when all of W doubles, and there is no
fixed factor when w_i alone does. Ratios of d^T F_ii d (own, d orthogonal to
w_i) and d^T F_ij e (cross), least and largest over networks:

{report.markdown(ratios)}
![The Fisher metric](fisher.png)

Left: trace and largest eigenvalue of F_ii's weight part, mean over networks,
against the norm of w_i (of all of W for layer norm), both relative. Without
norm the metric follows the covariance of the outputs alone. Third: the change
of the metric along the gains when the inputs are scaled and the covariance of
the outputs is held: none for batch and layer norm. For weight norm it is the
same as along w_i / |w_i| without norm, as eqs. (34) and (35) are one
expression. Right: the gap of layer norm's own block.
"""


def _draw(
  lengths: Found, inputs: Found, widths: list[float], path: pathlib.Path
) -> None:
  line = lambda norm, x, y: plotting.Line(
    plotting.norm_label(norm), np.array(x), y, norm
  )
  by_length = [
    plotting.Panel(
      title,
      "norm of w (relative)",
      "relative",
      [
        line(norm, LENGTHS, (row[name] / row[name][:, [middle]]).mean(0)[None])
        for norm, row in lengths.items()
      ],
      log=True,
      logx=True,
    )
    for middle in [LENGTHS.index(1.0)]
    for title, name in (
      ("trace of F_ii", "trace"),
      ("largest eigenvalue of F_ii", "eigenvalue"),
    )
  ]
  by_input = plotting.Panel(
    "metric along the gain",
    "scale of the inputs",
    "relative change",
    [
      line(norm, INPUTS, np.maximum(v.max(axis=0), 1e-17)[None])
      for norm, v in inputs.items()
    ],
    log=True,
    logx=True,
  )
  gap = plotting.Panel(
    "closed form under layer norm",
    "outputs H",
    "relative gap of F_ii",
    [line("layer", WIDTHS, np.array([widths]))],
    log=True,
    logx=True,
  )
  plotting.curves([[*by_length, by_input, gap]], path)
