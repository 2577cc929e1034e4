"""Books of four kinds of files as runs of sentences; made-up files."""

import collections
import gzip
import zlib

import pytest
import question_writing
from question_writing import PEOPLE, novel, tei, write_files

from lnrnn.data import books
from lnrnn.data.books import Book
from lnrnn.errors import ConfigError, DataError

LIMIT = 1 << 20


def said(error):
  """One line."""
  text = str(error.value)
  assert text.isprintable() and len(text) < 1000
  return text


def read(book):
  """(runs, each a list of sentences with blanks between tokens; skipped)."""
  skipped = collections.Counter()
  found = [[]]
  for sentence in books.runs(book, skipped):
    if sentence is None:
      found.append([])
    else:
      found[-1].append(" ".join(sentence))
  return [run for run in found if run], dict(skipped)


def read_all(source, folder):
  """Runs of all books, what was skipped, and how many books there are."""
  runs, skipped, n = [], collections.Counter(), 0
  for book in books.stream(source, books.paths(source, str(folder))):
    own, left_out = read(book)
    runs += own
    skipped.update(left_out)
    n += 1
  return runs, dict(skipped), n


def text(content):
  return read(Book("a.txt", content, "text"))


def lines(folder, content, name="a.txt"):
  write_files(folder, {name: content})
  return read_all("lines", folder)


# --- TEI ---


def test_a_run_of_a_novel_is_a_chapter():
  body = (
    "<div><head>Head</head><p>He came. She left!</p><p>Mr. B. slept.</p></div>"
    "<div><p>“Why?” said he.</p></div>"
  )
  assert read(Book("a.xml", tei(body), "novels")) == (
    [["he came .", "she left !", "mr b slept ."], ["why ? said he ."]],
    {},
  )


def test_a_sentence_without_a_word_is_counted_and_ends_a_run():
  found = read(
    Book("a.xml", tei("<p>He came.</p><p>—</p><p>Yes</p>"), "novels")
  )
  assert found == ([["he came ."], ["yes"]], {"sentences without a word": 1})


@pytest.mark.parametrize("kind", ["tree", "zip", "gz"])
def test_novels_come_by_the_names_of_their_files(tmp_path, kind):
  held = {f"{9 - i}/{i}.xml": novel(PEOPLE[i : i + 3], 4) for i in range(4)}
  write_files(tmp_path / "novels", held, kind)
  found = list(books.stream("novels", books.paths("novels", str(tmp_path))))
  assert [book.content for book in found] == list(held.values())
  assert {book.kind for book in found} == {"novels"}
  assert all(len(read(book)[0]) == 2 for book in found)


def test_two_novels_of_one_name_are_refused(tmp_path):
  held = {f"{i}/a.xml": novel(PEOPLE[:3], 4) for i in range(2)}
  write_files(tmp_path, held)
  with pytest.raises(DataError, match="there are two files of that name"):
    read_all("novels", tmp_path)


def test_a_damaged_novel_is_told_in_one_line(tmp_path):
  write_files(tmp_path, {"a.xml": novel(PEOPLE[:3], 4)[:-9]})
  with pytest.raises(DataError) as caught:
    read_all("novels", tmp_path)
  assert "a.xml: is no whole XML" in said(caught)


# --- Plain text ---


def test_lines_up_to_an_empty_one_are_a_paragraph():
  found = text(b"  He came\nand went. She\n left.\n\n\nThey slept\n \nWe too.")
  assert found == (
    [["he came and went .", "she left .", "they slept", "we too ."]],
    {},
  )


def test_three_empty_lines_end_a_chapter_and_two_do_not():
  found, skipped = text(
    b"\n\n\nOne.\n\n\nTwo.\n\n \n\nThree.\n\n\n\n\n\n\n\nFour."
  )
  assert found == [["one .", "two ."], ["three ."], ["four ."]] and not skipped


