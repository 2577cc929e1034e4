"""Images with captions: from each source, the faults of each, and batches."""

import collections
import json

import caption_files
import numpy as np
import pytest

from lnrnn.data import captions, flickr8k, image_captions, scenes, vocabulary
from lnrnn.data.draws import Draws
from lnrnn.data.image_captions import CAPTIONS, CaptionBatches, Split, unit
from lnrnn.data.text_files import NAMES_FILE
from lnrnn.errors import ConfigError, DataError

WRITE = {
  "flickr8k": caption_files.write_flickr8k,
  "coco": caption_files.write_coco,
  "coco_ids": caption_files.write_coco_ids,
}


@pytest.fixture
def folder(tmp_path):
  """(source, ...) -> a folder with a few images in its files."""
  return lambda source, *style: WRITE[source](tmp_path / source, *style)


# --- What is read ---


@pytest.mark.parametrize(
  ("source", "style"),
  [("flickr8k", ()), ("coco", ()), ("coco", ("flat",)), ("coco_ids", ())],
)
def test_every_source_gives_the_same_images_and_captions(folder, source, style):
  data = captions.load(source, folder(source, *style))
  assert tuple(data.splits) == image_captions.SPLITS
  for split, held in data.splits.items():
    names = caption_files.names(split)
    assert len(held.names) == len(names)
    assert list(held.captions) == [
      text for image in names for text in caption_files.captions(image)
    ]
    if source != "coco":
      assert list(held.names) == names
    assert held.features.shape == (len(names), caption_files.WIDTH)
  # Words of train and validation are known, "test" is not.
  assert "test" not in data.vocabulary.words
  assert "validation" in data.vocabulary.words
  assert data.sentences["train"].unknown == 0
  assert data.sentences["test"].unknown == 5 * caption_files.SIZES["test"]
  assert "words of test unknown" in data.description


def test_features_are_found_by_the_names_of_their_rows(folder):
  place = folder("flickr8k")
  rows = (place / NAMES_FILE).read_text().split()
  matrix = np.load(place / "features.npy")
  held = captions.load("flickr8k", place).splits["validation"]
  for name, found in zip(held.names, held.features, strict=True):
    np.testing.assert_array_equal(found, matrix[rows.index(name)])


def test_rows_of_captions_become_rows_of_images(folder):
  data = captions.load("coco", folder("coco", "flat"))
  for split, n in caption_files.SIZES.items():
    expected = caption_files.features(n)
    np.testing.assert_array_equal(data.splits[split].features, expected)


def test_what_is_left_out_is_told(folder):
  told = captions.load("flickr8k", folder("flickr8k")).description
  assert "5 captions have no image" in told
  told = captions.load("coco_ids", folder("coco_ids")).description
  assert "17 captions beyond 5 of an image are left out" in told


def test_long_captions_are_cut_and_counted(folder):
  data = captions.load("flickr8k", folder("flickr8k"), max_words=3)
  assert data.sentences["train"].lengths.max() == 4
  assert "captions cut to 3 words" in data.description


def test_the_description_says_whose_data_it_is(folder):
  told = captions.load("flickr8k", folder("flickr8k")).description
  assert "a substitute for the paper's MS-COCO" in told
  told = captions.load("coco", folder("coco")).description
  assert "not all of the paper's images" in told
  assert "no photographs" in captions.load().description


def test_the_fingerprint_is_of_features_and_captions(folder):
  place = folder("coco")
  before = captions.load("coco", place).fingerprint
  assert captions.load("coco", place).fingerprint == before
  path = place / "captions" / "raw" / "dev.txt"
  path.write_text(path.read_text().replace("a cat", "a cow", 1))
  after = captions.load("coco", place).fingerprint
  assert after != before
  path = place / "images" / "10crop" / "test.npy"
  np.save(path, np.load(path) + np.float16(0.5))
  assert captions.load("coco", place).fingerprint not in (before, after)


