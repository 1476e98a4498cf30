"""Scoring of tiles that is interrupted, as by Ctrl-C."""

from __future__ import annotations

import numpy as np
import pytest

from d2l_study.inference import tile_scores


def interrupt_scoring(patch: pytest.MonkeyPatch, call: int, batch_bytes: int) -> list[int]:
    """Let the network be interrupted at its `call`-th batch of at most `batch_bytes`; returns the list that the sizes
    of its batches go to."""
    score, calls = tile_scores.TileTerms.__call__, list[int]()

    def interrupted(terms: tile_scores.TileTerms, patches: np.ndarray) -> np.ndarray:
        calls.append(len(patches))
        if len(calls) == call:
            raise KeyboardInterrupt
        return score(terms, patches)

    patch.setattr(tile_scores, "BATCH_BYTES", batch_bytes)
    patch.setattr(tile_scores.TileTerms, "__call__", interrupted)
    return calls