@pytest.mark.parametrize(
  "heading",
  [
    *(
      "CHAPTER I.",
      "Chapter IV",
      "chapter 12",
      "Chapter One",
      "CHAPTER the LAST",
    ),
    *("Book the Second", "PART TWENTY-THIRD", "Act 2. Scene 1", "Canto XC"),
    *("CHAPTER I. Down the Rabbit-Hole", "  Volume III — Of Mice, and Men"),
  ],
)
def test_a_chapter_ends_before_a_heading_which_is_left_out(heading):
  content = f"{heading}\n\nOne.\n\n{heading}\n\nTwo.\n\nThree.".encode()
  assert text(content) == ([["one ."], ["two .", "three ."]], {})


@pytest.mark.parametrize(
  "line",
  [
    *("Part of it was gone.", "Book him!", "Act well your part.", "Chapters"),
    *("Scene after scene.", "The chapter IV", "Chapter I" + " and so on" * 20),
  ],
)
def test_a_line_that_begins_like_a_heading_is_none(line):
  (run,), _ = text(f"One.\n\n{line}\n\nTwo.".encode())
  assert len(run) == 3


def test_a_heading_with_a_line_before_or_after_it_is_none():
  found, _ = text(b"One\nChapter I\n\nChapter II\nTwo")
  assert found == [["one chapter i", "chapter ii two"]]


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_the_line_ends_of_other_systems_change_nothing(end, tmp_path):
  content = (
    b"CHAPTER I\n\nOne one.\nTwo.\n\nThree.\n\n\n\nFour.\n\nChapter 2\n\nSix."
  )
  assert text(content.replace(b"\n", end)) == text(content)
  assert len(text(content)[0]) == 3
  if end == b"\r\n":
    changed = lines(tmp_path / "a", content.replace(b"\n", end))
    assert changed == lines(tmp_path / "b", content)


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path):
  mark = b"\xef\xbb\xbf"
  assert text(mark + b"Chapter I\n\nOne.\n\nChapter II\n\nTwo.") == (
    [["one ."], ["two ."]],
    {},
  )
  assert lines(tmp_path, mark + b"one\ntwo")[0] == [["one", "two"]]


def test_a_line_of_a_text_that_is_no_utf8_is_counted_and_ends_a_run():
  found = text(b"One. Two\nb\xffd\nThree. Four.\n\nFive.")
  assert found == (
    [["one .", "two"], ["three .", "four .", "five ."]],
    {"lines that are not UTF-8": 1},
  )


def test_a_line_of_a_text_that_is_too_long_is_counted_and_ends_a_run():
  found = text(b"One.\n" + b"x" * LIMIT + b"\nTwo.\n\nThree.")
  assert found == (
    [["one ."], ["two .", "three ."]],
    {"lines of 1,048,576 bytes or more": 1},
  )


def test_a_text_that_is_too_large_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(books, "_MAX_BYTES", 10)
  write_files(tmp_path, {"a.txt": b"0123456789"})
  assert read_all("text", tmp_path)[2] == 1
  for held in {"a.txt": b"0" * 11}, {"a.txt.gz": gzip.compress(b"0" * 11)}:
    write_files(tmp_path, held)
    with pytest.raises(DataError) as caught:
      read_all("text", tmp_path)
    assert "has more than 10 bytes, which is no book" in said(caught)
    (tmp_path / "a.txt").unlink(missing_ok=True)


def test_texts_are_read_from_all_folders_but_hidden_ones(tmp_path):
  held = {
    "b.txt": b"Two.",
    "a/c.txt": b"One.",
    "d.txt.gz": gzip.compress(b"Three.\n\n\n\nFour."),
    ".e.txt": b"Hidden.",
    ".git/f.txt": b"Hidden.",
    "a/.g/h/i.txt": b"Hidden.",
    "j.md": b"Other.",
    "txt": b"Other.",
  }
  write_files(tmp_path / "books", held)
  (tmp_path / "books" / "folder.txt").mkdir()
  runs = [["one ."], ["two ."], ["three ."], ["four ."]]
  assert read_all("text", tmp_path) == (runs, {}, 3)
  # A hidden folder that is asked for is read.
  assert read_all("text", tmp_path / "books" / ".git")[2] == 1


