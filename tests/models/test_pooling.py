"""Pooling: permutation, bags of one, masks and noise, against a plain reference bag by bag, all six in float64."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from d2l_study.models.pooling import POOLINGS, Terms, attention_weights, pool, pooling_init, terms

torch.set_num_threads(1)

FEATURES, WIDTH = 6, 5
SIZES = (3, 1, 7, 2, 10, 1)
BAGS = len(SIZES)

six = pytest.mark.parametrize("pooling", POOLINGS)


def params_of(pooling, seed=0, scale=3.0):
    found = pooling_init(np.random.default_rng(seed), pooling, FEATURES, WIDTH)
    return {name: scale * value.double() for name, value in found.items()}


def bags_of(sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    h = torch.from_numpy(rng.normal(size=(sum(sizes), FEATURES)))
    return h, torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))


def attention_of(params, h):
    """Ilse et al. 2018, eq. 8 and 9: the softmax over one bag's instances."""
    hidden = torch.tanh(h @ params["attention.V.weight"].T + params["attention.V.bias"])
    if "attention.U.weight" in params:
        hidden = hidden * torch.sigmoid(h @ params["attention.U.weight"].T + params["attention.U.bias"])
    return torch.softmax(hidden @ params["attention.w.weight"][0], 0)


def reference(params, pooling, h):
    """The logit of one bag with the features h: (instances, feature), as the method page writes it."""
    c, b = params["classifier.weight"][0], params["classifier.bias"][0]
    if pooling in ("attention", "gated_attention"):
        return (attention_of(params, h)[:, None] * h).sum(0) @ c + b
    if pooling == "embedding_max":
        return h.max(0).values @ c + b
    if pooling == "embedding_mean":
        return h.mean(0) @ c + b
    if pooling == "instance_max":
        return (h @ c + b).max()
    return torch.logit(torch.sigmoid(h @ c + b).mean())


def logits(params, pooling, h, bag_index, bags=BAGS, keep=None):
    return pool(params, pooling, terms(params, pooling, h), bag_index, bags, keep)


@six
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference(pooling, seed):
    params, (h, bag_index) = params_of(pooling, seed), bags_of(seed=seed)
    found = logits(params, pooling, h, bag_index)
    expected = torch.stack([reference(params, pooling, h[bag_index == b]) for b in range(BAGS)])
    assert found.dtype == torch.float64 and found.shape == (BAGS,)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@six
def test_float32_gives_float32(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    single = {name: value.float() for name, value in params.items()}
    found = logits(single, pooling, h.float(), bag_index)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), logits(params, pooling, h, bag_index), rtol=1e-4, atol=1e-5)


@six
def test_bfloat16_features_still_give_float32_logits(pooling):
    params, (h, bag_index) = params_of(pooling, scale=1.0), bags_of()
    low = {name: value.bfloat16() for name, value in params.items()}
    found = logits(low, pooling, h.bfloat16(), bag_index)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), logits(params, pooling, h, bag_index), rtol=0.1, atol=0.05)


@six
def test_the_order_of_instances_does_not_matter(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(h)))  # mixes the bags' instances, too
    torch.testing.assert_close(
        logits(params, pooling, h[order], bag_index[order]), logits(params, pooling, h, bag_index), rtol=1e-12, atol=0
    )


