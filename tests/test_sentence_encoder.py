"""Sentences as vectors, one by one in NumPy and many at a time in JAX."""

import json
import re
import shutil
import sys

import drawn_variables
import jax
import numpy as np
import pytest
import references

import lnrnn
from lnrnn import export, sentence_encoder
from lnrnn.data.word_vectors import WordVectors
from lnrnn.errors import DataError, UserError
from lnrnn.models.skip_thoughts import SkipThoughts
from lnrnn.sentence_encoder import SkipThoughtEncoder, digest

WORDS = ["the", "rabbit", "ran", "away", "and", "so", "did", "she", ".", "it's"]
END, UNKNOWN = 0, 1
D, H, EPS = 3, 6, 1e-5
TEXTS = [
  "The rabbit ran away.",
  "",
  "she",
  "... ?!",  # No word: marks count behind words only.
  "The zebra ran -- so did the RABBIT, and so did she!",
  " ".join(["and so"] * 11),  # Two more than twice ten, END aside.
  "It’s she.",
]
# A mark that is no word of the model is unknown.
READ = [
  [2, 3, 4, 5, 10],
  [],
  [9],
  [],
  [2, 1, 4, 7, 8, 2, 3, 6, 7, 8, 9, 1],
  [6, 7] * 11,
  [11, 9, 10],
]


@pytest.fixture(scope="module")
def model():
  return SkipThoughts(len(WORDS) + 2, features=H, word_features=D, eps=EPS)


@pytest.fixture(scope="module")
def variables(model):
  one = np.ones((1, 1), np.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *[one, one[0]] * 3)
  drawn = drawn_variables.trained(shapes)
  return {**drawn, "params": drawn_variables.single(drawn["params"])}


@pytest.fixture(scope="module")
def encoder(model, variables):
  return SkipThoughtEncoder.of(model, variables, {"vocabulary": WORDS})


def gru_over(cell, vectors, form="separate"):
  """The last state after some word vectors, by itself."""
  h = np.zeros((1, cell["w_h"].shape[0]))
  for x in vectors:
    h = references.gru(cell, h, x[None], "layer", form, EPS)
  return h[0]


def by_hand(variables, rows, end):
  """Sentences in numbers as vectors, one by one."""
  p = jax.tree.map(np.float64, variables["params"]["encoder"])
  rows = [[*row, *[END] * end] for row in rows]
  return np.stack(
    [gru_over(p["gru"]["cell"], p["embeddings"][row]) for row in rows]
  )


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)


# --- Encoding ---


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_sentence_is_encoded_as_if_it_were_alone(
  encoder, variables, batch_size, end
):
  options = dict(batch_size=batch_size, end=end)
  found = encoder.encode(TEXTS, **options, normalized=False)
  assert found.dtype == np.float32 and found.shape == (len(TEXTS), H)
  expected = by_hand(variables, READ, end)
  assert_close(found, expected)
  # In another order, and in length 1.
  order = np.random.default_rng(0).permutation(len(TEXTS))
  lengths = np.linalg.norm(expected, axis=1, keepdims=True)
  again = encoder.encode([TEXTS[i] for i in order], **options)
  assert_close(again, (expected / np.where(lengths > 0, lengths, 1))[order])


def test_the_model_itself_encodes_alike(encoder, model, variables):
  row = np.array([[*READ[0], END]], np.int32)
  length = np.array([row.size], np.int32)
  found = jax.jit(model.apply, static_argnames="method")(
    variables, row, length, method="encode"
  )
  (expected,) = encoder.encode(TEXTS[:1], normalized=False)
  assert_close(found[0], expected)


def test_vectors_have_length_1_unless_nothing_is_read(encoder):
  with_end = np.linalg.norm(encoder.encode(TEXTS), axis=1)
  np.testing.assert_allclose(with_end, 1, rtol=1e-5)
  without = np.linalg.norm(encoder.encode(TEXTS, end=False), axis=1)
  nothing = [not row for row in READ]
  np.testing.assert_allclose(without[np.logical_not(nothing)], 1, rtol=1e-5)
  assert (without[nothing] == 0).all()


