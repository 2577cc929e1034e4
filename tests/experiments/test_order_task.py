"""What order embeddings refuse, measure and find, on a few scenes."""

import importlib
import json

import caption_files
import jax
import numpy as np
import pytest
import references_order as reference

from experiments import launch, order_embedding
from lnrnn import export, ranking
from lnrnn.data import scenes, vocabulary
from lnrnn.errors import ConfigError, DataError
from lnrnn.training import config as config_lib
from lnrnn.training import writers

SMALL = "smoke,eval_images=0"


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
  """The embedded data is a handful of scenes."""
  with pytest.MonkeyPatch.context() as patch:
    sizes = {"train": 24, "validation": 10, "test": 12}
    patch.setattr(scenes, "SIZES", sizes)
    yield


@pytest.fixture(scope="module")
def path(repo):
  return f"{repo}/configs/order_embedding.py"


@pytest.fixture(scope="module")
def built(path):
  """(arguments) -> (config, experiment, its first variables)."""

  def build(arguments=""):
    config = launch.load(f"{path}:{SMALL},{arguments}")
    experiment = order_embedding.build(config)
    batch = experiment.train_data[0]
    init = jax.jit(lambda key: experiment.init(key, batch))
    return config, experiment, init(jax.random.key(0))

  return build


# --- The config ---


@pytest.mark.parametrize("source", ["flickr8k", "coco", "coco_ids", "tfds"])
def test_the_authors_settings_are_the_default_on_photographs(path, source):
  config = config_lib.load_config(f"{path}:data.source={source}")
  assert (config.model.features, config.model.word_features) == (1024, 300)
  assert (config.model.loss, config.model.margin) == ("order", 0.05)
  assert (config.batch_size, config.optimizer.name) == (128, "adam")
  assert config.optimizer.learning_rate == 1e-3
  assert (config.optimizer.clip, config.optimizer.clip_per_tensor) == (0, 2)
  coco = source != "flickr8k"
  assert config.eval_every == (300 if coco else 25)
  assert config.eval_folds == (5 if coco else 1)
  assert config.patience == (0 if coco else 10)
  assert config.train_steps == 100 * (885 if coco else 46)
  assert config.best == "validation/recall_sum:max"


def test_the_symmetric_baseline_has_its_own_margin(path):
  config = config_lib.load_config(f"{path}:model.loss=cosine")
  assert config.model.margin == 0.2
  config = config_lib.load_config(f"{path}:model.loss=cosine,model.margin=0.1")
  assert config.model.margin == 0.1


def test_the_sweep_holds_configs_that_can_be_run(path):
  from configs import order_embedding as config_file

  assert len(config_file.sweep()) == 10
  for arguments in config_file.sweep():
    assert launch.load(f"{path}:{arguments},data.source=flickr8k")


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ("norm=layers", "norm='layers'"),
    ("data.source=flickr", "data.source='flickr'"),
    ("model.loss=oder", "model.loss='oder': must be one of order, cosine"),
    ("model.form=cell", "model.form='cell': a GRU has no form cell"),
    ("model.features=1", "model.features=1"),
    ("model.margin=0", "model.margin=0.0"),
    ("batch_size=1", "batch_size=1: must be at least 2"),
    ("accumulate=2", "accumulate=2: must be 1: all pairs"),
    ("data.max_words=0", "data.max_words=0"),
    ("data.multiple=0", "data.multiple=0"),
    ("eval_folds=0", "eval_folds=0"),
    ("eval_images=-1", "eval_images=-1"),
    ("best=test/recall_sum:max", "best='test/recall_sum:max'"),
    ("best=validation/r1:max", "best='validation/r1:max'"),
    ("best=,patience=3", "patience=3: needs best"),
  ],
)
def test_a_fault_of_the_config_is_one_line(path, arguments, told):
  with pytest.raises(ConfigError) as caught:
    launch.load(f"{path}:{arguments}")
  (line,) = caught.value.faults
  assert line.startswith(told)


def test_folds_have_to_be_equal(built):
  with pytest.raises(ConfigError, match="eval_folds=5: must divide the 12"):
    built("eval_folds=5")


# --- What is measured ---


def _placed(config, experiment, variables, split):
  """Images and captions of a split, by NumPy in float64."""
  data = order_embedding.load_data(config)
  params = jax.tree.map(np.float64, variables["params"])
  held, sentences = data.splits[split], data.sentences[split]
  features = held.features / np.linalg.norm(held.features, axis=1)[:, None]
  words = sentences.padded(np.arange(len(held.captions)), 70)
  return (
    reference.images(params, features),
    reference.sentences(
      params, words, sentences.lengths, "layer", "separate", 1e-5
    ),
  )


