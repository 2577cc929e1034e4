"""The contenders of the task rnn of scripts/benchmark.py that run on PyTorch.

Parameters bear the names they have in our cells' variables; those of a layer
with layer norm, and the data, come from the problem file that ours wrote.
"""

from collections.abc import Callable
import importlib
import importlib.metadata
from typing import Any

from benchmark_common import Row, Run, Turns, serve
import benchmark_rnn_problem as problems
from benchmark_rnn_problem import CHECKED_STEPS, GATES

# By name: a type checker need not have PyTorch.
torch = importlib.import_module("torch")
F = importlib.import_module("torch.nn.functional")

EPS = 1e-5
# The parameters in the order of the functions below.
NAMES = {
  "lstm": "w_x w_h b ln_x/gain ln_x/bias ln_h/gain ln_h/bias ln_c/gain"
  " ln_c/bias",
  "gru": "w_x w_h ln_x/gain ln_x/bias ln_h/gain ln_h/bias",
}


# These two are written so that torch.jit.script takes them too.
def lstm(x, w_x, w_h, b, gain_x, bias_x, gain_h, bias_h, gain_c, bias_c):
  """Supplement, eqs. (20)-(22): x [t, b, d] -> [t, b, h]."""
  h = x.new_zeros([x.shape[1], w_h.shape[0]])
  c = h
  hs = []
  x_in = F.layer_norm(x @ w_x, [w_x.shape[1]], gain_x, bias_x, 1e-5) + b
  for x_t in x_in.unbind(0):
    a = F.layer_norm(h @ w_h, [w_h.shape[1]], gain_h, bias_h, 1e-5) + x_t
    f, i, o, g = a.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    normed = F.layer_norm(c, [w_h.shape[0]], gain_c, bias_c, 1e-5)
    h = torch.sigmoid(o) * torch.tanh(normed)
    hs.append(h)
  return torch.stack(hs)


def gru(x, w_x, w_h, gain_x, bias_x, gain_h, bias_h):
  """Supplement, eqs. (26)-(28): x [t, b, d] -> [t, b, h]."""
  n = w_h.shape[0]
  m = 2 * n
  h = x.new_zeros([x.shape[1], n])
  hs = []
  xs = x @ w_x
  gates_in = F.layer_norm(xs[:, :, :m], [m], gain_x[:m], bias_x[:m], 1e-5)
  u_in = F.layer_norm(xs[:, :, m:], [n], gain_x[m:], bias_x[m:], 1e-5)
  for gates_t, u_t in zip(gates_in.unbind(0), u_in.unbind(0)):  # noqa: B905
    a = h @ w_h
    gates = F.layer_norm(a[:, :m], [m], gain_h[:m], bias_h[:m], 1e-5)
    z, r = torch.sigmoid(gates + gates_t).chunk(2, 1)
    u = F.layer_norm(a[:, m:], [n], gain_h[m:], bias_h[m:], 1e-5)
    h = h + z * (torch.tanh(u_t + r * u) - h)
    hs.append(h)
  return torch.stack(hs)


def normalised(a):
  """Without gain and bias: the result, and 1 / its standard deviation."""
  n, _, scale = torch.native_layer_norm(a, [a.shape[-1]], None, None, EPS)
  return n, scale


def normalised_backward(n, scale, d_n):
  """The cotangent of what was normalised."""
  along = (d_n * n).mean(-1, keepdim=True)
  return scale * (d_n - d_n.mean(-1, keepdim=True) - n * along)


