"""Convolution, 2×2 max-pooling and ReLU: PyTorch's layers, and a matrix product where those are slow.

The four outputs that a pooling window compares are four filters on the same (k+1)×(k+1) pixels: the filter at the four
places that it has there. So the layer is a convolution of stride 2 with four times the filters, which is one matrix
product of the unfolded pixels, and the maximum of its four blocks. On a CPU, in float32, it takes half the time for the
gradient of an image of one channel, which is VAT's direction (`benchmarks/first_layer.py`); elsewhere it gains nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 3

_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(row, column) of a convolution's output in its pooling window, in the order in which PyTorch breaks ties."""


def conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU(max_pool2d(conv2d(x, weight, bias), 2)); differentiable once.

    x: (instances, C, H, W); weight: (filters, C, k, k); bias: (filters,). Returns (instances, filters,
    (H − k + 1) // 2, (W − k + 1) // 2), channels last in memory.
    """
    slow = x.requires_grad and x.shape[1] <= FEW_CHANNELS and x.device.type == "cpu"
    if not slow or torch.is_autocast_enabled("cpu") or torch._C._are_functorch_transforms_active():
        return plain_conv_relu_pool(channels_last(x), weight, bias)
    n, _, height, width = x.shape
    filters, _, k, _ = weight.shape
    rows, cols = (height - k + 1) // 2, (width - k + 1) // 2
    # A product between two functions of our own: PyTorch then computes only the gradients that are asked for.
    blocks = _Placed.apply(weight) @ _Windows.apply(x, k + 1, rows, cols)
    result = _Largest.apply(blocks, bias)
    return result.view(filters, n, rows, cols).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def plain_conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same with PyTorch's layers: what the matrix product is tested against."""
    # ReLU after the pool: the same function (both are monotone), a quarter of the work.
    return F.relu(F.max_pool2d(F.conv2d(x, weight, bias), 2))


def channels_last(x: Tensor) -> Tensor:
    """The same patches, (instances, C, H, W), with strides that say "channels last" even where C is 1.

    For one channel both layouts lie alike in memory and PyTorch takes the strides for the plain one; the convolutions
    then write plain maps, on which pooling on a CPU is ten times slower.
    """
    if torch._C._are_functorch_transforms_active():  # such a tensor cannot be asked for another layout
        return x
    n, channels, height, width = x.shape
    if channels == 1:
        return x.reshape(n, height, width, 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


class _Windows(torch.autograd.Function):
    """x -> (C · side², windows): `side`² pixels at every second row and column of every instance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int, rows: int, cols: int) -> Tensor:
        n, channels, height, width = x.shape
        ctx.x, ctx.windows = x.shape, (side, rows, cols)
        shape = (channels, side, side, n, rows, cols)
        stride = (height * width, width, 1, channels * height * width, 2 * width, 2)
        return x.contiguous().as_strided(shape, stride).contiguous().view(channels * side * side, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _fold(gradient, ctx.x, *ctx.windows), None, None, None


class _Placed(torch.autograd.Function):
    """Filters (filters, C, k, k) -> (4 · filters, C · (k+1)²): at their four places in the window, 0 around them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        filters, channels, k, _ = weight.shape
        ctx.weight = weight.shape
        placed = weight.new_zeros(4, filters, channels, k + 1, k + 1)
        for place, (row, col) in zip(placed, _PLACES, strict=True):
            place[:, :, row : row + k, col : col + k] = weight
        return placed.view(4 * filters, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        filters, channels, k, _ = ctx.weight
        wide = gradient.view(4, filters, channels, k + 1, k + 1)
        a, b, c, d = (
            place[:, :, row : row + k, col : col + k] for place, (row, col) in zip(wide, _PLACES, strict=True)
        )
        return (a + b + c + d).contiguous(memory_format=torch.channels_last)


class _Largest(torch.autograd.Function):
    """Outputs at the four places (4 · filters, windows), bias (filters,) -> ReLU(largest + bias), (filters, windows).

    The four blocks lie one behind the other in memory, so that all of this is elementwise on contiguous memory."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, bias: Tensor) -> Tensor:
        blocks = outputs.view(4, len(bias), -1)
        result = torch.maximum(blocks[0], blocks[1])
        torch.maximum(result, torch.maximum(blocks[2], blocks[3]), out=result)
        result.add_(bias[:, None]).clamp_min_(0)
        ctx.save_for_backward(blocks, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        blocks, result = ctx.saved_tensors
        gradient = _where_positive(result, gradient.contiguous())
        return _route(blocks, gradient).view(-1, gradient.shape[1]), gradient.sum(1)


def _where_positive(values: Tensor, gradient: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient where values > 0, else 0: many times faster on a CPU than a comparison and `where`."""
    if out is None:
        return torch.ops.aten.threshold_backward(gradient, values, 0)
    return torch.ops.aten.threshold_backward.grad_input(gradient, values, 0, grad_input=out)


def _route(blocks: Tensor, gradient: Tensor) -> Tensor:
    """The pooling's gradient, (4, filters, windows): to the largest of the four, to the first of equal ones."""
    routed = torch.empty_like(blocks)
    scratch = torch.maximum(blocks[0], blocks[1])
    higher = torch.maximum(blocks[2], blocks[3]).sub_(scratch)  # by how much the lower row of the window is higher
    below = _where_positive(higher, gradient, out=higher)
    for first, part in ((0, gradient - below), (2, below)):
        torch.sub(blocks[first + 1], blocks[first], out=scratch)
        _where_positive(scratch, part, out=routed[first + 1])
        torch.sub(part, routed[first + 1], out=routed[first])
    return routed


def _fold(windows: Tensor, shape: torch.Size, side: int, rows: int, cols: int) -> Tensor:
    """The windows' values, laid out as by `_Windows`, added up where windows overlap: (instances, C, H, W).

    Pixel 2·i + p of a row is taken apart into half and parity (i, p): windows begin at even pixels, so one addition
    serves all windows.
    """
    n, channels, height, width = shape
    half, spare = -(-side // 2), side % 2
    windows = windows.view(channels, side, side, n, rows, cols)
    if spare:
        windows = F.pad(windows, (0, 0, 0, 0, 0, 0, 0, spare, 0, spare))
    windows = windows.view(channels, half, 2, half, 2, n, rows, cols)
    # As many pixels as windows reach, and as many as x has.
    high, wide = max(rows + half - 1, -(-height // 2)), max(cols + half - 1, -(-width // 2))
    x = windows.new_zeros(channels, 2, 2, n, high, wide)
    for i in range(half):
        for j in range(half):
            x[..., i : i + rows, j : j + cols] += windows[:, i, :, j]
    return x.permute(3, 0, 4, 1, 5, 2).reshape(n, channels, 2 * high, 2 * wide)[:, :, :height, :width]
