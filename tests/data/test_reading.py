"""Questions of every source: what is read, told and refused; made-up files."""

import collections
import shutil

import numpy as np
import pytest
import question_writing
from question_writing import SIZES, write_babi, write_cnn, write_top4

from lnrnn.data import (
  batches,
  cloze,
  cloze_batches,
  deeds,
  question_files,
  reading,
)
from lnrnn.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(folder))
  return folder


def sizes(data):
  return {name: len(own.answers) for name, own in data.splits.items()}


def texts(data, split):
  """(passage, query, answer) of each question."""
  known = ("<eos>", "<unk>", *data.vocabulary.words)
  own = data.splits[split]

  def words(sentences, i):
    numbers = sentences.tokens[sentences.starts[i] : sentences.starts[i + 1]]
    return " ".join(known[n] for n in numbers)

  return [
    (words(own.passages, i), words(own.queries, i), known[answer])
    for i, answer in enumerate(own.answers)
  ]


def refused(error, *arguments, **options):
  """The one line that is told."""
  with pytest.raises(error) as caught:
    reading.load(*arguments, **options)
  line = str(caught.value)
  assert line.isprintable() and len(line) < 1000
  return line


# --- Any source ---


def test_a_source_that_there_is_not_is_refused_with_those_that_are(tmp_path):
  assert refused(ConfigError, "CNN", tmp_path) == (
    "data.source: 'CNN' is not allowed: one of embedded, novels, cnn,"
    " cnn_top4, babi"
  )


OTHERS = [source for source in reading.SOURCES if source != "embedded"]


@pytest.mark.parametrize("source", OTHERS)
def test_a_folder_that_is_missing_is_told(tmp_path, monkeypatch, source):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  line = refused(DataError, source)
  assert f"data.source={source} needs a directory: set LNRNN_DATA_DIR" in line
  assert "use data.source=embedded" in line
  line = refused(DataError, source, tmp_path / "nowhere")
  assert f"{tmp_path}/nowhere: no such directory" in line
  (tmp_path / "file").write_text("")
  assert "file: no such directory" in refused(
    DataError, source, tmp_path / "file"
  )


@pytest.mark.parametrize(
  ("source", "told"),
  [
    ("novels", "has no TEI novels: .xml files or archives (.tar, "),
    ("cnn", "has no folders training, validation, test, in it nor in quest"),
    ("cnn_top4", "one .txt file of questions is needed; there are: none"),
    ("babi", "has no en/qa1_*_train.txt, nor a tar archive with it; it is"),
  ],
)
def test_a_folder_that_is_empty_is_told(tmp_path, source, told):
  (tmp_path / "d").mkdir()
  assert refused(DataError, source, tmp_path / "d").startswith(
    f"{tmp_path}/d: {told}"
  )


def test_the_folder_may_be_the_one_of_all_data_or_of_the_environment(
  tmp_path, monkeypatch
):
  place = write_babi(tmp_path / "babi")
  first = reading.load("babi", place)
  assert reading.load("babi", tmp_path).fingerprint == first.fingerprint
  monkeypatch.setenv("LNRNN_DATA_DIR", str(tmp_path))
  assert reading.load("babi").fingerprint == first.fingerprint


# --- CNN ---


@pytest.fixture
def cnn(tmp_path):
  return write_cnn(tmp_path / "cnn")


@pytest.mark.parametrize("place", ["questions", "cnn/questions"])
def test_every_layout_of_the_questions_is_the_same_data(tmp_path, cnn, place):
  first = reading.load("cnn", cnn)
  other = reading.load("cnn", write_cnn(tmp_path / "other", place))
  assert sizes(first) == sizes(other) == SIZES
  assert first.fingerprint == other.fingerprint


def test_the_sentences_that_match_are_kept(cnn):
  data = reading.load("cnn", cnn, sentences=1)
  passage, query, answer = texts(data, "train")[2]
  assert passage == "@entity2 met @entity7 at the barn ."
  assert query == "@placeholder met @entity7 at the barn"
  assert answer == "@entity2"
  assert texts(reading.load("cnn", cnn), "train")[2][0].count(".") == 4
  assert texts(reading.load("cnn", cnn, sentences=0), "train")[2][0] == (
    "@entity7 slept 0 hours . @entity7 slept 1 hours . @entity7 slept 2 hours"
    " . @entity2 met @entity7 at the barn . @entity7 slept 4 hours . @entity7"
    " slept 5 hours ."
  )


def test_the_description_says_whose_questions_they_are(cnn):
  told = reading.load("cnn", cnn).description
  assert told.startswith(
    f"cnn in {cnn}: 7 train / 3 validation / 2 test questions, "
  )
  assert "8 entities (the paper's questions, sentences chosen by" in told
  assert "validation error: floor 0.0%, most frequent entity 0.0%" in told


