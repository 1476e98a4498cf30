"""Where a slide shows tissue, found on its thumbnail.

    mask, downsample = tissue_mask(slide)          # (h, w) bool; level-0 pixels for one pixel of the mask, (x, y)

The method is that of CLAM (Lu et al., Nature Biomedical Engineering 2021): tissue is coloured and glass is not, so the
saturation of HSV is smoothed by a median and cut by a threshold, gaps are closed, and small pieces and holes go. The
threshold is Otsu's (IEEE Transactions on Systems, Man, and Cybernetics 1979) within limits: a slide without tissue, or
without glass, has no two classes that it could tell apart.

Ink is taken out by its colour. Stained tissue is red to blue, and of haematoxylin and eosin green is the weakest
channel (Schreiber et al., Scientific Reports 2024). So green, black and strongly blue ink are found. Red ink is not: it
has the colour of eosin and blood.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d2l_study.slides.packages import extra_package
from d2l_study.slides.slide import Slide

RESOLUTION = 8.0
"""µm for a pixel of the mask."""
LEAST_SIDE, MOST_SIDE = 1024, 4096
"""Pixels of the mask's longer side. A small image is looked at as it is."""
USUAL_MPP = 0.5
"""µm per pixel that a slide is taken to have that does not say."""

GLASS, STAINED = 8, 20
"""Saturations, of 255: what has less than the first is glass (CLAM's threshold), what has more than the second is not,
whatever else the slide shows."""
MEDIAN = 7
"""Pixels a side of the median, as in CLAM."""
SMALLEST = 0.01
"""mm² of a piece of tissue, or of a hole in it: 100 × 100 µm, about one tile. Smaller ones go."""
SMALLEST_SHARE = 0.001
"""Of the slide's area, where that is less: small images show small pieces."""

BLACK = 85
"""All channels below this are black ink, or the dark border of a scan (as in CellViT)."""
BLUE = 0.45
"""Saturation from which on what is more green than red, and most blue, is ink and not haematoxylin."""
RIM = 3
"""Pixels about ink that are not looked at: it fades there into glass, as pale as a stain."""


class TissueMask(NamedTuple):
    """mask: (h, w) bool, True where there is tissue; downsample: level-0 pixels for one of its pixels, as (x, y)."""

    mask: np.ndarray
    downsample: tuple[float, float]

    @property
    def share(self) -> float:
        """The share of the slide that is tissue, in [0, 1]."""
        return float(self.mask.mean())


def tissue_mask(slide: Slide) -> TissueMask:
    """The tissue of a slide. `UserError` if it cannot be read, or the extra `[wsi]` is missing."""
    mpp = max(slide.mpp) if slide.mpp else USUAL_MPP
    longer = max(slide.width, slide.height)
    most = min(longer, max(LEAST_SIDE, min(MOST_SIDE, math.ceil(longer * mpp / RESOLUTION))))
    check_packages(slide.path)
    picture = slide.thumbnail(most)
    height, width = picture.shape[:2]
    downsample = slide.width / width, slide.height / height
    pixel = downsample[0] * downsample[1] * mpp**2 / 1e6  # mm²
    smallest = round(min(SMALLEST / pixel, SMALLEST_SHARE * height * width))
    return TissueMask(find_tissue(picture, smallest), downsample)


def check_packages(path: Path) -> None:
    """`UserError` if what finds tissue is not installed. path: of a slide, for the message."""
    extra_package("skimage", f"{path}: finding tissue")


def find_tissue(picture: np.ndarray, smallest: int) -> np.ndarray:
    """(h, w) bool: the tissue of a picture, (h, w, 3) uint8. smallest: pixels of a piece or hole that stays."""
    from skimage.filters import rank, threshold_otsu
    from skimage.morphology import closing, dilation, disk

    red, green, blue = np.moveaxis(picture, 2, 0)
    strong, weak = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    saturation = ((strong - weak).astype(np.uint16) * 255 // np.maximum(strong, 1)).astype(np.uint8)
    ink = _without_small(_is_ink(red, green, blue, saturation), MEDIAN)
    saturation[ink] = 0
    saturation = rank.median(saturation, np.ones((MEDIAN, MEDIAN), np.uint8))
    threshold = min(STAINED, max(GLASS, int(threshold_otsu(saturation))))
    found = saturation > threshold
    if ink.any():
        found &= ~dilation(ink, disk(RIM))
    found = closing(found, disk(2), mode="ignore")
    found = _without_small(found, smallest)
    return ~_without_small(~found, smallest)


def _is_ink(red: np.ndarray, green: np.ndarray, blue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """(h, w) bool, where the channels and the saturation of HSV, (h, w) uint8 each, are those of ink."""
    is_black = np.maximum(np.maximum(red, green), blue) < BLACK
    is_green = (saturation > STAINED) & (green > red) & (green >= blue)
    is_blue = (saturation > BLUE * 255) & (green > red) & (blue >= green)
    return is_black | is_green | is_blue


def _without_small(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Without the pieces that have fewer pixels. Pixels touch by their sides."""
    from skimage.measure import label

    pieces = label(mask, connectivity=1)
    kept = np.bincount(pieces.ravel()) >= smallest
    kept[0] = False
    return kept[pieces]
