"""Many devices, many processes: one mesh, and what all processes agree on.

The state is whole on every device, a batch is cut along its rows, and XLA
inserts the sums between devices. Process 0 alone reads and writes the workdir.
"""

from collections.abc import Callable
import json
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from lnrnn.errors import ConfigError, UserError, WorkdirError
from lnrnn.training import signals

T = TypeVar("T")

# Seconds until a process that has died is missed. JAX's default is 100.
HEARTBEAT = 15


def initialize(**address: Any) -> None:
  """Joins the other processes; before anything else of JAX is used.

  Args:
    **address: `coordinator_address`, `num_processes` and `process_id` of
      `jax.distributed.initialize`; without them it finds Slurm, Open MPI,
      Kubernetes and TPU pods by itself.

  Raises:
    ConfigError: if there is nothing to join.
  """
  try:
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT, **address)
  except (ValueError, RuntimeError, IndexError) as e:
    reason = str(e).strip().split("\n")[0]
    raise ConfigError(
      f"--distributed: {reason} Start it under Slurm, mpirun, Kubernetes or"
      " on a TPU pod, or give --coordinator, --num_processes and --process_id"
    ) from e
  signals.take_over()  # JAX's preemption service has its own for SIGTERM.


def is_main() -> bool:
  """Whether this is process 0, which reads and writes the workdir."""
  return jax.process_index() == 0


def any_process(flag: bool) -> bool:
  """Whether the flag is set in any process; all must call it."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def broadcast(tree: Any) -> Any:
  """Process 0's tree of NumPy arrays, in all processes; shapes must agree."""
  if jax.process_count() == 1:
    return tree
  found = multihost_utils.broadcast_one_to_all(tree)
  return jax.tree.map(np.asarray, found)


def broadcast_json(value: Any) -> Any:
  """Process 0's value, of JSON types, in all processes."""
  if jax.process_count() == 1:
    return value
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(broadcast(np.array(len(data), np.int32)))
  text = broadcast(data if is_main() else np.zeros(size, np.uint8))
  return json.loads(text.tobytes())


def on_main(act: Callable[[], T]) -> T | None:
  """Runs a function in process 0, where it may raise for all processes.

  Args:
    act: the function.

  Returns:
    What it returned; None in the other processes.

  Raises:
    UserError: in process 0 as raised, in the others with its text.
  """
  found, error = None, None
  if is_main():
    try:
      found = act()
    except UserError as e:
      error = e
  said = broadcast_json(str(error) if error else None)
  if error:
    raise error
  if said is not None:
    raise WorkdirError(f"process 0: {said}")
  return found


def check_agreement(what: str, value: str) -> None:
  """Makes sure that all processes hold the same value.

  Raises:
    ConfigError: naming the value here and that of process 0.
  """
  first = broadcast_json(value)
  if any_process(first != value):
    raise ConfigError(
      f"{what} differs between the processes: {first} in process 0, {value} in"
      f" process {jax.process_index()}"
    )


def mesh() -> Mesh:
  """All devices of all processes along the axis "data"."""
  return Mesh(np.array(jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts a tree whole on every device; all processes hold the same."""
  return jax.device_put(tree, replicated(mesh))


def local(tree: Any) -> Any:
  """A replicated tree as this process's first device has it."""
  return jax.tree.map(lambda a: a.addressable_data(0), tree)


def shard(batches: Any, mesh: Mesh) -> Any:
  """Puts k batches on the devices, each device with its share of the rows.

  Args:
    batches: tree of [k, rows, ...] arrays, the rows being those of this
      process; an array [k] is the same for all rows.
    mesh: of all devices.

  Returns:
    The tree of global arrays, [k, b, ...].
  """
  rows = NamedSharding(mesh, PartitionSpec(None, "data"))

  def put(a):
    sharding = rows if np.ndim(a) > 1 else replicated(mesh)
    return jax.make_array_from_process_local_data(sharding, np.asarray(a))

  return jax.tree.map(put, batches)
