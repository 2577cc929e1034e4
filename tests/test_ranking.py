"""Ranks and recalls against a plain count, scikit-learn, and chance."""

import resource
import time

import jax.numpy as jnp
import numpy as np
import pytest
import references_order as reference
from sklearn.metrics import top_k_accuracy_score

from lnrnn import losses, ranking


def draw(n, k=5, levels=0, seed=0):
  errors = np.random.default_rng(seed).random((n, k * n))
  if levels:
    errors = np.floor(errors * levels)
  return errors.astype(np.float32)


@pytest.mark.parametrize("levels", [0, 3, 40])
@pytest.mark.parametrize("k", [1, 5])
def test_ranks_are_those_of_a_plain_count(k, levels):
  errors = draw(12, k, levels)
  image, caption = reference.ranks(errors)
  found = ranking.ranks(errors)
  np.testing.assert_array_equal(found.image, image)
  np.testing.assert_array_equal(found.caption, caption)


def test_ranks_by_hand():
  errors = np.array([[0.1, 0.5, 0.2, 0.1], [0.3, 0.4, 0.2, 0.0]])
  found = ranking.ranks(errors)
  # Captions 0 and 1 are of image 0, 2 and 3 of image 1; the third ties.
  np.testing.assert_array_equal(found.image, [1, 2, 1.5, 1])
  # Image 0: its best, 0.1, ties with a wrong one.
  np.testing.assert_array_equal(found.caption, [1.5, 1])


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_of_images_is_scikit_learn_s_top_k_accuracy(k):
  n = 40
  errors = draw(n)
  found = ranking.recalls(ranking.ranks(errors).image, prefix="image")
  expected = top_k_accuracy_score(np.repeat(np.arange(n), 5), -errors.T, k=k)
  np.testing.assert_allclose(found[f"image_r{k}"], 100 * expected, rtol=1e-12)


def test_constant_errors_give_chance_and_not_success():
  found = ranking.summary(ranking.ranks(np.ones((100, 500))))
  assert found["image_r1"] == found["caption_r10"] == 0
  assert found["image_mean_rank"] == (1 + 100) / 2
  assert found["caption_mean_rank"] == 1 + 495 / 2


def test_random_errors_give_the_recalls_of_chance():
  found = ranking.summary(ranking.ranks(draw(400)))
  assert abs(found["image_r10"] - 100 * 10 / 400) < 1
  assert abs(found["image_mean_rank"] - 200.5) < 8
  # The best of five among 2,000.
  assert abs(found["caption_mean_rank"] - 2001 / 6) < 40


def test_the_best_of_an_image_s_captions_counts():
  errors = draw(10)
  errors[np.arange(10), 5 * np.arange(10) + 3] = -1
  found = ranking.ranks(errors)
  assert (found.caption == 1).all() and not (found.image == 1).all()


def test_numbers_of_a_direction():
  found = ranking.recalls(np.array([1, 1.5, 5, 10, 11, 40]), prefix="x")
  assert found == {
    "x_r1": 100 / 6,
    "x_r5": 50,
    "x_r10": 400 / 6,
    "x_median_rank": 7.5,
    "x_mean_rank": 68.5 / 6,
  }


def test_sums_are_of_six_and_of_three_recalls():
  found = ranking.summary(ranking.ranks(draw(30, seed=3)))
  sums = {
    side: sum(found[f"{side}_r{k}"] for k in (1, 5, 10))
    for side in ("image", "caption")
  }
  assert found["recall_sum"] == sum(sums.values()) > 0
  assert found["image_recall_sum"] == sums["image"] != sums["caption"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_error_that_is_not_finite_is_no_success(bad):
  errors = np.zeros((3, 15))
  errors[1, 4] = bad
  found = ranking.summary(ranking.ranks(errors))
  assert all(np.isnan(value) for value in found.values())


def test_folds_are_means_of_parts_by_themselves():
  errors = draw(12)
  parts = [
    ranking.summary(ranking.ranks(errors[i : i + 4, 5 * i : 5 * i + 20]))
    for i in (0, 4, 8)
  ]
  found = ranking.folds(errors, 3)
  assert found.keys() == parts[0].keys()
  for name, value in found.items():
    np.testing.assert_allclose(value, np.mean([p[name] for p in parts]))
  assert found["image_mean_rank"] < 4
  with pytest.raises(ValueError, match="12 images are not 5 equal parts"):
    ranking.folds(errors, 5)


@pytest.mark.parametrize("shape", [(3, 7), (0, 0)])
def test_captions_are_the_same_number_for_each_image(shape):
  with pytest.raises(ValueError, match="are needed"):
    ranking.ranks(np.zeros(shape))


# --- Errors of all pairs ---


@pytest.mark.parametrize("kind", ["order", "cosine"])
@pytest.mark.parametrize(("n", "m"), [(1, 5), (7, 35), (3, 1)])
def test_blocks_make_up_the_whole(kind, n, m, monkeypatch):
  monkeypatch.setattr(ranking, "_ROWS", 3)
  monkeypatch.setattr(ranking, "_COLUMNS", 8)
  rng = np.random.default_rng(0)
  images, captions = (
    reference.unit(rng.random((rows, 6))).astype(np.float32) for rows in (n, m)
  )
  found = ranking.errors(kind)(images, captions)
  assert found.shape == (n, m) and found.dtype == np.float32
  np.testing.assert_allclose(
    found, reference.errors(kind, images, captions), rtol=1e-5, atol=1e-6
  )


def test_an_unknown_kind_is_refused():
  with pytest.raises(ValueError, match="must be one of order, cosine"):
    ranking.errors("ordr")


def test_the_order_s_errors_are_of_captions_above_images():
  low, high = np.array([[0.0, 0.6]]), np.array([[0.8, 0.6]])
  errors = ranking.errors("order")
  assert errors(high, low)[0, 0] == 0
  np.testing.assert_allclose(errors(low, high)[0, 0], 0.64, rtol=1e-6)
  direct = losses.order_violation(jnp.array(low[0]), jnp.array(high[0]))
  np.testing.assert_allclose(errors(low, high)[0, 0], direct, rtol=1e-6)


@pytest.mark.long
def test_the_whole_test_set_takes_a_minute_and_two_gigabytes():
  rng = np.random.default_rng(0)
  images, captions = (
    rng.random((n, 1024), dtype=np.float32) for n in (5_000, 25_000)
  )
  began = time.perf_counter()
  errors = ranking.errors("order")(images, captions)
  ranking.summary(ranking.ranks(errors))
  ranking.folds(errors, 5)
  assert time.perf_counter() - began < 60
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20  # KiB.
