"""Novels: XML, sentences, names and the cloze made of them; made-up books."""

import random
import zipfile

import numpy as np
import pytest
import question_writing
from question_writing import PEOPLE, novel, write_files

from lnrnn.data import cached, cloze, novels, prose, reading, tei
from lnrnn.data.novels import Book
from lnrnn.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(folder))
  return folder


@pytest.fixture
def folder(tmp_path, cache):
  return write_files(tmp_path / "novels", question_writing.novels())


def said(error):
  """One line."""
  text = str(error.value)
  assert text.isprintable() and len(text) < 1000
  return text


# --- Sentences and tokens ---


@pytest.mark.parametrize(
  "text",
  [
    "He came.|She left!|Did they?|Yes",
    "Mr. Brown met Dr. Green.|They spoke.",
    "Mrs. J. S. Mill wrote to St. Paul, viz. Minnesota.|Then all slept.",
    "So (Mr. Brown said—Mr. Green denied it.)|Good.",
    '"Go!" said he.|"Stay."|She sat.',
    "“What?”|“Nothing.”|‘Why?’ he said.",
    "Well… perhaps.|Well…|Perhaps.|Oh!!!|He went ...|Then he came.",
    "They had sugar, etc. Then some, e.g. Brown, left.|All, i.e. Green.",
    "He paid 5.|6 were left, 3.5 at least.",
    "(He left.)|[She stayed.]|Then all did.",
    "Stop!—Go on.|—And then?|“‘— Now.",
    "a.b. and c.d said no.",
    "It was late. but nobody minded.",
    "no mark at all",
    "...",
  ],
)
def test_sentences_end_where_the_rule_says(text):
  parts = text.split("|")
  assert prose.sentences(" ".join(parts)) == parts


def test_a_text_without_words_has_no_sentence():
  assert prose.sentences("") == prose.sentences("  ") == []


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Don't go—well-known “Anna’s” hat!", "Don't go well known Anna's hat !"),
    ("Mr. B. had 3.5, etc. now.", "Mr B had 3 5 etc now ."),
    ("Well...?", "Well ?"),
    ("Well...", "Well ."),
    ("What?! Yes!", "What ? Yes !"),
    ('"Stop!" said he.', "Stop ! said he ."),
    ("('tis the dogs' and 'Yes.'", "tis the dogs and Yes ."),
    ("“…” — !?.", ""),
    ("été_2 ÉTÉ.", "été_2 ÉTÉ ."),
  ],
)
def test_tokens_are_words_as_written_and_end_marks(text, expected):
  assert prose.tokens(text) == expected.split()


@pytest.mark.parametrize(
  "text",
  [
    "." * 200_000 + "a",
    "Mr. " * 100_000,
    "." + " " * 200_000 + "a",
    '."' * 50_000,
  ],
)
def test_long_runs_take_no_longer_than_their_length(text):
  # Minutes, were it the square of it.
  assert "".join(prose.sentences(text)) == text.strip()


# --- XML ---


def read(body, name=""):
  return tei.read("a.xml", question_writing.tei(body, name))