def test_the_real_flickr8k_is_whole(data_dir):
  data = captions.load("flickr8k", data_dir / "flickr8k")
  sizes = {name: len(split.names) for name, split in data.splits.items()}
  assert sizes == {"train": 6000, "validation": 1000, "test": 1000}
  assert data.width == 1280 and len(data.vocabulary) == 7925
  held = data.splits["test"]
  assert held.names[0] == "3385593926_d3e9c21170.jpg"
  assert len(held.captions) == 5000
  assert data.sentences["train"].lengths.max() <= 40


def test_the_real_captions_of_coco_are_read(data_dir, tmp_path):
  """The authors' test captions, with features that are made up."""
  place = data_dir / "coco"
  for part, n in (("dev", 1000), ("testall", 5000)):
    text = (place / f"{part}_caps.txt").read_bytes()
    (tmp_path / f"{part}_caps.txt").write_bytes(text)
    np.save(tmp_path / f"{part}_ims.npy", np.ones((n, 2), np.float16))
  for name in ("caps.txt", "ims.npy"):  # There are none of train.
    data = (tmp_path / f"dev_{name}").read_bytes()
    (tmp_path / f"train_{name}").write_bytes(data)
  found = captions.load("coco", tmp_path)
  assert len(found.splits["test"].captions) == 25_000
  assert 0 < found.sentences["test"].unknown < 40_000


# --- What is refused, in one line that says where ---


def _refused(source, place, **more):
  with pytest.raises((DataError, ConfigError)) as caught:
    captions.load(source, place, **more)
  message = str(caught.value)
  assert "\n" not in message
  return message


def _edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
  ("name", "old", "new", "told"),
  [
    ("Flickr8k.token.txt", "train_3.jpg#2", "train_3.jpg#1", "is there twice"),
    (
      "Flickr8k.token.txt",
      "train_0.jpg#0\t",
      "train_0.jpg 0 ",
      "line 1: must read image.jpg#0 (to #4), a tab and the caption",
    ),
    ("Flickr8k.token.txt", "#3\t", "#7\t", "line 4: must read"),
    (
      "Flickr8k.token.txt",
      "a cat train 0",
      "",
      "line 2: must read image.jpg#0 (to #4), a tab and the caption",
    ),
    (
      "Flickr8k.token.txt",
      "a cat test 1",
      ". !",
      "caption 1 of image 'test_1.jpg' has no word: '. !'",
    ),
    ("Flickr8k.token.txt", "train_2.jpg#4", "x.jpg#4", "has 4 captions; 5"),
    (
      "Flickr_8k.devImages.txt",
      "validation_1",
      "train_1",
      "image 'train_1.jpg' is in train and in validation",
    ),
    ("Flickr_8k.testImages.txt", "test_1", "test_0", "is in test twice"),
    ("Flickr_8k.testImages.txt", "test_2.jpg", "nix.jpg", "has 0 captions"),
    ("Flickr_8k.testImages.txt", "test_2.jpg\n", "\n", "line 3: is empty"),
    (NAMES_FILE, "test_1.jpg", "other.jpg", "no row for image 'test_1.jpg'"),
    (NAMES_FILE, "test_1.jpg", "test_2.jpg", "'test_2.jpg' is there twice"),
    (NAMES_FILE, "test_1.jpg\n", "", "names 17 rows"),
  ],
)
def test_a_fault_of_flickr8k_is_told(folder, name, old, new, told):
  place = folder("flickr8k")
  _edit(place / name, old, new)
  message = _refused("flickr8k", place)
  assert told in message and "flickr8k" in message


def test_a_text_that_is_no_utf_8_is_told_with_its_line(folder):
  place = folder("flickr8k")
  path = place / flickr8k.CAPTION_FILE
  path.write_bytes(path.read_bytes().replace(b"red grass", b"red gr\xe4ss", 1))
  assert f"{path}, line 4: is not UTF-8" in _refused("flickr8k", place)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_told_with_their_image(folder, bad):
  place = folder("flickr8k")
  matrix = np.load(place / "features.npy")
  row = (place / NAMES_FILE).read_text().split().index("train_4.jpg")
  matrix[row, 2] = bad
  np.save(place / "features.npy", matrix)
  message = _refused("flickr8k", place)
  assert "features of image 'train_4.jpg' (row 4) are not all finite" in message