def test_a_damaged_question_ends_it_or_is_left_out_and_counted(cnn, capsys):
  good = reading.load("cnn", cnn)
  for name, data in (
    ("training/a.question", b""),
    ("training/b.question", b""),
    ("test/z.question", question_writing.question(1)[:-40]),
  ):
    (cnn / name).write_bytes(data)
  for _ in range(2):  # What fails is not kept.
    line = refused(DataError, "cnn", cnn)
    assert line == f"{cnn}/training/a.question: the file is empty"
  told = capsys.readouterr()
  assert not told.err
  data = reading.load("cnn", cnn, strict=False)
  told = capsys.readouterr()
  assert not told.out
  assert told.err.splitlines()[0] == (
    f"{cnn}: 2 files left out, as the file is empty; the first is"
    f" {cnn}/training/a.question"
  )
  assert len(told.err.splitlines()) == 2
  assert sizes(data) == SIZES and data.fingerprint == good.fingerprint
  counts = (
    "; 2 files left out, as the file is empty, 1 files left out, as a line of"
    " the list of entities is not @entityN:name"
  )
  assert data.description.endswith(counts)
  # Nor are the counts lost by reading the cache.
  again = reading.load("cnn", cnn, strict=False)
  assert again.description == data.description
  # Nor is what was kept of the good ones taken for all.
  assert "training/a.question" in refused(DataError, "cnn", cnn)


def test_a_split_of_damaged_questions_alone_is_told_with_their_faults(cnn):
  for path in (cnn / "validation").iterdir():
    path.write_bytes(b"")
  line = refused(DataError, "cnn", cnn, strict=False)
  assert line == (
    f"cnn in {cnn}: split validation has no question; 3 files left out, as"
    " the file is empty"
  )


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_a_split_without_files_or_folder_is_told(cnn, split):
  for path in (cnn / split).iterdir():
    path.rename(path.with_suffix(".txt"))
  for strict in (True, False):
    line = refused(DataError, "cnn", cnn, strict=strict)
    assert line == f"{cnn}/{split}: has no .question files"
  shutil.rmtree(cnn / split)
  line = refused(DataError, "cnn", cnn)
  assert line == f"{cnn}/{split}: no such folder of .question files"


def test_questions_that_were_read_are_kept_until_a_file_changes(
  cnn, cache, monkeypatch
):
  first = reading.load("cnn", cnn)
  assert len(list(cache.glob("cnn-*.npz"))) == 1
  with monkeypatch.context() as patch:
    patch.setattr(question_files, "stream", None)  # Not called again.
    assert reading.load("cnn", cnn).fingerprint == first.fingerprint
  (cnn / "test" / "9.question").write_bytes(question_writing.question(8))
  assert sizes(reading.load("cnn", cnn)) == {**SIZES, "test": 3}


def test_a_question_that_moves_to_another_split_is_read_anew(cnn):
  reading.load("cnn", cnn)
  last = max((cnn / "training").iterdir())
  # The name is before all of the next folder's, so that the order is as it was.
  assert last.name == "0006.question"
  for path in (cnn / "validation").iterdir():
    path.rename(path.with_name("1" + path.name))
  reading.load("cnn", cnn)
  last.rename(cnn / "validation" / last.name)
  moved = {**SIZES, "train": 6, "validation": 4}
  assert sizes(reading.load("cnn", cnn)) == moved


def test_sizes_are_those_asked_for(cnn):
  data = reading.load("cnn", cnn, max_passage=5, most_words=2)
  assert data.splits["train"].passages.lengths.max() == 5
  assert len(data.vocabulary.words) == 1 + 8 + 2
  assert "12 passages cut to 5 words" in data.description
  line = refused(DataError, "cnn", cnn, max_query=5)
  assert "split train has no question; 7 queries above 5 words left" in line


# --- CNN's top sentences ---


def test_the_top_sentences_are_the_same_questions_in_every_split(tmp_path):
  data = reading.load("cnn_top4", write_top4(tmp_path / "cnn_questions"))
  assert sizes(data) == {"train": 3, "validation": 3, "test": 3}
  assert texts(data, "train") == texts(data, "test")
  assert texts(data, "train")[1] == (
    "@entity1 saw the well . @entity2 slept .",
    "@placeholder saw the well ?",
    "@entity1",
  )
  assert "the same questions in all splits" in data.description
  (tmp_path / "cnn_questions" / "._top.txt").write_bytes(b"of macOS")
  assert reading.load("cnn_top4", tmp_path).fingerprint == data.fingerprint


def test_which_text_has_the_questions_has_to_be_clear(tmp_path):
  write_top4(tmp_path)
  (tmp_path / "readme.txt").write_text("")
  line = refused(DataError, "cnn_top4", tmp_path)
  assert line.endswith("is needed; there are: readme.txt, top.txt")