class LSTM(torch.autograd.Function):
  """The recurrence of `lstm`, given the inputs' term [t, b, 4h]."""

  @staticmethod
  def forward(ctx, w_h, gain_h, gain_c, bias_c, x_in):
    """Keeps every activation."""
    n = w_h.shape[0]
    h = c = x_in.new_zeros(x_in.shape[1], n)
    kept = []
    for x_t in x_in:
      a, scale = normalised(h @ w_h)
      summed = torch.addcmul(x_t, a, gain_h)
      s, g = torch.sigmoid_(summed[:, : 3 * n]), torch.tanh_(summed[:, 3 * n :])
      c = s[:, :n] * c + s[:, n : 2 * n] * g
      a_c, scale_c = normalised(c)
      y = torch.tanh_(torch.addcmul(bias_c, a_c, gain_c))
      h = s[:, 2 * n :] * y
      kept.append((a, scale, s, g, c, a_c, scale_c, y, h))
    ctx.kept = kept
    ctx.save_for_backward(w_h, gain_h, gain_c)
    return torch.stack([step[-1] for step in kept])

  @staticmethod
  def backward(ctx, *cotangents):
    """The weights' gradient is one product, for all time steps."""
    (d_hs,) = cotangents
    w_h, gain_h, gain_c = ctx.saved_tensors
    t_max, b, n = d_hs.shape
    zero = d_h = d_c = d_hs.new_zeros(b, n)
    w_t = w_h.t()
    d_in = d_hs.new_empty(t_max, b, 4 * n)
    d_a, d_y = torch.empty_like(d_in), torch.empty_like(d_hs)
    for t in reversed(range(t_max)):
      a, scale, s, g, _, a_c, scale_c, y, _ = ctx.kept[t]
      before = ctx.kept[t - 1][4] if t else zero
      f, i, o = s.split(n, 1)
      d_h = d_h + d_hs[t]
      d = torch.mul(d_h * o, 1 - y * y, out=d_y[t])
      d_c = d_c + normalised_backward(a_c, scale_c, d * gain_c)
      d_f, d_i, d_o, d_g = d_in[t].split(n, 1)
      torch.mul(d_c * before, f * (1 - f), out=d_f)
      torch.mul(d_c * g, i * (1 - i), out=d_i)
      torch.mul(d_h * y, o * (1 - o), out=d_o)
      torch.mul(d_c * i, 1 - g * g, out=d_g)
      d_a[t] = normalised_backward(a, scale, d_in[t] * gain_h)
      d_h = d_a[t] @ w_t
      d_c = d_c * f
    hs = torch.stack([zero] + [step[-1] for step in ctx.kept[:-1]])
    a, a_c = (torch.stack([step[k] for step in ctx.kept]) for k in (0, 5))
    return (
      hs.flatten(0, 1).t() @ d_a.flatten(0, 1),
      (d_in * a).sum((0, 1)),
      (d_y * a_c).sum((0, 1)),
      d_y.sum((0, 1)),
      d_in,
    )


class GRU(torch.autograd.Function):
  """The recurrence of `gru`, given the inputs' terms [t, b, 2h], [t, b, h]."""

  @staticmethod
  def forward(ctx, w_h, gain, gain_u, bias_u, gates_in, u_in):
    """Keeps every activation."""
    n = w_h.shape[0]
    h = u_in.new_zeros(u_in.shape[1], n)
    kept = []
    for gates_t, u_t in zip(gates_in, u_in, strict=True):
      product = h @ w_h
      a, scale = normalised(product[:, : 2 * n])
      a_u, scale_u = normalised(product[:, 2 * n :])
      s = torch.sigmoid_(torch.addcmul(gates_t, a, gain))
      u = torch.addcmul(bias_u, a_u, gain_u)
      y = torch.tanh_(torch.addcmul(u_t, s[:, n:], u))
      h = torch.lerp(h, y, s[:, :n])
      kept.append((a, scale, a_u, scale_u, s, u, y, h))
    ctx.kept = kept
    ctx.save_for_backward(w_h, gain, gain_u)
    return torch.stack([step[-1] for step in kept])

  @staticmethod
  def backward(ctx, *cotangents):
    """The weights' gradient is one product, for all time steps."""
    (d_hs,) = cotangents
    w_h, gain, gain_u = ctx.saved_tensors
    t_max, b, n = d_hs.shape
    zero = d_h = d_hs.new_zeros(b, n)
    w_t = w_h.t()
    d_a = d_hs.new_empty(t_max, b, 3 * n)
    d_gates = d_hs.new_empty(t_max, b, 2 * n)
    d_in, d_u = torch.empty_like(d_hs), torch.empty_like(d_hs)
    for t in reversed(range(t_max)):
      a, scale, a_u, scale_u, s, u, y, _ = ctx.kept[t]
      before = ctx.kept[t - 1][-1] if t else zero
      z, r = s.split(n, 1)
      d_h = d_h + d_hs[t]
      d = torch.mul(d_h * z, 1 - y * y, out=d_in[t])
      torch.mul(d, r, out=d_u[t])
      d_z, d_r = d_gates[t].split(n, 1)
      torch.mul(d_h * (y - before), z * (1 - z), out=d_z)
      torch.mul(d * u, r * (1 - r), out=d_r)
      d_a[t, :, : 2 * n] = normalised_backward(a, scale, d_gates[t] * gain)
      d_a[t, :, 2 * n :] = normalised_backward(a_u, scale_u, d_u[t] * gain_u)
      d_h = torch.addmm(d_h * (1 - z), d_a[t], w_t)
    hs = torch.stack([zero] + [step[-1] for step in ctx.kept[:-1]])
    a, a_u = (torch.stack([step[k] for step in ctx.kept]) for k in (0, 2))
    return (
      hs.flatten(0, 1).t() @ d_a.flatten(0, 1),
      (d_gates * a).sum((0, 1)),
      (d_u * a_u).sum((0, 1)),
      d_u.sum((0, 1)),
      d_gates,
      d_in,
    )


