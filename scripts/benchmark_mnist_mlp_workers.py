"""The contenders of the task mnist_mlp of scripts/benchmark.py.

A contender has `Contender(case)`, `losses()` of the checked steps, and
`run(seconds)`. What it needs is imported inside: PyTorch's environment may
lack JAX, and ours PyTorch.
"""

import importlib
import importlib.metadata
import itertools
import math
import time
from typing import Any

from benchmark_common import Row, Run, serve

CHECKED_STEPS = 3


class LnrnnMlp:
  """Our loop on mnist_mlp; writes the problem file that PyTorch's reads."""

  def __init__(self, case: dict[str, Any]):
    import jax
    import numpy as np

    from configs import mnist_mlp as configs
    from experiments import mnist_mlp
    from lnrnn.training import distributed, health, optim
    from lnrnn.training import step as step_lib

    config = configs.get_config(
      f"norm={case['norm']},batch_size={case['batch_size']},"
      f"model.hidden=({','.join(map(str, case['hidden']))},),"
      "model.bn_unbiased=false"  # PyTorch's batch norm has no other.
    )
    experiment = mnist_mlp.build(config)
    tx = optim.make(config.optimizer, config.train_steps)
    keys = step_lib.Keys.of(config.seed)
    self._key = jax.random.key_data(keys.step)
    self._data: Any = experiment.train_data
    self._initial = jax.device_get(
      step_lib.init_state(experiment, tx, keys.init)
    )

    self._mesh = distributed.mesh()
    self._log_every = config.log_every
    self._jitted = step_lib.dispatcher(
      experiment, tx, self._mesh, log_every=config.log_every
    )
    self._norm = jax.jit(health.norm)
    self._compiled: Any = None
    self._events = [config.log_every, config.eval_every]
    self._events += [config.checkpoint_every]
    self._longest = min(config.steps_per_dispatch, *self._events)
    self._batches = self._read()

    first = self._data.stacked(0, CHECKED_STEPS)
    params = self._initial.variables["params"]
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    rows = self._data.stacked(0, self._data.steps_per_epoch)
    np.savez(
      case["problem"],
      image=rows["image"].reshape(-1, rows["image"].shape[-1]),
      label=rows["label"].reshape(-1),
      first_image=first["image"],
      first_label=first["label"],
      rate=config.optimizer.learning_rate,
      betas=(config.optimizer.b1, config.optimizer.b2),
      adam_eps=config.optimizer.eps,
      norm_eps=config.model.eps,
      norm_output=config.model.norm_output,
      **{
        "params/" + "/".join(part.key for part in path): leaf
        for path, leaf in flat
      },
    )

  @staticmethod
  def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    names = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")
    return {name: importlib.metadata.version(name) for name in names}

  def losses(self) -> list[float]:
    """Of the checked steps."""
    batch, _, _ = next(self._batches)
    _, metrics = self._dispatch(self._state(), batch, CHECKED_STEPS, False)
    return metrics["loss"].tolist()

  def run(self, seconds: float) -> tuple[int, float]:
    """Trains for about `seconds`: (steps, seconds)."""
    state = self._state()
    state, _ = self._dispatch(state, *next(self._batches))
    steps, began, spent = 0, time.perf_counter(), 0.0
    while spent < seconds:
      state, metrics = self._dispatch(state, *next(self._batches))
      steps += len(metrics["loss"])
      spent = time.perf_counter() - began
    return steps, spent

  def _state(self) -> Any:
    import jax

    from lnrnn.training import distributed

    return jax.block_until_ready(
      distributed.replicate(
        jax.tree.map(jax.numpy.array, self._initial), self._mesh
      )
    )

  def _read(self):
    """The batches of an endless run, cut and read ahead as `train` does."""
    from lnrnn.data import batches
    from lnrnn.training import step as step_lib

    # The cuts repeat with the events, so these are all the lengths there are.
    period = math.lcm(*self._events)
    for i in itertools.count():
      ends = (i * period, (i + 1) * period)
      plan = list(step_lib.chunks(*ends, self._events, self._longest))
      chunks = batches.prefetched(self._data, plan, length=self._longest)
      for batch, (first, end) in zip(chunks, plan, strict=True):
        yield batch, end - first, end % self._log_every == 0

  def _dispatch(self, state, batches, n, logged):
    import jax
    import numpy as np

    from lnrnn.training import distributed

    args = (distributed.shard(batches, self._mesh), np.int32(n), self._key)
    if not self._compiled:
      self._compiled = self._jitted.lower(state, *args).compile()
    state, metrics = self._compiled(state, *args)
    if logged:
      metrics["param_norm"] = self._norm(state.variables["params"])[None]
    metrics = jax.device_get(metrics)
    return state, {name: v[:n] for name, v in metrics.items()}


