"""The three consistency terms: divergences, directions and subsets."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import entr, expit, rel_entr

from d2l_study.learning.batches import draw_batch
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.regularizers import (
    bernoulli_entropy,
    bernoulli_kl,
    boundary_direction,
    power_direction,
    random_subset,
    unit_directions,
)
from d2l_study.learning.teacher import fit_teacher
from d2l_study.learning.teacher_model import teacher_model

HUGE = torch.tensor([-3e38, -1e5, -200.0, -30.0, 0.0, 30.0, 200.0, 1e5, 3e38])


def grid(limit=12.0, count=25, dtype=torch.float64):
    a = torch.linspace(-limit, limit, count, dtype=dtype)
    return (m.flatten() for m in torch.meshgrid(a, a, indexing="ij"))


def closed_form(p_logit, q_logit):
    p, q, not_p, not_q = expit(p_logit), expit(q_logit), expit(-p_logit), expit(-q_logit)
    return rel_entr(p, q) + rel_entr(not_p, not_q)


# ---- divergence and entropy
def test_kl_equals_the_closed_form():
    p, q = grid()
    expected = closed_form(p.numpy(), q.numpy())
    np.testing.assert_allclose(bernoulli_kl(p, q).numpy(), expected, rtol=1e-9, atol=1e-15)
    assert (bernoulli_kl(p, q) >= -1e-15).all()


def test_kl_in_float32_is_right_where_the_clean_prediction_is_certain():
    """1 − p rounds to 0 from a logit of 17 on, but its product with a large log ratio does not vanish."""
    p, q = torch.tensor([12.0, 18.0, 20.0, -20.0]), torch.tensor([400.0, 1e6, 1e9, -1e9])
    log_p, log_not_p, log_q, log_not_q = (
        -np.logaddexp(0, z) for m in (p.double().numpy(), q.double().numpy()) for z in (-m, m)
    )
    expected = np.exp(log_p) * (log_p - log_q) + np.exp(log_not_p) * (log_not_p - log_not_q)
    np.testing.assert_allclose(bernoulli_kl(p, q).numpy(), expected, rtol=1e-2)


def test_a_step_towards_the_boundary_diverges_more_than_one_away_from_it():
    """Why `direction: logit` has its sign: of two logits equally far from the clean one."""
    clean, _ = grid()
    clean = clean[clean != 0]
    for length in (0.01, 0.5, 3.0):
        towards, away = (bernoulli_kl(clean, clean - s * torch.sign(clean) * length) for s in (1, -1))
        assert (towards > away).all()


def test_kl_of_a_prediction_with_itself_is_zero_with_zero_gradient():
    q = torch.linspace(-40, 40, 81).requires_grad_(True)
    kl = bernoulli_kl(q.detach(), q)
    (gradient,) = torch.autograd.grad(kl.sum(), q)
    assert not kl.any() and gradient.abs().max() < 1e-7


def test_the_gradient_of_kl_is_the_difference_of_the_probabilities():
    p, q = grid()
    q.requires_grad_(True)
    (gradient,) = torch.autograd.grad(bernoulli_kl(p, q).sum(), q)
    torch.testing.assert_close(gradient, torch.sigmoid(q.detach()) - torch.sigmoid(p), rtol=1e-9, atol=1e-12)


def test_kl_and_entropy_are_finite_for_any_logits():
    p, q = (m.flatten() for m in torch.meshgrid(HUGE, HUGE, indexing="ij"))
    q.requires_grad_(True)
    kl = bernoulli_kl(p, q)
    entropy = bernoulli_entropy(q)
    (gradient,) = torch.autograd.grad(kl.sum() + entropy.sum(), q)
    assert torch.isfinite(kl).all() and torch.isfinite(entropy).all() and torch.isfinite(gradient).all()
    assert (kl >= 0).all()


def test_kl_is_not_symmetric_in_the_order_miyato_uses():
    """KL(clean ‖ moved): the clean side is the first argument and weighs the logarithms."""
    clean, moved = torch.tensor(4.0), torch.tensor(0.0)
    assert bernoulli_kl(clean, moved).item() == pytest.approx(float(closed_form(4.0, 0.0)), rel=1e-5)
    assert bernoulli_kl(moved, clean).item() == pytest.approx(float(closed_form(0.0, 4.0)), rel=1e-5)
    assert bernoulli_kl(moved, clean) > 2 * bernoulli_kl(clean, moved)


def test_entropy():
    logit = torch.linspace(-30, 30, 121, dtype=torch.float64)
    p, not_p = expit(logit.numpy()), expit(-logit.numpy())
    np.testing.assert_allclose(bernoulli_entropy(logit).numpy(), entr(p) + entr(not_p), rtol=1e-3)
    middle = logit.abs() < 10
    np.testing.assert_allclose(bernoulli_entropy(logit)[middle].numpy(), (entr(p) + entr(not_p))[middle], rtol=1e-9)
    assert bernoulli_entropy(torch.tensor(0.0)).item() == pytest.approx(np.log(2))
    single = bernoulli_entropy(torch.tensor([18.0, -18.0, 60.0, 3e4]))
    np.testing.assert_allclose(single.numpy()[:2], bernoulli_entropy(torch.tensor([18.0, 18.0]).double()), rtol=1e-3)
    assert (single >= 0).all()


# ---- unit
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42, 1e30])
@pytest.mark.parametrize("channels_last", [False, True])
def test_unit_has_length_one_and_keeps_the_direction(scale, channels_last):
    g = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32))
    if channels_last:
        g = g.contiguous(memory_format=torch.channels_last)
    d = unit_directions(g * scale)
    torch.testing.assert_close(d.flatten(1).norm(dim=1), torch.ones(4), rtol=1e-5, atol=0)
    tolerance = 0.01 if scale < 1e-40 else 1e-5  # subnormal numbers have few digits
    torch.testing.assert_close(d, g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1), rtol=0, atol=tolerance)


def test_unit_of_nothing_is_nothing():
    g = torch.zeros(3, 1, 4, 4)
    g[1, 0, 2, 2] = -1e-45
    d = unit_directions(g)
    assert not d[0].any() and not d[2].any() and d[1, 0, 2, 2] == -1 and torch.isfinite(d).all()


# ---- directions, on models that have been trained a little
EPSILON = 0.5


@pytest.fixture(scope="module", params=["attention", "gated_attention", "instance_mean", "embedding_max"])
def trained(request, make_replicate, tiny):
    """Some (model, parameters, batch of 12 bags) after 60 steps each."""
    config = dataclasses.replace(tiny, pooling=request.param, steps=60, eval_every=60, select="last")
    replicates = [make_replicate(r, train=24) for r in range(3)]
    found = []
    for replicate, fitted in zip(replicates, fit_teacher(config, replicates), strict=True):
        draws = dataclasses.replace(config, batch_bags=12, lambda_adv=1.0, direction="power")
        batch = draw_batch(
            draws, replicate.pool, replicate.val, replicate.streams, 0, Normalise.of(replicate, Compute())
        )
        found.append((teacher_model(config, replicate), fitted.params, batch))
    return found


def both_directions(model, params, batch, xi=0.1, iterations=1):
    """(logits as a function of the instances, clean logits, boundary direction, power direction)."""
    bags = len(batch.label)

    def logits(x):
        return model.logits(params, x, batch.bag_index, bags)

    x = batch.x.detach().requires_grad_(True)
    clean = logits(x)
    boundary = boundary_direction(x, clean, batch.bag_index)
    return logits, clean.detach(), boundary, power_direction(x, clean, batch.start, logits, xi, iterations)


def bag_cosines(a, b, bag_index, bags):
    """(bags,) the mean over a bag's instances of the cosine between two unit directions."""
    cosine = (a * b).flatten(1).sum(1)
    moved = (a.flatten(1).norm(dim=1) > 0).to(cosine.dtype)
    total, count = (torch.zeros(bags, dtype=cosine.dtype).index_add(0, bag_index, v) for v in (cosine, moved))
    return total / count.clamp(min=1)


