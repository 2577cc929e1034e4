"""What is measured of the Fisher metric, over random networks."""

from collections.abc import Callable
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

  {norm: {"change", "size": [networks, scales]}}: relative change, and relative
  Frobenius norm, of the blocks of all gains; for no norm, along w_i / |w_i| of
  all i (eq. 35). The outputs' covariance is held at what it is at scale 1.
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

      def at(scale):
        there = along(scale)
        size = jnp.linalg.norm(there) / jnp.linalg.norm(at_one)
        return fisher.gap(there, at_one), size

      return jax.vmap(at)(jnp.array(INPUTS))

    found[norm] = dict(zip(("change", "size"), _over(models, one), strict=True))
  return found
