"""Number formats: that float32 is float32, and which of two is the faster one here (`resources.precision: auto`)."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from d2l_study.learning.prediction import Compute
from d2l_study.models import MilModel

INSTANCES = 40
"""Of the probe's step: four bags of ten."""

STACKED_VALUES = 4096 * 28 * 28
"""Numbers in the instances of the probe's step on a GPU: as many as a stack of some hundred runs on digits. A step of
fewer takes the time of starting its kernels, which is that of casting in vain."""

ROUNDS = 5

LEAST_GAIN = 1.1
"""How many times faster bfloat16 must be: for less, its rounding is not worth it."""


def full_float32() -> None:
    """Let float32 be float32 in this process, on a GPU too. There PyTorch's convolutions take TF32 by default (ten bits
    of mantissa) and its matrix products do not, so that two formulations of one network would differ by 1e-3."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def faster_precision(shape: tuple[int, ...], device: str) -> str:
    """`bfloat16` where forward and backward pass of the LeNet on patches of `shape` (C, H, W), or of a linear layer of
    512 on vectors of `shape` (D,), are faster in it, else `float32`.

    The least of a few rounds in turns, in processor time on a CPU; about 0.2 s on one core, and on a GPU less. It
    decides speed alone: the format is part of no configuration's id, and a result says which one it was computed in.
    """
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    if len(shape) == 1:
        model = MilModel(shape, feature_width=512, extractor="mlp")
    else:
        channels, height, width = shape
        shape = (channels, max(height, 16), max(width, 16))  # the LeNet takes no smaller ones
        model = MilModel(shape)
    params = {name: value.to(device).requires_grad_() for name, value in model.init(np.random.default_rng(0)).items()}
    count = max(INSTANCES, STACKED_VALUES // math.prod(shape)) if device.startswith("cuda") else INSTANCES
    x = torch.zeros(count, *shape, device=device)
    for _ in range(ROUNDS + 1):
        for precision, spent in times.items():
            begin = _now(device)
            with Compute(device, precision).autocast():
                terms = model.terms(params, x)
            assert terms.attention is not None
            torch.autograd.grad(terms.logit.sum() + terms.attention.sum(), list(params.values()))
            spent.append(_now(device) - begin)
    least = {precision: min(spent[1:]) for precision, spent in times.items()}  # the first round warms up
    return "bfloat16" if least["float32"] > LEAST_GAIN * least["bfloat16"] else "float32"


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
