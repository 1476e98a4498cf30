"""A picture of a slide with its tissue and its tiles, to see at a glance whether both are where they should be.

The tissue has a green outline, tiles have a blue one and are tinted yellow. All else stays as it is. Drawn with Pillow.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import counted
from d2l_study.slides.slide import Slide
from d2l_study.slides.tiles import SlideTiles
from d2l_study.slides.tissue import TissueMask

SIDE = 1600
"""Pixels of the picture's longer side, without its text."""
TILE, TISSUE, COVER = (30, 80, 220), (0, 150, 60), (255, 215, 0)
TINT = 0.25
"""Weight of the cover's colour over the slide."""
LEAST_OUTLINED = 6
"""Pixels of a tile's side in the picture, below which it gets no outline: that would cover it."""
COMPRESSION = 2
"""Of the PNG, of 9: a third of the time of the usual 6, for a sixth more bytes."""
LINE, MARGIN = 30, 8
"""Pixels of a line of text, and about it."""


def tile_picture(slide: Slide, tiles: SlideTiles, title: str = "") -> bytes:
    """A PNG. tiles: of this slide; title: stands above. `UserError` if the slide cannot be read."""
    from PIL import Image, ImageDraw

    picture = slide.thumbnail(SIDE)
    height, width = picture.shape[:2]
    scale = np.array([width / slide.width, height / slide.height])
    begins = np.rint(tiles.xy * scale).astype(np.int64)
    ends = np.maximum(begins + 1, np.rint((tiles.xy + tiles.side) * scale).astype(np.int64))
    ends = np.minimum(ends, (width, height))
    covered = _covered(begins, ends, (height, width))
    _tint(picture, covered)
    if min(tiles.side * scale) >= LEAST_OUTLINED:
        _outline_tiles(picture, begins, ends)
    if tiles.tissue is not None:
        picture[_edge(tiles.tissue, (height, width))] = TISSUE
    lines = [line for line in (title, _words(tiles)) if line]
    canvas = Image.new("RGB", (width, height + LINE * len(lines) + MARGIN), (255, 255, 255))
    pen, font = ImageDraw.Draw(canvas), _font(LINE * 0.6)
    for i, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + i * LINE), line, (20, 20, 20), font=font)
    canvas.paste(Image.fromarray(picture), (0, LINE * len(lines) + MARGIN))
    out = io.BytesIO()
    canvas.save(out, format="PNG", compress_level=COMPRESSION)
    return out.getvalue()


def _font(size: float) -> Any:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has no µ, and few letters of names."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _words(tiles: SlideTiles) -> str:
    said = [counted(len(tiles), "tile"), f"{tiles.size} px"]
    if tiles.mpp is not None:
        said.append(f"{tiles.mpp:g} µm per pixel")
    if tiles.overlap:
        said.append(f"{tiles.overlap} px overlap")
    if tiles.tissue is not None:
        said.append(f"{tiles.tissue.share:.1%} tissue")
    return ", ".join(said)


def _covered(begins: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: the union of rectangles, by sums of what begins and ends at their corners."""
    counts = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    for (x, y), sign in (
        (begins.T, 1), ((ends[:, 0], begins[:, 1]), -1), ((begins[:, 0], ends[:, 1]), -1), (ends.T, 1),
    ):  # fmt: skip
        np.add.at(counts, (y, x), sign)
    return counts.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0


def _tint(picture: np.ndarray, covered: np.ndarray) -> None:
    """A table of 256 values for each channel: the whole picture in floats takes ten times as long."""
    for i, colour in enumerate(COVER):
        tinted = (np.arange(256) * (1 - TINT) + colour * TINT).astype(np.uint8)
        np.copyto(picture[..., i], tinted[picture[..., i]], where=covered)


def _outline_tiles(picture: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
    for (left, top), (right, bottom) in zip(begins.tolist(), (ends - 1).tolist(), strict=True):
        picture[top, left : right + 1] = picture[bottom, left : right + 1] = TILE
        picture[top : bottom + 1, left] = picture[top : bottom + 1, right] = TILE


def _edge(tissue: TissueMask, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: the outline of the tissue, about two pixels wide, within it."""
    height, width = shape
    rows = (np.arange(height) + 0.5) * tissue.mask.shape[0] / height
    columns = (np.arange(width) + 0.5) * tissue.mask.shape[1] / width
    mask = np.pad(tissue.mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)], 2)
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            inner &= np.roll(mask, step, axis)
    return (mask & ~inner)[2:-2, 2:-2]
