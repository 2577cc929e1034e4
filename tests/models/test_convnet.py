"""The convnet of section 6.7 against NumPy, and what it does with places."""

import dataclasses
import functools
from typing import Any

import drawn_variables
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_convnet

from lnrnn import map_norms
from lnrnn.map_norms import Options
from lnrnn.models import convnet
from lnrnn.models.convnet import ConvNet

KEY = jax.random.key(0)
every_norm = pytest.mark.parametrize("norm", map_norms.NAMES)


@dataclasses.dataclass(frozen=True)
class Case:
  """A network, and pictures that it takes."""

  norm: str
  form: str = "units"
  groups: int = 1
  border: int = 0
  padding: str = "zero"
  sides: tuple[int, int] = (12, 12)
  widths: tuple[int, ...] = (4, 6)
  depth: int = 1
  train: bool = True
  slope: float = 0.1

  def model(self, dtype="float32", **more):
    own = dict(form=self.form, groups=self.groups, border=self.border)
    return ConvNet(
      widths=self.widths,
      depth=self.depth,
      classes=3,
      norm=self.norm,
      options=Options(**own),
      padding=self.padding,
      slope=self.slope,
      dtype=dtype,
      **more,
    )

  def pictures(self, b=3):
    """[b, h, w, 2], float64."""
    return np.random.default_rng(3).normal(0.3, 1.2, (b, *self.sides, 2))

  def variables(self):
    """As after some training, float64."""
    x = jnp.zeros((2, *self.sides, 2))
    shapes = jax.eval_shape(self.model().init, KEY, x)
    drawn = drawn_variables.trained(shapes, sd=0.25)
    rng = np.random.default_rng(4)
    names = drawn_variables.paths(drawn.get("batch_stats", {}))
    moved = [
      rng.uniform(0.05, 0.5, leaf.shape) if name[-4:] != "seen" else np.int32(5)
      for name, leaf in names.items()
    ]
    if moved:
      structure = jax.tree.structure(drawn["batch_stats"])
      drawn["batch_stats"] = structure.unflatten(moved)
    return drawn

  def reference(self, variables, x):
    """By NumPy: `references_convnet.Passed`."""
    return references_convnet.network(
      variables["params"],
      x,
      norm=self.norm,
      depth=self.depth,
      padding=self.padding,
      slope=self.slope,
      form=self.form,
      groups=self.groups,
      border=self.border,
      stats=None if self.train else variables["batch_stats"],
    )


# Odd sides lose their last row or column in pooling: 13 x 15 becomes 6 x 7.
ODD: dict[str, Any] = dict(sides=(13, 15), depth=2, widths=(4,))
AROUND: dict[str, Any] = dict(padding="circular")
# Padding comes before the norm: each norm has one, or both.
CASES = {
  "none": Case("none"),
  "none, around": Case("none", **ODD, **AROUND),
  "units": Case("layer", **ODD),
  "units, around": Case("layer", **AROUND),
  "maps": Case("layer", form="maps", **AROUND),
  "channels": Case("layer", form="channels", **ODD),
  "border": Case("layer", border=1, **ODD),
  "rms": Case("rms", form="maps", border=1, **ODD, **AROUND),
  "group": Case("group", groups=2, **AROUND),
  "weight": Case("weight", **ODD),
  "batch": Case("batch", **ODD),
  "batch, around": Case("batch", **AROUND),
  "batch at test": Case("batch", train=False, **ODD),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def passed(model, variables, x, train):
  """(logits, what each non-linearity gets, other collections)."""
  others = [name for name in variables if name != "params"]
  logits, changed = model.apply(
    variables, x, train=train, mutable=["intermediates", *others]
  )
  noted = changed.pop("intermediates")
  return logits, noted, changed


compiled = jax.jit(passed, static_argnums=(0, 3))


def single(case):
  """The variables of a case in float32."""
  narrow = lambda v: v if v.dtype == np.int32 else np.float32(v)
  return jax.tree.map(narrow, case.variables())


# --- Equations ---


@every_case
def test_values_and_gradients_are_those_of_numpy(case, x64):
  model, variables, x = case.model("float64"), case.variables(), case.pictures()
  cotangent = np.random.default_rng(5).normal(size=(3, 3))

  def value(params, x):
    logits, noted, _ = passed(
      model, {**variables, "params": params}, x, case.train
    )
    return (logits * cotangent).sum(), (logits, noted)

  both = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
  (_, (logits, noted)), (grads, grad_x) = both(variables["params"], x)
  wanted = case.reference(variables, x)
  assert logits.dtype == jnp.float64
  np.testing.assert_allclose(logits, wanted.logits, rtol=1e-9, atol=1e-9)
  # "a_0", "a_1" and so on, in the order of the layers.
  assert set(noted) == {f"a_{i}" for i in range(len(wanted.inputs))}
  for i, a in enumerate(wanted.inputs):
    (found,) = noted[f"a_{i}"]
    np.testing.assert_allclose(found, a, rtol=1e-9, atol=1e-9)

  def reference(tree):
    of = {**variables, "params": tree["params"]}
    return (case.reference(of, tree["x"]).logits * cotangent).sum()

  tree = {"params": variables["params"], "x": x}
  got = drawn_variables.paths({"params": grads, "x": grad_x})
  for name, direction, slope in references_convnet.complex_slopes(
    reference, tree
  ):
    assert abs(slope) > 1e-6, name
    along = (got[name] * direction).sum()
    np.testing.assert_allclose(along, slope, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["none", "units", "group", "batch"])
def test_float32_is_as_close_as_float32_can_be(name):
  case = CASES[name]
  x = np.float32(case.pictures())
  logits, _, _ = compiled(case.model(), single(case), x, case.train)
  assert logits.dtype == jnp.float32
  wanted = case.reference(case.variables(), case.pictures()).logits
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sides", [(6, 8), (7, 5)], ids=str)
def test_pooling_is_flax_s_and_so_is_its_gradient(sides):
  x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
  pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))
  ours, back = jax.vjp(jax.jit(convnet._pooled), x)
  theirs, expected = jax.vjp(jax.jit(pool), x)
  np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_array_equal(ours, references_convnet.pooled(x))
  cotangent = jnp.arange(ours.size, dtype=np.float32).reshape(ours.shape)
  np.testing.assert_array_equal(*(f(cotangent)[0] for f in (back, expected)))


