"""An annotation of regions and points: how much of a tile is positive, and of how much nothing is known.

Areas are exact, of polygons cut by tiles. Where regions of different meaning overlap, the smaller one counts: it was
drawn to say what the larger one does not, like a vessel within a tumour, or a tumour within a slide's tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.slides.annotated_shapes import AnnotatedShapes
from d2l_study.slides.annotation_classes import NEGATIVE, POSITIVE, UNKNOWN, AnnotationClasses
from d2l_study.slides.packages import shapely_package
from d2l_study.slides.regions import Side, both_sides

BLOCK = 2**16
"""Tiles that are looked up at a time."""
MOST_CORNERS = 256
"""Of a polygon that tiles are cut out of."""


@dataclass(frozen=True)
class RegionAnnotation:
    """What a file of shapes says of a slide.

    positive, negative, unknown: shapely polygons, (R,) object each, which do not overlap; points: (k, 2) places in
    level-0 pixels; point_label: (k,) int8 1, 0 or −1 unknown; rest_known: whether what lies in no region is negative,
    rather than unknown; notes: what was not read, in words; taken: the class that was taken for positive as the only
    one, none where classes were named.
    """

    path: Path
    positive: np.ndarray
    negative: np.ndarray
    unknown: np.ndarray
    points: np.ndarray
    point_label: np.ndarray
    rest_known: bool
    notes: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()

    @classmethod
    def of_shapes(
        cls, shapes: AnnotatedShapes, classes: AnnotationClasses, size: tuple[int, int] | None
    ) -> RegionAnnotation:
        """size: (width, height) of the slide, None where it is not known. `UserError` for shapes outside of it, or
        without a positive class."""
        if size is not None:
            shapes.check_within(size)
        names = [name for name, _ in (*shapes.regions, *shapes.points)]
        kinds = classes.kinds(shapes.path, names)
        for name, _ in (*shapes.regions, *shapes.points):
            if kinds[name] is None:
                shapes.leave_out(f"'{name}' shape" if name else "unclassified shape")
        regions = [(kinds[name], region) for name, region in shapes.regions if kinds[name] is not None]
        found = _without_overlaps(regions)
        points = [(kinds[name], places) for name, places in shapes.points if kinds[name] is not None]
        return cls(
            shapes.path, found[POSITIVE], found[NEGATIVE], found[UNKNOWN],
            np.concatenate([np.empty((0, 2)), *(places for _, places in points)]),
            np.concatenate([np.empty(0, np.int8), *(np.full(len(p), kind, np.int8) for kind, p in points)]),
            bool(regions or not points) and not classes.negative, shapes.notes(),
            classes.taken(shapes.path, names),
        )  # fmt: skip

    def coverage(self, xy: np.ndarray, side: Side) -> np.ndarray:
        """(n,) float64: the share of each tile that is positive. xy: (n, 2) upper left corners in level-0 pixels; side:
        of a tile."""
        return self._positive.shares(xy, both_sides(side))

    def unknown_share(self, xy: np.ndarray, side: Side) -> np.ndarray:
        """(n,) float64: the share of each tile of which nothing is known."""
        sides = both_sides(side)
        if self.rest_known:
            return self._unknown.shares(xy, sides)
        return np.clip(1 - self._positive.shares(xy, sides) - self._negative.shares(xy, sides), 0, 1)

    def labelled_points(self, xy: np.ndarray, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Two (n,) bool: whether a tile holds a positive point, and whether a negative one. A point on an edge between
        tiles is in the one to the right of it, or below."""
        found = {POSITIVE: np.zeros(len(xy), bool), NEGATIVE: np.zeros(len(xy), bool)}
        if len(self.points):
            shapely = shapely_package()
            tree = shapely.STRtree(shapely.points(self.points))
            sides = both_sides(side)
            for rows in _blocks(len(xy)):
                begin = np.asarray(xy[rows], np.float64)
                tile, point = tree.query(shapely.box(*begin.T, *(begin + sides).T))
                inside = (self.points[point] < begin[tile] + sides).all(axis=1)
                tile, label = tile[inside], self.point_label[point[inside]]
                for kind, holds in found.items():
                    holds[rows.start + tile[label == kind]] = True
        return found[POSITIVE], found[NEGATIVE]

    def meets(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        """Whether a shape, whatever it means, is at least in part within a rectangle of level-0 pixels."""
        shapely = shapely_package()
        regions = np.concatenate([self.positive, self.negative, self.unknown])
        inside = (self.points >= (x0, y0)).all(axis=1) & (self.points <= (x1, y1)).all(axis=1)
        return bool(shapely.intersects(regions, shapely.box(x0, y0, x1, y1)).any() or inside.any())

    @cached_property
    def _positive(self) -> _Areas:
        return _Areas(self.positive)

    @cached_property
    def _negative(self) -> _Areas:
        return _Areas(self.negative)

    @cached_property
    def _unknown(self) -> _Areas:
        return _Areas(self.unknown)


class _Areas:
    """Polygons that do not overlap, and how much of a tile they cover."""

    def __init__(self, polygons: np.ndarray) -> None:
        self.shapely = shapely_package()
        self.pieces = _pieces(self.shapely, polygons)
        self.shapely.prepare(self.pieces)

    def shares(self, xy: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """(n,) float64 in [0, 1]."""
        out = np.zeros(len(xy))
        if not len(self.pieces):
            return out
        for rows in _blocks(len(xy)):
            begin = np.asarray(xy[rows], np.float64)
            boxes = self.shapely.box(*begin.T, *(begin + sides).T)
            piece, tile = self.shapely.STRtree(boxes).query(self.pieces, predicate="intersects")
            # Most tiles of a region lie within it, which a prepared polygon tells much faster than it is cut.
            edge = ~self.shapely.covers(self.pieces[piece], boxes[tile])
            area = np.full(len(tile), sides.prod())
            area[edge] = self.shapely.area(self.shapely.intersection(boxes[tile[edge]], self.pieces[piece[edge]]))
            out[rows] = np.bincount(tile, weights=area, minlength=len(boxes)) / sides.prod()
        return np.minimum(out, 1)


def _pieces(shapely: Any, polygons: np.ndarray) -> np.ndarray:
    """The polygons, those of many corners cut in halves until they have few: to cut a tile out of a polygon takes time
    for every corner that it has, wherever they are."""
    done: list[np.ndarray] = []
    while len(polygons):
        small = shapely.get_num_coordinates(polygons) <= MOST_CORNERS
        done.append(polygons[small])
        large = polygons[~small]
        x0, y0, x1, y1 = shapely.bounds(large).T
        wide = x1 - x0 > y1 - y0
        x, y = np.where(wide, (x0 + x1) / 2, x1), np.where(wide, y1, (y0 + y1) / 2)
        first = shapely.intersection(large, shapely.box(x0, y0, x, y))
        second = shapely.intersection(large, shapely.box(np.where(wide, x, x0), np.where(wide, y0, y), x1, y1))
        polygons = _polygons(shapely, np.concatenate([first, second]))
    return np.concatenate([np.empty(0, object), *done])


def _polygons(shapely: Any, shapes: np.ndarray) -> np.ndarray:
    """The polygons that shapes consist of, without what has no area."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return np.asarray(parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)])


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(count, first + BLOCK)) for first in range(0, count, BLOCK)]


def _without_overlaps(regions: Sequence[tuple[int | None, Any]]) -> dict[int, np.ndarray]:
    """The polygons of each kind, where of overlapping regions of different kinds the smaller one counts."""
    shapely = shapely_package()
    shapes = np.array([shape for _, shape in regions], object)
    kinds = np.array([kind for kind, _ in regions], np.int64)
    rank = np.empty(len(shapes), np.int64)
    rank[np.argsort(shapely.area(shapes), kind="stable")] = np.arange(len(shapes))
    larger, smaller = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    cut = (kinds[larger] != kinds[smaller]) & (rank[larger] > rank[smaller])
    left = shapes.copy()
    for one in np.unique(larger[cut]):
        left[one] = shapely.difference(shapes[one], shapely.union_all(shapes[smaller[cut & (larger == one)]]))
    found = {}
    for kind in (POSITIVE, NEGATIVE, UNKNOWN):
        found[kind] = _polygons(shapely, np.array([shapely.union_all(left[kinds == kind])]))
    return found
