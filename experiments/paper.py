"""What the paper shows, and the runs that show it: plain data.

`experiments.reproduce` runs it. The scales are

  smoke  seconds a run, tiny networks on embedded data: the same path through
         the code, and no result
  cpu    the runs behind the verdicts of docs/results, but for those on the
         cloze of novels: reduced where a CPU asks for it, real data where it
         is at hand
  gpu    networks of the paper's sizes, shorter, on data that can be had
  paper  the paper's sizes, data and lengths; three seeds or five where it
         seems to have one, but for the million updates of skip-thoughts

Where rates are tuned they stand here as the trials chose them; the report says
where trials of one's own choose others.

A field that the paper fixes is the default of the task's config for its data,
so that mostly little more than the source of the data has to be said here.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

SCALES = ("smoke", "cpu", "gpu", "paper")
RUNS, TRIALS = "runs", "trials"
_REAL = SCALES[1:]


@dataclasses.dataclass(frozen=True)
class Plan:
  """A set of runs at one scale.

  Attributes:
    fields: `key=value,...`, common to all.
    seeds: of every variant.
    vary: as of `experiments.compare`; () for those of the set.
  """

  fields: str = ""
  seeds: Sequence[int] = (0,)
  vary: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Set:
  """Runs that differ in a few fields.

  Attributes:
    name: of the set, and of what is drawn of it.
    at: {scale: what is run}; none where a scale is missing.
    vary: "field=value,value", each list once.
    folder: of the runs, `RUNS` or `TRIALS`.
    like: the set whose runs cost the same, "" if it is this one.
  """

  name: str
  at: Mapping[str, Plan]
  vary: Sequence[str] = ()
  folder: str = RUNS
  like: str = ""


@dataclasses.dataclass(frozen=True)
class Shown:
  """A figure or a table of the report.

  Attributes:
    title: as in the paper.
    of: names of the sets it is drawn from, all varied in the same fields.
    paper: what the paper's shows, in our words.
    numbers: rows of the paper's table.
    metrics: as of `experiments.compare`; () for those of the config.
    x: abscissa of the figure; "" for a table alone.
    draw: further options of `figures.draw` and of `report.Comparison`.
  """

  title: str
  of: Sequence[str]
  paper: str
  numbers: Sequence[Mapping[str, Any]] = ()
  metrics: Sequence[str] = ()
  x: str = "epochs"
  draw: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Step:
  """A program that runs after the training.

  Attributes:
    name: of the step.
    argv: of Python; {root}, {runs}, {out} and {run} are filled in. With {run}
      it is called for every finished run of the folder `RUNS`.
    at: the scales at which it runs.
    needs: folders of LNRNN_DATA_DIR without which it is left out.
    alone: whether it measures times, so that nothing may run beside it.
  """

  name: str
  argv: Sequence[str]
  at: Sequence[str] = SCALES
  needs: Sequence[str] = ()
  alone: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
  """A section of the paper.

  Attributes:
    title: of the report's section.
    place: section, figures and tables of the paper.
    config: the config file; "" where nothing is trained.
    sets: what is trained.
    shown: figures and tables.
    steps: what runs afterwards.
    sections: of docs/claims.md whose claims it decides.
    rules: of `experiments.claims`; "" where steps alone judge.
    page: of docs/results.
  """

  title: str
  place: str
  sections: Sequence[str]
  page: str
  config: str = ""
  sets: Sequence[Set] = ()
  shown: Sequence[Shown] = ()
  steps: Sequence[Step] = ()
  rules: str = "task"


SMOKE = Plan("smoke")
_THREE = (0, 1, 2)
_FIVE = (0, 1, 2, 3, 4)


def _real(fields: str, seeds: Sequence[int] = _THREE, *vary: str) -> Plan:
  return Plan(fields, seeds, vary)


_MNIST = Task(
  title="Permutation-invariant MNIST",
  place="section 6.6, Figure 6",
  sections=(
    "MNIST, section 6.6 and Figure 6",
    "Same computation in training and at test, section 3",
  ),
  page="mnist_mlp.md",
  config="configs/mnist_mlp.py",
  sets=(
    Set(
      "batch128",
      {
        "smoke": SMOKE,
        "cpu": _real("data.source=idx"),
        "gpu": _real("data.source=idx"),
        "paper": _real("data.source=idx", _FIVE),
      },
      ("norm=layer,batch,none", "batch_size=128"),
    ),
    Set(
      "batch4",
      {
        "smoke": SMOKE,
        "cpu": _real("data.source=idx,epochs=10"),
        "gpu": _real("data.source=idx,epochs=20"),
        "paper": _real("data.source=idx,epochs=60", _FIVE),
      },
      ("norm=layer,batch,none", "batch_size=4"),
    ),
    Set(
      "batch1",
      {
        "cpu": _real("data.source=idx,epochs=1,eval_every=5500"),
        "gpu": _real("data.source=idx,epochs=1,eval_every=5500"),
        "paper": _real("data.source=idx,epochs=5,eval_every=5500"),
      },
      ("norm=layer,none", "batch_size=1"),
    ),
    Set(
      "rates",
      {
        "smoke": Plan(
          "smoke",
          (100,),
          (
            "norm=layer,batch,none",
            "batch_size=4",
            "optimizer.learning_rate=1e-3,3e-3",
          ),
        ),
        "cpu": Plan("data.source=idx,epochs=5", (100,)),
        "gpu": Plan("data.source=idx,epochs=5", (100,)),
        "paper": Plan("data.source=idx,epochs=20", (100,)),
      },
      (
        "norm=layer,batch,none",
        "batch_size=4",
        "optimizer.learning_rate=1e-4,3e-4,1e-3,3e-3",
      ),
      TRIALS,
      like="batch4",
    ),
  ),
  shown=(
    Shown(
      "Figure 6",
      ("batch128", "batch4"),
      "Training NLL (logarithmic, 1 down to 1e-7) and test error (0.005 to"
      " 0.025) over 60 epochs, at batch sizes 128 and 4. In words, layer norm"
      " is robust to the batch size and faster than batch norm on all layers."
      " No numbers are given.",
    ),
    Shown(
      "Batch size 1",
      ("batch1",),
      "No figure: the paper says that layer norm can train on one case at a"
      " time.",
      x="updates",
    ),
    Shown(
      "Rates at batch size 4",
      ("rates",),
      "No figure: how much the comparison hangs on the rate.",
      metrics=("validation/error",),
      x="optimizer.learning_rate",
      draw={"last": 5},
    ),
  ),
  steps=(
    Step(
      "same",
      ("-m", "experiments.same", "--workdir={runs}"),
    ),
  ),
)

_ORDER = Task(
  title="Order embeddings",
  place="section 6.1, Figure 1, Table 2",
  sections=("Order embeddings, section 6.1, Figure 1, Table 2",),
  page="order_embedding.md",
  config="configs/order_embedding.py",
  sets=(
    Set(
      "order",
      {
        "smoke": SMOKE,
        "cpu": _real("data.source=flickr8k,model.features=512", _FIVE),
        "gpu": _real("data.source=flickr8k", _FIVE),
        "paper": _real("data.source=coco", _FIVE),
      },
      ("norm=layer,none",),
    ),
  ),
  shown=(
    Shown(
      "Figure 1",
      ("order",),
      "R@1, 5 and 10 of image retrieval on validation over 90,000 updates:"
      " about 34 to 43, 71 to 78 and 84 to 90 %. The curve of layer norm lies"
      " above the other at every iteration.",
      x="updates",
      draw={"running_best": True, "columns": 3},
    ),
    Shown(
      "Table 2",
      ("order",),
      "MS-COCO, means over five folds of the test split, in percent.",
      numbers=(
        {
          "model": "order embeddings",
          "caption R@1": 46.6,
          "R@5": 79.3,
          "R@10": 89.1,
          "mean r": 5.2,
          "image R@1": 37.8,
          "R@5 ": 73.6,
          "R@10 ": 85.7,
          "mean r ": 7.9,
        },
        {
          "model": "with layer norm",
          "caption R@1": 48.5,
          "R@5": 80.6,
          "R@10": 89.8,
          "mean r": 5.1,
          "image R@1": 38.9,
          "R@5 ": 74.3,
          "R@10 ": 86.3,
          "mean r ": 7.6,
        },
      ),
      metrics=tuple(
        f"test/{side}_{name}"
        for side in ("caption", "image")
        for name in ("r1:max", "r5:max", "r10:max", "mean_rank")
      ),
      x="",
    ),
  ),
)

_READER_SYSTEMS = "norm+model.norm_everywhere"
_FOUR = "layer+false,batch+false,batch+true,none+false"
_READER_RATES = "optimizer.learning_rate=3e-4,1e-3,3e-3,1e-2"
_READER_CPU = "model.dropout=0.2,train_steps=2000,eval_every=100"
_READER = Task(
  title="Attentive reader",
  place="section 6.2, Figure 2",
  sections=("Attentive reader, section 6.2, Figure 2",),
  page="attentive_reader.md",
  config="configs/attentive_reader.py",
  sets=(
    Set(
      "reader",
      {
        "smoke": SMOKE,
        # Each system at the rate that the trials chose.
        "cpu": _real(
          _READER_CPU,
          _THREE,
          f"{_READER_SYSTEMS}+optimizer.learning_rate="
          "layer+false+3e-3,batch+false+1e-3,batch+true+1e-3,none+false+1e-3",
        ),
        "gpu": _real("data.source=cnn,train_steps=200000", (0,)),
        "paper": _real("data.source=cnn,train_steps=800000"),
      },
      (f"{_READER_SYSTEMS}={_FOUR}",),
    ),
    Set(
      "gain",
      {
        "cpu": _real(
          _READER_CPU,
          _THREE,
          "norm=layer",
          "model.norm_everywhere=false",
          "model.gain_init=0.1",
          "optimizer.learning_rate=1e-3,3e-3",
        ),
        "paper": _real("data.source=cnn,train_steps=800000"),
      },
      ("norm=layer", "model.norm_everywhere=false", "model.gain_init=0.1"),
      like="reader",
    ),
    Set(
      "rates",
      {
        # Batch norm's compile longest, and show nothing that these do not.
        "smoke": Plan(
          "smoke", (100,), (f"{_READER_SYSTEMS}=layer+false,none+false",)
        ),
        "cpu": Plan(_READER_CPU, (100,)),
      },
      (
        f"{_READER_SYSTEMS}={_FOUR}",
        _READER_RATES,
      ),
      TRIALS,
      like="reader",
    ),
    Set(
      "gain_rates",
      {"cpu": Plan(_READER_CPU, (100,))},
      (
        "norm=layer",
        "model.norm_everywhere=false",
        "model.gain_init=0.1",
        _READER_RATES,
      ),
      TRIALS,
      like="reader",
    ),
  ),
  shown=(
    Shown(
      "Figure 2",
      ("reader",),
      "Validation error over 800,000 updates on CNN. In words, layer norm's"
      " falls first and ends lowest; the paper gives no number. The LSTM leaves"
      " its plateau after some 200,000 updates and comes to 0.503, BN-LSTM to"
      " 0.495, BN-everywhere to 0.500 (by Cooijmans et al. 2016).",
      metrics=("validation/error", "train/nll:log"),
      x="updates",
      draw={"running_best": True},
    ),
  ),
)

_SKIP_CPU = (
  "data.source=novels,model.features=256,model.word_features=128,"
  "data.vocabulary=10000,batch_size=16"
)
_SKIP_SCORES = (
  "downstream/sick_pearson:max",
  "downstream/sick_mse",
  "downstream/mr:max",
  "downstream/cr:max",
  "downstream/subj:max",
  "downstream/mpqa:max",
)
_SKIP = Task(
  title="Skip-thoughts",
  place="section 6.3, Figure 3, Table 3",
  sections=("Skip-thoughts, section 6.3, Figure 3, Table 3",),
  page="skip_thoughts.md",
  config="configs/skip_thoughts.py",
  sets=(
    Set(
      "skip",
      {
        "smoke": SMOKE,
        "cpu": _real(
          f"{_SKIP_CPU},optimizer.learning_rate=4e-3,train_steps=5000,"
          "eval_every=250,checkpoint_every=500,checkpoints_kept_every=1000,"
          "eval_triples=500"
        ),
        "gpu": _real(
          "data.source=novels,train_steps=50000,checkpoints_kept_every=10000"
        ),
        "paper": _real("data.source=lines,checkpoints_kept_every=50000", (0,)),
      },
      ("norm=layer,none",),
    ),
    Set(
      "rates",
      {
        "cpu": Plan(
          f"{_SKIP_CPU},train_steps=500,eval_every=100,checkpoint_every=500,"
          "eval_triples=500",
          (100,),
        ),
      },
      ("norm=layer,none", "optimizer.learning_rate=1e-3,2e-3,4e-3,8e-3"),
      TRIALS,
      like="skip",
    ),
  ),
  shown=(
    Shown(
      "Learning",
      ("skip",),
      "No figure: the paper says that training is faster in updates at the"
      " same time for each.",
      metrics=("validation/nll",),
      x="updates",
    ),
    Shown(
      "Figure 3",
      ("skip",),
      "Pearson r and MSE on SICK, accuracies of MR, CR, SUBJ and MPQA at every"
      " 50,000th of a million updates. In words, layer norm speeds training up"
      " and ends better.",
      metrics=_SKIP_SCORES,
      x="updates",
      draw={"columns": 3},
    ),
    Shown(
      "Table 3",
      ("skip",),
      "After a million updates on BookCorpus; the last row after a month.",
      numbers=(
        {
          "model": "skip-thoughts",
          "SICK r": 0.842,
          "rho": 0.767,
          "MSE": 0.298,
          "MR": 77.3,
          "CR": 81.8,
          "SUBJ": 92.6,
          "MPQA": 87.9,
        },
        {
          "model": "with layer norm",
          "SICK r": 0.854,
          "rho": 0.785,
          "MSE": 0.277,
          "MR": 79.5,
          "CR": 82.6,
          "SUBJ": 93.4,
          "MPQA": 89.0,
        },
        {
          "model": "the same, a month",
          "SICK r": 0.858,
          "rho": 0.788,
          "MSE": 0.270,
          "MR": 79.4,
          "CR": 83.1,
          "SUBJ": 93.7,
          "MPQA": 89.3,
        },
      ),
      metrics=(
        _SKIP_SCORES[0],
        "downstream/sick_spearman:max",
        *_SKIP_SCORES[1:],
      ),
      x="",
    ),
  ),
  steps=(
    *(
      Step(
        name,
        ("-m", "experiments.downstream", "--workdir={run}", *more, *few),
        at=at,
        needs=("sick", "sentence_classification"),
      )
      for name, more in (("downstream", ()), ("untrained", ("--untrained",)))
      for at, few in ((("smoke",), ("--tasks=sick",)), (_REAL, ()))
    ),
    Step(
      "timings",
      (
        "{root}/scripts/benchmark.py",
        "skip_thoughts",
        "--contenders=lnrnn_none",
        "--rounds=5",
        "--out={out}/timings.json",
      ),
      at=_REAL,
      alone=True,
    ),
  ),
)

_DRAW = Task(
  title="DRAW",
  place="section 6.4, Figure 4",
  sections=("DRAW, section 6.4, Figure 4",),
  page="draw.md",
  config="configs/draw.py",
  sets=(
    Set(
      "draw",
      {
        "smoke": SMOKE,
        "cpu": _real("data.source=amat,epochs=5"),
        "gpu": _real("data.source=amat,epochs=100"),
        "paper": _real("data.source=amat"),
      },
      ("norm=layer,none",),
    ),
  ),
  shown=(
    Shown(
      "Figure 4",
      ("draw",),
      "The test bound over the first 100 epochs: the curve of layer norm falls"
      " almost twice as fast; after 200 epochs 82.09 nats with and 82.36"
      " without it.",
    ),
  ),
)

_HAND_FEW = (
  "data.source=iam_ondb,model.features=64,model.mixtures=5,eval_cases=100,"
  "sample_points=20"
)
_HAND_PLACE = "data.points+batch_size"
_HAND = Task(
  title="Handwriting",
  place="section 6.5, Figure 5",
  sections=("Handwriting, section 6.5, Figure 5",),
  page="handwriting.md",
  config="configs/handwriting.py",
  sets=(
    Set(
      "handwriting",
      {
        "smoke": SMOKE,
        "cpu": _real(
          "data.source=iam_ondb,train_steps=1500,eval_every=100,eval_cases=200",
          (0,),
        ),
        "gpu": _real("data.source=iam_ondb"),
        "paper": _real("data.source=iam_ondb,train_steps=200000"),
      },
      ("norm=layer,none",),
    ),
    # Of as many cases each.
    Set(
      "long",
      dict.fromkeys(_REAL, _real(f"{_HAND_FEW},train_steps=400,eval_every=20")),
      ("norm=layer,none", f"{_HAND_PLACE}=500+8,100+8"),
    ),
    Set(
      "single",
      dict.fromkeys(
        _REAL, _real(f"{_HAND_FEW},train_steps=3200,eval_every=160")
      ),
      ("norm=layer,none", f"{_HAND_PLACE}=500+1"),
    ),
    Set(
      "many",
      dict.fromkeys(_REAL, _real(f"{_HAND_FEW},train_steps=100,eval_every=5")),
      ("norm=layer,none", f"{_HAND_PLACE}=500+32"),
    ),
  ),
  shown=(
    Shown(
      "Figure 5",
      ("handwriting",),
      "Negative log-likelihood of 500 points, 0 down to -900 nats, over some"
      " 200,000 updates (logarithmic), training and test. Layer norm comes to a"
      " comparable likelihood much faster.",
      x="updates",
      draw={"logx": True},
    ),
    Shown(
      "Long sequences and small batches",
      ("long", "single", "many"),
      "No figure: in words, layer norm helps most with long sequences and"
      " small batches. Here three LSTMs of 64 units with 5 Gaussians, at equal"
      " numbers of cases.",
      metrics=("validation/nll",),
      x="epochs",
    ),
  ),
)

_CONV_CPU = "data.source=binary,data.train_cases=14400"
_CONV_WHOLE = "data.source=binary,model.widths=(96,192),model.depth=3"
_CONV_AT = {
  "smoke": SMOKE,
  "cpu": _real(_CONV_CPU),
  "gpu": _real(f"{_CONV_WHOLE},epochs=30"),
  "paper": _real(f"{_CONV_WHOLE},model.dropout=0.5,epochs=200"),
}
_CONV = Task(
  title="Convnets",
  place="section 6.7",
  sections=("Convnets, section 6.7",),
  page="convnet.md",
  config="configs/convnet.py",
  sets=(
    Set("convnet", _CONV_AT, ("norm=layer,batch,none",)),
    Set(
      "interior",
      _CONV_AT,
      ("norm=layer", "model.ln_border=1"),
      like="convnet",
    ),
    Set(
      "circular",
      _CONV_AT,
      ("norm=layer,batch", "model.padding=circular"),
      like="convnet",
    ),
    Set(
      "rates",
      {
        "smoke": Plan("smoke", (100,), ("norm=layer,batch,none",)),
        "cpu": Plan(f"{_CONV_CPU},epochs=5", (100,)),
      },
      (
        "norm=layer,batch,none",
        "optimizer.learning_rate=3e-4,1e-3,3e-3,1e-2",
      ),
      TRIALS,
      like="convnet",
    ),
  ),
  shown=(
    Shown(
      "Convnets",
      ("convnet",),
      "No figure, data or network: in words, layer norm is faster than no"
      " norm, and batch norm better than both.",
      draw={"last": 5},
    ),
    Shown(
      "Statistics of interior units",
      ("interior",),
      "In words: units near the border are rarely on, so that the statistics"
      " of a whole layer do not fit them. Here they are left out of the"
      " statistics; to be read beside layer norm above.",
      metrics=("test/error",),
      draw={"last": 5},
    ),
    Shown(
      "Circular padding",
      ("circular",),
      "Not in the paper: without a border there is no such unit. To be read"
      " beside the same norms above.",
      metrics=("test/error",),
      draw={"last": 5},
    ),
  ),
  steps=(
    Step(
      "border",
      ("-m", "experiments.border", "--workdir={runs}"),
    ),
  ),
)

_ANALYSIS = Task(
  title="Analysis",
  place="section 5, Table 1, supplement; section 3.1",
  sections=(
    "Analysis, section 5, Table 1 and the supplement",
    "Hidden dynamics of recurrent nets, sections 1, 3.1 and 7",
  ),
  page="analysis.md",
  steps=(
    Step(
      "analysis",
      ("-m", "experiments.analysis", "--workdir={out}", "--small"),
      at=("smoke",),
    ),
    Step(
      "analysis",
      ("-m", "experiments.analysis", "--workdir={out}"),
      at=_REAL,
    ),
  ),
  rules="",
)

_FORMS = "model.form=separate,sum,per_gate,cell,authors"
# Each form at the rate that the trials chose.
_FORMS_TUNED = (
  "model.form+optimizer.learning_rate=separate+3e-3,sum+3e-3,per_gate+3e-3,"
  "cell+1e-3,authors+3e-3"
)
_FORMS_READER = Task(
  title="Which form of layer norm: LSTM, attentive reader",
  place="beyond the paper",
  sections=("Beyond the paper: which form of layer norm",),
  page="forms.md",
  config="configs/attentive_reader.py",
  sets=(
    Set(
      "forms",
      {
        "smoke": SMOKE,
        "cpu": _real(_READER_CPU, _THREE, _FORMS_TUNED),
        "gpu": _real(_READER_CPU, _FIVE, _FORMS_TUNED),
        "paper": _real(_READER_CPU, _FIVE, _FORMS_TUNED),
      },
      (_FORMS,),
    ),
    Set(
      "rates",
      {scale: Plan(_READER_CPU, (100,)) for scale in _REAL},
      (_FORMS, _READER_RATES),
      TRIALS,
      like="forms",
    ),
  ),
  shown=(
    Shown(
      "Forms, LSTM",
      ("forms",),
      "Nothing: users have asked since 2016.",
      metrics=("validation/error",),
      x="updates",
      draw={"running_best": True},
    ),
  ),
  rules="forms",
)

_FORMS_ORDER = Task(
  title="Which form of layer norm: GRU, order embeddings",
  place="beyond the paper",
  sections=("Beyond the paper: which form of layer norm",),
  page="forms.md",
  config="configs/order_embedding.py",
  sets=(
    Set(
      "forms",
      {
        "smoke": SMOKE,
        "cpu": _real(
          "data.source=flickr8k,model.features=512,"
          "optimizer.learning_rate=4e-3,train_steps=400,eval_every=50,"
          "patience=0"
        ),
        "gpu": _real("data.source=flickr8k", _FIVE),
        "paper": _real("data.source=coco"),
      },
      (
        "norm+model.form=layer+separate,layer+sum,layer+per_gate,"
        "layer+authors,none+separate",
      ),
    ),
  ),
  shown=(
    Shown(
      "Forms, GRU",
      ("forms",),
      "Nothing: users have asked since 2016.",
      metrics=("validation/recall_sum:max",),
      x="updates",
      draw={"running_best": True},
    ),
  ),
  rules="forms",
)

# In the order of the report.
TASKS: dict[str, Task] = {
  "order_embedding": _ORDER,
  "attentive_reader": _READER,
  "skip_thoughts": _SKIP,
  "draw": _DRAW,
  "handwriting": _HAND,
  "mnist_mlp": _MNIST,
  "convnet": _CONV,
  "analysis": _ANALYSIS,
  "forms_lstm": _FORMS_READER,
  "forms_gru": _FORMS_ORDER,
}
