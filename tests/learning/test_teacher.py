"""Training the teacher: determinism, resuming, failures, and that it learns."""

import dataclasses
import io

import pytest
import torch
from fitted_comparison import assert_same, differ

from d2l_study import learning
from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig, fit_teacher, lockstep, sequential
from d2l_study.learning.prediction import Compute

VAT = {"lambda_adv": 0.5, "lambda_noise": 0.5, "lambda_ent": 0.1}


# ---- determinism
@pytest.mark.parametrize("direction", ["logit", "power"])
@pytest.mark.parametrize("pooling", ["gated_attention", "embedding_max"])
def test_packed_equals_one_by_one_equals_again(make_replicate, tiny, pooling, direction):
    config = dataclasses.replace(tiny, **VAT, pooling=pooling, direction=direction)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    packed = fit_teacher(config, replicates)
    backwards = fit_teacher(config, replicates[::-1])[::-1]
    for replicate, a, b in zip(replicates, packed, backwards, strict=True):
        assert a.replicate == replicate.number and a.status == "done" and a.steps_run == 12
        assert_same(a, b)
        assert_same(a, fit_teacher(config, [replicate])[0])
    assert differ(packed[0], packed[1])


def test_global_random_state_is_neither_used_nor_touched(make_replicate, tiny):
    config = dataclasses.replace(tiny, **VAT, direction="power")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    (first,) = fit_teacher(config, [make_replicate(0)])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(first, fit_teacher(config, [make_replicate(0)])[0])


def test_the_base_seed_reaches_bags_and_initial_weights(make_replicate, tiny):
    one, two = (fit_teacher(tiny, [make_replicate(0, base_seed=seed)])[0] for seed in (1, 2))
    assert differ(one, two)


def test_arms_of_weight_zero_are_the_plain_arm(make_replicate, tiny):
    """Whatever else a method's arm says: with all three weights 0 it is the comparison's other side, to the bit."""
    arms = [{}, {"epsilon": 7.0}, {"direction": "power", "xi": 0.5, "power_iterations": 3}, {"noise_kind": "shuffled"},
            {"drop_rate": 0.9, "noise_rate": 2.0}, {"ramp_steps": 5}]  # fmt: skip
    first, *others = (fit_teacher(dataclasses.replace(tiny, **arm), [make_replicate(0)])[0] for arm in arms)
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("weight", ["lambda_adv", "lambda_noise", "lambda_ent"])
def test_each_regularizer_changes_the_training_it_regularizes(make_replicate, tiny, weight):
    plain, with_it = (
        fit_teacher(dataclasses.replace(tiny, **{weight: value}), [make_replicate(0)])[0] for value in (0.0, 1.0)
    )
    assert differ(plain, with_it)
    part = weight.replace("lambda", "r")
    assert plain.curve[0][part] == 0 and with_it.curve[0][part] > 0


# ---- resuming
@pytest.mark.parametrize("select", ["loss", "last"])
def test_a_resumed_run_equals_an_undisturbed_one(make_replicate, tiny, select):
    config = dataclasses.replace(
        tiny, **VAT, direction="power", select=select, decay="cosine", ramp_steps=9, eval_every=3, patience=3,
        warmup_steps=5, weight_average=0.8,
    )  # fmt: skip
    replicates = [make_replicate(r) for r in range(2)]
    saved = []
    undisturbed = fit_teacher(
        config, replicates, checkpoint=lambda number, state: saved.append((number, state)), checkpoint_every=3
    )
    assert [number for number, _ in saved] == [0, 1] * 3  # at steps 3, 6 and 9; at 12 it is done
    for first, second in ((0, 1), (0, 5), (4, 3)):  # also from different steps
        resumed = fit_teacher(config, replicates, resume=dict([saved[first], saved[second]]))
        for a, b in zip(undisturbed, resumed, strict=True):
            assert_same(a, b)
    only_one = fit_teacher(config, replicates, resume=dict([saved[2]]))
    for a, b in zip(undisturbed, only_one, strict=True):
        assert_same(a, b)


def test_checkpoints_come_at_the_intervals_asked_for(make_replicate, tiny):
    def steps_of(every):
        config, found = dataclasses.replace(tiny, steps=12, eval_every=2), []
        fit_teacher(config, [make_replicate(0)], checkpoint=lambda *saved: found.append(saved), checkpoint_every=every)
        return [torch.load(io.BytesIO(state), weights_only=True)["step"] for _, state in found]

    assert steps_of(0) == [] and steps_of(1) == [2, 4, 6, 8, 10] and steps_of(5) == [6, 10] and steps_of(100) == []


