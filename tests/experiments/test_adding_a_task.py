"""The task that the README adds in some thirty lines trains."""

import re

from lnrnn.training import loop, runs, workdir_lock
from lnrnn.training import workdir as workdir_lib


def test_the_readmes_task_trains(repo, tmp_path):
  text = (repo / "README.md").read_text()
  block = next(
    code
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if "def build(" in code
  )
  assert sum(bool(line) for line in block.splitlines()) <= 35
  task: dict = {}
  exec(block, task)
  assert task["check"](task["get_config"]("batch_size=1")) != []
  config = task["get_config"]("smoke,norm=batch")
  assert task["check"](config) == []
  experiment = task["build"](config)
  workdir = tmp_path / "run"
  workdir_lib.check(workdir, config)
  fingerprint = experiment.train_data.fingerprint
  workdir_lib.claim(workdir, fingerprint, experiment.data)
  with workdir_lock.lock(workdir):
    loop.train(config, experiment, workdir)
  curves = runs.Curves.read(workdir)
  assert not curves.unfinished
  steps, errors = curves.get("validation/error")
  assert list(steps) == [4] and 0 < errors[0] < 0.95
