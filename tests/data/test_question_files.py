"""`.question` files: what is read, refused, left out; made-up files."""

import random
import re
import tracemalloc

import pytest

from lnrnn.data import question_files
from lnrnn.data.cloze import Question
from lnrnn.data.question_files import Skipped, files, parse, sentences, stream
from lnrnn.errors import DataError

SECTIONS = {
  "url": "http://news.example/é",
  "context": '@entity3 met @entity0 . " where ? " asked @entity12 today',
  "query": "@placeholder asked @entity0 a question",
  "answer": "@entity12",
  "entities": "@entity0:Ann Lee\n@entity3:B: the band\n@entity12:Çelik",
}
GOOD = Question(
  [
    ["@entity3", "met", "@entity0", ".", '"'],
    ["where", "?", '"'],
    ["asked", "@entity12", "today"],
  ],
  ["@placeholder", "asked", "@entity0", "a", "question"],
  "@entity12",
)


def content(**changes):
  """A good file's bytes, with sections changed, or left out by None."""
  held = {**SECTIONS, **changes}
  return "\n\n".join(v for v in held.values() if v is not None).encode()


def refused(data):
  """What is said on it, behind the file's name."""
  with pytest.raises(DataError) as caught:
    parse(data, "a.question")
  told = str(caught.value)
  assert told.startswith("a.question") and told.isprintable()
  assert len(told) < 400
  return told.removeprefix("a.question")


