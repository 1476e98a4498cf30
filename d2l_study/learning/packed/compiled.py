"""A stack's losses and gradients as one compiled function.

Forward pass, adversarial direction and backward pass are traced into one graph of tensor operations, which
`torch.compile` fuses: some 40 kernels instead of 500 (`benchmarks/packed.py`). The function is compiled for the shapes
of its first call; the kernels are kept on disk by PyTorch, so that a later process with the same shapes finds them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from d2l_study.learning.prediction import Compute

Function = Callable[..., Sequence[Tensor]]


def why_not_compiled(device: torch.device, compute: Compute) -> str | None:
    """Why steps on the device are not to be compiled; None if they are, and nothing is known to be in the way."""
    if not compute.compiles:
        return "steps are not to be compiled"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def compiled(function: Function, arguments: Sequence[Any]) -> Function:
    """The function compiled for arguments like these: tensors, and lists and dictionaries of tensors.

    The function may take gradients inside, must not change its arguments, and must not depend on their values. It is
    called twice here. What comes of it takes the same arguments, in the same shapes, and returns a tuple of tensors
    without gradients. Raises whatever the compiler raises.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    # A bound method counts its object among the arguments; what takes one list of all has no such question.
    traced = make_fx(lambda given: function(*given))(list(arguments))
    threads = min(torch.get_num_threads(), 16)
    of_list = torch.compile(traced, dynamic=False, options={"compile_threads": threads})

    def found(*given: Any) -> Sequence[Tensor]:
        with torch.no_grad():
            return of_list(list(given))

    found(*arguments)
    return found
