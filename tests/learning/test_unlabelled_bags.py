"""R_adv over unlabelled bags: by a loop over bags, blind to their labels, resumed and packed as trained alone."""

import dataclasses

import numpy as np
import pytest
import torch
from packed_losses import assert_packed_losses, in_float64, without_ties
from vector_bags import vector_replicates

from d2l_study.data.pool import Bags
from d2l_study.learning import TeacherConfig, fit_teacher
from d2l_study.learning.batches import batch_bags
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.packed.training import fit_teachers
from d2l_study.learning.packing import packed_or_by_turns
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.regularizers import bernoulli_kl
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.unlabelled_bags import draw_teacher_batch, unlabelled_task

VAT = {"lambda_adv": 0.7, "epsilon": 2.0}
ALL = VAT | {"lambda_noise": 1.3, "lambda_ent": 0.4, "mixup": 0.5}
ARMS = [
    VAT | {"unlabelled_batch": 5}, ALL, VAT | {"direction": "power", "power_iterations": 2}, VAT | {"dropout": 0.3},
    VAT | {"augment": "affine", "instance_noise": 0.3, "instances_per_bag": 3, "bag_order": "alternating"},
]  # fmt: skip


def assert_same(a, b):
    assert (a.status, a.best_step, a.steps_run, a.curve, a.metrics) == (b.status, b.best_step, b.steps_run, b.curve,
                                                                        b.metrics)  # fmt: skip
    assert all(torch.equal(value, b.params[name]) for name, value in a.params.items())


