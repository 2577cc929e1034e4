"""Numbered text: stories of bAbI and CNN's top sentences; made-up and real."""

import collections
import io
import random
import tarfile

import pytest

from lnrnn.data import numbered_text, vocabulary
from lnrnn.data.cloze import ENTITY, PLACEHOLDER, Question
from lnrnn.data.numbered_text import parse, read_babi, read_top4
from lnrnn.errors import ConfigError, DataError

TOP = (
  "1 @entity1 left on 3 a . m .\n"
  '2 " It\'s over , " said @entity2\n'
  '3 what @placeholder said : " over " ? \t@entity2\t0\n'
  "1 nothing of @entity7\n"
  "2 @placeholder was nothing ? \t@entity7\t0\n"
)
STORIES = (
  "1 Ann took the milk.\n"
  "2 Where is the milk? \tGarden\t1\n"
  "3 Bob's here.\n"
  "4 What is Ann carrying?\tmilk,Football\t1 3\n"
  "1 All is well.\n"
  "2 Is it?\tyes\n"
)
READ = [
  Question(
    [["ann", "took", "the", "milk"]], ["where", "is", "the", "milk"], "garden"
  ),
  Question(
    [["ann", "took", "the", "milk"], ["bob's", "here"]],
    ["what", "is", "ann", "carrying"],
    "milk,football",
  ),
  Question([["all", "is", "well"]], ["is", "it"], "yes"),
]
NAMES = {"train": "qa2_two-facts_train.txt", "test": "qa2_two-facts_test.txt"}


@pytest.fixture
def top(tmp_path):
  """data -> the questions in a file of these bytes."""

  def read(data):
    path = tmp_path / "top.txt"
    path.write_bytes(data)
    return read_top4(path)

  return read


def write(folder, members, kind=""):
  """Files in a folder, or in a tar of some compression."""
  folder.mkdir(exist_ok=True)
  if kind == "tree":
    for name, data in members.items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
    return folder
  ending = f".{kind}" if kind else ""
  path = folder / f"tasks.tar{ending}"
  with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore
    for name, data in members.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return folder


def task(where="en/", **changes):
  """The members of task 2."""
  texts = {"train": STORIES.encode(), "test": STORIES.encode(), **changes}
  return {where + NAMES[part]: data for part, data in texts.items()}


# --- What is read ---


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_records_end_where_the_numbers_start_again(top, mark, line_end, last):
  data = (TOP if last else TOP[:-1]).encode().replace(b"\n", line_end)
  first, second = top(mark + data)
  assert first.sentences == [
    ["@entity1", "left", "on", "3", "a", ".", "m", "."],
    ['"', "It's", "over", ",", '"', "said", "@entity2"],
  ]
  assert " ".join(first.query) == 'what @placeholder said : " over " ?'
  assert second == Question(
    [["nothing", "of", "@entity7"]],
    ["@placeholder", "was", "nothing", "?"],
    "@entity7",
  )


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz", "tree"])
@pytest.mark.parametrize("where", ["en/", "./en/", "tasks_v1-2/en/", ""])
def test_a_question_has_all_statements_before_it_and_no_questions(
  tmp_path, kind, where
):
  members = {
    "tasks/en-10k/qa2_two-facts_train.txt": b"other",
    where + "qa20_other_train.txt": b"other",
    where + "._qa2_two-facts_train.txt": b"\xff",
    where.replace("en/", "") + "LICENSE.txt": b"other",
    **task(where),
  }
  found = read_babi(write(tmp_path / "babi", members, kind), 2)
  assert found == {"train": READ, "test": READ}


def test_the_folder_may_be_the_one_of_the_language(tmp_path):
  write(tmp_path, task("en/"), "tree")
  assert read_babi(tmp_path / "en", 2)["test"] == READ


def test_questions_do_not_share_their_lists_of_statements():
  first, second, _ = parse(STORIES.encode(), "a.txt")
  assert len(first.sentences) == 1 and len(second.sentences) == 2


# --- What is refused ---


@pytest.mark.parametrize(
  ("old", "new", "told"),
  [
    (TOP, "", ": the file is empty"),
    ("over ,", "\udcff", ", line 2: the text is not UTF-8"),
    ("1 @entity1", "2 @entity1", ", line 1: begins with '2', not with the nu"),
    ("2 \" It's", "3 \" It's", ", line 2: begins with '3', not with the num"),
    ("3 what", "4 what", ", line 3: begins with '4', not with the number 3 or"),
    ("3 what", "2 what", ", line 3: begins with '2', not with the number 3 or"),
    ("3 what", "what", ", line 3: begins with 'what', not with the number 3"),
    ("3 what", "03 what", ", line 3: begins with '03', not with the number"),
    ("\n1 nothing", "\n\n1 nothing", ", line 4: is empty"),
    ("@entity7\t0\n", "@entity7\t0\n\n", ", line 6: is empty"),
    ("? \t@entity7\t0", "?\t\t0", ", line 5: the question has no answer"),
    ("? \t@entity7\t0", "?\t ", ", line 5: the question has no answer"),
    ("\t@entity7\t", "\ta b\t", ", line 5: the question has several words fo"),
    ("@placeholder was", "was", ", line 5: the question has no @placeholder"),
    (" \t@entity7\t0", "", ", line 4: the story that begins here has no quest"),
    (" \t@entity2\t0", "", ", line 1: the story that begins here has no quest"),
    ("1 nothing of @entity7", "1 ", ", line 4: has no word"),
    ("1 nothing of @entity7\n2", "1", ", line 4: the question has no statem"),
  ],
)
def test_a_fault_is_told_in_one_line_with_its_place(top, old, new, told):
  assert TOP.count(old) == 1
  data = TOP.replace(old, new).encode("utf-8", "surrogateescape")
  with pytest.raises(DataError) as caught:
    top(data)
  assert f"top.txt{told}" in str(caught.value)
  assert str(caught.value).isprintable()


