"""Where a stored model scores: `--device` of `label`, `predict` and `evaluate`."""

from __future__ import annotations

import re

from d2l_study.errors import UserError, counted
from d2l_study.learning.precision import full_float32
from d2l_study.learning.prediction import Compute
from d2l_study.study.tune.machine import this_machine, why_no_gpu

AUTO = "auto"


def scoring_compute(asked: str = AUTO) -> Compute:
    """How scores are computed, in float32. asked: `auto` (a GPU where PyTorch can use one, else the processor), `cpu`,
    `cuda`, or `cuda:N` for GPU number N, from 0.

    `UserError` for another word, and for a GPU that is not there or that PyTorch cannot use.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", asked)
    if match is None:
        raise UserError(f"--device {asked!r} is not allowed; expected auto, cpu, cuda, or cuda:N for GPU number N")
    if asked == "cpu":
        return Compute()
    machines = this_machine()
    problem = why_no_gpu(machines, int(match[1] or 0))
    if problem and asked != AUTO:
        raise UserError(f"--device {asked}: {problem}; expected auto or cpu")
    if problem:
        return Compute()
    full_float32()
    return Compute("cuda" if asked == AUTO else asked)


def show_scoring_device(compute: Compute) -> None:
    """Print the device that scores; nothing where there are processor cores alone."""
    machines = this_machine()
    if compute.device != "cpu":
        print(f"device:   {compute.device}, one of {counted(machines.gpus, 'GPU')} (--device cpu for the processor)")
    elif machines.gpus:
        why = machines.unusable or f"{counted(machines.gpus, 'GPU')} found, and not used"
        print(f"device:   the processor: {why}")
