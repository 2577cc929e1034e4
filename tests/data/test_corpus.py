"""Corpora of sentences: what is in them, and how they are made and kept."""

from concurrent.futures import ThreadPoolExecutor
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import tracemalloc

import numpy as np
import pytest
from question_writing import write_files

from lnrnn.data import books, corpus, corpus_making
from lnrnn.data.corpus import Options, Triples
from lnrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from lnrnn.errors import DataError

SPLITS = ("train", "validation", "test")
SIDES = ("previous", "current", "next")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.mktemp("cache") / "new"
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(folder))
  return folder


@pytest.fixture
def again(tmp_path_factory, monkeypatch):
  """Calls `load` with an empty cache of its own: (corpus, that cache)."""

  def load(*given):
    folder = tmp_path_factory.mktemp("other")
    with monkeypatch.context() as patch:
      patch.setenv("LNRNN_CACHE_DIR", str(folder))
      return corpus.load(*given), folder

  return load


@pytest.fixture
def whole(folder, again, monkeypatch, contents):
  """The files of a corpus in several shards that nobody disturbed."""
  monkeypatch.setattr(corpus_making, "SHARD_WORDS", 60)
  return contents(made(again(RANDOM, folder)[1]))


def said(error):
  """One line."""
  text = str(error.value)
  assert text.isprintable() and len(text) < 1000
  return text


def made(cache):
  """The folder of the one corpus in a cache."""
  (folder,) = cache.glob("corpus-*/")
  return folder


def sentences(data, batch, side):
  """Rows of a batch as texts."""
  words = ["<eos>", "<unk>", *data.vocabulary.words]
  found = []
  for row, n in zip(batch[side], batch[f"{side}_length"], strict=True):
    assert (row[n - 1 :] == END).all() and (row[: n - 1] != END).all()
    found.append(" ".join(words[token] for token in row[: n - 1]))
  return found


def triples(data, split):
  """All triples of a split as texts, in the order of positions."""
  of = data.splits[split]
  steps = data.record["options"]["max_words"] + 1
  batch = of.batch(np.arange(len(of)), steps)
  return list(zip(*(sentences(data, batch, s) for s in SIDES), strict=True))


# --- Texts whose right answer was worked out by hand ---

# Of each split at least one book.
BY_HAND = {
  "a.txt": b"""Chapter I

Red one. Red two is longer. Red three.
Red four.

Chapter II

Blue one. Blue two.

Chapter III

Blue three. Blue four. This has as many as seven words. Blue five.

Blue six. ... Blue seven is here.


""",
  "b.txt": b"Red one. Blue one. Odd one.\n",
  "c.txt": b"Odd two. Red one. Odd odd.\n",
  "d.txt": b"Green one. Green two.\n\n\n\nGreen three. Red one.\n\xff\nGreen.",
}
DEALT = ["train", "validation", "test", "train"]
OPTIONS = Options("text", 100, 6, 0.1)


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
  """The corpus of them; which book goes where is told too."""
  monkeypatch.setattr(corpus_making, "_split_books", lambda n, part: DEALT[:n])
  write_files(tmp_path / "books", BY_HAND)
  return corpus.load(OPTIONS, str(tmp_path))


def test_triples_are_contiguous_and_cross_nothing(by_hand):
  assert triples(by_hand, "train") == [
    ("red one .", "red two is longer .", "red three ."),
    ("red two is longer .", "red three .", "red four ."),
    ("blue five .", "blue six .", "blue seven is here ."),
  ]
  assert triples(by_hand, "validation") == [
    ("red one .", "blue one .", "<unk> one .")
  ]
  assert triples(by_hand, "test") == [
    ("<unk> two .", "red one .", "<unk> <unk> .")
  ]


def test_an_empty_line_between_lines_parts_them(tmp_path, monkeypatch):
  monkeypatch.setattr(books, "BLOCK", 8)
  monkeypatch.setattr(corpus_making, "_split_books", lambda n, part: DEALT[:n])
  block = ["Aa", "bb", "cc", "", "dd", "ee", "ff gg", "aa"]
  other = ["aa", "bb", "cc", "Bb aa", *["", "aa"] * 2]
  held = {"a.txt": "\n".join([*block, *other, *other, "aa", "bb"]).encode()}
  write_files(tmp_path, held)
  data = corpus.load(Options("lines", 100, 6, 0.1), str(tmp_path))
  assert triples(data, "train") == [
    ("aa", "bb", "cc"),
    ("dd", "ee", "ff gg"),
    ("ee", "ff gg", "aa"),
  ]
  both = [("aa", "bb", "cc"), ("bb", "cc", "bb aa")]
  assert triples(data, "validation") == triples(data, "test") == both
  assert data.record["skipped"] == {"empty lines": 5}


