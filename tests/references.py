"""The cells in NumPy, from the paper's equations; what the tests compare with.

Nothing here knows lnrnn. Parameters are dicts named as in the linen cells:
w_x, w_h, b, and for a normaliser {"gain": [n], "bias": [n]}, either missing
where the cell has none. Cases are rows: x [b, d], h [b, h].
"""

import numpy as np


def sigmoid(a):
  return 1 / (1 + np.exp(-a))


def normalised(norm, a, affine, eps):
  """h_i = g_i / sigma (a_i - mu) + b_i, section 5.1, for one norm."""
  if affine is None:
    return a
  if norm == "layer":  # Over the units of a case, eq. 3.
    mu = a.mean(axis=1, keepdims=True)
    sigma = np.sqrt(((a - mu) ** 2).mean(axis=1, keepdims=True) + eps)
  elif norm == "rms":
    mu = 0
    sigma = np.sqrt((a**2).mean(axis=1, keepdims=True) + eps)
  elif norm == "batch":  # Over the cases of a unit, eq. 2.
    mu = a.mean(axis=0)
    sigma = np.sqrt(((a - mu) ** 2).mean(axis=0) + eps)
  else:
    raise ValueError(norm)
  return affine["gain"] / sigma * (a - mu) + affine.get("bias", 0)


def weight_normalised(v, gain):
  """Each column w_i = g_i v_i / ||v_i||."""
  return np.stack(
    [g * u / np.linalg.norm(u) for g, u in zip(gain, v.T, strict=True)], axis=1
  )


def matrices(p):
  w_x, w_h = p["w_x"], p["w_h"]
  if "wn_x" in p:
    w_x = weight_normalised(w_x, p["wn_x"]["gain"])
    w_h = weight_normalised(w_h, p["wn_h"]["gain"])
  return w_x, w_h


def part(affine, columns):
  """Gain and bias of some of the units."""
  return affine and {name: v[columns] for name, v in affine.items()}


def lstm(p, carry, x, norm, form, eps):
  """Supplement, eqs. 20-22; 29-31 without ln_x and ln_h; eq. 4 for "sum"."""
  if form == "authors":
    return authors_lstm(_authors_lstm_params(p), carry, x, eps)
  (c, h), (w_x, w_h) = carry, matrices(p)
  n = h.shape[1]
  whole = [slice(0, 4 * n)]
  gates = [slice(k * n, (k + 1) * n) for k in range(4)]

  def ln(name, a):
    return np.concatenate(
      [
        normalised(norm, a[:, at], part(p.get(name), at), eps)
        for at in (gates if form == "per_gate" else whole)
      ],
      axis=1,
    )

  if form == "sum":
    a = ln("ln_h", h @ w_h + x @ w_x)
  else:
    a = ln("ln_h", h @ w_h) + ln("ln_x", x @ w_x)
  a = a + p.get("b", 0)
  f, i, o, g = (a[:, at] for at in gates)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(normalised(norm, c, p.get("ln_c"), eps))


def gru(p, h, x, norm, form, eps):
  """Supplement, eqs. 26-28; eq. 4 for "sum"."""
  if form == "authors":
    return authors_gru(_authors_gru_params(p), h, x, eps)
  w_x, w_h = matrices(p)
  n = h.shape[1]
  z, r, zr, candidate = (
    slice(start * n, stop * n)
    for start, stop in ((0, 1), (1, 2), (0, 2), (2, 3))
  )
  b = p.get("b", np.zeros(3 * n))

  def ln(name, a, at):
    return normalised(norm, a, part(p.get(name), at), eps)

  def gate_sum(at):
    return ln("ln_h", h @ w_h[:, at], at) + ln("ln_x", x @ w_x[:, at], at)

  if form == "sum":
    a = ln("ln_h", h @ w_h[:, zr] + x @ w_x[:, zr], zr) + b[zr]
    z, r = sigmoid(a[:, :n]), sigmoid(a[:, n:])
    a = x @ w_x[:, candidate] + r * (h @ w_h[:, candidate])
    new = np.tanh(ln("ln_h", a, candidate) + b[candidate])
    return (1 - z) * h + z * new
  if form == "per_gate":
    z, r = (sigmoid(gate_sum(at) + b[at]) for at in (z, r))
  else:
    both = sigmoid(gate_sum(zr) + b[zr])
    z, r = both[:, :n], both[:, n:]
  wx = ln("ln_x", x @ w_x[:, candidate], candidate) + b[candidate]
  uh = ln("ln_h", h @ w_h[:, candidate], candidate)
  return (1 - z) * h + z * np.tanh(wx + r * uh)


