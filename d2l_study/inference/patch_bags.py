"""Bags of patches that are read as they are scored: of images, of slides, and of arrays of patches.

    for bag in predict_patches(model, bags, white_above=None, progress=progress): ...

Of a bag only some patches are in memory at a time, and a few numbers for each; nothing is kept in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from d2l_study.data.cutting import ImageCut, channel_sums
from d2l_study.data.given_bags import brighter
from d2l_study.errors import UserError
from d2l_study.inference.image_colour import in_colour, trained_in_colour
from d2l_study.inference.inputs import PART_BYTES, Input
from d2l_study.inference.label import ProgressCallback
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.prediction_file import PredictedBag
from d2l_study.inference.slide_inputs import SlideInput
from d2l_study.inference.tile_scores import batch_size, read_ahead
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.tiles import TileSettings, cut_tiles, why_no_tiles

Parts = Iterator[tuple[np.ndarray, np.ndarray]]
"""Patches, (n, C, H, W) uint8, and their places, (n, 2), NaN where they have none."""


@dataclass(frozen=True)
class OpenPatches:
    """The patches of a file that is open. count: how many there are; note: why there are none, in words; mpp: µm per
    pixel of a slide's level 0 as (x, y), where it is known."""

    count: int
    parts: Parts
    note: str = ""
    mpp: tuple[float, float] | None = None


class PatchFile(Protocol):
    """What gives patches of a bag. source: its file, for people; as_cut: whether they are cut here, and so may be left
    out as in training where they are too bright."""

    @property
    def source(self) -> str: ...

    @property
    def as_cut(self) -> bool: ...

    @property
    def count(self) -> int | None:
        """How many patches, None where only the open file tells."""

    def open(self) -> Iterator[OpenPatches]:
        """One `OpenPatches`; the file is open as long as it is in use. `UserError` for what cannot be read."""


