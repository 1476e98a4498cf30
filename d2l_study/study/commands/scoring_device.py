"""Where a stored model scores: `--device` of `label`, `predict` and `evaluate`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from d2l_study.errors import MachineError, UserError, counted, first_line, short
from d2l_study.learning.precision import full_float32
from d2l_study.learning.prediction import Compute
from d2l_study.study.tune.machine import Machines, this_machine

AUTO = "auto"
ON_PROCESSOR = "with CUDA_VISIBLE_DEVICES= before it the command computes on the processor"
"""What helps where a GPU fails in a command without `--device`."""


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


@contextlib.contextmanager
def gpu_errors_in_a_line(advice: str = "--device cpu scores on the processor") -> Iterator[None]:
    """Where a GPU fails in the block, as one does whose memory others have filled: `MachineError`, with its cause and
    what helps (advice)."""
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_error(error):
            raise
        cause = short(first_line(error).split(". GPU ")[0], 140)  # what follows counts the memory of all processes
        raise MachineError(f"the GPU failed: {cause}; {advice}") from error


def is_gpu_error(error: BaseException) -> bool:
    """Whether PyTorch says by an error that the GPU, its driver or its libraries failed."""
    import torch

    kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, kinds) or re.search(r"\bCUDA\b|cuDNN|CUBLAS|nvrtc", str(error)) is not None


def show_scoring_device(compute: Compute) -> None:
    """Print the device that scores; nothing where there are processor cores alone."""
    machines = this_machine()
    if compute.device != "cpu":
        print(f"device:   {compute.device}, one of {counted(machines.gpus, 'GPU')} (--device cpu for the processor)")
    elif machines.gpus:
        why = machines.unusable or f"{counted(machines.gpus, 'GPU')} found, and not used"
        print(f"device:   the processor: {why}")


def why_no_gpu(machines: Machines, number: int) -> str:
    """Why GPU `number` of this machine cannot compute here, in words; empty if it can."""
    if not machines.gpus:
        return "no GPU is found here"
    if number >= machines.gpus:
        return f"{counted(machines.gpus, 'GPU')} found here, numbered from 0"
    if why := machines.why_not(number):  # another one may do for trials, or this one where another does not
        return why
    import torch

    return "" if torch.cuda.is_available() else f"{counted(machines.gpus, 'GPU')} found, but PyTorch cannot start CUDA"
