"""The programs as processes of their own, with slow spots to aim faults at.

A process is forked from a server that has imported everything and started no
jax backend, which would not survive that; then it is `launch.run(main)` of the
real program, its task replaced by the one below.
"""

import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn.training import checkpoints, loop, recorder
from lnrnn.training import config as config_lib
from lnrnn.training.experiment import Eval, Experiment

ROOT = pathlib.Path(__file__).resolve().parents[2]
# {spot: seconds that it takes, the first time}; see `_spot`.
SLOW: dict[str, float] = {}


def spec(**overrides) -> str:
  """The config of a run of 20 steps; `__` in a name stands for a dot.

  `eval_batch_size` is the number of random words in the state, 4 bytes each.
  """
  fields = {
    "batch_size": 4,
    "optimizer__learning_rate": 0.02,
    "eval_batch_size": 1000,
    "log_every": 1,
    "eval_every": 5,
    "checkpoint_every": 5,
    "steps_per_dispatch": 1,
    **overrides,
  }
  pairs = [f"{k.replace('__', '.')}={v}" for k, v in fields.items()]
  return f"{ROOT}/configs/mnist_mlp.py:{','.join(['smoke', *pairs])}"


def _spot(name: str) -> None:
  """A place in the program; where it is to be slow, it says so and waits."""
  if seconds := SLOW.pop(name, 0):
    print(f"@{name}", flush=True)
    time.sleep(seconds)


