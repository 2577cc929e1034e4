"""scripts/benchmark_question_files.py, on few files."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from lnrnn.data import question_files


@pytest.fixture
def script(repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  return importlib.import_module("benchmark_question_files")


def test_it_tells_of_speed_and_memory_and_leaves_no_files(repo, tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      str(repo / "scripts" / "benchmark_question_files.py"),
      "--files=20",
      "--tokens=100",
    ],
    capture_output=True,
    text=True,
    env=os.environ | {"TMPDIR": str(tmp_path)},
  )
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(
    r"20 files of 100 tokens in \d+\.\d s: [\d,]+ files/s in one process,"
    r" [\d,]+ per second of its CPU time; peak memory \d+ MiB, \d+ MiB before"
    r" reading, \d+ MiB of what is kept\n",
    done.stdout,
  )
  assert not list(tmp_path.iterdir())


def test_its_files_are_questions_of_the_size_asked_for(script, tmp_path):
  script.write(str(tmp_path), 20, 100)
  found = list(question_files.stream(tmp_path))
  assert len(found) == 20
  for question in found:
    assert [len(words) for words in question.sentences] == [25] * 4
  assert len({tuple(question.query) for question in found}) > 10


def test_files_that_are_there_are_read_and_kept(script, tmp_path, capsys):
  script.write(str(tmp_path), 20, 100)
  assert script.main([f"--dir={tmp_path}"]) == 0
  assert capsys.readouterr().out.startswith("20 files of 100 tokens in ")
  assert len(list(tmp_path.iterdir())) == 20


def test_a_fault_is_told_in_one_line(script, tmp_path, capsys):
  (tmp_path / "a.question").write_bytes(b"")
  assert script.main([f"--dir={tmp_path}"]) == 2
  told = capsys.readouterr().err
  assert told == f"error: {tmp_path}/a.question: the file is empty\n"
  (tmp_path / "a.question").unlink()
  assert script.main([f"--dir={tmp_path}"]) == 2
  assert "has no .question files" in capsys.readouterr().err
