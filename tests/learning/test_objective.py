"""The loss of a step: its draws, its parts against a direct computation, its gradient against finite differences."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from d2l_study.data.pool import Bags, Pool
from d2l_study.data.streams import Streams
from d2l_study.learning.batches import Batch, batch_bags, batch_instances, draw_batch
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.regularizers import bernoulli_kl, boundary_direction
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.poolings import POOLINGS

ALL = {"lambda_adv": 0.7, "lambda_noise": 1.3, "lambda_ent": 0.4, "drop_rate": 0.4, "epsilon": 0.5}
BCE, ADV, NOISE, ENT = range(4)


@pytest.fixture(scope="module")
def replicate(make_replicate):
    return make_replicate(0)


def drawn(config, replicate, step=0):
    return draw_batch(
        config, replicate.pool, replicate.train, replicate.streams, step, Normalise.of(replicate, Compute())
    )


def in_float64(model, batch, seed=0):
    """Parameters and batch in float64, so that a comparison is exact."""
    params = {n: (2 * v).double().requires_grad_(True) for n, v in model.init(np.random.default_rng(seed)).items()}
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    wide = {n: v.double() for n, v in values.items() if v is not None and v.is_floating_point()}
    return params, Batch(**values | wide)


def kl(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


# ---- which bags
@pytest.mark.parametrize(("bags", "batch"), [(10, 3), (12, 4), (7, 7), (5, 8), (2, 1)])
def test_every_epoch_holds_every_bag_once(bags, batch):
    streams = Streams("mnist", 1, 0)
    row = np.concatenate([batch_bags(streams, bags, batch, step) for step in range(4 * bags)])
    epochs = row[: len(row) // bags * bags].reshape(-1, bags)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(bags), (len(epochs), 1)))
    assert bags < 3 or len({tuple(epoch) for epoch in epochs}) > 1  # each epoch has its own order


def test_a_step_is_addressed_not_counted():
    streams = Streams("mnist", 1, 0)
    forwards = [batch_bags(streams, 10, 3, step) for step in range(20)]
    for step in reversed(range(20)):
        assert np.array_equal(batch_bags(Streams("mnist", 1, 0), 10, 3, step), forwards[step])


# ---- the draws of a step
def test_a_batch_holds_its_bags_images_in_normalised_units(replicate, tiny):
    batch = drawn(tiny, replicate, step=5)
    chosen = batch_bags(replicate.streams, len(replicate.train), 3, 5)
    for i, b in enumerate(chosen):
        images = replicate.train.instance[replicate.train.offsets[b] : replicate.train.offsets[b + 1]]
        expected = (replicate.pool.instances[images] / 255 - 0.1307) / 0.3081
        np.testing.assert_allclose(batch.x[batch.bag_index == i].numpy(), expected, rtol=1e-5, atol=1e-6)
        assert batch.label[i] == replicate.train.label[b]


@pytest.mark.parametrize("limit", [1, 3, 5, 8])
def test_a_step_sees_so_many_instances_of_a_bag_and_whole_ones_that_are_smaller(limit):
    sizes = np.array([1, 3, 5, 8])
    bags = Bags(np.concatenate([[0], sizes.cumsum()]), 100 + np.arange(17), np.zeros(4, np.int8),
                np.zeros(17, np.int8))  # fmt: skip
    streams, chosen = Streams("mnist", 1, 0), np.array([3, 0, 2, 1])
    seen = []
    for step in range(200):
        positions, bag_of = batch_instances(limit, bags, chosen, streams, step)
        assert (bags.bag_of[positions] == chosen[bag_of]).all() and (np.diff(bag_of) >= 0).all()
        assert np.bincount(bag_of).tolist() == np.minimum(sizes[chosen], limit).tolist()
        assert all((np.diff(positions[bag_of == b]) > 0).all() for b in range(4))  # in order, none twice
        seen.append(positions)
        again = batch_instances(limit, bags, chosen, Streams("mnist", 1, 0), step)
        assert np.array_equal(again[0], positions) and np.array_equal(again[1], bag_of)
    times = np.bincount(np.concatenate(seen), minlength=17)
    expected = np.repeat(np.minimum(1, limit / sizes), sizes)  # every instance of a bag has the same chance
    assert (np.abs(times / 200 - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 200)).all()


def test_without_a_limit_or_below_it_a_step_is_what_it_was(replicate, tiny):
    largest = int(replicate.train.sizes.max())
    config = dataclasses.replace(tiny, **{**ALL, "direction": "power"})
    plain = drawn(config, replicate, step=3)
    limited = drawn(dataclasses.replace(config, instances_per_bag=largest), replicate, step=3)
    for field in dataclasses.fields(Batch):
        value = getattr(plain, field.name)
        assert value is None or torch.equal(value, getattr(limited, field.name)), field.name
    assert "instances_per_bag" not in config.identity()


def test_noise_and_subset_are_of_the_instances_seen(replicate, tiny):
    config = dataclasses.replace(tiny, **ALL, noise_rate=0.5, instances_per_bag=2, batch_bags=10)
    batch = drawn(config, replicate)
    sizes = np.minimum(replicate.train.sizes[batch_bags(replicate.streams, 10, 10, 0)], 2)
    assert torch.bincount(batch.bag_index).tolist() == sizes.tolist()
    assert torch.bincount(batch.noise_bag).tolist() == [1] * 10 and len(batch.keep) == len(batch.x) == sizes.sum()


def test_a_regularizer_shifts_no_other_draw(replicate, tiny):
    arms = [{}, {"lambda_adv": 1.0, "direction": "power"}, {"lambda_noise": 1.0}, {"lambda_ent": 1.0},
            {**ALL, "direction": "power", "drop_rate": tiny.drop_rate}]  # fmt: skip
    batches = [drawn(dataclasses.replace(tiny, **arm), replicate, step=3) for arm in arms]
    everything = batches[-1]
    for batch in batches:
        for field in dataclasses.fields(Batch):
            value = getattr(batch, field.name)
            assert value is None or torch.equal(value, getattr(everything, field.name)), field.name
    assert [b.start is not None for b in batches] == [False, True, False, False, True]
    assert [b.noise is not None for b in batches] == [False, False, True, False, True]
    assert [b.keep is not None for b in batches] == [False, False, False, True, True]


def test_steps_and_replicates_draw_afresh(make_replicate, tiny):
    config = dataclasses.replace(tiny, **{**ALL, "direction": "power"}, batch_bags=10)
    one, two = make_replicate(0), make_replicate(1)
    a, b, c = drawn(config, one, 0), drawn(config, one, 1), drawn(config, two, 0)
    for other in (b, c):
        for name in ("start", "noise"):
            shared = min(len(getattr(a, name)), len(getattr(other, name)))
            assert not torch.isclose(getattr(a, name)[:shared], getattr(other, name)[:shared]).all(1).any()


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.28, 0.55, 1.0, 2.5])
def test_noise_instances_number_the_rate_times_the_size_rounded_up(pool, tiny, rate):
    sizes = np.array([1, 2, 3, 25, 50, 100])
    bags = Bags(np.concatenate([[0], sizes.cumsum()]), np.arange(sizes.sum()), np.zeros(6, np.int8),
                np.zeros(sizes.sum(), np.int8))  # fmt: skip
    config = dataclasses.replace(tiny, lambda_noise=1.0, noise_rate=rate, batch_bags=6)
    normalise = Normalise(torch.tensor(0.1307), torch.tensor(0.3081))
    batch = draw_batch(config, pool, bags, Streams("mnist", 1, 0), 0, normalise)
    hundredths = round(100 * rate)
    expected = [-(-hundredths * int(k) // 100) for k in torch.bincount(batch.bag_index)]  # ⌈ρ k⌉ in whole numbers
    assert torch.bincount(batch.noise_bag, minlength=6).tolist() == expected
    assert batch.noise.shape == (sum(expected), *pool.shape)


def test_gaussian_noise_is_standard_normal_in_normalised_units(replicate, tiny):
    config = dataclasses.replace(tiny, lambda_noise=1.0, noise_rate=10.0, batch_bags=10)
    noise = drawn(config, replicate).noise.flatten(1).numpy()
    assert noise.mean() == pytest.approx(0, abs=0.01) and noise.std() == pytest.approx(1, abs=0.01)
    pairs = np.corrcoef(noise)[np.triu_indices(len(noise), 1)]
    assert np.abs(pairs).max() < 6 / noise.shape[1] ** 0.5  # uncorrelated instances


def test_uniform_noise_fills_the_pixel_range(replicate, tiny):
    config = dataclasses.replace(tiny, lambda_noise=1.0, noise_rate=10.0, batch_bags=10, noise_kind="uniform")
    pixel = (drawn(config, replicate).noise * 0.3081 + 0.1307).numpy().ravel()
    assert pixel.min() >= -1e-5 and pixel.max() <= 1 + 1e-5
    counts, _ = np.histogram(pixel, 8, (0, 1))
    assert np.abs(counts / counts.mean() - 1).max() < 0.05


def test_shuffled_noise_has_the_pixels_of_an_instance_of_its_bag():
    """Whole pixels change places: the channels of a pixel stay together."""
    rng = np.random.default_rng(0)
    pool = Pool("colour", rng.integers(0, 256, (30, 3, 16, 16), np.uint8), np.zeros(30, np.int64), "")
    bags = Bags(np.array([0, 10, 13, 30]), np.arange(30), np.zeros(3, np.int8), np.zeros(30, np.int8))
    config = TeacherConfig(lambda_noise=1.0, noise_rate=2.0, noise_kind="shuffled", batch_bags=3)
    normalise = Normalise(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))
    batch = draw_batch(config, pool, bags, Streams("colour", 1, 0), 0, normalise)

    def pixels(image):
        return sorted(map(tuple, image.flatten(1).T.tolist()))

    used = set()
    for noise, owner in zip(batch.noise, batch.noise_bag.tolist(), strict=True):
        instances = batch.x[batch.bag_index == owner]
        matches = [i for i, image in enumerate(instances) if pixels(image) == pixels(noise)]
        assert len(matches) == 1 and not torch.equal(instances[matches[0]], noise)
        used.add((owner, matches[0]))
    assert len(used) > 15  # drawn from all over the bags


# ---- the parts of the loss
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_parts_equal_a_direct_computation(replicate, tiny, pooling):
    """Every bag built and classified on its own: with noise put in, with instances removed, with moved instances."""
    config = dataclasses.replace(tiny, **ALL, pooling=pooling, noise_rate=0.5)
    model = teacher_model(config, replicate)
    params, batch = in_float64(model, drawn(config, replicate))
    loss, parts = teacher_loss(model, params, batch, config, 1.0, Compute())

    def probability(x):
        return expit(model.logits(params, x, torch.zeros(len(x), dtype=torch.int64), 1).item())

    expected = np.zeros(4)
    for b, label in enumerate(batch.label.tolist()):
        bag = batch.x[batch.bag_index == b]
        p = probability(bag)
        leaf = bag.clone().requires_grad_(True)
        logit = model.logits(params, leaf, torch.zeros(len(bag), dtype=torch.int64), 1)
        (gradient,) = torch.autograd.grad(logit.sum(), leaf)
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        step = torch.where(length > 0, gradient / length, torch.zeros_like(gradient))
        moved = bag - math.copysign(config.epsilon, logit.item()) * step
        s = probability(bag[batch.keep[batch.bag_index == b]])
        expected += [
            -math.log(p if label else 1 - p),
            kl(p, probability(moved)),
            kl(p, probability(torch.cat([bag, batch.noise[batch.noise_bag == b]]))),
            -s * math.log(s) - (1 - s) * math.log(1 - s),
        ]
    expected /= len(batch.label)
    alike = [BCE, ADV, ENT] if pooling == "instance_max" else [BCE, ADV, NOISE, ENT]  # noise need not be a maximum
    assert (expected[alike] > 1e-9).all() and not batch.keep.all()
    np.testing.assert_allclose(parts.numpy(), expected, rtol=1e-6)
    assert loss.item() == pytest.approx(expected @ [1, 0.7, 1.3, 0.4], rel=1e-6)


@pytest.mark.parametrize("direction", ["logit", "power"])
def test_the_ramp_weighs_the_regularizers_only(replicate, tiny, direction):
    config = dataclasses.replace(tiny, **ALL, direction=direction)
    model = teacher_model(config, replicate)
    params, batch = in_float64(model, drawn(config, replicate))
    losses, parts = zip(*(teacher_loss(model, params, batch, config, r, Compute()) for r in (0.0, 0.25, 1.0)),
                        strict=True)  # fmt: skip
    for ramp, loss, part in zip((0.0, 0.25, 1.0), losses, parts, strict=True):
        torch.testing.assert_close(part, parts[0])  # the parts are unweighted
        weighted = 0.7 * part[ADV] + 1.3 * part[NOISE] + 0.4 * part[ENT]
        torch.testing.assert_close(loss.detach(), part[BCE] + ramp * weighted)


def test_parts_that_are_off_are_zero_and_cost_no_draw(replicate, tiny):
    model = teacher_model(tiny, replicate)
    params, batch = in_float64(model, drawn(tiny, replicate))
    loss, parts = teacher_loss(model, params, batch, tiny, 1.0, Compute())
    assert parts[1:].tolist() == [0, 0, 0] and loss.item() == parts[BCE].item() > 0


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shift", [0.0, 30.0, -30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_backward_pass_gives_what_two_give(replicate, tiny, pooling, shift, dtype):
    """R_adv alone takes its direction from the cross-entropy's own backward pass. Against separate passes, with bags on
    both sides of the boundary, right and wrong, and so sure that σ rounds to the label in float32 (logits of ± 30)."""
    config = dataclasses.replace(tiny, lambda_adv=0.7, epsilon=0.5, pooling=pooling, batch_bags=6)
    model = teacher_model(config, replicate)
    wide, batch = in_float64(model, drawn(config, replicate))
    wide = wide | {"classifier.bias": wide["classifier.bias"] + shift}
    params = {name: value.detach().to(dtype).requires_grad_(True) for name, value in wide.items()}
    batch = dataclasses.replace(batch, x=batch.x.to(dtype), label=batch.label.to(dtype))
    bags, tensors = len(batch.label), list(params.values())
    x = batch.x.clone().requires_grad_(True)
    logit = model.logits(params, x, batch.bag_index, bags)
    moved = batch.x + config.epsilon * boundary_direction(x, logit, batch.bag_index)
    adversarial = bernoulli_kl(logit.detach(), model.logits(params, moved, batch.bag_index, bags)).mean()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.label)
    expected = bce + 0.25 * 0.7 * adversarial

    loss, parts = teacher_loss(model, params, batch, config, 0.25, Compute())
    near = {"rtol": 1e-9, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    assert batch.label.unique().tolist() == [0, 1] and (dtype == torch.float32 or parts[ADV] > 0)
    torch.testing.assert_close(loss.detach(), expected.detach(), **near)
    torch.testing.assert_close(parts[:2], torch.stack([bce, adversarial]).detach(), **near)
    for one, two in zip(torch.autograd.grad(loss, tensors), torch.autograd.grad(expected, tensors), strict=True):
        torch.testing.assert_close(one, two, **near)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("direction", ["logit", "power"])
def test_the_gradient_holds_the_clean_prediction_and_the_direction_fixed(replicate, tiny, pooling, direction):
    """dL/dθ of the loss with p̂ and r as constants, by central differences along random directions in θ."""
    config = dataclasses.replace(tiny, **ALL, pooling=pooling, direction=direction)
    model = teacher_model(config, replicate)
    params, batch = in_float64(model, drawn(config, replicate))
    bags = len(batch.label)
    loss, _ = teacher_loss(model, params, batch, config, 0.5, Compute())
    gradients = torch.autograd.grad(loss, list(params.values()))
    assert all(value.grad is None for value in params.values())

    x = batch.x.clone().requires_grad_(True)
    clean = model.logits(params, x, batch.bag_index, bags)
    p = torch.sigmoid(clean).detach()
    if direction == "logit":
        r = config.epsilon * boundary_direction(x, clean, batch.bag_index)
    else:
        d = (batch.start / batch.start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).requires_grad_(True)
        q = torch.sigmoid(model.logits(params, batch.x + config.xi * d, batch.bag_index, bags))
        divergence = (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))).sum()
        (g,) = torch.autograd.grad(divergence, d)
        length = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        r = config.epsilon * torch.where(length > 0, g / length, torch.zeros_like(g))

    def fixed_loss(values):
        def predicted(x, index):
            return torch.sigmoid(model.logits(values, x, index, bags))

        def divergence(q):
            return (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))).mean()

        q = predicted(batch.x, batch.bag_index)
        s = predicted(batch.x[batch.keep], batch.bag_index[batch.keep])
        bce = -(batch.label * torch.log(q) + (1 - batch.label) * torch.log(1 - q)).mean()
        noisy = predicted(torch.cat([batch.x, batch.noise]), torch.cat([batch.bag_index, batch.noise_bag]))
        entropy = -(s * torch.log(s) + (1 - s) * torch.log(1 - s)).mean()
        regularizers = 0.7 * divergence(predicted(batch.x + r, batch.bag_index))
        return bce + 0.5 * (regularizers + 1.3 * divergence(noisy) + 0.4 * entropy)

    assert fixed_loss(params).item() == pytest.approx(loss.item(), rel=1e-8)
    rng = np.random.default_rng(0)
    detached = {name: value.detach() for name, value in params.items()}
    for name, gradient in zip(params, gradients, strict=True):
        way = torch.from_numpy(rng.normal(size=gradient.shape))
        h = 1e-7
        ends = [fixed_loss(detached | {name: detached[name] + s * h * way}).item() for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx((gradient * way).sum().item(), rel=2e-3, abs=1e-6), name


def test_bfloat16_changes_precision_not_meaning(replicate, tiny):
    config = dataclasses.replace(tiny, **ALL)
    model = teacher_model(config, replicate)
    params = {n: v.requires_grad_(True) for n, v in model.init(np.random.default_rng(0)).items()}
    batch = drawn(config, replicate)
    single, _ = teacher_loss(model, params, batch, config, 1.0, Compute())
    low, parts = teacher_loss(model, params, batch, config, 1.0, Compute(precision="bfloat16"))
    assert low.dtype == parts.dtype == torch.float32
    assert low.item() == pytest.approx(single.item(), abs=0.02) and low.item() != single.item()
