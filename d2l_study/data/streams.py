"""Counter-based randomness: every draw is addressed by what it is for, never by what was drawn before.

A stream's generator is seeded by a hash of (data set, base seed, replicate, stream, block). So adding a
regularizer shifts no other draw, a resumed run needs no generator state, and replicates trained packed, one by
one or in another order draw the same numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

STREAMS = (
    "bags_train", "bags_val", "bags_test", "bags_unlabelled", "init", "order", "vat", "noise", "subset", "dropout",
    "augment", "mixup", "depth", "student_init", "student_order", "student_noise",
    "folds", "subsample", "sample", "instance_noise",
)  # fmt: skip


@dataclass(frozen=True)
class Streams:
    """The named streams of one replicate of one data set.

    branch: which of several models of the replicate draws (a member of an ensemble, a generation of students), and
    whether for the unlabelled bags of its steps; the bags, and the model of a replicate that has only one, draw from
    the empty branch.
    """

    dataset: str
    base_seed: int
    replicate: int
    branch: str = ""

    def on(self, branch: str) -> Streams:
        """The same streams for another model of the replicate."""
        return dataclasses.replace(self, branch=f"{self.branch}/{branch}" if self.branch else branch)

    def rng(self, stream: str, block: int = 0) -> np.random.Generator:
        """A fresh generator for one block (a bag, an epoch or an optimizer step) of a stream."""
        return np.random.Generator(np.random.Philox(key=self._key(stream, block)))

    def rngs(self, stream: str, blocks: Iterable[int]) -> Iterator[np.random.Generator]:
        """The generators of several blocks, at a tenth of the time of `rng`: one generator, set to each block in turn,
        so that each is to be used before the next is asked for."""
        bits = np.random.Philox(key=0)
        state, generator = bits.state, np.random.Generator(bits)
        for block in blocks:
            state["state"]["key"] = self._key(stream, block)
            bits.state = state
            yield generator

    def _key(self, stream: str, block: int) -> np.ndarray:
        if stream not in STREAMS:
            raise KeyError(f"unknown stream {stream!r}; known: {', '.join(STREAMS)}")
        text = f"{self.dataset}|{self.base_seed}|{self.replicate}|{stream}|{block}"
        if self.branch:
            text += f"|{self.branch}"
        return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype=np.uint64)
