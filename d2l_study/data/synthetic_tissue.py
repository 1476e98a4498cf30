"""Synthetic tissue images in the layouts and file types of the colon and breast archives, for tests and for trying the
system without them. They look like stained tissue from afar, and say nothing about real tissue.

    write_colon(Path("/tmp/data"), images=20)     # /tmp/data/CRCHistoPhenotypes_2016_04_28/Classification/img1/…
    write_breast(Path("/tmp/data"))               # /tmp/data/UCSB_BreastCancerCell/{Images,Masks}/…

An image is a pink ground of smooth noise with white gaps, and nuclei on it: filled ellipses with grainy chromatin.
Epithelial (and malignant) nuclei are larger, paler and more textured than the others; both kinds overlap in size and
colour, so that single nuclei cannot all be told apart. The archives' peculiarities are kept: coordinates count from 1
and are fractional, their types vary by file, empty classes are (0, 2) uint8, nuclei lie on borders; masks outline the
nuclei of one crop only, two images have none, and some have stray marks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data import breast, colon

CELLS = {  # kind of nucleus: (mean radius in pixels, its spread, RGB, chromatin grain)
    "epithelial": (8.0, 1.3, (132, 98, 172), 26.0),
    "fibroblast": (5.5, 0.9, (112, 72, 148), 12.0),
    "inflammatory": (5.0, 0.7, (76, 48, 122), 8.0),
    "others": (6.2, 1.4, (120, 86, 150), 16.0),
    "malignant": (9.0, 1.6, (110, 70, 160), 26.0),
    "benign": (6.5, 1.0, (92, 66, 150), 12.0),
}

CORES = tuple(f"ytma{n:02d}_0{1 + n % 9}0{1 + n % 7}03" for n in (10, 12, 23, 31, 44, 49, 52, 55, 57, 60))
"""Ten tissue cores, as in the archive; the last is benign only."""


@dataclass(frozen=True)
class Nucleus:
    """A drawn nucleus: its kind, and its centre (column, row) in 0-based pixels."""

    kind: str
    x: float
    y: float


class _Tissue:
    """A picture in the making. pixels: (H, W, 3) float; marked: (H, W) bool, where nuclei are."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.rng = rng
        stain = rng.normal(1.0, 0.05, 3)  # slides differ in colour, as real ones do
        ground = np.array([226.0, 178.0, 208.0]) * stain
        texture = _smooth(rng, height, width, 24) * 14 + _smooth(rng, height, width, 5) * 8
        self.pixels = ground + texture[:, :, None] * np.array([0.6, 1.0, 0.6])
        gaps = _smooth(rng, height, width, 60) > 1.1
        self.pixels[gaps] = np.array([243.0, 240.0, 244.0])
        self.pixels += rng.normal(0, 4, (height, width, 3))
        self.marked = np.zeros((height, width), bool)

    def draw(self, kind: str, x: float, y: float) -> Nucleus:
        """Draw a nucleus about (x, y) and return it."""
        radius, spread, colour, grain = CELLS[kind]
        rng = self.rng
        a = max(3.0, rng.normal(radius, spread))
        b = a * rng.uniform(0.45, 0.65) if kind == "fibroblast" else a * rng.uniform(0.75, 1.0)
        angle = rng.uniform(0, math.pi)
        height, width = self.marked.shape
        reach = math.ceil(a) + 1
        top, left = max(0, round(y) - reach), max(0, round(x) - reach)
        rows, columns = np.mgrid[top : min(height, round(y) + reach + 1), left : min(width, round(x) + reach + 1)]
        along = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
        across = (rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)
        inside = (along / a) ** 2 + (across / b) ** 2 <= 1
        rim = inside & ((along / (a - 1.2)) ** 2 + (across / max(1.0, b - 1.2)) ** 2 > 1)
        tone = np.array(colour, float) + rng.normal(0, 14)
        patch = self.pixels[rows, columns]
        patch[inside] = (tone + rng.normal(0, 1, (*inside.shape, 1)) * grain)[inside]
        patch[rim] = tone - 26
        self.pixels[rows, columns] = patch
        self.marked[rows, columns] |= inside
        return Nucleus(kind, x, y)

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8)


