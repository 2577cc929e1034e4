"""SICK and the four classification tasks: what is read, what is refused."""

import numpy as np
import pytest

from lnrnn.data import sentence_tasks
from lnrnn.data.sentence_tasks import CLASSIFICATION, SICK
from lnrnn.errors import DataError

HEADER = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tjudgment"
ROWS = ["1\tA dog runs\tA cat sits\t2.5\tNEUTRAL", "2\tOne\tTwo\t5\tNEUTRAL"]


def write_sick(folder, text=None, part="train", end="\n"):
  """All three parts, one of them with another text."""
  whole = end.join([HEADER, *ROWS]) + end
  for name in SICK.values():
    (folder / name).write_text(whole, encoding="utf-8", newline="")
  path = folder / SICK[part]
  if isinstance(text, bytes):
    path.write_bytes(text)
  elif text is not None:
    path.write_text(text, encoding="utf-8", newline="")
  return path


def refused(read, *args):
  with pytest.raises(DataError) as caught:
    read(*args)
  message = str(caught.value)
  assert "\n" not in message
  return message


# --- SICK ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pairs_are_read_whatever_ends_their_lines(tmp_path, end):
  write_sick(tmp_path, end=end)
  found = sentence_tasks.read_sick(tmp_path)
  assert list(found) == ["train", "trial", "test"]
  for part in found.values():
    assert part.a == ["A dog runs", "One"] and part.b == ["A cat sits", "Two"]
    assert part.scores.dtype == np.float64
    assert part.scores.tolist() == [2.5, 5]


def test_columns_are_found_by_their_names(tmp_path):
  text = "relatedness_score\tsentence_B\tsentence_A\n3\tb\ta"
  write_sick(tmp_path, text)
  found = sentence_tasks.read_sick(tmp_path)["train"]
  assert (found.a, found.b, found.scores.tolist()) == (["a"], ["b"], [3])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
  write_sick(
    tmp_path, "\ufeffsentence_A\tsentence_B\trelatedness_score\na\tb\t1"
  )
  assert sentence_tasks.read_sick(tmp_path)["train"].a == ["a"]


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("", ": is empty"),
    ("\n\n", ": is empty"),
    (HEADER + "\n", "line 2: is missing; there is a header alone"),
    (
      "pair_ID\tsentence_A\tscore\n1\ta\t3\n",
      "line 1: has no column sentence_B, relatedness_score; it has: pair_ID,",
    ),
    (f"{HEADER}\n{ROWS[0]}\n1\ta\tb\n", "line 3: has 3 columns; the first"),
    (f"{HEADER}\n\n{ROWS[0]}\n", "line 2: has 1 columns; the first line has 5"),
    (f"{HEADER}\n1\ta\tb\t5.1\tN\n", "line 2: relatedness_score is '5.1'; a"),
    (f"{HEADER}\n1\ta\tb\t0.9\tN\n", "is '0.9'; a number from 1 to 5"),
    (f"{HEADER}\n1\ta\tb\tnan\tN\n", "is 'nan'; a number from 1 to 5"),
    (f"{HEADER}\n1\ta\tb\thigh\tN\n", "is 'high'; a number from 1 to 5"),
    (f"{HEADER}\n1\t \tb\t3\tN\n", "line 2: sentence_A is empty"),
    (f"{HEADER}\n1\ta\t\t3\tN\n", "line 2: sentence_B is empty"),
    (
      f"{HEADER}\n{ROWS[0]}\n2\tcaf\xe9\tb\t3\tN\n".encode("latin-1"),
      "line 3: is not UTF-8",
    ),
  ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_fault_of_sick_is_told_with_its_line(tmp_path, text, told, part):
  path = write_sick(tmp_path, text, part)
  message = refused(sentence_tasks.read_sick, tmp_path)
  assert message.startswith(str(path)) and told in message


def test_a_missing_part_of_sick_is_told(tmp_path):
  write_sick(tmp_path).unlink()
  message = refused(sentence_tasks.read_sick, tmp_path)
  assert message == f"{tmp_path / SICK['train']}: no such file"
  (tmp_path / SICK["train"]).mkdir()
  message = refused(sentence_tasks.read_sick, tmp_path)
  assert "SICK_train.txt: cannot be read" in message


def test_the_real_sick_is_whole(data_dir):
  found = sentence_tasks.read_sick(data_dir / "sick")
  assert {k: len(v.a) for k, v in found.items()} == {
    "train": 4500,
    "trial": 500,
    "test": 4927,
  }
  means = [part.scores.mean() for part in found.values()]
  np.testing.assert_allclose(means, [3.521, 3.594, 3.530], atol=5e-4)
  for part in found.values():
    assert len(part.a) == len(part.b) == len(part.scores)
    assert part.scores.min() == 1 and part.scores.max() == 5


# --- Classification ---


def write_task(folder, name, negative, positive):
  paths = [folder / file for file in CLASSIFICATION[name]]
  for path, data in zip(paths, (negative, positive), strict=True):
    path.write_bytes(data)
  return paths


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_first_file_is_class_0_and_blank_lines_are_counted(tmp_path, name):
  write_task(tmp_path, name, b"bad \r\n\r\nworse\r\n", b"good\n \n\nfine .")
  found = sentence_tasks.read_labelled(tmp_path, name)
  assert found.texts == ["bad", "worse", "good", "fine ."]
  assert found.labels.dtype == np.int64
  assert found.labels.tolist() == [0, 0, 1, 1]
  assert found.blank == 3


@pytest.mark.parametrize("name", ["mr", "subj"])
def test_latin_1_is_read_and_cut_at_line_feeds_alone(tmp_path, name):
  write_task(tmp_path, name, b"one\x85two\x0bthree\n", b"caf\xe9\n")
  found = sentence_tasks.read_labelled(tmp_path, name)
  assert found.texts == ["one\x85two\x0bthree", "café"]


@pytest.mark.parametrize("name", ["cr", "mpqa"])
def test_other_tasks_have_to_be_utf_8(tmp_path, name):
  _, path = write_task(tmp_path, name, b"bad\n", b"good\n\ncaf\xe9\n")
  message = refused(sentence_tasks.read_labelled, tmp_path, name)
  assert message == f"{path}, line 3: is not UTF-8"


def test_a_fault_of_a_task_is_told(tmp_path):
  read = sentence_tasks.read_labelled
  first, second = write_task(tmp_path, "cr", b"bad\n", b"")
  assert refused(read, tmp_path, "cr") == f"{second}: is empty"
  second.write_bytes(b"\n \r\n")
  assert refused(read, tmp_path, "cr") == f"{second}: is empty"
  first.unlink()
  assert refused(read, tmp_path, "cr") == f"{first}: no such file"
  message = refused(read, tmp_path, "MR")
  assert message == (
    "task 'MR': must be one of mr, cr, subj, mpqa; did you mean 'mr'?"
  )


@pytest.mark.parametrize(
  ("name", "sizes", "blank"),
  [
    ("mr", [5331, 5331], 0),
    ("cr", [1366, 2405], 4),
    ("subj", [5000, 5000], 0),
    ("mpqa", [7292, 3311], 3),
  ],
)
def test_the_real_tasks_are_whole(data_dir, name, sizes, blank):
  folder = data_dir / "sentence_classification"
  found = sentence_tasks.read_labelled(folder, name)
  assert np.bincount(found.labels).tolist() == sizes
  assert found.blank == blank
  assert all(found.texts) and len(found.texts) == sum(sizes)
