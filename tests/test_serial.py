"""Fields of modules as JSON; what is refused stands in test_export.py."""

import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnrnn
from lnrnn import norms, serial
from lnrnn.models.mlp import MLP


@pytest.mark.parametrize(
  "value",
  [
    None,
    True,
    3,
    -1e300,
    float("inf"),
    "text",
    (1, (2, "a"), ()),
    nn.FrozenDict({"a": (1,), "b": nn.FrozenDict({})}),
    jnp.bfloat16,
    jnp.bool_,
    jax.nn.relu,
    jnp.tanh,
    nn.initializers.zeros,
    norms.layer_norm,
    lnrnn.LSTMCell,
    jax.lax.Precision.HIGH,
    jax.ShapeDtypeStruct((2, 0), jnp.uint8),
    jax.ShapeDtypeStruct((), jnp.float32),
    norms.Options(eps=2.0),
  ],
  ids=lambda value: f"{type(value).__name__} {getattr(value, '__name__', '')}",
)
def test_a_value_of_a_field_is_read_as_it_was_written(value):
  text = json.dumps(serial.to_json(value), allow_nan=False)
  found = serial.from_json(json.loads(text))
  assert found == value and type(found) is type(value)


def test_a_field_may_be_left_out_and_numpy_numbers_are_numbers():
  tree = {"$class": "lnrnn.models.mlp.MLP", "classes": 4}
  assert serial.from_json(tree) == MLP(classes=4)
  assert serial.to_json(np.float32(0.5)) == 0.5
  assert serial.to_json(np.dtype("int8")) == {"$dtype": "int8"}
  assert serial.to_json([np.int64(3), [float("-inf")]]) == [
    3,
    [{"$float": "-inf"}],
  ]
