"""The contenders of the task handwriting of scripts/benchmark.py on PyTorch.

A straightforward network: functions of a dictionary of parameters, which bear
the names they have in our model's variables. They are written so that
torch.jit.script takes them too. What does not depend on the state is made
before the loop.
"""

import importlib
import math
from typing import Any

from benchmark_common import Row, Run, Turns, serve
import benchmark_update_problem as problems
import benchmark_update_torch as updates

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")
F = importlib.import_module("torch.nn.functional")
Tensor = torch.Tensor

CHARACTERS = 57


def lstm(
  p: dict[str, Tensor],
  name: str,
  x_in,
  h,
  c,
  normed: bool,
  eps: float,
) -> tuple[Tensor, Tensor]:
  """Ba et al. 2016, eqs. (20)-(22): the new h and c.

  `x_in` is x W_x, normalised if there is a norm, and b.
  """
  a = h @ p[name + "/w_h"]
  if normed:
    gain, bias = p[name + "/ln_h/gain"], p[name + "/ln_h/bias"]
    a = F.layer_norm(a, [a.shape[1]], gain, bias, eps)
  f, i, o, g = (a + x_in).chunk(4, 1)
  c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
  shown = c
  if normed:
    gain, bias = p[name + "/ln_c/gain"], p[name + "/ln_c/bias"]
    shown = F.layer_norm(c, [c.shape[1]], gain, bias, eps)
  return torch.sigmoid(o) * torch.tanh(shown), c


def inputs(
  p: dict[str, Tensor],
  name: str,
  x,
  normed: bool,
  eps: float,
):
  """X W_x, normalised if there is a norm, and b; for any leading axes."""
  a = x @ p[name + "/w_x"]
  if normed:
    gain, bias = p[name + "/ln_x/gain"], p[name + "/ln_x/bias"]
    a = F.layer_norm(a, [a.shape[-1]], gain, bias, eps)
  return a + p[name + "/b"]


def look(
  p: dict[str, Tensor],
  h,
  place,
  one_hot,
) -> tuple[Tensor, Tensor]:
  """Graves 2013, eqs. (46)-(51): what the window sees, and where it is."""
  raw = torch.addmm(p["window_bias"], h, p["window_kernel"])
  weight, sharpness, step = raw.clamp(-10, 10).exp().chunk(3, 1)
  place = place + step
  n = one_hot.shape[1]
  at = torch.arange(1, n + 1, dtype=h.dtype)
  squares = (place[:, :, None] - at) ** 2
  phi = (weight[:, :, None] * torch.exp(-sharpness[:, :, None] * squares)).sum(
    1
  )
  return torch.bmm(phi[:, None], one_hot)[:, 0], place