def test_a_sentence_without_a_word_is_the_end_alone(encoder):
  empty, marks, end = encoder.encode(["", "... ?!", "  "])
  assert np.array_equal(empty, marks) and np.array_equal(empty, end)
  assert not np.allclose(empty, encoder.encode(["she"])[0], atol=1e-2)


def test_no_sentence_gives_no_vector(encoder):
  assert encoder.encode([]).shape == (0, H)
  assert encoder.encode([], normalized=False).dtype == np.float32


def test_texts_may_come_one_by_one(encoder):
  found = encoder.encode(text for text in TEXTS)
  np.testing.assert_array_equal(found, encoder.encode(TEXTS))


@pytest.mark.parametrize("wrong", ["the rabbit ran", [["the", "rabbit"]], [3]])
def test_what_is_no_list_of_texts_is_refused(encoder, wrong):
  with pytest.raises(TypeError, match="a list of texts is needed"):
    encoder.encode(wrong)


def test_a_word_that_is_not_known_is_read_as_such(encoder):
  assert encoder.numbers([["the", "zebra"]]) == [[2, UNKNOWN, END]]
  assert encoder.numbers([["the", "zebra"], []], end=False) == [[2, 1], []]
  zebra, quagga = encoder.encode(["the zebra ran", "the quagga ran"])
  np.testing.assert_array_equal(zebra, quagga)
  assert encoder.unknown(["the zebra ran", "a quagga"]) == pytest.approx(3 / 5)
  assert encoder.unknown(["the"]) == encoder.unknown([""]) == 0


# --- More words ---

NEW = ["zebra", "quagga", "okapi"]


@pytest.fixture(scope="module")
def images():
  """Where the new words are in the space of the model."""
  return np.random.default_rng(1).normal(size=(len(NEW), D))


@pytest.fixture(scope="module")
def larger(encoder, images):
  """Word vectors that are an affine map of the model's own, and of images."""
  rng = np.random.default_rng(2)
  m, offset = rng.normal(size=(D, D + 1)), rng.normal(size=D + 1)
  # Not all of the model's words have one, and new ones are among them.
  own = {word: encoder.vectors[i + 2] for i, word in enumerate(WORDS[:-2])}
  names = [NEW[0], *own, *NEW[1:]]
  space = np.stack([images[0], *own.values(), *images[1:]])
  return WordVectors(tuple(names), (space @ m + offset).astype(np.float32))


def test_new_words_are_placed_by_the_map_that_fits_the_shared_ones(
  encoder, larger, images
):
  found = encoder.expanded(larger)
  assert found.words == (*WORDS, *NEW)
  own = len(WORDS) + 2
  np.testing.assert_array_equal(found.vectors[:own], encoder.vectors)
  np.testing.assert_allclose(found.vectors[own:], images, rtol=1e-3, atol=1e-4)
  assert found.vectors.dtype == np.float32
  # Nothing is left but the mark and the apostrophe's word, which it has.
  assert found.unknown(["the zebra ran.", "it's okapi"]) == 0


def test_a_new_word_is_read_by_its_vector_and_the_others_as_before(
  encoder, larger, images, variables
):
  found = encoder.expanded(larger)
  texts = ["the zebra ran", "the quagga ran", "the gnu ran", "she ran."]
  before, after = (e.encode(texts, normalized=False) for e in (encoder, found))
  np.testing.assert_array_equal(before[2:], after[2:])
  p = jax.tree.map(np.float64, variables["params"]["encoder"])
  e = p["embeddings"]
  for i in range(2):
    expected = gru_over(p["gru"]["cell"], [e[2], images[i], e[4], e[END]])
    assert_close(after[i], expected)
    assert not np.allclose(after[i], before[i], atol=1e-2)


