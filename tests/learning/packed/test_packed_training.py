"""Packed training: equal to training one by one, whatever shares the stack, stops early, fails or is resumed."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packed_losses import assert_packed_losses, without_ties

from d2l_study.learning import TeacherConfig, fit_teacher
from d2l_study.learning.batches import batch_bags
from d2l_study.learning.packed import batches
from d2l_study.learning.packed import group as packed_group
from d2l_study.learning.packed.batches import (
    UNLABELLED,
    Capacity,
    ReplicateTask,
    bag_orders,
    draw_block,
    empty_blocks,
    padding_share,
)
from d2l_study.learning.packed.model import FORMULATIONS, conv_relu_pool, layer_flops
from d2l_study.learning.packed.training import Pack, fit_teachers
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.prediction import Compute
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training_parts import without_part
from d2l_study.poolings import POOLINGS

ALL = {"lambda_adv": 0.7, "lambda_noise": 1.3, "lambda_ent": 0.4, "drop_rate": 0.4}
PACKED = Compute(packed=True)


def assert_close(a, b):
    """Equal within the rounding of float32 over a dozen steps."""
    assert (a.replicate, a.status, a.best_step, a.steps_run) == (b.replicate, b.status, b.best_step, b.steps_run)
    assert len(a.curve) == len(b.curve) > 0
    for one, other in zip(a.curve, b.curve, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5, nan_ok=True), name
    for name in ("bag_auc", "instance_auc", "val_bag_auc"):
        assert a.metrics[name] == pytest.approx(b.metrics[name], abs=1e-9)
    for name, value in a.params.items():
        torch.testing.assert_close(value, b.params[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    ("pooling", "direction", "kind"),
    [*((pooling, "logit", "gaussian") for pooling in POOLINGS), ("attention", "power", "shuffled")],
)
def test_losses_of_the_first_steps_agree_to_1e8_in_float64(make_replicate, tiny, formulation, pooling, direction, kind):
    config = dataclasses.replace(
        tiny, **ALL, pooling=pooling, direction=direction, noise_kind=kind, eval_every=1, steps=4, ramp_steps=3
    )
    replicates = [without_ties(make_replicate(r, train=8 + r)) for r in range(3)]
    assert_packed_losses(config, replicates, Compute(packed=True, formulation=formulation))


def test_the_residual_network_packs_too(make_replicate, tiny):
    """In float64: after some steps its GroupNorm has blown up the rounding of float32."""
    config = dataclasses.replace(tiny, extractor="resnet", stochastic_depth=0.3, lambda_adv=0.5, eval_every=1, steps=4)
    replicates = [without_ties(make_replicate(r, train=8 + r)) for r in range(3)]
    assert_packed_losses(config, replicates, PACKED)


@pytest.mark.parametrize(
    "arm",
    [{}, ALL, {**ALL, "dropout": 0.3, "mixup": 0.5, "decay": "cosine"}, {**ALL, "augment": "dihedral"},
     {**ALL, "noise_rate": 0.5, "instances_per_bag": 3},
     {"weight_average": 0.7, "warmup_steps": 5, "augment": "affine", "initial_weights": "he",
      "bag_order": "alternating"},
     ],
)  # fmt: skip
def test_packed_equals_one_by_one(make_replicate, tiny, arm):
    config = dataclasses.replace(tiny, **arm)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    for a, b in zip(fit_teacher(config, replicates), fit_teacher(config, replicates, compute=PACKED), strict=True):
        assert_close(a, b)


def test_part_teachers_packed_are_those_trained_one_by_one(make_replicate, tiny):
    """Their bags are unequal in number, as those of folds are."""
    config = dataclasses.replace(tiny, lambda_adv=0.5, lambda_ent=0.1)
    parts = [without_part(make_replicate(r, train=8 + r), TrainingPart(3, 1)) for r in range(3)]
    for a, b in zip(fit_teacher(config, parts), fit_teacher(config, parts, compute=PACKED), strict=True):
        assert_close(a, b)


def test_each_replicate_has_its_own_normalisation(make_replicate, tiny):
    """Of folds of tissue, each is normalised by its own training bags."""
    replicates = [
        dataclasses.replace(make_replicate(r), mean=np.array([0.1 + 0.2 * r]), std=np.array([0.3 - 0.1 * r]))
        for r in range(3)
    ]
    for a, b in zip(fit_teacher(tiny, replicates), fit_teacher(tiny, replicates, compute=PACKED), strict=True):
        assert_close(a, b)


def test_a_small_stack_takes_the_replicates_in_turns(make_replicate, tiny):
    config = dataclasses.replace(tiny, **ALL)
    replicates = [make_replicate(r) for r in range(3)]
    reports = []
    found = fit_teacher(config, replicates, compute=dataclasses.replace(PACKED, pack=2),
                        report=lambda step, values: reports.append((step, sorted(values))))  # fmt: skip
    for a, b in zip(fit_teacher(config, replicates), found, strict=True):
        assert_close(a, b)
    assert reports == [(4, [0, 1, 2]), (8, [0, 1, 2]), (12, [0, 1, 2])]


@pytest.mark.parametrize(("pack", "sizes"), [(None, [5]), (4, [3, 2]), (3, [3, 2]), (2, [2, 2, 1])])
def test_every_step_of_a_replicate_is_drawn_once_however_many_share_a_stack(
    make_replicate, tiny, monkeypatch, pack, sizes
):
    drawn, real = [], packed_group.draw_block

    def counted(problems, capacity, first, last):
        drawn.extend((problem.replicate.number, step) for problem in problems for step in range(first, last))
        return real(problems, capacity, first, last)

    monkeypatch.setattr(packed_group, "draw_block", counted)
    replicates = [make_replicate(r) for r in range(5)]
    made = [
        len(group.problems) for group in Pack([ReplicateTask(tiny, r) for r in replicates], Compute(pack=pack)).groups
    ]
    fit_teacher(tiny, replicates, compute=Compute(packed=True, pack=pack))
    assert made == sizes
    assert sorted(drawn) == [(r, step) for r in range(5) for step in range(tiny.steps)]


def test_arms_that_differ_in_scalars_share_a_pack_and_others_do_not(make_replicate, tiny, monkeypatch):
    base = dataclasses.replace(tiny, lambda_adv=0.5)
    arms = [base, dataclasses.replace(base, learning_rate=1e-3, epsilon=2.0, decay="linear"), tiny,
            dataclasses.replace(base, warmup_steps=6), dataclasses.replace(base, weight_decay=0.3),
            dataclasses.replace(base, adam_beta1=0.5, adam_beta2=0.9),
            dataclasses.replace(base, lambda_adv=1.0, ramp_steps=5, select="last", member=1)]  # fmt: skip
    problems = [(config, make_replicate(r)) for config in arms for r in range(2)]
    sizes = []
    real = Pack.__init__
    monkeypatch.setattr(Pack, "__init__", lambda self, own, *rest: (sizes.append(len(own)), real(self, own, *rest))[1])
    found = fit_teachers(problems)
    assert sizes == [12, 2]
    for (config, replicate), result in zip(problems, found, strict=True):
        assert_close(fit_teacher(config, [replicate])[0], result)


@pytest.mark.parametrize(("first", "second"), [(Compute(), PACKED), (PACKED, Compute()), (PACKED, PACKED)])
def test_a_run_goes_on_packed_or_unpacked(make_replicate, tiny, first, second):
    config = dataclasses.replace(tiny, **ALL, patience=3, weight_average=0.8)
    replicates = [make_replicate(r) for r in range(2)]
    saved = []
    undisturbed = fit_teacher(config, replicates, compute=first, checkpoint_every=4,
                              checkpoint=lambda *state: saved.append(state))  # fmt: skip
    assert [number for number, _ in saved] == [0, 1, 0, 1]
    for chosen in (saved[:2], [saved[2], saved[1]], saved[:1]):  # also from different steps, and one from the start
        resumed = fit_teacher(config, replicates, compute=second, resume=dict(chosen))
        for a, b in zip(undisturbed, resumed, strict=True):
            assert_close(a, b)


def test_a_replicate_that_diverges_is_frozen_and_the_others_go_on(make_replicate, tiny, monkeypatch):
    replicates = [make_replicate(r) for r in range(3)]
    start = Pack._start

    def spoilt(self, i, weights):
        training = start(self, i, weights)
        if i == 1:
            with torch.no_grad():
                training.params["conv1.weight"].fill_(torch.nan)
        return training

    undisturbed = fit_teacher(tiny, replicates)
    monkeypatch.setattr(Pack, "_start", spoilt)
    found = fit_teacher(tiny, replicates, compute=PACKED)
    assert [r.status for r in found] == ["done", "failed", "done"]
    assert "nan" in found[1].cause and found[1].metrics == {} and found[1].steps_run == 4
    for i in (0, 2):
        assert_close(undisturbed[i], found[i])


def test_one_replicate_stops_early_without_the_others(make_replicate, tiny):
    """A learning rate that makes validation worse at once stops one arm; the other trains on, as it does alone."""
    patient = dataclasses.replace(tiny, patience=1, select="loss", eval_every=2)
    arms = [dataclasses.replace(patient, learning_rate=0.3), dataclasses.replace(patient, learning_rate=1e-4)]
    replicate = make_replicate(0, train=20, val=20)
    alone = [fit_teacher(config, [replicate])[0] for config in arms]
    together = fit_teachers([(config, replicate) for config in arms])
    assert alone[0].steps_run < alone[1].steps_run
    for a, b in zip(alone, together, strict=True):
        assert (a.steps_run, a.best_step, a.status) == (b.steps_run, b.best_step, b.status)


def test_blocks_hold_the_steps_of_the_plain_order(make_replicate, tiny):
    replicates = [make_replicate(r, train=7 + r) for r in range(2)]
    problems = [ReplicateTask(dataclasses.replace(tiny, batch_bags=3), r) for r in replicates]
    capacity = Capacity.of(problems)
    block = draw_block(problems, capacity, 5, 9)
    for r, replicate in enumerate(replicates):
        train = replicate.train
        expected = np.stack([batch_bags(replicate.streams, len(train), 3, step) for step in range(5, 9)])
        assert np.array_equal(bag_orders(replicate.streams, len(train), 3, 5, 9), expected)
        for t, chosen in enumerate(expected):
            assert np.array_equal(block["label"][t, r], train.label[chosen])
            for b, bag in enumerate(chosen):
                mine = block["bag"][t, r] == r * 4 + b
                assert np.array_equal(
                    block["instance"][t, r][mine], train.instance[train.offsets[bag] : train.offsets[bag + 1]]
                )
            assert (block["bag"][t, r] == r * 4 + 3).sum() == capacity.instances - train.sizes[chosen].sum() >= 1
    assert 0 < padding_share(problems, capacity) < 1


def test_threads_draw_the_same_blocks(make_replicate, tiny, monkeypatch):
    config = dataclasses.replace(tiny, **ALL, direction="power", augment="affine", dropout=0.3)
    problems = [ReplicateTask(config, make_replicate(r, train=7 + r)) for r in range(4)]
    capacity = Capacity.of(problems)
    alone, used = draw_block(problems, capacity, 5, 9), set()
    real = batches._draw
    monkeypatch.setattr(
        batches, "_draw", lambda *rest: (used.add(threading.current_thread()), real(*rest))[1]
    )  # fmt: skip
    monkeypatch.setattr(batches, "_THREADED_FROM", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = draw_block(problems, capacity, 5, 9)
    assert used and threading.current_thread() not in used
    assert alone.keys() == together.keys() >= {"patches", "start", "noise"}
    assert all(np.array_equal(values, together[name]) for name, values in alone.items())


@pytest.mark.parametrize("arm", [{}, {"augment": "affine", "direction": "power", "dropout": 0.3, "mixup": 0.5}])
def test_arrays_that_were_drawn_into_before_hold_the_same_steps(make_replicate, tiny, arm):
    """Also the weights of a step that has unlabelled bags, whose own draws have no weight but that of R_adv. Places of
    padding may hold anything."""
    config = dataclasses.replace(tiny, **ALL, **arm, weight_average=0.5, batch_bags=2)
    problems = [ReplicateTask(config, make_replicate(r, train=7 + r, unlabelled=9)) for r in range(2)]
    capacity = Capacity.of(problems)
    into = empty_blocks(problems, capacity, 6)
    draw_block(problems, capacity, 0, 6, into)
    again, fresh = draw_block(problems, capacity, 5, 9, into), draw_block(problems, capacity, 5, 9)
    assert again.keys() == fresh.keys() and bool((fresh["weights"] > 0).all())
    for name in ("weights", "rate", "share", "label", "bag", "noise_bag", f"{UNLABELLED}bag"):
        assert np.array_equal(again[name], fresh[name]), name
    for start in ("", UNLABELLED):
        bags = capacity.bags if not start else capacity.unlabelled.bags
        padding = np.arange(2)[None, :, None] * (bags + 1) + bags
        held = fresh[f"{start}bag"] != padding
        for name in ("instance", "patches", "start", "keep"):
            if start + name in fresh:
                assert np.array_equal(again[start + name][held], fresh[start + name][held]), name
    noisy = fresh["noise_bag"] != np.arange(2)[None, :, None] * (capacity.bags + 1) + capacity.bags
    assert np.array_equal(again["noise"][noisy], fresh["noise"][noisy]) and noisy.any()


@pytest.mark.parametrize("side", [5, 4, 3])
def test_the_batched_layer_is_convolution_pooling_and_relu_with_their_gradients(side):
    rng = torch.Generator().manual_seed(0)
    # Whole numbers, so that many places of a window are equally high.
    x = torch.randint(0, 2, (2, 3, 2, 13, 12), generator=rng).double().requires_grad_(True)
    weight = torch.randint(-1, 2, (2, 4, 2, side, side), generator=rng).double().requires_grad_(True)
    bias = torch.randn(2, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    # The bias behind the pooling, the same function: some processors' convolutions add it first, and round ties apart.
    pooled = torch.stack([F.max_pool2d(F.conv2d(*own), 2) for own in zip(x, weight, strict=True)])
    expected = F.relu(pooled + bias[:, None, :, None, None])
    found = conv_relu_pool(x.permute(0, 1, 3, 4, 2), weight, bias).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(found, expected)
    way = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad((found * way).sum(), [x, weight, bias]),
                    torch.autograd.grad((expected * way).sum(), [x, weight, bias]), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_bfloat16_changes_precision_not_meaning(make_replicate, tiny):
    replicates = [make_replicate(r) for r in range(2)]
    config = dataclasses.replace(tiny, **ALL, eval_every=1, steps=1)
    found = [fit_teacher(config, replicates, compute=dataclasses.replace(PACKED, precision=p))[0].curve[0]["train_loss"]
             for p in ("float32", "bfloat16")]  # fmt: skip
    assert found[0] != found[1] and found[0] == pytest.approx(found[1], abs=0.05)


def test_operations_are_counted_from_the_layers(make_replicate, tiny):
    model = dataclasses.replace(teacher_model(TeacherConfig(), make_replicate(0)), shape=(1, 28, 28))
    # conv1 24²·20·25, conv2 8²·50·500, fc 800·500, classifier 500, attention 128·501, each twice
    assert sum(layer_flops(model).values()) == 2 * (576 * 20 * 25 + 64 * 50 * 500 + 800 * 500 + 500 + 128 * 501)


def test_unknown_ways_of_computing_are_refused():
    with pytest.raises(ValueError, match="pack"):
        Compute(pack=0)
    assert not Compute().packs and Compute(device="cuda").packs and Compute(pack=4).packs
    assert Compute(device="cuda:0", pack=4).packs and not Compute(device="cuda", packed=False, pack=4).packs
    assert not Compute(device="cuda", pack=1).packs
