"""The student's loss against values by hand, its limits in T, its terms' reach, and what a teacher hands over."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, fit_teacher
from d2l_study.learning.distillation import (
    STUDENT_PARTS,
    StudentBatch,
    check_teachers,
    distillation_divergence,
    distillation_loss,
    draw_student_batch,
    known_negative_loss,
    soft_targets,
    student_loss,
    teacher_targets,
)
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.student import student_model
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.models import MilModel, Terms

CPU = Compute()


class Scores(MilModel):
    """A network whose scores are its input, so that a loss can be computed by hand."""

    def maps(self, params, x, masks=None):
        return x

    def terms_of_maps(self, params, maps, masks=None):
        return Terms(params["scale"] * maps)


def by_hand(config, s, q, bag, label, mix=None):
    """The loss and its parts for scores s at parameter 1, and the gradient with respect to that parameter."""
    pooling = {"max": "instance_max", "noisy_or": "noisy_or"}[config.consistency]
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    s, q, label = (torch.tensor(v, dtype=torch.float64) for v in (s, q, label))
    batch = StudentBatch(s, torch.tensor(bag), label, q, mix=mix)
    loss, parts = student_loss(Scores((1, 16, 16), pooling), {"scale": scale}, batch, config, CPU)
    return (
        loss.item(),
        dict(zip(STUDENT_PARTS, parts.tolist(), strict=True)),
        torch.autograd.grad(loss, scale)[0].item(),
    )


def test_lambda_distill_weighs_the_distillation_term_alone():
    """With α = β = 0 half of λ halves loss and gradient; with the other terms the loss falls by half of its part."""
    given = [2.0, -1.0, 0.0], [0.75, 0.5, 0.2], [0, 0, 1], [1.0, 0.0]
    whole, half, none = (
        by_hand(StudentConfig(temperature=2.0, lambda_distill=weight, alpha=3.0, beta=5.0), *given)
        for weight in (1.0, 0.5, 0.0)
    )
    assert half[0] == pytest.approx(whole[0] - 0.5 * whole[1]["distill"], rel=1e-6) and whole[1] == half[1]
    assert none[0] == pytest.approx(3 * whole[1]["known_negative"] + 5 * whole[1]["bag_consistency"], rel=1e-6)
    assert none[1]["distill"] == 0
    alone = [by_hand(StudentConfig(lambda_distill=weight, alpha=0.0), *given) for weight in (1.0, 0.5)]
    assert alone[1][0] == pytest.approx(alone[0][0] / 2, rel=1e-6)
    assert alone[1][2] == pytest.approx(alone[0][2] / 2, rel=1e-6)


def test_without_any_term_there_is_nothing_to_learn():
    with pytest.raises(UserError, match="lambda_distill: 0 with alpha 0 and beta 0 leaves no loss"):
        StudentConfig(lambda_distill=0.0, alpha=0.0)
    assert StudentConfig(lambda_distill=0.0, alpha=0.0, beta=1.0).alpha == 0
    assert StudentConfig(lambda_distill=1.0).identity() == StudentConfig().identity()


def test_the_loss_is_the_value_computed_by_hand():
    """T = 2, α = 3, β = 5; bag 0 (Y = 1) holds s = 2 and −1, bag 1 (Y = 0) holds s = 0.

    T² CE: 4 [ 0.75 ln(1+e^−1) + 0.25 ln(1+e) , ½ ln(1+e^½) + ½ ln(1+e^−½) , 0.2 ln 2 + 0.8 ln 2 ] / 3
    known negative: ln 2 / 3, the mean over the three instances; bags, by max: [ ln(1+e^−2) + ln 2 ] / 2
    """
    config = StudentConfig(temperature=2.0, alpha=3.0, beta=5.0, consistency="max")
    loss, parts, _ = by_hand(config, [2.0, -1.0, 0.0], [0.75, 0.5, 0.2], [0, 0, 1], [1.0, 0.0])
    distill = 4 * (0.5632616875 + 0.7240769842 + 0.6931471806) / 3
    negative = 0.6931471806 / 3
    bags = (0.1269280110 + 0.6931471806) / 2
    assert parts == pytest.approx({"distill": distill, "known_negative": negative, "bag_consistency": bags})
    assert loss == pytest.approx(distill + 3 * negative + 5 * bags)


def test_noisy_or_consistency_by_hand():
    """p(bag 0) = 1 − (1 − σ(0))² = 3/4, p(bag 1) = σ(0) = 1/2."""
    config = StudentConfig(beta=1.0, consistency="noisy_or")
    _, parts, _ = by_hand(config, [0.0, 0.0, 0.0], [0.5] * 3, [0, 0, 1], [1.0, 0.0])
    assert parts["bag_consistency"] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_weight_of_zero_takes_its_term_out_of_the_loss_and_gradient():
    s, q, bag, label = [2.0, -1.0, 0.3], [0.9, 0.5, 0.2], [0, 0, 1], [1.0, 0.0]
    plain, parts, slope = by_hand(StudentConfig(alpha=0.0, beta=0.0), s, q, bag, label)
    assert plain == pytest.approx(parts["distill"]) and parts["known_negative"] > 0 and parts["bag_consistency"] > 0
    for keys in ({"alpha": 1.0}, {"beta": 1.0}):
        other, _, other_slope = by_hand(StudentConfig(**{"alpha": 0.0, "beta": 0.0} | keys), s, q, bag, label)
        assert other > plain and other_slope != pytest.approx(slope)


def test_alpha_acts_on_instances_of_negative_bags_only():
    s = torch.tensor([3.0, -2.0, 1.0, 4.0], requires_grad=True)
    loss = known_negative_loss(s, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    (gradient,) = torch.autograd.grad(loss, s)
    assert (gradient[:2] == 0).all()
    np.testing.assert_allclose(gradient[2:], 1 / (1 + np.exp([-1.0, -4.0])) / 4, rtol=1e-6)  # pushes both down
    assert known_negative_loss(s, torch.ones(4)) == 0


# ---- the temperature
def test_at_temperature_one_it_is_the_cross_entropy_with_the_teachers_probability():
    t, s = np.array([-3.0, 0.4, 2.0]), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    q = soft_targets([t], 1.0)
    np.testing.assert_allclose(q, 1 / (1 + np.exp(-t)), rtol=1e-6)
    p = torch.sigmoid(s).numpy()
    expected = -np.mean(q * np.log(p) + (1 - q) * np.log(1 - p))
    assert distillation_loss(torch.from_numpy(q).double(), s, 1.0).item() == pytest.approx(expected)


def test_towards_infinite_temperature_it_matches_logits():
    """Hinton et al. 2015, section 2.1: T² KL → (s − t)²/8, and the gradient to (s − t)/4, of each instance."""
    t = torch.tensor([-3.0, 0.4, 2.0], dtype=torch.float64)
    s = torch.tensor([0.5, -1.0, 4.0], dtype=torch.float64, requires_grad=True)
    for temperature, tolerance in ((30.0, 2e-2), (3000.0, 1e-5)):
        loss = distillation_loss(torch.sigmoid(t / temperature), s, temperature)
        (gradient,) = torch.autograd.grad(loss, s)
        torch.testing.assert_close(3 * gradient, ((s - t) / 4).detach(), rtol=tolerance, atol=tolerance)
        q = torch.sigmoid(t / temperature).numpy()
        divergence = distillation_divergence(q, s.detach().numpy(), temperature)
        assert divergence == pytest.approx(((s - t) ** 2).mean().item() / 8, rel=tolerance)


def test_the_best_student_is_the_teachers_copy_at_every_temperature():
    t = np.random.default_rng(0).normal(scale=3, size=50)
    for temperature in (1.0, 2.0, 10.0):
        q = 1 / (1 + np.exp(-t / temperature))
        assert distillation_divergence(q, t, temperature) == pytest.approx(0, abs=1e-9)
        assert distillation_divergence(q, t + 0.5, temperature) > 0
    assert distillation_divergence(np.array([0.0, 1.0]), np.array([-800.0, 800.0]), 1.0) == 0  # hard labels, far out


# ---- ensembles
def test_an_ensemble_of_one_equals_the_teacher_and_of_copies_too():
    t = np.random.default_rng(0).normal(size=9)
    np.testing.assert_allclose(soft_targets([t], 2.0), 1 / (1 + np.exp(-t / 2)), rtol=1e-6)
    np.testing.assert_array_equal(soft_targets([t], 2.0), soft_targets([t, t, t], 2.0))


def test_an_ensemble_means_probabilities_not_logits():
    """One member sure (logit 20), one against (−2): the mixture is undecided, the mean logit would say 0.9999."""
    assert soft_targets([np.array([20.0]), np.array([-2.0])], 1.0)[0] == pytest.approx((1 + 0.1192) / 2, abs=1e-4)


# ---- mixup and noise
def test_mixup_mixes_scores_before_the_loss_and_leaves_the_other_terms():
    s, q, bag, label = [2.0, -1.0, 0.3], [0.9, 0.5, 0.2], [0, 0, 1], [1.0, 0.0]
    config = StudentConfig(temperature=1.0, alpha=1.0, beta=1.0, mixup=1.0)
    draws = (torch.tensor([0.25, 1.0, 0.5], dtype=torch.float64), torch.tensor([2, 0, 1]))
    _, mixed, _ = by_hand(config, s, q, bag, label, draws)
    _, plain, _ = by_hand(config, s, q, bag, label)
    ms, mq = [0.25 * 2 + 0.75 * 0.3, -1.0, (0.3 - 1) / 2], [0.25 * 0.9 + 0.75 * 0.2, 0.5, (0.2 + 0.5) / 2]
    expected = distillation_loss(torch.tensor(mq), torch.tensor(ms), 1.0)
    assert mixed["distill"] == pytest.approx(expected.item(), rel=1e-6) != plain["distill"]
    assert (mixed["known_negative"], mixed["bag_consistency"]) == (plain["known_negative"], plain["bag_consistency"])


def test_mixup_happens_before_a_nonlinearity(make_replicate):
    """Mixed where the classifier is linear it would only mix logits."""
    replicate = make_replicate(0)
    config = StudentConfig(feature_width=16, mixup=1.0)
    model = student_model(config, replicate)
    params = model.init(np.random.default_rng(0))
    normalise = Normalise.of(replicate, CPU)
    target = np.full(len(replicate.train.instance), 0.5, np.float32)
    batch = draw_student_batch(config, replicate, replicate.streams, target, 0, normalise)
    _, parts = student_loss(model, params, batch, config, CPU)
    logit = model.terms(params, batch.x).logit
    weight, partner = batch.mix
    of_logits = distillation_loss(batch.target, weight * logit + (1 - weight) * logit[partner], config.temperature)
    assert parts[0] != of_logits


def test_instances_are_mixed_with_those_of_the_other_class_of_bags(make_replicate):
    replicate = make_replicate(0)
    config = StudentConfig(feature_width=16, mixup=0.5, batch_bags=6, augment="none")
    target = np.full(len(replicate.train.instance), 0.5, np.float32)
    batch = draw_student_batch(config, replicate, replicate.streams, target, 0, Normalise.of(replicate, CPU))
    of_bag = batch.label[batch.bag_index]
    partner = batch.mix[1]
    assert (partner != torch.arange(len(partner))).all() and 0 < batch.label.sum() < 6
    least = min(int(of_bag.sum()), len(of_bag) - int(of_bag.sum()))
    assert int((of_bag[partner] != of_bag).sum()) == 2 * least


def test_a_step_takes_whole_bags_with_their_targets_and_noises_the_input(make_replicate):
    replicate = make_replicate(0)
    normalise = Normalise.of(replicate, CPU)
    target = np.arange(len(replicate.train.instance), dtype=np.float32)  # each names its instance

    def draw(step=2, **keys):
        config = StudentConfig(**{"batch_bags": 3, "augment": "none"} | keys)
        return draw_student_batch(config, replicate, replicate.streams.on("generation1"), target, step, normalise)

    plain = draw()
    seen = plain.target.numpy().astype(int)
    assert torch.equal(plain.x, normalise(replicate.pool.instances[replicate.train.instance[seen]]))
    for b in range(3):
        positions = seen[plain.bag_index.numpy() == b]
        bag = np.searchsorted(replicate.train.offsets, positions[0], side="right") - 1
        np.testing.assert_array_equal(positions, np.arange(*replicate.train.offsets[bag : bag + 2]))
        assert plain.label[b] == replicate.train.label[bag]
    noisy = draw(input_noise=0.5)
    assert (noisy.x - plain.x).std().item() == pytest.approx(0.5, rel=0.05)
    for keys in ({"augment": "shift"}, {"augment": "affine"}):
        moved = draw(**keys)
        assert torch.equal(moved.target, plain.target) and not torch.allclose(moved.x, plain.x)
        assert torch.equal(moved.x, draw(**keys).x) and not torch.equal(moved.x, draw(3, **keys).x)


def test_a_step_of_thinned_bags_has_the_targets_of_the_instances_it_sees(make_replicate):
    replicate = make_replicate(0)
    target = np.arange(len(replicate.train.instance), dtype=np.float32)  # each names its instance
    normalise = Normalise.of(replicate, CPU)
    config = StudentConfig(batch_bags=10, augment="none", instances_per_bag=2, dropout=0.5, feature_width=16)
    batches = [
        draw_student_batch(config, replicate, replicate.streams.on(f"generation{g}"), target, 0, normalise)
        for g in (1, 2)
    ]
    for batch in batches:
        seen = batch.target.numpy().astype(int)
        assert torch.equal(batch.x, normalise(replicate.pool.instances[replicate.train.instance[seen]]))
        assert sorted(torch.bincount(batch.bag_index)) == sorted(np.minimum(replicate.train.sizes, 2))
        assert batch.masks.dropout.shape == (len(seen), 16)
    assert set(batches[0].target.tolist()) != set(batches[1].target.tolist())  # each generation draws its own
    assert "instances_per_bag" not in StudentConfig().identity() and "instances_per_bag" in config.identity()


# ---- what a teacher hands over
@pytest.fixture(scope="module")
def taught(make_replicate, tiny):
    replicates = [make_replicate(r) for r in range(2)]
    model = teacher_model(tiny, replicates[0])
    return replicates, model, fit_teacher(tiny, replicates)


def test_targets_are_the_teachers_logits_of_bags_of_one_in_order(taught):
    replicates, model, fitted = taught
    targets = teacher_targets(model, fitted[1].params, replicates[1])
    for bags, logits in ((replicates[1].train, targets.train_logits), (replicates[1].val, targets.val_logits)):
        alone = bags.of_one(bags.instance, bags.instance_label)
        (expected,) = predict_bags(
            model, fitted[1].params, replicates[1].pool, [alone], Normalise.of(replicates[1], CPU), CPU
        )
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_teachers_of_another_replicate_seed_fold_or_other_bags_are_refused(taught, make_replicate):
    replicates, model, fitted = taught
    own = teacher_targets(model, fitted[0].params, replicates[0])
    config = StudentConfig(feature_width=16)
    check_teachers(config, replicates[0], [own])
    for change, message in (
        ({"replicate": 1}, "teacher of replicate 1 was given to a student of replicate 0"),
        ({"base_seed": 7}, "base seed 7"),
        ({"fold": 2}, "fold 2"),
        ({"dataset": "colon"}, "data set colon"),
        ({"bags": "0"}, "other bags"),
        ({"train_logits": own.train_logits[1:]}, "not of its own"),
        ({"val_logits": own.val_logits * np.nan}, "not finite"),
    ):
        with pytest.raises(UserError, match=message):
            check_teachers(config, replicates[0], [dataclasses.replace(own, **change)])
    more = make_replicate(0, train=11)  # the same replicate of a study with more training bags
    with pytest.raises(UserError, match=r"other values of data\.num_bags"):
        check_teachers(config, replicates[0], [teacher_targets(model, fitted[0].params, more)])


def test_the_ensemble_must_have_its_size_and_a_failed_teacher_cannot_teach(taught):
    replicates, model, fitted = taught
    own = teacher_targets(model, fitted[0].params, replicates[0])
    with pytest.raises(UserError, match="replicate 0 has 1 teachers; expected 3"):
        check_teachers(StudentConfig(teachers=3, feature_width=16), replicates[0], [own])
    with pytest.raises(UserError, match=r"it failed.*cannot teach"):
        teacher_targets(model, {}, replicates[0])


@pytest.mark.parametrize("keys", [{"network": "resnet"}, {"feature_width": 17}])
def test_only_the_teachers_network_can_start_from_its_weights(taught, keys):
    replicates, model, fitted = taught
    own = teacher_targets(model, fitted[0].params, replicates[0])
    with pytest.raises(UserError, match=r"start: teacher needs the teacher's network; .*the teacher has lenet"):
        check_teachers(StudentConfig(**{"start": "teacher", "feature_width": 16} | keys), replicates[0], [own])


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"temperature": 0.5}, "temperature: 0.5 is not allowed; expected a number ≥ 1"),
        ({"alpha": -1}, "alpha"),
        ({"generations": 0}, "generations"),
        ({"stochastic_depth": 0.1}, "network resnet; found network lenet"),
        ({"consistency": "mean"}, "one of max, noisy_or"),
        ({"start": "techer"}, "did you mean 'teacher'"),
    ],
)
def test_bad_student_keys_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        StudentConfig(**keys)
