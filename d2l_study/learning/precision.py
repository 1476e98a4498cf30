"""Number formats: that float32 is float32, and which of two is the faster one here (`resources.precision: auto`)."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from d2l_study.learning.packed.structure import STACK_VALUES
from d2l_study.learning.prediction import Compute
from d2l_study.models import MilModel, Params, Terms

INSTANCES = 40
"""Of the probe's step: four bags of ten."""

STACKED_RUNS = 20
"""Runs at most of the stack that is probed on a GPU, whose step is as large as in training. A step of one run takes the
time of starting its kernels, of which bfloat16 has more."""

ROUNDS = {"cpu": 5, "cuda": 30}
"""By kind of device. A GPU is shared: beside thirteen processes five rounds took float32 in two studies of three
(benchmarks/records/2026-11-27-vat-robust-confirm)."""

LEAST_GAIN = 1.1
"""How many times faster bfloat16 must be: for less, its rounding is not worth it."""


def full_float32() -> None:
    """Let float32 be float32 in this process, on a GPU too. There PyTorch's convolutions take TF32 by default (ten bits
    of mantissa) and its matrix products do not, so that two formulations of one network would differ by 1e-3."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def faster_precision(shape: tuple[int, ...], device: str, stacked: bool | None = None) -> str:
    """`bfloat16` where forward and backward pass of the LeNet on patches of `shape` (C, H, W), or of a linear layer of
    512 on vectors of `shape` (D,), are faster in it, else `float32`. stacked: of a stack of runs (None: on a GPU).

    The least of a few rounds in turns, in processor time on a CPU; about 0.2 s on one core. It
    decides speed alone: the format is part of no configuration's id, and a result says which one it was computed in.
    """
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    if len(shape) == 1:
        model = MilModel(shape, feature_width=512, extractor="mlp")
    else:
        channels, height, width = shape
        shape = (channels, max(height, 16), max(width, 16))  # the LeNet takes no smaller ones
        model = MilModel(shape)
    stacked = device.startswith("cuda") if stacked is None else stacked
    runs, count = 1, INSTANCES
    if stacked:
        together = STACK_VALUES // math.prod(shape)
        runs = max(1, min(STACKED_RUNS, together // INSTANCES))  # of large patches parameters alone would fill a GPU
        count = runs * max(1, together // runs)
    initial = model.init(np.random.default_rng(0))
    if stacked:
        initial = {name: value.expand(runs, *value.shape).clone() for name, value in initial.items()}
    params = {name: value.to(device).requires_grad_() for name, value in initial.items()}
    x = torch.zeros(count, *shape, device=device)
    for _ in range(ROUNDS[torch.device(device).type] + 1):
        for precision, spent in times.items():
            begin = _now(device)
            terms = _terms(model, params, x, Compute(device, precision), runs if stacked else None)
            assert terms.attention is not None
            torch.autograd.grad(terms.logit.sum() + terms.attention.sum(), list(params.values()))
            spent.append(_now(device) - begin)
    least = {precision: min(spent[1:]) for precision, spent in times.items()}  # the first round warms up
    return "bfloat16" if least["float32"] > LEAST_GAIN * least["bfloat16"] else "float32"


def _terms(model: MilModel, params: Params, x: Tensor, compute: Compute, runs: int | None) -> Terms:
    """The forward pass; runs: of a stack, None for one run by itself."""
    if runs is None:
        with compute.autocast():
            return model.terms(params, x)
    from d2l_study.learning.packed.model import StackedModel

    return StackedModel(model, runs, compute).terms(params, x)


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
