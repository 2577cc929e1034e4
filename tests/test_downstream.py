"""Evaluations of sentence vectors, against scikit-learn, scipy and by hand."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
  GridSearchCV,
  StratifiedKFold,
  train_test_split,
)

from lnrnn import downstream
from lnrnn.data import sentence_tasks, vocabulary, word_vectors
from lnrnn.data.word_vectors import WordVectors

CS = (0.01, 0.1, 1)  # They differ where rows are few.


def made(n, h, seed=0, noise=1.0):
  """Vectors [n, h] and labels [n] that follow from them, with noise."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, h))
  y = x[:, 0] - x[:, 1] + noise * rng.normal(size=n) > 0
  return x, y.astype(np.int64)


def pairs(sizes=(400, 100, 300), h=6, seed=0):
  """Pairs whose scores follow from how far apart they are, with noise."""
  rng = np.random.default_rng(seed)
  found = {}
  for part, n in zip(("train", "trial", "test"), sizes, strict=True):
    u, v = rng.normal(size=(2, n, h)).astype(np.float32)
    near = (u * v)[:, :2].sum(1) - np.abs(u - v)[:, 2] + rng.normal(size=n)
    found[part] = u, v, np.clip(3 + near, 1, 5)
  return found


# --- Relatedness ---


def test_a_score_is_parted_between_its_neighbours():
  found = downstream.soft_targets([3.6, 1, 5, 4.999, 2])
  expected = [
    [0, 0, 0.4, 0.6, 0],
    [1, 0, 0, 0, 0],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 0.001, 0.999],
    [0, 1, 0, 0, 0],
  ]
  np.testing.assert_allclose(found, expected, atol=1e-12)
  np.testing.assert_allclose(downstream.soft_targets([1.25], 2), [[0.75, 0.25]])


def test_soft_targets_are_distributions_whose_mean_is_the_score():
  scores = np.random.default_rng(0).uniform(1, 5, 1000)
  found = downstream.soft_targets(scores)
  np.testing.assert_allclose(found.sum(1), 1)
  np.testing.assert_allclose(found @ np.arange(1, 6), scores)


@pytest.mark.parametrize("bad", [[0.9], [5.1], [np.nan], [[3.0]], 3.0])
def test_a_score_out_of_range_is_refused(bad):
  with pytest.raises(ValueError, match="from 1 to 5 are needed"):
    downstream.soft_targets(bad)


def test_features_of_a_pair_do_not_depend_on_its_order():
  u, v = np.array([[1.0, -2.0]]), np.array([[3.0, 0.5]])
  found = downstream.pair_features(u, v)
  np.testing.assert_array_equal(found, [[2, 2.5, 3, -1]])
  np.testing.assert_array_equal(downstream.pair_features(v, u), found)


def optimum(data, c=1e4):
  """Predictions by the softmax regression that scikit-learn finds.

  Soft targets are five copies of each row, one a class, with their weights.
  """
  x = {k: downstream.pair_features(u, v) for k, (u, v, _) in data.items()}
  targets = downstream.soft_targets(data["train"][2])
  row, cls = np.nonzero(targets)
  model = LogisticRegression(C=c, max_iter=5000, tol=1e-6)
  model.fit(x["train"][row], cls + 1, sample_weight=targets[row, cls])
  return model.predict_proba(x["test"]) @ model.classes_


def test_training_reaches_the_optimum_of_scikit_learn():
  data = pairs()
  found = downstream.relatedness(data)
  scores = data["test"][2]
  expected = stats.pearsonr(optimum(data), scores)[0]
  assert expected > 0.7
  assert found.pearson == pytest.approx(expected, abs=0.01)
  assert found.predictions.shape == (300,)
  assert found.pearson == pytest.approx(
    stats.pearsonr(found.predictions, scores)[0]
  )
  assert found.spearman == pytest.approx(
    stats.spearmanr(found.predictions, scores)[0]
  )
  assert found.mse == pytest.approx(np.mean((found.predictions - scores) ** 2))
  limit = downstream.ROUND * downstream.MAX_ROUNDS
  assert 0 < found.epochs <= limit and found.epochs % downstream.ROUND == 0


def test_the_length_of_the_vectors_does_not_matter():
  data = pairs()
  small = {k: (u / 64, v / 64, s) for k, (u, v, s) in data.items()}
  one, other = (downstream.relatedness(d).predictions for d in (data, small))
  np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_same_pairs_give_the_same_bits():
  data = pairs((130, 50, 60))
  one, two = (downstream.relatedness(data, seed=3) for _ in range(2))
  np.testing.assert_array_equal(one.predictions, two.predictions)
  assert one[:3] == two[:3] and one.epochs == two.epochs
  other = downstream.relatedness(data, seed=4)
  assert (other.predictions != one.predictions).any()


def test_nothing_of_the_test_pairs_is_used():
  data = pairs((130, 50, 60))
  one = downstream.relatedness(data)
  u, v, scores = data["test"]
  other = downstream.relatedness(
    data | {"test": (u[:9], v[:9], 6 - scores[:9])}
  )
  np.testing.assert_allclose(one.predictions[:9], other.predictions, rtol=1e-5)
  assert one.epochs == other.epochs


