"""Variables as after some training, and their names."""

import jax
import numpy as np


def paths(tree):
  """{path: leaf} of a tree of dicts."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def trained(shapes, sd=0.4):
  """Of such shapes: params in float64, no gain 1 and no bias 0; others 0."""
  rng = np.random.default_rng(0)
  variables = dict(shapes)
  params, structure = jax.tree.flatten(variables["params"])
  names = paths(variables["params"])
  drawn = [
    rng.normal(float(name.endswith("gain")), sd, leaf.shape)
    for name, leaf in zip(names, params, strict=True)
  ]
  variables = jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), variables)
  return {**variables, "params": jax.tree.unflatten(structure, drawn)}


def single(tree):
  """The same in float32."""
  return jax.tree.map(lambda v: np.asarray(v, np.float32), tree)


def slopes(value, params, step=1e-5):
  """Central differences along a random direction of each tensor.

  Yields:
    (name, direction, slope).
  """
  rng = np.random.default_rng(1)
  leaves, structure = jax.tree.flatten(params)
  for i, (leaf, name) in enumerate(zip(leaves, paths(params), strict=True)):
    direction = rng.normal(size=leaf.shape)
    moved = [*leaves]
    ends = []
    for sign in (1, -1):
      moved[i] = leaf + sign * step * direction
      ends.append(value(jax.tree.unflatten(structure, moved)))
    yield name, direction, (ends[0] - ends[1]) / (2 * step)
