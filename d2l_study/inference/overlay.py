"""Pictures of score maps over tissue: the image with its true nuclei, and beside it each model's probabilities.

The tissue under a map is shown grey, so that pink and purple do not mix with the map's colours, which are viridis:
rising in lightness and told apart by every common colour vision. They follow the logit, from a probability of 0.01 to
one of 0.99: a bag classifier's instance probabilities need not be calibrated, and on a scale of probabilities all below
0.1 would look alike. A line is the border of what is predicted positive, above the model's threshold. Drawn with
Pillow alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.inference.sliding_window import Grid
from d2l_study.inference.white_ground import white_patches
from d2l_study.slides.score_map import ScoreMap

VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26",
    "#fde725",
)  # fmt: skip
"""Of Smith and van der Walt (matplotlib), at 0, 0.1 … 1."""
FAINT, STRONG = 0.3, 0.6
"""Weight of the map over the tissue, at the low and at the high end: where nothing is found, tissue is to be seen."""
END = 4.595
"""The logit of 0.99; beyond it, and beyond its negative, colours do not change."""
TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)
INK, WHITE, MUTED = (20, 20, 20), (255, 255, 255), (90, 90, 90)
ABOVE = (213, 94, 0)
"""Vermillion of Okabe and Ito's palette: not in viridis, and darker than what it runs through."""
OUTLINE = 2
"""Pixels that the line about what is predicted positive is wide."""
COMPRESSION = 2
"""Of the PNG, of 9: a third of the time of the usual 6, for a sixth more bytes."""
SHARP = 2
"""Drawn at this multiple and reduced, which smooths lines and letters."""
MARGIN, GAP, HEAD, LINE, LEGEND, BAR = 14, 12, 30, 16, 26, 76
"""Pixels: around, between panels, the title, a line of text, the legend, the colour bar with its numbers."""
LETTERS = 800
"""Pixels of a panel's longer side up to which all of these, and letters, have the size given; beyond, they grow with
it, so that a large picture can be read when it is shown small."""
POSITIVE, NEGATIVE, BORDER = 1, 0, 2
BAR_HEADING = "probability of"
SIGN, BETWEEN = 26, 22
"""Pixels of the legend: for a mark, and between two entries."""
BORDER_MEANING = "border of what is predicted positive"
"""Not what lies within: the line is about what is not, too, where that is an island."""
NO_COLOUR = "no colour: white ground, which training left out"


@dataclass(frozen=True)
class Places:
    """Known places in an image: xy (k, 2) centres (column, row) in 0-based pixels; label (k,) 1, 0, or −1 (unknown),
    which is not drawn."""

    xy: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Panel:
    """A map to be shown: logits (rows, columns) on its grid; note: a second line below the name; threshold: the logit
    above which the model calls an instance positive, if it has one of its own."""

    logits: np.ndarray
    grid: Grid
    note: str = ""
    threshold: float | None = None