def test_shuffled_scores_cannot_be_predicted():
  data = pairs((300, 300, 600), h=50)
  rng = np.random.default_rng(0)
  mixed = {k: (u, v, rng.permutation(s)) for k, (u, v, s) in data.items()}
  found = downstream.relatedness(mixed)
  assert abs(found.pearson) < 3 / np.sqrt(600)


def test_of_equal_vectors_no_correlation_is_known():
  data = {
    k: (np.ones_like(u), np.ones_like(v), s)
    for k, (u, v, s) in pairs((70, 20, 20)).items()
  }
  found = downstream.relatedness(data)
  assert np.isnan([found.pearson, found.spearman, found.trial_pearson]).all()
  assert np.isfinite(found.mse) and found.epochs == 0
  zero = {k: (0 * u, 0 * v, s) for k, (u, v, s) in data.items()}
  assert np.isnan(downstream.relatedness(zero).pearson)


def test_pairs_that_do_not_fit_are_refused():
  data = pairs((70, 20, 20))
  u, v, s = data["trial"]
  for bad, told in (
    ((u[:-1], v, s), "trial: u (19, 6), v (20, 6), scores (20,)"),
    ((u, v, s[:-1]), "scores (19,): [n, h], [n, h] and [n] are needed"),
    ((u * np.nan, v, s), "trial: vectors and scores, all finite, are needed"),
    ((u, v, s * np.nan), "trial: vectors and scores, all finite, are"),
    (
      (u[:0], v[:0], s[:0]),
      "trial: vectors and scores, all finite, are needed",
    ),
  ):
    with pytest.raises(ValueError) as caught:
      downstream.relatedness(data | {"trial": bad})
    assert told in str(caught.value)


# --- Classification ---


def test_folds_are_those_of_scikit_learn():
  _, y = made(103, 2)
  found = downstream.folds(y, 10, seed=5)
  parts = StratifiedKFold(10, shuffle=True, random_state=5)
  for one, two in zip(found, parts.split(y[:, None], y), strict=True):
    for a, b in zip(one, two, strict=True):
      np.testing.assert_array_equal(a, b)
  tested = np.concatenate([test for _, test in found])
  assert sorted(tested) == list(range(103))


@pytest.mark.parametrize("seed", [0, 1])
def test_nested_is_a_direct_script_of_scikit_learn(seed):
  x, y = made(150, 12, seed, noise=3)
  found = downstream.classification(x, y, cs=CS, inner_folds=4, seed=seed)
  outer = StratifiedKFold(10, shuffle=True, random_state=seed)
  inner = StratifiedKFold(4, shuffle=True, random_state=seed)
  model = LogisticRegression(tol=1e-5, max_iter=1000)
  accuracies, cs, correct = [], [], np.zeros(len(y), bool)
  for train, test in outer.split(x, y):
    search = GridSearchCV(model, {"C": CS}, cv=inner).fit(x[train], y[train])
    accuracies.append(search.score(x[test], y[test]))
    cs.append(search.best_params_["C"])
    correct[test] = search.predict(x[test]) == y[test]
  np.testing.assert_allclose(found.fold_accuracies, accuracies, atol=1e-6)
  assert found.cs.tolist() == cs and len(set(cs)) > 1
  np.testing.assert_array_equal(found.correct, correct)
  assert found.accuracy == pytest.approx(np.mean(accuracies), abs=1e-6)
  assert found.unconverged == 0


def test_split_chooses_by_a_tenth_of_the_training_part():
  x, y = made(150, 12, noise=3)
  found = downstream.classification(x, y, cs=CS, how="split", seed=2)
  parts = StratifiedKFold(10, shuffle=True, random_state=2)
  for k, (train, test) in enumerate(parts.split(x, y)):
    a, b, ya, yb = train_test_split(
      x[train], y[train], test_size=0.1, stratify=y[train], random_state=2
    )
    fit = lambda c, *on: LogisticRegression(C=c, tol=1e-5).fit(*on)
    best = max(CS, key=lambda c: fit(c, a, ya).score(b, yb))
    assert found.cs[k] == best
    score = fit(best, x[train], y[train]).score(x[test], y[test])
    assert found.fold_accuracies[k] == pytest.approx(score, abs=1e-6)


def test_fixed_repeats_an_earlier_choice():
  x, y = made(120, 8, noise=2)
  one = downstream.classification(x, y, cs=CS, how="split", seed=1)
  two = downstream.classification(x, y, how="fixed", fixed=one.cs, seed=1)
  np.testing.assert_array_equal(one.correct, two.correct)
  np.testing.assert_array_equal(one.cs, two.cs)
  other = downstream.classification(
    x, y, how="fixed", fixed=[1e-4] * 10, seed=1
  )
  assert (other.correct != one.correct).any()