@dataclass(frozen=True)
class ImagePatches:
    """Patches of an image that is decoded whole. centres: gives the (k, 2) centres, made when they are needed; one of
    NaN means that the whole image is the patch; count: k; patch: (h, w); cut: `points`, `grid` or `whole`."""

    path: Path
    centres: Callable[[], np.ndarray]
    count: int
    patch: tuple[int, int]
    channels: int
    cut: str
    as_cut: bool = True

    @property
    def source(self) -> str:
        return str(self.path)

    def open(self) -> Iterator[OpenPatches]:
        xy = self.centres()
        cut = ImageCut(self.path, xy, np.empty(0, np.int8), channels=self.channels)
        most = max(1, PART_BYTES // (self.channels * math.prod(self.patch)))
        yield OpenPatches(len(xy), _with_places(cut.patches(self.patch, most), xy))


@dataclass(frozen=True)
class SlidePatches:
    """The tiles of a slide, or of an image that is read as one."""

    slide: SlideInput
    tiles: TileSettings
    as_cut: bool = True
    count: None = None

    @property
    def source(self) -> str:
        return str(self.slide.path)

    def open(self) -> Iterator[OpenPatches]:
        with self.slide.open() as slide:
            tiles = cut_tiles(slide, self.tiles)
            reader, size = PatchReader(slide, tiles.mpp, tiles.size), batch_size(tiles.size)
            ranges = [(first, min(first + size, len(tiles))) for first in range(0, len(tiles), size)]
            read = (patches.transpose(0, 3, 1, 2) for _, patches in read_ahead(reader, tiles.xy, ranges))
            note = "" if len(tiles) else why_no_tiles(tiles, self.tiles.least_tissue)
            yield OpenPatches(len(tiles), _with_places(read, tiles.centres()), note, slide.mpp)


@dataclass(frozen=True)
class ArrayPatches:
    """Patches that are there as such: an array of them."""

    entry: Input
    as_cut: bool = False

    @property
    def source(self) -> str:
        return self.entry.source

    @property
    def count(self) -> int:
        return self.entry.count

    def open(self) -> Iterator[OpenPatches]:
        places = np.full((self.entry.count, 2), math.nan)
        yield OpenPatches(self.entry.count, _with_places(self.entry.parts(8192), places))


@dataclass(frozen=True)
class PatchBag:
    """A bag before it is read."""

    name: str
    files: tuple[PatchFile, ...]

    @property
    def count(self) -> int | None:
        """How many patches, None where that is not known before slides are opened."""
        counts = [file.count for file in self.files]
        return None if None in counts else sum(count for count in counts if count is not None)


@dataclass(frozen=True)
class UnreadBag:
    """A bag that could not be read. problem: why, naming the file."""

    name: str
    problem: str


@dataclass
class BagReading:
    """What was found of a bag's files while they were read: for messages, when it is done. colourless: the sources of
    files without colour, for a model that was trained in colour."""

    notes: list[str] = field(default_factory=list)
    opened: list[tuple[SlideInput, tuple[float, float] | None]] = field(default_factory=list)
    colourless: list[str] = field(default_factory=list)


def predict_patches(
    model: LoadedModel, bags: Sequence[PatchBag], white_above: float | None, progress: ProgressCallback | None = None,
    reading: BagReading | None = None,
) -> Iterator[PredictedBag | UnreadBag]:  # fmt: skip
    """The scores of each bag in order, or why it could not be read.

    white_above: patches that are cut and brighter are left out, as in training (`data.white_above`); reading: gets what
    was found. `UserError` for a model whose scores are no numbers.
    """
    counts = [bag.count for bag in bags]
    told = _Told(progress or (lambda name, done, count: None), None if None in counts else sum(filter(None, counts)))
    for bag in bags:
        try:
            yield _scored(model, bag, white_above, told, reading or BagReading())
        except _ReadError as error:
            yield UnreadBag(bag.name, str(error))
        told.bag_ends(bag.count or 0)


class _ReadError(Exception):
    """A bag cannot be read; everything else that is wrong is not of the bag."""


class _Told:
    """Says how many patches are scored: of all, where their number (total) is known, else of the file in work."""

    def __init__(self, say: ProgressCallback, total: int | None) -> None:
        self.say, self.total, self.name = say, total, "scoring"
        self.begin, self.count = 0, total or 0
        """Patches of all bags, or of this bag, before those that are counted; how many these are."""
        self.earlier = 0
        """Patches of the bags before this one."""
        if total is not None:
            say(self.name, 0, total)

    def file_opens(self, source: str, scored: int, count: int) -> None:
        """scored: patches of the bag before this file."""
        if self.total is None:
            self.name, self.begin, self.count = Path(source).name, scored, count
            self.say(self.name, 0, count)

    def bag_ends(self, count: int) -> None:
        self.earlier += count

    def __call__(self, done: int) -> None:
        """done: patches of the bag that are scored."""
        done = done - self.begin if self.total is None else done + self.earlier
        self.say(self.name, min(done, self.count), self.count)


def _scored(
    model: LoadedModel, bag: PatchBag, white_above: float | None, told: _Told, reading: BagReading
) -> PredictedBag:
    places: list[np.ndarray] = []
    numbers: list[np.ndarray] = []

    def parts() -> Iterator[np.ndarray]:
        for number, file in enumerate(bag.files):
            with _read_errors(), contextmanager(file.open)() as found:
                told.file_opens(file.source, sum(map(len, places)), found.count)
                reading.notes += [f"{bag.name}: no patches: {found.note}"] * bool(found.note)
                if isinstance(file, SlidePatches):
                    reading.opened.append((file.slide, found.mpp))
                grey = trained_in_colour(model.stored)  # until a patch shows that it is not
                for patches, xy in found.parts:
                    grey = grey and not in_colour(patches, axis=1)
                    kept = np.ones(len(xy), bool)
                    if white_above is not None and file.as_cut:
                        kept = ~brighter(channel_sums(patches), white_above)
                    places.append(xy[kept])
                    numbers.append(np.full(int(kept.sum()), number))
                    yield patches[kept]
                reading.colourless += [file.source] * (grey and found.count > 0)

    scores = model.score_bag(parts(), done=told)
    return PredictedBag(
        bag.name, tuple(file.source for file in bag.files), np.concatenate([np.empty(0, np.int64), *numbers]),
        np.concatenate([np.empty((0, 2)), *places]), scores.instance_logits, scores.bag_logit,
    )  # fmt: skip


@contextmanager
def _read_errors() -> Iterator[None]:
    """What reading a file of a bag raises, as what is wrong with the bag."""
    try:
        yield
    except UserError as error:
        raise _ReadError(str(error)) from None


def _with_places(patches: Iterator[np.ndarray], xy: np.ndarray) -> Parts:
    first = 0
    for some in patches:
        yield some, xy[first : first + len(some)]
        first += len(some)
