"""Recurrent batch norm in NumPy, over whole sequences; knows no lnrnn.

Cooijmans et al. 2016, section 3: BN-LSTM, statistics for each time step. The
parameters are as in references.py; sequences are [t, b, d].
"""

import numpy as np
from references import sigmoid

LEAST = 8  # Fewer live rows than this have no statistics of their own.


def moments_of(a):
  return a.mean(axis=0), ((a - a.mean(axis=0)) ** 2).mean(axis=0)


def lstm_step(p, carry, x, norm, form):
  """gates = BN(W_h h) + BN(W_x x) + b; h = o tanh(BN(c))."""
  c, h = carry
  if form == "sum":
    a = norm("h", x @ p["w_x"] + h @ p["w_h"], p["ln_h"])
  elif form == "cell":
    a = x @ p["w_x"] + h @ p["w_h"]
  else:
    a = norm("x", x @ p["w_x"], p["ln_x"]) + norm("h", h @ p["w_h"], p["ln_h"])
  f, i, o, g = np.split(a + p["b"], 4, axis=1)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(norm("c", c, p["ln_c"]))


def gru_step(p, carry, x, norm, form):
  """As the LSTM's; gates and candidate are normalised one by one anyway."""
  (h,) = carry
  n = h.shape[1]
  b, wx, uh = p["b"], x @ p["w_x"], h @ p["w_h"]
  gain = lambda name, at: {"gain": p[name]["gain"][at]}
  gates, last = slice(0, 2 * n), slice(2 * n, 3 * n)
  if form == "sum":
    a = norm("h_gates", wx[:, gates] + uh[:, gates], gain("ln_h", gates))
    z, r = np.split(sigmoid(a + b[gates]), 2, axis=1)
    a = wx[:, last] + r * uh[:, last]
    new = np.tanh(norm("h_candidate", a, gain("ln_h", last)) + b[last])
  else:
    a = norm("x_gates", wx[:, gates], gain("ln_x", gates))
    a = a + norm("h_gates", uh[:, gates], gain("ln_h", gates))
    z, r = np.split(sigmoid(a + b[gates]), 2, axis=1)
    new = norm("x_candidate", wx[:, last], gain("ln_x", last)) + b[last]
    new = new + r * norm("h_candidate", uh[:, last], gain("ln_h", last))
    new = np.tanh(new)
  return ((1 - z) * h + z * new,)


STEPS = {"LSTM": lstm_step, "GRU": gru_step}


def normalised(a, affine, mean, var, eps):
  a = (a - mean) / np.sqrt(var + eps)
  return affine["gain"] * a + affine.get("bias", 0)


def run(kind, p, carry, xs, form, eps, *, lengths=None, by):
  """A whole sequence.

  Args:
    kind: "LSTM" or "GRU".
    p: parameters.
    carry: a tuple of [b, h], the output state last.
    xs: [t, b, d]; padding is taken for zeros.
    form: of the norm.
    eps: added to the variance.
    lengths: [b]; None for t.
    by: "masked" or "all", the minibatch; or {site: ([t, n], [t, n])}.

  Returns:
    The last carry, the outputs, the moments {site: [(mean, var) of each
    step]}, and of each step whether its moments are its own.
  """
  steps, rows = xs.shape[:2]
  lengths = np.full(rows, steps) if lengths is None else np.asarray(lengths)
  outputs, found, own = [], {}, []
  least = min(LEAST, (lengths > 0).sum())
  for t in range(steps):
    live = lengths > t
    x = np.where(live[:, None], xs[t], 0)
    fresh = by != "masked" or live.sum() >= least

    def norm(site, a, affine, t=t, live=live, fresh=fresh):
      if isinstance(by, dict):
        mean, var = (m[t] for m in by[site])
      elif not fresh:
        mean, var = found[site][-1]
      else:
        mean, var = moments_of(a if by == "all" else a[live])
      found.setdefault(site, []).append((mean, var))
      return normalised(a, affine, mean, var, eps)

    new = STEPS[kind](p, carry, x, norm, form)
    keep = live[:, None]
    carry = tuple(np.where(keep, a, b) for a, b in zip(new, carry, strict=True))
    outputs.append(np.where(keep, carry[-1], 0))
    own.append(bool(fresh and live.any()))
  return carry, np.stack(outputs), found, own


class Averages:
  """The averages of each step, from a list of all that it has seen."""

  def __init__(self, momentum):
    self.momentum = momentum
    self.seen = {}  # (site, step): the moments of each minibatch.

  def add(self, found, own):
    for site, moments in found.items():
      for t, (both, mine) in enumerate(zip(moments, own, strict=True)):
        if mine:
          self.seen.setdefault((site, t), []).append(both)

  def of(self, site, t):
    """The plain mean of as many as 1 / (1 - momentum); then exponential."""
    plain = round(1 / (1 - self.momentum))
    history = self.seen[site, t]
    averages = []
    for part in zip(*history, strict=True):
      average = np.mean(part[:plain], axis=0)
      for new in part[plain:]:
        average = self.momentum * average + (1 - self.momentum) * new
      averages.append(average)
    return averages

  def table(self, site, steps):
    """Mean and variance [steps, n]; the last seen step stands for later."""
    last = max(t for name, t in self.seen if name == site)
    rows = [self.of(site, min(t, last)) for t in range(steps)]
    return tuple(np.stack(part) for part in zip(*rows, strict=True))