def test_vectors_of_known_words_alone_add_nothing(encoder, larger):
  rows = larger.rows(WORDS[:-2])
  same = encoder.expanded(WordVectors(tuple(WORDS[:-2]), larger.vectors[rows]))
  assert same.words == tuple(WORDS)
  np.testing.assert_array_equal(same.vectors, encoder.vectors)


def test_without_scikit_learn_a_map_says_what_to_install(
  encoder, larger, monkeypatch
):
  for name in ("sklearn", "sklearn.linear_model"):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UserError, match="pip install scikit-learn"):
    encoder.expanded(larger)


def test_a_map_needs_more_words_than_it_has_rows(encoder, larger):
  rows = larger.rows(WORDS[: D + 2])  # As many as it has rows and an offset.
  few = WordVectors(tuple(WORDS[: D + 2]), larger.vectors[rows])
  told = f"^{D + 2} of the model's 10 words have word vectors; a map of 4 dim"
  with pytest.raises(DataError, match=told):
    encoder.expanded(few)


# --- Exported models ---


@pytest.fixture(scope="module")
def written(model, variables, tmp_path_factory):
  folder = tmp_path_factory.mktemp("exported") / "model"
  assets = {
    "vocabulary": WORDS,
    "preprocessing": {"vocabulary_sha256": digest(WORDS)},
  }
  export.save(folder, model, variables, assets=assets)
  return folder


@pytest.fixture
def copy(written, tmp_path):
  folder = tmp_path / "model"
  shutil.copytree(written, folder)
  return folder


def refusal(call):
  """The one line of a DataError."""
  with pytest.raises(DataError) as caught:
    call()
  (line,) = str(caught.value).splitlines()
  return line


def test_an_exported_model_gives_the_same_vectors(written, encoder):
  found = SkipThoughtEncoder.load(written)
  assert found.words == tuple(WORDS)
  np.testing.assert_array_equal(found.encode(TEXTS), encoder.encode(TEXTS))