def test_a_file_that_is_missing_is_told(tmp_path):
  with pytest.raises(DataError, match=r"none\.txt: no such file"):
    read_top4(tmp_path / "none.txt")
  with pytest.raises(DataError, match="cannot be read: .*Is a directory"):
    read_top4(tmp_path)


@pytest.mark.parametrize("number", [0, 21, -1])
def test_a_task_that_there_is_not_is_refused(tmp_path, number):
  with pytest.raises(
    ConfigError, match=rf"data\.task: {number} is not allowed: 1 to 20"
  ):
    read_babi(tmp_path, number)


@pytest.mark.parametrize("kind", ["", "tree"])
def test_faults_of_a_folder_of_tasks_are_told(tmp_path, kind):
  def told(name, members):
    with pytest.raises(DataError) as caught:
      read_babi(write(tmp_path / name, members, kind), 2)
    assert str(caught.value).isprintable()
    return str(caught.value)

  members = task()
  assert "has no en/qa2_*_train.txt, nor a tar" in told("a", {"b": b""})
  del members["en/" + NAMES["test"]]
  assert "has no en/qa2_*_test.txt" in told("b", members)
  assert "there is" in told("c", {**task(), **task("more/en/")})
  bad = told("d", task(test=b"1 a.\n3 b?\tc\t1"))
  assert f"{NAMES['test']}, line 2: begins with '3'" in bad


def test_faults_of_archives_of_tasks_are_told(tmp_path):
  with pytest.raises(DataError, match=r"has no en/qa2_\*_train"):
    read_babi(tmp_path / "none", 2)
  write(tmp_path, task(), "gz")
  write(tmp_path, task(), "xz")
  with pytest.raises(DataError, match="archives: tasks.tar.gz, tasks.tar.xz"):
    read_babi(tmp_path, 2)
  (tmp_path / "tasks.tar.gz").unlink()
  data = (tmp_path / "tasks.tar.xz").read_bytes()
  (tmp_path / "tasks.tar.xz").write_bytes(data[: len(data) // 2])
  with pytest.raises(DataError, match="tasks.tar.xz: cannot be unpacked"):
    read_babi(tmp_path, 2)


def test_no_mutation_gives_anything_but_questions_or_one_line():
  draw = random.Random(0)
  parts = [b"\n", b"\n1 ", b"\t", b"\r", b"\0", b"\xff", b"\xc3", b"9" * 99]
  parts += [b" ", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\n2 ", b"."]
  read = 0
  for i in range(10_000):
    top = i % 2 == 0
    data = bytearray((TOP if top else STORIES).encode())
    for _ in range(draw.randint(1, 3)):
      at = draw.randrange(len(data) + 1)
      until = at + draw.choice([0, 0, 1, 2, 30])
      data[at:until] = draw.choice([*parts, b"", bytes([draw.randrange(256)])])
    try:
      if top:
        found = parse(bytes(data), "a.txt", asked=PLACEHOLDER)
      else:
        found = parse(bytes(data), "a.txt", tokens=vocabulary.words)
    except DataError as error:
      assert str(error).isprintable() and len(str(error)) < 400
    else:
      read += 1
      assert found
      for question in found:
        assert question.sentences and all(question.sentences)
        assert question.query and len(question.answer.split()) == 1
  assert 2_000 < read < 8_000


# --- The real files ---


def test_the_real_top_sentences_have_the_questions_that_are_known(data_dir):
  path = data_dir / "cnn_questions" / "cnn_top4_200_questions.txt"
  if not path.is_file():
    pytest.skip(f"no {path}: no real CNN questions")
  found = read_top4(path)
  assert len(found) == 200
  assert {len(question.sentences) for question in found} == {4}
  for question in found:
    assert any(question.answer in words for words in question.sentences)
    assert question.query.count(PLACEHOLDER) == 1
    assert ENTITY.fullmatch(question.answer)


def test_the_real_tasks_have_1000_questions_each_way(data_dir):
  folder = data_dir / "babi"
  if not folder.is_dir():
    pytest.skip(f"no {folder}: no real bAbI")
  answers = collections.Counter()
  for number in numbered_text.TASKS:
    found = read_babi(folder, number)
    assert {part: len(held) for part, held in found.items()} == {
      "train": 1_000,
      "test": 1_000,
    }
    answers.update(question.answer for question in found["train"])
    words = {
      word
      for question in found["train"]
      for words in question.sentences
      for word in words
    }
    assert all(word.isalpha() and word.islower() for word in words)
  assert answers["s,w"] and answers["apple,milk"] and answers["mary"]
