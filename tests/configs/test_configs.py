"""Config arguments, and what every config of configs/ promises."""

import pathlib

from ml_collections import config_dict
import pytest

from configs import common
from experiments import launch
from lnrnn.errors import ConfigError
from lnrnn.training import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MNIST = f"{ROOT}/configs/mnist_mlp.py"
CONFIGS = sorted(
  path
  for path in (ROOT / "configs").glob("[!_]*.py")
  if path.name != "common.py"
)
FIELDS = {
  *("experiment", "norm", "seed", "batch_size", "train_steps"),
  *("log_every", "eval_every", "checkpoint_every"),
  *(
    f"optimizer.{name}"
    for name in (
      *("name", "learning_rate", "schedule", "warmup_steps", "b1", "b2"),
      *("eps", "weight_decay", "clip", "clip_rule", "clip_per_tensor"),
    )
  ),
}


def load(arg="", *overrides):
  return config_lib.load_config(f"{MNIST}:{arg}" if arg else MNIST, overrides)


def toy(arg):
  """A config with a field of every type."""
  config = common.base()
  config.model.widths = (10, 10)
  config.model.rate = 0.5
  config.model.on = False
  config.model.off = config_dict.placeholder(bool)
  return common.finish(config, arg, smoke={"seed": 7}, derive=lambda c: None)


@pytest.mark.parametrize(
  ("arg", "field", "value"),
  [
    ("batch_size=4", "batch_size", 4),
    ("seed=-3", "seed", -3),
    ("train_steps=9", "train_steps", 9),
    ("epochs=2", "epochs", 2.0),
    ("model.rate=1e-3", "model.rate", 1e-3),
    ("optimizer.learning_rate=3e-4", "optimizer.learning_rate", 3e-4),
    ("norm=batch", "norm", "batch"),
    ("best=", "best", ""),
    ("best=a/b:min", "best", "a/b:min"),
    ("model.on=true", "model.on", True),
    ("model.on=1", "model.on", True),
    ("model.on", "model.on", True),
    ("model.on=False", "model.on", False),
    ("model.off=0", "model.off", False),
    ("model.widths=(1,2,3)", "model.widths", (1, 2, 3)),
    ("model.widths=[1,2]", "model.widths", (1, 2)),
    ("model.widths=5", "model.widths", (5,)),
    ("model.widths=()", "model.widths", ()),
    ("seed=1, norm=rms ,seed=2", "seed", 2),
    ("smoke", "seed", 7),
    ("smoke=false", "seed", 0),
    ("seed=3,smoke", "seed", 3),
    ("", "seed", 0),
  ],
)
def test_an_argument_takes_the_type_of_the_default(arg, field, value):
  got = config_lib.Checker(toy(arg)).get(field)
  assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
  ("arg", "field"),
  [
    ("batch_size=4.0", "batch_size"),
    ("batch_size=four", "batch_size"),
    ("batch_size=", "batch_size"),
    ("epochs=long", "epochs"),
    ("model.on=yes", "model.on"),
    ("model.widths=(1,2.0)", "model.widths"),
    ("model.widths=(1,True)", "model.widths"),
    ("model.widths=(a,b)", "model.widths"),
    ("model=3", "model"),
    ("smoke=2", "smoke"),
    ("optimizer.name.first=a", "optimizer.name.first"),
  ],
)
def test_a_value_of_another_type_is_refused(arg, field):
  with pytest.raises(common.ArgumentError) as caught:
    toy(arg)
  assert field in str(caught.value)


def test_all_wrong_arguments_are_told_at_once_and_the_right_ones_applied():
  with pytest.raises(common.ArgumentError) as caught:
    toy("nrom=layer,batch_size=x,seed=5,model.ratte=1,smoke=maybe")
  lines = str(caught.value).split("\n")
  assert len(lines) == 4
  assert caught.value.config.seed == 5
  assert any("did you mean 'norm'" in line for line in lines)
  assert any("did you mean 'model.rate'" in line for line in lines)