def divergence_of_one_bag(model, params, x, config, start, masks):
    """KL( p̂(X) ‖ p(X + r) ) of a bag that is alone, by the definition."""

    def logit(instances, values):
        return model.pool(values, model.terms(values, instances, masks), torch.zeros(len(x), dtype=torch.int64), 1)

    fixed = {name: value.detach() for name, value in params.items()}
    clean = logit(x, fixed)
    if config.direction == "logit":
        moved = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(logit(moved, fixed).sum(), moved)
        gradient = gradient if clean.item() < 0 else -gradient
    else:
        gradient = start
        for _ in range(config.power_iterations):
            d = (gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(bernoulli_kl(clean, logit(x + config.xi * d, fixed)).sum(), d)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    r = config.epsilon * gradient / torch.where(length > 0, length, torch.ones_like(length))
    p, q = torch.sigmoid(clean), torch.sigmoid(logit(x + r, params))
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()


@pytest.mark.parametrize("arm", ARMS)
def test_r_adv_is_the_mean_over_all_bags_of_the_step_and_the_rest_is_of_labelled_ones(make_replicate, tiny, arm):
    replicate, config = make_replicate(0, unlabelled=7), dataclasses.replace(tiny, **arm)
    model = teacher_model(config, replicate)
    params = {n: v.double().requires_grad_(True) for n, v in model.init(replicate.streams.rng("init")).items()}
    drawn = draw_teacher_batch(config, replicate, 2, Normalise.of(replicate, Compute()))
    batch = in_float64(drawn)
    loss, parts = teacher_loss(model, params, batch, config, 1.0, Compute())
    alone, of_labelled = teacher_loss(
        model, params, dataclasses.replace(batch, unlabelled=None), config, 1.0, Compute()
    )  # fmt: skip
    divergences = []
    for bags in (batch, batch.unlabelled):
        for b in range(len(bags.label)):
            mine = bags.bag_index == b
            masks = None if bags.masks is None else type(bags.masks)(*(m if m is None else m[mine] for m in bags.masks))
            start = None if bags.start is None else bags.start[mine]
            divergences.append(divergence_of_one_bag(model, params, bags.x[mine], config, start, masks))
    assert len(divergences) == 3 + (config.unlabelled_batch or 3)
    expected = torch.stack(divergences)
    assert parts[1].item() == pytest.approx(expected.mean().item(), abs=1e-8) and expected.min() >= 0
    assert torch.equal(parts[[0, 2, 3]], of_labelled[[0, 2, 3]])
    by_hand = alone + config.lambda_adv * (expected.mean() - expected[:3].mean())
    leaves = list(params.values())
    for found, wanted in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(by_hand, leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_unlabelled_bags_are_drawn_by_turns_in_an_order_of_their_own(make_replicate, tiny):
    config = dataclasses.replace(tiny, **VAT, unlabelled_batch=2)
    replicate = make_replicate(0, unlabelled=7)
    normalise = Normalise.of(replicate, Compute())
    _, own = unlabelled_task(config, replicate)
    chosen = np.concatenate([batch_bags(own.streams, 7, 2, step) for step in range(7)])
    assert sorted(chosen[:7].tolist()) == sorted(chosen[7:].tolist()) == list(range(7))
    assert chosen[:7].tolist() != chosen[7:].tolist()
    for step in range(7):
        batch = draw_teacher_batch(config, replicate, step, normalise).unlabelled
        expected = [replicate.unlabelled.sizes[bag] for bag in chosen[2 * step : 2 * step + 2]]
        assert torch.bincount(batch.bag_index).tolist() == expected
        assert torch.isnan(batch.label).all()


@pytest.mark.parametrize("arm", [ARMS[1], ARMS[4]])
def test_their_labels_make_no_difference_and_they_do(make_replicate, tiny, arm):
    replicate, config = make_replicate(0, unlabelled=9), dataclasses.replace(tiny, **arm)
    bags = replicate.unlabelled
    (found,) = fit_teacher(config, [replicate])
    for label in (0, 1):
        given = dataclasses.replace(
            bags, label=np.full_like(bags.label, label), instance_label=np.full_like(bags.instance_label, label),
            true_label=1 - np.full_like(bags.label, label),
        )  # fmt: skip
        (other,) = fit_teacher(config, [dataclasses.replace(replicate, unlabelled=given)])
        assert_same(found, other)
    (without,) = fit_teacher(config, [dataclasses.replace(replicate, unlabelled=Bags.empty())])
    assert any(not torch.equal(value, without.params[name]) for name, value in found.params.items())


def test_without_r_adv_nobody_reads_them(make_replicate, tiny):
    config = dataclasses.replace(tiny, lambda_noise=1.0, lambda_ent=0.5)
    replicate = make_replicate(0, unlabelled=9)
    (found,) = fit_teacher(config, [replicate])
    (without,) = fit_teacher(config, [dataclasses.replace(replicate, unlabelled=Bags.empty())])
    assert_same(found, without)


def test_a_resumed_training_goes_on_to_the_same_end(make_replicate, tiny):
    config = dataclasses.replace(tiny, **ALL, unlabelled_batch=2, weight_average=0.8)
    replicates = [make_replicate(r, train=8 + r, unlabelled=5 + r) for r in range(2)]
    saved = []
    whole = fit_teacher(config, replicates, checkpoint_every=4, checkpoint=lambda *state: saved.append(state))
    assert [number for number, _ in saved] == [0, 1, 0, 1]
    for chosen in (saved[:2], [saved[2], saved[1]]):
        for a, b in zip(whole, fit_teacher(config, replicates, resume=dict(chosen)), strict=True):
            assert_same(a, b)
    for a, replicate in zip(whole, replicates, strict=True):
        assert_same(a, fit_teacher(config, [replicate])[0])


@pytest.mark.parametrize("formulation", ["grouped", "matmul"])
@pytest.mark.parametrize("arm", ARMS)
def test_packed_losses_are_those_one_by_one(make_replicate, tiny, arm, formulation):
    config = dataclasses.replace(tiny, **arm, eval_every=1)
    replicates = [without_ties(make_replicate(r, train=8 + r, unlabelled=5 + 2 * r)) for r in range(3)]
    assert_packed_losses(config, replicates, Compute(packed=True, formulation=formulation))


@pytest.mark.parametrize("arm", ARMS[:4])
def test_packed_losses_of_vectors_are_those_one_by_one(arm):
    config = TeacherConfig(
        **arm, extractor="mlp", feature_width=8, attention_width=4, steps=12, batch_bags=3, eval_every=1
    )
    given = vector_replicates([8, 9, 10, 11, 12, 13])
    replicates = [
        dataclasses.replace(one, unlabelled=other.train.without_labels())
        for one, other in zip(given[:3], given[3:], strict=True)
    ]
    assert_packed_losses(config, replicates, Compute(packed=True))
    chosen = packed_or_by_turns(config, replicates, Compute())
    assert chosen.packed and chosen.pack == 3


def test_replicates_without_unlabelled_bags_are_packed_by_themselves(make_replicate, tiny):
    config = dataclasses.replace(tiny, **VAT)
    replicates = [make_replicate(0, unlabelled=5), make_replicate(1), make_replicate(2, unlabelled=6)]
    alone = [fit_teacher(config, [replicate])[0] for replicate in replicates]
    for found in (fit_teacher(config, replicates, compute=Compute(packed=True)),
                  fit_teachers([(config, replicate) for replicate in replicates])):  # fmt: skip
        for a, b in zip(alone, found, strict=True):
            assert [point["r_adv"] for point in a.curve] == pytest.approx(
                [point["r_adv"] for point in b.curve], abs=1e-5
            )


def test_the_size_of_a_step_is_in_the_identity_only_where_it_acts():
    usual = TeacherConfig(lambda_adv=1.0, batch_bags=4)
    assert "unlabelled_batch" not in usual.identity()
    assert usual.identity() == TeacherConfig(lambda_adv=1.0, batch_bags=4, unlabelled_batch=4).identity()
    assert TeacherConfig(lambda_adv=1.0, unlabelled_batch=4).identity()["unlabelled_batch"] == 4
    assert "unlabelled_batch" not in TeacherConfig(unlabelled_batch=4).identity()