@pytest.mark.parametrize("compute", [Compute(), Compute(packed=True)])
def test_checkpoints_by_time_save_all_replicates_and_take_a_small_part_of_it(
    make_replicate, tiny, compute, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(lockstep.time, "monotonic", lambda: now[0])
    config, found = dataclasses.replace(tiny, steps=28, eval_every=2), []

    def report(step, values):
        now[0] += 50

    def checkpoint(number, state):
        now[0] += 10
        found.append((number, torch.load(io.BytesIO(state), weights_only=True)["step"]))

    replicates = [make_replicate(0), make_replicate(1)]
    fit_teacher(config, replicates, compute=compute, checkpoint=checkpoint, checkpoint_every=None, report=report)
    # Due after 120 s, in the fourth interval; saving both took 20 s, so that the next is due 400 s later.
    assert found == [(0, 8), (1, 8), (0, 24), (1, 24)]
    found.clear()
    fit_teacher(config, replicates, compute=compute, checkpoint=checkpoint, checkpoint_every=0, report=report)
    assert not found


@pytest.mark.parametrize("compute", [Compute(), Compute(packed=True)])
def test_a_mistyped_callback_is_refused(make_replicate, tiny, compute):
    with pytest.raises(TypeError, match="unexpected keyword 'checkpoint_evry'; expected one of report, checkpoint, "):
        fit_teacher(tiny, [make_replicate(0)], compute=compute, checkpoint_evry=4)


def test_reports_follow_the_replicates(make_replicate, tiny):
    reports = []
    fitted = fit_teacher(
        tiny, [make_replicate(r) for r in range(2)], report=lambda step, values: reports.append((step, dict(values)))
    )
    assert [step for step, _ in reports] == [4, 8, 12]
    for i, (step, values) in enumerate(reports):
        assert set(values) == {0, 1} and all(v["step"] == step for v in values.values())
        for result in fitted:
            assert result.curve[i] == values[result.replicate]


# ---- failures
@pytest.mark.parametrize("eval_every", [1, 4])
def test_a_replicate_that_diverges_is_frozen_and_the_others_go_on(make_replicate, tiny, monkeypatch, eval_every):
    config = dataclasses.replace(tiny, eval_every=eval_every)
    undisturbed = fit_teacher(config, [make_replicate(r) for r in range(3)])
    genuine = sequential.initial_params

    def spoilt(config, model, replicate):
        params = genuine(config, model, replicate)
        if replicate.number == 1:
            params["conv1.weight"].fill_(torch.nan)
        return params

    monkeypatch.setattr(sequential, "initial_params", spoilt)
    results = fit_teacher(config, [make_replicate(r) for r in range(3)])
    assert [r.status for r in results] == ["done", "failed", "done"]
    failed = results[1]
    assert "nan" in failed.cause and f"between steps 1 and {eval_every}" in failed.cause
    assert failed.metrics == {} and failed.logits == {} and failed.steps_run == eval_every
    for i in (0, 2):
        assert_same(results[i], undisturbed[i])


@pytest.mark.parametrize("eval_every", [1, 2, 12])
@pytest.mark.parametrize("select", ["loss", "auc", "last"])
def test_an_absurd_learning_rate_fails_with_a_cause_wherever_the_loss_breaks(make_replicate, tiny, eval_every, select):
    """With an interval of one step the loss is finite and only the update is not: validation finds it."""
    config = dataclasses.replace(tiny, learning_rate=1e30, eval_every=eval_every, select=select)
    reports = []
    (result,) = fit_teacher(config, [make_replicate(0)], report=lambda step, values: reports.append(dict(values[0])))
    assert result.status == "failed" and result.metrics == {} and result.logits == {}
    assert "finite" in result.cause or "nan" in result.cause or "inf" in result.cause
    assert len(result.curve) == len(reports) == 1


def test_a_failed_replicate_is_not_trained_further(make_replicate, tiny):
    config = dataclasses.replace(tiny, learning_rate=1e30, steps=400, eval_every=2)
    (result,) = fit_teacher(config, [make_replicate(0)])
    assert result.steps_run == 2


def test_every_name_that_the_package_offers_is_there():
    assert all(getattr(learning, name).__name__ == name for name in learning.__all__)


# ---- learning
@pytest.mark.parametrize("vat", [{}, VAT])
def test_a_small_teacher_learns(make_replicate, tiny, vat):
    config = dataclasses.replace(tiny, **vat, steps=120, eval_every=40, feature_width=32)
    replicates = [make_replicate(r, train=40, val=40, test=100, witness_rate=1.0) for r in range(2)]
    for result in fit_teacher(config, replicates):
        assert result.metrics["bag_auc"] > 0.9
        assert result.metrics["instance_auc"] > 0.8
        assert result.curve[-1]["bce"] < 0.5 * result.curve[0]["bce"]
        shown = repr(result)  # as a notebook shows it: one line, without weights and logits
        assert "\n" not in shown and len(shown) < 200 and "tensor" not in shown
        assert shown.startswith(f"FittedTeacher(replicate {result.replicate}, done, step ")
        assert f"bag_auc {result.metrics['bag_auc']:.3f}" in shown


def test_the_example_of_the_package_runs_on_mnist(tmp_path, monkeypatch):
    """`learning` as a notebook uses it: real MNIST, full patches."""
    monkeypatch.setenv("D2L_CACHE", str(tmp_path))
    data = MnistBags(num_bags=20, mean_bag_size=3, bag_size_variance=0, witness_rate=1.0, test_bags=60)
    replicate = data.replicate(data.load_pool(), 0, base_seed=1)
    config = TeacherConfig(lambda_adv=1.0, steps=40, eval_every=20, feature_width=32)
    (result,) = fit_teacher(config, [replicate])
    assert result.logits["test", "instance"].shape == (10_000,)
    assert result.metrics["bag_auc"] > 0.75 and result.metrics["instance_auc"] > 0.75
