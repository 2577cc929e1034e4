"""The contenders of the task rnn of scripts/benchmark.py that run on JAX.

Ours is made first and writes the problem file, which the others with layer
norm read.
"""

from collections.abc import Callable
import contextlib
import functools
import importlib.metadata
import time
from typing import Any

from benchmark_common import Row, Run, Turns, serve
import benchmark_rnn_problem as problems
from benchmark_rnn_problem import CHECKED_STEPS, GATES
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

import lnrnn

Params = dict[str, jax.Array]  # named as ours: "w_x", "ln_x/gain", ...
Arrays = tuple[jax.Array, ...]

EPS = 1e-5


def norm(p: Params, name: str, a: jax.Array, start: int = 0) -> jax.Array:
  """Layer norm over the last axis, with the gains and biases from `start`."""
  part = slice(start, start + a.shape[-1])
  d = a - a.mean(-1, keepdims=True)
  scale = lax.rsqrt((d * d).mean(-1, keepdims=True) + EPS)
  return d * scale * p[f"{name}/gain"][part] + p[f"{name}/bias"][part]


def gru_norms(p: Params, name: str, a: jax.Array) -> Arrays:
  """Layer norm of a GRU's gates together, and of its candidate."""
  cut = a.shape[-1] // 3 * 2
  return norm(p, name, a[..., :cut]), norm(p, name, a[..., cut:], cut)


def lstm_inputs(p: Params, x: jax.Array) -> jax.Array:
  """The inputs' term: [..., d] -> [..., 4h]."""
  return norm(p, "ln_x", x @ p["w_x"]) + p["b"]


def lstm_step(p: Params, carry: Arrays, x_in: jax.Array) -> Arrays:
  """Supplement, eqs. (20)-(22): the new (h, c), [b, h] each."""
  h, c = carry
  f, i, o, g = jnp.split(norm(p, "ln_h", h @ p["w_h"]) + x_in, 4, -1)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(norm(p, "ln_c", c)), c


def gru_inputs(p: Params, x: jax.Array) -> Arrays:
  """The inputs' terms: [..., d] -> [..., 2h] and [..., h]."""
  return gru_norms(p, "ln_x", x @ p["w_x"])


def gru_step(p: Params, carry: Arrays, x_in: Arrays) -> Arrays:
  """Supplement, eqs. (26)-(28): the new (h,), [b, h]."""
  (h,) = carry
  gates, u = gru_norms(p, "ln_h", h @ p["w_h"])
  z, r = jnp.split(nn.sigmoid(gates + x_in[0]), 2, -1)
  return ((1 - z) * h + z * jnp.tanh(x_in[1] + r * u),)


CELLS = {"lstm": (lstm_inputs, lstm_step, 2), "gru": (gru_inputs, gru_step, 1)}


def scanned(kind: str, hoist: bool, p: Params, x: jax.Array) -> jax.Array:
  """The layer as a plain scan: x [t, b, d] -> [t, b, h].

  With `hoist` the inputs' term is computed before the scan, for all steps.
  """
  inputs, step, carries = CELLS[kind]

  def body(carry, x_t):
    carry = step(p, carry, x_t if hoist else inputs(p, x_t))
    return carry, carry[0]

  zero = jnp.zeros((x.shape[1], p["w_h"].shape[0]))
  return lax.scan(body, (zero,) * carries, inputs(p, x) if hoist else x)[1]


def layer(name: str, case: dict[str, Any]) -> nn.Module:
  """Flax's layer, which has no norm, or ours: lnrnn or lnrnn_NORM."""
  lstm = case["kind"] == "lstm"
  if name == "flax":
    cell = nn.OptimizedLSTMCell if lstm else nn.GRUCell
    return nn.RNN(cell(case["hidden"]), time_major=True)
  _, _, kind = name.partition("_")
  cell = lnrnn.LSTMCell if lstm else lnrnn.GRUCell
  return lnrnn.RNN(cell(case["hidden"], norm=kind or "layer"), time_major=True)