def test_derived_fields_follow_the_arguments():
  config = load("batch_size=4,norm=batch")
  assert config.model.norm_output and config.model.bn_unbiased
  assert config.train_steps == 5 * config.eval_every == 10_000 // 4
  config = load("data.source=idx,batch_size=4,epochs=1")
  assert config.train_steps == config.eval_every == 55_000 // 4
  config = load("batch_size=100,epochs=2.5")
  assert config.train_steps == 250
  assert config.checkpoint_every == 5 * config.eval_every == 500
  assert load("data.source=idx").train_steps == 60 * (55_000 // 128)


def test_an_explicit_value_wins_over_a_derived_one():
  config = load("epochs=2,train_steps=7,eval_every=3,model.norm_output=true")
  assert (config.train_steps, config.eval_every) == (7, 3)
  assert config.model.norm_output
  assert load("batch_size=4,model.bn_unbiased=false").model.bn_unbiased is False


def test_a_config_is_locked():
  with pytest.raises(AttributeError):
    load("smoke").nrom = "layer"


def test_a_config_survives_json():
  config = load("smoke,norm=batch,model.hidden=(3,4)")
  tree = config_lib.to_dict(config)
  again = config_lib.from_dict(tree)
  assert config_lib.to_dict(again) == tree
  assert again.model.hidden == (3, 4)
  assert config_lib.differences(tree, tree) == []


@pytest.mark.parametrize(
  "overrides",
  [
    ["--config.norm=batch", "--config.model.hidden=(3,4)"],
    ["--config.norm", "batch", "--config.model.hidden", "(3,4)"],
    ["-config.norm=batch", "--config.model.hidden=(3,4)"],
  ],
)
@pytest.mark.parametrize("start", ["{}", "{}:", "{}:seed=2", "{}:norm=rms"])
@pytest.mark.parametrize("spaced", [False, True])
def test_an_override_means_the_same_as_an_argument(overrides, start, spaced):
  spec = start.format(MNIST)
  flag = ["--config", spec] if spaced else [f"--config={spec}"]
  for argv in (
    ["train", *flag, "--workdir=w", *overrides],
    ["train", *overrides, "--workdir=w", *flag],
  ):
    folded = launch.fold_overrides(argv)
    at = folded.index("--config") + 1 if spaced else None
    if at is None:
      (value,) = (w[9:] for w in folded if w.startswith("--config="))
    else:
      value = folded[at]
    assert "--workdir=w" in folded and not any("config." in w for w in folded)
    given = f"{spec}{',' if ':' in spec else ':'}norm=batch,model.hidden=(3,4)"
    assert config_lib.load_config(value) == config_lib.load_config(given)
    assert config_lib.load_config(value).norm == "batch"


def test_an_override_may_be_a_bare_word_negative_or_empty():
  argv = ["train", "--config=c.py", "--config.smoke", "--config.seed", "-1"]
  assert launch.fold_overrides(argv)[1] == "--config=c.py:smoke=true,seed=-1"
  argv = ["train", "--config=c.py:a=1", "--config.data.dir=", "--config.smoke"]
  folded = launch.fold_overrides(argv)
  assert folded[1] == "--config=c.py:a=1,data.dir=,smoke=true"


def test_of_several_configs_the_last_takes_the_overrides_as_it_does_in_absl():
  argv = ["train", "--config=a.py", "--config=b.py", "--config.seed=1"]
  assert launch.fold_overrides(argv)[1:] == [
    "--config=a.py",
    "--config=b.py:seed=1",
  ]


def test_a_flag_whose_value_has_commas_stays_one_value():
  argv = ["train", "--config=c.py:smoke", "--config.profile_steps=10,20"]
  folded = launch.fold_overrides([*argv, "--config.data.dir=/a,b"])
  spec = folded[1].partition(":")[2]
  assert common.parse_arg(spec) == {
    "smoke": "true",
    "profile_steps": "10,20",
    "data.dir": "/a,b",
  }


def test_a_missing_file_is_a_config_error():
  with pytest.raises(ConfigError, match="not found"):
    config_lib.load_config("configs/nothing.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
class TestEveryConfig:
  def test_has_the_fields_of_the_contract(self, path):
    config = config_lib.load_config(str(path))
    flat = config_lib.flatten(config_lib.to_dict(config))
    assert set(flat) >= FIELDS
    assert {"model", "data"} <= set(config)
    assert None not in [flat[field] for field in FIELDS]

  @pytest.mark.parametrize("norm", ["layer", "batch", "weight", "rms", "none"])
  def test_understands_norm_seed_and_smoke(self, path, norm):
    config = launch.load(f"{path}:norm={norm},seed=3,smoke")
    assert (config.norm, config.seed) == (norm, 3)
    assert config.train_steps <= 100

  def test_smoke_has_the_fields_and_types_of_the_whole(self, path):
    whole, smoke = (
      config_lib.flatten(config_lib.to_dict(config_lib.load_config(spec)))
      for spec in (str(path), f"{path}:smoke")
    )
    assert {k: type(v) for k, v in whole.items()} == {
      k: type(v) for k, v in smoke.items()
    }
