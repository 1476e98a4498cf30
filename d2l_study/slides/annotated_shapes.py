"""The shapes that an annotation file holds: regions and points, each of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError, counted
from d2l_study.slides.packages import shapely_package

BEYOND = 0.05
"""Share of a slide's side that a shape may reach beyond it: hands slip over the border."""


@dataclass
class AnnotatedShapes:
    """What a reader found in a file.

    regions: (class, shapely polygon or multipolygon, valid); points: (class, (k, 2) places in level-0 pixels); an empty
    class is none; left_out: how many shapes of a kind were not read, by what one is called.
    """

    path: Path
    regions: list[tuple[str, Any]] = field(default_factory=list)
    points: list[tuple[str, np.ndarray]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, what: str) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + 1

    def add_polygons(self, name: str, polygons: Sequence[Sequence[np.ndarray]]) -> None:
        """A region of a class. polygons: of each its rings, (m, 2) coordinates of an outline and of holes.

        Rings are closed, and what crosses itself is made valid: an outline bounds all that it goes around.
        """
        shapely = shapely_package()
        shapes = []
        for rings in polygons:
            outline, *holes = [_without_end(ring) for ring in rings] or [np.empty((0, 2))]
            if len(outline) > 2:
                shapes.append(shapely.Polygon(outline, [hole for hole in holes if len(hole) > 2]))
        shape = shapely.make_valid(shapely.MultiPolygon(shapes), method="structure", keep_collapsed=False)
        if shape.is_empty or shape.area == 0:
            self.leave_out("empty region")
        else:
            self.regions.append((name, shape))

    def add_points(self, name: str, points: np.ndarray) -> None:
        """points: (k, 2) places."""
        if len(points):
            self.points.append((name, points))

    def notes(self) -> tuple[str, ...]:
        """What was not read, in words."""
        return tuple(f"{counted(number, what)} not read" for what, number in self.left_out.items())

    def check_within(self, size: tuple[int, int]) -> None:
        """`UserError` if a shape lies outside of the slide. size: (width, height) in level-0 pixels."""
        shapely = shapely_package()
        full = np.array(size, np.float64)
        corners = [np.reshape(shapely.bounds(region), (2, 2)) for _, region in self.regions]
        for places in (*corners, *(points for _, points in self.points)):
            wrong = ((places < -BEYOND * full) | (places > (1 + BEYOND) * full)).any(axis=1)
            if wrong.any():
                x, y = places[wrong][0].tolist()
                raise UserError(
                    f"{self.path}: a shape reaches to x {x:,.0f}, y {y:,.0f}, but the slide has "
                    f"{size[0]:,}×{size[1]:,} pixels (drawn on another slide, or not in level-0 pixels?)"
                )


def _without_end(ring: np.ndarray) -> np.ndarray:
    """The points of a ring, without the last where it repeats the first."""
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
