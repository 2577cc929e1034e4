"""The binary in fresh processes: killed and resumed against left alone.

XLA runs on as many threads as it likes here, at a width where it uses them:
the order of its sums must not show in the result.
"""

import random
import subprocess
import sys
import time

import pytest
import toy

from experiments import launch, mnist_mlp
from lnrnn import norms
from lnrnn.training import checkpoints

_CONFIG = (
  "configs/mnist_mlp.py:norm={},model.hidden=(256,256),data.train_cases=4000,"
  "train_steps=300,eval_every=100,checkpoint_every=20,log_every=10"
)


def _start(repo, config, workdir):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.train"),
      *(f"--config={config}", f"--workdir={workdir}"),
    ],
    cwd=repo,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(process):
  _, said = process.communicate(timeout=600)
  assert process.returncode == 0, said


@pytest.mark.long
def test_twenty_killed_runs_end_as_twenty_that_were_not(repo, tmp_path):
  rng = random.Random(2)
  kills = same = 0
  for pair in range(20):
    norm = norms.NAMES[pair % len(norms.NAMES)]
    config = _CONFIG.format(norm)
    killed, whole = tmp_path / f"{pair}killed", tmp_path / f"{pair}whole"
    process = _start(repo, config, killed)
    after = rng.randrange(0, 200, 20)  # The last step seen to be committed.
    while checkpoints.committed_steps(killed)[-1:] <= [after]:
      assert process.poll() is None, process.communicate()
      time.sleep(0.002)
    process.kill()
    process.communicate()
    at = checkpoints.committed_steps(killed)[-1]
    kills += at < 300
    _finish(_start(repo, config, killed))
    assert toy.starts(killed) == [0] + [at] * (at < 300)
    _finish(_start(repo, config, whole))
    parsed = launch.load(f"{repo}/{config}")
    experiment = mnist_mlp.build(parsed)
    states = [toy.final(parsed, experiment, w) for w in (killed, whole)]
    same += states[0] == states[1]
    assert toy.rows(killed) == toy.rows(whole)
  print(f"\nfresh processes: {kills} kills, {same} of 20 pairs the same")
  assert kills == same == 20
