"""Scores of tiles as GeoJSON that QuPath opens: every tile a polygon, or regions above a threshold.

A file is a `FeatureCollection` of RFC 7946, except that coordinates are level-0 pixels of the slide, as QuPath expects.
A feature has QuPath's `properties`: `objectType` (`tile`, or `annotation` for a region), a `classification` of a name
and a colour, and `measurements`. Outlines run counter-clockwise by the RFC's rule. Features are written as their tiles
come, so a file of a million tiles needs no more memory than one of a hundred. If a name ends in `.gz`, the file is
compressed.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.slides.regions import Side, both_sides, merged_regions
from d2l_study.slides.score_files import TileScores

TEXTS = 4096
"""Features whose text is held at a time."""
_DECIMALS = 3
"""Of coordinates: QuPath itself writes two."""


@dataclass(frozen=True)
class Classification:
    """A class as QuPath shows it. colour: (red, green, blue), 0 … 255."""

    name: str
    colour: tuple[int, int, int]

    def json(self) -> str:
        # QuPath refuses a class that has no colour.
        return json.dumps({"name": self.name, "color": list(self.colour)}, separators=(",", ":"))


@dataclass(frozen=True)
class TileClasses:
    """What predicted tiles are called. The colours are of Okabe and Ito's palette, told apart by every common colour
    vision."""

    positive: Classification = Classification("positive", (213, 94, 0))
    negative: Classification = Classification("negative", (86, 180, 233))


def write_tile_polygons(
    path: Path,
    blocks: Iterable[TileScores],
    side: Side,
    threshold: float | None = None,
    classes: TileClasses | None = None,
) -> int:
    """Write every tile as a square with its score and logit; returns how many. The file appears whole or not at all.

    blocks: the tiles, some at a time, read once; side: of a tile in level-0 pixels; threshold: the logit above which a
    tile is of the positive class, None leaves the class out. `ValueError` for a place or score that is no finite
    number, which JSON cannot hold.
    """
    wide, high = both_sides(side)
    classes = classes or TileClasses()
    predicted = [f'"classification":{one.json()},' for one in (classes.negative, classes.positive)]
    count = 0
    with _feature_collection(path) as add:
        for block in blocks:
            for tiles in block.blocks(TEXTS):
                _check_finite(place=tiles.xy, score=tiles.score, logit=tiles.logit)
                left, top = (_numbers(tiles.xy[:, axis]) for axis in (0, 1))
                right, bottom = _numbers(tiles.xy[:, 0] + wide), _numbers(tiles.xy[:, 1] + high)
                above = np.zeros(len(tiles), bool) if threshold is None else tiles.logit > threshold
                for x0, y0, x1, y1, positive, score, logit in zip(
                    left, top, right, bottom, above.tolist(), tiles.score.tolist(), tiles.logit.tolist(), strict=True
                ):
                    add(
                        '{"type":"Feature","geometry":{"type":"Polygon","coordinates":'
                        f"[[[{x0},{y0}],[{x1},{y0}],[{x1},{y1}],[{x0},{y1}],[{x0},{y0}]]]}},"
                        f'"properties":{{"objectType":"tile",{"" if threshold is None else predicted[positive]}'
                        f'"measurements":{{"score":{score:.6g},"logit":{logit:.9g}}}}}}}'
                    )
                count += len(tiles)
    return count


def write_regions(
    path: Path,
    blocks: Iterable[TileScores],
    side: Side,
    threshold: float,
    classification: Classification | None = None,
) -> int:
    """Write the regions of the tiles whose logit lies above the threshold; returns how many.

    Each is an annotation with the number of its tiles, and the mean and the largest of their scores. The largest region
    comes first. Only the tiles above the threshold are held. The file appears whole or not at all.
    """
    above = [block[block.logit > threshold] for block in blocks]
    xy = np.concatenate([np.empty((0, 2)), *(tiles.xy for tiles in above)])
    score = np.concatenate([np.empty(0), *(tiles.score for tiles in above)])
    _check_finite(place=xy, score=score)
    regions, of_tile = merged_regions(xy, side)
    count = np.bincount(of_tile, minlength=len(regions))
    mean = np.bincount(of_tile, weights=score, minlength=len(regions)) / np.maximum(count, 1)
    largest = np.zeros(len(regions))
    np.maximum.at(largest, of_tile, score)
    properties = f'"objectType":"annotation","classification":{(classification or TileClasses().positive).json()}'
    with _feature_collection(path) as add:
        for region, tiles, average, most in zip(regions, count.tolist(), mean, largest, strict=True):
            add(
                f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":{_rings(region)}}},'
                f'"properties":{{{properties},"measurements":'
                f'{{"tiles":{tiles},"mean score":{average:.6g},"largest score":{most:.6g}}}}}}}'
            )
    return len(regions)


@contextlib.contextmanager
def _feature_collection(path: Path) -> Iterator[Callable[[str], None]]:
    """A file of features; gives what adds one, as its JSON text."""
    waiting: list[str] = []
    first = True

    def flush(out: IO[bytes]) -> None:
        nonlocal first
        if waiting:
            out.write((("\n" if first else ",\n") + ",\n".join(waiting)).encode())
            first = False
            waiting.clear()

    with atomic_write(path) as temporary, temporary.open("wb") as raw, _packed(raw, path) as out:
        out.write(b'{"type":"FeatureCollection","features":[')

        def add(text: str) -> None:
            waiting.append(text)
            if len(waiting) >= TEXTS:
                flush(out)

        yield add
        flush(out)
        out.write(b"\n]}\n")


def _packed(raw: IO[bytes], path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    """What is written to: the file, or its compression, which holds no name and no time, so equal scores make equal
    files."""
    if path.name.endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile("", "wb", 6, raw, mtime=0))
    return contextlib.nullcontext(raw)


def _numbers(values: np.ndarray) -> list[str]:
    """Coordinates as text, whole ones without a point."""
    rounded = np.round(np.asarray(values, np.float64), _DECIMALS) + 0.0  # no −0
    if (rounded == np.rint(rounded)).all():
        return [str(value) for value in rounded.astype(np.int64).tolist()]
    return [f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".") for value in rounded.tolist()]


def _rings(polygon: Any) -> str:
    """The coordinates of a polygon as GeoJSON: its outline, then its holes."""
    texts = []
    for ring in (polygon.exterior, *polygon.interiors):
        x, y = (_numbers(np.asarray(values)) for values in ring.xy)
        texts.append("[" + ",".join(f"[{a},{b}]" for a, b in zip(x, y, strict=True)) + "]")
    return "[" + ",".join(texts) + "]"


def _check_finite(**values: np.ndarray) -> None:
    for name, found in values.items():
        if not np.isfinite(found).all():
            raise ValueError(f"a tile whose {name} is not a finite number")
