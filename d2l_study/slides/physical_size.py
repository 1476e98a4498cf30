"""µm per pixel (mpp), as files say it: told apart from what stands there by default or by mistake."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

FINEST, COARSEST = 0.005, 1000.0
"""µm per pixel that are believed where a file means them: from finer than any light microscope to a map of slides."""

COARSEST_TAG = 15.0
"""µm per pixel that are believed of TIFF's resolution tags. Programs write 72, 96, 150, 300, 600 or 1200 dots an inch
(353 to 21 µm) where they know nothing; a slide is never scanned that coarsely."""

_TO_MICRONS = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "km": 1e9, "in": 25_400.0, "inch": 25_400.0, "ft": 304_800.0,
    "thou": 25.4, "li": 25_400.0 / 12, "pt": 25_400.0 / 72,
}  # fmt: skip
"""OME's and ImageJ's units of length. OME's `pixel` and `reference frame` have no size."""

_INCH, _CENTIMETRE = 2, 3
_RESOLUTION_X, _RESOLUTION_Y, _RESOLUTION_UNIT = 282, 283, 296


def believed(x: object, y: object, coarsest: float = COARSEST) -> tuple[float, float] | None:
    """(x, y) µm per pixel, or None if one of them is missing, no number, zero, negative, or out of all proportion."""
    found = []
    for value in (x, y):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        if not (math.isfinite(number) and FINEST <= number <= coarsest):
            return None
        found.append(number)
    return found[0], found[1]


def doubt(x: object, y: object) -> str:
    """What a file says instead, for a message; empty if it says nothing."""
    if x is None and y is None:
        return ""
    shown = [f"{value:.6g}" if isinstance(value, float) else str(value)[:40] for value in (x, y)]
    return shown[0] if shown[0] == shown[1] else " × ".join(shown)


def tag_mpp(tags: Any) -> tuple[float | None, float | None]:
    """(x, y) µm per pixel by the tags XResolution, YResolution and ResolutionUnit of a tifffile page; None each where
    they say nothing."""
    unit = getattr(tags.get(_RESOLUTION_UNIT), "value", _INCH)
    microns = {_INCH: 25_400.0, _CENTIMETRE: 1e4}.get(int(unit)) if isinstance(unit, int) else None
    found = [_pixel_size(getattr(tags.get(tag), "value", None), microns) for tag in (_RESOLUTION_X, _RESOLUTION_Y)]
    return found[0], found[1]


def _pixel_size(resolution: Any, microns: float | None) -> float | None:
    """µm of a pixel from a rational number (numerator, denominator) of pixels per unit."""
    if microns is None or not isinstance(resolution, tuple) or len(resolution) != 2:
        return None
    pixels, units = resolution
    return math.inf if not pixels else microns * units / pixels


def imagej_mpp(tags: Any, unit: object) -> tuple[float | None, float | None]:
    """The same as ImageJ writes it: pixels per its own unit, which the description names."""
    microns = _TO_MICRONS.get(str(unit).lower())
    found = [_pixel_size(getattr(tags.get(tag), "value", None), microns) for tag in (_RESOLUTION_X, _RESOLUTION_Y)]
    return found[0], found[1]


def description_mpp(description: str) -> str | None:
    """The value of `MPP = …` in a description of Aperio's manner, as text, which files keep that were converted."""
    found = re.search(r"(?:^|\|)\s*MPP\s*=\s*([^|\s]+)", description)
    return found.group(1) if found else None


def ome_mpp(xml: str, width: int, height: int) -> tuple[object, object]:
    """(x, y) µm per pixel by OME-XML, of its first image of that size in pixels; None each where it says nothing, and
    the text as it stands where its unit has no size."""
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return None, None
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Pixels" and (
            (element.get("SizeX"), element.get("SizeY")) == (str(width), str(height))
        ):
            return _ome_length(element, "X"), _ome_length(element, "Y")
    return None, None


def _ome_length(pixels: ElementTree.Element, axis: str) -> object:
    size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
    if size is None:
        return None
    microns = _TO_MICRONS.get(unit.lower())
    try:
        return float(size) * microns if microns else f"{size} {unit}"
    except ValueError:
        return size
