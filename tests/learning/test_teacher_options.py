"""What the teacher's options do to its training: rate, order of bags, first weights, ramp, running mean."""

import dataclasses

import numpy as np
import pytest
import torch
from fitted_comparison import assert_same

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_teacher, metrics
from d2l_study.learning.batches import batch_bags, draw_batch, epoch_order
from d2l_study.learning.evaluation import evaluation_sets
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.teacher_model import initial_params, teacher_model
from d2l_study.learning.training import learning_rate
from d2l_study.models.extractors import feature_layer

VAT = {"lambda_adv": 0.5, "lambda_noise": 0.5, "lambda_ent": 0.1}


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
        h = feature_layer(params, model.maps(params, x))
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