def test_an_encoder_can_be_exported_alone(model, variables, encoder, tmp_path):
  own = {name: of["encoder"] for name, of in variables.items()}
  assets = {"vocabulary": WORDS}
  export.save(tmp_path / "o", model.sentence_encoder(), own, assets=assets)
  found = SkipThoughtEncoder.load(tmp_path / "o")
  np.testing.assert_array_equal(found.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize(
  ("words", "told"),
  [
    ([*WORDS[:-1], "its"], "its vocabulary has other words than those of the"),
    (WORDS[::-1], "its vocabulary has other words than those of the training"),
    (WORDS[:-1], "its vocabulary has other words than those of the tr"),
    ([*WORDS, "zebra"], "its vocabulary has other words than those of the"),
    ({"the": 2}, "has no vocabulary, a list of words"),
    ([1] * 10, "has no vocabulary, a list of words"),
  ],
)
def test_the_vocabulary_of_another_model_is_refused(copy, words, told):
  (copy / "vocabulary.json").write_text(json.dumps(words))
  line = refusal(lambda: SkipThoughtEncoder.load(copy))
  assert line.startswith(f"{copy}: {told}")


def test_another_kind_of_model_is_refused(tmp_path):
  cell = lnrnn.LSTMCell(2)
  export.save(tmp_path / "o", lnrnn.RNN(cell), {"params": {}})
  line = refusal(lambda: SkipThoughtEncoder.load(tmp_path / "o"))
  assert line == (
    f"{tmp_path / 'o'}: holds a RNN; sentences are encoded by a SkipThoughts"
  )


def test_a_folder_without_a_model_is_refused(tmp_path):
  line = refusal(lambda: SkipThoughtEncoder.load(tmp_path))
  assert line.startswith(str(tmp_path))


# --- The authors' weights ---

AUTHORS = {
  **{"W": (D, 2 * H), "U": (H, 2 * H), "b": (2 * H,)},
  **{"Wx": (D, H), "Ux": (H, H), "bx": (H,)},
  **{name: (2 * H,) for name in ("s1", "b1", "s3", "b3")},
  **{name: (H,) for name in ("s2", "b2", "s4", "b4")},
}


@pytest.fixture
def authors(tmp_path):
  """(changes of the arrays, words) -> a file as theirs, and a list of words."""

  def write(words=tuple(WORDS), **changes):
    rng = np.random.default_rng(3)
    weights = {
      key: rng.normal(0.3, 0.8, shape).astype(np.float32)
      for key, shape in AUTHORS.items()
    }
    arrays = {f"encoder_{key}": a for key, a in weights.items()}
    arrays["Wemb"] = rng.normal(size=(len(WORDS) + 2, D)).astype(np.float32)
    arrays |= {"decoder_f_W": np.ones(2), "ff_logit_b": np.ones(3), **changes}
    arrays = {name: a for name, a in arrays.items() if a is not None}
    path, names = tmp_path / "lngru.npz", tmp_path / "words.txt"
    np.savez(path, history_errs=np.array([None]), **arrays)
    names.write_text("".join(f"{word}\n" for word in words))
    return path, names, weights, arrays.get("Wemb")

  return write


@pytest.mark.parametrize("end", [True, False])
def test_the_authors_weights_encode_as_their_code_does(authors, end):
  path, names, weights, table = authors()
  found = SkipThoughtEncoder.from_authors_npz(path, names)
  assert found.words == tuple(WORDS)
  wide = {name: np.float64(a) for name, a in weights.items()}
  expected = np.zeros((len(TEXTS), 1, H))
  for i, row in enumerate(READ):
    for number in [*row, *[END] * end]:
      x = np.float64(table[[number]])
      expected[i] = references.authors_gru(wide, expected[i], x, EPS)
  got = found.encode(TEXTS, end=end, normalized=False)
  np.testing.assert_allclose(got, expected[:, 0], rtol=5e-3, atol=5e-5)


@pytest.mark.parametrize(
  ("words", "changes", "told"),
  [
    (WORDS[:-1], {}, "words.txt: has 9 words; .*lngru.npz has 10 beside"),
    ([*WORDS, "x"], {}, "words.txt: has 11 words; .*lngru.npz has 10 beside"),
    ([*WORDS[:-1], "the"], {}, "words.txt: a word is there twice"),
    (WORDS, {"Wemb": None}, "lngru.npz: .*Wemb"),
    (WORDS, {"Wemb": np.ones(12)}, r"Wemb is float64\[12\]; .*\[v, 3\]"),
    (WORDS, {"Wemb": np.ones((12, 2))}, r"Wemb is float64\[12, 2\]; expected"),
    (WORDS, {"Wemb": np.ones((12, D), int)}, r"Wemb is int64\[12, 3\]"),
    (WORDS, {"encoder_s4": None}, "lngru.npz: has no encoder_s4"),
  ],
)
def test_what_does_not_fit_the_authors_weights_is_one_line(
  authors, words, changes, told
):
  path, names, *_ = authors(words, **changes)
  line = refusal(lambda: SkipThoughtEncoder.from_authors_npz(path, names))
  assert line.startswith(str(path.parent)) and re.search(told, line), line


def test_a_missing_list_of_words_is_one_line(authors):
  path, names, *_ = authors()
  names.unlink()
  line = refusal(lambda: SkipThoughtEncoder.from_authors_npz(path, names))
  assert line == f"{names}: no such file"


# --- The rest ---


def test_the_encoder_is_public():
  assert lnrnn.SkipThoughtEncoder is SkipThoughtEncoder
  assert "SkipThoughtEncoder" in lnrnn.__all__


def test_a_text_is_read_in_lower_case_with_marks_behind_words():
  assert sentence_encoder.tokens("It’s SHE, isn't it?!") == [
    *("it's", "she", "isn't", "it", "?"),
  ]


def test_a_digest_is_by_words_and_their_order():
  assert digest(["a", "b"]) != digest(["b", "a"]) != digest(["ab"])
  assert digest(["a", "b"]) == digest(("a", "b"))
