"""DRAW in NumPy, from the equations of Gregor et al. 2015; knows no lnrnn.

Pixels count from 1. Parameters are named as in the model; the LSTMs are those
of references.py, with batch norm those of references_bn.py.
"""

import numpy as np
import references
from references import sigmoid
import references_bn


def window(raw, n, height, width):
  """Eqs. 21-24 of one case: g_x, g_y, stride, variance, gamma."""
  g_x, g_y, log_variance, log_stride, log_gamma = raw
  return (
    (width + 1) / 2 * (g_x + 1),
    (height + 1) / 2 * (g_y + 1),
    (max(width, height) - 1) / (n - 1) * np.exp(log_stride),
    np.exp(log_variance),
    np.exp(log_gamma),
  )


def bank(centre, stride, variance, n, pixels):
  """F [n, pixels] of one axis, eqs. 19, 20, 25 and 26."""
  a = np.arange(1, pixels + 1)
  rows = []
  for i in range(1, n + 1):
    mu = centre + (i - n / 2 - 0.5) * stride
    row = np.exp(-((a - mu) ** 2) / (2 * variance))
    rows.append(row / row.sum())
  return np.stack(rows)


def banks(raw, n, height, width):
  """F_Y, F_X and gamma."""
  g_x, g_y, stride, variance, gamma = window(raw, n, height, width)
  f_y = bank(g_y, stride, variance, n, height)
  return f_y, bank(g_x, stride, variance, n, width), gamma


def read(image, raw, n):
  """Eq. 27 of one image."""
  f_y, f_x, gamma = banks(raw, n, *image.shape)
  return gamma * f_y @ image @ f_x.T


def write(patch, raw, height, width):
  """Eq. 29 of one patch."""
  f_y, f_x, gamma = banks(raw, len(patch), height, width)
  return f_y.T @ patch @ f_x / gamma


def normal(z, mean, log_sd):
  """Log density of z, the sum over the last axis."""
  sd = np.exp(log_sd)
  log_density = -(((z - mean) / sd) ** 2) / 2 - np.log(sd * np.sqrt(2 * np.pi))
  return log_density.sum(axis=-1)


def run(p, image, noise, how, *, moments=None):
  """The whole model.

  Args:
    p: parameters, float64.
    image: [b, height, width]; None draws from the prior, z being the noise.
    noise: [t, b, latents].
    how: the model's fields norm, form, normed, eps, read_size, write_size.
    moments: {(site, t): (mean, var)} of batch norm; None takes those of the
      cases at hand.

  Returns:
    {"nll", "kl", "log_weight": [b] each, "canvas": [t, b, height, width],
    "window": raw [t, b, 5], "moments": those found, as above}.
  """
  b, (height, width) = noise.shape[1], p["canvas_start"].shape
  canvas = np.stack([p["canvas_start"]] * b)
  start = lambda name: np.stack([p[name]] * b)
  state = {
    part: (start(f"{part}_start_c"), start(f"{part}_start_h"))
    for part in ("encoder", "decoder")
  }
  kl, log_p, log_q = np.zeros((3, b))
  canvases, windows, found = [], [], {}

  def linear(h, name):
    return h @ p[f"{name}_kernel"] + p[f"{name}_bias"]

  def lstm(part, x, t):
    own = how["normed"] in ("both", part)
    if not own or how["norm"] != "batch":
      norm = how["norm"] if own else "none"
      return references.lstm(
        p[part], state[part], x, norm, how["form"], how["eps"]
      )

    def by(site, a, affine):
      at = (f"{part}_{site}", t)
      found[at] = references_bn.moments_of(a)
      mean, var = (moments or found)[at]
      return references_bn.normalised(a, affine, mean, var, how["eps"])

    return references_bn.lstm_step(p[part], state[part], x, by, how["form"])

  for t, z in enumerate(noise):
    if image is not None:
      h = state["decoder"][1]
      error = image - sigmoid(canvas)
      if n := how["read_size"]:
        raw = linear(h, "read_window")
        seen = np.stack(
          [
            np.concatenate([read(x, r, n).ravel(), read(e, r, n).ravel()])
            for x, e, r in zip(image, error, raw, strict=True)
          ]
        )
      else:
        seen = np.concatenate(
          [image.reshape(b, -1), error.reshape(b, -1)], axis=1
        )
      x = np.concatenate([seen, h], axis=1)
      state["encoder"] = lstm("encoder", x, t)
      mean, log_sd = np.split(linear(state["encoder"][1], "latent"), 2, axis=1)
      variance = np.exp(log_sd) ** 2
      # Eq. 11, summed over the latents.
      kl += (mean**2 + variance - np.log(variance) - 1).sum(axis=1) / 2
      z = mean + np.sqrt(variance) * z
      log_p += normal(z, 0, np.zeros_like(z))
      log_q += normal(z, mean, log_sd)
    state["decoder"] = lstm("decoder", z, t)
    patch = linear(state["decoder"][1], "patch")
    if n := how["write_size"]:
      raw = linear(state["decoder"][1], "write_window")
      windows.append(raw)
      canvas = canvas + np.stack(
        [
          write(c.reshape(n, n), r, height, width)
          for c, r in zip(patch, raw, strict=True)
        ]
      )
    else:
      canvas = canvas + patch.reshape(b, height, width)
    canvases.append(sigmoid(canvas))
  out = {"canvas": np.stack(canvases), "moments": found}
  if windows:
    out["window"] = np.stack(windows)
  if image is not None:
    ink = canvases[-1]
    nll = -(image * np.log(ink) + (1 - image) * np.log(1 - ink))
    nll = nll.sum(axis=(1, 2))
    out |= {"nll": nll, "kl": kl, "log_weight": log_p - log_q - nll}
  return out