# --- The authors' Theano code (ryankiros/layer-norm, layers.py) ---


def _ln(x, b, s, eps):
  output = (x - x.mean(1)[:, None]) / np.sqrt(x.var(1)[:, None] + eps)
  return s[None, :] * output + b[None, :]


def _slice(a, n, dim):
  return a[:, n * dim : (n + 1) * dim]


def authors_lstm(p, carry, x, eps):
  """lnlstm_layer: columns i, f, o, c; b before the norm and after it."""
  c_, h_ = carry
  dim = h_.shape[1]
  state_below = x @ p["W"] + p["b"]
  preact = _ln(h_ @ p["U"], p["b2"], p["s2"], eps)
  preact = preact + _ln(state_below, p["b1"], p["s1"], eps) + p["b"]
  i = sigmoid(_slice(preact, 0, dim))
  f = sigmoid(_slice(preact, 1, dim))
  o = sigmoid(_slice(preact, 2, dim))
  c = np.tanh(_slice(preact, 3, dim))
  c = f * c_ + i * c
  return c, o * np.tanh(_ln(c, p["b3"], p["s3"], eps))


def authors_gru(p, h_, x, eps):
  """lngru_layer: gate columns r, u; the biases inside the norm."""
  dim = h_.shape[1]
  x_ = _ln(x @ p["W"] + p["b"], p["b1"], p["s1"], eps)
  xx_ = _ln(x @ p["Wx"] + p["bx"], p["b2"], p["s2"], eps)
  preact = _ln(h_ @ p["U"], p["b3"], p["s3"], eps) + x_
  r, u = sigmoid(_slice(preact, 0, dim)), sigmoid(_slice(preact, 1, dim))
  preactx = _ln(h_ @ p["Ux"], p["b4"], p["s4"], eps) * r + xx_
  return u * h_ + (1.0 - u) * np.tanh(preactx)


def _authors_lstm_params(p):
  def ifoc(v):  # From f, i, o, g.
    f, i, o, g = np.split(v, 4, axis=-1)
    return np.concatenate([i, f, o, g], axis=-1)

  x, h, c = p["ln_x"], p["ln_h"], p["ln_c"]
  names = {"W": p["w_x"], "U": p["w_h"], "b": p["b"]}
  names |= {"s1": x["gain"], "b1": x["bias"], "s2": h["gain"], "b2": h["bias"]}
  permuted = {name: ifoc(v) for name, v in names.items()}
  return permuted | {"s3": c["gain"], "b3": c["bias"]}


def _authors_gru_params(p):
  def ru(v):  # From z, r, candidate; u = 1 - z is in the code's update.
    z, r, _ = np.split(v, 3, axis=-1)
    return np.concatenate([r, z], axis=-1)

  def candidate(v):
    return np.split(v, 3, axis=-1)[2]

  x, h = p["ln_x"], p["ln_h"]
  gates = {"W": p["w_x"], "U": p["w_h"], "b": p["b"]}
  gates |= {"s1": x["gain"], "b1": x["bias"], "s3": h["gain"], "b3": h["bias"]}
  own = {"Wx": p["w_x"], "Ux": p["w_h"], "bx": p["b"]}
  own |= {"s2": x["gain"], "b2": x["bias"], "s4": h["gain"], "b4": h["bias"]}
  return {name: ru(v) for name, v in gates.items()} | {
    name: candidate(v) for name, v in own.items()
  }


# --- Derivatives ---


def central_differences(f, args, cotangent, step=1e-5):
  """Gradients of sum(cotangent * f(*args)) by each argument."""
  gradients = []
  for i, x in enumerate(args):
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):

      def value(change, i=i, x=x, at=at):
        moved = x.copy()
        moved[at] += change
        return (cotangent * f(*args[:i], moved, *args[i + 1 :])).sum()

      gradient[at] = (value(step) - value(-step)) / (2 * step)
    gradients.append(gradient)
  return gradients
