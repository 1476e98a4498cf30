"""Slides of which QuPath shows a part only, and counts from its corner: MIRAX and Leica, which leave out bare glass.

OpenSlide, and with it TRIDENT, CLAM and this package, counts from the corner of the whole glass. No file of annotations
says which of the two it was drawn by, so nothing is moved, and the user is told (QuPath's issues 820 and 1278).
"""

from __future__ import annotations

from collections.abc import Mapping

from d2l_study.errors import listed


def qupath_crop_note(corners: Mapping[str, tuple[int, int]]) -> str:
    """What to say of slides that are shown in part; "" if all are shown whole. corners: name of the slide -> where its
    scanned part begins in pixels of level 0, as of `Slide.scanned_from`."""
    parts = [f"{name} (from x {x:,}, y {y:,})" for name, (x, y) in corners.items() if (x, y) != (0, 0)]
    if not parts:
        return ""
    of_them, they = ("it", "its") if len(parts) == 1 else ("them", "their")
    return (
        f"QuPath shows only the scanned part of {listed(parts, 3)} and counts from its corner, we from that of the "
        f"whole glass: give QuPath the argument --no-crop where you add {of_them} to a project, or {they} places are "
        "shifted"
    )
