"""What the layout of one-channel patches costs: LeNet passes with plain and with channels-last strides, in one run.

    python benchmarks/channels_last.py

Prints milliseconds (the least of 30, one thread) and their ratio for a forward pass, a pass with gradients of the
parameters (a plain training step without its optimizer), and one with the gradient of the input (VAT's direction).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from d2l_study.models import extractors

REPEATS = 30


def least(function: Callable[[], object]) -> float:
    """Milliseconds of the fastest of `REPEATS` calls, after three that are not counted."""
    for _ in range(3):
        function()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def main() -> None:
    torch.set_num_threads(1)
    params = extractors.lenet_init(np.random.default_rng(0), (1, 28, 28), 500)
    for name, value in params.items():
        layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        params[name] = value.contiguous(memory_format=layout).requires_grad_(True)
    fast = extractors.channels_last

    def forward(x: torch.Tensor) -> object:
        with torch.no_grad():
            return extractors.lenet(params, x)

    def step(x: torch.Tensor) -> object:
        return torch.autograd.grad(extractors.lenet(params, x).square().mean(), list(params.values()))

    def direction(x: torch.Tensor) -> object:
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(extractors.lenet(params, x).square().mean(), x)

    print("instances  pass       plain ms  channels last ms  ratio")
    for count in (10, 40, 500):
        x = torch.randn(count, 1, 28, 28)
        for name, run in (("forward", forward), ("step", step), ("direction", direction)):
            found = {}
            for layout, function in (("plain", lambda x: x), ("channels_last", fast)):
                extractors.channels_last = function  # type: ignore[assignment]
                found[layout] = least(lambda run=run, x=x: run(x))  # type: ignore[misc]
            extractors.channels_last = fast
            ratio = found["plain"] / found["channels_last"]
            print(f"{count:9d}  {name:9s}  {found['plain']:8.2f}  {found['channels_last']:16.2f}  {ratio:5.2f}")


if __name__ == "__main__":
    main()