def test_adversarial_directions_beat_random_ones_of_the_same_length(trained):
    mean = {"boundary": [], "power": [], "random": []}
    for model, params, batch in trained:
        logits, clean, boundary, power = both_directions(model, params, batch)
        rng = np.random.default_rng(0)
        randoms = [unit_directions(torch.from_numpy(rng.standard_normal(batch.x.shape, np.float32))) for _ in range(10)]
        with torch.no_grad():
            for name, directions in (("boundary", [boundary]), ("power", [power]), ("random", randoms)):
                mean[name].append(
                    np.mean([bernoulli_kl(clean, logits(batch.x + EPSILON * d)).mean().item() for d in directions])
                )
    for i in range(len(trained)):
        assert mean["boundary"][i] > 5 * mean["random"][i]
        assert mean["power"][i] > 3 * mean["random"][i]


def test_the_boundary_direction_moves_every_bag_towards_the_boundary(trained):
    for model, params, batch in trained:
        logits, clean, boundary, _ = both_directions(model, params, batch)
        moved = logits(batch.x + 1e-2 * boundary).detach()
        assert (torch.sign(clean) * (moved - clean) < 0).all()
        length = boundary.flatten(1).norm(dim=1)
        assert ((length - 1).abs() < 1e-5).logical_or(length == 0).all()
        assert not boundary.requires_grad


