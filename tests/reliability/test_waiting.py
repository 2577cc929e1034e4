"""Training waits for its data for a small part of its time alone."""

import json

import pytest

from experiments import launch
from lnrnn.training import writers


def _train(repo, workdir, steps: int) -> dict[str, float]:
  """Trains at batch size 4 on the real digits; the share of waiting."""
  spec = (
    f"{repo}/configs/mnist_mlp.py:data.source=idx,batch_size=4"
    f",train_steps={steps},eval_every={steps},checkpoint_every={steps}"
  )
  launch.train(spec, workdir)
  rows = [row for row in writers.read_metrics(workdir) if "loss" in row]
  first, last = rows[0], rows[-1]

  def share(row, begin=None):
    seconds = [row[f"time/{kind}_seconds"] for kind in ("data", "train")]
    if begin:
      seconds[0] -= begin["time/data_seconds"]
      seconds[1] -= begin["time/train_seconds"]
    return seconds[0] / seconds[1]

  figures = {
    "steps": steps,
    "steps_per_s": round(steps / last["time/train_seconds"]),
    "waiting": round(share(last), 4),
    "waiting_after_the_first_row": round(share(last, first), 4),
    "seconds_to_the_first_row": round(first["time/data_seconds"], 3),
  }
  print("\nwaiting for data:", json.dumps(figures))
  return figures


@pytest.mark.usefixtures("optimised")  # Slow updates would hide a wait.
def test_a_small_batch_does_not_wait_for_its_data(repo, mnist_dir, tmp_path):
  figures = _train(repo, tmp_path, 300)
  # Another process may take the thread's processor; half would be a fault.
  assert figures["waiting_after_the_first_row"] < 0.25


@pytest.mark.usefixtures("optimised")
@pytest.mark.long
def test_a_small_batch_waits_for_less_than_a_twentieth_of_its_time(
  repo, mnist_dir, tmp_path
):
  figures = _train(repo, tmp_path, 5000)
  assert figures["waiting"] < 0.05
