"""How a module is initialised, found by watching."""

import jax
import jax.numpy as jnp
import numpy as np

import lnrnn
from lnrnn.models.mlp import MLP
from lnrnn.variables import Example, example_of

X = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_an_example_is_the_call_that_init_makes():
  model = lnrnn.RNN(lnrnn.GRUCell(4))

  def init(key, batch):
    keys = {"params": key, "noise": key}
    return model.init(
      keys, batch["x"] / 255, seq_lengths=batch["n"], train=True
    )

  batch = {"x": X, "n": np.array([1, 3], np.int32)}
  found = example_of(model, init, jax.random.key(0), batch)
  assert found == Example(
    (jax.ShapeDtypeStruct((2, 3, 4), jnp.float32),),
    {"seq_lengths": jax.ShapeDtypeStruct((2,), jnp.int32), "train": True},
    "__call__",
    ("noise", "params"),
  )


def test_there_is_no_example_of_several_calls_or_of_random_keys():
  model = MLP((6, 4), 3)
  key = jax.random.key(0)

  def twice(key, x):
    return model.init(key, x), model.init(key, x)

  assert example_of(model, twice, key, X[0]) is None
  assert example_of(model, lambda key: {}, key) is None
  layers = lnrnn.RNN(lnrnn.GRUCell(2))
  start = lambda key, x: layers.init(key, x, init_key=key)
  assert example_of(layers, start, key, X) is None
