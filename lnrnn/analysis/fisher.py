"""The Fisher metric of normalised generalised linear models (section 5.2).

A model of H outputs maps x [d] to natural parameters z_i = g_i (a_i - mu_i) /
sigma_i + b_i, a_i = w_i x; the parameters of output i are w_i, b_i and g_i, in
this order. Without norm z_i = a_i + b_i, and there is no gain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn.analysis import invariance
from lnrnn.analysis.invariance import Layer

FAMILIES = ("gaussian", "bernoulli", "categorical")


class Model(NamedTuple):
  """A generalised linear model and its inputs."""

  w: jax.Array  # [H, d]
  bias: jax.Array  # [H]
  gain: jax.Array  # [H]
  x: jax.Array  # [n, d]


def natural(norm: str, model: Model) -> jax.Array:
  """Natural parameters z [n, H]; batch norm by the statistics of all x."""
  layer = Layer(model.w.T, model.gain, model.bias)
  return invariance.normalised(norm, model.x, layer)


def covariance(
  family: str, z: jax.Array, *, dispersion: float = 1.0
) -> jax.Array:
  """Cov[y | x] / phi^2 of each case.

  Args:
    family: "gaussian", of variance phi; "bernoulli", of independent outputs;
      "categorical", a softmax over the outputs. The last two have phi = 1.
    z: [n, H] natural parameters.
    dispersion: phi of the Gaussian.

  Returns:
    [n, H, H].

  Source: Ba et al. 2016, eqs. (8)-(11).
  """
  eye = jnp.eye(z.shape[-1], dtype=z.dtype)
  if family == "gaussian":
    return jnp.broadcast_to(eye / dispersion, (*z.shape, z.shape[-1]))
  if family == "bernoulli":
    p = jax.nn.sigmoid(z)
    return (p * (1 - p))[..., None] * eye
  p = jax.nn.softmax(z)
  return p[..., None] * eye - p[..., None] * p[..., None, :]


def derivatives(norm: str, model: Model) -> jax.Array:
  """How each natural parameter depends on the parameters of each output.

  By automatic differentiation, through all statistics.

  Returns:
    [n, H, H, d + 2]: case, natural parameter j, output i, then d z_j / d w_i,
    d z_j / d b_i and d z_j / d g_i.
  """

  def of(w, bias, gain):
    return natural(norm, Model(w, bias, gain, model.x))

  w, bias, gain = jax.jacrev(of, (0, 1, 2))(model.w, model.bias, model.gain)
  return jnp.concatenate([w, bias[..., None], gain[..., None]], axis=-1)


def own_derivatives(norm: str, model: Model, i: int) -> jax.Array:
  """`derivatives` by the parameters of output i alone, [n, H, d + 2]."""

  def of(w, bias, gain):
    return natural(
      norm,
      Model(
        model.w.at[i].set(w),
        model.bias.at[i].set(bias),
        model.gain.at[i].set(gain),
        model.x,
      ),
    )

  at = (model.w[i], model.bias[i], model.gain[i])
  w, bias, gain = jax.jacfwd(of, (0, 1, 2))(*at)
  return jnp.concatenate([w, bias[..., None], gain[..., None]], axis=-1)


def metric(derived: jax.Array, cov: jax.Array) -> jax.Array:
  """The Fisher metric, by the derivatives of the natural parameters.

  Args:
    derived: [n, H, H, p] of `derivatives`.
    cov: [n, H, H] of `covariance`.

  Returns:
    [H, p, H, p], the blocks F_ij = F[i, :, j, :].

  Source: Ba et al. 2016, eqs. (8) and (9): the mean over x of J^T Cov J.
  """
  return jnp.einsum("nkip,nkl,nljq->ipjq", derived, cov, derived) / len(cov)


def chi(norm: str, model: Model) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What the paper's closed form is made of.

  chi_i = x - d mu_i / d w_i - (a_i - mu_i) / sigma_i d sigma_i / d w_i.

  Args:
    norm: "batch", "weight" or "layer".
    model: of H outputs.

  Returns:
    chi [n, H, d], the normalised (a - mu) / sigma [n, H], and sigma [n, H].

  Source: Ba et al. 2016, below eq. (13).
  """
  x, w = model.x, model.w
  a = x @ w.T
  if norm == "weight":
    sigma = jnp.linalg.norm(w, axis=1)
    d_mu = jnp.zeros((1, 1, 1))
    d_sigma = (w / sigma[:, None])[None]
    mu, sigma = jnp.zeros((1, 1)), jnp.broadcast_to(sigma, a.shape)
  elif norm == "batch":
    mu = a.mean(axis=0, keepdims=True)
    sigma = jnp.broadcast_to(a.std(axis=0), a.shape)
    centred = x - x.mean(axis=0)
    d_mu = x.mean(axis=0)[None, None]
    # sigma_i^2 = w_i^T Cov[x] w_i.
    d_sigma = (w @ (centred.T @ centred) / len(x) / sigma[0][:, None])[None]
  else:
    h = a.shape[1]
    mu = a.mean(axis=1, keepdims=True)
    sigma = jnp.broadcast_to(a.std(axis=1, keepdims=True), a.shape)
    d_mu = x[:, None] / h
    d_sigma = ((a - mu) / (h * sigma))[..., None] * x[:, None]
  n = (a - mu) / sigma
  return x[:, None] - d_mu - n[..., None] * d_sigma, n, sigma


def closed_form(norm: str, model: Model, cov: jax.Array) -> jax.Array:
  """The metric as the paper has it.

  It is exact for weight norm, and for batch norm with statistics that are
  differentiated through. Under layer norm z_j depends on w_i also where
  j != i, by the statistics that the outputs share; the closed form has
  derivatives by the own mu and sigma alone.

  Args:
    norm: "batch", "weight" or "layer".
    model: of H outputs.
    cov: [n, H, H] of `covariance`.

  Returns:
    [H, d + 2, H, d + 2], as `metric`.

  Source: Ba et al. 2016, eqs. (12) and (13).
  """
  found, n, sigma = chi(norm, model)
  by_w = (model.gain / sigma)[..., None] * found
  v = jnp.concatenate([by_w, jnp.ones_like(n)[..., None], n[..., None]], -1)
  return jnp.einsum("nij,nip,njq->ipjq", cov, v, v) / len(cov)


def gap(found: jax.Array, exact: jax.Array) -> jax.Array:
  """Relative difference of two metrics, in the Frobenius norm."""
  return jnp.linalg.norm(jnp.ravel(found - exact)) / jnp.linalg.norm(
    jnp.ravel(exact)
  )


def draw(
  networks: int, *, seed: int, cases: int = 64, d: int = 8, outputs: int = 6
) -> Model:
  """Random models with a leading axis [networks]; inputs with a mean."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=(networks, *shape)))
  return Model(
    normal(outputs, d) / np.sqrt(d),
    normal(outputs) / 2,
    jnp.asarray(rng.uniform(0.5, 2, (networks, outputs))),
    normal(cases, d) + normal(1, d) / 2,
  )