def outputs(
  p: dict[str, Tensor],
  x,
  one_hot,
  layers: int,
  normed: bool,
  eps: float,
):
  """Of points [t, b, 3], what the network puts out, [t, b, 121]."""
  t, b, _ = x.shape
  h = torch.zeros(b, p["lstms_0/w_h"].shape[0])
  c = h
  seen = torch.zeros(b, one_hot.shape[2])
  place = torch.zeros(b, p["window_bias"].shape[0] // 3)
  hs, views = [], []
  for x_t in x.unbind(0):
    both = torch.cat([x_t, seen], 1)
    x_in = inputs(p, "lstms_0", both, normed, eps)
    h, c = lstm(p, "lstms_0", x_in, h, c, normed, eps)
    seen, place = look(p, h, place, one_hot)
    hs.append(h)
    views.append(seen)
  below = torch.stack(hs)
  x = torch.cat([x, torch.stack(views)], 2)
  shown = [below]
  for i in range(1, layers):
    name = "lstms_" + str(i)
    x_in = inputs(p, name, torch.cat([x, below], 2), normed, eps)
    h = torch.zeros_like(h)
    c = h
    hs = []
    for x_t in x_in.unbind(0):
      h, c = lstm(p, name, x_t, h, c, normed, eps)
      hs.append(h)
    below = torch.stack(hs)
    shown.append(below)
  return torch.cat(shown, 2) @ p["output_kernel"] + p["output_bias"]


def loss(
  p: dict[str, Tensor],
  ink,
  one_hot,
  layers: int,
  normed: bool,
  eps: float,
  floor: float,
):
  """-log p of the lines [t, b, 3], the mean over them; eqs. (18)-(26)."""
  x = torch.cat([torch.zeros_like(ink[:1]), ink[:-1]])
  a = outputs(p, x, one_hot, layers, normed, eps)
  m = (a.shape[2] - 1) // 6
  end, weight, mean, deviation, rho = a.split([1, m, 2 * m, 2 * m, m], 2)
  rho = 0.999 * torch.tanh(rho)
  s = floor + torch.exp(deviation.clamp(max=10.0))
  d = (ink[:, :, :2].repeat_interleave(m, 2) - mean) / s
  d1, d2 = d.chunk(2, 2)
  free = 1 - rho * rho
  z = d1 * d1 + d2 * d2 - 2 * rho * d1 * d2
  s1, s2 = s.chunk(2, 2)
  log_norm = math.log(2 * math.pi) + torch.log(s1 * s2) + torch.log(free) / 2
  density = torch.log_softmax(weight, 2) - z / (2 * free) - log_norm
  up = ink[:, :, 2]
  lift = F.binary_cross_entropy_with_logits(-end[:, :, 0], up, reduction="none")
  return (lift - torch.logsumexp(density, 2)).sum(0).mean()


def write(
  p: dict[str, Tensor],
  one_hot,
  steps: int,
  layers: int,
  normed: bool,
  eps: float,
  floor: float,
):
  """Samples lines [steps, b, 3]."""
  b = one_hot.shape[0]
  h = [torch.zeros(b, p["lstms_0/w_h"].shape[0]) for _ in range(layers)]
  c = [torch.zeros_like(h[0]) for _ in range(layers)]
  seen = torch.zeros(b, one_hot.shape[2])
  place = torch.zeros(b, p["window_bias"].shape[0] // 3)
  point = torch.zeros(b, 3)
  points = []
  for _ in range(steps):
    x = torch.cat([point, seen], 1)
    for i in range(layers):
      name = "lstms_" + str(i)
      x_in = inputs(p, name, x, normed, eps)
      h[i], c[i] = lstm(p, name, x_in, h[i], c[i], normed, eps)
      if i == 0:
        seen, place = look(p, h[0], place, one_hot)
      x = torch.cat([point, seen, h[i]], 1)
    a = torch.addmm(p["output_bias"], torch.cat(h, 1), p["output_kernel"])
    m = (a.shape[1] - 1) // 6
    end, weight, mean, deviation, rho = a.split([1, m, 2 * m, 2 * m, m], 1)
    j = torch.multinomial(torch.softmax(weight, 1), 1)
    at = torch.cat([j, j + m], 1)
    s = floor + torch.exp(deviation.gather(1, at))
    r = 0.999 * torch.tanh(rho.gather(1, j))
    u, v = torch.randn(b, 2).chunk(2, 1)
    unit = torch.cat([u, r * u + torch.sqrt(1 - r * r) * v], 1)
    up = torch.bernoulli(torch.sigmoid(-end))
    point = torch.cat([mean.gather(1, at) + s * unit, up], 1)
    points.append(point)
  return torch.stack(points)


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and what was compared."""
  params = updates.parameters(case)
  problem = problems.load(case, "")
  script = name == "torch_script"
  functions = [loss, write]
  if script:
    parts = ("lstm", "inputs", "look", "outputs", "loss", "write")
    functions = updates.scripted(__file__, *parts)[-2:]
  ink = torch.from_numpy(problem["batch/ink"]).transpose(0, 1).contiguous()
  codes = torch.from_numpy(problem["batch/text"]).long()
  one_hot = F.one_hot(codes, CHARACTERS).float()
  how = int(problem["layers"]), case["norm"] == "layer", float(problem["eps"])
  floor = float(problem["min_deviation"])
  function, sample = functions
  run, row = updates.contender(
    case,
    lambda params, ink: function(params, ink, one_hot, *how, floor),
    params,
    (ink,),
    lambda: (ink,),
    scripted=script,
    short=(ink[: problems.CHECKED_POINTS],),
  )
  if case["part"] == "update":
    return run, row
  steps = case["points"]
  row["memory_mib"] = None

  def turn():
    with torch.no_grad():
      return sample(params, one_hot, steps, *how, floor)

  return Turns(turn).run, row


if __name__ == "__main__":
  serve(make)