def _smooth(rng: np.random.Generator, height: int, width: int, scale: int) -> np.ndarray:
    """(height, width) noise of mean 0 and deviation about 1 that varies over some `scale` pixels."""
    coarse = rng.normal(0, 1, (height // scale + 3, width // scale + 3))
    rows, columns = np.arange(height) / scale, np.arange(width) / scale
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None], (columns - left)[None, :]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    return (upper * (1 - down) + lower * down) * 1.5


def write_colon(
    root: Path, images: int = 20, *, side: int = 500, nuclei: float = 60.0, witnesses: float = 0.3, seed: int = 0
) -> Path:
    """Write colon images below a folder and return that of the archive.

    images: their number, the first one positive, then alternating; side: in pixels (the archive has 500); nuclei: mean
    number in an image, at least 1; witnesses: share of epithelial nuclei in a positive image, in which there is at
    least one.
    """
    from PIL import Image

    archive = root / colon.ARCHIVE
    others = [kind for kind in colon.CLASSES if kind != colon.POSITIVE]
    for number in range(1, images + 1):
        rng = np.random.default_rng([seed, number])
        tissue = _Tissue(side, side, rng)
        count = max(1, int(rng.poisson(nuclei)))
        kinds = [str(rng.choice(others)) for _ in range(count)]
        if number % 2:
            for i in rng.permutation(count)[: max(1, int(rng.binomial(count, witnesses)))]:
                kinds[i] = colon.POSITIVE
        drawn = [tissue.draw(kind, *rng.uniform(-0.4, side - 1, 2)) for kind in kinds]
        folder = archive / "Classification" / f"img{number}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tissue.rgb()).save(folder / f"img{number}.bmp")
        for kind in colon.CLASSES:
            places = np.array([(n.x + 1, n.y + 1) for n in drawn if n.kind == kind])
            write_nuclei(folder / f"img{number}_{kind}.mat", places, whole=bool(rng.random() < 0.15))
    return archive


def write_nuclei(path: Path, places: np.ndarray, whole: bool = False) -> None:
    """A `.mat` file of nuclei. places: (k, 2) as (column, row), counted from 1; whole: rounded to uint16, as some of
    the archive's files are; none at all are kept as (0, 2) uint8."""
    from scipy.io import savemat

    if not len(places):
        detection = np.zeros((0, 2), np.uint8)
    elif whole:
        detection = np.maximum(1, np.floor(places + 0.5)).astype(np.uint16)
    else:
        detection = places.astype(np.float64)
    savemat(path, {"detection": detection}, do_compression=True)


def write_breast(
    root: Path,
    per_core: int = 4,
    *,
    cores: int = 10,
    width: int = 896,
    height: int = 768,
    nuclei: float = 500.0,
    flat: bool = False,
    seed: int = 0,
) -> Path:
    """Write breast images with their masks below a folder and return that of the archive.

    per_core: images of each of the tissue cores (at most ten), in turn benign and malignant but for the last core,
    which is benign only; nuclei: mean number in an image; flat: the layout of one folder. A mask holds the nuclei of a
    crop of about a quarter of the sides. The first image of each class has none.
    """
    from PIL import Image

    archive = root / (breast.FLAT if flat else breast.ARCHIVE)
    images, masks = (archive, archive) if flat else (archive / "Images", archive / "Masks")
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    unmasked = {"benign", "malignant"}
    for number, core in enumerate(CORES[:cores]):
        for i in range(per_core):
            rng = np.random.default_rng([seed, number, i])
            kind = "malignant" if i % 2 and number < cores - 1 else "benign"
            tissue = _Tissue(height, width, rng)
            for x, y in rng.uniform(0, 1, (int(rng.poisson(nuclei)), 2)) * (width - 1, height - 1):
                tissue.draw(kind if rng.random() < 0.7 else "fibroblast", x, y)
            name = f"{core}_{kind}{i + 1}"
            Image.fromarray(tissue.rgb()).save(images / f"{name}_ccd.tif")
            if kind in unmasked:
                unmasked.remove(kind)
                continue
            mask = np.zeros((height, width), np.uint8)
            top, left = (int(rng.integers(0, size - size // 4)) for size in (height, width))
            crop = np.s_[top : top + height // 4, left : left + width // 4]
            mask[crop] = np.where(tissue.marked[crop], 255, 0)
            if rng.random() < 0.3:
                mask[height - 1 - top // 2, left // 2] = 255  # a stray mark
            Image.fromarray(mask).save(masks / f"{name}.TIF")
    return archive