def test_which_features_has_to_be_said_where_there_are_several(folder):
  place = folder("flickr8k")
  np.save(place / "others.npy", caption_files.features(18))
  message = _refused("flickr8k", place)
  assert "features.npy, others.npy. Name one by data.features" in message
  assert captions.load("flickr8k", place, features="others.npy")
  (place / "others.npy").unlink()
  (place / "features.npy").unlink()
  assert "there are: none" in _refused("flickr8k", place)


def test_features_of_another_kind_are_refused(folder):
  place = folder("flickr8k")
  for wrong, told in (
    (np.zeros((18, 6), np.int64), "features are int64 [8, 6]"),
    (np.zeros(18, np.float32), "has shape [18]"),
    (np.zeros((18, 0), np.float32), "features are float32 [8, 0]"),
    (np.full((18, 6), 1e300), "are not all finite"),
    (np.array([{}] * 18, object), "Python objects"),
  ):
    np.save(place / "features.npy", wrong)
    assert told in _refused("flickr8k", place)


def test_captions_and_features_of_coco_have_to_agree(folder):
  place = folder("coco")
  path = place / "captions" / "raw" / "train.txt"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join(lines[:-1]))
  message = _refused("coco", place)
  assert "has 39 captions, not 5 for each image" in message
  path.write_text("".join(lines[:-5]))
  message = _refused("coco", place)
  assert "has shape [8, 6]" in message and "captions of 7 images" in message
  path.unlink()
  assert "has none of captions/*/train.txt" in _refused("coco", place)


def test_splits_of_several_widths_are_refused(folder):
  place = folder("coco")
  np.save(place / "images" / "10crop" / "dev.npy", np.ones((4, 5)))
  assert "features of several widths" in _refused("coco", place)


def test_several_kinds_of_features_of_coco_have_to_be_named(folder):
  place = folder("coco")
  (place / "images" / "1crop").mkdir()
  np.save(place / "images" / "1crop" / "train.npy", np.ones((8, 6)))
  message = _refused("coco", place)
  assert "images/10crop/train.npy" in message and "data.features" in message
  assert captions.load("coco", place, features="10crop")
  for wrong in ("*", "vgg", "[", ".."):
    message = _refused("coco", place, features=wrong)
    assert f"no such file (data.features={wrong!r})" in message


def test_rows_of_one_image_that_differ_are_refused(folder):
  place = folder("coco", "flat")
  rows = np.load(place / "train_ims.npy")
  rows[4] += 1
  np.save(place / "train_ims.npy", rows)
  assert "5 rows of one image differ" in _refused("coco", place)


def test_faults_of_ids_are_told(folder):
  place = folder("coco_ids")
  ids = np.load(place / "coco_dev_ids.npy")
  np.save(place / "coco_dev_ids.npy", ids + 1)
  message = _refused("coco_ids", place)
  assert f"caption {ids[0] + 1} is not in captions_train2014.json" in message
  np.save(place / "coco_dev_ids.npy", ids[:4])
  assert "has 4 captions; 5 are needed" in _refused("coco_ids", place)
  np.save(place / "coco_dev_ids.npy", np.repeat(ids[:1], 5))
  assert f"caption {ids[0]} is there twice" in _refused("coco_ids", place)
  np.save(place / "coco_dev_ids.npy", np.load(place / "coco_train_ids.npy"))
  assert "is in train and in validation" in _refused("coco_ids", place)
  np.save(place / "coco_dev_ids.npy", ids[:0])
  assert "split validation: has no image" in _refused("coco_ids", place)
  np.save(place / "coco_dev_ids.npy", ids.astype(np.float32))
  assert "float32 [24], no ids" in _refused("coco_ids", place)
  path = place / "captions_train2014.json"
  text = path.read_text()
  for old, new, told in (
    ('"A dog runs . train 0"', "null", "TypeError: caption 3 is no text"),
    ('"id": 3,', '"id": 1e400,', "OverflowError"),
  ):
    path.write_text(text.replace(old, new, 1))
    assert told in _refused("coco_ids", place)
  path.write_text(text)
  (place / "captions_val2014.json").write_text(json.dumps({"images": []}))
  assert "holds no captions of COCO: KeyError" in _refused("coco_ids", place)
  (place / "captions_val2014.json").unlink()
  assert "has no captions_val2014.json" in _refused("coco_ids", place)


