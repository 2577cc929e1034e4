"""Vectors of words in every form, whole and damaged."""

import gzip
import struct

import numpy as np
import pytest

from lnrnn.data import word_vectors
from lnrnn.errors import DataError

WORDS = ["the", ",", "naïve", "dog"]
VECTORS = np.array(
  [[0.5, -1.25], [3, 0.0078125], [1e-3, 2], [-7, 1e10]], np.float32
)


def glove(words=WORDS, vectors=VECTORS, end="\n"):
  return "".join(
    f"{word} {' '.join(map(str, row.tolist()))}{end}"
    for word, row in zip(words, vectors, strict=True)
  ).encode()


def word2vec_text(**more):
  return b"4 2\n" + glove(end=" \n", **more)


def word2vec_binary(words=WORDS, vectors=VECTORS, end=b"\n", claim=None):
  rows = b"".join(
    word.encode() + b" " + struct.pack(f"<{len(row)}f", *row) + end
    for word, row in zip(words, vectors, strict=True)
  )
  n = len(words) if claim is None else claim
  return b"%d %d\n" % (n, vectors.shape[1]) + rows


def write(folder, name, data):
  path = folder / name
  path.write_bytes(data)
  return path


def write_matrix(folder, words=WORDS, vectors=VECTORS):
  folder.mkdir(exist_ok=True)
  np.save(folder / "vectors.npy", vectors)
  text = "".join(f"{word}\n" for word in words)
  (folder / "words.txt").write_text(text, encoding="utf-8", newline="")
  return folder


def refused(path, **more):
  with pytest.raises(DataError) as caught:
    word_vectors.load(path, **more)
  message = str(caught.value)
  assert "\n" not in message
  return message


FORMS = {
  "glove.txt": glove(),
  "glove.txt.gz": gzip.compress(glove()),
  "w2v.txt": word2vec_text(),
  "w2v.vec.gz": gzip.compress(word2vec_text()),
  "w2v.bin": word2vec_binary(),
  "bare.bin": word2vec_binary(end=b""),
  "w2v.bin.gz": gzip.compress(word2vec_binary()),
}


@pytest.fixture(params=[*FORMS, "folder", "folder/vectors.npy"])
def path(request, tmp_path):
  if request.param in FORMS:
    return write(tmp_path, request.param, FORMS[request.param])
  write_matrix(tmp_path / "folder")
  return tmp_path / request.param


def test_every_form_gives_the_same_words_and_vectors(path):
  found = word_vectors.load(path)
  assert found.words == tuple(WORDS) and found.twice == 0
  assert found.vectors.dtype == np.float32
  np.testing.assert_array_equal(found.vectors, VECTORS)


@pytest.mark.parametrize("most", [1, 3, 4, 9])
def test_the_first_rows_can_be_read_alone(path, most):
  found = word_vectors.load(path, most)
  assert found.words == tuple(WORDS[:most])
  np.testing.assert_array_equal(found.vectors, VECTORS[:most])


def test_words_are_looked_up(path):
  found = word_vectors.load(path)
  rows = found.rows(["dog", "cat", "the"])
  assert rows.dtype == np.int64 and rows.tolist() == [3, -1, 0]
  assert found.row_of is found.row_of


@pytest.mark.parametrize("form", ["text", "binary", "matrix"])
def test_of_a_word_that_comes_again_the_first_vector_is_kept(tmp_path, form):
  words = ["the", "dog", "the", "cat"]
  path = {
    "text": lambda: write(tmp_path, "a.txt", glove(words)),
    "binary": lambda: write(tmp_path, "a.bin", word2vec_binary(words)),
    "matrix": lambda: write_matrix(tmp_path, words),
  }[form]()
  found = word_vectors.load(path)
  assert found.words == ("the", "dog", "cat") and found.twice == 1
  np.testing.assert_array_equal(found.vectors, VECTORS[[0, 1, 3]])
  assert word_vectors.load(path, 3).words == ("the", "dog")


def test_words_of_glove_may_have_blanks_and_other_signs(tmp_path):
  words = ["the", ". . .", "to name@domain.com", "a\u00a0b\x85c"]
  found = word_vectors.load(write(tmp_path, "a.txt", glove(words)))
  assert found.words == tuple(words)


def test_a_word_may_be_a_number(tmp_path):
  words = ["the", "2", "1,000", "3.5"]
  assert word_vectors.load(write(tmp_path, "a.txt", glove(words))).words == (
    tuple(words)
  )


def test_a_large_binary_file_is_read_block_by_block(tmp_path, monkeypatch):
  monkeypatch.setattr(word_vectors, "_BLOCK", 7)
  path = write(tmp_path, "a.bin", word2vec_binary())
  np.testing.assert_array_equal(word_vectors.load(path).vectors, VECTORS)


def test_of_several_texts_the_one_of_as_many_lines_names_the_rows(tmp_path):
  write_matrix(tmp_path, vectors=VECTORS.clip(-9, 9).astype(np.float16))
  (tmp_path / "LICENCE.txt").write_text("Do\nas you like\n")
  found = word_vectors.load(tmp_path)
  assert found.words == tuple(WORDS) and found.vectors.dtype == np.float32
  (tmp_path / "more.txt").write_text("a\nb\nc\nd")
  message = refused(tmp_path)
  assert "one .txt file of 4 lines, a word each, is needed" in message
  assert "more.txt (4 lines), words.txt (4 lines)" in message


def test_the_real_glove_is_read(data_dir):
  found = word_vectors.load(data_dir / "glove")
  assert found.vectors.shape == (50_000, 50) and found.twice == 0
  assert found.words[:4] == ("the", ",", ".", "of")
  a, b, c = found.vectors[found.rows(["cat", "dog", "parliament"])]
  near, far = (x @ a / np.linalg.norm(x) for x in (b, c))
  assert near > 2 * far


