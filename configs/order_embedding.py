"""Order embeddings of images and sentences (section 6.1, Figure 1, Table 2).

  python -m experiments.train --config=configs/order_embedding.py:norm=layer \
      --workdir=runs/order_ln

trains an embedding of 128 units on generated scenes: a minute on two cores.
`data.source=flickr8k` takes photographs, and `data.source=coco` those of the
paper; `model.loss=cosine` is the symmetric baseline.
"""

from configs import common

_REAL = ("flickr8k", "coco", "coco_ids", "tfds")


def get_config(arg=""):
  """The config of the task, with the arguments of `arg` applied."""
  config = common.base()
  config.experiment = "order_embedding"
  config.best = "validation/recall_sum:max"
  config.patience = common.config_dict.placeholder(int)
  config.compare_metrics = (  # Figure 1.
    "validation/image_r1:max",
    "validation/image_r5:max",
    "validation/image_r10:max",
  )
  config.batch_size = 128  # Authors' code.
  config.log_every = 5
  config.steps_per_dispatch = 5
  config.optimizer.learning_rate = 1e-3  # Authors' code.
  # Authors' code, each tensor by itself; optimizer.clip is the global norm.
  config.optimizer.clip_per_tensor = 2.0

  config.model.features = common.config_dict.placeholder(int)  # Authors: 1024.
  config.model.word_features = common.config_dict.placeholder(int)  # 300.
  config.model.loss = "order"  # Or cosine: "Sym" in Table 2.
  config.model.margin = common.config_dict.placeholder(float)
  config.model.form = "separate"  # Paper, supplement, eqs. 26-28.
  config.model.eps = 1e-5
  config.model.gain_init = common.config_dict.placeholder(float)

  config.data.source = "embedded"  # Or flickr8k, coco, coco_ids, tfds.
  config.data.dir = ""  # "" is the source's folder in $LNRNN_DATA_DIR.
  config.data.features = ""  # Name of the .npy file, where there are several.
  config.data.normalize = True  # To length 1, as the authors did.
  config.data.max_words = 60  # Longer captions are cut; few are.
  config.data.multiple = 4  # Captions are filled up to a multiple of it.
  # Images of the validation split that are ranked; authors' code: the first
  # 1,000. 0 is all.
  config.eval_images = 1000
  config.eval_folds = common.config_dict.placeholder(int)  # Of the test split.
  config.eval_batch_size = 250  # Captions.

  smoke = common.SMOKE | {
    "batch_size": 8,
    "model.features": 8,
    "model.word_features": 4,
    "data.multiple": 16,
    "eval_images": 20,
  }
  return common.finish(config, arg, smoke=smoke, derive=_derive)


def sweep():
  """The runs of Figure 1 and of docs/results/order_embedding.md."""
  return common.product({"norm": ("layer", "none")}, seeds=range(5))


def _derive(config):
  source = config.data.source
  real, coco = source in _REAL, source in _REAL and source != "flickr8k"
  for field, authors, small in (
    ("features", 1024, 128),
    ("word_features", 300, 64),
  ):
    if config.model[field] is None:
      config.model[field] = authors if real else small
  if config.model.margin is None:  # Vendrov et al. 2016.
    config.model.margin = 0.2 if config.model.loss == "cosine" else 0.05
  if config.eval_folds is None:
    config.eval_folds = 5 if coco else 1  # Paper.
  if config.patience is None:
    config.patience = 0 if coco else 10  # Authors' code has none.
  images = 113_287 if coco else 6_000 if real else 2_000
  if not config.epochs:
    # Authors' code; Flickr8k and the scenes stop by their patience.
    config.epochs = 100.0 if real else 40.0
  # Authors' code. An epoch of Flickr8k has 46 updates.
  common.set_steps(config, images, eval_every=300 if coco else 25)
