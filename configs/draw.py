"""DRAW on binarised MNIST (section 6.4, Figure 4).

  python -m experiments.train --config=configs/draw.py:norm=layer \
      --workdir=runs/draw_ln

trains one epoch on the embedded digits: about two minutes on two cores. The
paper's run takes `data.source=amat,epochs=200` and a GPU.
"""

from configs import common


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "draw"
  config.best = "validation/bound:min"
  config.compare_metrics = ("test/bound",)  # Figure 4.
  config.batch_size = 128  # Paper.
  config.steps_per_dispatch = 10
  # Paper: Adam "with the default setting". Chosen on validation data for the
  # LN and baseline alike (docs/results/draw.md).
  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip = 10.0  # Our choice; jbornschein/draw has it too.

  config.model.glimpses = 64  # Paper.
  config.model.features = 256  # Paper, of encoder and decoder.
  # Gregor et al. 2015, table 3; the paper does not say.
  config.model.latents = 100
  config.model.read_size = 2  # 0 reads the whole image.
  config.model.write_size = 5  # 0 writes the whole canvas.
  config.model.form = "cell"  # Paper, supplement, eqs. 29-31.
  config.model.normed = "both"  # Or encoder, or decoder.
  config.model.eps = 1e-5
  # None: 0.1 with a norm: our choice, as for batch norm by Cooijmans et al.
  # At the paper's 1 (section 6) the noise of the latents, which a norm keeps
  # at full size, is learned to be ignored, and with it the latents.
  config.model.gain_init = common.config_dict.placeholder(float)
  config.model.forget_bias = 1.0  # Our choice.
  config.model.init_sd = 0.01  # jbornschein/draw.
  # Stride and standard deviation of the untrained filters, in pixels.
  config.model.read_start = (7.0, 3.0)
  config.model.write_start = (2.0, 1.0)
  # The first canvas starts as the log-odds of the training set's pixels.
  config.model.canvas_from_data = True

  config.data.source = "embedded"  # Or amat, tfds: the paper's data.
  config.data.dir = ""  # "" is $LNRNN_DATA_DIR/binarized_mnist.
  config.data.train_cases = common.config_dict.placeholder(int)
  config.eval_batch_size = 500
  # Of the importance-weighted estimate at the end of a run: latents drawn for
  # an image, and images, drawn at random from the split.
  config.importance_samples = 50
  config.importance_cases = 1000

  smoke = common.SMOKE | {
    "batch_size": 8,
    "model.glimpses": 4,
    "model.features": 8,
    "model.latents": 4,
    "data.train_cases": 64,
    "eval_cases": 40,
    "eval_batch_size": 20,
    "importance_samples": 3,
    "importance_cases": 10,
  }
  config.eval_cases = 0  # Images of a split that are evaluated; 0: all.
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def sweep():
  """The runs of Figure 4 and of docs/results/draw.md."""
  return common.product({"norm": ("layer", "none")})


def _derive(config):
  whole = config.data.source != "embedded"
  if config.data.train_cases is None:
    config.data.train_cases = 50_000 if whole else 10_000
  if config.model.gain_init is None:
    config.model.gain_init = 0.1
  if not config.epochs:
    config.epochs = 200.0 if whole else 1.0  # Paper; what a laptop bears.
  common.set_steps(config, config.data.train_cases)
