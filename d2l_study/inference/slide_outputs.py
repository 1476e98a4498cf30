"""The files of a labelled slide, by their format.

parquet   NAME.scores.parquet     a row for each tile: slide, index, x, y, logit, score, predicted, truth
h5        NAME.scores.h5          the same in TRIDENT's layout of coordinates
geojson   NAME.tiles.geojson      every tile as an object of QuPath
regions   NAME.regions.geojson    what is predicted positive, merged to regions, as QuPath annotations
map       NAME.scores.ome.tif     a pixel for each tile, with its physical size
overlay   NAME.overlay.png        a picture: the slide, and the map over it

x and y are the upper left corner of a tile in level-0 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import write_whole
from d2l_study.errors import UserError, listed, nearest
from d2l_study.inference.output_folder import read_json
from d2l_study.inference.overlay import slide_overlay
from d2l_study.learning.metrics import probability
from d2l_study.parquet_files import has_metadata
from d2l_study.slides.geojson import write_regions, write_tile_polygons
from d2l_study.slides.packages import extra_package
from d2l_study.slides.score_files import BLOCK, METADATA, TileScores, write_score_hdf5, write_score_table
from d2l_study.slides.score_map import score_map, write_score_map

ENDINGS = {
    "parquet": ".scores.parquet", "h5": ".scores.h5", "geojson": ".tiles.geojson", "regions": ".regions.geojson",
    "map": ".scores.ome.tif", "overlay": ".overlay.png",
}  # fmt: skip
"""Format -> ending of its file's name."""
FORMATS = tuple(ENDINGS)
SHOWN = 1200
"""Pixels of a picture's longer side."""


@dataclass(frozen=True)
class SlideScores:
    """The scores of the tiles of a slide, and where they lie.

    name: of the slide; size: (width, height) in level-0 pixels, or, with `part`, of the part that has tiles; mpp: µm of
    a level-0 pixel as (x, y), None where it is not known; side, step: of a tile and between tiles in level-0 pixels, as
    (x, y); patch_size: pixels of a tile as it was read, None where it is not known; target_mpp: µm of these; overlap:
    of these; xy: (n, 2); logit: (n,) float32; truth: (n,) int8 or None; thumbnail: gives the slide at a size, None
    where there is no picture; part: the slide's own size is not known.
    """

    name: str
    size: tuple[int, int]
    mpp: tuple[float, float] | None
    side: tuple[float, float]
    step: tuple[float, float]
    patch_size: int | None
    target_mpp: float | None
    overlap: int
    xy: np.ndarray
    logit: np.ndarray
    truth: np.ndarray | None = None
    thumbnail: Callable[[int], np.ndarray] | None = None
    part: bool = False

    def tiles(self) -> TileScores:
        return TileScores(self.xy, self.logit, probability(self.logit), self.truth)

    def attributes(self) -> dict[str, Any]:
        """What the tiles are, by the names of TRIDENT's attributes."""
        found: dict[str, Any] = {"patch_size_level0": round(sum(self.side) / 2), "name": self.name}
        if self.patch_size is not None:
            found |= {"patch_size": self.patch_size, "overlap": self.overlap}
        if not self.part:
            found |= {"level0_width": self.size[0], "level0_height": self.size[1]}
        if self.mpp is not None:
            found |= {"level0_mpp": np.array(self.mpp), "level0_magnification": 10 / (sum(self.mpp) / 2)}
        if self.target_mpp is not None:
            found |= {"target_mpp": self.target_mpp, "target_magnification": 10 / self.target_mpp}
        return found


def formats_of(text: str) -> tuple[str, ...]:
    """The formats that `--formats` names, in the order of `FORMATS`, and parquet, which is always written. `UserError`
    for another word."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in FORMATS:
            raise UserError(f"--formats: {word!r} is no format{nearest(word, FORMATS)} (formats: {listed(FORMATS, 9)})")
    return tuple(name for name in FORMATS if name in words or name == "parquet")


def check_format_packages(formats: Sequence[str]) -> None:
    """`UserError` if the extra `[wsi]`, which some of the formats need, is not installed."""
    for kind, module in (("regions", "shapely"), ("map", "tifffile")):
        if kind in formats:
            extra_package(module, f"--formats {kind}: writing it")


def write_outputs(
    stem: Path,
    formats: Sequence[str],
    scores: SlideScores,
    threshold: float | None,
    about: Mapping[str, Any],
    positive: str = "positive",
) -> tuple[Path, ...]:
    """Write the files of a slide; returns those that were written. Each appears whole or not at all.

    stem: their common path, without the ending; threshold: the logit above which a tile is predicted positive: without
    one no regions are written; about: which model it was, plain values; positive: what such tiles are called.
    """
    found = []
    tiles = scores.tiles()
    for kind in formats:
        if (kind == "regions" and threshold is None) or (kind == "overlay" and scores.thumbnail is None):
            continue
        path = stem.with_name(f"{stem.name}{ENDINGS[kind]}")
        if kind == "parquet":
            write_score_table(path, scores.name, tiles.blocks(BLOCK), threshold, about)
        elif kind == "h5":
            write_score_hdf5(path, tiles.blocks(BLOCK), scores.attributes(), about)
        elif kind == "geojson":
            write_tile_polygons(path, tiles.blocks(BLOCK), scores.side, threshold)
        elif kind == "regions":
            assert threshold is not None
            write_regions(path, tiles.blocks(BLOCK), scores.side, threshold)
        elif kind == "map":
            scored = score_map(tiles.blocks(BLOCK), scores.size, scores.side, scores.step)
            write_score_map(path, scored, scores.mpp, scores.name)
        else:
            assert scores.thumbnail is not None
            logits = TileScores(scores.xy, scores.logit, scores.logit).blocks(
                BLOCK
            )  # a score near 1 has no digits left
            drawn = score_map(logits, scores.size, scores.side, scores.step)
            picture = slide_overlay(scores.thumbnail(SHOWN), scores.size, drawn, threshold, scores.name, positive)
            write_whole(path, picture)
        found.append(path)
    return tuple(found)


def is_ours(path: Path) -> bool:
    """Whether `label` wrote a file of that name: told by what it holds."""
    name = path.name
    if name.endswith(ENDINGS["parquet"]):
        return has_metadata(path, METADATA)
    with path.open("rb") as file:
        head = file.read(64)
    if name.endswith((ENDINGS["geojson"], ENDINGS["regions"])):
        return head.startswith(b'{"type":"FeatureCollection","features":[')
    if name.endswith(ENDINGS["h5"]):
        return head.startswith(b"\x89HDF")
    if name.endswith(ENDINGS["map"]):
        return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
    if name.endswith(ENDINGS["overlay"]):
        return head.startswith(b"\x89PNG")
    return {"slide", "model", "files"} <= read_json(path).keys()
