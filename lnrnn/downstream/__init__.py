"""What sentence vectors are worth on other tasks: relatedness, classes.

The vectors are fixed. A linear model is trained on top of them, on the
training part of the task alone. scikit-learn and scipy are needed.

Source: Ba et al. 2016, section 6.3; Kiros et al. 2015, section 3.
"""

from lnrnn.downstream.bag import bag_of_vectors
from lnrnn.downstream.classes import (
  CS,
  FOLDS,
  Classified,
  How,
  classification,
  folds,
)
from lnrnn.downstream.pairs import (
  CLASSES,
  MAX_ROUNDS,
  ROUND,
  Relatedness,
  pair_features,
  relatedness,
  soft_targets,
)

__all__ = [
  "CLASSES",
  "CS",
  "FOLDS",
  "MAX_ROUNDS",
  "ROUND",
  "Classified",
  "How",
  "Relatedness",
  "bag_of_vectors",
  "classification",
  "folds",
  "pair_features",
  "relatedness",
  "soft_targets",
]
