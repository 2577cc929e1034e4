"""What is saved beside a state, and how both are told from damage.

orbax restores many damaged files without a word. So a checkpoint holds a
sha256 over every leaf of the state and all that is recorded with it.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

import jax
import numpy as np

from lnrnn.training import config as config_lib
from lnrnn.training import health
from lnrnn.training.checkpoint_files import DamagedError


def record(
  state: Any,
  identity: Mapping[str, Any],
  progress: Mapping[str, Any],
  score: float | None,
) -> dict[str, Any]:
  """What is saved beside a state.

  Args:
    state: pytree of NumPy arrays with a leaf `step`.
    identity: {"config": of `config.to_dict`, "fingerprint": of the data}.
    progress: what else to restore, as JSON types.
    score: of the evaluation at that step; None if there is none.

  Returns:
    JSON types.
  """
  meta = {
    "step": int(state.step),
    **identity,
    "config_sha256": _hash_json(identity["config"]),
    "leaves": specs(state),
    "progress": dict(progress),
    "score": score,
  }
  meta["meta_sha256"] = _hash_json(meta)
  meta["sha256"] = digest(state, meta)
  return meta


def check_record(meta: Mapping[str, Any]) -> None:
  """Compares a record with its own sha256.

  Raises:
    DamagedError: they differ.
  """
  told = {k: v for k, v in meta.items() if k not in ("meta_sha256", "sha256")}
  if _hash_json(told) != meta["meta_sha256"]:
    raise DamagedError("its record has changed (meta_sha256 differs)")


def check_state(state: Any, meta: Mapping[str, Any]) -> None:
  """Compares a state with the record beside it.

  Raises:
    DamagedError: it is not the one that was saved.
  """
  told = {k: v for k, v in meta.items() if k != "sha256"}
  if digest(state, told) != meta["sha256"]:
    raise DamagedError("the state's sha256 is not the recorded one")


def differences(
  meta: Mapping[str, Any], identity: Mapping[str, Any], like: Any
) -> list[str]:
  """What tells a checkpoint from one of this run, one line each.

  Args:
    meta: the record of the checkpoint.
    identity: of this run, as of `record`.
    like: pytree of arrays or shapes that it is to be restored into.

  Returns:
    "what: stored -> asked for"; of the leaves only where nothing else differs.
  """
  found = config_lib.differences(meta["config"], identity["config"])
  if meta["fingerprint"] != identity["fingerprint"]:
    theirs, ours = meta["fingerprint"], identity["fingerprint"]
    found.append(f"data fingerprint: {theirs} -> {ours}")
  if found:
    return found
  stored, asked = meta["leaves"], specs(like)
  return [
    f"{name}: {stored.get(name, 'absent')} -> {asked.get(name, 'absent')}"
    for name in sorted({*stored, *asked})
    if stored.get(name) != asked.get(name)
  ]


def digest(state: Any, meta: Mapping[str, Any]) -> str:
  """sha256 over path, dtype, shape and bytes of every leaf, and the record."""
  total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
  leaves = jax.tree.leaves(state)
  for (name, spec), leaf in zip(specs(state).items(), leaves, strict=True):
    total.update(f"|{name}|{spec}|".encode())
    total.update(np.ascontiguousarray(leaf).data.cast("B"))
  return total.hexdigest()


def specs(state: Any) -> dict[str, str]:
  """{path: "float32[3, 4]"} of the leaves."""
  leaves = jax.tree.leaves(state)
  return {
    name: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    for name, leaf in zip(health.paths(state), leaves, strict=True)
  }


def _hash_json(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
