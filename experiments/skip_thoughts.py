"""Skip-thoughts on contiguous sentences (section 6.3, Figure 3, Table 3)."""

from collections.abc import Mapping, Sequence
import functools
import os
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks, suite
from lnrnn import arrays, losses
from lnrnn.data import batches, books, corpus, corpus_making, vocabulary
from lnrnn.data.corpus import Corpus
from lnrnn.data.triple_batches import TripleBatches
from lnrnn.errors import ConfigError, choices
from lnrnn.models import skip_thoughts
from lnrnn.models.skip_thoughts import SIDES, SkipThoughts
from lnrnn.sentence_encoder import SkipThoughtEncoder, digest, tokens
from lnrnn.training import config as config_lib
from lnrnn.training import distributed
from lnrnn.training import workdir as workdir_lib
from lnrnn.training.experiment import Eval, Experiment

SOFTMAX = ("full", "sampled")
MEASURES = ("nll", *(f"nll_{side}" for side in SIDES))
ASKED = ("sentence",)
# Of a split, among which the nearest to a sentence are looked for.
NEIGHBOURS = 20_000


def check(config: config_lib.Config) -> list[str]:
  """The faults of a config, a line each; touches no data."""
  c = config_lib.check_common(config)
  checks.recurrent(c)
  c.one_of("data.source", books.SOURCES)
  c.one_of("model.condition", skip_thoughts.CONDITIONS)
  c.one_of("loss.softmax", SOFTMAX)
  if config.model.form == "cell":
    c.add("model.form", "a GRU has no form cell")
  c.within("model.features", 2)
  c.within("model.word_features", 1)
  c.within("model.embedding_scale", 0, 100, open_low=True)
  c.within("model.bn_momentum", 0, 1, open_high=True)
  if config.norm in ("layer", "rms", "batch") and config.model.eps == 0:
    # The first word of a decoder is no word at all.
    c.add("model.eps", "must be above 0: a decoder's first input is zero")
  c.within("loss.samples", 1, 1_000_000)
  c.within("loss.chunk", 1, 1_000_000)
  c.within("data.vocabulary", len(vocabulary.SPECIAL) + 1, 10_000_000)
  c.within("data.max_words", 1, 1000)
  c.within("data.multiple", 1, 1000)
  c.within("data.run", 1, 10_000)
  c.within("data.held_out", 0, 0.5, open_low=True, open_high=True)
  c.within("eval_triples", 0)
  c.within("eval_batch_size", 2 if config.norm == "batch" else 1)
  if config.epochs and config.data.source in ("text", "lines"):
    c.add(
      "epochs", "must be 0: only reading tells the triples; set train_steps"
    )
  c.within("downstream.every", 0)
  if not config.downstream.tasks:
    c.add("downstream.tasks", f"must be some of {', '.join(suite.TASKS)}")
  every = max(0, config.downstream.every)
  if every % max(1, config.checkpoint_every):
    c.add(
      "downstream.every",
      f"must be a multiple of checkpoint_every={config.checkpoint_every}",
    )
  if every % max(1, config.checkpoints_kept_every):
    c.add("checkpoints_kept_every", f"must divide downstream.every={every}")
  for task in config.downstream.tasks:
    if task not in suite.TASKS:
      c.add("downstream.tasks", choices(task, suite.TASKS))
  c.decided_by([f"{s}/{n}" for s in ("train", "validation") for n in MEASURES])
  return c.faults


def build(config: config_lib.Config) -> Experiment:
  """The experiment that `config` describes.

  Args:
    config: of configs/skip_thoughts.py.

  Returns:
    The experiment. Its loss is the sum over the words of a batch, as in the
    authors' code; its evaluations give "nll", nats per word of the neighbours
    under the whole softmax, END counted, the same of each side, and
    "unigram", what the words' frequencies alone give.

  Raises:
    ConfigError: listing every fault of the config.
    DataError: if the data is missing or damaged.

  Source: Ba et al. 2016, section 6.3; Kiros et al. 2015.
  """
  if faults := check(config):
    raise ConfigError(*faults)
  data = load_data(config)
  train_data = TripleBatches(
    data.splits["train"],
    batch_size=config.batch_size,
    seed=config.seed,
    fingerprint=data.fingerprint,
    multiple=config.data.multiple,
    run=config.data.run,
  )
  model = make_model(config, len(data.vocabulary))
  measure = Likelihood(config, model, data).measure
  every = config.eval_every
  return Experiment(
    init=functools.partial(init, model),
    loss=functools.partial(loss, config, model),
    train_data=train_data,
    evals={
      "likelihood": Eval(every, measure, ("train", "validation")),
      "test": Eval(every, measure, ("test",), of_best=True),
    },
    data=data.description,
    model=model,
    assets={
      "vocabulary": list(data.vocabulary.words),
      "preprocessing": {
        "special": list(vocabulary.SPECIAL),
        "tokens": corpus_making.TOKENS,
        "sha256": data.fingerprint,
        "vocabulary_sha256": digest(data.vocabulary.words),
        **data.record["options"],
      },
    },
  )