@pytest.mark.parametrize(
  ("body", "chapters"),
  [
    ("<div><p>one</p><p>two</p></div>", [["one", "two"]]),
    ("<p>one</p>", [["one"]]),
    ("<div><head>H</head><p>one</p><trailer>T</trailer></div>", [["one"]]),
    ("<p>a<note>n</note>b</p><note><p>n</p></note>", [["ab"]]),
    ("<p>a <note><p>n<note>n</note></p>n</note> b</p>", [["a b"]]),
    ("<p>a<figure><head>x</head><p>y</p></figure> b</p>", [["a b"]]),
    (
      "<div><p>a</p><div><p>b</p></div><div><p>c</p></div><p>d</p></div>",
      [["a"], ["b"], ["c"], ["d"]],
    ),
    ("<div><div/><div><head>H</head></div><p>a</p></div>", [["a"]]),
    ("<lg><l>a b</l><l>c</l></lg><ab>d</ab>", [["a b", "c", "d"]]),
    ('<p>wo<pb n="3"/>rd wo<milestone/>rd</p>', [["word word"]]),
    ("<p>a<lb/>b\n\t c </p><p> \n </p>", [["a b c"]]),
    ("<p>a <hi>b</hi><q>c</q></p>", [["a bc"]]),
    ("<p>a<q><p>b</p>c</q></p>", [["ab c"]]),
    ("<p>&lt;a&gt; &#233; <![CDATA[<p>]]></p>", [["<a> é <p>"]]),
    ("<t:div xmlns:t='x'><t:p>a</t:p></t:div>", [["a"]]),
    ("text <lb/><p>a</p> text", [["a"]]),
  ],
)
def test_a_book_is_its_paragraphs_in_chapters(body, chapters):
  found = read(body, "ENG1")
  assert found.chapters == chapters and found.name == "ENG1"


def test_a_book_may_have_no_name():
  assert read("<p>a</p>").name == ""


GOOD = novel(PEOPLE[:3], 4)
BOMB = (
  b'<!DOCTYPE TEI [<!ENTITY a "'
  + b"a" * 1000
  + b'"><!ENTITY b "'
  + b"&a;" * 1000
  + b'">]>'
)


@pytest.mark.parametrize(
  ("data", "told"),
  [
    (b"", "is no whole XML: no element found"),
    (b"It was a dark night.", "is no whole XML: syntax error"),
    (GOOD[:-9], "is no whole XML"),
    (GOOD.replace(b"</head>", b"</haed>", 1), "is no whole XML: mismatched"),
    (GOOD.replace(b"friends", b"fri\xffends"), "is no whole XML: not well"),
    (GOOD.replace(b"UTF-8", b"none"), "is no whole XML: unknown encoding"),
    (GOOD.replace(b"UTF-8", b"big5"), "is no whole XML: multi-byte"),
    (GOOD.replace(b"friends", b"&friends;"), "is no whole XML: undefined"),
    (GOOD[39:].replace(b"body", b"back"), "has no paragraph in a <body>"),
    (question_writing.tei("<p> <note>n</note></p>"), "has no paragraph in"),
    (b"<!DOCTYPE TEI>" + GOOD[39:], "has a document type; books need none"),
    (
      BOMB + GOOD[39:].replace(b"friends", b"&b;"),
      "has a document type; books need none",
    ),
    (
      b'<!DOCTYPE TEI SYSTEM "file:///etc/passwd">' + GOOD[39:],
      "has a document type; books need none",
    ),
  ],
)
def test_xml_that_is_no_book_is_refused_in_one_line(data, told):
  with pytest.raises(DataError) as caught:
    tei.read("a.xml", data)
  assert said(caught).startswith(f"a.xml: {told}")


def test_no_mutation_gives_anything_but_a_book_or_one_line():
  draw = random.Random(0)
  parts = [b"<", b">", b"&", b"<p>", b"</div>", b"<note>", b"\0", b"\xff"]
  parts += [b"<body>", b"</body>", b"<!DOCTYPE a>", b"&#0;", b"]]>", b"x:"]
  read = 0
  for _ in range(2_000):
    data = bytearray(GOOD)
    for _ in range(draw.randint(1, 2)):
      at = draw.randrange(len(data) + 1)
      until = at + draw.choice([0, 0, 1, 2, 30])
      data[at:until] = draw.choice([*parts, b"", bytes([draw.randrange(256)])])
    try:
      found = tei.read("a.xml", bytes(data))
    except DataError as error:
      assert str(error).isprintable() and len(str(error)) < 400
    else:
      read += 1
      assert found.chapters and all(found.chapters)
  assert 50 < read < 1_950


def test_elements_may_be_deep():
  n = 50_000
  body = "<div>" * n + "<p>" * n + "a" + "</p>" * n + "</div>" * n
  assert read(body).chapters == [["a"]]