def test_batch_norm_s_averages_are_over_cases_and_places():
  case = CASES["batch"]
  variables = single(case)
  zero = jax.tree.map(np.zeros_like, variables["batch_stats"])
  x = np.float32(case.pictures())
  _, _, changed = compiled(
    case.model(), {**variables, "batch_stats": zero}, x, True
  )
  wanted = case.reference(case.variables(), case.pictures()).moments
  assert set(changed["batch_stats"]) == set(wanted)
  for name, moments in wanted.items():
    found = changed["batch_stats"][name]["norm"]
    assert found["seen"] == 1
    for part, value in moments.items():
      np.testing.assert_allclose(found[part], value, rtol=1e-3, atol=1e-4)


# --- Places ---


def maps(case, x):
  """What the non-linearities before the valid part get."""
  _, noted, _ = compiled(case.model("float64"), case.variables(), x, case.train)
  return [noted[f"a_{i}"][0] for i in range(len(case.widths) * case.depth)]


def moved_apart(case):
  """How far each map is from the moved one where pictures are moved by 4."""
  x = case.pictures()
  shifted = maps(case, np.roll(x, 4, axis=(1, 2)))
  return [
    np.abs(np.roll(a, a.shape[1] // 3, axis=(1, 2)) - b).max()
    for a, b in zip(maps(case, x), shifted, strict=True)
  ]


@pytest.mark.parametrize("name", ["none, around", "maps", "group", "batch"])
def test_circular_padding_makes_all_places_alike(name, x64):
  case = dataclasses.replace(
    CASES[name], sides=(12, 12), widths=(4, 6), depth=1
  )
  around = moved_apart(dataclasses.replace(case, padding="circular"))
  assert len(around) == 2 and max(around) < 1e-11
  border = moved_apart(dataclasses.replace(case, padding="zero"))
  assert min(border) > 0.1


def test_gains_of_units_tell_places_apart(x64):
  assert min(moved_apart(CASES["units, around"])) > 0.1


# --- Start ---


def test_without_a_norm_activity_keeps_its_scale():
  model = ConvNet(widths=(32, 32), depth=3, norm="none")
  x = jax.random.normal(KEY, (4, 24, 24, 32))

  @jax.jit
  def mean_squares(key):
    _, noted, _ = passed(model, model.init(key, x), x, False)
    return [jnp.square(noted[f"a_{i}"][0]).mean() for i in range(9)]

  found = np.array(mean_squares(jax.random.key(1)))
  # The largest of four has a larger mean square than one of them, so it grows
  # at each pooling; LeCun's initialisation would end at 2^-9.
  assert found[:6].min() > 0.5 and found[:6].max() < 2 * found[0]
  assert found.max() / 4 < found[0] < 4 * found.min()


@functools.cache
def kernels(norm):
  """Those of one key, by layer."""
  init = jax.jit(Case(norm, widths=(4,), groups=2).model().init)
  params = init(jax.random.key(4), jnp.ones((2, 12, 12, 2)))["params"]
  own = {f"conv_{i}": params[f"conv_{i}"]["layer"] for i in range(4)}
  own["output"] = params["output"]
  return {name: layer["kernel"] for name, layer in own.items()}


@every_norm
def test_networks_of_one_key_have_the_same_kernels(norm):
  for name, kernel in kernels("none").items():
    # Another program may round the last bit another way.
    np.testing.assert_allclose(
      kernels(norm)[name], kernel, rtol=1e-6, atol=1e-7
    )


# A convolution's kernel, and the units of its map.
LAYERS = {
  "conv_0": ((3, 3, 2, 4), (12, 12, 4)),
  "conv_1": ((3, 3, 4, 6), (6, 6, 6)),
  "conv_2": ((3, 3, 6, 6), (1, 1, 6)),
  "conv_3": ((1, 1, 6, 6), (1, 1, 6)),
  "conv_4": ((1, 1, 6, 6), (1, 1, 6)),
}


@every_norm
def test_parameters_have_these_names_and_shapes(norm):
  x = jnp.ones((2, 12, 12, 2))
  shapes = jax.eval_shape(Case(norm, groups=2).model().init, KEY, x)
  wanted = {"output/kernel": (6, 3), "output/bias": (3,)}
  for name, (kernel, units) in LAYERS.items():
    own = units if norm in ("layer", "rms") else units[-1:]
    wanted[f"{name}/layer/kernel"] = kernel
    if norm == "none":
      wanted[f"{name}/layer/bias"] = own
    else:
      wanted |= {f"{name}/norm/gain": own, f"{name}/norm/bias": own}
  found = drawn_variables.paths(shapes["params"])
  assert {name: leaf.shape for name, leaf in found.items()} == wanted
  assert all(leaf.dtype == jnp.float32 for leaf in found.values())
  collections = {"params", "intermediates"}
  collections |= {"batch_stats"} if norm == "batch" else set()
  assert set(shapes) <= collections


def test_the_default_is_salimans_and_kingma_s_network():
  shapes = jax.eval_shape(
    ConvNet(norm="weight").init, KEY, jnp.ones((1, 32, 32, 3))
  )
  kernels = [
    shapes["params"][f"conv_{i}"]["layer"]["kernel"].shape for i in range(9)
  ]
  assert kernels == [
    (3, 3, 3, 96),
    (3, 3, 96, 96),
    (3, 3, 96, 96),
    (3, 3, 96, 192),
    (3, 3, 192, 192),
    (3, 3, 192, 192),
    (3, 3, 192, 192),
    (1, 1, 192, 192),
    (1, 1, 192, 192),
  ]


# --- Training and testing ---


def test_dropout_is_in_training_alone_and_follows_its_key():
  case = CASES["none"]
  variables, x = single(case), np.float32(case.pictures())
  plain, _, _ = compiled(case.model(), variables, x, True)
  model = case.model(dropout=0.5)
  np.testing.assert_array_equal(compiled(model, variables, x, False)[0], plain)
  dropped = jax.jit(
    lambda key: model.apply(variables, x, train=True, rngs={"dropout": key})
  )
  first, second = (dropped(jax.random.key(seed)) for seed in (0, 1))
  assert np.abs(first - plain).max() > 0.1
  assert np.abs(first - second).max() > 0.1
  np.testing.assert_array_equal(dropped(jax.random.key(0)), first)


@pytest.mark.parametrize("name", ["units", "group"])
def test_each_case_passes_by_itself(name):
  case = CASES[name]
  model, variables, x = case.model(), single(case), np.float32(case.pictures())
  together, _, _ = compiled(model, variables, x, True)
  alone, _, _ = compiled(model, variables, x[:1], True)
  np.testing.assert_allclose(alone, together[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["none", "units", "group", "batch"])
def test_logits_of_bfloat16_are_float32_and_close(name):
  case = CASES[name]
  variables, x = single(case), np.float32(case.pictures())
  wide, _, _ = compiled(case.model(), variables, x, case.train)
  logits, noted, changed = compiled(
    case.model("bfloat16"), variables, x, case.train
  )
  assert logits.dtype == jnp.float32
  assert {a.dtype for (a,) in noted.values()} == {jnp.dtype(jnp.bfloat16)}
  for leaf in jax.tree.leaves(changed):
    assert leaf.dtype in (jnp.float32, jnp.int32)
  apart = np.abs(logits - wide).max()
  assert 0 < apart < 0.1 * np.abs(wide).max()


# --- Errors ---


def test_a_misspelt_norm_is_refused_by_name():
  with pytest.raises(ValueError, match="norm='grop': .*did you mean 'group'"):
    jax.eval_shape(ConvNet(norm="grop").init, KEY, jnp.ones((1, 12, 12, 2)))


def test_batch_norm_refuses_one_case_in_training():
  """The last maps have one place: there is nothing to take a variance of."""
  model, x = CASES["batch, around"].model(), jnp.ones((2, 12, 12, 2))
  variables = jax.eval_shape(model.init, KEY, x)
  apply = lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])
  with pytest.raises(ValueError, match="at least 2 cases"):
    jax.eval_shape(apply, variables, x[:1])