def test_the_real_top_sentences_have_no_floor(data_dir):
  if not (data_dir / "cnn_questions").is_dir():
    pytest.skip("no real CNN questions")
  data = reading.load("cnn_top4", data_dir)
  assert sizes(data) == {"train": 200, "validation": 200, "test": 200}
  assert data.baselines["train"].floor == 0


# --- bAbI ---


def test_a_tenth_of_a_task_is_held_out_for_validation(tmp_path):
  data = reading.load("babi", write_babi(tmp_path))
  assert sizes(data) == {"train": 18, "validation": 2, "test": 10}
  assert data.entities[0] == data.entities[1] and not data.baselines
  every = texts(data, "train") + texts(data, "validation")
  expected = {
    (f"{who} went to the {thing}", f"where is {who}", thing)
    for who, thing in (
      (
        question_writing.PEOPLE[i % 7].lower(),
        question_writing.THINGS[i % 9],
      )
      for i in range(20)
    )
  }
  assert len(every) == len(expected) and set(every) == expected
  assert data.description.startswith(f"bAbI task 1 in {tmp_path}: 18 train")
  again = reading.load("babi", tmp_path)
  assert texts(again, "validation") == texts(data, "validation")


def test_a_task_is_the_one_asked_for(tmp_path):
  write_babi(tmp_path, 3)
  assert reading.load("babi", tmp_path, task=3)
  assert "has no en/qa2_*_train.txt" in refused(
    DataError, "babi", tmp_path, task=2
  )
  for task in (0, 21):
    assert f"data.task: {task} is not allowed: 1 to 20" in refused(
      ConfigError, "babi", tmp_path, task=task
    )


def test_the_real_tasks_are_split_900_100_1000(data_dir):
  if not (data_dir / "babi").is_dir():
    pytest.skip("no real bAbI")
  data = reading.load("babi", data_dir, task=2)
  assert sizes(data) == {"train": 900, "validation": 100, "test": 1000}
  held = data.splits
  assert held["train"].answers.max() < len(data.vocabulary)
  assert held["test"].passages.unknown == 0


# --- Generated deeds ---


def solved(question):
  """Whoever did what the query tells of; all who did."""
  told = set(question.query) - {cloze.PLACEHOLDER}
  return [words[0] for words in question.sentences if told <= set(words)]


def test_the_passage_of_a_deed_tells_its_one_answer():
  verbs, kinds = set(deeds._VERBS), set(deeds._OBJECTS)
  answers, lengths = collections.Counter(), collections.Counter()
  for question in deeds.questions(2_000, seed=5):
    assert len(question.sentences) == deeds.DEEDS
    assert solved(question) == [question.answer]
    people = [words[0] for words in question.sentences]
    assert len(set(people)) == deeds.DEEDS
    pairs = {
      (*verbs.intersection(words), *kinds.intersection(words))
      for words in question.sentences
    }
    assert len(pairs) == deeds.DEEDS
    answers[people.index(question.answer)] += 1
    lengths[len(question.query)] += 1
  # No place in the passage, nor a length of the query, tells anything.
  assert all(400 < n < 600 for n in answers.values()) and len(answers) == 4
  assert all(400 < n < 600 for n in lengths.values()) and len(lengths) == 4


def test_generated_deeds_are_the_same_always():
  data = reading.load()
  assert data.fingerprint == "d194cca6565c23e7"
  assert sizes(data) == deeds.SIZES
  assert data.entities == (3, 13) and len(data.vocabulary) == 41
  assert "generated deeds: 4,000 train" in data.description
  # There are no more sentences than 4.
  assert reading.load(sentences=0).fingerprint == data.fingerprint
  for own in data.baselines.values():
    assert own.floor == 0 and 0.7 < own.random < 0.8
    assert 0.7 < own.first < 0.8 and 0.7 < own.most_frequent < 0.8


def test_splits_of_generated_deeds_are_drawn_apart(monkeypatch):
  monkeypatch.setattr(deeds, "SIZES", dict.fromkeys(cloze.SPLITS, 40))
  data = reading.load()
  passages = [{text for text, *_ in texts(data, name)} for name in data.splits]
  assert sum(map(len, passages)) == len(set.union(*passages)) == 120


def test_deeds_are_dealt_out_in_batches_whatever_the_permutation():
  data = reading.load()
  found = cloze_batches.ClozeBatches(
    data.splits["train"],
    data.entities,
    batch_size=64,
    seed=0,
    fingerprint=data.fingerprint,
  )
  known = np.array(("<eos>", "<unk>", *data.vocabulary.words))
  batch = next(iter(batches.prefetched(found, [(3, 4)])))
  for i in range(64):
    passage = known[batch["passage"][0, i, : batch["passage_length"][0, i]]]
    query = known[batch["query"][0, i, : batch["query_length"][0, i]]]
    question = cloze.Question(
      question_files.sentences(passage.tolist()), query.tolist(), ""
    )
    assert solved(question) == [known[batch["answer"][0, i]]]