def write(folder, named):
  """Files by their names."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in named.items():
    (folder / name).write_bytes(data)
  return folder


# --- What is read ---


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\n"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_change_nothing(mark, line_end, end):
  data = mark + (content() + end).replace(b"\n", line_end)
  assert parse(data, "a.question") == GOOD


@pytest.mark.parametrize(
  ("text", "cut"),
  [
    ("a b . c", ["a b .", "c"]),
    ("a ? b ! c .", ["a ?", "b !", "c ."]),
    ("a . \" b . '' c", ['a . "', "b . ''", "c"]),
    ("a . ' \" b", ["a . ' \"", "b"]),
    ("a ? ! . . . b", ["a ? ! . . .", "b"]),
    ('" a " b .', ['" a " b .']),
    ("u.s. mr. a.", ["u.s. mr. a."]),
    (". a", [".", "a"]),
    ("", []),
  ],
)
def test_sentences_end_at_marks_with_the_quotes_after_them(text, cut):
  found = sentences(text.split())
  assert found == [part.split() for part in cut]


def test_blanks_around_tokens_do_not_count():
  data = content(context="  a\u00a0b  @entity12\t. ", answer=" @entity12 ")
  found = parse(data, "a.question")
  assert found.sentences == [["a", "b", "@entity12", "."]]
  assert found.answer == "@entity12"


def test_an_answer_that_the_context_lacks_is_allowed():
  found = parse(content(context="nobody is here ."), "a.question")
  assert found.answer == "@entity12"


def test_a_query_may_have_several_placeholders():
  found = parse(content(query="@placeholder or @placeholder ?"), "a.question")
  assert found.query.count("@placeholder") == 2


# --- What is refused ---


@pytest.mark.parametrize(
  ("data", "told"),
  [
    (b"", ": the file is empty"),
    (b"\xef\xbb\xbf \r\n\n", ": the file is empty"),
    (content().replace(b"met", b"m\xff"), ", line 3: the text is not UTF-8"),
    (content()[:-4] + b"\xc3", ", line 11: the text is not UTF-8"),
    (b"\xef\xbb\xbfa\n\n\xff", ", line 3: the text is not UTF-8"),
    (content(url=None), ", line 7: a section is missing: there are 4, not"),
    (content(context=None), ", line 7: a section is missing: there are 4, not"),
    (content(entities=None), ", line 7: there is no list of entities after"),
    (content(answer=None, entities=None), ", line 5: a section is missing"),
    (b"one line", ", line 1: a section is missing: there are 1, not URL, cont"),
    (content(more="more"), ", line 13: a section is too many: there are 6"),
    (content(entities="@entity12:A\n\n@entity1:B"), ", line 11: a section is"),
    (content(url=""), ", line 1: the URL is empty"),
    (content(context=""), ", line 3: the context is empty"),
    (content(context=" \t"), ", line 3: the context is empty"),
    (content(query=""), ", line 5: the query is empty"),
    (content(answer=""), ", line 7: the answer is empty"),
    (content(context="a\nb"), ", line 3: the context is not one line"),
    (content(answer="@entity3\n@entity12"), ", line 7: the answer is not one"),
    (content(query="who is it"), ", line 5: the query has no @placeholder"),
    (content(query="@placeholder's"), ", line 5: the query has no @placehol"),
    (content(answer="Ann"), ", line 7: the answer is no @entityN: Ann"),
    (content(answer="@entity"), ", line 7: the answer is no @entityN: @entit"),
    (content(answer="@entity3 a"), ", line 7: the answer is no @entityN: @en"),
    (content(answer="@entity²"), ", line 7: the answer is no @entityN: @entit"),
    (
      content(answer="@entity99999"),
      ", line 7: the answer has a number that is none of 0 to 9999: @entity9",
    ),
    (
      content(answer="@entity" + "9" * 9999),
      ", line 7: the answer has a number that is none of 0 to 9999: @entity9",
    ),
    (content(answer="@entity012"), ", line 7: the answer has a number that is"),
    (
      content(answer="@entity5"),
      ", line 7: the answer is not in the list of entities: @entity5",
    ),
    (
      content(entities="@entity12:A\nB"),
      ", line 10: a line of the list of entities is not @entityN:name: 'B'",
    ),
    (content(entities="@entity12:"), ", line 9: a line of the list of entit"),
    (content(entities="Ann:A"), ", line 9: a name that is listed is no @enti"),
    (
      content(entities="@entity12:A\n@entity10000:B"),
      ", line 10: a name that is listed has a number that is none of 0 to 9999",
    ),
    (
      content(entities="@entity12:A\n@entity1:B\n@entity12:C"),
      ", line 11: an entity is listed twice: @entity12",
    ),
  ],
)
def test_a_fault_is_told_with_its_line(data, told):
  assert refused(data).startswith(told)
  # Nor do line ends change what is said.
  assert refused(data.replace(b"\n", b"\r\n")).startswith(told)


def test_no_mutation_gives_anything_but_a_question_or_one_line():
  draw = random.Random(0)
  good, read = content() + b"\n", 0
  parts = [b"\n", b"\n\n", b"\r", b"\0", b"\xff", b"\xc3", b"@entity", b":"]
  parts += [b"@placeholder", b"9" * 99, b" ", b"\xe2\x80\xa8", b"\xef\xbb\xbf"]
  for _ in range(10_000):
    data = bytearray(good)
    for _ in range(draw.randint(1, 3)):
      at = draw.randrange(len(data) + 1)
      until = at + draw.choice([0, 0, 1, 2, 30])
      data[at:until] = draw.choice([*parts, b"", bytes([draw.randrange(256)])])
    try:
      found = parse(bytes(data), "a.question")
    except DataError as error:
      assert str(error).isprintable() and len(str(error)) < 400
    else:
      read += 1
      assert all(found.sentences) and "@placeholder" in found.query
      assert re.fullmatch("@entity[0-9]{1,4}", found.answer)
      tokens = [*found.query, *sum(found.sentences, [])]
      assert not any(re.search(r"\s", token) for token in tokens)
  assert 2_000 < read < 8_000


# --- Folders ---


def test_files_are_those_of_the_ending_in_the_order_of_their_names(tmp_path):
  folder = write(
    tmp_path,
    {
      name: b""
      for name in ("b.question", "a.question", "c.txt", "._b.question")
    },
  )
  (folder / "d.question").mkdir()
  assert files(folder) == [folder / "a.question", folder / "b.question"]


def test_a_folder_without_files_is_told(tmp_path):
  with pytest.raises(DataError, match=r"has no \.question files"):
    files(tmp_path)
  with pytest.raises(DataError, match="cannot be read: .*No such file"):
    files(tmp_path / "none")
  with pytest.raises(DataError, match=r"has no \.question files"):
    next(stream(tmp_path, strict=False, report=Skipped()))


@pytest.mark.parametrize("place", ["", "questions", "cnn/questions"])
def test_the_folders_of_the_splits_are_found(tmp_path, place):
  for split in ("test", "training", "validation"):
    (tmp_path / place / split).mkdir(parents=True)
  found = question_files.split_folders(tmp_path)
  assert list(found) == ["training", "validation", "test"]
  assert found["test"] == tmp_path / place / "test"


def test_folders_of_splits_that_are_not_there_are_told(tmp_path):
  with pytest.raises(DataError, match="has no folders training, validation"):
    question_files.split_folders(tmp_path)
  for split in ("training", "test"):
    (tmp_path / "questions" / split).mkdir(parents=True)
  with pytest.raises(DataError, match="questions/validation: no such folder"):
    question_files.split_folders(tmp_path)


# --- Streams ---


def test_a_stream_has_the_questions_in_the_order_of_the_names(tmp_path):
  folder = write(
    tmp_path,
    {f"{i}.question": content(context=f"file {i} .") for i in (3, 1, 2)},
  )
  found = [question.sentences[0][1] for question in stream(folder)]
  assert found == ["1", "2", "3"]


def test_the_first_bad_file_ends_a_strict_stream(tmp_path):
  named = {"a.question": content(), "b.question": content(query="who")}
  found = stream(write(tmp_path, {**named, "c.question": b""}))
  assert next(found) == GOOD
  with pytest.raises(DataError, match=r"b\.question, line 5: the query has no"):
    next(found)


def test_a_lenient_stream_counts_what_it_leaves_out(tmp_path, monkeypatch):
  monkeypatch.setattr(question_files, "_MAX_BYTES", 1_000)
  folder = write(
    tmp_path,
    {
      "a.question": content(answer="Ann"),
      "b.question": content(),
      "c.question": content(answer="Bob"),
      "d.question": b"a\n\nb",
      "e.question": content(context="a " * 1_000),
    },
  )
  report = Skipped()
  assert list(stream(folder, strict=False, report=report)) == [GOOD]
  assert report.counts == {
    "the answer is no @entityN": 2,
    "a section is missing": 1,
    "the file has more than 1,000 bytes": 1,
  }
  assert report.lines() == [
    "2 files left out, as the answer is no @entityN; the first is"
    f" {folder}/a.question, line 7",
    "1 file left out, as a section is missing; the first is"
    f" {folder}/d.question, line 3",
    "1 file left out, as the file has more than 1,000 bytes; the first is"
    f" {folder}/e.question",
  ]


def test_a_file_that_cannot_be_read_is_a_bad_file(tmp_path, monkeypatch):
  folder = write(tmp_path, {"a.question": content(), "b.question": content()})
  names = question_files._names

  def gone(place):
    found = names(place)
    (folder / "a.question").unlink()
    (folder / "a.question").mkdir()
    return found

  monkeypatch.setattr(question_files, "_names", gone)
  report = Skipped()
  assert list(stream(folder, strict=False, report=report)) == [GOOD]
  assert report.lines() == [
    "1 file left out, as the file cannot be read (Is a directory); the first"
    f" is {folder}/a.question"
  ]


def test_a_name_of_a_file_cannot_break_the_line(tmp_path):
  folder = write(tmp_path, {"a\n\x1b[2J.question": b""})
  with pytest.raises(DataError) as caught:
    next(stream(folder))
  assert str(caught.value).isprintable()


def test_a_stream_keeps_no_questions(tmp_path):
  text = content(context="some words of a long context . " * 1_000)
  folder = write(tmp_path, {f"{i}.question": text for i in range(40)})
  one = parse(text, "a.question")
  tracemalloc.start()
  try:
    parse(text, "a.question")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    assert (
      sum(len(q.sentences) == len(one.sentences) for q in stream(folder)) == 40
    )
    # That which is read, that which was before, and the names.
    assert tracemalloc.get_traced_memory()[1] < 3 * most
  finally:
    tracemalloc.stop()
