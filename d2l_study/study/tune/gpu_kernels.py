"""Whether the installed PyTorch has kernels for a GPU's generation. Where it has none, every run would fail there."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

Capability = tuple[int, int]
"""A GPU's compute capability, its generation: (7, 5) of Turing, (9, 0) of Hopper."""

SURE = (7, 5)
"""From this capability on every build of the PyTorch that is required has kernels, up to `_newest_sure`."""


def _newest_sure(cuda: tuple[int, ...]) -> int:
    """The major capability up to which every build of PyTorch for a CUDA has kernels: Blackwell came with 12.8."""
    return 12 if cuda >= (12, 8) else 9


def why_without_kernels(cuda: str, capability: Capability) -> str:
    """Why PyTorch cannot compute on a GPU of this capability, empty if it can. PyTorch is asked only where builds
    differ: to import it takes a second."""
    version = tuple(map(int, cuda.split(".")))
    if capability >= SURE and capability[0] <= _newest_sure(version):
        return ""
    has = torch_kernels()
    if has:
        usable = any(one.runs_on(capability) for one in has)
        listing = ", ".join(f"{one.major}.{one.minor}" for one in has if not one.source)
    else:  # what is known of CUDA itself; of what is newer than it nothing is
        least = SURE if version >= (13,) else (5, 0)
        usable, listing = capability >= least, f"{least[0]}.{least[1]} and above"
    if usable:
        return ""
    return f"this PyTorch has no kernels for compute capability {capability[0]}.{capability[1]} (it has for {listing})"


@dataclass(frozen=True)
class Kernels:
    """The capability that kernels of PyTorch are built for. source: whether they are a form that a driver translates
    for every newer GPU; exact: whether they run on this capability alone."""

    major: int
    minor: int
    source: bool = False
    exact: bool = False

    def runs_on(self, capability: Capability) -> bool:
        """Whether a GPU of this capability can run them."""
        own = (self.major, self.minor)
        if self.exact:
            return capability == own
        return capability >= own and (self.source or capability[0] == self.major)


@functools.cache
def torch_kernels() -> tuple[Kernels, ...]:
    """What the installed torch has kernels for; empty if it does not say. CUDA is not started."""
    try:
        import torch

        flags = str(torch._C._cuda_getArchFlags())  # `torch.cuda.get_arch_list` starts CUDA first
    except (ImportError, OSError, AttributeError):
        return ()
    found = re.findall(r"\b(sm|compute)_(\d+)(\d)([a-z]?)\b", flags)
    return tuple(Kernels(int(a), int(b), kind == "compute", bool(suffix)) for kind, a, b, suffix in found)
