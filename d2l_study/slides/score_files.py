"""Scores of tiles as files: a Parquet table of one or many slides, and HDF5 with coordinates for each slide.

Parquet   columns slide, index (of the tile in its slide, from 0), x, y (null where a tile has no place), logit, score,
          predicted (null without a threshold), truth (null where not known)
HDF5      coords (N, 2) int64 with the attributes of TRIDENT's coordinate files, and beside them scores (N,) float64 and
          logits (N,) float32, so that what reads TRIDENT's coordinates reads these

Both say in JSON, under `d2l_study.label`, which model it was. Rows are made `BLOCK` at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.parquet_files import parquet_writer

METADATA = "d2l_study.label"
BLOCK = 2**16
"""Rows that are made at a time."""
UNKNOWN = -1
"""A truth that is not known."""
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


@dataclass(frozen=True)
class TileScores:
    """The scores of n tiles of a slide.

    xy: (n, 2) their upper left corners, in level-0 pixels where files with positions are made of them; logit: (n,)
    float32; score: (n,) float64, its probability in [0, 1]; truth: (n,) int8 1, 0, or −1 unknown, None if no tile's is
    known.
    """

    xy: np.ndarray
    logit: np.ndarray
    score: np.ndarray
    truth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.logit)

    def __getitem__(self, rows: slice | np.ndarray) -> TileScores:
        """Some of the tiles, by a slice, positions or a mask."""
        truth = None if self.truth is None else self.truth[rows]
        return TileScores(self.xy[rows], self.logit[rows], self.score[rows], truth)

    def blocks(self, rows: int) -> Iterator[TileScores]:
        """All of the tiles in order, at most so many at a time."""
        for first in range(0, len(self), rows):
            yield self[first : first + rows]


def score_schema(about: Mapping[str, Any]) -> Any:
    """The Parquet schema of scores. about: plain values for the file's metadata: the model, the slides, the unit."""
    import pyarrow as pa

    return pa.schema(
        [("slide", pa.string()), ("index", pa.int64()), ("x", pa.float64()), ("y", pa.float64()),
         ("logit", pa.float32()), ("score", pa.float64()), ("predicted", pa.int8()), ("truth", pa.int8())],
        metadata={METADATA: json.dumps(about)},
    )  # fmt: skip


class ScoreRows:
    """Rows of a Parquet file, which are written about `BLOCK` at a time: one row group for each of many small slides
    would be slow to read. threshold: the logit above which a tile is predicted positive, None: no prediction."""

    def __init__(self, writer: Any, schema: Any, threshold: float | None) -> None:
        self.writer, self.schema, self.threshold = writer, schema, threshold
        self.waiting: list[Any] = []
        self.rows = 0

    def add(self, slide: str, tiles: TileScores, first: int = 0) -> None:
        """Tiles of one slide, in order. first: the index of the first of them in the slide."""
        import pyarrow as pa

        for some in tiles.blocks(BLOCK):
            count = len(some)
            x, y = some.xy.T
            truth = np.full(count, UNKNOWN, np.int8) if some.truth is None else some.truth
            predicted = pa.nulls(count, pa.int8())
            if self.threshold is not None:
                predicted = (some.logit > self.threshold).astype(np.int8)
            columns = [
                pa.repeat(slide, count), first + np.arange(count), pa.array(x, mask=np.isnan(x)),
                pa.array(y, mask=np.isnan(y)), some.logit, some.score, predicted,
                pa.array(truth, mask=truth == UNKNOWN),
            ]  # fmt: skip
            arrays = [pa.array(values, kind.type) if isinstance(values, np.ndarray) else values.cast(kind.type)
                      for values, kind in zip(columns, self.schema, strict=True)]  # fmt: skip
            self.waiting.append(pa.Table.from_arrays(arrays, schema=self.schema))
            self.rows += count
            first += count
            if self.rows >= BLOCK:
                self.write()

    def write(self) -> None:
        """Write the rows that are waiting."""
        import pyarrow as pa

        if self.waiting:
            self.writer.write_table(pa.concat_tables(self.waiting))
        self.waiting, self.rows = [], 0


def write_score_table(
    path: Path, slide: str, blocks: Iterable[TileScores], threshold: float | None, about: Mapping[str, Any]
) -> int:
    """Write the scores of one slide as Parquet, block by block; returns how many. The file appears whole or not at
    all."""
    count = 0
    schema = score_schema(about)
    with atomic_write(path) as temporary, parquet_writer(temporary, schema) as writer:
        rows = ScoreRows(writer, schema, threshold)
        for tiles in blocks:
            rows.add(slide, tiles, count)
            count += len(tiles)
        rows.write()
    return count


def write_score_hdf5(
    path: Path, blocks: Iterable[TileScores], tiles: Mapping[str, Any], about: Mapping[str, Any]
) -> int:
    """Write the scores of one slide as HDF5, block by block; returns how many. The file appears whole or not at all.

    tiles: the attributes of `coords` that say what the tiles are, by TRIDENT's names (`patch_size`,
    `patch_size_level0`, `target_magnification` …). Places are rounded to whole level-0 pixels, as TRIDENT's are.
    """
    import h5py

    count = 0
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        kept = {
            "coords": file.create_dataset("coords", (0, 2), np.int64, maxshape=(None, 2), chunks=(4096, 2), **_PACKED),
            "scores": file.create_dataset("scores", (0,), np.float64, maxshape=(None,), chunks=(4096,), **_PACKED),
            "logits": file.create_dataset("logits", (0,), np.float32, maxshape=(None,), chunks=(4096,), **_PACKED),
        }
        kept["coords"].attrs.update(tiles)
        file.attrs[METADATA] = json.dumps(about)
        for some in blocks:
            last = count + len(some)
            for name, values in (("coords", np.rint(some.xy)), ("scores", some.score), ("logits", some.logit)):
                kept[name].resize(last, axis=0)
                kept[name][count:last] = values
            count = last
    return count