class Rows:
  """Batches of a noisy line, pure in (seed, step)."""

  steps_per_epoch = 8
  fingerprint = "line"

  def __init__(self, seed: int):
    self._seed = seed

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    _spot(f"data {step}")
    rng = np.random.default_rng([self._seed, step])
    x = rng.normal(size=(4, 3)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1), "step": np.asarray(step, np.int32)}


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config."""
  return config_lib.check_common(config).faults


def build(config: config_lib.Config) -> Experiment:
  """The task: a line with noise, counted steps, and random words."""
  _spot("build")

  def init(key, batch):
    return {
      "params": {"w": jax.random.normal(key, (3,))},
      "count": {"steps": jnp.int32(0)},
      # They do not compress, and are wrong for good if one step had another
      # key.
      "words": {"bits": jax.random.bits(key, (config.eval_batch_size,))},
    }

  def loss(variables, batch, key):
    _spot("compile")
    noise, draw = jax.random.split(key)
    x = batch["x"] + 0.1 * jax.random.normal(noise, batch["x"].shape)
    same = _called("step", batch["step"])
    value = jnp.square(x @ variables["params"]["w"] - batch["y"]).mean()
    bits = variables["words"]["bits"]
    changed = {
      "count": {"steps": variables["count"]["steps"] + 1},
      "words": {"bits": bits ^ jax.random.bits(draw, bits.shape)},
    }
    return value + (same - batch["step"]), (changed, {})

  @jax.jit
  def error(w, steps):
    return jnp.square(w - 1).sum() + (_called("kernel", steps) - steps)

  def score(variables, split, key):
    steps = variables["count"]["steps"]
    _spot(f"eval {steps}")
    draw = float(jax.random.uniform(key))
    found = float(error(variables["params"]["w"], steps))
    return {"error": found, "draw": draw, "note": f"of {split}"}

  return Experiment(
    init=init,
    loss=loss,
    train_data=Rows(config.seed),
    evals={"score": Eval(config.eval_every, score, ("validation",))},
    data="made up",
  )


def _called(name: str, step: jax.Array) -> jax.Array:
  """The step, by way of a spot inside compiled code."""

  def call(step):
    _spot(f"{name} {step}")
    return np.asarray(step)

  return jax.pure_callback(call, jax.ShapeDtypeStruct((), jnp.int32), step)


class End(NamedTuple):
  """How a process ended.

  Attributes:
    code: as `subprocess.Popen.returncode`.
    seconds: since the last signal.
    err: all that it wrote on standard error.
  """

  code: int
  seconds: float
  err: str


class Program:
  """A program that has been started.

  Args:
    server: that forks it.
    out: its standard output; the error is beside it.
    request: to the server.
  """

  def __init__(self, server: "Server", out: pathlib.Path, request: dict):
    self._server, self._out = server, out
    for path in (out, out.with_suffix(".err")):
      path.write_text("")
    self.pid = server.ask({**request, "out": str(out)})
    self._at = time.monotonic()

  def reach(self, marker: str, timeout: float = 60) -> None:
    """Waits until it has printed a line."""
    end = time.monotonic() + timeout
    while f"{marker}\n" not in self._out.read_text():
      assert time.monotonic() < end, (marker, self.err)
      time.sleep(0.002)

  def send(self, number: int) -> None:
    """Sends a signal, if it has not ended."""
    self._at = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
      os.kill(self.pid, number)

  def wait(self, timeout: float = 60) -> End:
    """How it ended; kills it, and fails the test, if it does not in time."""
    code = self._server.ask({"wait": self.pid, "timeout": timeout})
    took = time.monotonic() - self._at
    assert code is not None, f"still there after {timeout} s: {self.err}"
    return End(code, took, self.err)

  @property
  def err(self) -> str:
    """What it has written on standard error so far."""
    return self._out.with_suffix(".err").read_text()


class Server:
  """Forks programs; a context manager."""

  _started = 0

  def __enter__(self) -> "Server":
    self._folder = tempfile.TemporaryDirectory()
    self._process = subprocess.Popen(
      [sys.executable, __file__],
      cwd=ROOT,
      env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    return self

  def __exit__(self, *_) -> None:
    self._process.communicate()
    self._folder.cleanup()

  def start(
    self,
    workdir: pathlib.Path,
    spec: str | None,
    slow: dict[str, float] | None = None,
    *,
    largest_file: int = 0,
  ) -> Program:
    """Starts a program.

    Args:
      workdir: of the run.
      spec: to train; None to evaluate.
      slow: spots.
      largest_file: that it may write, in bytes; 0 for any.
    """
    config = [f"--config={spec}"] if spec else []
    request = {
      "program": "train" if spec else "evaluate",
      "arguments": [*config, f"--workdir={workdir}"],
      "slow": slow or {},
      "largest_file": largest_file,
    }
    self._started += 1
    # Not beside the workdir: the disk of that may be full.
    out = pathlib.Path(self._folder.name, f"{self._started}.out")
    return Program(self, out, request)

  def finish(self, workdir: pathlib.Path, spec: str) -> End:
    """Trains to the end."""
    end = self.start(workdir, spec).wait()
    assert end.code == 0, end.err
    return end

  def ask(self, request: dict) -> Any:
    """Sends a request and returns the answer."""
    assert self._process.stdin and self._process.stdout
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())


def _run(request: dict) -> None:
  """What a forked process does."""
  out = pathlib.Path(request["out"])
  for path, number in ((out, 1), (out.with_suffix(".err"), 2)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # As experiments/__init__.py.
  if size := request["largest_file"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
  SLOW.update(request["slow"])
  code: Any = 1
  try:
    from experiments import launch

    launch.task = lambda config: sys.modules["__main__"]
    name = request["program"]
    sys.argv = [f"{name}.py", *request["arguments"]]
    module = __import__(f"experiments.{name}", fromlist=["main"])
    print("@main", flush=True)
    launch.run(module.main)
  except SystemExit as e:
    code = e.code or 0
  except BaseException:
    sys.excepthook(*sys.exc_info())
  os._exit(code)


def _serve() -> None:
  import grain  # noqa: F401
  import orbax.checkpoint  # noqa: F401
  import tensorboardX  # noqa: F401

  from experiments import launch  # noqa: F401

  # The list of files is made when all else of a checkpoint is there.
  write_sums = checkpoints.write_sums

  def slow_sums(folder):
    _spot(f"save {folder.name}")
    write_sums(folder)

  checkpoints.write_sums = slow_sums
  before = recorder.Recorder._save

  def slow_save(self, state, *args, **kwargs):
    _spot(f"before save {int(state.step)}")
    before(self, state, *args, **kwargs)

  recorder.Recorder._save = slow_save
  for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
      answer = _wait(request["wait"], request["timeout"])
    else:
      answer = os.fork()
      if not answer:
        _run(request)
    print(json.dumps(answer), flush=True)


def _wait(pid: int, timeout: float) -> int | None:
  end = time.monotonic() + timeout
  while time.monotonic() < end:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.002)
  os.kill(pid, signal.SIGKILL)
  os.waitpid(pid, 0)
  return None


def final(config, workdir) -> Any:
  """The last state of a run, on the host."""
  return jax.device_get(loop.restore(config, build(config), workdir, "latest"))


if __name__ == "__main__":
  _serve()
