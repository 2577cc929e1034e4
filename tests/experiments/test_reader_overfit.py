"""Every system learns 200 real CNN questions by heart: proof of its wiring."""

import pytest

from experiments import launch
from lnrnn.training import writers

SYSTEMS = {
  "LSTM": "norm=none",
  "BN-LSTM": "norm=batch",
  "BN-everywhere": "norm=batch,model.norm_everywhere=true",
  "LN-LSTM": "norm=layer",
}


@pytest.mark.long
@pytest.mark.parametrize("system", SYSTEMS)
def test_200_real_questions_are_learnt_by_heart(
  repo, data_dir, tmp_path, system
):
  """Without dropout and with entities that keep their names."""
  arguments = (
    f"{SYSTEMS[system]},data.source=cnn_top4,data.dir={data_dir},"
    "model.dropout=0.0,data.permute=false,batch_size=40,data.multiple=64,"
    "optimizer.learning_rate=1e-3,train_steps=1500,eval_every=500,"
    "eval_bn_batches=5"
  )
  spec = f"{repo}/configs/attentive_reader.py:{arguments}"
  launch.train(spec, tmp_path / "run")
  rows = writers.read_metrics(tmp_path / "run")
  errors = [row["train/error"] for row in rows if "train/error" in row]
  assert errors[-1] <= 0.05