# --- What is refused, in one line that says where ---


@pytest.mark.parametrize(
  ("data", "told"),
  [
    (b"", "line 1: a word and its numbers are needed"),
    (b"the\n", "not b'the\\n'"),
    (b"4 2\n", "has 0 words; its first line claims 4"),
    (b"the 1 2\ndog 3\n", "line 2: has 2 columns; a word and 2 numbers"),
    (b"the 1 2\n\ndog 3 4\n", "line 2: has 0 columns"),
    (b"the 1 2\n 3 4\n", "line 2: has 2 columns"),
    (b"the 1 2\ndog 3 4 5\n", "line 2: has more than a word and 2 numbers"),
    (b"the 1 2\ndog 3 x\n", "line 2: 'x' is no number"),
    (b"the 1 2\ndog nan 4\n", "line 2: the numbers are not all finite"),
    (b"the 1 2\ndog 3 -inf\n", "line 2: the numbers are not all finite"),
    (b"the 1 2\ndog 3 1e39\n", "line 2: the numbers are not all finite"),
    (b"the 1 2\nd\xf6g 3 4\n", "line 2: the word b'd\\xf6g' is not UTF-8"),
    (b"3 2\nthe 1 2\ndog 3 4\n", "has 2 words; its first line claims 3"),
    (b"1 2\nthe 1 2\ndog 3 4\n", "has 2 words; its first line claims 1"),
    (b"1 3\nthe 1 2\n", "line 2: has 3 columns; a word and 3 numbers"),
  ],
)
def test_a_fault_of_a_text_is_told_with_its_line(tmp_path, data, told):
  path = write(tmp_path, "a.txt", data)
  message = refused(path)
  assert message.startswith(str(path)) and told in message
  packed = write(tmp_path, "a.txt.gz", gzip.compress(data))
  assert refused(packed) == message.replace(str(path), str(packed))


@pytest.mark.parametrize(
  ("data", "told"),
  [
    (b"", "must be in the first line, not b''"),
    (b"the 1 2\n", "must be in the first line, not b'the 1 2\\n'"),
    (b"4 2", "must be in the first line"),
    (b"4 99999999\n", "must be in the first line"),
    (word2vec_binary()[:-5], "is cut short at word 4 of 4"),
    (word2vec_binary(claim=10**9), "is cut short at word 5 of 1,000,000,000"),
    (word2vec_binary(claim=3), "goes on after the 3 words that it claims"),
    (b"1 2\n" + bytes(20_000), "word 1 of 1: has no blank after it"),
    (b"1 1\n " + bytes(4), "word 1 of 1: has no word"),
    (b"1 1\n\xff " + bytes(4), "the word b'\\xff' is not UTF-8"),
    (
      word2vec_binary(vectors=np.where(VECTORS > 1e9, np.nan, VECTORS)),
      "word 4 of 4: the numbers are not all finite",
    ),
  ],
)
def test_a_fault_of_a_binary_file_is_told_with_its_word(tmp_path, data, told):
  path = write(tmp_path, "a.bin", data)
  message = refused(path)
  assert message.startswith(str(path)) and told in message


def test_a_damaged_archive_is_told(tmp_path):
  for name, data in (("a.txt.gz", glove()), ("a.bin.gz", word2vec_binary())):
    packed = gzip.compress(data)
    path = write(tmp_path, name, packed[:-9])
    assert f"{path}: cannot be read" in refused(path)
    path.write_bytes(packed[:-8] + bytes(8))
    assert f"{path}: cannot be read" in refused(path)


def test_what_is_missing_or_asked_wrongly_is_told(tmp_path):
  path = tmp_path / "a.txt"
  assert refused(path) == f"{path}: no such file or folder"
  assert "no such file" in refused(tmp_path / "a.npy")
  path.write_bytes(glove())
  assert "most=-1: 0 or more" in refused(path, most=-1)


@pytest.mark.parametrize(
  ("vectors", "told"),
  [
    (VECTORS.astype(np.int64), "is int64 [4, 2]; floats"),
    (VECTORS[0], "is float32 [2]; floats [words, numbers] are needed"),
    (VECTORS[:, :0], "is float32 [4, 0]; floats"),
    (VECTORS[:3], "one .txt file of 3 lines, a word each, is needed"),
    (VECTORS * np.nan, "the numbers of 'the' (row 0) are not all finite"),
    (
      VECTORS * np.float64(1e290),
      "the numbers of 'the' (row 0) are not all finite",
    ),
    (np.array([{}] * 4, object), "Python objects"),
  ],
)
def test_a_fault_of_a_matrix_is_told(tmp_path, vectors, told):
  assert told in refused(write_matrix(tmp_path, vectors=vectors))


def test_a_fault_of_the_files_beside_a_matrix_is_told(tmp_path):
  message = refused(tmp_path)
  assert "one file of vectors is needed (.npy, .txt, " in message
  write_matrix(tmp_path, ["the", "", "naïve", "dog"])
  path = tmp_path / "words.txt"
  assert refused(tmp_path) == f"{path}, line 2: has no word"
  path.write_bytes(b"the\n,\nna\xefve\ndog\n")
  assert f"{path}, line 3: the word b'na\\xefve' is not" in refused(tmp_path)
  path.unlink()
  assert "there are: none" in refused(tmp_path)
  np.save(tmp_path / "more.npy", VECTORS)
  assert "there are: more.npy, vectors.npy" in refused(tmp_path)
