"""PyTorch's Adam, without the second or two that its first use takes to import PyTorch's compiler.

`torch.optim` hides its methods from the compiler `torch._dynamo`, and imports it for that. Every process that trains
would pay for it, and most of them compile nothing.
"""

from __future__ import annotations

import inspect

import torch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` by its own code: these methods as they are written, without the wrappers of `torch.optim`.

    Not differentiable, as `torch.optim.Adam` is by default: a step records no gradient.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