def test_words_are_of_what_is_trained_on_by_frequency_then_alphabet(by_hand):
  counts = {".": 16, "blue": 7, "red": 5, "green": 4, "one": 4}
  counts |= {"three": 3, "two": 3, "four": 2, "is": 2}
  counts |= dict.fromkeys(("five", "here", "longer", "seven", "six"), 1)
  order = list(counts)
  assert list(by_hand.vocabulary.words) == order
  assert (END, UNKNOWN) == (0, 1)
  assert by_hand.vocabulary.encode(["."]) == [2, END]
  assert by_hand.vocabulary.encode(["odd"]) == [UNKNOWN, END]
  # 16 sentences, and no word of them is unknown.
  assert by_hand.record["counts"] == [16, 0, *counts.values()]


def test_the_rarest_words_of_equal_count_go_by_the_alphabet(by_hand, tmp_path):
  for size in (3, 7, 100):
    data = corpus.load(OPTIONS._replace(vocabulary=size), str(tmp_path))
    assert data.vocabulary.words == by_hand.vocabulary.words[: size - 2]
    _, *counts = by_hand.record["counts"]
    kept = counts[1 : size - 1]
    assert data.record["counts"] == [16, sum(counts) - sum(kept), *kept]
    np.testing.assert_allclose(
      np.exp(-data.unigram),
      [
        (n + 1) / (16 + sum(counts) + len(kept) + 2)
        for n in data.record["counts"]
      ],
    )


def test_the_record_counts_what_was_read_and_what_was_left_out(by_hand):
  record = by_hand.record
  kept = (4 + 2 + 2 + 3) + 3 + 3 + (2 + 2 + 1)  # Sentences of each book.
  # Each has 3 tokens, but "Red two is longer.", "Blue seven is here.": 5, and
  # "Green.": 2.
  words = 3 * kept + 2 + 2 - 1
  assert record["books"] == 4
  assert record["held_out_books"] == {"validation": 1, "test": 1}
  assert (record["sentences"], record["words"]) == (kept, words)
  assert record["read_words"] == words + 8
  assert record["unknown"] == 4 / words
  assert record["skipped"] == {
    "sentences of more than 6 words": 1,
    "lines that are not UTF-8": 1,
  }
  assert record["options"] == OPTIONS._asdict()
  assert record["tokens"] == corpus_making.TOKENS
  assert by_hand.description == (
    f"4 books (text), {kept} sentences of {words} words, {4 / words:.1%} of"
    f" them unknown to {len(by_hand.vocabulary)}; triples: 3 train, 1"
    " validation, 1 test; 1 lines that are not UTF-8 left out; 1 sentences of"
    " more than 6 words left out"
  )


# --- Texts at random, and a plain reading of them ---


def text_of(draw, chapters=3):
  """(a book in chapters of sentences of words, its text)."""
  found = []
  for _ in range(draw.randint(1, chapters)):
    chapter = []
    for _ in range(draw.randint(1, 12)):
      n = draw.choice([1, 1, 2, 2, 3, 4, 5, 7, 11])
      chapter.append([f"w{min(draw.randrange(40), 25)}" for _ in range(n)])
    found.append(chapter)
  text = "\n\n\n\n".join(
    " ".join(" ".join(words).capitalize() + "." for words in chapter)
    for chapter in found
  )
  return found, text.encode()


@pytest.fixture(scope="module")
def drawn():
  """Twelve books: ({name: chapters}, {name: text})."""
  draw = random.Random(0)
  both = {f"{i:02d}.txt": text_of(draw) for i in range(12)}
  return {k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()}


RANDOM = Options("text", 20, 8, 0.2)


@pytest.fixture
def folder(tmp_path, drawn):
  write_files(tmp_path / "books", drawn[1])
  return str(tmp_path)


def plain(chapters, most, split_of):
  """{split: triples in the order of positions}, words as they are."""
  found = {split: [] for split in SPLITS}
  for split, book in zip(split_of, chapters.values(), strict=True):
    for chapter in book:
      row = [[*words, "."] for words in chapter]
      for three in zip(row, row[1:], row[2:], strict=False):
        if max(map(len, three)) <= most:
          found[split].append(three)
  for kept in found.values():
    kept.sort(key=lambda three: max(map(len, three)))
  return found