def beside(workdir: str | os.PathLike[str], config: config_lib.Config):
  """What runs beside the training, as arguments of `python -m`.

  Raises:
    DataError: there is no data for it.
  """
  if not config.downstream.every:
    return None
  for task in config.downstream.tasks:
    suite.folder(None, task)
  record = workdir_lib.read_record(workdir) or {"starts": []}
  after = f"--after={len(record['starts'])}"
  return ["experiments.downstream", f"--workdir={workdir}", "--follow", after]


def load_data(config: config_lib.Config) -> Corpus:
  """The sentences that `config` names."""
  c = config.data
  options = corpus.Options(c.source, c.vocabulary, c.max_words, c.held_out)
  return corpus.load(options, c.dir or None)


def make_model(config: config_lib.Config, words: int) -> SkipThoughts:
  """The model that `config` describes, for a number of words."""
  return SkipThoughts(
    vocabulary=words,
    norm=config.norm,
    t_max=config.data.max_words + 1,
    **config.model,
  )


def inputs(batch: Mapping[str, Any]) -> tuple[Any, ...]:
  """What `SkipThoughts` is called with."""
  names = ("current", *SIDES)
  return tuple(batch[n + end] for n in names for end in ("", "_length"))


def init(model: SkipThoughts, key: jax.Array, batch: Mapping[str, Any]) -> Any:
  """The variables of a model, see `Experiment`."""
  return model.init(key, *inputs(batch))


def loss(
  config: config_lib.Config,
  model: SkipThoughts,
  variables: Any,
  batch: Mapping[str, Any],
  key: jax.Array,
) -> Any:
  """The sum of the nats of both neighbours' words, see `Experiment`."""
  others = [name for name in variables if name != "params"]
  found, changed = model.apply(
    variables, *inputs(batch), train=True, mutable=others
  )
  params, nats, words = variables["params"], 0.0, 0
  for i, (side, h) in enumerate(zip(SIDES, cast(Any, found), strict=True)):
    live = _live(batch, side)
    if config.loss.softmax == "full":
      groups = distributed.mesh().size
      nats += _nats(config, params, h, batch[side], live, groups)
    else:
      of = (h, params["kernel"], params["bias"], batch[side], live)
      own = jax.random.fold_in(key, i)
      nats += losses.sampled_softmax_nats(*of, own, samples=config.loss.samples)
    words += live.sum()
  # The mean over microbatches shall be the sum over the batch.
  return config.accumulate * nats, (changed, {"nll": nats / words})


def _nats(config, params, h, words, live, groups=1):
  """Of the words of one side, under the whole softmax."""
  return losses.softmax_nats(
    h,
    params["kernel"],
    params["bias"],
    words,
    live,
    chunk=config.loss.chunk,
    groups=groups,
  )


def _live(batch, side):
  return jnp.arange(batch[side].shape[1]) < batch[f"{side}_length"][:, None]


