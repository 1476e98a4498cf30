"""Dropout, stochastic depth and mixup in the teacher, and the motion of a student's input."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning import TeacherConfig, fit_teacher
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training_noise import draw_masks, draw_mix, mix, partners, shift_and_rotate, split_masks
from d2l_study.models.extractors import feature_layer
from d2l_study.models.pooling import attention_weights

CPU = torch.device("cpu")
STREAMS = Streams("mnist", 1, 0)
ALL = {"extractor": "resnet", "stochastic_depth": 0.4, "dropout": 0.3, "mixup": 0.5}


def test_masks_drop_at_their_rate_and_keep_the_mean():
    masks = draw_masks(STREAMS, 3, (4000, 20), 0.3, 0.6, CPU)
    assert masks.dropout.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (masks.dropout == 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert masks.dropout.double().mean().item() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose((masks.depth > 0).double().mean(0), [0.8, 0.6, 0.4], atol=0.03)
    np.testing.assert_allclose(masks.depth.double().mean(0), [1, 1, 1], atol=0.06)


def test_draws_are_addressed_by_step_and_branch():
    def masks(streams, step, rows=6):
        return draw_masks(streams, step, (rows, 5), 0.5, 0.5, CPU)

    for a, b in zip(masks(STREAMS, 3), masks(STREAMS, 3), strict=True):
        assert torch.equal(a, b)
    for other in (masks(STREAMS, 4), masks(STREAMS.on("generation1"), 3)):
        assert not torch.equal(other.dropout, masks(STREAMS, 3).dropout)
    # Noise instances come after the bags' own, whose masks they must not shift.
    first, rest = split_masks(masks(STREAMS, 3, rows=9), 6)
    assert torch.equal(first.dropout, masks(STREAMS, 3).dropout) and len(rest.depth) == 3
    assert draw_masks(STREAMS, 3, (6, 5), 0.0, 0.0, CPU) is None and split_masks(None, 3) == (None, None)


def test_the_empty_branch_draws_what_streams_without_branches_drew():
    """Philox keyed by the text that has named every draw so far: results of before stay reproducible."""
    expected = [0.38094693, 0.8054615]
    np.testing.assert_allclose(STREAMS.rng("init", 0).random(2), expected, atol=1e-6)
    assert STREAMS.on("a").on("b").branch == "a/b"


def test_mixing_weights_lie_between_the_values_and_partners_are_a_permutation():
    weight, partner = draw_mix(STREAMS, 0, np.arange(50) % 2, 0.4, CPU)
    assert sorted(partner.tolist()) == list(range(50)) and ((weight >= 0) & (weight <= 1)).all()
    values = torch.arange(100.0).view(50, 2)
    found = mix(values, weight, partner)
    np.testing.assert_allclose(found[7], weight[7] * values[7] + (1 - weight[7]) * values[partner[7]], rtol=1e-5)


@pytest.mark.parametrize("positive", [0, 1, 2, 3, 4, 7, 8])
def test_nothing_is_mixed_with_itself_and_all_that_can_be_across_classes(positive):
    rng = np.random.default_rng(positive)
    for _ in range(20):
        label = rng.permutation(np.arange(8) < positive).astype(np.int8)
        found = partners(rng.permutation(8), label)
        assert sorted(found) == list(range(8)) and (found != np.arange(8)).all()
        assert np.count_nonzero(label[found] != label) == 2 * min(positive, 8 - positive)


def test_partners_are_drawn_anew_and_one_alone_keeps_to_itself():
    rng = np.random.default_rng(0)
    label = np.array([0, 1, 0, 1, 1, 0])
    drawn = np.array([partners(rng.permutation(6), label) for _ in range(600)])
    for i in range(6):  # each of the other class alike
        others, counts = np.unique(drawn[:, i], return_counts=True)
        assert others.tolist() == np.flatnonzero(label != label[i]).tolist() and counts.min() > 140
    assert partners(np.array([0]), np.array([1])).tolist() == [0]


def test_two_bags_a_step_are_always_mixed_and_over_classes_wherever_both_are_there(make_replicate, tiny):
    config = dataclasses.replace(tiny, mixup=0.2, batch_bags=2)
    replicate = make_replicate(0)
    normalise = Normalise.of(replicate, Compute())
    both = 0
    for step in range(40):
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
        assert batch.mix[1].tolist() == [1, 0]
        both += bool(batch.label.sum() == 1)
    assert 10 < both < 35  # in every one of these steps both bags are mixed with the other class


# ---- motion of the input
def image():
    return torch.from_numpy(np.random.default_rng(0).random((2, 3, 6, 10)).astype(np.float32))


def test_without_motion_the_input_stays():
    torch.testing.assert_close(shift_and_rotate(image(), torch.zeros(2, 3), 2.0, 30.0), image(), rtol=1e-4, atol=1e-5)


def test_a_shift_of_whole_pixels_moves_values_and_repeats_the_border():
    """Draws (0.5, −0.5) of at most 4 pixels: two to the right, two up."""
    x = image()
    found = shift_and_rotate(x, torch.tensor([[0.5, -0.5, 0.9]] * 2), 4.0, 0.0)
    torch.testing.assert_close(found[:, :, :4, 2:], x[:, :, 2:, :-2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, :, :4, 0], x[:, :, 2:, 0], rtol=1e-4, atol=1e-5)


def test_a_quarter_turn_is_rot90_and_an_angle_is_one_in_pixels_not_in_sides():
    square = image()[:, :, :, :6].contiguous()
    turned = shift_and_rotate(square, torch.tensor([[0.0, 0.0, 1.0]] * 2), 0.0, 90.0)
    torch.testing.assert_close(turned, torch.rot90(square, -1, (2, 3)), rtol=1e-4, atol=1e-4)
    # In a 6×10 image the same turn keeps the middle 6×6 together.
    wide = shift_and_rotate(image(), torch.tensor([[0.0, 0.0, 1.0]] * 2), 0.0, 90.0)
    torch.testing.assert_close(wide[..., 2:8], torch.rot90(image()[..., 2:8], -1, (2, 3)), rtol=1e-4, atol=1e-4)


def test_a_motion_samples_where_pytorchs_grid_does():
    draws = torch.tensor([[0.3, -0.8, 0.7], [-1.0, 0.2, -0.4]])
    for x in (image(), image().double()):
        degrees, (height, width) = 25.0, x.shape[-2:]
        found = shift_and_rotate(x, draws.to(x.dtype), 1.5, degrees)
        angle = draws[:, 2].to(x.dtype) * degrees * torch.pi / 180
        cos, sin, aspect = torch.cos(angle), torch.sin(angle), height / width
        right, down = draws[:, 0].to(x.dtype) * 3 / width, draws[:, 1].to(x.dtype) * 3 / height
        theta = torch.stack([
            torch.stack([cos, sin * aspect, -(cos * right + sin * aspect * down)], 1),
            torch.stack([-sin / aspect, cos, sin / aspect * right - cos * down], 1),
        ], 1)  # fmt: skip
        grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
        expected = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# ---- in the teacher
def test_new_keys_leave_ids_alone_until_they_are_used():
    before = {"dropout", "stochastic_depth", "mixup", "member"}
    assert not before & TeacherConfig().identity().keys()
    assert {"dropout", "member"} <= TeacherConfig(dropout=0.1, member=2).identity().keys()


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"stochastic_depth": 0.2}, "stochastic_depth: 0.2 needs residual blocks, extractor resnet; found .* lenet"),
        ({"mixup": 1.0, "batch_bags": 1}, "mixup: 1 needs batch_bags ≥ 2; found batch_bags 1"),
        ({"dropout": 1.0}, "dropout: 1.0 is not allowed"),
        ({"extractor": "resnett"}, "did you mean 'resnet'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        TeacherConfig(**keys)


@pytest.fixture
def first_step(make_replicate, tiny):
    """config keys -> the loss, its parts, and what they come from, at the initial weights."""

    def run(**keys):
        config = dataclasses.replace(tiny, **keys)
        replicate = make_replicate(0)
        model = teacher_model(config, replicate)
        params = {k: v.requires_grad_(True) for k, v in model.init(replicate.streams.rng("init")).items()}
        normalise = Normalise.of(replicate, Compute())
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, 0, normalise)
        loss, parts = teacher_loss(model, params, batch, config, 1.0, Compute())
        return loss, parts, model, params, batch

    return run


def test_mixup_of_bag_embeddings_is_that_of_their_logits(first_step):
    """The loss against z = Σ a_j h_j mixed explicitly, then classified."""
    loss, _, model, params, batch = first_step(mixup=0.7)
    h = feature_layer(params, model.maps(params, batch.x))
    attention = model.terms(params, batch.x).attention
    bags = len(batch.label)
    weight = attention_weights(attention, batch.bag_index, bags)
    z = torch.zeros(bags, h.shape[1]).index_add(0, batch.bag_index, weight[:, None] * h)
    logit = linear(mix(z, *batch.mix), params["classifier.weight"], params["classifier.bias"]).squeeze(-1)
    expected = binary_cross_entropy_with_logits(logit, mix(batch.label, *batch.mix))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(loss, first_step()[0])


@pytest.mark.parametrize("direction", ["logit", "power"])
def test_perturbed_passes_share_the_masks_of_the_clean_one(first_step, direction):
    """With other masks R_adv would stay large however small the ball; what is left here is rounding."""
    keys = {"dropout": 0.5, "extractor": "resnet", "stochastic_depth": 0.5, "lambda_adv": 1.0, "direction": direction}
    _, near, *_ = first_step(**keys, epsilon=1e-4)
    _, far, *_ = first_step(**keys, epsilon=3.0)
    assert abs(near[1]) < 1e-6 < far[1]


def test_training_with_all_of_them_is_deterministic_packed_and_resumed(make_replicate, tiny):
    config = dataclasses.replace(tiny, **ALL, lambda_adv=0.5, lambda_noise=0.5)
    replicates = [make_replicate(r) for r in range(2)]
    states = {}
    packed = fit_teacher(
        config, replicates, checkpoint=lambda r, state: states.setdefault(r, state), checkpoint_every=4
    )
    resumed = fit_teacher(config, replicates, resume=states)
    for replicate, a, b in zip(replicates, packed, resumed, strict=True):
        (alone,) = fit_teacher(config, [replicate])
        for other in (b, alone):
            assert all(torch.equal(a.params[name], other.params[name]) for name in a.params)
            np.testing.assert_equal(a.metrics, other.metrics)


@pytest.mark.parametrize("keys", [{"dropout": 0.3}, {"mixup": 1.0}, {"extractor": "resnet", "stochastic_depth": 0.5}])
def test_each_changes_the_training_it_regularizes(make_replicate, tiny, keys):
    plain = dataclasses.replace(tiny, extractor=keys.get("extractor", "lenet"))
    a, b = (fit_teacher(c, [make_replicate(0)])[0] for c in (plain, dataclasses.replace(plain, **keys)))
    assert any(not torch.equal(a.params[name], b.params[name]) for name in a.params)


def test_members_of_an_ensemble_differ_in_weights_and_share_bags(make_replicate, tiny):
    seen = []
    replicate = make_replicate(0)
    for member in (0, 1, 2):
        (found,) = fit_teacher(dataclasses.replace(tiny, member=member), [replicate])
        seen.append(found.params["fc.weight"])
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    (again,) = fit_teacher(tiny, [replicate])
    assert torch.equal(seen[0], again.params["fc.weight"])


def test_a_teacher_has_the_tuned_instance_metrics(make_replicate, tiny):
    (found,) = fit_teacher(tiny, [make_replicate(0)])
    assert {"instance_threshold", "instance_f1_tuned", "instance_accuracy_tuned"} <= found.metrics.keys()
    label, logit = make_replicate(0).test_instances.label, found.logits["test", "instance"]
    called = logit > found.metrics["instance_threshold"]
    assert found.metrics["instance_accuracy_tuned"] == pytest.approx(np.mean(called == label))