# --- A sentence a line ---


def test_lines_are_sentences_and_an_empty_one_ends_a_run(tmp_path):
  content = b"One. two\n he said : `` Go ! ''\n\n  \nThree\n"
  assert lines(tmp_path, content) == (
    [["one two", "he said go !"], ["three"]],
    {"empty lines": 2},
    1,
  )


def test_a_line_without_a_word_is_counted_and_ends_a_run(tmp_path):
  found = lines(tmp_path, b"one\n* * *\ntwo")
  assert found == ([["one"], ["two"]], {"sentences without a word": 1}, 1)


def test_a_line_that_is_no_utf8_is_counted_and_ends_a_run(tmp_path):
  found = lines(tmp_path, b"one\ntw\xe9\nthree\nfour")
  assert found == (
    [["one"], ["three", "four"]],
    {"lines that are not UTF-8": 1},
    1,
  )


@pytest.mark.parametrize("more", [0, 1, LIMIT - 1, LIMIT, LIMIT + 7])
@pytest.mark.parametrize("last", [False, True])
def test_after_a_line_that_is_too_long_the_next_are_read(tmp_path, more, last):
  content = b"one\ntwo\n" + b"x" * (LIMIT + more)
  content += b"" if last else b"\nthree\nfour"
  runs, skipped, _ = lines(tmp_path, content)
  assert runs == [["one", "two"], *([] if last else [["three", "four"]])]
  assert skipped == {"lines of 1,048,576 bytes or more": 1}


def test_a_line_just_below_the_limit_is_read(tmp_path):
  word = b"x" * (LIMIT - 2)
  runs, skipped, _ = lines(tmp_path, b"one\n" + word + b"\ntwo")
  assert runs == [["one", word.decode(), "two"]] and not skipped


def test_a_line_of_ten_thousand_words_is_a_sentence(tmp_path):
  runs, skipped, _ = lines(tmp_path, b"one\n" + b"word " * 10_000 + b"\ntwo")
  assert [len(sentence.split()) for sentence in runs[0]] == [1, 10_000, 1]
  assert not skipped


def test_lines_come_in_blocks_each_a_run_of_its_own(tmp_path):
  content = b"".join(b"word%d\n" % i for i in range(2 * books.BLOCK + 1))
  write_files(tmp_path, {"b.txt": b"last", "a.txt": content})
  found = list(books.stream("lines", books.paths("lines", str(tmp_path))))
  assert [len(book.content) for book in found] == [books.BLOCK] * 2 + [1, 1]
  assert [book.where.rpartition("/")[2] for book in found] == [
    "a.txt, line 1",
    f"a.txt, line {books.BLOCK + 1}",
    f"a.txt, line {2 * books.BLOCK + 1}",
    "b.txt, line 1",
  ]
  assert b"".join(b"".join(book.content) for book in found[:3]) == content


@pytest.mark.parametrize("source", ["text", "lines"])
def test_packed_files_hold_the_same(source, tmp_path):
  content = b"One.\nTwo.\n\nThree.\n" * 300
  write_files(tmp_path / "plain", {"a.txt": content})
  write_files(tmp_path / "packed", {"a.txt.gz": gzip.compress(content)})
  packed = read_all(source, tmp_path / "packed")
  assert packed == read_all(source, tmp_path / "plain") and packed[0]