@pytest.mark.parametrize("words", [1, 30, 120, 10**6])
def test_every_triple_is_where_a_plain_reading_has_it(
  words, folder, drawn, monkeypatch, cache
):
  monkeypatch.setattr(corpus_making, "SHARD_WORDS", words)
  data = corpus.load(RANDOM, folder)
  shards = len(data.record["shards"])
  assert shards == len(list(made(cache).glob("tokens-*.npy")))
  assert shards == {1: 12, 10**6: 1}.get(words, shards) and shards != 2
  split_of = corpus_making._split_books(12, RANDOM.held_out)
  expected = plain(drawn[0], RANDOM.max_words, split_of)
  for split in SPLITS:
    of, right = data.splits[split], expected[split]
    assert len(of) == len(right) > 5
    longest = [max(map(len, three)) for three in right]
    ends = [sum(n <= most for n in longest) for most in range(9)]
    np.testing.assert_array_equal(of.ends, ends)
    numbers = [[data.vocabulary.encode(x) for x in three] for three in right]
    for order in (
      np.arange(len(of)),
      np.random.default_rng(0).permutation(len(of)),
    ):
      batch = of.batch(order, 11)
      assert list(batch) == [
        f"{side}{part}" for side in SIDES for part in ("", "_length")
      ]
      for i, side in enumerate(SIDES):
        rows = [numbers[position][i] for position in order]
        padded = [row + [END] * (11 - len(row)) for row in rows]
        np.testing.assert_array_equal(batch[side], padded)
        sizes = [len(row) for row in rows]
        np.testing.assert_array_equal(batch[f"{side}_length"], sizes)
        assert batch[side].dtype == batch[f"{side}_length"].dtype == np.int32
    tokens = [token for row in numbers for token in row[1][:-1]]
    part = sum(token == UNKNOWN for token in tokens) / len(tokens)
    assert of.unknown(np.arange(len(of))) == pytest.approx(part)


def test_the_vocabulary_is_the_same_whatever_the_shards(
  folder, monkeypatch, again
):
  found = []
  for words in (1, 100, 10**6):
    monkeypatch.setattr(corpus_making, "SHARD_WORDS", words)
    data, _ = again(RANDOM, folder)
    names = ("words", "sentences", "read_words", "unknown", "skipped", "books")
    found.append([data.vocabulary, *(data.record[name] for name in names)])
  assert found[0] == found[1] == found[2]


def test_few_files_are_open_however_many_shards(folder, monkeypatch, again):
  def opened():
    if not os.path.isdir("/proc/self/fd"):
      pytest.skip("only Linux tells which files are open")
    return len(os.listdir("/proc/self/fd"))

  monkeypatch.setattr(corpus_making, "SHARD_WORDS", 1)
  expected = triples(again(RANDOM, folder)[0], "train")
  monkeypatch.setattr(corpus, "_OPEN", 4)
  data, _ = again(RANDOM, folder)
  before = opened()
  for _ in range(2):
    assert triples(data, "train") == expected
    assert opened() <= before + 4


