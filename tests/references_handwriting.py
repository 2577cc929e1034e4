"""Graves's network in NumPy, from the equations of 2013; knows no lnrnn.

A loop over points, all layers in it. Parameters are named as in the model;
the LSTMs are those of references.py, with batch norm those of
references_bn.py.
"""

import numpy as np
import references
from references import normalised, sigmoid
import references_bn

MAX_CORRELATION = 0.999  # Ours; Graves has 1.


def attention(weight, sharpness, place, n):
  """phi of eq. 46, [b, n]; characters count from 1."""
  phi = np.zeros((len(place), n))
  for u in range(1, n + 1):
    phi[:, u - 1] = (weight * np.exp(-sharpness * (place - u) ** 2)).sum(axis=1)
  return phi


def gaussian(x, mean, deviation, rho):
  """Eqs. 24 and 25 of one offset and one component."""
  (x1, x2), (m1, m2), (s1, s2) = x, mean, deviation
  z = (x1 - m1) ** 2 / s1**2 + (x2 - m2) ** 2 / s2**2
  z -= 2 * rho * (x1 - m1) * (x2 - m2) / (s1 * s2)
  scale = 2 * np.pi * s1 * s2 * np.sqrt(1 - rho**2)
  return np.exp(-z / (2 * (1 - rho**2))) / scale


def point_loss(outputs, point, min_deviation):
  """-log Pr(point | outputs), eqs. 18-23, of one case."""
  m = (len(outputs) - 1) // 6
  end, weight, m1, m2, s1, s2, rho = np.split(outputs, np.cumsum([1, *[m] * 5]))
  e = 1 / (1 + np.exp(end[0]))
  pi = np.exp(weight) / np.exp(weight).sum()
  density = sum(
    pi[j]
    * gaussian(
      point[:2],
      (m1[j], m2[j]),
      (min_deviation + np.exp(s1[j]), min_deviation + np.exp(s2[j])),
      MAX_CORRELATION * np.tanh(rho[j]),
    )
    for j in range(m)
  )
  return -np.log(density) - np.log(e if point[2] else 1 - e)


def with_peepholes(p, carry, x, w_x):
  """Graves's eqs. 7-11, without norm."""
  c, h = carry
  n = h.shape[1]
  p_f, p_i, p_o = np.split(p["peepholes"], 3)
  a = x @ w_x + h @ p["w_h"] + p["b"]
  f, i, o, g = (a[:, k * n : (k + 1) * n] for k in range(4))
  new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
  return new, sigmoid(o + p_o * new) * np.tanh(new)


def apart(p, carry, x, widths, norm, eps):
  """Eqs. 20-22 of the supplement with a norm for each part of the inputs."""
  c, h = carry
  n = h.shape[1]
  a = normalised(norm, h @ p["w_h"], p["ln_h"], eps) + p["b"]
  first = 0
  for k, width in enumerate(widths):
    rows = slice(first, first + width)
    a = a + normalised(norm, x[:, rows] @ p["w_x"][rows], p[f"ln_x_{k}"], eps)
    first += width
  f, i, o, g = (a[:, k * n : (k + 1) * n] for k in range(4))
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(normalised(norm, c, p["ln_c"], eps))


def run(p, ink, lengths, text, how):
  """The whole network.

  Args:
    p: parameters, float64.
    ink: [b, t, 3].
    lengths: [b].
    text: (codes [b, u], lengths [b]), or None.
    how: the model's fields norm, form, inputs, peepholes, eps, layers, window,
      characters, min_deviation.

  Returns:
    {"nll": [b, t], zero past the lengths, "attention": [b, t, u + 1]}.
  """
  b, t_max, _ = ink.shape
  n = p["lstms_0"]["w_h"].shape[0]
  carries = [(np.zeros((b, n)), np.zeros((b, n)))] * how["layers"]
  seen = np.zeros((b, how["characters"]))
  place = np.zeros((b, how["window"]))
  nll, phis = np.zeros((b, t_max)), []
  point = np.zeros((b, 3))
  for t in range(t_max):
    live = t < lengths
    x = [point, seen] if how["window"] else [point]
    below, hs = [], []
    for i in range(how["layers"]):
      parts = [*x, *below]
      given = np.concatenate(parts, axis=1)
      q = p[f"lstms_{i}"]
      if how["peepholes"]:
        new = with_peepholes(q, carries[i], given, q["w_x"])
      elif how["inputs"] == "apart" and how["norm"] not in ("none", "weight"):
        widths = [part.shape[1] for part in parts]
        new = apart(q, carries[i], given, widths, how["norm"], how["eps"])
      elif how["norm"] == "batch":

        def by(site, a, affine):
          moments = references_bn.moments_of(a[live])  # noqa: B023
          return references_bn.normalised(a, affine, *moments, how["eps"])

        new = references_bn.lstm_step(q, carries[i], given, by, how["form"])
      else:
        new = references.lstm(
          q, carries[i], given, how["norm"], how["form"], how["eps"]
        )
      carries[i] = new
      hs.append(new[1])
      if i == 0 and how["window"]:
        raw = new[1] @ p["window_kernel"] + p["window_bias"]
        weight, sharpness, step = np.split(np.exp(raw), 3, axis=1)
        place = place + step
        codes, counts = text
        u = codes.shape[1]
        phi = attention(weight, sharpness, place, u + 1)
        phis.append(phi)
        seen = np.zeros_like(seen)
        for row in range(b):
          for k in range(counts[row]):
            seen[row, codes[row, k]] += phi[row, k]
        x = [point, seen]
      below = [new[1]]
    outputs = np.concatenate(hs, axis=1) @ p["output_kernel"]
    outputs = outputs + p["output_bias"]
    for row in np.flatnonzero(live):
      nll[row, t] = point_loss(outputs[row], ink[row, t], how["min_deviation"])
    point = ink[:, t]
  out = {"nll": nll}
  if phis:
    out["attention"] = np.stack(phis, axis=1)
  return out