def drawn(module: nn.Module, x: np.ndarray) -> tuple[Any, dict[str, Any]]:
  """Random variables of ours, and the same by the names in its cell."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  flat, tree = jax.tree_util.tree_flatten_with_path(shapes)
  names = ["/".join(part.key for part in path[2:]) for path, _ in flat]
  sizes = [leaf.shape for _, leaf in flat]
  params = problems.draw(dict(zip(names, sizes, strict=True)))
  return jax.tree.unflatten(tree, params.values()), params


def chain(case: dict[str, Any]) -> tuple[Callable, tuple]:
  """The products that follow one another, T forward and T backward."""
  b, h, gates = case["batch"], case["hidden"], GATES[case["kind"]]

  def run(a, w, wt):
    # The sum, as a slice would let XLA compute a part of the product alone.
    forward = lambda a, _: ((a @ w).reshape(b, gates, h).sum(1), None)
    backward = lambda d, _: (jnp.tile(d @ wt, (1, gates)), None)
    a, _ = lax.scan(forward, a, None, length=case["steps"])
    a = jnp.tile(a, (1, gates))
    return lax.scan(backward, a, None, length=case["steps"])[0]

  # Such that a long chain neither overflows nor decays.
  w = jnp.tile(jnp.eye(h) / gates, (1, gates))
  return run, (jnp.ones((b, h)), w, w.T.copy())


def bulk(case: dict[str, Any]) -> tuple[Callable, tuple]:
  """The products for all time steps at once."""
  shapes = problems.bulk_shapes(case)
  arrays = (jnp.asarray(a) for a in problems.draw(shapes).values())

  def run(x, h, w_x):
    a = x @ w_x
    return x.T @ a, a @ w_x.T, h.T @ a

  return run, tuple(arrays)


def loss_and_gradients(sequence: Callable) -> Callable:
  """Of a layer, `sequence(p, x)`, with respect to p and x."""

  def loss(p, x, g):
    return jnp.sum(sequence(p, x) * g)

  return jax.value_and_grad(loss, argnums=(0, 1))


def normed(
  name: str, case: dict[str, Any]
) -> tuple[Callable, tuple, dict[str, Any]]:
  """A contender with layer norm: its step, arguments, what was compared."""
  x, g = problems.data(case)
  if name == "lnrnn":
    module = layer(name, case)
    p, params = drawn(module, x)
    sequence = module.apply
  else:
    params = problems.load(case, "params/")
    sequence = functools.partial(scanned, case["kind"], name == "hoist")
    p = params
  step = loss_and_gradients(sequence)
  with precision(case, "float32"):
    short = (p, x[:CHECKED_STEPS], g[:CHECKED_STEPS])
    loss, (_, d_x) = jax.jit(step)(*short)
  if name == "lnrnn":
    problems.save(case, params, loss, d_x)
  return step, (p, x, g), problems.compared(case, float(loss), np.asarray(d_x))


def precision(case: dict[str, Any], name: str):
  """The context under which a step is traced."""
  if case["device"] == "cpu":  # As users have it; all are float32.
    return contextlib.nullcontext()
  return jax.default_matmul_precision(name)


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn; what was compared, memory and time to compile."""
  if case["device"] == "gpu" and jax.default_backend() != "gpu":
    raise RuntimeError("--device=gpu: JAX has none here")
  row: dict[str, Any] = {"versions": versions()}
  if name in ("chain_jax", "bulk_jax"):
    step, arguments = (chain if name == "chain_jax" else bulk)(case)
  elif name in ("lnrnn", "naive", "hoist"):
    step, arguments, compared = normed(name, case)
    row |= compared
  else:
    x, g = problems.data(case)
    module = layer(name, case)
    step = loss_and_gradients(module.apply)
    arguments = (module.init(jax.random.key(0), x[:1]), x, g)
  arguments = jax.device_put(arguments)
  jax.clear_caches()  # Nobody traces less because of who came before.
  began = time.perf_counter()
  with precision(case, case["precision"]):
    compiled = jax.jit(step).lower(*arguments).compile()
  row["compile_s"] = time.perf_counter() - began
  if memory := compiled.memory_analysis():
    row["temporaries_mib"] = memory.temp_size_in_bytes / 2**20
  return Turns(lambda: jax.block_until_ready(compiled(*arguments))).run, row


def versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  names = ("jax", "jaxlib", "flax", "numpy")
  found = {name: importlib.metadata.version(name) for name in names}
  return found | {"device": jax.devices()[0].device_kind}


if __name__ == "__main__":
  serve(make)