def test_spread_positions_are_of_every_length(folder):
  of = corpus.load(RANDOM, folder).splits["train"]
  n = len(of)
  for most in (0, n, n + 1):
    np.testing.assert_array_equal(of.spread(most), np.arange(n))
  found = of.spread(7)
  assert found.tolist() == [i * n // 7 for i in range(7)]


def test_books_are_held_out_as_wholes_and_never_twice():
  for n in (3, 4, 10, 99, 1000):
    for part in (1e-9, 0.05, 0.2, 0.499):
      split_of = corpus_making._split_books(n, part)
      assert len(split_of) == n and set(split_of) == set(SPLITS)
      size = min(max(1, round(part * n)), (n - 1) // 2)
      assert split_of.count("validation") == split_of.count("test") == size
      assert split_of == corpus_making._split_books(n, part)
  split_of = corpus_making._split_books(20, 0.1)
  found = [[i for i, s in enumerate(split_of) if s == name] for name in SPLITS]
  assert found[1:] == [[0, 19], [8, 9]]


# --- Numbers ---


@pytest.mark.parametrize("words", [65_533, 65_534, 65_535])
def test_numbers_that_need_more_than_two_bytes_get_them(words):
  vocabulary = Vocabulary(tuple(f"w{i}" for i in range(words)))
  last = words - 1
  raw = {
    "words": np.frombuffer(f"w0\nw{last}\nnone".encode(), np.uint8),
    "tokens": np.array([0, 1, 2, 1], np.int32),
    "lengths": np.array([1, 2, 1, 0, 0]),
    "books": np.array([0]),
  }
  found = corpus_making._encoded(
    Options("text", words, 5, 0.1), vocabulary, raw, {"last_book": 1}, ["train"]
  )
  big = words + 2 > 1 << 16
  assert found["tokens"].dtype == (np.int32 if big else np.uint16)
  assert found["tokens"].tolist() == [2, words + 1, UNKNOWN, words + 1]
  of = Triples(
    [found["tokens"]],
    [found["starts"]],
    [found["train"]],
    np.array([[0, 0, 1, 0, 0, 0]]),
  )
  batch = of.batch(np.array([0]), 3)
  assert batch["current"].tolist() == [[words + 1, UNKNOWN, END]]
  assert batch["next"].tolist() == [[words + 1, END, END]]


# --- Made once, and whole ---


class Killed(BaseException):
  """Not an Exception, as a signal is none."""


def files_of(cache, contents):
  """The files of the one corpus, but for the lock."""
  return contents(made(cache))


@pytest.mark.parametrize("after", [0, 1, 4, 7, 11, 12])
def test_one_who_was_killed_goes_on_where_it_was(
  after, folder, monkeypatch, cache, contents, whole
):
  stream, calls = books.stream, []

  def dies(*given, **options):
    for i, book in enumerate(stream(*given, **options)):
      if i == after:
        raise Killed
      yield book
    raise Killed

  def counts(*given, first):
    calls.append([first, 0])
    for book in stream(*given, first=first):
      calls[-1][1] += 1
      yield book

  monkeypatch.setattr(books, "stream", dies)
  with pytest.raises(Killed):
    corpus.load(RANDOM, folder)
  raw = sorted(made(cache).iterdir())
  times = {path: path.stat().st_mtime_ns for path in raw}
  assert all(path.name.startswith("raw-") for path in raw)
  assert len(raw) >= after // 5
  monkeypatch.setattr(books, "stream", counts)
  replaced = []
  replace = os.replace
  monkeypatch.setattr(
    os, "replace", lambda a, b: (replaced.append(b), replace(a, b))
  )
  corpus.load(RANDOM, folder)
  assert not set(times) & set(replaced)
  ((first, n),) = calls
  assert first + n == 12 and (first > 0) == bool(raw)
  assert contents(made(cache)) == whole


def test_one_who_was_killed_later_reads_no_text_again(
  folder, monkeypatch, cache, contents, whole
):
  encoded = corpus_making._encoded

  def dies(*given):
    if (made(cache) / "tokens-00001.npy").exists():
      raise Killed
    return encoded(*given)

  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(corpus_making, "_encoded", dies)
    corpus.load(RANDOM, folder)
  with monkeypatch.context() as patch:
    patch.setattr(books, "stream", None)
    corpus.load(RANDOM, folder)
  assert contents(made(cache)) == whole


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_what_a_power_cut_left_is_read_again(
  shard, damage, folder, monkeypatch, cache, contents, whole
):
  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(corpus_making, "_vocabulary", dies_at_once)
    corpus.load(RANDOM, folder)
  path = made(cache) / f"raw-{shard:05d}.npz"
  data = path.read_bytes()
  path.write_bytes(damaged(data, damage))
  corpus.load(RANDOM, folder)
  assert contents(made(cache)) == whole


def dies_at_once(*_):
  raise Killed


def damaged(data, how):
  middle = len(data) // 2
  return {
    "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    "cut": data[:-7],
    "longer": data + b"\n",
    "empty": b"",
  }[how]


FILES = ("corpus.json", "vocabulary.txt", "tokens-00001.npy")
FILES += ("starts-00000.npy", "train-00000.npy", "test-00001.npy")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_damage_is_noticed_and_all_is_made_again(
  name, damage, folder, monkeypatch, cache, contents
):
  monkeypatch.setattr(corpus_making, "SHARD_WORDS", 100)
  corpus.load(RANDOM, folder)
  whole = contents(made(cache))
  path = made(cache) / name
  if damage == "gone":
    path.unlink()
  else:
    path.write_bytes(damaged(whole[name], damage))
  with pytest.raises(DataError) as caught:
    corpus.Corpus(made(cache))
  assert str(path) in said(caught)
  corpus.load(RANDOM, folder)
  assert contents(made(cache)) == whole


@pytest.mark.parametrize(
  "record",
  [
    b"[]",
    b"{}",
    b"null",
    b'"a"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"sha256": 1}',
  ],
)
def test_a_record_that_is_none_is_noticed(record, folder, cache, contents):
  corpus.load(RANDOM, folder)
  whole = contents(made(cache))
  (made(cache) / corpus.RECORD).write_bytes(record)
  with pytest.raises(DataError) as caught:
    corpus.Corpus(made(cache))
  assert "corpus.json: " in said(caught)
  corpus.load(RANDOM, folder)
  assert contents(made(cache)) == whole


def test_another_number_in_the_record_is_noticed(folder, cache):
  corpus.load(RANDOM, folder)
  path = made(cache) / corpus.RECORD
  record = json.loads(path.read_text())
  record["shards"][0]["lengths"]["train"][4] += 1
  path.write_text(json.dumps(record))
  with pytest.raises(DataError, match="its fingerprint is not that of its"):
    corpus.Corpus(made(cache))


def test_what_is_there_and_whole_is_not_made_again(
  folder, monkeypatch, cache, contents
):
  first = corpus.load(RANDOM, folder)
  whole = contents(made(cache))
  assert not any(name.startswith("raw-") for name in whole)
  monkeypatch.setattr(corpus_making, "make", None)
  second = corpus.load(RANDOM, folder)
  assert second.fingerprint == first.fingerprint
  assert second.record == first.record
  assert contents(made(cache)) == whole


@pytest.mark.parametrize("state", ["none", "damaged", "half"])
def test_threads_at_once_make_it_once(
  state, folder, monkeypatch, cache, contents, whole
):
  if state != "none":
    corpus.load(RANDOM, folder)
    path = made(cache) / (
      "train-00000.npy" if state == "damaged" else "corpus.json"
    )
    path.unlink()
  make, calls = corpus_making.make, []
  monkeypatch.setattr(
    corpus_making, "make", lambda *given: (calls.append(1), make(*given))
  )
  together = threading.Barrier(4)

  def load(_):
    together.wait()
    return corpus.load(RANDOM, folder).fingerprint

  with ThreadPoolExecutor(4) as pool:
    assert len(set(pool.map(load, range(4)))) == 1
  assert len(calls) == 1
  assert contents(made(cache)) == whole


def test_processes_at_once_make_one_whole_corpus(
  folder, cache, contents, again
):
  alone, other = again(RANDOM, folder)
  code = (
    "from lnrnn.data import corpus\n"
    f"options = corpus.Options(*{tuple(RANDOM)!r})\n"
    f"print(corpus.load(options, {folder!r}).fingerprint)"
  )
  started = [
    subprocess.Popen(
      [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE
    )
    for _ in range(2)
  ]
  told = [process.communicate()[0].decode().strip() for process in started]
  assert told == [alone.fingerprint] * 2
  assert contents(made(cache)) == contents(made(other))


def test_the_fingerprint_tells_texts_and_options_apart(
  folder, tmp_path, drawn, again
):
  same = tmp_path / "elsewhere"
  write_files(same, drawn[1])
  first = again(RANDOM, folder)[0].fingerprint
  assert again(RANDOM, str(same))[0].fingerprint == first
  found = {first}
  for change in (
    {"vocabulary": 19},
    {"max_words": 7},
    {"held_out": 0.21},  # As many books.
    {"held_out": 0.1},
  ):
    found.add(corpus.load(RANDOM._replace(**change), folder).fingerprint)
  text = drawn[1]["05.txt"]
  for other in (text + b" More.", text.replace(b"w1", b"w2", 1)):
    (same / "05.txt").write_bytes(other)
    found.add(corpus.load(RANDOM, str(same)).fingerprint)
  assert len(found) == 7


def test_the_memory_of_a_shard_is_free_when_it_is_written(tmp_path):
  lines = [b"word%d\n" % i for i in range(2000)]
  gc.collect()
  gc.disable()  # It does not come by in time for millions of words.
  tracemalloc.start()
  try:
    held = []
    for _ in range(10):
      shard = corpus_making._Shard(8, 0)
      shard.add(books.Book("a", lines, "lines"))
      shard.write(tmp_path / "a.npz", whole=True)
      held.append(tracemalloc.get_traced_memory()[0])
    del shard
    assert tracemalloc.get_traced_memory()[0] < held[1] / 2
  finally:
    tracemalloc.stop()
    gc.enable()
  assert held[-1] < 1.2 * held[1]


# --- Too little ---


def test_with_too_few_books_one_line_says_so_and_more_will_do(tmp_path, drawn):
  names = list(drawn[1])
  for n in (1, 2):
    write_files(tmp_path, {names[n]: drawn[1][names[n]]})
    for _ in range(2):
      with pytest.raises(DataError) as caught:
        corpus.load(RANDOM, str(tmp_path))
      where = tmp_path / names[1] if n == 1 else tmp_path
      assert said(caught) == (
        f"{where}: has {n} books; 3 at least are needed, as some are held out"
      )
  write_files(tmp_path, drawn[1])
  assert corpus.load(RANDOM, str(tmp_path)).record["books"] == 12


@pytest.mark.parametrize("content", [b"", b"\n" * 600, b"one\n" * 1000])
def test_with_too_few_lines_one_line_says_so(content, tmp_path):
  write_files(tmp_path, {"a.txt": content})
  n = -(-content.count(b"\n") // 500)
  for _ in range(2):
    with pytest.raises(DataError) as caught:
      corpus.load(RANDOM._replace(source="lines"), str(tmp_path))
    assert said(caught).startswith(
      f"{tmp_path / 'a.txt'}: has {n} blocks of 500 lines; 3 at least"
    )


@pytest.mark.parametrize(
  ("lengths", "split"),
  [((9, 9, 9), "train"), ((3, 9, 3), "validation"), ((3, 3, 9), "test")],
)
def test_a_split_without_a_triple_is_told_in_one_line(
  lengths, split, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    corpus_making, "_split_books", lambda n, part: list(SPLITS)
  )
  held = {
    f"{i}.txt": b"Word %s.\n" % (b"word " * n) * 4
    for i, n in enumerate(lengths)
  }
  write_files(tmp_path, held)
  for _ in range(2):
    with pytest.raises(DataError) as caught:
      corpus.load(RANDOM, str(tmp_path))
    line = said(caught)
    assert line.startswith(
      f"{tmp_path}: what is for {split} has no three sentences in a row of at"
      " most 8 words; left out: "
    )
    assert line.endswith(" sentences of more than 8 words")
  assert (
    len(corpus.load(RANDOM._replace(max_words=11), str(tmp_path)).splits[split])
    == 2
  )


@pytest.mark.parametrize("content", [b"", b"\n\n", b"... --\n\n!"])
def test_books_without_a_word_are_told_in_one_line(content, tmp_path):
  write_files(tmp_path, {f"{i}.txt": content for i in range(3)})
  with pytest.raises(DataError) as caught:
    corpus.load(RANDOM, str(tmp_path))
  assert "what is for train has no three sentences" in said(caught)


def test_without_a_cache_it_is_made_for_the_time_of_the_process(
  folder, cache, tmp_path
):
  kept = corpus.load(RANDOM, folder)
  shutil.rmtree(cache)
  cache.write_bytes(b"")
  found = corpus.load(RANDOM, folder)
  assert found.fingerprint == kept.fingerprint
  assert len(found.splits["train"]) == len(kept.splits["train"])


def test_without_any_place_for_it_one_line_says_so(folder, cache, monkeypatch):
  cache.write_bytes(b"")
  monkeypatch.setattr(tempfile, "tempdir", str(cache))
  with pytest.raises(DataError) as caught:
    corpus.load(RANDOM, folder)
  assert said(caught).startswith(f"{cache}/corpus-")
  assert "cannot be written" in said(caught)


# --- Real books ---


def test_the_embedded_book_gives_the_triples_that_the_config_counts():
  data = corpus.load(Options("embedded", 2000, 29, 0.05))
  assert data.record["books"] == 6 and len(data.splits["train"]) == 230


@pytest.mark.long
def test_the_novels_give_the_triples_that_the_config_counts(data_dir, cache):
  if not (data_dir / "novels").is_dir():
    pytest.skip("no novels")
  data = corpus.load(Options("novels", 10_000, 29, 0.05), str(data_dir))
  assert data.record["books"] == 99 and len(data.vocabulary) == 10_000
  assert data.record["held_out_books"] == {"validation": 5, "test": 5}
  assert len(data.splits["train"]) == 298_410
  assert len(data.record["shards"]) > 1
  shutil.rmtree(cache)  # 30 MB.
