"""Blocks of steps on the host, on their way to the device.

For a GPU they lie in pinned memory, from where they are copied while the device computes. Two lie there and are used by
turns: one is drawn into while the other is copied. New memory for each block would cost more time than its drawing,
since every page of it is first filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2l_study.learning.packed.batches import Block, Capacity, ReplicateTask, empty_blocks

TURNS = 2


@dataclass(frozen=True)
class StagedBlock:
    """A block of steps as tensors, its `rate`, (T, R), apart. copied: an event that the copies' end is recorded in."""

    arrays: dict[str, Tensor]
    rate: np.ndarray
    copied: torch.cuda.Event | None = None

    @property
    def block(self) -> Block:
        """What was staged, in the same memory."""
        return {"rate": self.rate} | {name: values.numpy() for name, values in self.arrays.items()}


def staged(block: Block, copied: torch.cuda.Event | None = None) -> StagedBlock:
    """The block as it is, without a copy."""
    arrays = {name: torch.from_numpy(values) for name, values in block.items() if name != "rate"}
    return StagedBlock(arrays, block["rate"], copied)


class PinnedBlocks:
    """Arrays in pinned memory for the blocks of one group of replicates."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._copied: list[torch.cuda.Event] = []
        self._turn = 0

    def next(
        self, problems: Sequence[ReplicateTask], capacity: Capacity, steps: int
    ) -> tuple[Block, torch.cuda.Event]:  # fmt: skip
        """Arrays to draw the next block into, once what was drawn there before has been copied, and the event for the
        end of its own copies."""
        self._turn = (self._turn + 1) % TURNS
        if not self._fit(len(problems), steps):
            for event in self._copied:
                event.synchronize()
            self._blocks = [_pinned(empty_blocks(problems, capacity, steps)) for _ in range(TURNS)]
            self._copied = [torch.cuda.Event() for _ in range(TURNS)]
        self._copied[self._turn].synchronize()
        return self._blocks[self._turn], self._copied[self._turn]

    def _fit(self, replicates: int, steps: int) -> bool:
        if not self._blocks:
            return False
        there = self._blocks[0]["rate"].shape
        return there[1] == replicates and there[0] >= steps


def _pinned(block: Block) -> Block:
    return {name: torch.from_numpy(values).pin_memory().numpy() for name, values in block.items()}