def test_the_loss_is_over_all_wrong_pairs_of_a_batch(built):
  config, experiment, variables = built()
  batch = experiment.train_data[1]
  params = jax.tree.map(np.float64, variables["params"])
  images = reference.images(params, batch["image"])
  captions = reference.sentences(
    params, batch["words"], batch["length"], "layer", "separate", 1e-5
  )
  errors = reference.errors("order", images, captions)
  value, (_, metrics) = jax.jit(experiment.loss)(
    variables, batch, jax.random.key(0)
  )
  expected = reference.hinge(errors, config.model.margin)
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  np.testing.assert_allclose(
    metrics["right"], np.diag(errors).mean(), rtol=1e-4
  )


@pytest.mark.parametrize("size", [7, 50, 250])
def test_an_evaluation_is_over_all_images_and_captions(built, size):
  config, experiment, variables = built(f"eval_batch_size={size}")
  found = experiment.evals["retrieval"].fn(
    variables, "validation", jax.random.key(0)
  )
  placed = _placed(config, experiment, variables, "validation")
  image, caption = reference.ranks(reference.errors("order", *placed))
  assert found["image_mean_rank"] == pytest.approx(image.mean(), rel=1e-6)
  assert found["caption_mean_rank"] == pytest.approx(caption.mean(), rel=1e-6)
  assert found["image_r5"] == pytest.approx(100 * (image <= 5).mean())


def test_the_first_images_are_validated_on_and_all_are_tested_on(built):
  config, experiment, variables = built("eval_images=4,eval_folds=3")
  evals = experiment.evals
  key = jax.random.key(0)
  few = evals["retrieval"].fn(variables, "validation", key)
  images, captions = _placed(config, experiment, variables, "validation")
  errors = reference.errors("order", images[:4], captions[:20])
  assert few["image_mean_rank"] == pytest.approx(
    reference.ranks(errors)[0].mean(), rel=1e-6
  )
  found = evals["test"].fn(variables, "test", key)
  placed = _placed(config, experiment, variables, "test")
  errors = reference.errors("order", *placed)
  assert found["image_mean_rank"] == pytest.approx(
    reference.ranks(errors)[0].mean(), rel=1e-6
  )
  folds = ranking.folds(errors, 3)
  assert found["fold_image_mean_rank"] == pytest.approx(
    folds["image_mean_rank"], rel=1e-6
  )


def test_the_test_split_is_looked_at_once_at_the_best_state(trained):
  rows = writers.read_metrics(trained)
  assert [r["step"] for r in rows if "validation/recall_sum" in r] == [2, 4]
  assert [r["step"] for r in rows if "test/recall_sum" in r] == [4]


def test_norms_of_another_kind_train(path, tmp_path):
  for norm in ("batch", "weight"):  # The others are in tests/models.
    folder = tmp_path / norm
    launch.train(f"{path}:{SMALL},norm={norm},train_steps=2", folder)
    last = writers.read_metrics(folder)[-1]
    assert np.isfinite(last["validation/recall_sum"])


def test_a_few_updates_learn_more_than_chance(path, tmp_path, monkeypatch):
  sizes = {"train": 300, "validation": 40, "test": 40}
  monkeypatch.setattr(scenes, "SIZES", sizes)
  spec = f"{path}:smoke,train_steps=100,eval_every=100,batch_size=32"
  spec += ",model.features=32,model.word_features=16,eval_images=0"
  spec += ",data.multiple=32,steps_per_dispatch=10"
  launch.train(f"{spec},optimizer.learning_rate=1e-2", tmp_path)
  rows = writers.read_metrics(tmp_path)
  losses = [row["loss"] for row in rows if "loss" in row]
  assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])
  # Chance is 20.5.
  assert rows[-1]["validation/image_mean_rank"] < 14


def test_flickr8k_trains(path, tmp_path):
  place = caption_files.write_flickr8k(tmp_path / "flickr8k")
  spec = f"{path}:{SMALL},data.source=flickr8k,data.dir={place},batch_size=4"
  launch.train(spec, tmp_path / "run")
  record = json.loads((tmp_path / "run" / "config.json").read_text())
  assert "a substitute for the paper's MS-COCO" in record["data"]


# --- The programs ---


@pytest.fixture(scope="module")
def trained(path, tmp_path_factory):
  """A workdir of a run of four updates."""
  folder = tmp_path_factory.mktemp("run") / "run"
  launch.train(f"{path}:{SMALL}", folder)
  return folder


