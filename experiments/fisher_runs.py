"""What is measured of the Fisher metric of section 5.2, on random models.

Where no family is named, the outputs are of a softmax, so that they depend on
each other.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn.analysis import fisher
from lnrnn.analysis.fisher import Model

SEED = 0
LENGTHS = tuple(2.0**k for k in np.arange(-2, 2.25, 0.25))  # Of w, relative.
INPUTS = tuple(10.0**k for k in np.arange(-1, 1.25, 0.25))  # Scale of x.
WIDTHS = tuple(2**k for k in range(2, 11))  # H, of the gap under layer norm.
NORMS = ("none", "weight", "batch", "layer")

Found = dict[str, Any]

# Models have a leading axis [n] here, and these are compiled once a norm.
_metric = jax.jit(jax.vmap(fisher.metric))
_gap = jax.jit(jax.vmap(fisher.gap))


@functools.partial(jax.jit, static_argnums=0)
def _derivatives(norm: str, models: Model) -> jax.Array:
  return jax.vmap(lambda m: fisher.derivatives(norm, m))(models)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _covariance(norm: str, models: Model, family: str) -> jax.Array:
  return jax.vmap(lambda m: fisher.covariance(family, fisher.natural(norm, m)))(
    models
  )


@functools.partial(jax.jit, static_argnums=0)
def _closed_form(norm: str, models: Model, cov: jax.Array) -> jax.Array:
  return jax.vmap(lambda m, c: fisher.closed_form(norm, m, c))(models, cov)


def exact(norm: str, models: Model, family: str = "categorical") -> np.ndarray:
  """The metrics by automatic differentiation, [n, H, d + 2, H, d + 2]."""
  cov = _covariance(norm, models, family)
  return np.asarray(_metric(_derivatives(norm, models), cov))


def longer(
  norm: str, models: Model, factor: float, *, alone: bool = False
) -> Model:
  """The models with w_0 longer, or, under layer norm, all of W.

  Args:
    norm: of the models.
    models: to change.
    factor: of the length.
    alone: w_0 alone under layer norm too.
  """
  w = np.array(models.w)
  w[:, slice(None) if norm == "layer" and not alone else 0] *= factor
  return models._replace(w=jnp.asarray(w))


def form_gaps(models: Model) -> Found:
  """Relative gap of own blocks and of the whole metric, closed form to exact.

  {norm: {"own block", "all blocks"}}, the largest over models, outputs and
  families of eqs. (12) and (13).
  """
  found: Found = {}
  for norm in ("weight", "batch", "layer"):
    own, whole = [], []
    for family in fisher.FAMILIES:
      closed = np.asarray(
        _closed_form(norm, models, _covariance(norm, models, family))
      )
      wanted = exact(norm, models, family)
      whole.append(_gap(closed, wanted).max())
      own += [
        _gap(closed[:, i, :, i], wanted[:, i, :, i]).max()
        for i in range(closed.shape[1])
      ]
    found[norm] = {
      "own block": float(max(own)),
      "all blocks": float(max(whole)),
    }
  return found


def gain_form_gaps(models: Model) -> dict[str, float]:
  """Relative gap of eq. (32) to batch norm's exact block of all gains.

  Eq. (32) has 1, the mean of the squared normalised activity, in its place:
  right for i = j where Cov[y | x] does not depend on x. {family: largest}.
  """
  found = {}
  for family in fisher.FAMILIES:
    told = np.asarray(_covariance("batch", models, family)).mean(axis=1)
    wanted = exact("batch", models, family)[:, :, -1, :, -1]
    found[family] = float(_gap(told, wanted).max())
  return found


def layer_gaps() -> list[float]:
  """Mean relative gap of layer norm's own block, for each of `WIDTHS`.

  Outputs are Gaussian with phi = 1, so that Cov[y | x] / phi^2 is the
  identity and need not be written out for 1,024 outputs.
  """

  def one(model: Model) -> jax.Array:
    derived = fisher.own_derivatives("layer", model, 0)
    wanted = jnp.einsum("nkp,nkq->pq", derived, derived)
    # The closed form has the dependence of output 0 alone.
    chi, n, sigma = fisher.chi("layer", model)
    by_w = (model.gain[0] / sigma[:, 0])[:, None] * chi[:, 0]
    v = jnp.concatenate([by_w, jnp.ones_like(n[:, :1]), n[:, :1]], axis=1)
    return fisher.gap(v.T @ v, wanted)

  gaps = jax.jit(jax.vmap(one))
  return [
    float(gaps(fisher.draw(5, seed=SEED, outputs=h)).mean()) for h in WIDTHS
  ]


def along_weights(models: Model) -> Found:
  """|F u| / |F| for u along w_0; and, beside, along all of W.

  {norm: {"along w_i", "along all of W": [least, largest] over models}}.
  """
  w = np.asarray(models.w)
  n, h, d = w.shape
  alone, whole = np.zeros((2, n, h, d + 2))
  alone[:, 0, :d], whole[..., :d] = w[:, 0], w
  found: Found = {}
  for norm in NORMS:
    f = exact(norm, models).reshape(n, h * (d + 2), -1)
    found[norm] = {}
    for name, u in (("along w_i", alone), ("along all of W", whole)):
      u = u.reshape(n, -1, 1)
      size = np.linalg.norm(f, axis=(1, 2)) * np.linalg.norm(u, axis=(1, 2))
      found[norm][name] = _ends(np.linalg.norm(f @ u, axis=(1, 2)) / size)
  return found


def by_length(models: Model) -> Found:
  """Trace and largest eigenvalue of F_00's weight part by the length of w_0.

  {norm: {"trace", "eigenvalue": [n, lengths]}}; under layer norm all of W
  gets longer.
  """
  d = models.w.shape[-1]
  found: Found = {}
  for norm in NORMS:
    blocks = np.stack(
      [
        exact(norm, longer(norm, models, factor))[:, 0, :d, 0, :d]
        for factor in LENGTHS
      ],
      axis=1,
    )
    found[norm] = {
      "trace": np.trace(blocks, axis1=-2, axis2=-1),
      "eigenvalue": np.linalg.eigvalsh(blocks)[..., -1],
    }
  return found


def on_doubling(models: Model) -> Found:
  """Ratios of curvatures after w_0 has doubled to those before.

  {case: {"own", "cross": [least, largest]}}: u^T F_00 u for a u orthogonal to
  w_0, and u^T F_01 e for some e. Without norm Gaussian outputs stand beside,
  whose cross blocks are zero and have no ratio.
  """
  cases = {
    "none, Gaussian": ("none", False, "gaussian"),
    "none": ("none", False, "categorical"),
    "weight": ("weight", False, "categorical"),
    "batch": ("batch", False, "categorical"),
    "layer, all of W": ("layer", False, "categorical"),
    "layer, w_i alone": ("layer", True, "categorical"),
  }
  w = np.asarray(models.w)
  d = w.shape[-1]
  along = (w[:, 1] * w[:, 0]).sum(-1) / np.square(w[:, 0]).sum(-1)
  u, e = w[:, 1] - w[:, 0] * along[:, None], w[:, 2]
  found: Found = {}
  for name, (norm, alone, family) in cases.items():
    before = exact(norm, models, family)[:, 0, :d]
    after = exact(norm, longer(norm, models, 2.0, alone=alone), family)
    after = after[:, 0, :d]
    found[name] = {}
    for side, j, v in (("own", 0, u), ("cross", 1, e)):
      form = lambda f, j=j, v=v: np.einsum("np,npq,nq->n", u, f[:, :, j, :d], v)
      if family != "gaussian" or side == "own":
        found[name][side] = _ends(form(after) / form(before))
  return found


def by_input(models: Model) -> Found:
  """The metric along the gains by the scale of the inputs.

  {norm: {"change", "trace": [n, scales]}}: relative change of the block of
  all gains, and its trace, from scale 1. For no norm the block is along
  w_i / |w_i| of all i (eq. 35). Cov[y | x] is held at what it is at scale 1.
  """
  w = np.asarray(models.w)
  unit = w / np.linalg.norm(w, axis=-1, keepdims=True)
  found: Found = {}
  for norm in NORMS:
    cov = _covariance(norm, models, "categorical")

    def block(scale: float, norm: str = norm, cov: jax.Array = cov):
      derived = _derivatives(norm, models._replace(x=models.x * scale))
      if norm == "none":
        by_w = derived[..., : w.shape[-1]]
        along = jnp.einsum("mnkid,mid->mnki", by_w, unit)[..., None]
      else:
        along = derived[..., -1:]
      return np.asarray(_metric(along, cov))[:, :, 0, :, 0]

    at_one, trace = block(1.0), lambda f: np.trace(f, axis1=1, axis2=2)
    blocks = [block(scale) for scale in INPUTS]
    found[norm] = {
      "change": np.stack([_gap(f, at_one) for f in blocks], axis=1),
      "trace": np.stack([trace(f) / trace(at_one) for f in blocks], axis=1),
    }
  return found


def _ends(values: np.ndarray) -> list[float]:
  return [float(values.min()), float(values.max())]