# --- Names ---


def book(*chapters):
  """Of sentences as texts."""
  return Book("a", [[text.split() for text in chapter] for chapter in chapters])


def test_names_have_a_capital_within_sentences():
  lines = 5 * [
    "So Anna saw Mr Brown and London .",
    "Then she saw the Rose of a rose and I'll go",
    "Never did I Say ' yes ' ! Never O .",
  ]
  assert novels.names_of(book(lines)) == {"Anna", "Brown", "London", "Say"}
  # One of ten with a small letter, and none more, is let pass.
  more = ["So I say", *5 * ["Say Say"]]
  assert "Say" in novels.names_of(book(lines, more))
  assert "Say" not in novels.names_of(book(lines, [*more, "I say"]))


def test_a_name_has_to_recur_within_sentences():
  lines = 4 * ["So Anna left . Clara stayed . Boris ! Boris"]
  assert novels.names_of(book(lines, ["So Boris"] * 5)) == {"Boris"}
  assert novels.names_of(book(lines, ["the Anna"])) == {"Anna"}


# --- Questions ---


def story(people, sentences=30):
  """Tokens as `novels.read` gives them."""
  return [
    f"Then {people[i % len(people)]} met {people[(i + 1) % len(people)]} 's"
    f" friends at the {question_writing.THINGS[i * i % 9]} ."
    for i in range(sentences)
  ]


def slow_questions(own, names):
  """(chapter, query's position, answer) of all that are due."""
  for k, chapter in enumerate(own.chapters):
    for i in range(20, len(chapter)):
      before = {token for j in range(i - 20, i) for token in chapter[j]}
      for answer in sorted(names & set(chapter[i]) & before):
        if 5 <= len(chapter[i]) <= 50:
          yield k, i, answer


@pytest.mark.parametrize("sentences", [0, 4])
def test_every_question_is_a_sentence_with_what_was_before_it(sentences):
  own = book(story(PEOPLE[:4]), story(PEOPLE[2:], 25), story(PEOPLE, 20))
  names = set(PEOPLE)
  assert novels.names_of(own) == names
  found = list(novels.questions(own, sentences, seed=3))
  due = list(slow_questions(own, names))
  assert len(found) == len(due) == 2 * 10 + 2 * 5
  for question, (k, i, answer) in zip(found, due, strict=True):
    chapter = own.chapters[k]
    before = chapter[i - 20 : i]
    if sentences:
      lower = [[token.lower() for token in words] for words in before]
      asked = [
        cloze.PLACEHOLDER if token == answer else token.lower()
        for token in chapter[i]
      ]
      top = cloze.top_sentences(lower, asked, sentences)
      before = [before[j] for j in top]
    assert len(question.sentences) == len(before) == (sentences or 20)
    called = {}
    for old, new in zip(
      [*before, chapter[i]], [*question.sentences, question.query], strict=True
    ):
      for word, token in zip(old, new, strict=True):
        if word == answer and new is question.query:
          assert token == cloze.PLACEHOLDER
        elif word in names:
          assert called.setdefault(word, token) == token
          assert cloze.ENTITY.fullmatch(token)
        else:
          assert token == word.lower()
    # No two names are one entity, and the query does not have the answer's.
    assert len(set(called.values())) == len(called)
    assert called.get(answer, question.answer) == question.answer
    assert question.answer not in question.query
    numbers = {int(token.removeprefix("@entity")) for token in called.values()}
    assert numbers <= set(range(novels.ENTITIES))


def test_an_answer_that_stands_in_the_query_twice_is_asked_for_twice():
  lines = story(PEOPLE[:3], 20)
  own = book([*lines, "So Anna saw that Anna was there ."])
  (found,) = novels.questions(own, 0, seed=0)
  asked = "so @placeholder saw that @placeholder was there ."
  assert " ".join(found.query) == asked


