"""Handwriting synthesis on IAM-OnDB (section 6.5, Figure 5).

  python -m experiments.train --config=configs/handwriting.py:norm=layer \
      --workdir=runs/handwriting_ln

trains a network of 100 units on generated pen strokes, 2,000 updates: some
three minutes on two cores. The paper's run takes `data.source=iam_ondb` and a
GPU.
"""

from configs import common


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "handwriting"
  config.best = "validation/nll:min"
  config.compare_metrics = ("train/nll", "validation/nll")  # Figure 5.
  config.batch_size = 8  # Paper.
  config.steps_per_dispatch = 5
  config.log_every = 20
  # Paper: Adam. The rate was chosen on held-out lines for the LN and baseline
  # alike (docs/results/handwriting.md); clipping is our choice.
  config.optimizer.learning_rate = 3e-3
  config.optimizer.clip = 100.0

  config.model.features = common.config_dict.placeholder(int)  # Paper: 400.
  config.model.layers = 3  # Paper.
  config.model.window = 10  # Paper; 0 is the prediction network.
  config.model.mixtures = 20  # Paper.
  config.model.form = "separate"  # Paper, supplement, eqs. 20-22.
  config.model.inputs = "together"  # Or apart: a norm for each of the three.
  config.model.peepholes = False  # Graves has them, the paper's eqs. not.
  config.model.eps = 1e-5
  config.model.gain_init = common.config_dict.placeholder(float)
  config.model.forget_bias = 0.0
  # Characters a step of an untrained window: about that of the data.
  config.model.pace = common.config_dict.placeholder(float)
  config.model.init_sd = 0.075
  # In units of the offsets' standard deviation. The files have whole numbers,
  # which a Gaussian could fit without bound.
  config.model.min_deviation = 0.02

  config.data.source = "embedded"  # Or iam_ondb: the paper's data.
  config.data.dir = ""  # "" is $LNRNN_DATA_DIR/iam_ondb.
  config.data.splitting = "graves"  # Or official.
  config.data.points = common.config_dict.placeholder(int)  # Paper: 500.
  config.data.pieces = "first"  # Or all, with the state carried over.
  config.eval_batch_size = 50
  config.eval_cases = 0  # Lines of a split that are evaluated; 0: all.
  config.sample_points = common.config_dict.placeholder(int)

  smoke = common.SMOKE | {
    "batch_size": 4,
    "model.features": 8,
    "model.window": 2,
    "model.mixtures": 2,
    "data.points": 20,
    "eval_cases": 6,
    "eval_batch_size": 4,
    "sample_points": 20,
  }
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def sweep():
  """The runs of Figure 5 and of docs/results/handwriting.md."""
  return common.product({"norm": ("layer", "none")})


def _derive(config):
  real = config.data.source != "embedded"
  for field, paper, small in (
    ("features", 400, 100),
    ("pace", 0.04, 0.08),
  ):
    if config.model[field] is None:
      config.model[field] = paper if real else small
  if config.data.points is None:
    config.data.points = 500 if real else 150
  if config.sample_points is None:
    config.sample_points = 1200 if real else 300
  if config.train_steps is None and not config.epochs:
    # The paper's axis goes to 200,000.
    config.train_steps = 35_000 if real else 2_000
  lines = 2_000
  if real:
    lines = 9_214 if config.data.splitting == "graves" else 5_355
  common.set_steps(config, lines, eval_every=1000 if real else 500)
