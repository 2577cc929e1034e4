"""Skip-thoughts on contiguous sentences (section 6.3, Figure 3, Table 3).

  python -m experiments.train --config=configs/skip_thoughts.py:norm=layer \
      --workdir=runs/skip_ln

trains 128 units on six chapters of a novel: half a minute on two cores, to 5.2
nats per word on a chapter that is held out (docs/results/skip_thoughts.md has
more text).
`data.source=novels` takes novels in TEI XML, `data.source=text` a folder of
plain text, and `data.source=lines` files with a sentence a line, as BookCorpus
has them. `downstream.every=5000` has the sentence vectors evaluated beside the
training, as in Figure 3.
"""

from configs import common

_placeholder = common.config_dict.placeholder


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "skip_thoughts"
  config.best = "validation/nll:min"
  config.compare_metrics = ("validation/nll", "train/nll")
  config.batch_size = _placeholder(int)  # Authors' code: 64.
  config.log_every = 50
  config.steps_per_dispatch = 5
  # Authors' code: 2e-4, of an Adam that hardly corrects its bias
  # (optimizer.name=adam_authors).
  config.optimizer.learning_rate = _placeholder(float)
  config.optimizer.clip = 5.0  # Authors' code; Kiros et al. 2015: 10.

  config.model.features = _placeholder(int)  # Paper: 2400.
  config.model.word_features = _placeholder(int)  # Authors' code: 620.
  config.model.condition = "initial"  # Paper; each_step: Kiros et al. 2015.
  config.model.form = "separate"  # Paper, supplement, eqs. 26-28.
  config.model.eps = 1e-5
  config.model.gain_init = _placeholder(float)
  config.model.embedding_scale = 0.1  # Authors' code.
  config.model.bn_momentum = 0.99
  config.loss = common.config_dict.create(
    softmax="full",  # Or sampled, in training.
    samples=1000,  # Words drawn for a batch, if sampled.
    chunk=512,  # Rows of logits at once, on each device.
  )

  config.data.source = "embedded"  # Or novels, text, lines.
  config.data.dir = ""  # "" is the source's folder in $LNRNN_DATA_DIR.
  config.data.vocabulary = _placeholder(int)  # Authors' code: 20000.
  # Longer sentences end a run; authors' code: less than 30 words.
  config.data.max_words = 29
  config.data.multiple = 10  # Sentences are filled up to a multiple of it.
  config.data.run = 1  # Batches of one length that come one after the other.
  config.data.held_out = 0.05  # Part of the books, for each held-out split.
  config.eval_triples = 2000  # Of each split; 0 is all.
  config.eval_batch_size = 64
  # Steps between two evaluations of the sentence vectors; 0: none. They run in
  # a process of their own, see experiments/downstream.py.
  config.downstream = common.config_dict.create(
    every=0, tasks=("sick", "mr", "cr", "subj", "mpqa")
  )

  smoke = common.SMOKE | {
    "batch_size": 8,
    "model.features": 8,
    "model.word_features": 4,
    "data.multiple": 30,
    "eval_triples": 16,
  }
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def sweep():
  """The reported runs of docs/results/skip_thoughts.md."""
  return common.product({"norm": ("layer", "none")}, seeds=range(3))


def _derive(config):
  small = config.data.source == "embedded"
  for field, authors, little in (
    ("features", 2400, 128),
    ("word_features", 620, 64),
  ):
    if config.model[field] is None:
      config.model[field] = little if small else authors
  if config.batch_size is None:
    config.batch_size = 16 if small else 64
  if config.data.vocabulary is None:
    config.data.vocabulary = 2000 if small else 20_000
  if config.optimizer.learning_rate is None:
    config.optimizer.learning_rate = 2e-3 if small else 2e-4
  if config.train_steps is None and not config.epochs:
    # Six chapters are known by heart after a hundred.
    config.train_steps = 150 if small else 1_000_000  # Paper.
  triples = {"embedded": 230, "novels": 298_410}.get(config.data.source, 1)
  common.set_steps(config, triples, eval_every=25 if small else 5000)
  if config.downstream.every > 0 and not config.checkpoints_kept_every:
    config.checkpoints_kept_every = config.downstream.every
