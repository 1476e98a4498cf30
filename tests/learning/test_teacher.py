"""Training the teacher: determinism, packing, resuming, failures, selection, and that it learns."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_teacher, metrics, sequential
from d2l_study.learning.batches import batch_bags, draw_batch, epoch_order
from d2l_study.learning.evaluation import evaluation_sets
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.teacher_model import initial_params, teacher_model
from d2l_study.learning.training import learning_rate
from d2l_study.models.extractors import head

VAT = {"lambda_adv": 0.5, "lambda_noise": 0.5, "lambda_ent": 0.1}


def assert_same(a, b):
    """Bit-equal in everything but the time it took."""
    assert (a.replicate, a.status, a.cause, a.best_step, a.steps_run) == (
        b.replicate, b.status, b.cause, b.best_step, b.steps_run
    )  # fmt: skip
    assert a.params.keys() == b.params.keys()
    for name in a.params:
        assert torch.equal(a.params[name], b.params[name]), name
    np.testing.assert_equal(a.curve, b.curve)  # NaN equals NaN
    np.testing.assert_equal(a.metrics, b.metrics)
    np.testing.assert_equal(a.logits, b.logits)


def differ(a, b):
    return any(not torch.equal(a.params[name], b.params[name]) for name in a.params)


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


# ---- selection and stopping
@pytest.fixture
def scripted(monkeypatch):
    """Validation logits from a script of (loss, AUC)-making logits, one per validation; the parameters stay real."""

    def use(validations, label):
        script = iter(validations)
        real = sequential.predict_bags

        def predict(model, params, pool, sets, normalise, compute):
            if len(sets) > 1:  # the final evaluation
                return real(model, params, pool, sets, normalise, compute)
            return [np.where(label == 1, *next(script)).astype(np.float32)]

        monkeypatch.setattr(sequential, "predict_bags", predict)

    return use


GOOD, SURE, SURER, WORSE, LOW = (1.0, -1.0), (3.0, -3.0), (4.0, -4.0), (0.5, -0.5), (-1.0, 1.0)
"""The logits of positive and of negative validation bags."""


@pytest.mark.parametrize(
    ("select", "patience", "script", "best", "run"),
    [
        ("loss", 0, [GOOD, SURE, WORSE, LOW], 2, 4),
        ("loss", 0, [SURE, SURE, WORSE, LOW], 1, 4),  # the earliest of equals
        ("auc", 0, [LOW, GOOD, WORSE, LOW], 2, 4),  # AUC 1 twice, the lower loss first
        ("auc", 0, [LOW, WORSE, GOOD, LOW], 3, 4),  # of equal AUC the lower loss
        ("last", 0, [SURE, GOOD, WORSE, LOW], 4, 4),
        ("loss", 1, [GOOD, WORSE, SURE, SURE], 1, 2),
        ("loss", 2, [GOOD, WORSE, SURE, LOW, SURER], 5, 5),  # improvement starts the patience anew
        ("loss", 2, [SURE, WORSE, LOW, GOOD], 1, 3),
        ("last", 1, [SURE, GOOD, WORSE, LOW], 4, 4),
    ],
)
def test_the_right_snapshot_is_kept(make_replicate, tiny, scripted, select, patience, script, best, run):
    config = dataclasses.replace(tiny, steps=3 * len(script), eval_every=3, select=select, patience=patience)
    replicate = make_replicate(0)
    scripted(script, replicate.val.label)
    (result,) = fit_teacher(config, [replicate])
    assert (result.status, result.best_step, result.steps_run) == ("done", 3 * best, 3 * run)
    assert [c["step"] for c in result.curve] == [3 * (i + 1) for i in range(run)]
    # The parameters are those of that step: a run that ends there has the same.
    scripted(script, replicate.val.label)
    (short,) = fit_teacher(dataclasses.replace(config, steps=3 * best, select="last", patience=0), [replicate])
    assert not differ(result, short)
    np.testing.assert_equal(result.logits, short.logits)


def test_one_replicate_stops_early_without_the_others(make_replicate, tiny, monkeypatch):
    config = dataclasses.replace(tiny, steps=12, eval_every=3, patience=1)
    replicates = [make_replicate(r) for r in range(2)]
    real = sequential.predict_bags
    first = {0: iter([SURE, GOOD]), 1: iter([WORSE, GOOD, SURE, LOW])}

    def predict(model, params, pool, sets, *rest):
        (number,) = [r.number for r in replicates if r.val is sets[0]]
        if len(sets) > 1:
            return real(model, params, pool, sets, *rest)
        return [np.where(sets[0].label == 1, *next(first[number])).astype(np.float32)]

    monkeypatch.setattr(sequential, "predict_bags", predict)
    reports = []
    results = fit_teacher(config, replicates, report=lambda step, values: reports.append((step, sorted(values))))
    assert [(r.best_step, r.steps_run) for r in results] == [(3, 6), (9, 12)]
    assert reports == [(3, [0, 1]), (6, [0, 1]), (9, [1]), (12, [1])]


def test_test_bags_choose_nothing(make_replicate, tiny):
    """Other test bags, all else equal: the same curve, snapshot and parameters."""
    a = make_replicate(0)
    b = dataclasses.replace(a, test=make_replicate(5).test, test_instances=make_replicate(5).val)
    one, two = (fit_teacher(dataclasses.replace(tiny, select="auc"), [r])[0] for r in (a, b))
    assert one.curve == two.curve and one.best_step == two.best_step and not differ(one, two)


def test_one_class_in_validation_leaves_the_loss_to_select(make_replicate, tiny):
    replicate = make_replicate(0, val=4, prevalence=0.2)
    replicate = dataclasses.replace(replicate, train=make_replicate(0).train)
    assert not replicate.val.label.any()
    (result,) = fit_teacher(dataclasses.replace(tiny, select="auc"), [replicate])
    assert result.status == "done" and all(math.isnan(c["val_bag_auc"]) for c in result.curve)
    losses = [c["val_bag_nll"] for c in result.curve]
    assert result.best_step == 4 * (1 + int(np.argmin(losses)))


# ---- what the options do
def test_learning_rate_decay():
    def rates(decay):
        config = TeacherConfig(decay=decay, steps=100, learning_rate=0.01)
        return np.array([learning_rate(config, step) for step in range(100)])

    assert np.array_equal(rates("constant"), np.full(100, 0.01))
    np.testing.assert_allclose(rates("linear"), 0.01 * (1 - np.arange(100) / 100))
    np.testing.assert_allclose(rates("cosine"), 0.005 * (1 + np.cos(np.pi * np.arange(100) / 100)))
    for decay in ("linear", "cosine"):
        assert rates(decay)[0] == 0.01 and 0 < rates(decay)[-1] < 0.011 * 0.01 and (np.diff(rates(decay)) < 0).all()


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_the_warm_up_rises_to_the_rate_that_was_asked_for(decay):
    plain, warm = (TeacherConfig(decay=decay, steps=100, warmup_steps=warm) for warm in (0, 4))
    share = [learning_rate(warm, step) / learning_rate(plain, step) for step in range(6)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.75, 1, 1, 1])


def test_the_running_mean_of_the_weights_is_what_is_kept(make_replicate, tiny):
    """Of decay 3/4: the plain mean of the first four steps, then a quarter of each step's weights; and the weights
    themselves go on as without it."""
    config, replicate = dataclasses.replace(tiny, select="last", steps=6, eval_every=6), make_replicate(0)
    after = [fit_teacher(dataclasses.replace(config, steps=n, eval_every=n), [replicate])[0] for n in range(1, 7)]
    (found,) = fit_teacher(dataclasses.replace(config, weight_average=0.75), [replicate])
    assert found.curve[0]["train_loss"] == after[-1].curve[0]["train_loss"]
    for name, value in found.params.items():
        steps = torch.stack([result.params[name] for result in after]).double()
        mean = steps[:4].mean(0)
        for step in steps[4:]:
            mean = 0.75 * mean + 0.25 * step
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    scored = predict_bags(
        teacher_model(config, replicate), found.params, replicate.pool, [replicate.val],
        Normalise.of(replicate, Compute()), Compute(),
    )[0]  # fmt: skip
    assert found.curve[0]["val_bag_nll"] == metrics.log_loss(replicate.val.label, scored)


@pytest.mark.parametrize("label", [[1, 0] * 5, [0] * 9 + [1] * 3, [1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]])
def test_an_alternating_epoch_holds_every_bag_once_with_the_classes_spread_evenly(make_replicate, label):
    label, streams = np.array(label), make_replicate(0).streams
    orders = [epoch_order(streams, epoch, len(label), label=label) for epoch in range(20)]
    for order in orders:
        assert sorted(order) == list(range(len(label)))
        share, seen = label.mean(), np.cumsum(label[order])
        assert np.abs(seen - share * np.arange(1, len(label) + 1)).max() <= 1  # never a bag ahead or behind
    assert len({tuple(order) for order in orders}) > 1
    chosen = batch_bags(streams, len(label), 2, 1, label=label)
    assert np.array_equal(chosen, np.concatenate(orders)[2:4])


def test_the_order_by_turns_is_asked_for_by_a_key(make_replicate, tiny):
    replicate = make_replicate(0, train=12)
    normalise, balanced = Normalise.of(replicate, Compute()), []
    for order in ("shuffled", "alternating"):
        config = dataclasses.replace(tiny, batch_bags=4, bag_order=order)
        batches = [
            draw_batch(config, replicate.pool, replicate.train, replicate.streams, s, normalise) for s in range(9)
        ]
        balanced.append([batch.label.mean().item() == 0.5 for batch in batches])
    assert all(balanced[1]) and not all(balanced[0])


@pytest.mark.parametrize("extractor", ["lenet", "lenet_histology"])
def test_he_weights_keep_the_variance_from_layer_to_layer(make_replicate, extractor):
    """The mean square of what the last layer reads and gives, on real patches, against the default's."""
    replicate, spread = make_replicate(0), {}
    for initial in ("uniform", "he"):
        config = TeacherConfig(extractor=extractor, initial_weights=initial)
        model = teacher_model(config, replicate)
        params = initial_params(config, model, replicate)
        x = Normalise.of(replicate, Compute())(replicate.pool.instances[:200])
        h = head(params, model.maps(params, x))
        spread[initial] = [v.square().mean().item() for v in (x, h)]
        again = model.init(replicate.streams.rng("init"))
        assert torch.equal(params["classifier.weight"], again["classifier.weight"])
        assert torch.equal(params["conv1.weight"], again["conv1.weight"] * (6**0.5 if initial == "he" else 1))
        assert (params["fc.bias"].abs().max() == 0) == (initial == "he")
    x, h = spread["he"]
    assert 1 / 10 < h / x < 10 and spread["uniform"][1] < h / 50  # max pooling alone makes it grow


