"""The LeNet against torch's own modules, and the bag classifier on images."""

import numpy as np
import pytest
import torch
from torch import nn

from d2l_study.errors import UserError
from d2l_study.models import POOLINGS, MilModel
from d2l_study.models.extractors import lenet, lenet_init

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 27, 33), (1, 16, 16)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_lenet_equals_torch_modules_with_the_same_weights(shape, channels_last):
    """ReLU before the pool, as Ilse et al. write it: the order makes no difference."""
    channels, height, width = shape
    flat = 50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    modules = nn.Sequential(
        nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(flat, 32), nn.ReLU(),
    )  # fmt: skip
    params = lenet_init(np.random.default_rng(0), shape, 32)
    for layer, name in ((0, "conv1"), (3, "conv2"), (7, "fc")):
        modules[layer].weight.data, modules[layer].bias.data = params[f"{name}.weight"], params[f"{name}.bias"]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(6, *shape)).astype(np.float32))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    h = lenet(params, x)
    assert h.shape == (6, 32)
    torch.testing.assert_close(h, modules(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 15, 28), (1, 28, 15), (3, 3, 3), (1, 1, 1)])
def test_a_patch_that_is_too_small_is_refused(shape):
    with pytest.raises(UserError, match=f"at least 16×16 pixels; found {shape[1]}×{shape[2]}"):
        MilModel(shape).init(np.random.default_rng(0))


def test_initial_weights_have_torchs_default_spread():
    params = MilModel((1, 28, 28), "gated_attention").init(np.random.default_rng(0))
    for name, layer in (("conv1", nn.Conv2d(1, 20, 5)), ("conv2", nn.Conv2d(20, 50, 5)), ("fc", nn.Linear(800, 500)),
                        ("attention.V", nn.Linear(500, 128)), ("attention.U", nn.Linear(500, 128)),
                        ("classifier", nn.Linear(500, 1))):  # fmt: skip
        for part in ("weight", "bias"):
            ours, bound = params[f"{name}.{part}"], layer.weight[0].numel() ** -0.5
            assert ours.shape == getattr(layer, part).shape and ours.abs().max() <= bound
            if ours.numel() > 400:
                assert ours.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_init_depends_on_the_generator_alone():
    model = MilModel((1, 16, 16), feature_width=8, attention_width=4)
    first, again, other = (model.init(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_bag_of_images_is_a_set(pooling):
    model = MilModel((1, 16, 16), pooling, feature_width=12, attention_width=4)
    rng = np.random.default_rng(0)
    params = model.init(rng)
    x = torch.from_numpy(rng.normal(size=(9, 1, 16, 16)).astype(np.float32))
    bag_index = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 2])
    expected = model.logits(params, x, bag_index, 3)
    order = torch.from_numpy(rng.permutation(9))
    torch.testing.assert_close(model.logits(params, x[order], bag_index[order], 3), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.terms(params, x).logit[8], expected[2], rtol=1e-4, atol=1e-6)