@six
def test_the_order_of_bags_moves_their_logits_along(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    order = torch.from_numpy(np.random.default_rng(1).permutation(BAGS))
    moved = logits(params, pooling, h, order[bag_index])
    torch.testing.assert_close(moved[order], logits(params, pooling, h, bag_index), rtol=1e-12, atol=0)


@six
def test_a_bag_does_not_see_its_neighbours(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    other = h.clone()
    other[bag_index != 2] *= -5.0
    before, after = logits(params, pooling, h, bag_index), logits(params, pooling, other, bag_index)
    torch.testing.assert_close(after[2], before[2], rtol=1e-12, atol=0)
    assert (after[[0, 4]] != before[[0, 4]]).all()


@six
def test_a_bag_of_one_has_its_instances_logit(pooling):
    params, (h, _) = params_of(pooling), bags_of()
    instance_logit = h @ params["classifier.weight"][0] + params["classifier.bias"][0]
    found = terms(params, pooling, h)
    torch.testing.assert_close(found.logit, instance_logit, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        pool(params, pooling, found, torch.arange(len(h)), len(h)), instance_logit, rtol=1e-10, atol=1e-10
    )


@six
def test_a_bag_of_equal_instances_equals_one_of_them(pooling):
    params, (h, _) = params_of(pooling), bags_of()
    found = logits(params, pooling, h[:1].expand(9, -1), torch.zeros(9, dtype=torch.int64), 1)
    torch.testing.assert_close(found, reference(params, pooling, h[:1])[None], rtol=1e-10, atol=1e-10)


@six
def test_leaving_out_is_removing(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    rng = np.random.default_rng(4)
    keep = torch.from_numpy(rng.random(len(h)) < 0.6)
    for b in range(BAGS):
        keep[torch.nonzero(bag_index == b)[0]] = True
    assert not keep.all()
    torch.testing.assert_close(
        logits(params, pooling, h, bag_index, keep=keep), logits(params, pooling, h[keep], bag_index[keep]),
        rtol=1e-10, atol=1e-12,
    )  # fmt: skip


@six
def test_leaving_out_the_strongest_instance_cannot_overflow(pooling):
    """The instance left out is the one that shifts softmax and maximum."""
    params, (h, bag_index) = params_of(pooling), bags_of((4, 4))
    h[0] = 1e3 * torch.sign(params["classifier.weight"][0])
    keep = torch.ones(8, dtype=torch.bool)
    keep[0] = False
    torch.testing.assert_close(
        logits(params, pooling, h, bag_index, 2, keep), logits(params, pooling, h[1:], bag_index[1:], 2),
        rtol=1e-10, atol=1e-12,
    )  # fmt: skip


@six
def test_instances_that_are_left_out_get_no_gradient(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    keep = torch.ones(len(h), dtype=torch.bool)
    keep[[0, 5, 9]] = False
    h.requires_grad_(True)
    (gradient,) = torch.autograd.grad(logits(params, pooling, h, bag_index, keep=keep).sum(), h)
    assert torch.isfinite(gradient).all() and not gradient[~keep].any() and gradient[keep].abs().sum() > 0


@six
def test_joined_terms_are_a_bigger_bag(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    extra, where = bags_of((1, 2, 1, 3, 2, 1), seed=9)
    joined = Terms.joined([terms(params, pooling, h), terms(params, pooling, extra)])
    collected = Terms.collected((terms(params, pooling, part) for part in (h, extra)), len(h) + len(extra))
    for one, other in zip(joined, collected, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    found = pool(params, pooling, joined, torch.cat([bag_index, where]), BAGS)
    expected = [reference(params, pooling, torch.cat([h[bag_index == b], extra[where == b]])) for b in range(BAGS)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@six
def test_picked_terms_are_those_of_the_instances_picked(pooling):
    params, (h, _) = params_of(pooling), bags_of()
    index = torch.tensor([4, 4, 0, 13])
    for found, expected in zip(terms(params, pooling, h).at(index), terms(params, pooling, h[index]), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", ["attention", "gated_attention"])
def test_attention_is_a_softmax_within_each_bag(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    found = terms(params, pooling, h)
    weight = attention_weights(found.attention, bag_index, BAGS)
    assert (weight > 0).all()
    torch.testing.assert_close(
        torch.zeros(BAGS, dtype=torch.float64).index_add(0, bag_index, weight), torch.ones(BAGS, dtype=torch.float64)
    )
    for b in range(BAGS):
        torch.testing.assert_close(weight[bag_index == b], attention_of(params, h[bag_index == b]))
    huge = attention_weights(1e4 * found.attention, bag_index, BAGS)
    assert torch.isfinite(huge).all()
    keep = torch.arange(len(h)) % 3 != 1
    keep[[3, 13]] = True  # the bags of one
    masked = attention_weights(found.attention, bag_index, BAGS, keep)
    assert not masked[~keep].any()
    torch.testing.assert_close(
        torch.zeros(BAGS, dtype=torch.float64).index_add(0, bag_index, masked), torch.ones(BAGS, dtype=torch.float64)
    )


@six
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_finite_differences(pooling, masked):
    params, (h, bag_index) = params_of(pooling, scale=1.0), bags_of((3, 1, 4))
    names = list(params)
    keep = torch.tensor([1, 0, 1, 1, 1, 1, 0, 1], dtype=torch.bool) if masked else None

    def function(features, *values):
        return logits(dict(zip(names, values, strict=True)), pooling, features, bag_index, 3, keep)

    inputs = [value.clone().requires_grad_(True) for value in (h, *params.values())]
    assert gradcheck(function, inputs)


@six
def test_huge_logits_stay_finite(pooling):
    params, (h, bag_index) = params_of(pooling), bags_of()
    params = {name: value.float() for name, value in params.items()}
    features = (1e4 * h).float().requires_grad_(True)
    found = logits(params, pooling, features, bag_index)
    (gradient,) = torch.autograd.grad(found.sum(), features)
    assert torch.isfinite(found).all() and torch.isfinite(gradient).all() and found.abs().max() > 1e3


def test_the_classifier_starts_alike_whatever_the_pooling():
    starts = [pooling_init(np.random.default_rng(0), pooling, FEATURES, WIDTH) for pooling in POOLINGS]
    for start in starts:
        assert torch.equal(start["classifier.weight"], starts[0]["classifier.weight"])
        assert torch.equal(start["classifier.bias"], starts[0]["classifier.bias"])


def test_an_unknown_pooling_is_refused():
    found = Terms(torch.zeros(2))
    with pytest.raises(ValueError, match="'median'; expected one of attention"):
        pool({}, "median", found, torch.zeros(2, dtype=torch.int64), 1)


@pytest.mark.parametrize("count", [None, 23])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_collected_terms_are_copies_of_their_parts_in_order(count, shape):
    whole = torch.randn(23, generator=torch.Generator().manual_seed(1))
    embedding = torch.randn(23, *shape, generator=torch.Generator().manual_seed(2)) if shape else None

    def parts():
        for first, last in ((0, 4), (4, 5), (5, 19), (19, 23)):
            part = Terms(whole[first:last].clone(), None, None if embedding is None else embedding[first:last].clone())
            yield part
            part.logit.fill_(9.0)  # what is kept must not be the part itself

    found = Terms.collected(parts(), count)
    assert torch.equal(found.logit, whole) and found.attention is None
    assert found.embedding is None if embedding is None else torch.equal(found.embedding, embedding)
