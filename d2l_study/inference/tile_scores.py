"""The logits of a slide's tiles: threads read the tiles ahead while the model scores those that are there.

    seconds = score_tiles(stored, slide, tiles, kept, compute, progress)

Only a few batches of tiles are in memory, however many the slide has.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from d2l_study.data.cutting import channel_sums
from d2l_study.data.given_bags import brighter
from d2l_study.errors import UserError
from d2l_study.inference.label import NOT_FINITE, PatchTerms
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.score_checkpoint import ScoreCheckpoint
from d2l_study.learning.prediction import Compute
from d2l_study.models import Terms
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.slide import Slide
from d2l_study.slides.tiles import SlideTiles

READERS = 4
"""Threads that read, at most: decoding releases the interpreter."""
BATCH_BYTES = 16 * 2**20
"""Pixels of the tiles that are scored at a time."""


@dataclass
class ScoringTime:
    """Seconds of wall time in which the model worked, and in which it waited for tiles; tiles: how many were scored."""

    model: float = 0.0
    waiting: float = 0.0
    tiles: int = 0

    @property
    def per_second(self) -> float:
        """Tiles a second; 0 if none were scored."""
        return self.tiles / max(1e-9, self.model + self.waiting) if self.tiles else 0.0

    @property
    def bound_by(self) -> str:
        """What most of the time went to."""
        return "reading" if self.waiting > self.model else "the model"


class TileTerms:
    """Scores tiles as they are read, and pools them to a bag."""

    def __init__(self, stored: StoredModel, compute: Compute | None = None) -> None:
        self.stored = stored
        self._terms = PatchTerms(stored, compute)

    @property
    def columns(self) -> int:
        """Numbers of a tile, as of `PatchTerms`."""
        return self._terms.columns

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """(n, columns) float32 of (n, H, W, C) uint8. `UserError` if one is no number: all of them pool to a bag."""
        found = self._terms(tiles.transpose(0, 3, 1, 2))
        if not np.isfinite(found).all():
            raise UserError(NOT_FINITE)
        return found

    @torch.no_grad()
    def pooled(self, values: np.ndarray) -> float:
        """The logit of the bag of all tiles; NaN without tiles, or where the model pools features, not scores.

        values: (n, columns) as this gives them.
        """
        if not len(values) or self.stored.model.pooling == "embedding_max":
            return math.nan
        whole = torch.from_numpy(np.array(values))
        terms = Terms(whole[:, 0], whole[:, 1] if self.columns == 2 else None)
        return float(self.stored.model.pool(self.stored.params, terms, torch.zeros(len(values), dtype=torch.int64), 1))


def batch_size(side: int) -> int:
    """Tiles of `side` pixels that are read and scored at a time."""
    return max(1, BATCH_BYTES // (3 * side**2))


def score_tiles(
    terms: TileTerms,
    slide: Slide,
    tiles: SlideTiles,
    kept: ScoreCheckpoint,
    progress: Callable[[int], None],
    white_above: float | None = None,
) -> ScoringTime:
    """Fill `kept.logits`, (tiles, columns), from where it stands. progress: is called with how many tiles are done;
    white_above: tiles of which the mean intensity, in [0, 1], is above this are not scored, and get NaN.

    `UserError` where the slide turns out to be damaged.
    """
    columns, spent = terms.columns, ScoringTime()
    first = kept.done // columns
    reader = PatchReader(slide, tiles.mpp, tiles.size)
    size = batch_size(tiles.size)
    ranges = [(start, min(start + size, len(tiles))) for start in range(first, len(tiles), size)]
    progress(first)
    begin = time.perf_counter()
    for (start, stop), patches in read_ahead(reader, tiles.xy, ranges):
        there = time.perf_counter()
        kept.logits[start:stop] = _scored(terms, patches, white_above)
        kept.reached(stop * columns)
        progress(stop)
        done = time.perf_counter()
        spent.waiting += there - begin
        spent.model += done - there
        spent.tiles += stop - start
        begin = done
    return spent


def _scored(terms: TileTerms, patches: np.ndarray, white_above: float | None) -> np.ndarray:
    """(n, columns) of patches (n, H, W, C); NaN of those that are too bright."""
    if white_above is None:
        return terms(patches)
    found = np.full((len(patches), terms.columns), np.nan, np.float32)
    dark = ~brighter(channel_sums(patches.transpose(0, 3, 1, 2)), white_above)
    if dark.any():
        found[dark] = terms(patches[dark])
    return found


def read_ahead(
    reader: PatchReader, xy: np.ndarray, ranges: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The tiles of each range in order, (n, size, size, 3) uint8, each read by a thread before it is asked for."""
    threads = max(1, min(READERS, os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[tuple[int, int], Future[np.ndarray]]] = deque()
        try:
            for wanted in ranges:
                waiting.append((wanted, pool.submit(reader.read, xy[slice(*wanted)])))
                if len(waiting) > threads:
                    found, future = waiting.popleft()
                    yield found, future.result()
            while waiting:
                found, future = waiting.popleft()
                yield found, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