def test_entities_are_numbered_anew_for_each_question():
  own = book(story(PEOPLE[:3], 60))
  found = list(novels.questions(own, 0, seed=0))
  assert {question.answer for question in found} == {
    f"@entity{i}" for i in range(novels.ENTITIES)
  }
  again = list(novels.questions(own, 0, seed=0))
  assert found == again != list(novels.questions(own, 0, seed=1))


@pytest.mark.parametrize(
  ("query", "n"),
  [
    ("Anna left it .", 0),
    ("Anna left it there .", 1),
    ("Anna " + "so " * 48 + ".", 1),
    ("Anna " + "so " * 49 + ".", 0),
    ("Nobody was left there .", 0),
    ("Zoe was left there .", 0),
    ("Zoe saw Anna and Boris there .", 2),
  ],
)
def test_a_query_has_5_to_50_tokens_and_a_name_that_was_before(query, n):
  # Zoe recurs in the book, but not before the query.
  own = book([*story(PEOPLE[:3], 20), query], 5 * ["So Zoe left"])
  assert len(list(novels.questions(own, 4, seed=0))) == n


def test_a_chapter_needs_20_sentences_before_the_query():
  lines = story(PEOPLE[:3], 20)
  assert not list(novels.questions(book(lines, lines), 4, seed=0))
  longer = book([*lines, lines[0]], lines)
  assert len(list(novels.questions(longer, 4, seed=0))) == 2


@pytest.mark.parametrize(("n", "due"), [(10, 2), (11, 0)])
def test_examples_with_more_names_than_entities_are_left_out(n, due):
  people = [f"Name{i}" for i in range(n)]
  own = book([*story(people, 20), "So Name0 met Name1 again .", "x"])
  assert novels.names_of(book(*[story(people, 99)])) == set(people)
  own = Book("a", [*own.chapters, [["so", *people]] * 5])
  found = list(novels.questions(own, 0, seed=0))
  assert len(found) == due
  if due:
    assert {t for q in found for s in q.sentences for t in s} >= {
      f"@entity{i}" for i in range(10)
    }


# --- Folders of books ---


def test_a_book_is_read_in_tokens_with_possessives_apart(tmp_path):
  write_files(
    tmp_path,
    {
      "b.xml": question_writing.tei(
        "<div><p>Anna’s hat. It's the dog's, e.g. “Yes!”</p><p>…</p></div>"
      ),
      "a.xml": GOOD,
    },
  )
  first, second = novels.read([tmp_path])
  assert (first.name, second.name) == ("a", "b")
  assert [" ".join(words) for words in second.chapters[0]] == [
    "Anna 's hat .",
    "It 's the dog's e g Yes !",
  ]


@pytest.mark.parametrize("n", [3, 4, 14, 15, 99, 100])
def test_each_book_is_in_one_split(n):
  found = novels.split_books([f"book {i}" for i in range(n)])
  assert list(found) == list(cloze.SPLITS)
  assert sorted(sum(found.values(), [])) == list(range(n))
  held = max(1, round(n / 10))
  assert len(found["validation"]) == len(found["test"]) == held
  assert found == novels.split_books(["x"] * n)


def test_the_real_books_are_always_split_alike():
  found = novels.split_books([""] * 99)
  assert found["validation"] == [0, 3, 8, 9, 19, 26, 31, 45, 51, 72]
  assert found["test"] == [14, 18, 21, 27, 37, 56, 74, 90, 93, 94]


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_archives_and_trees_hold_the_same_books(tmp_path, folder, kind):
  tree = reading.load("novels", folder)
  books = {
    **question_writing.novels(),
    "more/._0.xml": b"\xff",
    "README.md": b"\xff",
  }
  other = write_files(tmp_path / "other", books, kind)
  (other / "._files.tar.gz").write_bytes(b"of macOS")
  found = reading.load("novels", other)
  assert found.fingerprint == tree.fingerprint
  assert found.vocabulary == tree.vocabulary


