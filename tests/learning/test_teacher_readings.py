"""A trained teacher read in another way: bags pooled by their highest instance, instances smoothed over neighbours."""

import dataclasses

import numpy as np
import pytest
import torch

from d2l_study.data.colon_synthetic import SyntheticColonBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_reference, fit_teacher, metrics
from d2l_study.learning.evaluation import evaluation_bags
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.references import pooled_reference, smoothed_reference
from d2l_study.learning.teacher_model import teacher_model


@pytest.fixture(scope="module")
def tissue():
    """A fold of synthetic colon images, and a teacher of it."""
    data = SyntheticColonBags(images=12, side=100, nuclei=12.0, folds=3)
    replicate = data.replicate(data.load_pool(), 0, 1)
    config = TeacherConfig(feature_width=16, attention_width=8, steps=6, batch_bags=3, eval_every=3)
    (teacher,) = fit_teacher(config, [replicate])
    return replicate, teacher_model(config, replicate), teacher


def test_pooled_bags_have_their_highest_instance_logit(tissue):
    replicate, model, teacher = tissue
    found = pooled_reference(model, teacher.params, replicate)
    test, logit = replicate.test, teacher.logits["test", "instance"]  # of given bags in the order of the test bags
    highest = np.array([logit[a:b].max() for a, b in zip(test.offsets[:-1], test.offsets[1:], strict=True)])
    np.testing.assert_allclose(found.logits["test", "bag"], highest, rtol=1e-5)
    assert found.metrics["bag_auc"] == pytest.approx(metrics.auc(test.label, highest))
    assert (
        found.metrics["bag_auc"] != teacher.metrics["bag_auc"]
        or found.metrics["bag_nll"] != (teacher.metrics["bag_nll"])
    )
    for name in ("instance_auc", "instance_ap", "instance_auc_within", "instance_nll"):
        assert found.metrics[name] == pytest.approx(teacher.metrics[name], rel=1e-5)
    assert (found.stage, found.status, found.steps_run, found.oracle) == ("pooled", "done", 0, False)


def test_smoothed_instances_have_the_mean_of_their_neighbours(tissue):
    replicate, model, teacher = tissue
    found = smoothed_reference(model, teacher.params, replicate, 3)
    pool, test = replicate.pool, replicate.test
    normalise = Normalise.of(replicate, Compute())
    *_, logit, _ = predict_bags(model, teacher.params, pool, evaluation_bags(replicate), normalise, Compute())
    expected = []
    for bag in range(len(test)):
        inside = range(test.offsets[bag], test.offsets[bag + 1])
        for i in inside:
            there = sorted(inside, key=lambda j: np.hypot(*(pool.xy[test.instance[j]] - pool.xy[test.instance[i]])))
            expected.append(np.mean([logit[j] for j in there[:4]]))
    np.testing.assert_allclose(found.logits["test", "instance"], expected, rtol=1e-4, atol=1e-5)
    truth = replicate.test_instances.label
    assert found.metrics["instance_auc"] == pytest.approx(
        metrics.auc(truth[truth >= 0], np.array(expected)[truth >= 0])
    )
    np.testing.assert_array_equal(found.logits["test", "bag"], teacher.logits["test", "bag"])
    assert found.metrics["bag_auc"] == teacher.metrics["bag_auc"]
    assert found.metrics["instance_threshold"] != teacher.metrics["instance_threshold"]


def test_smoothing_needs_places(make_replicate, tiny):
    replicate = make_replicate(0)
    (teacher,) = fit_teacher(tiny, [replicate])
    with pytest.raises(UserError, match="needs the places of instances"):
        smoothed_reference(teacher_model(tiny, replicate), teacher.params, replicate, 2)


def test_no_teacher_is_the_student_without_soft_labels(make_replicate):
    student = StudentConfig(
        temperature=4.0, alpha=0.0, beta=0.5, start="teacher", teachers=3, generations=2, dropout=0.2, mixup=0.3,
        steps=8, eval_every=4, feature_width=16, batch_bags=3,
    )  # fmt: skip
    own = student.no_teacher()
    assert own == StudentConfig(
        temperature=1.0, lambda_distill=0.0, alpha=1.0, beta=0.5, dropout=0.2, steps=16, eval_every=4, feature_width=16,
        batch_bags=3,
    )  # fmt: skip
    assert dataclasses.replace(student, alpha=2.0).no_teacher().alpha == 2.0
    replicate = make_replicate(0, train=12)
    (found,) = fit_reference("no_teacher", student, [replicate])
    hidden = dataclasses.replace(replicate.train, instance_label=1 - replicate.train.instance_label)
    (blind,) = fit_reference("no_teacher", student, [dataclasses.replace(replicate, train=hidden)])
    assert all(torch.equal(found.params[name], blind.params[name]) for name in found.params)
    assert (found.stage, found.steps_run) == ("no_teacher", 16) and "val_distill_loss" not in found.metrics
    flipped = dataclasses.replace(replicate.train, label=1 - replicate.train.label)
    (other,) = fit_reference("no_teacher", student, [dataclasses.replace(replicate, train=flipped)])
    assert any(not torch.equal(found.params[name], other.params[name]) for name in found.params)
