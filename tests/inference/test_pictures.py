"""The picture shows the right instances, in order, and frames exactly the wrong ones."""

import io

import numpy as np
import pytest
from PIL import Image

from d2l_study.inference.pictures import WRONG, ranking_picture, ranking_rows


def digits(count=8, channels=1):
    return np.zeros((count, channels, 6, 6), np.uint8)


def pixels(png):
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def wrong_pixels(png):
    vermillion = [int(WRONG[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels(png) == vermillion).all(axis=2).sum())


def test_rows_hold_the_extremes_most_extreme_first():
    logit = np.array([0.0, 5.0, -3.0, 2.0, -9.0, 2.0])
    labels = np.array([0, 0, 1, 1, 0, -1])
    highest, lowest = ranking_rows(logit, labels, 3)
    assert highest.index.tolist() == [1, 3, 5] and lowest.index.tolist() == [4, 2, 0]  # equals in their own order
    assert highest.wrong.tolist() == [True, False, False]  # the negative; the unknown one is not called wrong
    assert lowest.wrong.tolist() == [False, True, False]
    assert highest.text == ["0.993", "0.881", "0.881"] and lowest.text[0] == "1e-4"


def test_mistakes_are_the_worst_placed_of_each_class_with_their_rank():
    logit, labels = np.array([0.0, 5.0, -3.0, 2.0, -9.0]), np.array([0, 1, 1, 0, -1])
    _, _, negatives, positives = ranking_rows(logit, labels, 5, mistakes=True)
    assert negatives.index.tolist() == [3, 0] and negatives.text == ["#2", "#3"]
    assert positives.index.tolist() == [2, 1] and positives.text == ["#4", "#1"]


def test_probabilities_near_one_are_told_from_one():
    (highest, _) = ranking_rows(np.array([20.0]), np.array([1]), 1)
    assert highest.text == ["1−2e-9"]


def test_what_is_wrong_is_framed_in_the_picture():
    labels, right = np.array([1] * 4 + [0] * 4), np.linspace(4, -4, 8)
    legend = wrong_pixels(ranking_picture(digits(), {"a": right}, labels, 4))
    one_wrong = wrong_pixels(ranking_picture(digits(), {"a": right}, np.array([0, 1, 1, 1, 0, 0, 0, 0]), 4))
    all_wrong = wrong_pixels(ranking_picture(digits(), {"a": -right}, labels, 4))
    assert 0 < legend < one_wrong < all_wrong
    assert all_wrong - legend > 6 * (one_wrong - legend)  # eight frames against one


def test_every_model_has_its_block_and_the_picture_is_reproducible():
    patches = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 4), dtype=np.uint8)
    labels, logit = np.array([1, 0, -1, 1, 0]), np.arange(5.0)
    one = ranking_picture(patches, {"teacher": logit}, labels, 16)
    two = ranking_picture(patches, {"teacher": logit, "student": -logit}, labels, 16, title="five", mistakes=True)
    assert pixels(two).shape[0] > 1.8 * pixels(one).shape[0]
    assert one == ranking_picture(patches, {"teacher": logit}, labels, 16)


@pytest.mark.parametrize(
    ("patches", "logits", "labels", "k"),
    [
        (digits().astype(float), {"a": np.zeros(8)}, np.zeros(8, int), 2),
        (digits(channels=2), {"a": np.zeros(8)}, np.zeros(8, int), 2),
        (digits(), {"a": np.zeros(7)}, np.zeros(8, int), 2),
        (digits(), {"a": np.zeros(8)}, np.zeros(9, int), 2),
        (digits(), {}, np.zeros(8, int), 2),
        (digits(), {"a": np.zeros(8)}, np.zeros(8, int), 0),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(patches, logits, labels, k):
    with pytest.raises(ValueError, match="expected"):
        ranking_picture(patches, logits, labels, k)
