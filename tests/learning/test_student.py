"""Training the student: determinism, packing, resuming over generations, what it may not read, and that it learns."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, metrics, teacher_targets
from d2l_study.learning import student as student_module
from d2l_study.learning.distillation import distillation_divergence, soft_targets
from d2l_study.learning.evaluation import evaluation_sets
from d2l_study.learning.prediction import Compute
from d2l_study.learning.student import SoftLabels, fit_to_soft_labels, student_model
from d2l_study.learning.teacher_model import teacher_model

TINY = StudentConfig(
    feature_width=16, steps=8, batch_bags=3, learning_rate=2e-3, eval_every=4, beta=0.3, augment="none"
)
NOISY = {"dropout": 0.3, "input_noise": 0.3, "augment": "affine", "mixup": 0.5}


@pytest.fixture(scope="module")
def problem(make_replicate, tiny):
    """Three replicates with unequal bags, and what their teachers say."""
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    model = teacher_model(tiny, replicates[0])
    targets = {
        r.number: [teacher_targets(model, t.params, r)]
        for r, t in zip(replicates, fit_teacher(tiny, replicates), strict=True)
    }
    return replicates, targets


def student_of(*changes, **keys):
    return dataclasses.replace(TINY, **{k: v for change in changes for k, v in change.items()} | keys)


def assert_same(a, b, but=()):
    """Bit-equal in everything but the time it took, and the metrics whose names begin with `but`."""
    assert (a.replicate, a.status, a.cause, a.best_step, a.steps_run) == (
        b.replicate, b.status, b.cause, b.best_step, b.steps_run
    )  # fmt: skip
    assert a.params.keys() == b.params.keys()
    assert all(torch.equal(a.params[name], b.params[name]) for name in a.params)
    np.testing.assert_equal(a.curve, b.curve)
    np.testing.assert_equal(a.logits, b.logits)
    assert a.metrics.keys() == b.metrics.keys()
    for name in a.metrics:
        if not (but and name.startswith(but)):
            np.testing.assert_equal(a.metrics[name], b.metrics[name], name)


def differ(a, b):
    return any(not torch.equal(a.params[name], b.params[name]) for name in a.params)


# ---- determinism
@pytest.mark.parametrize(
    "keys",
    [
        {},
        NOISY | {"generations": 2, "weight_average": 0.7, "warmup_steps": 3},
        {"network": "resnet", "stochastic_depth": 0.5, "consistency": "noisy_or"},
    ],
)
def test_packed_equals_one_by_one_equals_resumed(problem, keys):
    replicates, targets = problem
    config = student_of(keys)
    first, last = {}, {}

    def keep(number, state):
        first.setdefault(number, state)
        last[number] = state

    packed = fit_student(config, replicates, targets, checkpoint=keep, checkpoint_every=4)
    assert first.keys() == {0, 1, 2}
    backwards = fit_student(config, replicates[::-1], targets)[::-1]
    resumed = [fit_student(config, replicates, targets, resume=states) for states in (first, last)]
    for i, found in enumerate(packed):
        assert found.replicate == i and found.status == "done" and found.stage == "student" and not found.oracle
        for other in (backwards[i], resumed[0][i], resumed[1][i]):
            assert_same(found, other)
    assert_same(packed[1], fit_student(config, [replicates[1]], targets)[0])
    assert differ(packed[0], packed[1])


def test_replicates_resumed_at_different_generations_meet_again(problem):
    replicates, targets = problem
    config = student_of(generations=2)
    states = []
    whole = fit_student(
        config, replicates[:2], targets, checkpoint=lambda r, state: states.append((r, state)), checkpoint_every=4
    )
    late = [state for r, state in states if r == 1][-1]
    seen = []
    resumed = fit_student(
        config, replicates[:2], targets, resume={1: late}, report=lambda step, values: seen.append((step, set(values)))
    )
    assert seen == [(4, {0}), (8, {0}), (12, {0}), (16, {0, 1})]
    for a, b in zip(whole, resumed, strict=True):
        assert_same(a, b)


def test_global_random_state_is_neither_used_nor_touched(problem):
    replicates, targets = problem
    torch.manual_seed(1)
    before = torch.get_rng_state()
    (first,) = fit_student(student_of(NOISY), replicates[:1], targets)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(first, fit_student(student_of(NOISY), replicates[:1], targets)[0])


# ---- what it may not read
def test_instance_labels_reach_the_instance_metrics_alone(problem):
    """Poisoned in training, validation and test bags and in the pool: training, selection and threshold stay."""
    replicates, targets = problem
    own = replicates[0]
    rng = np.random.default_rng(0)

    def poison(bags):
        labels = rng.integers(0, 2, len(bags.instance)).astype(np.int8)
        return dataclasses.replace(bags, instance_label=labels, true_label=rng.permutation(bags.label))

    alone = own.test_instances
    swapped = dataclasses.replace(alone, label=1 - alone.label)
    pool = dataclasses.replace(own.pool, classes=np.zeros_like(own.pool.classes))
    poisoned = dataclasses.replace(
        own, pool=pool, train=poison(own.train), val=poison(own.val), test=poison(own.test), test_instances=swapped
    )
    config = student_of(NOISY, generations=2, select="auc")
    (clean,), (other,) = (fit_student(config, [replicate], targets) for replicate in (own, poisoned))
    labelled = tuple(f"instance_{m}" for m in ("auc", "ap", "nll", "brier", "accuracy", "precision", "recall", "f1"))
    assert_same(clean, other, but=labelled)
    assert clean.metrics["instance_threshold"] == other.metrics["instance_threshold"]
    assert clean.metrics["instance_auc"] == pytest.approx(1 - other.metrics["instance_auc"])


def test_a_teacher_of_another_replicate_is_refused_before_training(problem):
    replicates, targets = problem
    with pytest.raises(UserError, match="teacher of replicate 1 was given to a student of replicate 0"):
        fit_student(TINY, replicates[:1], {0: targets[1]})
    with pytest.raises(UserError, match="replicate 2 has 0 teachers; expected 1"):
        fit_student(TINY, replicates, {0: targets[0], 1: targets[1]})


# ---- what it learns from
def test_an_ensemble_of_copies_is_its_one_teacher(problem):
    replicates, targets = problem
    (one,) = fit_student(TINY, replicates[:1], targets)
    (three,) = fit_student(student_of(teachers=3), replicates[:1], {0: targets[0] * 3})
    assert_same(one, three)
    other = dataclasses.replace(targets[0][0], train_logits=targets[0][0].train_logits + 1)
    (mixed,) = fit_student(student_of(teachers=2), replicates[:1], {0: [targets[0][0], other]})
    assert differ(one, mixed)


def test_a_student_that_starts_as_its_teacher_and_does_not_move_scores_like_it(problem, tiny, make_replicate):
    replicates, targets = problem
    config = student_of(start="teacher", learning_rate=1e-12, weight_decay=0.0, select="last")
    (found,) = fit_student(config, replicates[:1], targets)
    (teacher,) = fit_teacher(tiny, replicates[:1])
    np.testing.assert_allclose(
        found.logits["test", "instance"], teacher.logits["test", "instance"], rtol=1e-4, atol=1e-5
    )
    assert found.metrics["val_distill_loss"] == pytest.approx(0, abs=1e-8)
    assert found.metrics["instance_auc"] == pytest.approx(teacher.metrics["instance_auc"])
    assert found.metrics["instance_threshold"] == pytest.approx(teacher.metrics["instance_threshold"], abs=1e-4)
    assert not any(name.startswith("attention") for name in found.params)


def test_without_its_teachers_weights_a_student_does_not_start_from_new_ones(problem):
    replicates, targets = problem
    without = targets | {1: [dataclasses.replace(targets[1][0], params=None)]}
    with pytest.raises(UserError, match="start: teacher needs the weights of the first teacher; what replicate 1 was "):
        fit_student(student_of(start="teacher"), replicates, without)
    zeros = SoftLabels(*(np.zeros(len(bags.instance)) for bags in (replicates[2].train, replicates[2].val)))
    with pytest.raises(UserError, match="start: teacher needs a teacher's weights; replicate 2 was given none"):
        fit_to_soft_labels(student_of(start="teacher"), replicates[2:], [zeros])
    assert fit_student(student_of(steps=1), replicates[1:2], without)[0].status == "done"


@pytest.mark.parametrize("start", ["fresh", "teacher"])
def test_each_generation_is_a_run_that_learns_from_the_one_before(problem, start):
    replicates, targets = problem
    (found,) = fit_student(student_of(generations=3, start=start), replicates[:1], targets)
    (single,) = fit_student(student_of(start=start), replicates[:1], targets)
    assert [g.generation for g in found.generations] == [1, 2, 3] and found.steps_run == 24
    assert [v["generation"] for v in found.curve] == [1, 1, 2, 2, 3, 3]
    assert [v["step"] for v in found.curve] == [4, 8, 12, 16, 20, 24]
    np.testing.assert_equal(found.generations[0].metrics, single.metrics)
    np.testing.assert_equal(found.generations[-1].metrics, found.metrics)


def test_the_second_generation_learns_what_the_first_says(problem, monkeypatch):
    """The soft labels that reach a step are σ(s/T) of the first generation's snapshot; those of validation show in
    the distillation loss of the second, recomputed here."""
    replicates, targets = problem
    (first,) = fit_student(student_of(select="last"), replicates[:1], targets)
    genuine, seen = student_module.draw_student_batch, {}

    def watched(config, replicate, streams, target, step, normalise):
        seen.setdefault(streams.branch, target.copy())
        return genuine(config, replicate, streams, target, step, normalise)

    monkeypatch.setattr(student_module, "draw_student_batch", watched)
    (second,) = fit_student(student_of(generations=2, select="last"), replicates[:1], targets)
    model = student_model(TINY, replicates[0])
    taught = teacher_targets(model, first.params, replicates[0])
    np.testing.assert_array_equal(seen["generation1"], soft_targets([targets[0][0].train_logits], 2.0))
    np.testing.assert_allclose(seen["generation2"], soft_targets([taught.train_logits], 2.0), rtol=1e-5)
    assert not np.allclose(seen["generation1"], seen["generation2"], rtol=1e-2)
    scores = teacher_targets(model, second.params, replicates[0]).val_logits
    expected = distillation_divergence(soft_targets([taught.val_logits], 2.0), scores, 2.0)
    assert second.metrics["val_distill_loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "keys",
    [
        {"temperature": 8.0}, {"alpha": 0.0}, {"beta": 0.0}, {"consistency": "noisy_or"},
        {"dropout": 0.5}, {"input_noise": 0.5}, {"augment": "shift"}, {"mixup": 1.0},
        {"weight_average": 0.5}, {"warmup_steps": 4},
    ],
)  # fmt: skip
def test_each_key_changes_the_training(problem, keys):
    replicates, targets = problem
    a, b = (fit_student(c, replicates[:1], targets)[0] for c in (TINY, student_of(keys)))
    assert differ(a, b)


def test_draws_shared_by_two_configurations_are_the_same(problem):
    """Common random numbers: dropout shifts neither the initial weights nor the order of bags."""
    replicates, targets = problem
    curves = [
        fit_student(student_of(keys, learning_rate=1e-12), replicates[:1], targets)[0].curve[0]
        for keys in ({}, {"dropout": 0.5})
    ]
    assert curves[0]["val_bag_auc"] == curves[1]["val_bag_auc"] and curves[0]["distill"] != curves[1]["distill"]


def test_with_lambda_distill_0_no_soft_label_is_read(problem):
    """Neither training nor selection nor a figure changes with what the teachers say."""
    replicates, targets = problem
    other = {
        n: [dataclasses.replace(t, train_logits=-3 * t.train_logits, val_logits=1 - t.val_logits) for t in own]
        for n, own in targets.items()
    }
    for select in ("auc", "loss"):
        config = student_of(NOISY, lambda_distill=0.0, generations=2, select=select)
        for a, b in zip(fit_student(config, replicates, targets), fit_student(config, replicates, other), strict=True):
            assert_same(a, b)
            assert "val_distill_loss" not in a.metrics and all(v["distill"] == 0 for v in a.curve)
        known = student_of(NOISY, generations=2, select=select)
        assert differ(*(fit_student(known, replicates[:1], t)[0] for t in (targets, other)))


# ---- selection, ending, failing
@pytest.mark.parametrize("select", ["auc", "loss", "last"])
def test_the_snapshot_that_is_kept_is_the_best_by_its_rule(problem, select):
    replicates, targets = problem
    (found,) = fit_student(student_of(steps=40, learning_rate=1e-2, select=select), replicates[:1], targets)
    rank = {
        "auc": lambda v: (-v["val_bag_auc"], v["val_bag_nll"]),
        "loss": lambda v: v["val_distill_loss"],
        "last": lambda v: -v["step"],
    }[select]
    best = min(found.curve, key=rank)
    assert found.best_step == best["step"]
    assert found.metrics["val_distill_loss"] == best["val_distill_loss"]
    assert found.metrics["val_bag_auc"] == pytest.approx(best["val_bag_auc"])


def test_of_equal_auc_the_lower_bag_loss_is_kept_not_the_distillation_loss_nor_the_earlier(make_replicate, tiny):
    replicates = [make_replicate(r, train=8 + r, val=4) for r in range(3)]  # 4 validation bags: 5 values of the AUC
    model = teacher_model(tiny, replicates[0])
    targets = {
        r.number: [teacher_targets(model, t.params, r)]
        for r, t in zip(replicates, fit_teacher(tiny, replicates), strict=True)
    }
    config = student_of(steps=40, eval_every=2, learning_rate=1e-2)
    other_rules = {"val_distill_loss": 0, "step": 0}
    for found in fit_student(config, replicates, targets):
        best = max(v["val_bag_auc"] for v in found.curve)
        tied = [v for v in found.curve if v["val_bag_auc"] == best]
        assert found.best_step == min(tied, key=lambda v: v["val_bag_nll"])["step"]
        for key in other_rules:
            other_rules[key] += min(tied, key=lambda v, key=key: v[key])["step"] != found.best_step
    assert all(other_rules.values())  # each would have kept another snapshot of some replicate


def test_patience_ends_a_generation_and_the_next_begins(problem):
    replicates, targets = problem
    config = student_of(steps=400, patience=2, select="loss", learning_rate=0.05, generations=2)
    (found,) = fit_student(config, replicates[:1], targets)
    assert found.status == "done" and len(found.generations) == 2 and found.steps_run < 800
    for g in (1, 2):
        part = [v for v in found.curve if v["generation"] == g]
        best = int(np.argmin([v["val_distill_loss"] for v in part]))
        assert len(part) == best + 3 and found.generations[g - 1].best_step == part[best]["step"]


def test_a_loss_that_is_no_number_freezes_its_replicate_and_no_other(problem, monkeypatch):
    replicates, targets = problem
    genuine = student_module.draw_student_batch

    def spoiled(config, replicate, streams, target, step, normalise):
        batch = genuine(config, replicate, streams, target, step, normalise)
        if replicate.number == 1 and streams.branch == "generation2" and step >= 5:
            batch = dataclasses.replace(batch, x=batch.x * math.nan)
        return batch

    config = student_of(generations=2)
    expected = fit_student(config, replicates, targets)
    monkeypatch.setattr(student_module, "draw_student_batch", spoiled)
    found = fit_student(config, replicates, targets)
    assert [f.status for f in found] == ["done", "failed", "done"]
    assert "became nan between steps 13 and 16 (generation 2)" in found[1].cause
    assert found[1].metrics == {} and found[1].logits == {} and found[1].generations == []
    assert_same(found[0], expected[0])
    assert_same(found[2], expected[2])


# ---- reports and results
def test_reports_and_results_hold_what_was_promised(problem):
    replicates, targets = problem
    reports = []
    found = fit_student(TINY, replicates, targets, report=lambda step, values: reports.append((step, values)))
    assert [step for step, _ in reports] == [4, 8] and all(set(values) == {0, 1, 2} for _, values in reports)
    promised = {"train_loss", "distill", "known_negative", "bag_consistency", "val_bag_auc", "val_distill_loss"}
    values = reports[-1][1][0]
    assert promised <= values.keys()
    assert values["train_loss"] == pytest.approx(
        values["distill"] + TINY.alpha * values["known_negative"] + TINY.beta * values["bag_consistency"], rel=1e-5
    )
    for replicate, student in zip(replicates, found, strict=True):
        assert student.logits.keys() == evaluation_sets(replicate).keys()
        assert student.metrics["bag_auc"] == metrics.auc(replicate.test.label, student.logits["test", "bag"])
        for name in ("instance_auc", "instance_f1", "instance_f1_tuned", "val_bag_nll", "bag_ap"):
            assert name in student.metrics


@pytest.mark.parametrize("consistency", ["max", "noisy_or"])
def test_a_students_bag_score_pools_its_instance_scores(problem, consistency):
    replicates, targets = problem
    config = student_of(consistency=consistency)
    (found,) = fit_student(config, replicates[:1], targets)
    test = replicates[0].test
    model = student_model(config, replicates[0])
    x = ((replicates[0].pool.instances[test.instance] / 255 - 0.1307) / 0.3081).astype(np.float32)
    with torch.no_grad():
        s = model.terms(found.params, torch.from_numpy(x)).logit.double().numpy()
    for b, logit in enumerate(found.logits["test", "bag"]):
        own = s[test.offsets[b] : test.offsets[b + 1]]
        expected = own.max() if consistency == "max" else -np.log(1 / (1 - np.prod(1 / (1 + np.exp(own)))) - 1)
        assert logit == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_bfloat16_trains_too(problem):
    replicates, targets = problem
    (found,) = fit_student(student_of(NOISY), replicates[:1], targets, compute=Compute(precision="bfloat16"))
    assert found.status == "done" and all(p.dtype == torch.float32 for p in found.params.values())


# ---- it learns
def test_a_student_learns_from_a_good_teacher_without_seeing_a_label(make_replicate):
    """A teacher that knows the digits (its logits written down here) hands over what it knows of 9s."""
    replicate = make_replicate(0, train=40, val=20, base_seed=3)
    (teacher,) = fit_teacher(TeacherConfig(feature_width=32, attention_width=8, steps=1), [replicate])
    model = teacher_model(TeacherConfig(feature_width=32, attention_width=8), replicate)
    knowing = dataclasses.replace(
        teacher_targets(model, teacher.params, replicate),
        train_logits=6.0 * replicate.train.instance_label - 3.0,
        val_logits=6.0 * replicate.val.instance_label - 3.0,
    )
    config = StudentConfig(feature_width=32, steps=150, batch_bags=8, learning_rate=3e-3, eval_every=50, augment="none")
    (found,) = fit_student(config, [replicate], {0: [knowing]})
    assert found.metrics["instance_auc"] > 0.9
    assert found.metrics["val_distill_loss"] < 0.6 * found.curve[0]["distill"]


def test_motion_that_never_happens_is_in_no_identity():
    plain, moved, turned = (StudentConfig(augment=kind).identity().keys() for kind in ("none", "shift", "affine"))
    assert turned - plain == {"shift_pixels", "rotation_degrees"} and turned - moved == {"rotation_degrees"}
