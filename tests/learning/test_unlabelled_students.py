"""Distillation on instances of unlabelled bags: the term by hand, blind to their labels, resumed, generation by
generation."""

import dataclasses

import numpy as np
import pytest
import torch

from d2l_study.data.pool import Bags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, fit_student, fit_teacher, teacher_targets
from d2l_study.learning import student as student_module
from d2l_study.learning.distillation import draw_student_batch, student_loss
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.references import fit_reference
from d2l_study.learning.student import student_model
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.unlabelled_bags import unlabelled_replicate

CONFIG = StudentConfig(
    feature_width=16, steps=8, eval_every=4, batch_bags=2, unlabelled=True, mixup=0.3, dropout=0.2, generations=2
)


@pytest.fixture(scope="module")
def taught(make_replicate, tiny):
    """A replicate with unlabelled bags, and what its plain teacher says."""
    replicate = make_replicate(0, unlabelled=7)
    (teacher,) = fit_teacher(tiny, [replicate])
    return replicate, teacher_targets(teacher_model(tiny, replicate), teacher.params, replicate, unlabelled=True)


def fit(config, replicate, targets, **more):
    (found,) = fit_student(config, [replicate], {0: [targets]}, **more)
    return found


def assert_same(a, b):
    assert (a.status, a.best_step, a.curve, a.metrics) == (b.status, b.best_step, b.curve, b.metrics)
    assert all(torch.equal(value, b.params[name]) for name, value in a.params.items())


def test_the_term_is_the_mean_over_all_instances_and_the_others_are_of_labelled_bags(taught):
    replicate, targets = taught
    config = dataclasses.replace(CONFIG, mixup=0.0, dropout=0.0, beta=0.4, alpha=0.7, lambda_distill=1.5)
    model, others = student_model(config, replicate), unlabelled_replicate(replicate)
    params = {n: v.requires_grad_(True) for n, v in model.init(replicate.streams.rng("student_init")).items()}
    normalise = Normalise.of(replicate, Compute())
    q = [1 / (1 + np.exp(-logits / config.temperature)) for logits in (targets.train_logits, targets.unlabelled_logits)]
    one, two = (
        draw_student_batch(config, of, of.streams, target.astype(np.float32), 0, normalise)
        for of, target in ((replicate, q[0]), (others, q[1]))
    )
    loss, parts = student_loss(model, params, dataclasses.replace(one, unlabelled=two), config, Compute())
    alone, of_labelled = student_loss(model, params, one, config, Compute())
    logits = torch.cat([model.terms(params, batch.x).logit for batch in (one, two)]).double() / config.temperature
    target = torch.cat([one.target, two.target]).double()
    p = torch.sigmoid(logits)
    entropy = -(target * p.log() + (1 - target) * (1 - p).log())
    assert len(logits) > len(one.x) > 0 and parts[0].item() == pytest.approx(4 * entropy.mean().item(), rel=1e-5)
    assert torch.equal(parts[1:], of_labelled[1:])
    assert (loss - alone).item() == pytest.approx(1.5 * (parts[0] - of_labelled[0]).item(), abs=1e-5)


def test_labels_of_unlabelled_bags_make_no_difference_and_the_bags_do(taught):
    replicate, targets = taught
    found = fit(CONFIG, replicate, targets)
    bags = replicate.unlabelled
    for label in (0, 1):
        given = dataclasses.replace(
            bags, label=np.full_like(bags.label, label), instance_label=np.full_like(bags.instance_label, label)
        )
        assert_same(found, fit(CONFIG, dataclasses.replace(replicate, unlabelled=given), targets))
    without = fit(dataclasses.replace(CONFIG, unlabelled=False), replicate, targets)
    assert any(not torch.equal(value, without.params[name]) for name, value in found.params.items())
    none = dataclasses.replace(replicate, unlabelled=Bags.empty())
    assert_same(without, fit(CONFIG, none, targets))  # there is nothing to read
    for kind in ("oracle", "bag_label", "no_teacher"):
        (one,), (other,) = (fit_reference(kind, CONFIG, [given]) for given in (replicate, none))
        assert_same(one, other)


def test_each_generation_labels_them_for_the_next(taught, monkeypatch):
    replicate, targets = taught
    genuine, seen = student_module.draw_student_batch, []

    def watched(config, given, streams, target, step, normalise):
        if len(given.train) == 7:
            seen.append(target)
        return genuine(config, given, streams, target, step, normalise)

    monkeypatch.setattr(student_module, "draw_student_batch", watched)
    fit(CONFIG, replicate, targets)
    assert len(seen) == 2 * CONFIG.steps
    first = 1 / (1 + np.exp(-targets.unlabelled_logits / CONFIG.temperature))
    assert all(np.allclose(target, first, atol=1e-6) for target in seen[: CONFIG.steps])
    assert all(np.array_equal(target, seen[-1]) for target in seen[CONFIG.steps :]) and not np.allclose(seen[-1], first)


def test_a_resumed_student_goes_on_to_the_same_end(taught):
    replicate, targets = taught
    saved = []
    whole = fit(CONFIG, replicate, targets, checkpoint_every=4, checkpoint=lambda *state: saved.append(state))
    assert len(saved) == 3  # within the first generation, at its end, and within the second
    for number, state in saved:
        assert_same(whole, fit(CONFIG, replicate, targets, resume={number: state}))


def test_teachers_that_were_not_asked_are_refused(taught):
    replicate, targets = taught
    for logits in (None, targets.unlabelled_logits[:-1], np.full_like(targets.unlabelled_logits, np.nan)):
        with pytest.raises(UserError, match="unlabelled: replicate 0: a teacher has no finite logits of the"):
            fit(CONFIG, replicate, dataclasses.replace(targets, unlabelled_logits=logits))
