"""The attentive reader on questions about passages (section 6.2, Figure 2).

  python -m experiments.train \
      --config=configs/attentive_reader.py:norm=layer --workdir=runs/reader_ln

trains 64 units on generated questions, which can all be answered: a few
minutes on two cores. `data.source=cnn` takes the paper's questions,
`data.source=novels` a cloze of novels. The four systems of Figure 2 are
`norm=none`, `norm=batch`, `norm=batch,model.norm_everywhere=true` and
`norm=layer`.
"""

from configs import common

_placeholder = common.config_dict.placeholder


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "attentive_reader"
  config.best = "validation/error:min"
  config.compare_metrics = ("validation/error", "train/nll")
  config.batch_size = 64  # Paper.
  config.log_every = 50
  config.steps_per_dispatch = 5
  config.optimizer.learning_rate = _placeholder(float)  # Paper: 8e-5.
  config.optimizer.clip = 10.0  # Authors' code.
  config.optimizer.clip_rule = "authors"

  config.model.features = _placeholder(int)  # Paper: 240.
  config.model.similarity = True  # Authors' code.
  config.model.skip = True  # Authors' code, of the run with layer norm.
  config.model.bidirectional = False  # Paper.
  config.model.dropout = 0.5  # Authors' code.
  config.model.norm_everywhere = False  # "BN-everywhere": true.
  config.model.form = "separate"  # Paper, supplement, eqs. 20-22.
  config.model.eps = 1e-5
  # Paper: 1 is better than 0.1 for layer norm; batch norm has 0.1.
  config.model.gain_init = _placeholder(float)
  config.model.weight_init = _placeholder(str)  # Authors' code: authors.
  config.model.bn_momentum = 0.99
  config.model.bn_padding = "all"  # Authors' code; or masked.

  config.data.source = "embedded"  # Or novels, cnn, cnn_top4, babi.
  config.data.dir = ""  # "" is the source's folder in $LNRNN_DATA_DIR.
  config.data.task = 1  # Of bAbI, 1 to 20.
  config.data.sentences = 4  # Of a passage that are kept; 0: all.
  config.data.most_words = 0  # With numbers of their own; 0: all.
  config.data.max_passage = 0  # Longer ones are cut, in words; 0: none.
  config.data.max_query = 100  # Longer ones are left out; 0: none.
  config.data.multiple = 32  # Passages are filled up to a multiple of it.
  config.data.run = 1  # Batches of one length that come one after the other.
  # Entities are renamed anew for each batch; authors' code.
  config.data.permute = _placeholder(bool)
  config.data.strict = True  # A damaged file ends the run; or is left out.
  # Questions of the validation split that are evaluated, and of the training
  # split, there 4,000 at most; 0 is all.
  config.eval_examples = _placeholder(int)
  # Training batches over which batch norm's statistics are taken anew before
  # an evaluation, as its authors did. 0: the averages kept in training.
  config.eval_bn_batches = 50

  smoke = common.SMOKE | {
    "batch_size": 8,
    "model.features": 8,
    "data.multiple": 64,
    "eval_examples": 16,
    "eval_bn_batches": 2,
  }
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def _derive(config):
  source = config.data.source
  small = source in ("embedded", "babi", "cnn_top4")
  if config.model.features is None:
    config.model.features = 64 if small else 240
  if config.model.weight_init is None:
    config.model.weight_init = "sound" if small else "authors"
  if config.optimizer.learning_rate is None:
    # At the paper's rate nothing moves for tens of thousands of updates.
    config.optimizer.learning_rate = 3e-3 if small else 8e-5
  if config.data.permute is None:
    config.data.permute = source != "babi"  # Its people have no numbers.
  if config.eval_examples is None:
    config.eval_examples = 0 if source == "cnn" else 2000
  if config.train_steps is None and not config.epochs:
    config.epochs = 20.0
  questions = {
    "embedded": 4_000,
    "novels": 122_313,
    "cnn": 380_298,
    "cnn_top4": 200,
    "babi": 900,
  }.get(source, 1)
  every = 100 if small else 1000  # Authors' code.
  common.set_steps(config, questions, eval_every=every)
