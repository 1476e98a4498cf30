"""The first layer as a matrix product equals PyTorch's layers, in its value and in every gradient."""

import numpy as np
import pytest
import torch

from d2l_study.models import convolution
from d2l_study.models.convolution import conv_relu_pool, plain_conv_relu_pool

SHAPES = [  # channels, height, width, filters, kernel: MNIST, colon, sides that pooling cuts, a kernel of odd window
    (1, 28, 28, 20, 5), (3, 27, 27, 36, 4), (2, 17, 15, 4, 4), (3, 9, 12, 3, 2), (1, 8, 11, 2, 3),
]  # fmt: skip


def problem(shape, whole, seed=0):
    """x, weight, bias in float64; `whole`: small whole numbers, with which windows hold equal values."""
    channels, height, width, filters, k = shape
    rng = np.random.default_rng(seed)
    sizes = (5, channels, height, width), (filters, channels, k, k), (filters,)
    values = [rng.normal(size=size) for size in sizes]
    if whole:
        values = [np.round(value) for value in values]
    return [torch.from_numpy(value).requires_grad_(True) for value in values]


def with_gradients(function, inputs):
    result = function(*inputs)
    weights = torch.from_numpy(np.random.default_rng(9).normal(size=result.shape))
    return (result, *torch.autograd.grad((weights * result).sum(), inputs))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_product_equals_the_layers(shape, whole, monkeypatch):
    inputs = problem(shape, whole)
    expected = with_gradients(plain_conv_relu_pool, inputs)
    monkeypatch.setattr(convolution, "plain_conv_relu_pool", None)  # whoever falls back on the layers fails
    for found, value in zip(with_gradients(conv_relu_pool, inputs), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (1, 2), (0, 2)])
def test_only_the_gradients_that_are_asked_for_are_computed(asked, monkeypatch):
    inputs = problem(SHAPES[0], whole=False)
    expected = with_gradients(plain_conv_relu_pool, inputs)
    names = {0: "_Windows", 1: "_Placed"}
    for i, name in names.items():
        if i not in asked:
            monkeypatch.setattr(getattr(convolution, name), "backward", None)
    result = conv_relu_pool(*inputs)
    weights = torch.from_numpy(np.random.default_rng(9).normal(size=result.shape))
    found = torch.autograd.grad((weights * result).sum(), [inputs[i] for i in asked])
    for i, gradient in zip(asked, found, strict=True):
        torch.testing.assert_close(gradient, expected[1 + i], rtol=1e-12, atol=1e-12)


def test_an_image_that_is_not_finite_stays_so():
    x, weight, bias = problem(SHAPES[0], whole=False)
    x.data[2, 0, 14, 14] = torch.nan
    result = conv_relu_pool(x, weight, bias)
    assert result[2].isnan().any() and result[[0, 1, 3, 4]].isfinite().all()


def test_it_works_under_vmap():
    x, weight, bias = problem(SHAPES[0], whole=False)
    stacked = torch.func.vmap(conv_relu_pool)(*(torch.stack([v, 2 * v]) for v in (x, weight, bias)))
    torch.testing.assert_close(stacked[1], plain_conv_relu_pool(2 * x, 2 * weight, 2 * bias), rtol=1e-12, atol=1e-12)
