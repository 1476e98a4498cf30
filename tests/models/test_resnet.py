"""The residual extractor, the wider LeNet, and noisy-or pooling of a student's scores."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from d2l_study.errors import UserError
from d2l_study.models import PATCH_EXTRACTORS, Masks, MilModel
from d2l_study.models.pooling import noisy_or
from d2l_study.models.resnet import CHANNELS, resnet_init, resnet_maps, survival

torch.set_num_threads(1)

SHAPE = (1, 16, 16)


@pytest.fixture
def params():
    return resnet_init(np.random.default_rng(0), SHAPE, 12)


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(5, *SHAPE)).astype(np.float32))


LEAST_SIDES = {"lenet": 16, "lenet_wide": 16, "lenet_histology": 11, "resnet": 8}
"""Of a patch, in pixels, for each extractor: the layers' arithmetic, worked out by hand."""


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 27, 27), (3, 32, 32)])
@pytest.mark.parametrize("name", PATCH_EXTRACTORS)
def test_every_extractor_reads_the_patches_of_every_data_set(name, shape):
    check_reads(name, shape)


@pytest.mark.parametrize("name", PATCH_EXTRACTORS)
def test_every_extractor_reads_its_smallest_patch_and_refuses_a_smaller_one(name):
    least = LEAST_SIDES[name]
    check_reads(name, (1, least, least))
    check_reads(name, (3, least, least + 1))
    for shape in ((1, least - 1, least), (3, least + 5, least - 1)):
        with pytest.raises(UserError, match=f"at least {least}×{least} pixels; found {shape[1]}×{shape[2]}"):
            MilModel(shape, "instance_max", 7, extractor=name).init(np.random.default_rng(0))


def check_reads(name, shape):
    """Three patches have finite scores, different for different patches."""
    model = MilModel(shape, "instance_max", 50, extractor=name)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32))
    score = model.terms(model.init(np.random.default_rng(0)), x).logit
    assert score.shape == (3,) and torch.isfinite(score).all() and len(score.unique()) == 3


def test_a_patch_too_small_to_halve_is_refused():
    with pytest.raises(UserError, match="resnet needs patches of at least 8×8 pixels; found 7×30"):
        resnet_init(np.random.default_rng(0), (3, 7, 30), 4)


@pytest.mark.parametrize("name", PATCH_EXTRACTORS)
def test_an_instance_does_not_feel_the_others_of_its_batch(name, x):
    model = MilModel(SHAPE, "instance_max", 12, extractor=name)
    params = model.init(np.random.default_rng(0))
    together = model.terms(params, x).logit
    alone = torch.cat([model.terms(params, x[i : i + 1]).logit for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_skipped_block_passes_its_shortcut_on(params, x):
    """The last block's branch multiplied by 0 leaves ReLU(shortcut), whatever its convolutions are."""
    last = len(CHANNELS)
    depth = torch.ones(len(x), last)
    torch.testing.assert_close(resnet_maps(params, x, Masks(depth=depth)), resnet_maps(params, x))
    depth[:3, last - 1] = 0
    skipped = resnet_maps(params, x, Masks(depth=depth))
    without = params | {f"block{last}.conv2.scale": torch.zeros(CHANNELS[-1])}
    torch.testing.assert_close(skipped[:3], resnet_maps(without, x)[:3])
    torch.testing.assert_close(skipped[3:], resnet_maps(params, x)[3:])
    assert not torch.equal(skipped[:3], resnet_maps(params, x)[:3])


def test_survival_falls_linearly_to_the_last_block():
    """Huang et al. 2016, eq. 4."""
    np.testing.assert_allclose(survival(0.6), [0.8, 0.6, 0.4])


def test_lenet_wide_has_twice_the_filters():
    narrow, wide = (MilModel(SHAPE, "instance_max", 12, extractor=n).init(np.random.default_rng(0))
                    for n in ("lenet", "lenet_wide"))  # fmt: skip
    assert [wide[f"conv{i}.weight"].shape[0] for i in (1, 2)] == [
        2 * narrow[f"conv{i}.weight"].shape[0] for i in (1, 2)
    ]


# ---- noisy-or
def test_noisy_or_is_the_chance_that_some_instance_is_positive():
    rng = np.random.default_rng(0)
    sizes = (3, 1, 8)
    s = rng.normal(scale=3, size=sum(sizes))
    bag = np.repeat(np.arange(3), sizes)
    logit = noisy_or(torch.from_numpy(s), torch.from_numpy(bag), 3)
    p = [1 - np.prod(1 - 1 / (1 + np.exp(-s[bag == b]))) for b in range(3)]
    np.testing.assert_allclose(torch.sigmoid(logit), p, rtol=1e-12)
    keep = torch.tensor([True, False, True, True] + [True] * 8)
    np.testing.assert_allclose(
        noisy_or(torch.from_numpy(s), torch.from_numpy(bag), 3, keep)[0],
        noisy_or(torch.from_numpy(s[[0, 2]]), torch.tensor([0, 0]), 1)[0],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noisy_or_of_one_instance_is_its_score_even_far_out(dtype):
    s = torch.tensor([-300.0, -40.0, -16.0, -15.0, -3.0, 0.0, 3.0, 20.0, 300.0], dtype=dtype)
    torch.testing.assert_close(noisy_or(s, torch.arange(9), 9), s, rtol=1e-5, atol=1e-6)
    pair = torch.full((2,), -200.0, dtype=dtype)  # 2 e^−200 underflows in float32; its logarithm does not
    assert noisy_or(pair, torch.tensor([0, 0]), 1).item() == pytest.approx(-200 + math.log(2))


def test_gradients_of_noisy_or_are_right_and_finite():
    s = torch.tensor([-1.0, 2.0, 0.5, -20.0, -18.0], dtype=torch.float64, requires_grad=True)
    bag = torch.tensor([0, 0, 0, 1, 1])
    assert gradcheck(lambda v: noisy_or(v, bag, 2), s)
    far = torch.tensor([-200.0, 300.0, -90.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(noisy_or(far, torch.tensor([0, 1, 1]), 2).sum(), far)
    assert torch.isfinite(gradient).all() and gradient[:2].tolist() == pytest.approx([1, 1])
