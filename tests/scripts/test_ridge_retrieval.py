"""scripts/ridge_retrieval.py: what it counts, fits and prints."""

import importlib
import json

import numpy as np
import pytest

from lnrnn.data import captions, scenes, vocabulary


@pytest.fixture
def script(repo, monkeypatch):
  monkeypatch.syspath_prepend(str(repo / "scripts"))
  monkeypatch.setattr(
    scenes, "SIZES", {"train": 300, "validation": 60, "test": 60}
  )
  return importlib.import_module("ridge_retrieval")


def test_bags_count_words_and_leave_the_data_alone(script):
  data = captions.load()
  tokens = data.sentences["train"].tokens.copy()
  found = script.bags(data, "train").toarray()
  for row, text in zip(found[:20], data.splits["train"].captions, strict=False):
    own = np.zeros(len(data.vocabulary))
    for number in data.vocabulary.encode(vocabulary.words(text)):
      own[number] += number != vocabulary.END
    np.testing.assert_array_equal(row, own)
  np.testing.assert_array_equal(data.sentences["train"].tokens, tokens)


def test_it_finds_more_than_chance(script, capsys):
  assert script.main([]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["test/image_mean_rank"] < 0.6 * 30.5
  assert found["test/caption_mean_rank"] < 0.9 * 51
  assert found["penalty"] in script.PENALTIES


def test_missing_data_is_one_line(script, capsys, monkeypatch):
  monkeypatch.delenv("LNRNN_DATA_DIR", raising=False)
  assert script.main(["--source=flickr8k"]) == 2
  assert capsys.readouterr().err.startswith("error: data.source=flickr8k needs")