class TorchMlp:
  """An eager PyTorch loop on the same problem.

  Attributes:
    fused: of its Adam; None is PyTorch's default.
    compile: forward and loss under torch.compile.
  """

  fused: bool | None = None
  compile = False

  def __init__(self, case: dict[str, Any]):
    import numpy as np

    # By name: a type checker need not have PyTorch.
    self._torch = torch = importlib.import_module("torch")
    torch.set_num_threads(case["threads"])
    with np.load(case["problem"]) as file:
      self._problem = dict(file)
    self._norm, self._b = case["norm"], case["batch_size"]
    self._image = torch.from_numpy(self._problem["image"])
    self._label = torch.from_numpy(self._problem["label"]).long()
    self._model = self._make(case["hidden"])
    self._initial = {
      name: value.clone() for name, value in self._model.state_dict().items()
    }

    def loss(image, label):
      logits = self._model(image.float() / 255)
      return torch.nn.functional.cross_entropy(logits, label)

    self._loss = torch.compile(loss) if self.compile else loss

  @staticmethod
  def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {n: importlib.metadata.version(n) for n in ("torch", "numpy")}

  def losses(self) -> list[float]:
    """Of the checked steps."""
    image = self._torch.from_numpy(self._problem["first_image"])
    label = self._torch.from_numpy(self._problem["first_label"]).long()
    step = self._start()
    batches = zip(image, label, strict=True)
    return [float(step(*batch)) for batch in batches]

  def run(self, seconds: float) -> tuple[int, float]:
    """Trains for about `seconds`: (steps, seconds)."""
    step, batches = self._start(), self._batches()
    for batch in itertools.islice(batches, 10):
      step(*batch)
    steps, began, spent = 0, time.perf_counter(), 0.0
    while spent < seconds:
      losses = [step(*batch) for batch in itertools.islice(batches, 10)]
      steps += len(losses)
      spent = time.perf_counter() - began
    return steps, spent

  def _batches(self):
    n = len(self._label) // self._b * self._b
    while True:
      order = self._torch.randperm(len(self._label))[:n]
      for rows in order.split(self._b):
        yield self._image.index_select(0, rows), self._label[rows]

  def _start(self):
    """A train step that starts from the initial parameters."""
    self._model.load_state_dict(self._initial)
    adam = self._torch.optim.Adam(
      self._model.parameters(),
      lr=float(self._problem["rate"]),
      betas=tuple(self._problem["betas"].tolist()),
      eps=float(self._problem["adam_eps"]),
      fused=self.fused,
    )

    def step(image, label):
      loss = self._loss(image, label)
      adam.zero_grad()
      loss.backward()
      adam.step()
      return loss.detach()

    return step

  def _make(self, hidden: list[int]):
    """The network, holding the parameters of the problem file."""
    nn = self._torch.nn
    kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    eps = float(self._problem["norm_eps"])
    layers = []
    names = [f"hidden_{i}" for i in range(len(hidden))] + ["output"]
    for name in names:
      kernel = self._take(f"{name}/layer/kernel").T
      inner = name != "output"
      normed = self._norm != "none" and (inner or self._problem["norm_output"])
      dense = nn.Linear(*reversed(kernel.shape), bias=not normed)
      dense.weight.data = kernel.contiguous()
      layers.append(dense)
      if normed:
        norm = kinds[self._norm](len(kernel), eps=eps)
        norm.weight.data = self._take(f"{name}/norm/gain")
        norm.bias.data = self._take(f"{name}/norm/bias")
        layers.append(norm)
      else:
        dense.bias.data = self._take(f"{name}/layer/bias")
      if inner:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers).train()

  def _take(self, name: str):
    return self._torch.from_numpy(self._problem["params/" + name])


class TorchFused(TorchMlp):
  """With the fused Adam."""

  fused = True


class TorchCompile(TorchFused):
  """With the fused Adam, forward and loss under torch.compile."""

  compile = True


# The first is ours, and every ratio's numerator.
CONTENDERS: dict[str, type] = {
  "lnrnn": LnrnnMlp,
  "torch_fused": TorchFused,
  "torch_default": TorchMlp,
  "torch_compile": TorchCompile,
}


def make(name: str, case: dict[str, Any]) -> tuple[Run, Row]:
  """A contender's turn, and the losses of its checked steps."""
  contender = CONTENDERS[name](case)
  versions = contender.versions()
  return contender.run, {"losses": contender.losses(), "versions": versions}


if __name__ == "__main__":
  serve(make)