def test_a_run_resumes_by_the_bit(path, tmp_path, trained):
  launch.train(f"{path}:{SMALL},train_steps=2", tmp_path)
  launch.train(f"{path}:{SMALL}", tmp_path)
  losses = lambda f: [r["loss"] for r in writers.read_metrics(f) if "loss" in r]
  assert losses(tmp_path) == losses(trained)


def test_evaluate_repeats_what_training_measured(trained, program):
  result = program(
    "evaluate", f"--workdir={trained}", "--split=test", "--checkpoint=best"
  )
  assert result.code == 0, result.err
  found = json.loads(result.out)
  last = writers.read_metrics(trained)[-1]
  assert found["test/recall_sum"] == pytest.approx(last["test/recall_sum"])


def test_captions_are_found_for_an_image(trained, program):
  result = program(
    "evaluate", f"--workdir={trained}", "--image=test-0003", "--top=60"
  )
  assert result.code == 0, result.err
  head, *lines = result.out.splitlines()
  assert head == "captions for test-0003 (* its own):"
  assert len(lines) == 60 and sum(" * " in line for line in lines) == 5
  errors = [float(line.split()[0]) for line in lines]
  assert errors == sorted(errors)


def test_images_are_found_for_a_caption(trained, program):
  result = program(
    "evaluate",
    f"--workdir={trained}",
    "--split=validation",
    "--caption=A small red zebra .",
    "--top=3",
  )
  assert result.code == 0, result.err
  head, *lines = result.out.splitlines()
  assert "(unknown: zebra)" in head and len(lines) == 3
  assert all("validation-00" in line for line in lines)


@pytest.mark.parametrize(
  ("argument", "told"),
  [
    ("--image=test-9999", "--image='test-9999': the test split has no such"),
    ("--caption=.", "--caption='.': has 0 words; 1 to 60 are read"),
    (f"--caption={'dog ' * 61}", "has 61 words; 1 to 60 are read"),
    ("--top=0", "top"),
    ("--split=dev", "--split='dev': must be one of test, validation"),
  ],
)
def test_a_wrong_question_is_answered_in_one_line(
  trained, program, argument, told
):
  result = program("evaluate", f"--workdir={trained}", argument)
  assert result.code == 2
  (line,) = result.lines
  assert told in line


def test_questions_are_for_images_and_captions(
  program, spec, few_digits, tmp_path
):
  launch.train(spec, tmp_path / "mnist")
  result = program("evaluate", f"--workdir={tmp_path / 'mnist'}", "--image=a")
  assert result.code == 2 and "is a run of mnist_mlp" in result.lines[0]


def test_a_fault_of_the_data_is_one_line_before_anything_is_compiled(
  path, program, tmp_path
):
  place = caption_files.write_flickr8k(tmp_path / "flickr8k")
  text = (place / "Flickr8k.token.txt").read_text()
  (place / "Flickr8k.token.txt").write_text(text.replace("#4\t", "#5\t", 1))
  result = program(
    "train",
    f"--config={path}:{SMALL},data.source=flickr8k,data.dir={place}",
    f"--workdir={tmp_path / 'run'}",
  )
  assert result.code == 2 and "line 5: must read" in result.lines[0]
  assert not (tmp_path / "run").exists()


def test_an_exported_model_has_its_words(trained, tmp_path, repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  script = importlib.import_module("export")
  assert script.main([str(trained), str(tmp_path / "out")]) == 0
  found = export.load(tmp_path / "out")
  words = vocabulary.Vocabulary(tuple(found.assets["vocabulary"]))
  data = order_embedding.load_data(launch.config_of(trained))
  assert words == data.vocabulary
  sentence = np.array([words.encode(["a", "dog"])])
  placed = jax.jit(
    lambda variables: found.model.apply(
      variables, sentence, np.array([3]), method="sentences"
    )
  )(found.variables)
  assert placed.shape == (1, 8)


def test_data_of_another_width_than_the_run_s_is_refused(
  path, program, tmp_path
):
  place = caption_files.write_flickr8k(tmp_path / "flickr8k")
  spec = f"{path}:{SMALL},data.source=flickr8k,data.dir={place},batch_size=4"
  launch.train(spec, tmp_path / "run")
  np.save(place / "features.npy", np.ones((18, 9), np.float32))
  result = program("evaluate", f"--workdir={tmp_path / 'run'}")
  assert result.code == 2 and "trained on other data" in result.lines[0]
  with pytest.raises(DataError):
    (place / "features.npy").write_bytes(b"no array")
    order_embedding.load_data(launch.config_of(tmp_path / "run"))