def overlay_picture(
    tissue: np.ndarray,
    size: tuple[int, int],
    panels: Mapping[str, Panel],
    *,
    shrink: int = 1,
    places: Places | None = None,
    positive: str = "positive",
    negative: str = "negative",
    title: str = "",
    side: int = 560,
    white_above: float | None = None,
) -> bytes:
    """A PNG: the tissue, and for each name its map over the tissue, with a colour bar of the probability and a legend.

    tissue: (h, w, 1 or 3) uint8, the image reduced by the whole factor `shrink` (`TissueImage.reduced`); size: (width,
    height) of the image in full; places: true instances, a ring about a positive one, a dot on a negative one;
    positive, negative: what they are called, the first also at the colour bar; side: pixels of a panel's longer side;
    white_above: where a patch has a mean intensity, in [0, 1], above this there is no colour and no line, since
    training left such patches out (`data.white_above`).
    """
    from PIL import Image, ImageDraw

    width, height = size
    scale = side / max(width, height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    unit = max(1.0, side / LETTERS)
    margin, gap, line = (round(pixels * unit) for pixels in (MARGIN, GAP, LINE))
    shown = Image.fromarray(tissue[..., 0] if tissue.shape[2] == 1 else tissue).convert("RGB").resize(
        (wide * SHARP, high * SHARP), Image.Resampling.BICUBIC, box=(0, 0, width / shrink, height / shrink)
    )  # fmt: skip
    views: dict[str, tuple[Any, str]] = {"tissue": (shown, _counted(places, positive, negative))}
    lined = bare = False
    for name, panel in panels.items():
        logits = map_at(panel, size, (wide * SHARP, high * SHARP))
        white = white_patches(np.asarray(shown), panel.grid.patch, scale * SHARP, white_above)
        logits[white] = np.nan
        blended = over_tissue(np.asarray(shown), logits)
        if panel.threshold is not None:
            edge = border(logits > panel.threshold, OUTLINE * unit * SHARP)
            blended[edge] = ABOVE
            lined = lined or bool(edge.any())
        bare = bare or bool(white.any())
        views[name] = (Image.fromarray(blended), panel.note)
    head = round((HEAD if title else 0) * unit) + 2 * line + round(6 * unit)
    bar = _bar_width(positive, unit)
    words = _legend_words(places, positive, negative, lined)
    legend, below = (round(LEGEND * unit) if there else 0 for there in (words, bare))
    full_width = max(2 * margin + len(views) * (wide + gap) + bar, _legend_width(words, unit))
    full = (full_width, 2 * margin + head + high + legend + below)
    canvas = Image.new("RGB", (full[0] * SHARP, full[1] * SHARP), WHITE)
    patch = min(next(iter(panels.values())).grid.patch) if panels else 27
    pen = _Pen(ImageDraw.Draw(canvas), scale, patch, unit)
    pen.text(margin, margin - 2 * unit, title, 16)
    top, left = margin + head, margin
    for name, (picture, note) in views.items():
        canvas.paste(picture, (left * SHARP, top * SHARP))
        pen.text(left, top - line * 2 - 5 * unit, name, 14)
        pen.text(left, top - line - 4 * unit, note, 12, MUTED)
        if places is not None:
            for label in (NEGATIVE, POSITIVE):
                for x, y in (places.xy[places.label == label] + 0.5) * scale:
                    if 0 <= x <= wide and 0 <= y <= high:
                        pen.mark(left + x, top + y, label)
        left += wide + gap
    _colour_bar(pen, canvas, left, top, high, positive)
    if legend:
        _legend(pen, top + high + legend / 2 + 4 * unit, words)
    if bare:
        pen.text(margin, top + high + legend + below / 2 + 4 * unit, NO_COLOUR, 13, anchor="lm")
    out = io.BytesIO()
    canvas.resize(full, Image.Resampling.BOX).save(out, format="PNG", compress_level=COMPRESSION)
    return out.getvalue()


def slide_overlay(
    thumbnail: np.ndarray,
    size: tuple[int, int],
    found: ScoreMap,
    threshold: float | None,
    title: str,
    positive: str = "positive",
) -> bytes:
    """A PNG of a slide: its thumbnail, and beside it the map of its tiles over it, with the bar of the probability.

    thumbnail: (h, w, 3) uint8; size: (width, height) of the slide in level-0 pixels; found: the map of logits, NaN
    where there is no tile; threshold: the logit above which a tile is predicted positive; positive: what such tiles are
    called.
    """
    from PIL import Image, ImageDraw

    high, wide = thumbnail.shape[:2]
    unit = max(1.0, max(high, wide) / LETTERS)
    margin, gap, head = round(MARGIN * unit), round(GAP * unit), round((HEAD + 2 * LINE + 6) * unit)
    logits = _tiles_at(found, size, (wide, high))
    blended = over_tissue(thumbnail, logits)
    lined = False
    if threshold is not None:
        edge = border(logits > threshold, OUTLINE * unit)
        blended[edge] = ABOVE
        lined = bool(edge.any())
    legend = round(LEGEND * unit) if lined else 0
    words = _legend_words(None, "", "", lined)
    full_width = max(2 * margin + 2 * (wide + gap) + _bar_width(positive, unit), _legend_width(words, unit))
    full = (full_width, margin + head + high + margin + legend)
    canvas = Image.new("RGB", (full[0] * SHARP, full[1] * SHARP), WHITE)
    pen = _Pen(ImageDraw.Draw(canvas), 1.0, 27, unit)
    pen.text(margin, margin - 2 * unit, title, 16)
    top, left = margin + head, margin
    for name, pixels in (("slide", thumbnail), ("score of tiles", blended)):
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((wide * SHARP, high * SHARP))
        canvas.paste(picture, (left * SHARP, top * SHARP))
        pen.text(left, top - (LINE + 5) * unit, name, 14)
        left += wide + gap
    _colour_bar(pen, canvas, left, top, high, positive)
    if legend:
        _legend(pen, top + high + legend / 2 + 4 * unit, words)
    out = io.BytesIO()
    canvas.resize(full, Image.Resampling.BOX).save(out, format="PNG", compress_level=COMPRESSION)
    return out.getvalue()


def _tiles_at(found: ScoreMap, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 logits of the tiles at the pixels of a picture of the whole slide, (w, h) of `shape`."""
    index = []
    for axis in (0, 1):
        place = (np.arange(shape[axis]) + 0.5) * size[axis] / shape[axis]
        at = np.floor((place - found.origin[axis]) / found.step[axis]).astype(np.int64)
        index.append(at.clip(0, found.values.shape[1 - axis] - 1))
    return found.values[index[1][:, None], index[0][None, :]]


def map_at(panel: Panel, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """A map's logits at the pixels of a picture of the whole image, (shape[1], shape[0]) float32.

    size: (width, height) of the image; shape: of the picture. Between centres it is interpolated linearly, beyond the
    outermost ones continued.
    """
    grid, values = panel.grid, panel.logits.astype(np.float32)
    for axis, start, full, wanted in ((0, grid.y0, size[1], shape[1]), (1, grid.x0, size[0], shape[0])):
        pixel = (np.arange(wanted) + 0.5) * full / wanted - 0.5  # of the image, where the picture has its pixels
        place = np.clip((pixel - start) / grid.stride, 0, values.shape[axis] - 1)
        low = np.minimum(place.astype(np.int64), max(0, values.shape[axis] - 2))
        part = (place - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part
    return values


def blend(tissue: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The colours of logits over grey tissue. tissue: (h, w, 3) uint8; logits: (h, w)."""
    grey = tissue @ np.array([0.299, 0.587, 0.114], np.float32)
    level = np.clip((logits + END) / (2 * END), 0, 1)
    weight = (FAINT + (STRONG - FAINT) * level)[..., None]
    mixed = weight * colours(level) + (1 - weight) * grey[..., None]
    return np.rint(mixed).astype(np.uint8)


def over_tissue(tissue: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """As of `blend`; the tissue as it is where a logit is NaN."""
    there = np.isfinite(logits)
    return np.where(there[..., None], blend(tissue, np.where(there, logits, 0)), tissue)


def colours(values: np.ndarray) -> np.ndarray:
    """RGB, (…, 3) float32 in [0, 255], of values in [0, 1]; those beyond have the colour of the end."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in VIRIDIS], np.float32)
    table = np.stack([np.interp(np.linspace(0, 10, 256), np.arange(11), stops[:, i]) for i in range(3)], axis=1)
    return table.astype(np.float32)[np.rint(np.clip(values, 0, 1) * 255).astype(np.int64)]


def border(inside: np.ndarray, width: float = 2) -> np.ndarray:
    """(h, w) bool: the pixels on both sides of the line about what is inside. width: of the line in pixels, 2 or more;
    what is odd is rounded up."""
    edge = np.zeros_like(inside)
    for axis in (0, 1):
        changes = np.diff(inside.astype(np.int8), axis=axis) != 0
        before, after = [(0, 1), (0, 0)][:: 1 if axis == 0 else -1], [(1, 0), (0, 0)][:: 1 if axis == 0 else -1]
        edge |= np.pad(changes, before) | np.pad(changes, after)
    for _ in range(math.ceil((width - 2) / 2)):
        thin = edge.copy()
        for axis in (0, 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            edge[tuple(ahead)] |= thin[tuple(behind)]
            edge[tuple(behind)] |= thin[tuple(ahead)]
    return edge


# ---- drawing
class _Pen:
    """Draws at `SHARP` times the size that is given. scale: of the picture to the image; patch: side in the image;
    unit: by which letters and what goes with them are larger."""

    def __init__(self, draw: Any, scale: float, patch: int, unit: float) -> None:
        self.draw, self.unit = draw, unit
        self.ring = min(9.0 * unit, max(3.2, 0.22 * patch * scale))
        self.dot = min(3.4 * unit, max(1.9, 0.09 * patch * scale))

    def text(
        self, x: float, y: float, text: str, size: int, colour: tuple[int, ...] = INK, anchor: str = "la"
    ) -> float:
        """Returns its width."""
        font = _font(round(size * self.unit * SHARP, 3))
        self.draw.text((x * SHARP, y * SHARP), text, fill=colour, font=font, anchor=anchor)
        return font.getlength(text) / SHARP

    def circle(self, x: float, y: float, radius: float, **how: Any) -> None:
        self.draw.ellipse([(v + d) * SHARP for d in (-radius, radius) for v in (x, y)], **how)

    def mark(self, x: float, y: float, label: int) -> None:
        """A white ring with dark rims leaves a positive instance to be seen; a black dot with a white rim is small."""
        if label == POSITIVE:
            thin = min(self.unit, self.ring / 6.5)  # a small ring of thick lines would be a disc
            self.circle(x, y, self.ring + 0.8 * thin, outline=INK, width=round(3.4 * thin * SHARP))
            self.circle(x, y, self.ring, outline=WHITE, width=round(1.8 * thin * SHARP))
        else:
            self.circle(x, y, self.dot + 1, fill=WHITE)
            self.circle(x, y, self.dot, fill=INK)


@lru_cache(maxsize=16)
def _font(size: float) -> Any:
    """DejaVu Sans, which comes with matplotlib: names of images have letters that Pillow's own font lacks."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    file = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)  # the other fails at odd bytes of names


def _counted(places: Places | None, positive: str, negative: str) -> str:
    if places is None or not len(places.xy):
        return ""
    return ", ".join(f"{int((places.label == label).sum())} {word}" for label, word in ((1, positive), (0, negative)))


def _bar_width(positive: str, unit: float) -> int:
    """Pixels of the colour bar with its numbers and the words above it."""
    words = max(_font(round(12 * unit, 3)).getlength(text) for text in (BAR_HEADING, positive))
    return round(max(BAR * unit, words))


def _colour_bar(pen: _Pen, canvas: Any, left: int, top: int, high: int, positive: str) -> None:
    """positive: what it is the probability of."""
    from PIL import Image

    unit = pen.unit
    wide = round(16 * unit)
    logits = np.linspace(END, -END, high * SHARP, dtype=np.float32)[:, None].repeat(wide * SHARP, 1)
    bright = np.full((*logits.shape, 3), 205, np.uint8)  # as light as tissue usually is
    canvas.paste(Image.fromarray(blend(bright, logits)), (left * SHARP, top * SHARP))
    for value in TICKS:
        y = top + (0.5 - np.log(value / (1 - value)) / (2 * END)) * high
        tick = [(x * SHARP, y * SHARP) for x in (left + wide, left + wide + 4 * unit)]
        pen.draw.line(tick, fill=INK, width=round(2 * unit))
        anchor = "ls" if value == TICKS[0] else "lt" if value == TICKS[-1] else "lm"
        sign = "< " if value == TICKS[0] else "> " if value == TICKS[-1] else ""
        pen.text(left + wide + 7 * unit, y, f"{sign}{value:g}", 12, anchor=anchor)
    pen.text(left, top - 2 * LINE * unit - 4 * unit, BAR_HEADING, 12, MUTED)
    pen.text(left, top - LINE * unit - 4 * unit, positive, 12)


def _legend_words(places: Places | None, positive: str, negative: str, lined: bool) -> dict[int, str]:
    """What the legend says of each mark: of a true `POSITIVE` or `NEGATIVE` one, and of the `BORDER`."""
    words = {label: f"{word} (truth)" for label, word in ((POSITIVE, positive), (NEGATIVE, negative))
             if places is not None and (places.label == label).any()}  # fmt: skip
    return words | ({BORDER: BORDER_MEANING} if lined else {})


def _legend_width(words: Mapping[int, str], unit: float) -> int:
    """Pixels from the left edge of the picture to the end of the legend."""
    font = _font(round(13 * unit, 3))
    return round(MARGIN * unit + sum(font.getlength(text) + (SIGN + BETWEEN) * unit for text in words.values()))


def _legend(pen: _Pen, middle: float, words: Mapping[int, str]) -> None:
    """words: as of `_legend_words`."""
    unit = pen.unit
    left = MARGIN * unit
    for mark, text in words.items():
        if mark == BORDER:
            ends = [(x * SHARP, middle * SHARP) for x in (left, left + 20 * unit)]
            pen.draw.line(ends, fill=ABOVE, width=round(4 * unit))
        else:
            pen.mark(left + 9 * unit, middle, mark)
        left += SIGN * unit
        left += pen.text(left, middle, text, 13, anchor="lm") + BETWEEN * unit