def test_he_weights_are_refused_for_a_network_that_normalises():
    with pytest.raises(UserError, match=r"initial_weights: he is for lenet.*found extractor resnet"):
        TeacherConfig(extractor="resnet", initial_weights="he")


def test_settings_without_the_newer_keys_keep_their_ids():
    for config in (TeacherConfig(), StudentConfig()):
        assert {"weight_average", "warmup_steps", "initial_weights", "bag_order"}.isdisjoint(config.identity())
    assert TeacherConfig(weight_average=0.9).identity()["weight_average"] == 0.9


@pytest.mark.parametrize("decay", ["constant", "linear"])
def test_the_optimizer_is_adam_with_the_rate_of_the_step(make_replicate, tiny, decay):
    """Three steps against torch's plain Adam and the written loss."""
    config = dataclasses.replace(tiny, steps=3, eval_every=3, select="last", decay=decay, weight_decay=0.1)
    replicate = make_replicate(0)
    (result,) = fit_teacher(config, [replicate])
    model = teacher_model(config, replicate)
    params = {n: v.requires_grad_(True) for n, v in model.init(replicate.streams.rng("init")).items()}
    optimizer = torch.optim.Adam(params.values(), lr=1.0, weight_decay=0.1, fused=False)
    normalise = Normalise.of(replicate, Compute())
    losses = []
    for step in range(3):
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
        loss, _ = teacher_loss(model, params, batch, config, 1.0, Compute())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / 3 if decay == "linear" else 1)
        optimizer.step()
        losses.append(loss.item())
    assert result.curve[0]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    for name, value in params.items():
        torch.testing.assert_close(result.params[name], value.detach(), rtol=1e-3, atol=1e-5)


