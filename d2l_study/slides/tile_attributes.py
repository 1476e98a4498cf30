"""What TRIDENT, CLAM and this package say of tiles in the attributes of an HDF5 file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def level0_side(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """The side of tiles in level-0 pixels, as (x, y), by the attributes of coordinates; NaN if they do not say.

    TRIDENT says it itself; of CLAM it is `patch_size` at a level of the pyramid with its downsample.
    """
    exact = np.ravel(attributes.get("patch_size_level0_xy", ()))
    if len(exact) == 2 and exact.dtype.kind in "iuf":
        return float(exact[0]), float(exact[1])
    side = number(attributes, "patch_size_level0")
    if not math.isnan(side):
        return side, side
    if "patch_level" in attributes:
        size, down = number(attributes, "patch_size"), np.ravel(attributes.get("downsample", np.nan))
        if down.dtype.kind in "iuf" and 1 <= len(down) <= 2:
            further = number(attributes, "custom_downsample")
            size *= 1 if math.isnan(further) else further
            return size * float(down[0]), size * float(down[-1])
    return math.nan, math.nan


def level0_size(attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) of a slide in level-0 pixels, by the attributes of coordinates; None if they do not say.

    TRIDENT says it itself; CLAM that of the level of its tiles, which may be level 0.
    """
    found = number(attributes, "level0_width"), number(attributes, "level0_height")
    size = np.ravel(attributes.get("level_dim", ()))
    if math.isnan(found[0]) and number(attributes, "patch_level") == 0 and len(size) == 2 and size.dtype.kind in "iuf":
        found = float(size[0]), float(size[1])
    # NaN is no larger than 0 either, and 0 is how files say that they do not know.
    return (int(found[0]), int(found[1])) if all(1 <= side < math.inf for side in found) else None


def number(attributes: Mapping[str, Any], name: str) -> float:
    """An attribute that is one number; NaN if it is not there, or something else."""
    value = np.ravel(attributes.get(name, np.nan))
    return float(value[0]) if value.size == 1 and value.dtype.kind in "iuf" else math.nan


def text(value: Any) -> str:
    """An attribute that is a text, which HDF5 may give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