def lstm_by_hand(
  x, w_x, w_h, b, gain_x, bias_x, gain_h, bias_h, gain_c, bias_c
):
  """As `lstm`."""
  x_in = F.layer_norm(x @ w_x, gain_x.shape, gain_x, bias_x, EPS)
  return LSTM.apply(w_h, gain_h, gain_c, bias_c, x_in + (bias_h + b))


def gru_by_hand(x, w_x, w_h, gain_x, bias_x, gain_h, bias_h):
  """As `gru`."""
  n = w_h.shape[0]
  cut = (2 * n, n)
  (g_x, g_xu), (b_x, b_xu) = gain_x.split(cut), bias_x.split(cut)
  (g_h, g_hu), (b_h, b_hu) = gain_h.split(cut), bias_h.split(cut)
  gates, u = (x @ w_x).split(cut, -1)
  gates = F.layer_norm(gates, g_x.shape, g_x, b_x, EPS) + b_h
  u = F.layer_norm(u, g_xu.shape, g_xu, b_xu, EPS)
  return GRU.apply(w_h, g_h, g_hu, b_hu, gates, u)


def chain(case: dict[str, Any], device: str) -> Callable:
  """The products that follow one another, T forward and T backward."""
  n, gates = case["hidden"], GATES[case["kind"]]
  w = torch.eye(n, device=device).tile(1, gates)
  w_t = (w.t() / gates).contiguous()  # The numbers stay as they are.
  h = torch.ones(case["batch"], n, device=device)
  a = h @ w

  def run():
    for _ in range(case["steps"]):
      torch.mm(h, w, out=a)
    for _ in range(case["steps"]):
      torch.mm(a, w_t, out=h)

  return run


def bulk(case: dict[str, Any], device: str) -> Callable:
  """The products for all time steps at once."""
  arrays = problems.draw(problems.bulk_shapes(case)).values()
  x, h, w_x = (torch.from_numpy(a).to(device) for a in arrays)

  def run():
    a = x @ w_x
    return x.t() @ a, a @ w_x.t(), h.t() @ a

  return run


def normed(
  name: str, case: dict[str, Any], device: str
) -> tuple[Callable, dict[str, float]]:
  """A contender with layer norm: its step, and what was compared."""
  kind = case["kind"]
  by_hand = name == "torch_fn"
  sequences = (lstm_by_hand, gru_by_hand) if by_hand else (lstm, gru)
  sequence = sequences[kind == "gru"]
  if name == "torch_script":
    sequence = torch.jit.script(sequence)
  problem = problems.load(case)
  params = [
    torch.from_numpy(problem[f"params/{k}"]).to(device).requires_grad_()
    for k in NAMES[kind].split()
  ]
  step = loss_and_gradients(lambda x: sequence(x, *params), params, device)
  x, g = problem["x"], problem["g"]
  precision("float32")
  loss, (*_, d_x) = step(x[:CHECKED_STEPS], g[:CHECKED_STEPS])()
  found = problems.compared(case, float(loss), d_x.cpu().numpy())
  return step(x, g), found


def loss_and_gradients(
  sequence: Callable, params: list[Any], device: str
) -> Callable:
  """Of a layer, with respect to parameters and inputs: data -> step."""

  def step(x, g):
    x = torch.from_numpy(x).to(device).requires_grad_()
    g = torch.from_numpy(g).to(device)

    def run():
      loss = (sequence(x) * g).sum()
      return loss, torch.autograd.grad(loss, [*params, x])

    return run

  return step


def precision(name: str) -> None:
  """Of the matrix products on a GPU, cuDNN's among them."""
  tf32 = name == "tensorfloat32"
  torch.set_float32_matmul_precision("high" if tf32 else "highest")
  torch.backends.cudnn.allow_tf32 = tf32


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and what was compared."""
  torch.set_num_threads(case["threads"])
  gpu = case["device"] == "gpu"
  if gpu and not torch.cuda.is_available():
    raise RuntimeError("--device=gpu: PyTorch has none here")
  device = "cuda" if gpu else "cpu"
  versions = {k: importlib.metadata.version(k) for k in ("torch", "numpy")}
  versions["device"] = torch.cuda.get_device_name() if gpu else device
  row: dict[str, Any] = {"versions": versions}
  if name in ("chain_torch", "bulk_torch"):
    step = (chain if name == "chain_torch" else bulk)(case, device)
  elif name == "torch_nn":
    kind = torch.nn.LSTM if case["kind"] == "lstm" else torch.nn.GRU
    module = kind(case["inputs"], case["hidden"]).to(device)
    params = list(module.parameters())
    sequence = lambda x: module(x)[0]
    step = loss_and_gradients(sequence, params, device)(*problems.data(case))
  else:
    step, compared = normed(name, case, device)
    row |= compared
  precision(case["precision"])

  def finished():
    step()
    if gpu:
      torch.cuda.synchronize()

  return Turns(finished).run, row


if __name__ == "__main__":
  serve(make)
