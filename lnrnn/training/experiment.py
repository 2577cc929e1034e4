"""The seam between a task and the training loop."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Protocol

import jax

Variables = Mapping[str, Any]
Metrics = Mapping[str, Any]


class TrainData(Protocol):
  """Random access to training batches, pure in (seed, step).

  The step and the fingerprint are the whole state of the data. Where batches
  differ in shape, `shape(step)` gives a value that is the same for batches of
  one shape; each shape is compiled once.
  """

  fingerprint: str
  steps_per_epoch: int

  def __getitem__(self, step: int) -> dict[str, Any]:
    """The host batch of a step: a dict of NumPy arrays `[b, ...]`."""
    ...


@dataclasses.dataclass(frozen=True)
class Eval:
  """One evaluation and when it runs.

  Attributes:
    every: steps between two evaluations in training; all run at its end too.
    fn: (variables, split, key) -> metrics, each a float, an image, a text or
      a path; the loop writes them as `split/metric`.
    splits: the splits it runs on in training.
    of_best: it runs at the end alone, on the state that `config.best` chose,
      if that is set; for what nothing may be chosen on.
  """

  every: int
  fn: Callable[[Variables, str, jax.Array], Metrics]
  splits: tuple[str, ...]
  of_best: bool = False


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A task as the loop sees it.

  Attributes:
    init: (key, batch) -> variables, a dict of linen collections; only
      "params" is optimised, the rest is carried from step to step.
    loss: (variables, batch, key) -> (scalar, (other collections, metrics)).
    train_data: step -> host batch.
    evals: evaluations by name.
    data: one line on the data the run uses, for the log.
    model: the linen module, of `lnrnn.models`, that the variables are of;
      what `scripts/export.py` writes.
    assets: what the model cannot be used without, such as a vocabulary, by
      name, as JSON types; exported with it.
    at_test: (variables, key) -> those that the evaluations measure, where they
      are others than those trained: batch norm's statistics may be taken anew.
    looped: several updates may run in one compiled loop. Not where XLA is
      slow in loops: an update with convolutions takes it 200 times as long
      there on a CPU (jax-ml/jax#12868).
  """

  init: Callable[[jax.Array, Any], Variables]
  loss: Callable[
    [Variables, Any, jax.Array], tuple[jax.Array, tuple[Variables, Metrics]]
  ]
  train_data: TrainData
  evals: Mapping[str, Eval]
  data: str
  model: Any = None
  assets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  at_test: Callable[[Variables, jax.Array], Variables] | None = None
  looped: bool = True