@pytest.mark.parametrize("how", ["nested", "split"])
def test_shuffled_labels_are_predicted_by_chance(how):
  """Each row is known by its vector: what leaked would be remembered."""
  n = 400
  rng = np.random.default_rng(1)
  x = rng.normal(size=(n, n + 100)).astype(np.float32)
  y = rng.permutation(np.arange(n) % 2)
  found = downstream.classification(
    x, y, cs=(0.01, 1), how=how, inner_folds=3, seed=1
  )
  assert abs(found.accuracy - 0.5) < 3 * np.sqrt(0.25 / n)
  assert LogisticRegression().fit(x, y).score(x, y) == 1


@pytest.mark.parametrize("how", ["nested", "split"])
def test_the_choice_is_blind_to_the_test_fold(how):
  """Other vectors in a test fold leave its C, and change those of others."""
  x, y = made(150, 12, noise=3)
  run = lambda x: (
    downstream.classification(x, y, cs=CS, how=how, inner_folds=3).cs
  )
  before, changed = run(x), 0
  for k, (_, test) in enumerate(downstream.folds(y)[:2]):
    other = x.copy()
    other[test] = np.where(y[test, None], -100, 100)
    after = run(other)
    assert after[k] == before[k]
    changed += (after != before).sum()
  assert changed


def test_trainings_that_have_not_converged_are_counted(monkeypatch):
  x, y = made(120, 8)
  monkeypatch.setattr(downstream.classes, "MAX_ITERATIONS", 1)
  found = downstream.classification(x, y, how="fixed", fixed=[1.0] * 10)
  assert found.unconverged == 10
  found = downstream.classification(x, y, cs=(1, 2), how="split")
  assert found.unconverged == 10 * (2 + 1)


def test_other_warnings_of_a_training_are_passed_on(monkeypatch):
  def fit(self, x, y):
    warnings.warn("other", UserWarning, stacklevel=2)
    self.classes_ = np.unique(y)

  monkeypatch.setattr(LogisticRegression, "fit", fit)
  with pytest.warns(UserWarning, match="other"):
    warnings.simplefilter("always")
    downstream.classes._fit(*made(20, 2), 1.0)


def test_names_of_classes_may_be_any():
  x, y = made(120, 8)
  one = downstream.classification(x, y, how="fixed", fixed=[1.0] * 10)
  names = np.array(["no", "yes"])[y]
  two = downstream.classification(x, names, how="fixed", fixed=[1.0] * 10)
  np.testing.assert_array_equal(one.correct, two.correct)


@pytest.mark.parametrize(
  ("more", "told"),
  [
    ({"how": "nest"}, "did you mean 'nested'"),
    ({"how": "fixed"}, "`fixed` is for how='fixed'"),
    ({"fixed": [1] * 10}, "`fixed` is for how='fixed'"),
    ({"how": "fixed", "fixed": [1] * 9}, "fixed has 9 values"),
    ({"x": np.zeros((29, 2))}, r"x \(29, 2\) with 30 labels"),
    ({"x": np.full((30, 2), np.nan)}, "all finite, is needed"),
    ({"y": np.zeros(30)}, "1 classes, the smallest of 30 cases"),
    ({"y": np.arange(30) < 9}, "2 classes, the smallest of 9 cases"),
    ({"y": np.zeros((30, 1))}, r"labels \(30, 1\)"),
  ],
)
def test_arguments_that_do_not_fit_are_refused(more, told):
  arguments = {"x": np.ones((30, 2)), "y": np.arange(30) % 2} | more
  with pytest.raises(ValueError, match=told):
    downstream.classification(**arguments)


# --- The bag of vectors ---


def test_a_bag_is_the_mean_of_the_known_words():
  vectors = WordVectors(("a", "b"), np.array([[1, 2], [3, -4]], np.float32))
  found, unknown = downstream.bag_of_vectors(
    [["a", "b", "x"], ["x"], [], ["b", "b"]], vectors
  )
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, [[2, -1], [0, 0], [0, 0], [3, -4]])
  assert unknown == pytest.approx(2 / 6)
  found, unknown = downstream.bag_of_vectors([], vectors)
  assert found.shape == (0, 2) and unknown == 0


def test_a_bag_of_glove_knows_real_pairs(data_dir):
  vectors = word_vectors.load(data_dir / "glove")
  data, unknown = {}, []
  for part, held in sentence_tasks.read_sick(data_dir / "sick").items():
    bags = []
    for texts in (held.a, held.b):
      tokens = [vocabulary.words(text) for text in texts]
      bag, missed = downstream.bag_of_vectors(tokens, vectors)
      bags.append(bag / np.linalg.norm(bag, axis=1, keepdims=True))
      unknown.append(missed)
    data[part] = *bags, held.scores
  assert max(unknown) < 0.02
  found = downstream.relatedness(data)
  assert 0.71 < found.pearson < 0.75 and 0.45 < found.mse < 0.53
  assert found.spearman < found.pearson


def test_the_module_loads_without_scipy_and_scikit_learn():
  code = (
    "import sys, lnrnn.downstream\n"
    "assert not {'scipy.stats', 'sklearn'} & set(sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == 0, done.stderr.decode()
