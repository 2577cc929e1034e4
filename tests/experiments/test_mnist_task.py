"""What the evaluation of the MNIST task measures, against NumPy."""

import re

import jax
import numpy as np
import pytest

from experiments import launch, mnist_mlp
from lnrnn.training import optim
from lnrnn.training import step as step_lib

EPS = 1e-5


def _forward(variables, images, *, norm, norm_output, minibatch=False):
  """Logits [n, 10] in float64; `minibatch`: statistics of these cases."""
  x = images.reshape(len(images), -1).astype(np.float64) / 255

  def scaled(a, layer, unbiased):
    p = layer["params"]["norm"]
    if norm == "layer":
      mean = a.mean(1, keepdims=True)
      var = a.var(1, keepdims=True)
    elif minibatch:
      mean, var = a.mean(0), a.var(0, ddof=int(unbiased))
    else:
      stats = layer["batch_stats"]["norm"]
      mean, var = stats["mean"], stats["var"]
    return (a - mean) / np.sqrt(var + EPS) * p["gain"] + p["bias"]

  for name in ("hidden_0", "hidden_1", "output"):
    layer = {k: v[name] for k, v in variables.items() if name in v}
    dense = layer["params"]["layer"]
    x = x @ dense["kernel"] + dense.get("bias", 0.0)
    if norm != "none" and (name != "output" or norm_output):
      x = scaled(x, layer, unbiased=True)
    if name != "output":
      x = np.maximum(x, 0)
  return x


def _nll(logits, labels):
  top = logits.max(1, keepdims=True)
  normaliser = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
  return normaliser - logits[np.arange(len(labels)), labels]


@pytest.fixture(scope="module", params=["none", "layer", "batch"])
def measured(request, spec, digits):
  """(config, trained variables in float64, {split: metrics})."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mnist_mlp.mnist, "load", lambda source, folder: digits)
    # 100, 50 and 50 cases: none is a multiple of 32, 96 is one of 16.
    config = launch.load(f"{spec},norm={request.param},eval_batch_size=32")
    experiment = mnist_mlp.build(config)
  tx = optim.make(config.optimizer, config.train_steps)
  state = step_lib.init_state(experiment, tx, jax.random.key(0))
  step = jax.jit(
    lambda s, b: step_lib.update(experiment, tx, s, b, jax.random.key(1))
  )
  for i in range(8):
    state, _ = step(state, experiment.train_data[i])
  fn = experiment.evals["classify"].fn
  found = {
    split: fn(state.variables, split, jax.random.key(2))
    for split in experiment.evals["classify"].splits
  }
  wide = jax.tree.map(lambda a: np.asarray(a, np.float64), state.variables)
  return config, wide, found


def test_nll_and_error_are_those_of_every_case_of_the_split(measured, digits):
  config, variables, found = measured
  assert set(found) == {"train", "validation", "test"}
  for split, metrics in found.items():
    images, labels = digits.splits[split]
    logits = _forward(
      variables,
      images,
      norm=config.norm,
      norm_output=config.model.norm_output,
    )
    wrong = (logits.argmax(1) != labels).mean()
    assert metrics["error"] == pytest.approx(wrong, abs=1e-12)
    assert metrics["nll"] == pytest.approx(
      _nll(logits, labels).mean(), rel=1e-4
    )


def test_minibatch_nll_is_by_the_statistics_of_each_minibatch(measured, digits):
  config, variables, found = measured
  has = {s for s, metrics in found.items() if "nll_minibatch" in metrics}
  assert has == ({"train"} if config.norm == "batch" else set())
  if not has:
    return
  images, labels = digits.splits["train"]
  order = np.random.default_rng(0).permutation(100)[:96].reshape(6, 16)
  nll = [
    _nll(
      _forward(
        variables,
        images[rows],
        norm="batch",
        norm_output=True,
        minibatch=True,
      ),
      labels[rows],
    )
    for rows in order
  ]
  assert found["train"]["nll_minibatch"] == pytest.approx(
    np.mean(nll), rel=1e-4
  )


@pytest.mark.parametrize(
  ("field", "value", "wrong"),
  [
    ("norm", "batch,batch_size=4,accumulate=4", "at least 2 cases"),
    ("profile_steps", "('a','b')", "profile_steps=('a', 'b')"),
    ("profile_steps", "(30,40)", "profile_steps=(30, 40)"),
    ("log_every", "3000000000", "at most 2147483647"),
    ("stall_seconds", "1e10", "at most 1000000"),
    ("model.hidden", "(9999999,)", "below 1048576"),
    ("best", "train/loss:min", "must be one of train/nll"),
  ],
)
def test_a_value_that_would_fail_later_is_refused_in_a_line(
  spec, field, value, wrong
):
  with pytest.raises(launch.ConfigError, match=re.escape(wrong)):
    launch.load(f"{spec},{field}={value}")


def test_batch_norm_counts_the_cases_of_a_microbatch(spec):
  args = "norm=batch,batch_size=64,model.bn_average_cases=1280"
  for accumulate, momentum in ((1, 0.95), (4, 0.9875)):
    config = launch.load(f"{spec},{args},accumulate={accumulate}")
    model = mnist_mlp.make_model(config)
    assert model.options.momentum == pytest.approx(momentum)
