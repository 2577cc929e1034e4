"""The contenders of the task draw of scripts/benchmark.py on PyTorch.

A straightforward DRAW: a function of a dictionary of parameters, which bear
the names they have in our model's variables. It is written so that
torch.jit.script takes it too.
"""

import importlib
import importlib.metadata
from typing import Any, Optional

from benchmark_common import Row, Run, Turns, serve
import benchmark_draw_problem as problems
import numpy as np

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")
F = importlib.import_module("torch.nn.functional")
Tensor = torch.Tensor

_ = (dict, list, Optional, tuple)


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


def kept_mib(run, given: list[Any]) -> float:
  """What autograd keeps of a pass, apart from what is given."""
  there = {a.untyped_storage().data_ptr() for a in given}
  kept = {}

  def pack(a):
    storage = a.untyped_storage()
    if storage.data_ptr() not in there:
      kept[storage.data_ptr()] = storage.nbytes()
    return a

  with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
    result = run()  # Held, so that no address is used twice.
  size = sum(kept.values()) / 2**20
  del result
  return size


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and what was compared."""
  torch.set_num_threads(case["threads"])
  problem = problems.load(case, "")
  params = {
    k: torch.from_numpy(v).requires_grad_()
    for k, v in problems.load(case, "params/").items()
  }
  image = torch.from_numpy(problem["image"])
  scripted = name == "torch_script"
  function = bound
  if scripted:
    for part in ("filters", "window", "lstm", "linear"):
      globals()[part] = torch.jit.script(globals()[part])
    function = torch.jit.script(bound)

  def loss(noise):
    return function(
      params,
      image.float(),
      noise,
      int(problem["read_size"]),
      int(problem["write_size"]),
      case["norm"] == "layer",
      float(problem["eps"]),
    )

  noise = torch.from_numpy(problem["noise"])
  memory = None
  if not scripted:
    given = [*params.values(), image, noise]
    memory = kept_mib(lambda: loss(noise), given)
  for _ in range(3):  # The script is made faster after two.
    value = loss(noise)
    gradients = torch.autograd.grad(value, list(params.values()))
  named = zip(params, gradients, strict=True)
  row = problems.compared(
    case, float(value), {k: np.asarray(g) for k, g in named}
  )
  adam = torch.optim.Adam(
    params.values(),
    lr=float(problem["rate"]),
    betas=tuple(problem["betas"].tolist()),
    eps=float(problem["adam_eps"]),
    fused=True,
  )

  def step():
    value = loss(torch.randn(noise.shape))
    adam.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(params.values(), float(problem["clip"]))
    adam.step()
    return value

  names = ("torch", "numpy")
  row["memory_mib"] = memory
  row["versions"] = {n: importlib.metadata.version(n) for n in names}
  return Turns(step).run, row


if __name__ == "__main__":
  serve(make)
