"""Breast (UCSB Bio-Segmentation benchmark): one image is one bag, its instances the grid of 32×32 patches.

Source: Drelie Gelasca et al., ICIP 2008; bags as in Ilse, Tomczak, Welling, ICML 2018: a bag is positive if its file
name says malignant. The masks outline nuclei in one crop of an image only, and do not say which nuclei are malignant.
Two instance truths follow:

- the primary one: patches that touch annotated nuclei, positive in malignant images, negative in benign ones;
- `wide`: every patch of a benign image is negative; in a malignant one a patch is positive if it touches annotated
  nuclei, negative if it lies wholly inside the annotated crop without any; the others are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from d2l_study.data.collection import PatchCollection
from d2l_study.data.cutting import BagSource, ImageCut, cached_collection, grid_centres
from d2l_study.data.given_bags import PatchBags
from d2l_study.data.pool import UNKNOWN
from d2l_study.data.tissue_folders import entries_by_lower_name, find_folder
from d2l_study.environment import data_root
from d2l_study.errors import UserError
from d2l_study.options import option
from d2l_study.slides.image_files import image_size, read_image

ARCHIVE = "UCSB_BreastCancerCell"
FLAT = "BreastCancerCell_dataset"
IMAGES = 58
"""Images of the whole archive."""
PATCH = (32, 32)
NUCLEI_PIXELS = 10
"""A patch touches annotated nuclei if so many of its pixels are marked; fewer marked pixels in one piece are stray."""
WHERE_FROM = "https://bioimage.ucsb.edu/research/bio-segmentation (breast cancer cells)"

_IMAGE = re.compile(r"(?P<name>.+)_ccd\.tiff?", re.IGNORECASE)
_NAME = re.compile(r"(?P<core>.+)_(?P<class>benign|malignant)\d*", re.IGNORECASE)


@dataclass(frozen=True)
class BreastBags(PatchBags):
    """The `data` section of a space for the breast images."""

    dataset: str = option("breast", "the data set", choices=("breast",))
    folds: int = option(5, "folds of tissue cores; replicate = repeat × folds + fold", least=3, most=10)

    INSTANCE_CLASSES: ClassVar[tuple[str, str]] = ("nuclei of a malignant image", "nuclei of a benign image")

    def collect(self) -> PatchCollection:
        return load(data_root(self.root))


@dataclass(frozen=True)
class BreastImage:
    """One image with its mask, where it has one."""

    name: str
    core: str
    malignant: bool
    image: Path
    mask: Path | None


def image_folder(root: Path) -> Path | None:
    """The archive's folder, in either layout, below one that holds it, or is it; None if there is none."""
    return find_folder(root, (ARCHIVE, FLAT, "."), lambda folder: bool(_pictures(folder)))


def find_images(root: Path, problems: list[str] | None = None) -> list[BreastImage]:
    """The images below a folder that holds the archive in either layout, or is it; sorted by name.

    `UserError` if there are none, or a file's name says neither benign nor malignant; with `problems` that is noted
    there and the image left out.
    """
    folder = image_folder(root)
    if folder is None:
        raise UserError(
            f"data.root: {root} holds no breast images (looked for {ARCHIVE}/Images/*_ccd.tif and {FLAT}/*_ccd.tif); "
            f"they are to be had from {WHERE_FROM}"
        )
    within = entries_by_lower_name(folder)
    masks = (
        entries_by_lower_name(within["masks"]) if within.get("masks", folder).is_dir() and "masks" in within else within
    )
    found = []
    for key, path in _pictures(folder).items():
        name = _NAME.fullmatch(key)
        words = {word.lower() for word in re.findall("benign|malignant", key, re.IGNORECASE)}
        if name is None or len(words) > 1:
            says = "both benign and malignant" if len(words) > 1 else "neither benign nor malignant"
            problem = f"{path}: its name says {says} (one of them is needed, as in ytma10_010704_benign1_ccd.tif)"
            if problems is None:
                raise UserError(problem)
            problems.append(problem)
            continue
        mask = next((masks[key + end] for end in (".tif", ".tiff") if key + end in masks), None)
        found.append(BreastImage(key, name["core"], name["class"] == "malignant", path, mask))
    return found


def _pictures(folder: Path) -> dict[str, Path]:
    """Name in lower case -> image, of a folder or of its `Images`; the masks have no `_ccd` in theirs."""
    within = entries_by_lower_name(folder)
    entries = entries_by_lower_name(within["images"]) if "images" in within and within["images"].is_dir() else within
    matches = {entry: _IMAGE.fullmatch(entry) for entry in entries}
    return {match["name"]: entries[entry] for entry, match in matches.items() if match}


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, True where nuclei are marked, without stray marks; size: (width, height) of the image.

    `UserError` with file and reason if it cannot be read or has another size.
    """
    from scipy import ndimage

    marked = read_image(path, channels=1)[..., 0] > 0
    if marked.shape != size[::-1]:
        found = f"{marked.shape[1]}×{marked.shape[0]}"
        raise UserError(f"{path}: a mask of {found} pixels; its image has {size[0]}×{size[1]}")
    pieces, _ = ndimage.label(marked, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) >= NUCLEI_PIXELS
    large[0] = False
    return large[pieces]


def patch_truths(mask: np.ndarray | None, malignant: bool, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The primary and the wide truth of the grid's patches, (k,) int8 each, in the order of `grid_centres`.

    mask: (H, W) bool, or None if the image has none; size: (width, height).
    """
    h, w = PATCH
    rows, columns = size[1] // h, size[0] // w
    primary = np.full(rows * columns, UNKNOWN, np.int8)
    wide = np.full(rows * columns, UNKNOWN if malignant else 0, np.int8)
    if mask is None or not mask.any():
        return primary, wide
    marked = mask[: rows * h, : columns * w].reshape(rows, h, columns, w).sum(axis=(1, 3)).ravel()
    nuclei = marked >= NUCLEI_PIXELS
    primary[nuclei] = int(malignant)
    if malignant:
        y, x = np.nonzero(mask)
        top, left = np.divmod(np.arange(rows * columns), columns) * np.array([[h], [w]])
        within = (top >= y.min()) & (top + h - 1 <= y.max()) & (left >= x.min()) & (left + w - 1 <= x.max())
        wide[within & (marked == 0)] = 0
        wide[nuclei] = 1
    return primary, wide


def describe(images: Sequence[BreastImage]) -> list[BagSource]:
    """A bag per image; the tissue core is the group."""
    sources = []
    for image in images:
        size = image_size(image.image)
        if size[0] < PATCH[1] or size[1] < PATCH[0]:
            raise UserError(f"{image.image}: {size[0]}×{size[1]} pixels, smaller than a patch of {PATCH[1]}×{PATCH[0]}")
        mask = None if image.mask is None else read_mask(image.mask, size)
        primary, wide = patch_truths(mask, image.malignant, size)
        cut = ImageCut(image.image, grid_centres(*size, PATCH), primary, {"wide": wide})
        sources.append(BagSource(image.name, int(image.malignant), image.core, (cut,)))
    return sources


def load(root: Path) -> PatchCollection:
    """All breast images below a folder, cut once per machine."""
    images = find_images(root)
    files = [path for image in images for path in (image.image, image.mask) if path is not None]
    return cached_collection("breast", files, {"nuclei_pixels": NUCLEI_PIXELS}, lambda _: describe(images), PATCH)
