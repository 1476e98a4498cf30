"""A bias of instance logits is fitted to bag labels alone, and makes a shifted model's scores probabilities again."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from d2l_study.data import MnistBags
from d2l_study.data.pool import Bags
from d2l_study.learning import TeacherConfig, fit_teacher, metrics
from d2l_study.learning.calibration import fit_instance_bias


def drawn_bags(bags, size, share, seed):
    """Bags whose instances' logits are those of their true chances, each instance drawn on its own."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(math.log(share / (1 - share)), 3, bags * size)
    truth = rng.random(bags * size) < metrics.probability(logits)
    label = truth.reshape(bags, size).any(axis=1).astype(np.int8)
    whole = Bags(np.arange(0, bags * size + 1, size), np.arange(bags * size), label, truth.astype(np.int8))
    return whole, logits


def test_it_is_the_most_likely_bias():
    bags, logits = drawn_bags(60, 5, 0.1, 0)
    top = logits.reshape(60, 5).max(axis=1)
    best = minimize_scalar(lambda b: metrics.log_loss(bags.label, top + b), bounds=(-9, 9), method="bounded").x
    assert fit_instance_bias(logits, bags) == pytest.approx(best, abs=1e-4)


def test_a_shift_is_taken_back():
    bags, logits = drawn_bags(400, 5, 0.05, 1)
    found = fit_instance_bias(logits, bags)
    assert fit_instance_bias(logits + 4.5, bags) == pytest.approx(found - 4.5, abs=1e-6)
    truth = bags.instance_label
    assert metrics.log_loss(truth, logits + 4.5) > 2 * metrics.log_loss(truth, logits + found)


def test_bags_of_one_class_give_none():
    bags, logits = drawn_bags(20, 5, 0.1, 2)
    alone = bags.subset(np.flatnonzero(bags.label == 1))
    assert math.isnan(fit_instance_bias(np.zeros(len(alone.instance)), alone))
    assert math.isnan(fit_instance_bias(np.where(np.arange(100) == 3, np.inf, logits), bags))


def test_a_teacher_of_digits_says_probabilities_with_it():
    data = MnistBags(num_bags=30, mean_bag_size=8, test_bags=20)
    replicate = data.replicate(data.load_pool(), 0, 11)
    config = TeacherConfig(steps=120, eval_every=40, batch_bags=4, initial_weights="he", feature_width=32)
    (fitted,) = fit_teacher(config, [replicate])
    found, label, logit = fitted.metrics, replicate.test_instances.label, fitted.logits["test", "instance"]
    moved = logit + found["instance_bias"]
    assert found["instance_nll_calibrated"] == pytest.approx(metrics.log_loss(label, moved))
    assert found["instance_brier_calibrated"] == pytest.approx(metrics.brier(label, moved))
    assert found["instance_nll_calibrated"] < found["instance_nll"]
