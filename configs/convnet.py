"""Small convolutional networks (section 6.7; beyond it, why layer norm lags).

  python -m experiments.train --config=configs/convnet.py:norm=layer \
      --workdir=runs/convnet_ln

trains on the embedded digits. The paper names neither data nor network; our
results are on CIFAR-10:

  python -m experiments.train \
      --config=configs/convnet.py:norm=batch,data.source=binary \
      --workdir=runs/convnet_bn

where data.train_cases=14400 belongs to the subset that docs/results/convnet.md
is of: some six minutes on a core for test errors of 26 to 34 % after 15 epochs.
"""

from configs import common


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "convnet"
  config.best = "validation/error:min"
  config.compare_metrics = ("train/nll:log", "test/error")
  config.batch_size = 100  # Salimans & Kingma.
  # The best of a grid for layer norm and for no norm, 3e-4 to 1e-2; the paper
  # is silent, Salimans & Kingma have 1e-3.
  config.optimizer.learning_rate = 3e-3

  # Salimans & Kingma have (96, 192), 3 of each and dropout 0.5; ours suit a
  # CPU. `widths=(96,192)`, `depth=3` is their network.
  config.model.widths = (16, 32)
  config.model.depth = 2
  config.model.dropout = 0.0
  config.model.slope = 0.1
  config.model.padding = "zero"  # Or circular.
  config.model.dtype = "float32"  # Or bfloat16.
  config.model.eps = 1e-5  # The authors' code.
  config.model.gain_init = 1.0  # Paper, section 6.
  # What layer and RMS norm take for the layer: "units" is all channels at all
  # places, with a gain for each unit (the paper, read literally); "maps" the
  # same with a gain for each channel; "channels" each place by itself.
  config.model.ln_form = "units"
  config.model.ln_border = 0  # Rows and columns left out of the statistics.
  config.model.groups = 8  # Of group norm.
  config.model.bn_unbiased = False
  config.model.bn_average_cases = 2_000  # Our choice: 20 minibatches.
  config.model.wn_data_dependent_init = False

  config.data.source = "embedded"  # Or binary, tfds: CIFAR-10.
  config.data.dir = ""  # Of binary and tfds; "" is $LNRNN_DATA_DIR/cifar10.
  config.data.train_cases = common.config_dict.placeholder(int)
  config.data.shift = 2  # Places, at random in training.
  config.data.flip = common.config_dict.placeholder(bool)  # Not digits.
  config.eval_batch_size = 500
  # Minibatches of those below that batch norm's statistics are taken from at
  # each evaluation; 0: the averages of training, which lag behind.
  config.eval_bn_batches = 20
  config.eval_train_cases = 2_000  # Of the training cases, in evaluations.

  smoke = {
    "train_steps": 6,
    "eval_every": 3,
    "checkpoint_every": 3,
    "log_every": 1,
    "steps_per_dispatch": 3,
    "batch_size": 20,
    "model.widths": (8, 8),
    "model.depth": 1,
    "eval_batch_size": 100,
    "eval_train_cases": 100,
    "data.train_cases": 200,
  }
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def sweep():
  """The runs of docs/results/convnet.md."""
  return common.product({"norm": ("layer", "batch", "none")}, seeds=(0, 1, 2))


def _derive(config):
  whole = config.data.source != "embedded"
  if config.data.train_cases is None:
    config.data.train_cases = 45_000 if whole else 10_000
  if config.data.flip is None:
    config.data.flip = whole
  if not config.epochs:
    config.epochs = 15.0 if whole else 3.0
  common.set_steps(config, config.data.train_cases, evals=5)
