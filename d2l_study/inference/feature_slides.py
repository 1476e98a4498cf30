"""Files for QuPath of labelled feature files: what `slide_outputs` writes of a slide, made from `scores.parquet`.

Places must be known in level-0 pixels, which is what QuPath counts in; those in µm (STAMP) are divided by the µm of a
level-0 pixel, where the user says it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.features.feature_file import CENTRE, LEVEL_0, MICRONS, FeatureFile
from d2l_study.errors import UserError
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.feature_scores import SCORES
from d2l_study.inference.output_folder import check_replaced, stems, writing
from d2l_study.inference.slide_outputs import ENDINGS, SlideScores, check_format_packages, is_ours, write_outputs
from d2l_study.parquet_files import open_parquet
from d2l_study.slides.score_files import METADATA, UNKNOWN

FORMATS = ("h5", "geojson", "regions", "map")
"""Those that can be made without the slide."""


def check_slide_files(
    inputs: Sequence[FeatureInput], out: Path, formats: Sequence[str], slide_mpp: float | None
) -> None:
    """`UserError` if files in these formats cannot be made of these inputs, or not without the extra `[wsi]`, or if
    something else has their names."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"--formats: {name} needs the slide itself; feature files give parquet, {', '.join(FORMATS)}"
            )
    check_format_packages(formats)
    for file in (file for entry in inputs for file in entry.files):
        _check_places(file, slide_mpp)
    for stem in _stems([slide for entry in inputs for slide in entry.slides], out):
        for name in formats:
            check_replaced(out / f"{stem}{ENDINGS[name]}", is_ours)


def write_slide_files(out: Path, formats: Sequence[str], threshold: float | None, slide_mpp: float | None) -> int:
    """Write the files of every slide of `out/scores.parquet` that has vectors; returns of how many slides.

    formats: of `FORMATS`; threshold: the logit above which a vector is predicted positive; slide_mpp: µm of a level-0
    pixel, where places are in µm.
    """
    with open_parquet(out / SCORES) as file:
        about = json.loads(file.schema_arrow.metadata[METADATA.encode()])
        slides, model = about.pop("slides"), about
        made = 0
        names = _stems([slide["slide"] for slide in slides], out)
        rows = _Rows(file.iter_batches(columns=["x", "y", "logit", "truth"]))
        for slide, stem in zip(slides, names, strict=True):
            x, y, logit, truth = rows.take(slide["instances"])
            if not len(logit):
                continue
            scale = 1.0 if about["coordinates"]["unit"] == LEVEL_0 or slide_mpp is None else 1 / slide_mpp
            side = slide["tile"] * scale
            xy = np.stack([x, y], axis=1) * scale - (side / 2 if about["coordinates"]["of_tile"] == CENTRE else 0)
            width, height = np.ceil(xy.max(axis=0) + side).astype(np.int64).tolist()
            mpp = None if slide_mpp is None else (slide_mpp, slide_mpp)
            step = _step(xy, side)
            scores = SlideScores(
                stem, (width, height), mpp, (side, side), (step, step), None, None, 0, xy,
                logit.astype(np.float32), truth if (truth != UNKNOWN).any() else None, part=True,
            )  # fmt: skip
            with writing(out):
                write_outputs(out / stem, formats, scores, threshold, model)
            made += 1
    return made


def _check_places(file: FeatureFile, slide_mpp: float | None) -> None:
    if not file.count:
        return
    tiles = file.tiles
    if not file.has_places:
        raise UserError(f"{file.path}: no places of tiles are known; QuPath's files need them (--formats parquet)")
    if tiles.unit == MICRONS and slide_mpp is None:
        raise UserError(
            f"{file.path}: places of tiles are in µm; QuPath counts in level-0 pixels, whose µm --slide-mpp gives"
        )
    if tiles.unit not in (LEVEL_0, MICRONS) or math.isnan(tiles.side):
        raise UserError(
            f"{file.path}: how large a tile is in level-0 pixels is not said (TRIDENT's attribute patch_size_level0); "
            "QuPath's files need it (--formats parquet)"
        )


def _stems(slides: Sequence[str], out: Path) -> list[str]:
    return stems([Path(f"{slide}.h5").stem for slide in slides], out, max(ENDINGS.values(), key=len))


def _step(xy: np.ndarray, side: float) -> float:
    """The distance between neighbouring tiles: less than a side where they overlap.

    The median over the tiles, of each to the nearest: pieces of tissue may have grids of their own, which begin
    anywhere.
    """
    from scipy.spatial import cKDTree

    distinct = np.unique(xy, axis=0)
    if len(distinct) < 2:
        return side
    nearest = cKDTree(distinct).query(distinct, k=2, p=math.inf)[0][:, 1]
    nearest = nearest[nearest > side * 0.05]  # a step of less would be most of a tile shared; it is rounding
    return float(min(side, np.median(nearest))) if len(nearest) else side


@dataclass
class _Rows:
    """Rows of a Parquet file, so many at a time."""

    batches: Iterator[Any]
    left: Any = None

    def take(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, y, logit and truth of the next rows, (count,) each; NaN or −1 where there is none."""
        import pyarrow as pa

        parts, wanted = [], count
        while wanted > 0:
            if self.left is None or not len(self.left):
                self.left = next(self.batches)
            parts.append(self.left.slice(0, wanted))
            self.left = self.left.slice(len(parts[-1]))
            wanted -= len(parts[-1])
        if not parts:
            return (*(np.empty(0) for _ in range(3)), np.empty(0, np.int8))  # type: ignore[return-value]
        table = pa.Table.from_batches(parts)
        x, y, logit = (table[name].to_numpy().astype(np.float64) for name in ("x", "y", "logit"))
        truth = table["truth"].fill_null(UNKNOWN).to_numpy().astype(np.int8)
        return x, y, logit, truth