def test_the_power_direction_is_the_logits_direction_up_to_its_sign(trained):
    """With one logit the KL's Hessian is p(1 − p) ∇logit ∇logitᵀ, of rank one: a single iteration finds it."""
    for model, params, batch in trained:
        _, _, boundary, power = both_directions(model, params, batch, xi=0.01)
        cosine = bag_cosines(boundary, power, batch.bag_index, len(batch.label)).abs()
        assert cosine.median() > 0.97 and cosine.mean() > 0.9


@pytest.mark.parametrize("xi", [1e-2, 1e-1, 1.0])
def test_float32_and_float64_find_the_same_power_direction(trained, xi):
    for model, params, batch in trained:
        bags = len(batch.label)
        _, _, _, single = both_directions(model, params, batch, xi)
        wide = dataclasses.replace(batch, x=batch.x.double(), start=batch.start.double())
        _, _, _, double = both_directions(model, {n: v.double() for n, v in params.items()}, wide, xi)
        assert double.dtype == torch.float64
        assert bag_cosines(single.double(), double, batch.bag_index, bags).min() > 0.95


def test_more_iterations_keep_the_direction(trained):
    model, params, batch = trained[0]
    _, _, _, one = both_directions(model, params, batch, xi=0.01)
    _, _, _, three = both_directions(model, params, batch, xi=0.01, iterations=3)
    assert bag_cosines(one, three, batch.bag_index, len(batch.label)).abs().median() > 0.97


def test_neither_search_leaves_a_gradient_behind(trained):
    model, params, batch = trained[0]
    params = {name: value.clone().requires_grad_(True) for name, value in params.items()}
    _, _, boundary, power = both_directions(model, params, batch)
    assert all(value.grad is None for value in params.values())
    assert batch.x.grad is None and not batch.x.requires_grad
    assert not boundary.requires_grad and not power.requires_grad


def test_a_logit_that_does_not_depend_on_the_instances_gives_no_direction():
    x = torch.ones(3, 1, 4, 4, requires_grad=True)
    bag_index = torch.tensor([0, 0, 1])
    flat = 0.0 * x.sum((1, 2, 3))
    logit = torch.zeros(2).index_add(0, bag_index, flat) + 1.0
    assert not boundary_direction(x, logit, bag_index).any()
    power = power_direction(x, logit, torch.ones(3, 1, 4, 4), lambda moved: 0.0 * moved.sum() + torch.ones(2), 0.1, 2)
    assert not power.any() and torch.isfinite(power).all()


# ---- subsets
@pytest.mark.parametrize("drop_rate", [0.0, 0.2, 0.9, 0.999])
def test_a_subset_never_empties_a_bag_and_drops_at_the_rate(drop_rate):
    rng = np.random.default_rng(0)
    sizes = np.array([1, 2, 5, 10] * 500)
    bag_index = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    keep = random_subset(torch.from_numpy(rng.random(len(bag_index))), bag_index, len(sizes), drop_rate)
    kept = torch.zeros(len(sizes)).index_add(0, bag_index, keep.float()).numpy()
    assert (kept >= 1).all()
    if drop_rate == 0:
        assert keep.all()
    for size in (1, 2, 5, 10):
        # One instance stays in the place of none: E[kept] = k (1 − q) + q^k.
        expected = size * (1 - drop_rate) + drop_rate**size
        spread = (size * drop_rate * (1 - drop_rate) / 500) ** 0.5
        assert kept[sizes == size].mean() == pytest.approx(expected, abs=4 * spread + 1e-9)


def test_every_instance_is_as_likely_to_stay():
    bag_index = torch.zeros(4, dtype=torch.int64)
    rng = np.random.default_rng(0)
    kept = sum(random_subset(torch.from_numpy(rng.random(4)), bag_index, 1, 0.8).numpy() for _ in range(4000)) / 4000
    assert np.ptp(kept) < 5 * (0.3 * 0.7 / 4000) ** 0.5