def test_a_missing_folder_says_how_to_get_it(monkeypatch, tmp_path):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  assert "prepare_data.py flickr8k" in _refused("flickr8k", None)
  assert "prepare_data.py coco" in _refused("coco", None)
  assert "no such directory" in _refused("coco", tmp_path / "nowhere")
  assert "data.source: 'f8k' is not allowed" in _refused("f8k", None)


def test_a_split_without_images_is_refused():
  empty = Split([], np.zeros((0, 3), np.float32), [])
  with pytest.raises(DataError, match="split train: has no image"):
    image_captions.dataset({"train": empty}, origin="x", verdict="y")


# --- tensorflow-datasets ---


@pytest.fixture
def prepared(tmp_path):
  """A `coco_captions` of a few images, made as tensorflow-datasets makes it."""
  tfds = pytest.importorskip("tensorflow_datasets")
  import io

  from PIL import Image

  parts = {
    "train": caption_files.names("train")[:-2],
    "restval": caption_files.names("train")[-2:],
    "val": caption_files.names("validation"),
    "test": caption_files.names("test"),
  }

  class CocoCaptions(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014", version="1.1.0")]

    def _info(self):
      features = tfds.features
      caption = {"id": np.int64, "text": features.Text()}
      box = {"bbox": features.BBoxFeature(), "label": np.int64}
      return tfds.core.DatasetInfo(
        builder=self,
        features=features.FeaturesDict(
          {
            "image": features.Image(),
            "image/filename": features.Text(),
            "image/id": np.int64,
            "captions": features.Sequence(caption),
            "objects": features.Sequence(box),
          }
        ),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {part: self._generate_examples(own) for part, own in parts.items()}

    def _generate_examples(self, images):
      for i, name in enumerate(images):
        picture = io.BytesIO()
        Image.new("RGB", (4, 4)).save(picture, "PNG")
        picture.seek(0)
        texts = [*caption_files.captions(name), "one more"]
        yield (
          i,
          {
            "image": picture,
            "image/filename": name,
            "image/id": i,
            "captions": [{"id": k, "text": t} for k, t in enumerate(texts)],
            "objects": [],
          },
        )

  tfds.disable_progress_bar()
  builder = CocoCaptions(data_dir=tmp_path, file_format="array_record")
  builder.download_and_prepare(download_dir=tmp_path / "downloads")
  every = [
    image
    for split in caption_files.SIZES
    for image in caption_files.names(split)
  ]
  caption_files.named_features(tmp_path, every)
  return tmp_path


def test_captions_of_tensorflow_datasets_are_read(prepared):
  data = captions.load("tfds", prepared)
  for split, held in data.splits.items():
    names = caption_files.names(split)
    assert list(held.names) == names
    assert list(held.captions) == [
      text for image in names for text in caption_files.captions(image)
    ]
  assert "17 captions beyond 5 of an image are left out" in data.description


def test_a_missing_dataset_of_tensorflow_datasets_is_told(tmp_path):
  caption_files.named_features(tmp_path, ["a.jpg"])
  message = _refused("tfds", tmp_path)
  assert (
    "coco_captions/2014: not found" in message and "array_record" in message
  )


# --- Batches ---


@pytest.fixture(scope="module")
def data():
  return captions.load()


def batches_of(data, **more):
  options = {"batch_size": 64, "seed": 3, "fingerprint": "x"} | more
  return CaptionBatches(
    data.splits["train"].features, data.sentences["train"], **options
  )


def test_a_batch_has_images_with_captions_of_their_own(data):
  found = batches_of(data)
  batch = found[5]
  held, sentences = data.splits["train"], data.sentences["train"]
  features = unit(held.features)
  for image, words, length in zip(*batch.values(), strict=True):
    (at,) = np.flatnonzero((features == image).all(axis=1))
    rows = CAPTIONS * at + np.arange(CAPTIONS)
    own = sentences.padded(rows, 40)[:, : len(words)]
    own = own[sentences.lengths[rows] == length]
    assert any((words == row).all() for row in own)
    assert words[length - 1] == vocabulary.END
    assert (words[: length - 1] != vocabulary.END).all()


def test_an_epoch_visits_every_image_once_and_draws_all_captions(data):
  found = batches_of(data, batch_size=40)
  assert found.steps_per_epoch == 50
  which = collections.Counter()
  for epoch in range(2):
    images = np.concatenate([found._rows(50 * epoch + i)[0] for i in range(50)])
    assert sorted(images) == list(range(2000))
    drawn = np.concatenate([found._rows(50 * epoch + i)[1] for i in range(50)])
    assert (drawn // CAPTIONS == images).all()
    which.update((drawn % CAPTIONS).tolist())
  assert all(700 < which[k] < 900 for k in range(CAPTIONS))
  first, second = (found._rows(50 * epoch)[0] for epoch in range(2))
  assert (first != second).any()


def test_a_batch_depends_on_seed_and_step_alone(data):
  a, b, other = batches_of(data), batches_of(data), batches_of(data, seed=4)
  for name, array in a[70].items():
    np.testing.assert_array_equal(array, b[70][name])
  assert any((a[70][k] != other[70][k]).any() for k in ("image", "length"))
  with pytest.raises(IndexError, match="steps count from 0"):
    a[-1]


def test_captions_are_filled_up_to_a_multiple(data):
  found = batches_of(data, multiple=3)
  shapes = {found.shape(step) for step in range(20)}
  for step in range(20):
    batch = found[step]
    assert batch["words"].shape == (64, found.shape(step))
    assert batch["length"].max() > found.shape(step) - 3
  assert len(shapes) > 1 and all(t % 3 == 0 for t in shapes)


def test_features_have_length_one_unless_told_otherwise(data):
  np.testing.assert_allclose(
    np.linalg.norm(batches_of(data)[0]["image"], axis=1), 1, rtol=1e-5
  )
  plain = batches_of(data, normalize=False)[0]["image"]
  assert plain.dtype == np.float32 and np.linalg.norm(plain, axis=1).min() > 2
  assert (unit(np.zeros((1, 4))) == 0).all()


@pytest.mark.parametrize("size", [1, 2001])
def test_a_batch_of_another_size_than_possible_is_refused(data, size):
  with pytest.raises(ConfigError, match="2 to 2000, the images at hand"):
    batches_of(data, batch_size=size)


# --- Generated scenes ---


def test_scenes_are_the_same_everywhere():
  assert captions.load().fingerprint == "486523141a53e140"


def test_a_general_caption_is_true_of_more_scenes():
  """What the order means: what says less is true of more."""
  facts = [
    scenes._facts(scene)
    for draws in [Draws(9)]
    for scene in (scenes._scene(draws) for _ in range(400))
  ]
  true = lambda *said: sum(set(said) <= own for own in facts)
  assert true("red dog") < true("dog") < true("animal")
  assert true("dog", "on the grass") < true("dog")
  for own in facts:
    assert "dog" not in own or "animal" in own


def test_captions_of_scenes_are_true(data):
  held = data.splits["train"]
  draws = Draws(1)
  scene = scenes._scene(draws)
  kinds = {thing.kind for thing in scene.things}
  words = set(" ".join(held.captions[:CAPTIONS]).split())
  every = set(scenes._KINDS)
  assert words & every and words & every <= kinds
