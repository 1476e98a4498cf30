"""Tiles merged into regions: polygons with holes, whose corners are corners of tiles.

Tiles that share an edge, or overlap, are one region; tiles that touch at a corner alone are two. A tile's right and
lower edges are rounded up to whole pixels, so that tiles whose side is not whole (447.3 pixels), and whose places are
rounded, leave no gaps between neighbours. Where the side is whole, areas are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from d2l_study.slides.packages import shapely_package

Side = float | tuple[float, float]
"""The side of a tile in level-0 pixels; two numbers where (x, y) differ."""
_ROUNDING = 1e-6
"""A side that is whole but for this is whole."""


def both_sides(side: Side) -> np.ndarray:
    """(2,) float64: the side of a tile along x and y."""
    return np.broadcast_to(np.asarray(side, np.float64), (2,))


def merged_regions(xy: np.ndarray, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """The regions that tiles make up, and the region of each tile.

    xy: (n, 2) upper left corners in level-0 pixels; side: of a tile. Returns (R,) shapely polygons, the largest first,
    their outlines counter-clockwise and free of points that are no corners, and (n,) int64 positions among them.
    """
    shapely = shapely_package()
    if not len(xy):
        return np.empty(0, object), np.empty(0, np.int64)
    wide, high = np.ceil(both_sides(side) - _ROUNDING)
    xy = np.asarray(xy, np.float64)
    parts = shapely.get_parts(shapely.union_all(_row_boxes(shapely, xy, wide, high)))
    parts = np.array([_with_corners_only(shapely, part) for part in parts], object)
    parts = shapely.orient_polygons(parts)
    parts = parts[np.argsort(-shapely.area(parts), kind="stable")]
    centres = shapely.points(xy + np.array([wide, high]) / 2)
    of_tile = np.empty(len(xy), np.int64)
    # The tree prepares what it is asked for: a region of a thousand corners, once for all of its tiles.
    region, tile = shapely.STRtree(centres).query(parts, predicate="contains")
    of_tile[tile] = region
    return parts, of_tile


def _row_boxes(shapely: Any, xy: np.ndarray, wide: float, high: float) -> np.ndarray:
    """(m,) boxes that cover what the tiles cover. Neighbours in a row are one, so that a million tiles make few."""
    order = np.lexsort((xy[:, 0], xy[:, 1]))
    x, y = xy[order].T
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(y) != 0) | (np.diff(x) > wide)]))
    ends = np.append(begins[1:], len(x)) - 1
    return np.asarray(shapely.box(x[begins], y[begins], x[ends] + wide, y[begins] + high))


def _with_corners_only(shapely: Any, polygon: Any) -> Any:
    """The polygon without the points on its straight edges."""
    outline, *holes = (_corners(shapely.get_coordinates(ring)) for ring in (polygon.exterior, *polygon.interiors))
    return shapely.Polygon(outline, holes)


def _corners(ring: np.ndarray) -> np.ndarray:
    """(k, 2) of the points of a closed ring, those where its direction changes."""
    points = ring[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
