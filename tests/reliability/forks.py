"""Processes that train the toy task, forked from one that has imported all.

Importing jax, orbax and grain takes two seconds, a hundred times over. The
server imports them and starts no jax backend, which would not survive a fork.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback
from typing import Any

HERE = pathlib.Path(__file__).parent


class Child:
  """A run in a process of its own.

  Attributes:
    pid: of the process; nobody else gets it before `poll` or `kill` has seen
      the end.
  """

  def __init__(self, server: "Server", request: dict):
    self._server = server
    self._code: int | None = None
    self.pid = server.ask(request)

  def poll(self) -> int | None:
    """How it ended, as `subprocess.Popen.returncode`; None while it runs."""
    if self._code is None:
      self._code = self._server.ask({"poll": self.pid})
    return self._code

  def wait(self) -> int:
    """How it ended, once it has."""
    if self._code is None:
      self._code = self._server.ask({"wait": self.pid})
    return self._code

  def kill(self, number: int = signal.SIGKILL) -> int:
    """Sends it a signal, unless it has ended; how it ended."""
    if self.poll() is None:
      os.kill(self.pid, number)
    return self.wait()


class Server:
  """Forks one child after the other; a context manager.

  Args:
    cache: folder for what is compiled, so that it is compiled once.
  """

  def __init__(self, cache: pathlib.Path):
    env = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    self._process = subprocess.Popen(
      [sys.executable, str(HERE / "forks.py")],
      cwd=HERE.parents[1],
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __enter__(self) -> "Server":
    return self

  def __exit__(self, *_) -> None:
    self._process.communicate()

  def start(self, workdir: pathlib.Path, spec: str, **values) -> Child:
    """Starts a run.

    Args:
      workdir: of the run; what it prints goes to the file `said` in it.
      spec: names its config.
      **values: to set in the module `toy`.
    """
    workdir.mkdir(exist_ok=True)
    return Child(
      self, {"workdir": str(workdir), "spec": spec, "values": values}
    )

  def ask(self, request: dict) -> Any:
    """Sends a request and returns the answer."""
    assert self._process.stdin and self._process.stdout
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())


def _train(request: dict) -> None:
  """What a child does."""
  folder = pathlib.Path(request["workdir"])
  said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(said, 1)
  os.dup2(said, 2)
  code = 1
  try:
    import toy

    from experiments import launch

    launch.task = lambda config: toy
    for name, value in request["values"].items():
      setattr(toy, name, value)
    launch.train(request["spec"], folder)
    code = 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
  sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
  import grain  # noqa: F401
  import orbax.checkpoint  # noqa: F401
  import tensorboardX  # noqa: F401
  import toy  # noqa: F401

  from experiments import launch  # noqa: F401

  for line in sys.stdin:
    request = json.loads(line)
    if "workdir" in request:
      answer = os.fork()
      if not answer:
        _train(request)
    elif "wait" in request:
      answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
    else:
      pid, status = os.waitpid(request["poll"], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  _serve()
