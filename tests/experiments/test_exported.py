"""Exported models of every task do what their runs do, by the folder alone."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import re
import shutil
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import attentive_reader, handwriting, launch, order_embedding
import lnrnn
from lnrnn import ranking
from lnrnn.data import cloze_examples, mnist, vocabulary
from lnrnn.training import loop
from lnrnn.training import step as step_lib

ONCE = "train_steps=1,eval_every=1,checkpoint_every=1"
# By task. Batch norm where its statistics are taken anew at each evaluation.
FIELDS = {
  "mnist_mlp": "norm=layer",
  "sequential_mnist": "norm=batch",
  "convnet": "norm=batch",
  "draw": "norm=layer",
  "handwriting": "norm=layer",
  "order_embedding": "norm=layer",
  "attentive_reader": "norm=batch",
  "skip_thoughts": "norm=layer",
}


class Run(NamedTuple):
  """A run, and the folder that its model was exported to."""

  workdir: pathlib.Path
  folder: pathlib.Path
  config: Any
  experiment: Any
  variables: Any

  @property
  def key(self) -> jax.Array:
    """Of its evaluation, as `evaluate` and the loop have it."""
    return jax.random.fold_in(step_lib.Keys.of(self.config.seed).eval, 1)

  def measured(self, split: str, variables: Any = None) -> dict[str, float]:
    """What the first evaluation finds on a split."""
    first = next(iter(self.experiment.evals.values()))
    return first.fn(variables or self.variables, split, self.key)


def decay(variables, batch, key):
  """A loss that compiles at once: what is exported is any state of a run."""
  del batch, key
  others = {k: v for k, v in variables.items() if k != "params"}
  squares = map(jnp.vdot, *[jax.tree.leaves(variables["params"])] * 2)
  return sum(squares), (others, {})


@pytest.fixture(scope="module")
def run_of(repo, tmp_path_factory):
  """(task, fields) -> its run; what was built once is kept for all tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(repo / "scripts"))
    script = importlib.import_module("export")
    for task in FIELDS:
      module = importlib.import_module(f"experiments.{task}")
      patch.setattr(module, "build", _kept(module.build))

    @functools.cache
    def run(task: str, fields: str = "") -> Run:
      place = tmp_path_factory.mktemp(task)
      workdir, folder = place / "run", place / "model"
      spec = f"{repo}/configs/{task}.py:smoke,{fields or FIELDS[task]},{ONCE}"
      config = launch.load(spec)
      module = launch.task(config)
      experiment = module.build(config)
      quick = dataclasses.replace(experiment, loss=decay, evals={})
      with pytest.MonkeyPatch.context() as training:
        training.setattr(module, "build", lambda config: quick)
        launch.train(spec, workdir)
      assert script.main([str(workdir), str(folder)]) == 0
      state = loop.restore(config, experiment, workdir, "latest")
      return Run(workdir, folder, config, experiment, state.variables)

    yield run
    for name in ("export", "export_card", "export_usage"):
      sys.modules.pop(name, None)


def _kept(build):
  found = {}

  def of(config):
    key = config.to_json()
    if key not in found:
      found[key] = build(config)
    return found[key]

  return of