class Likelihood:
  """Measures how well the neighbours of sentences are foretold.

  Args:
    config: of the run.
    model: of the run.
    data: of the run.
  """

  def __init__(self, config, model: SkipThoughts, data: Corpus):
    self._config, self._data = config, data

    @jax.jit
    def nats(variables, batch, fresh):
      """Nats and words of each side, [2, 2]."""
      states = model.apply(variables, *inputs(batch))
      params, found = variables["params"], []
      for side, h in zip(SIDES, cast(Any, states), strict=True):
        live = _live(batch, side) & fresh[:, None]
        total = _nats(config, params, h, batch[side], live)
        found.append(jnp.stack([total, live.sum()]))
      return jnp.stack(found)

    self._nats = nats

  def measure(
    self, variables: Any, split: str, key: jax.Array
  ) -> dict[str, float]:
    """Nats per word of a split, or of some of its triples."""
    del key
    triples = self._data.splits[split]
    most = 0 if split == "test" else self._config.eval_triples
    if split == "train":  # There may be millions.
      most = most or len(self._data.splits["validation"])
    positions = triples.spread(most)
    total, unigram, nats_of = np.zeros((2, 2)), 0.0, self._data.unigram
    for rows, fresh in batches.blocks(
      len(positions), self._config.eval_batch_size
    ):
      own = positions[rows]
      batch = triples.batch(
        own, triples.steps(triples.longest(own), self._config.data.multiple)
      )
      for side in SIDES:
        live = _live(batch, side) & fresh[:, None]
        unigram += nats_of[batch[side]][np.asarray(live)].sum()
      total += np.asarray(self._nats(variables, batch, fresh), np.float64)
    nats, words = total.T
    found = {
      "nll": nats.sum() / words.sum(),
      "unigram": unigram / words.sum(),
    }
    return found | {
      f"nll_{side}": float(n)
      for side, n in zip(SIDES, nats / words, strict=True)
    }


def answer(
  config: config_lib.Config,
  variables: Any,
  split: str,
  asked: Sequence[tuple[str, str]],
  top: int,
) -> str:
  """What a run makes of sentences, as text.

  Args:
    config: of the run.
    variables: of the run.
    split: among whose sentences the nearest are looked for.
    asked: ("sentence", a text) each.
    top: how many are shown.

  Returns:
    Lines: the most likely words of both neighbours, one by one, and the
    nearest sentences by the cosine of their vectors.

  Raises:
    ConfigError: a text has no word.
  """
  data = load_data(config)
  model = make_model(config, len(data.vocabulary))
  encoder = SkipThoughtEncoder.of(
    model, variables, {"vocabulary": list(data.vocabulary.words)}
  )
  texts = [text for _, text in asked]
  for text, row in zip(texts, encoder.numbers(map(tokens, texts)), strict=True):
    if len(row) < 2:
      raise ConfigError(f"--sentence={text!r}: has no word")
  told = data.sentences(split, NEIGHBOURS)
  thoughts = encoder.encode(texts, normalized=False)
  near = arrays.unit(thoughts) @ encoder.encode(told).T
  words = [*vocabulary.SPECIAL, *data.vocabulary.words]
  lines = []
  steps = config.data.max_words + 1
  found = {
    side: decoded(model, variables, thoughts, side, steps) for side in SIDES
  }
  for i, text in enumerate(texts):
    lines.append(f"{text!r}")
    for side in SIDES:
      said = " ".join(words[w] for w in found[side][i])
      lines.append(f"  {side + ':':9} {said}")
    lines += [
      f"  {near[i, j]:9.4f}   {told[j]}"
      for j in np.argsort(-near[i], kind="stable")[:top].tolist()
    ]
  return "\n".join(lines)


def decoded(
  model: SkipThoughts, variables: Any, thoughts: Any, side: str, steps: int
) -> list[list[int]]:
  """The most likely words of neighbours, one after the other.

  Args:
    model: of the run.
    variables: of the run.
    thoughts: [b, h].
    side: one of `SIDES`.
    steps: words at most.

  Returns:
    For each sentence its words, without END; never the unknown word.
  """
  words = jnp.full((len(thoughts), steps), vocabulary.END, jnp.int32)
  for i in range(steps):
    words = _following(model, side, variables, thoughts, words, i)
  found = []
  for row in np.asarray(words).tolist():
    end = row.index(vocabulary.END) if vocabulary.END in row else steps
    found.append(row[:end])
  return found


def _decode(model, side, variables, thoughts, words, i):
  """The words [b, t] with the most likely one at position i."""
  # All steps anew: so every norm, batch norm by steps too, is as trained.
  lengths = jnp.full(*words.shape)
  h = model.apply(variables, side, thoughts, words, lengths, method="decode")
  logits = model.apply(variables, h[:, i], method="logits")
  likely = logits.at[:, vocabulary.UNKNOWN].set(-jnp.inf).argmax(axis=-1)
  return words.at[:, i].set(likely.astype(jnp.int32))


_following = jax.jit(_decode, static_argnums=(0, 1))