def test_small_books_make_a_data_set(folder):
  data = reading.load("novels", folder)
  # Each of ten sentences of two chapters asks for either of two people.
  assert [len(own.answers) for own in data.splits.values()] == [40, 40, 40]
  assert data.entities == (3, 3 + novels.ENTITIES)
  assert "(a cloze of 3 novels, no news)" in data.description
  assert f"novels in {folder}: 40 train / 40 val" in data.description
  words = set(data.vocabulary.words)
  assert {"then", "'s", "friends"} <= words
  assert not words & {name.lower() for name in PEOPLE}
  above = reading.load("novels", folder.parent)
  assert above.fingerprint == data.fingerprint
  for name, errors in data.baselines.items():
    answers = data.splits[name].answers
    assert ((answers >= 3) & (answers < 13)).all()
    assert errors.floor < 0.5


def test_what_was_made_is_read_from_the_cache(folder, cache, monkeypatch):
  first = reading.load("novels", folder)
  assert len(list(cache.glob("novels-*.npz"))) == 1
  monkeypatch.setattr(tei, "read", None)  # Not called again.
  again = reading.load("novels", folder)
  assert again.fingerprint == first.fingerprint
  assert again.description == first.description
  np.testing.assert_array_equal(
    again.splits["test"].passages.tokens, first.splits["test"].passages.tokens
  )


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "no sum"])
def test_a_damaged_cache_is_made_anew(folder, cache, damage):
  first = reading.load("novels", folder)
  (path,) = cache.glob("*.npz")
  data = path.read_bytes()
  if damage == "cut":
    path.write_bytes(data[: len(data) // 2])
  elif damage == "changed":
    path.write_bytes(data.replace(b"friends", b"fiends!"))
  elif damage == "other":
    path.write_bytes(b"nothing")
  else:
    path.with_suffix(".sum").unlink()
  again = reading.load("novels", folder)
  assert again.fingerprint == first.fingerprint
  assert path.read_bytes() == data and path.with_suffix(".sum").is_file()


def test_other_books_or_sentences_are_made_anew(folder, cache):
  first = reading.load("novels", folder)
  assert (
    reading.load("novels", folder, sentences=2).fingerprint != first.fingerprint
  )
  (folder / "level1" / "1.xml").write_bytes(novel(PEOPLE[:3], 31))
  assert reading.load("novels", folder).fingerprint != first.fingerprint
  assert len(list(cache.glob("*.npz"))) == 3


# --- What is refused ---


@pytest.mark.parametrize("kind", ["tree", "zip", "xz"])
def test_faults_of_a_folder_of_books_are_told_in_one_line(
  tmp_path, cache, kind
):
  def told(name, held, kind=kind):
    with pytest.raises(DataError) as caught:
      reading.load("novels", write_files(tmp_path / name, held, kind))
    return said(caught)

  three = question_writing.novels()
  assert "has 2 books; 3 at least are needed" in told(
    "a", question_writing.novels(2)
  )
  bad = told("b", {**three, "level1/x\n.xml": b"<TEI>"})
  assert r"x\n.xml': is no whole XML" in bad
  bad = told("c", {**three, "level2/1.xml": GOOD})
  assert "1.xml: there are two files of that name" in bad
  short = {**three, "level1/2.xml": novel(PEOPLE[:3], 20)}
  short["level1/1.xml"] = short["level1/0.xml"] = short["level1/2.xml"]
  assert "split train has no question" in told("d", short)
  assert not list(cache.glob("novels-none*"))


def test_a_split_whose_books_have_no_question_is_told(tmp_path, cache):
  books = question_writing.novels()
  (held,) = novels.split_books([""] * 3)["validation"]
  books[f"level1/{held}.xml"] = novel(PEOPLE[:3], 20)
  with pytest.raises(DataError, match="split validation has no question"):
    reading.load("novels", write_files(tmp_path / "d", books))


def test_a_folder_without_books_says_what_is_needed(tmp_path):
  (tmp_path / "._books.tar.gz").write_bytes(b"")
  (tmp_path / "._book.xml").write_bytes(b"")
  with pytest.raises(DataError, match="has no TEI novels: .xml files or arch"):
    novels.sources(tmp_path)


def test_what_cannot_be_opened_is_told(tmp_path, cache):
  (tmp_path / "books.tar.xz").symlink_to(tmp_path / "nowhere")
  with pytest.raises(DataError) as caught:
    reading.load("novels", tmp_path)
  assert f"{tmp_path}/books.tar.xz: cannot be read: " in said(caught)
  (tmp_path / "tree").mkdir()
  (tmp_path / "tree" / "a.xml").symlink_to("a.xml")
  with pytest.raises(DataError) as caught:
    reading.load("novels", tmp_path / "tree")
  assert f"{tmp_path}/tree" in said(caught) and "cannot be read" in said(caught)


def test_damaged_and_large_archives_are_refused(tmp_path, monkeypatch):
  for kind in ("zip", "xz"):
    place = write_files(tmp_path / kind, question_writing.novels(), kind)
    (path,) = novels.sources(place)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError) as caught:
      list(novels.read([path]))
    assert f"{path}: cannot be unpacked: " in said(caught)
    path.write_bytes(data)
    assert len(list(novels.read([path]))) == 3
    with monkeypatch.context() as patch:
      patch.setattr(novels, "_MAX_BYTES", 9_000)
      with pytest.raises(DataError, match="9,000"):
        list(novels.read([path]))


def test_a_zip_of_other_methods_is_refused(tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as packed:
    packed.writestr("a.xml", b"a" * 1000)
  with pytest.raises(DataError, match="'a.xml' is packed by another method"):
    list(cached.contents(path, ".xml", max_bytes=10_000))


def test_no_mutation_of_a_zip_gives_anything_but_files_or_one_line(tmp_path):
  write_files(tmp_path, {"a.xml": GOOD, "b/c.xml": GOOD}, "zip")
  path = tmp_path / "files.zip"
  good, draw, read = path.read_bytes(), random.Random(0), 0
  for _ in range(500):
    data = bytearray(good)
    for _ in range(draw.randint(1, 2)):
      data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)
    try:
      found = list(cached.contents(path, ".xml", max_bytes=100_000))
    except DataError as error:
      assert str(error).isprintable() and len(str(error)) < 700
    else:
      read += 1
      assert all(where.isprintable() for where, _, _ in found)
  assert 10 < read < 490


# --- The real books ---


@pytest.fixture
def real(data_dir):
  path = data_dir / "novels"
  if not path.is_dir():
    pytest.skip(f"no {path}: no real novels")
  return path


def test_a_real_book_has_the_questions_that_are_known(real, tmp_path):
  """The first in the archive alone, as all take most of a minute."""
  (path,) = novels.sources(real)
  _, name, content = next(cached.contents(path, ".xml", max_bytes=1 << 30))
  (own,) = novels.read([write_files(tmp_path, {name: content})])
  found = list(novels.questions(own, 4, seed=0))
  assert (len(own.chapters), len(found)) == (29, 134)
  told = [any(q.answer in words for words in q.sentences) for q in found]
  assert sum(told) == 70
  assert all(len(q.sentences) == 4 for q in found)
  assert all(5 <= len(q.query) <= 50 for q in found)
  assert all(cloze.PLACEHOLDER in q.query for q in found)
  assert not any(q.answer in q.query for q in found)


@pytest.mark.long
def test_the_real_books_give_100_000_questions(real):
  data = reading.load("novels", real)
  print(data.description)
  assert "a cloze of 99 novels" in data.description
  sizes = [len(own.answers) for own in data.splits.values()]
  assert sizes == [122_313, 20_950, 21_776]
  # What is made of them; runs that were made with it go on with it alone.
  assert data.fingerprint == "429c97b41c3098ee"
  assert data.baselines["validation"].floor == pytest.approx(0.288, abs=5e-4)