@pytest.mark.parametrize("source", ["text", "lines"])
def test_damaged_packed_files_are_refused_in_one_line(source, tmp_path):
  content = gzip.compress(b"".join(b"word %d\n" % i for i in range(3000)))
  path = tmp_path / "a.txt.gz"
  causes = set()
  for at in (0, 2, 12, 200, 2000, len(content) - 6):
    path.write_bytes(content[:at] + b"\xff\xff" + content[at + 2 :])
    with pytest.raises(DataError) as caught:
      read_all(source, tmp_path)
    assert said(caught).startswith(f"{path}: cannot be read: ")
    causes.add(type(caught.value.__cause__))
  assert {zlib.error, gzip.BadGzipFile} <= causes
  for damaged in content[:-9], content[:5]:
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot be read"):
      read_all(source, tmp_path)


# --- Sources ---


def test_the_embedded_book_has_six_parts_and_needs_no_folder(monkeypatch):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  found = list(books.stream("embedded", books.paths("embedded", None)))
  assert found == list(books.stream("embedded", books.paths("embedded", None)))
  assert len(found) == 6
  for book in found:
    runs, skipped = read(book)
    assert len(runs) <= 2 and set(skipped) <= {"sentences without a word"}
    assert sum(map(len, runs)) > 30
    assert not any(run[0].startswith("chapter ") for run in runs)
  first = read(found[0])[0][0]
  assert first[0].startswith("alice was beginning to get very tired of sitting")


def small(folder):
  """A few books of every source."""
  write_files(folder / "novels", question_writing.novels(4))
  write_files(folder / "books", {f"{i}.txt": b"One %d." % i for i in range(4)})
  content = b"".join(b"word%d\n" % i for i in range(3 * books.BLOCK))
  held = {"a.txt": content, "b.txt": content[::-1]}
  write_files(folder / "sentences", held)
  return str(folder)


@pytest.mark.parametrize("source", books.SOURCES)
def test_the_first_books_can_be_passed_by(source, tmp_path):
  found = books.paths(source, small(tmp_path))
  all_books = list(books.stream(source, found))
  assert len(all_books) >= 4
  for first in range(len(all_books) + 2):
    left = list(books.stream(source, found, first=first))
    assert left == all_books[first:]


def test_a_folder_of_all_data_or_the_environment_will_do(tmp_path, monkeypatch):
  folder = small(tmp_path)
  monkeypatch.setenv("LNRNN_DATA_DIR", folder)
  for source, name in ("text", "books"), ("lines", "sentences"):
    found = books.paths(source, None)
    assert found == books.paths(source, folder)
    assert found == books.paths(source, str(tmp_path / name))
    assert {path.parent for path in found} == {tmp_path / name}


def test_what_cannot_be_found_is_told_in_one_line(tmp_path, monkeypatch):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  with pytest.raises(ConfigError) as wrong:
    books.paths("bookcorpus", str(tmp_path))
  assert said(wrong) == (
    "data.source: 'bookcorpus' is not allowed: one of embedded, novels, text,"
    " lines"
  )
  for source in ("novels", "text", "lines"):
    with pytest.raises(DataError) as caught:
      books.paths(source, None)
    assert f"data.source={source} needs a directory" in said(caught)
    with pytest.raises(DataError) as caught:
      books.paths(source, str(tmp_path / "none"))
    assert "no such directory" in said(caught)
  write_files(tmp_path, {"a.pdf": b"", ".b.txt": b"Hidden."})
  for source in ("text", "lines"):
    with pytest.raises(DataError) as caught:
      books.paths(source, str(tmp_path))
    assert said(caught) == (
      f"{tmp_path}: has no text: files that end in .txt or .txt.gz are needed"
    )


@pytest.mark.parametrize(
  "line", ["Part I played was small.", "Act one was over.", "Book I read it."]
)
def test_a_sentence_that_begins_as_a_heading_does_is_read(line):
  content = f"One.\n\n{line}\n\nTwo.".encode()
  found = books.runs(books.Book("x", content, "text"), collections.Counter())
  assert len([s for s in found if s]) == 3