@pytest.fixture(scope="module")
def card():
  """Runs the lines of a card: (run, name=its value instead) -> all names."""
  as_they_stand: dict[pathlib.Path, dict[str, Any]] = {}

  def execute(run: Run, **given: Any) -> dict[str, Any]:
    if not given and run.folder in as_they_stand:
      return as_they_stand[run.folder]
    text = (run.folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name in given:
      line = rf"(?m)^{name} = .*$"
      code, n = re.subn(line, f"{name} = given['{name}']", code)
      assert n == 1, f"the card sets {name} {n} times"
    printed = io.StringIO()
    names = {"given": given, "printed": printed}
    with pytest.MonkeyPatch.context() as patch:
      patch.chdir(run.folder.parent)
      for name in ("experiments", "configs"):
        patch.setitem(sys.modules, name, None)  # Cannot be imported.
      with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    if not given:
      as_they_stand[run.folder] = names
    return names

  return execute


@pytest.mark.parametrize("task", FIELDS)
def test_the_lines_of_each_card_run_as_they_stand(task, run_of, card):
  run = run_of(task)
  names = card(run)
  assert names["printed"].getvalue() or task == "handwriting"
  pictures = {"draw": ["drawn.png"], "handwriting": ["written.png"]}
  made = [path.name for path in run.folder.parent.glob("*.png")]
  assert made == pictures.get(task, [])
  found = lnrnn.load_exported(run.folder)
  assert found.model == run.experiment.model
  assert found.assets == run.experiment.assets
  assert found.variables.keys() == run.variables.keys()
  for name in found.variables.keys() - {"batch_stats"}:
    both = found.variables[name], run.variables[name]
    jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.parametrize("task", ["mnist_mlp", "sequential_mnist", "convnet"])
def test_a_classifier_errs_by_its_card_as_its_run_does(task, run_of, card):
  run = run_of(task)
  split = mnist.load("embedded").splits["test"]
  images = split.images[..., None] if task == "convnet" else split.images
  logits = np.asarray(card(run, images=images)["logits"])
  error = float((logits.argmax(axis=-1) != split.labels).mean())
  assert error == run.measured("test")["error"]


@pytest.mark.parametrize("task", ["sequential_mnist", "convnet"])
def test_batch_norm_is_exported_as_it_is_evaluated(task, run_of):
  """By statistics of the parameters at hand, not by averages of training."""
  run = run_of(task)
  variables = lnrnn.load_exported(run.folder).variables
  own = run.measured("validation")
  # "running_": by what the variables hold.
  found = run.measured("validation", variables)
  for name in ("nll", "error"):
    assert found[f"running_{name}"] == own[name]
  assert own["running_nll"] != own["nll"]


def test_a_reader_is_exported_as_it_is_evaluated(run_of):
  run = run_of("attentive_reader")
  reader = run.experiment.evals["reader"].fn.__self__
  wanted = reader.at_test(run.variables, run.key)["batch_stats"]
  found = lnrnn.load_exported(run.folder).variables["batch_stats"]
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  kept = run.variables["batch_stats"]
  assert not jax.tree.all(jax.tree.map(np.array_equal, found, kept))


def test_drawings_and_their_bound_are_those_of_the_run(run_of, card):
  run = run_of("draw")
  names = card(run)
  drawn, key = names["drawn"], names["key"]
  use = functools.partial(run.experiment.model.apply, run.variables)
  wanted = use(key, 16, method="generate").canvas[-1]
  np.testing.assert_allclose(drawn, wanted, rtol=1e-5)
  bound = names["use"](names["found"].variables, names["images"], key).bound
  np.testing.assert_allclose(bound, use(names["images"], key).bound, rtol=1e-5)


def test_handwriting_needs_the_folder_alone(
  run_of, card, program, tmp_path, monkeypatch
):
  """The alphabet, the units and what is drawn are those of the run."""
  run = run_of("handwriting")
  line = card(run)["line"]
  assert len(line)

  def points(flag, folder):
    out = tmp_path / flag
    done = program(
      "sample", f"--{flag}={folder}", "--text=Layer norm", f"--out={out}"
    )
    assert done.code == 0, done.err
    (path,) = out.glob("*.npy")
    return np.load(path)

  np.testing.assert_allclose(points("workdir", run.workdir), line, rtol=1e-4)
  monkeypatch.setattr(handwriting, "load_data", None)
  np.testing.assert_allclose(points("exported", run.folder), line, rtol=1e-4)


def test_the_card_of_a_prediction_network_gives_it_no_text(run_of, card):
  names = card(run_of("handwriting", "norm=layer,model.window=0"))
  assert names["written"].attention is None and len(names["line"])


def test_captions_and_images_are_placed_and_ranked_as_in_the_run(run_of, card):
  run = run_of("order_embedding")
  held = order_embedding.load_data(run.config).splits["validation"]
  n = run.config.eval_images
  names = card(
    run,
    captions=held.captions[: len(held.captions) // len(held.names) * n],
    features=np.asarray(held.features[:n], np.float32),
  )
  errors = names["errors"](names["images"], names["placed"])
  found = ranking.summary(ranking.ranks(errors))
  assert found == pytest.approx(run.measured("validation"))


def test_a_question_is_answered_as_in_the_run(run_of, card):
  run = run_of("attentive_reader")
  data = attentive_reader.load_data(run.config)
  reader = run.experiment.evals["reader"].fn.__self__
  # As many as are evaluated: nothing is compiled anew.
  examples = cloze_examples.chosen(
    data.splits["validation"], run.config.eval_examples
  )
  variables = lnrnn.load_exported(run.folder).variables
  wanted = reader.answer(variables, examples)
  words = [*vocabulary.SPECIAL, *data.vocabulary.words]
  texts = {}
  for name in ("passage", "query"):
    held = {"passage": examples.passages, "query": examples.queries}[name]
    texts[name] = " ".join(words[i] for i in held.tokens[: held.lengths[0]])
  read = card(run, **texts)["read"]
  assert int(read.logits.argmax()) == wanted["word"][0]
  nats = -jax.nn.log_softmax(read.logits[0])[examples.answers[0]]
  assert nats == pytest.approx(wanted["nll"][0], rel=1e-4)


def test_sentences_are_encoded_as_in_the_run(run_of, card):
  run = run_of("skip_thoughts")
  sentences = ["The cat sat.", "A qwertz sat."]
  names = card(run, sentences=sentences)
  own = lnrnn.SkipThoughtEncoder.of(
    run.experiment.model, run.variables, run.experiment.assets
  )
  np.testing.assert_allclose(names["vectors"], own.encode(sentences), rtol=1e-4)
  assert names["encoder"].unknown(["qwertz qwertz"]) == 1.0


@pytest.mark.parametrize("task", ["mnist_mlp", "convnet"])
def test_evaluate_gives_the_same_numbers_of_both_folders(task, run_of, program):
  run = run_of(task)
  found = []
  for given in (f"--workdir={run.workdir}", f"--exported={run.folder}"):
    done = program("evaluate", given, "--split=validation")
    assert done.code == 0, done.err
    found.append(json.loads(done.out))
  of_run, of_folder = found
  assert of_run.keys() == of_folder.keys()
  # The averages kept in training are not in the folder.
  kept = {name for name in of_run if "running_" in name}
  for name in of_run.keys() - kept:
    assert of_run[name] == of_folder[name], name


def test_evaluate_looks_into_an_exported_model(run_of, program):
  run = run_of("order_embedding")
  ask = ("--caption=a red square", "--split=validation", "--top=3")
  first, second = (
    program("evaluate", given, *ask).out
    for given in (f"--workdir={run.workdir}", f"--exported={run.folder}")
  )
  assert first == second and len(first.splitlines()) == 4


@pytest.mark.parametrize(
  ("path", "value", "part"),
  [
    (("fingerprint",), "0" * 16, "was trained on other data"),
    (("config", "model", "eps"), 0.5, "its run's config makes now"),
    (("config", "experiment"), "mnist_mpl", "did you mean 'mnist_mlp'"),
  ],
)
def test_another_record_than_the_model_s_is_refused(
  run_of, program, tmp_path, path, value, part
):
  run = run_of("mnist_mlp")
  folder = tmp_path / "model"
  shutil.copytree(run.folder, folder)
  file = folder / "config.json"
  tree = json.loads(file.read_text(encoding="utf-8"))
  at = functools.reduce(dict.__getitem__, path[:-1], tree["run"])
  at[path[-1]] = value
  file.write_text(json.dumps(tree), encoding="utf-8")
  done = program("evaluate", f"--exported={folder}")
  (line,) = done.lines
  assert done.code == 2 and part in line


@pytest.mark.parametrize("name", ["evaluate", "sample"])
@pytest.mark.parametrize(
  ("arguments", "part"),
  [
    ([], "either --workdir or --exported is needed"),
    (["--workdir=a", "--exported=a"], "either --workdir or --exported"),
    (["--exported=nowhere"], "nowhere: no such folder"),
    (["--exported=nowhere", "--checkpoint=best"], "--checkpoint: goes with"),
  ],
)
def test_a_wrong_flag_is_told_in_one_line(name, program, arguments, part):
  more = ["--text=a"] if name == "sample" else []
  done = program(name, *arguments, *more)
  (line,) = done.lines
  assert done.code == 2 and part in line


def test_only_handwriting_is_sampled(run_of, program):
  run = run_of("mnist_mlp")
  done = program("sample", f"--exported={run.folder}", "--text=a")
  (line,) = done.lines
  assert line.startswith(f"--exported={run.folder}: holds a MLP; sampling")


def test_a_real_line_to_go_on_from_is_of_the_same_data(
  run_of, program, monkeypatch
):
  run = run_of("handwriting")
  data = handwriting.load_data(run.config)
  other = data._replace(fingerprint="0" * 16)
  monkeypatch.setattr(handwriting, "load_data", lambda config: other)
  given = (f"--exported={run.folder}", "--text=a", "--prime=any")
  (line,) = program("sample", *given).lines
  assert "was trained on other data" in line
