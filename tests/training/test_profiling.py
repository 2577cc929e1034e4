"""Traces of some steps, and what a run says about its cost."""

import numpy as np

from lnrnn.training import loop, profiling, writers


def test_the_dispatches_of_the_wanted_steps_are_traced_once(
  tmp_path, monkeypatch, capsys
):
  calls = []
  monkeypatch.setattr(
    profiling.jax.profiler, "start_trace", lambda path: calls.append(path)
  )
  monkeypatch.setattr(
    profiling.jax.profiler, "stop_trace", lambda: calls.append("stop")
  )
  profiler = profiling.Profiler(tmp_path, (7, 12))
  seen = []
  for first in range(0, 25, 5):
    profiler.before(first, first + 5)
    seen.append(len(calls))
    profiler.after(first + 5)
  profiler.close()
  assert calls == [tmp_path / "profile", "stop"]
  assert seen == [0, 1, 1, 2, 2]
  assert "steps 6 to 15" in capsys.readouterr().out
  profiler = profiling.Profiler(tmp_path, (3, 9))  # A run that ends before.
  profiler.before(0, 5)
  profiler.after(5)
  profiler.close()
  assert calls[2:] == [tmp_path / "profile", "stop"]


def test_a_run_writes_a_trace_and_says_its_size_and_its_wait_for_data(
  task, settings, tmp_path, capsys
):
  config = settings(profile_steps=(7, 12))
  loop.train(config, task(config), tmp_path)
  traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
  assert len(traces) == 1 and traces[0].stat().st_size > 1000
  said = capsys.readouterr().out
  assert "4 parameters, " in said and "FLOP a step, on 1 x cpu" in said
  assert "waiting for data" in said
  rows = [row for row in writers.read_metrics(tmp_path) if "loss" in row]
  for name in ("train", "data", "wall"):
    seconds = np.array([row[f"time/{name}_seconds"] for row in rows])
    assert (seconds > 0).all() and (np.diff(seconds) >= 0).all()
  last = rows[-1]
  assert last["time/data_seconds"] < last["time/train_seconds"]
  assert last["time/train_seconds"] < last["time/wall_seconds"]
