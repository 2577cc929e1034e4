"""The contenders of the task draw of scripts/benchmark.py on PyTorch.

A straightforward DRAW: a function of a dictionary of parameters, which bear
the names they have in our model's variables. It is written so that
torch.jit.script takes it too.
"""

import importlib
from typing import Any

from benchmark_common import Row, Run, serve
import benchmark_update_problem as problems
import benchmark_update_torch as updates

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")
F = importlib.import_module("torch.nn.functional")
Tensor = torch.Tensor


def filters(centre, stride, variance, n: int, pixels: int):
  """Gregor et al. 2015, eqs. (19), (25): [b, n, pixels]."""
  offsets = torch.arange(n, dtype=centre.dtype) - (n - 1) / 2
  at = torch.arange(1, pixels + 1, dtype=centre.dtype)
  means = centre[:, None] + offsets * stride[:, None]
  squares = (at - means[:, :, None]) ** 2
  return torch.softmax(-squares / (2 * variance[:, None, None]), -1)


def window(a, n: int, height: int, width: int):
  """Eqs. (21)-(24): filterbanks F_Y, F_X, and gamma [b, 1, 1]."""
  gx, gy, log_variance, log_stride, log_gamma = a.unbind(1)
  stride = (max(height, width) - 1) / (n - 1) * log_stride.exp()
  variance = log_variance.exp()
  x = (width + 1) / 2 * (gx + 1)
  y = (height + 1) / 2 * (gy + 1)
  f_y = filters(y, stride, variance, n, height)
  f_x = filters(x, stride, variance, n, width)
  return f_y, f_x, log_gamma.exp()[:, None, None]


def lstm(
  p: "dict[str, Tensor]",
  name: str,
  x,
  h,
  c,
  normed: bool,
  eps: float,
) -> "tuple[Tensor, Tensor]":
  """Ba et al. 2016, supplement, eqs. (29)-(31): the new h and c."""
  a = torch.addmm(p[name + "/b"], x, p[name + "/w_x"]) + h @ p[name + "/w_h"]
  f, i, o, g = a.chunk(4, 1)
  c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
  shown = c
  if normed:
    gain = p[name + "/ln_c/gain"]
    shown = F.layer_norm(c, [c.shape[1]], gain, p[name + "/ln_c/bias"], eps)
  return torch.sigmoid(o) * torch.tanh(shown), c


def linear(p: "dict[str, Tensor]", name: str, h):
  """A map of a state."""
  return torch.addmm(p[name + "_bias"], h, p[name + "_kernel"])


def bound(
  p: "dict[str, Tensor]",
  image,
  noise,
  read_size: int,
  write_size: int,
  normed: bool,
  eps: float,
):
  """The variational bound, the mean over images [b, height, width]."""
  b, height, width = image.shape
  canvas = p["canvas_start"].expand(b, height, width)
  h_enc = p["encoder_start_h"].expand(b, -1)
  c_enc = p["encoder_start_c"].expand(b, -1)
  h_dec = p["decoder_start_h"].expand(b, -1)
  c_dec = p["decoder_start_c"].expand(b, -1)
  kl = torch.zeros(b)
  for e in noise.unbind(0):
    a = linear(p, "read_window", h_dec)
    f_y, f_x, gamma = window(a, read_size, height, width)
    f_x = f_x.transpose(1, 2)
    seen = f_y.bmm(image).bmm(f_x) * gamma
    error = f_y.bmm(image - torch.sigmoid(canvas)).bmm(f_x) * gamma
    x = torch.cat([seen.flatten(1), error.flatten(1), h_dec], 1)
    h_enc, c_enc = lstm(p, "encoder", x, h_enc, c_enc, normed, eps)
    mean, log_sd = linear(p, "latent", h_enc).chunk(2, 1)
    sd = log_sd.exp()
    z = mean + sd * e
    kl = kl + ((mean * mean + sd * sd - 1) / 2 - log_sd).sum(1)
    h_dec, c_dec = lstm(p, "decoder", z, h_dec, c_dec, normed, eps)
    a = linear(p, "write_window", h_dec)
    f_y, f_x, gamma = window(a, write_size, height, width)
    patch = linear(p, "patch", h_dec).view(b, write_size, write_size)
    canvas = canvas + f_y.transpose(1, 2).bmm(patch / gamma).bmm(f_x)
  nll = F.binary_cross_entropy_with_logits(canvas, image, reduction="sum") / b
  return nll + kl.mean()


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and what was compared."""
  params = updates.parameters(case)
  problem = problems.load(case, "")
  script = name == "torch_script"
  parts = ("filters", "window", "lstm", "linear", "bound")
  function = updates.scripted(__file__, *parts)[-1] if script else bound
  image = torch.from_numpy(problem["batch/image"])
  sizes = int(problem["read_size"]), int(problem["write_size"])
  norm = case["norm"] == "layer", float(problem["eps"])

  def loss(params, noise):
    return function(params, image.float(), noise, *sizes, *norm)

  noise = torch.from_numpy(problem["noise"])
  fresh = lambda: (torch.randn(noise.shape),)
  return updates.contender(case, loss, params, (noise,), fresh, scripted=script)


if __name__ == "__main__":
  serve(make)
