"""metrics.jsonl and TensorBoard's events."""

import importlib
import json
import math
import struct
import subprocess
import sys

import numpy as np
import pytest

from lnrnn.training import tensorboard, writers


def _write(folder, *rows):
  writer = writers.MultiWriter(writers.JsonlWriter(folder))
  for step, row in rows:
    writer.write(step, row)
  writer.close()


def test_a_number_that_is_not_finite_is_null_and_flagged(tmp_path):
  _write(tmp_path, (1, {"loss": np.float32("nan"), "a": math.inf, "b": 2}))
  row = json.loads((tmp_path / "metrics.jsonl").read_text())
  assert row == {
    "step": 1,
    "loss": None,
    "a": None,
    "b": 2.0,
    "nonfinite": ["loss", "a"],
  }
  (back,) = writers.read_metrics(tmp_path)
  assert math.isnan(back["loss"]) and back["b"] == 2.0


def test_numbers_texts_and_pictures_are_sorted(tmp_path):
  picture = np.zeros((2, 3))
  _write(tmp_path, (4, {"loss": 0.5, "t/text": "a\nb", "t/pic": picture}))
  rows = writers.read_metrics(tmp_path)
  assert rows == [{"step": 4, "loss": 0.5}, {"step": 4, "t/text": "a\nb"}]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"step": 3}'[:-1]])
def test_a_torn_last_line_is_skipped_and_removed_by_rewinding(tmp_path, torn):
  _write(tmp_path, (1, {"loss": 3.0}), (2, {"loss": 2.0}))
  path = tmp_path / "metrics.jsonl"
  whole = path.read_text()
  path.write_text(whole + torn)
  assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1, 2]
  writers.rewind(tmp_path, 100)
  assert path.read_text() == whole


def test_a_last_line_without_its_end_is_not_glued_to_the_next(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}')
  writers.rewind(tmp_path, 2)
  _write(tmp_path, (3, {"loss": 1.0}))
  assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1, 3]


def test_rewinding_drops_what_comes_after_the_step(tmp_path):
  _write(tmp_path, *((s, {"loss": s}) for s in (5, 10, 15, 20)))
  writers.rewind(tmp_path, 10)
  _write(tmp_path, (15, {"loss": 1.5}))
  steps, values = writers.curve(writers.read_metrics(tmp_path), "loss")
  assert steps.tolist() == [5, 10, 15] and values.tolist() == [5, 10, 1.5]
  writers.rewind(tmp_path, 0)
  assert writers.read_metrics(tmp_path) == []


def test_without_a_file_there_are_no_rows(tmp_path):
  writers.rewind(tmp_path, 3)
  assert writers.read_metrics(tmp_path) == []
  steps, values = writers.curve([], "loss")
  assert steps.shape == values.shape == (0,)


def _records(path):
  """The payloads of a TFRecord file, lengths as they are declared."""
  raw, at = path.read_bytes(), 0
  while at < len(raw):
    (length,) = struct.unpack_from("<Q", raw, at)
    yield raw[at + 12 : at + 12 + length]
    at += 12 + length + 4
  assert at == len(raw)


def test_tensorboard_events_hold_what_was_written(tmp_path):
  event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")

  writer = writers.MultiWriter(tensorboard.TensorBoardWriter(tmp_path, step=0))
  writer.write(3, {"loss": 0.25, "t/words": "hello"})
  writer.write(7, {"loss": 0.5, "t/pic": np.zeros((4, 5))})
  writer.flush()
  writer.close()
  (path,) = tmp_path.glob("events.*")
  events = [event_pb2.Event.FromString(record) for record in _records(path)]
  assert events[0].file_version == "brain.Event:2"
  values = [(e.step, v) for e in events for v in e.summary.value]
  loss = [(step, v.simple_value) for step, v in values if v.tag == "loss"]
  assert loss == [(3, 0.25), (7, 0.5)]
  (picture,) = [v.image for _, v in values if v.tag == "t/pic"]
  assert (picture.height, picture.width) == (4, 5)
  (text,) = [v.tensor for _, v in values if v.tag.startswith("t/words")]
  assert text.string_val == [b"hello"]


def test_resumed_events_tell_tensorboard_to_forget_later_steps(tmp_path):
  event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")

  tensorboard.TensorBoardWriter(tmp_path, step=10).close()
  (path,) = tmp_path.glob("events.*")
  events = [event_pb2.Event.FromString(record) for record in _records(path)]
  start = event_pb2.SessionLog.START
  assert [e.step for e in events if e.session_log.status == start] == [11]


def test_writing_events_imports_no_tensorflow(tmp_path):
  code = (
    "import sys; from lnrnn.training import tensorboard;"
    f"w = tensorboard.TensorBoardWriter({str(tmp_path)!r}, step=0);"
    "w.write_scalars(1, {'a': 1.0}); w.close();"
    "bad = {'tensorflow', 'tensorboard'} & set(sys.modules);"
    "assert not bad, bad"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_of_a_program_beside_are_read_with_the_runs_by_step(tmp_path):
  _write(tmp_path, (2, {"loss": 3.0}), (4, {"loss": 2.0}), (6, {"loss": 1.0}))
  alone = writers.read_metrics(tmp_path)
  assert writers.beside("a") == "metrics_a.jsonl"
  for name, step, row in (
    ("a", 4, {"a/x": 0.5}),
    ("a", 0, {"a/x": math.nan}),  # In any order.
    ("b", 4, {"b/y": 7}),
  ):
    writers.put_row(tmp_path / writers.beside(name), step, row)
  with (tmp_path / "metrics_b.jsonl").open("a") as file:
    file.write('{"step": 6, "b/y"')  # It is being written.
  (tmp_path / "metrics_b.json").write_text('{"step": 1}\n')  # None of them.
  rows = writers.read_metrics(tmp_path)
  assert [row["step"] for row in rows] == [0, 2, 4, 4, 4, 6]
  assert math.isnan(rows[0]["a/x"]) and rows[0]["nonfinite"] == ["a/x"]
  assert rows[2:5] == [
    {"step": 4, "loss": 2.0},
    {"step": 4, "a/x": 0.5},
    {"step": 4, "b/y": 7.0},
  ]
  steps, values = writers.curve(rows, "a/x")
  assert steps.tolist() == [0, 4] and values[1] == 0.5
  assert [row for row in rows if "loss" in row] == alone
  # Where the run goes back, its later checkpoints are no more.
  writers.rewind(tmp_path, 2)
  steps = [row["step"] for row in writers.read_metrics(tmp_path)]
  assert steps == [0, 2]


def test_of_one_step_there_is_one_row_beside_a_run(tmp_path):
  path = tmp_path / writers.beside("a")
  for row in ({"a/x": 1, "a/y": math.nan}, {"a/x": 2}):
    writers.put_row(path, 3, row)
  writers.put_row(path, 4, {"a/x": 5})
  first, second = writers.read_rows(path)
  assert first.pop("a/y") != 0 and first["nonfinite"] == ["a/y"]
  assert (first["step"], first["a/x"]) == (3, 2)
  assert second == {"step": 4, "a/x": 5}


def test_without_a_run_there_are_the_rows_beside_it(tmp_path):
  assert writers.read_metrics(tmp_path) == []
  writers.put_row(tmp_path / writers.beside("a"), 3, {"a/x": 1})
  assert writers.read_metrics(tmp_path) == [{"step": 3, "a/x": 1.0}]