def test_the_ramp_starts_from_nothing(make_replicate, tiny):
    """A ramp much longer than the run leaves it nearly plain; one of a single step is none."""
    plain, ramped, one, none = (
        fit_teacher(dataclasses.replace(tiny, select="last", **arm), [make_replicate(0)])[0]
        for arm in ({}, {**VAT, "ramp_steps": 10**9}, {**VAT, "ramp_steps": 1}, VAT)
    )
    assert_same(one, none)
    for name in plain.params:
        torch.testing.assert_close(plain.params[name], ramped.params[name], rtol=0, atol=2e-4)
    assert max((plain.params[n] - none.params[n]).abs().max().item() for n in plain.params) > 2e-3
    assert ramped.curve[0]["r_noise"] > 0  # the parts are reported unweighted


def test_metrics_are_those_of_the_logits(make_replicate, tiny):
    replicate = make_replicate(0, label_noise=0.3, train=20, val=20)
    (result,) = fit_teacher(tiny, [replicate])
    assert list(result.logits) == list(evaluation_sets(replicate))
    for (split, level), bags in evaluation_sets(replicate).items():
        logit = result.logits[split, level]
        prefix = f"val_{level}" if split == "val" else level
        assert len(logit) == len(bags)
        assert result.metrics[f"{prefix}_auc"] == metrics.auc(bags.label, logit)
        assert result.metrics[f"{prefix}_nll"] == metrics.log_loss(bags.label, logit)
    best = next(c for c in result.curve if c["step"] == result.best_step)
    assert best["val_bag_nll"] == pytest.approx(result.metrics["val_bag_nll"], rel=1e-5)
    assert np.array_equal(replicate.test.label, replicate.test.true_label)


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
