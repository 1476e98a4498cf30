"""How well instance scores find what is positive in an image: figures by image, the Dice coefficient, and FROC.

A pooled AUC also rises where scores merely tell positive images from negative ones. The figures here are about places.

FROC is that of the CAMELYON16 challenge (Bejnordi et al., JAMA 2017; its evaluation code, as in MONAI): the mean
sensitivity to lesions at ¼, ½, 1, 2, 4 and 8 false positives an image. It needs maps of tiles:

- Tiles of an image touch if they are neighbours on its grid, sideways or across (8-neighbourhood). Few or scattered
  tiles do not tell the step of their grid; they have that of the images whose tiles do.
- A lesion is a connected piece of positive tiles.
- Detections are made by non-maximum suppression (Liu et al., arXiv:1703.02442): the tile of the highest score is one;
  it and the tiles that touch it are taken off the map, and so on until the map is empty. All thresholds share them.
- A detection in a lesion finds it; further ones in the same lesion count nothing. One on a negative tile is a false
  positive, in images without lesions and in others. One on a tile of unknown truth counts nothing.

Instances that lie on no grid, such as nuclei, have no FROC. Their places are given, so there is nothing to detect: it
would be their ROC curve over another axis, with every nucleus of a gland for a lesion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from d2l_study.learning import metrics

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""An image, at which the sensitivities of FROC are read."""
TOUCHING = 1.5
"""Steps of the grid between the middles of tiles, along the longer axis, up to which they touch: 1 and rounding."""
SAME_STEP = 0.05
"""Share of the step by which the distance of neighbours on a grid may differ from it."""
ON_GRID = 0.9
"""Share of the tiles that have a neighbour at one step, from which on their places are a grid: fragments of tissue may
have grids of their own, and some tiles stand alone. Of scattered places about a tenth have one."""
LEAST_TILES = 4
"""Places of an image from which on they can tell whether they are a grid."""

ImageMetric = Callable[[np.ndarray, np.ndarray], float]
"""(truth, score) of the instances of one image -> its value, NaN where it has none."""


def by_image(metric: ImageMetric, truth: np.ndarray, score: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(images,) the metric of each image by itself, in ascending order of `image`.

    truth: (n,) of 0 and 1, unknown ones left out before; score: (n,); image: (n,) the number of each one's image.
    """
    if not len(image):
        return np.empty(0)
    order = np.argsort(image, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(image[order])) + 1)
    return np.array([metric(truth[part], score[part]) for part in parts])


def mean_by_image(metric: ImageMetric, truth: np.ndarray, score: np.ndarray, image: np.ndarray) -> float:
    """The mean of `by_image` over the images that have a value; NaN if none has."""
    values = by_image(metric, truth, score, image)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def image_average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """The average precision of an image that holds both classes; NaN of others, as for the AUC. Where all are positive
    it would be 1 whatever the scores."""
    return metrics.average_precision(truth, score) if len(np.unique(truth)) == 2 else math.nan


def dice(truth: np.ndarray, called: np.ndarray) -> float:
    """The Dice coefficient 2 TP / (2 TP + FP + FN), which is F1; NaN if nothing is positive and nothing is called so.

    truth: (n,) of 0 and 1; called: (n,) bool, what is predicted positive.
    """
    positive = np.asarray(truth) == 1
    total = int(positive.sum()) + int(np.sum(called))
    return 2 * int(np.sum(positive & called)) / total if total else math.nan


def image_dice(truth: np.ndarray, called: np.ndarray) -> float:
    """`dice` of an image that holds a positive; NaN of one without, as of MONAI's `DiceMetric` (`ignore_empty`).

    Where nothing is positive the coefficient is 0 from the first false positive on and undefined without one, so a mean
    over such images would jump with single instances. The pooled coefficient and FROC count their false positives.
    """
    return dice(truth, called) if np.any(np.asarray(truth) == 1) else math.nan


@dataclass(frozen=True)
class TileMaps:
    """Images that are cut into grids of tiles.

    image: (n,) int64 the image of each tile, 0 … images − 1; pairs: (p, 2) int64 the tiles that touch, each pair once.
    """

    image: np.ndarray
    images: int
    pairs: np.ndarray


def tile_maps(image: np.ndarray, xy: np.ndarray) -> TileMaps | None:
    """The maps of tiles, found from their places; None if these are not those of grids, or some have no place.

    image: (n,) the number of the image that each stands in; xy: (n, 2) the same point of each tile, such as its
    middle, in any unit; the steps of the grids may differ from image to image.

    The step of an image is the median distance of its tiles to their nearest ones, if that makes it a grid
    (`_on_grid`). Of a few tiles, or scattered ones, it would be the distance of tiles that stand alone; their step is,
    of those of the other images, the one nearest to the smallest distance between two of them.
    """
    from scipy.spatial import cKDTree

    if not len(xy) or not np.isfinite(xy).all():
        return None
    names, number = np.unique(image, return_inverse=True)
    order = np.argsort(number, kind="stable")
    parts = [p for p in np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(p) > 1]
    trees = [cKDTree(xy[part]) for part in parts]
    distances = [tree.query(tree.data, k=2, p=math.inf)[0][:, 1] for tree in trees]  # to the nearest other tile
    asked = [nearest for nearest in distances if len(nearest) >= LEAST_TILES]
    if not asked or sum(map(_on_grid, asked)) < ON_GRID * sum(map(len, asked)):
        return None
    # At least one image is as regular as all of them together.
    steps = np.array([np.median(nearest) for nearest in asked if _on_grid(nearest) >= ON_GRID * len(nearest)])
    pairs = [np.empty((0, 2), np.int64)]
    for part, tree, nearest in zip(parts, trees, distances, strict=True):
        step = np.median(nearest)
        if len(part) < LEAST_TILES or _on_grid(nearest) < ON_GRID * len(part):
            smallest = nearest[nearest > 0].min(initial=math.inf)
            step = steps[np.argmin(np.abs(steps - smallest))]
        pairs.append(part[tree.query_pairs(TOUCHING * step, p=math.inf, output_type="ndarray")])
    return TileMaps(number.astype(np.int64), len(names), np.concatenate(pairs).astype(np.int64))


def _on_grid(nearest: np.ndarray) -> int:
    """How many tiles of an image have a neighbour at one step, which is the median of their distances to the nearest
    ones, (n,)."""
    step = np.median(nearest)
    return int(np.sum(np.abs(nearest - step) <= SAME_STEP * step)) if step > 0 else 0


def lesions(maps: TileMaps, truth: np.ndarray) -> np.ndarray:
    """(n,) int64 the lesion that each positive tile is part of, 0, 1, …; −1 for all other tiles."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    positive = np.flatnonzero(truth == 1)
    found = np.full(len(truth), -1, np.int64)
    if not len(positive):
        return found
    place = np.full(len(truth), -1, np.int64)
    place[positive] = np.arange(len(positive))
    within = place[maps.pairs]
    within = within[(within >= 0).all(axis=1)]
    graph = coo_array((np.ones(len(within), bool), within.T), shape=(len(positive), len(positive)))
    found[positive] = connected_components(graph, directed=False)[1]
    return found


def suppressed_maxima(maps: TileMaps, score: np.ndarray) -> np.ndarray:
    """(d,) int64 the tiles that non-maximum suppression leaves, from the highest score down; of equal scores that of
    the first tile goes first."""
    ends = np.concatenate([maps.pairs, maps.pairs[:, ::-1]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    first = np.searchsorted(ends[:, 0], np.arange(len(score) + 1))
    touching = ends[:, 1]
    free = np.ones(len(score), bool)
    kept = []
    for tile in np.argsort(-score, kind="stable").tolist():
        if free[tile]:
            kept.append(tile)
            free[touching[first[tile] : first[tile + 1]]] = False
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class Detections:
    """What counts for FROC, from the highest score down; d detections, M images.

    score, image: (d,); hit: (d,) bool, the first in its lesion, else a false positive; lesions: (M,) how many there
    are in each image; evaluated: (M,) bool, whether the truth of any of its tiles is known.
    """

    score: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    lesions: np.ndarray
    evaluated: np.ndarray

    @cached_property
    def last(self) -> np.ndarray:
        """The last detection of each distinct score."""
        return np.flatnonzero(np.append(np.diff(self.score) != 0, True)) if len(self.score) else np.empty(0, np.int64)


def find_detections(maps: TileMaps, truth: np.ndarray, score: np.ndarray) -> Detections:
    """The detections in maps of scores. truth: (n,) of 0, 1 and −1, unknown; score: (n,), finite."""
    lesion = lesions(maps, truth)
    found = suppressed_maxima(maps, np.asarray(score, np.float64))
    found = found[(truth[found] == 0) | (truth[found] == 1)]
    hit = truth[found] == 1
    _, first = np.unique(lesion[found][hit], return_index=True)  # the highest of each lesion, since they are sorted
    counted = ~hit
    counted[np.flatnonzero(hit)[first]] = True
    found, hit = found[counted], hit[counted]
    _, one = np.unique(lesion[lesion >= 0], return_index=True)
    of_lesion = maps.image[lesion >= 0][one]
    known = np.bincount(maps.image[(truth == 0) | (truth == 1)], minlength=maps.images) > 0
    return Detections(
        np.asarray(score, np.float64)[found], maps.image[found], hit,
        np.bincount(of_lesion, minlength=maps.images), known,
    )  # fmt: skip


def froc_curve(found: Detections, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """False positives an image and sensitivity to lesions, both ascending from 0, a point for each distinct score.

    weight: (M,) how often each image counts, by default once. Both are empty if no lesion or no image counts.
    """
    weight = np.ones(len(found.evaluated)) if weight is None else weight
    images, targets = float(weight @ found.evaluated), float(weight @ found.lesions)
    if images == 0 or targets == 0:
        return np.empty(0), np.empty(0)
    own = weight[found.image]
    false, true = np.zeros(len(found.last) + 1), np.zeros(len(found.last) + 1)
    np.divide((own * ~found.hit).cumsum()[found.last], images, out=false[1:])
    np.divide((own * found.hit).cumsum()[found.last], targets, out=true[1:])
    return false, true


def froc(found: Detections, weight: np.ndarray | None = None) -> float:
    """The mean sensitivity at `FALSE_POSITIVES` an image, between 0 and 1; NaN without lesions. weight: of images.

    Between two points the curve is a straight line, and beyond its end it stays: where there are fewer false positives
    than asked for, all that is ever found counts.
    """
    false, sensitivity = froc_curve(found, weight)
    # Of points with equally many false positives np.interp takes the last, which is the highest.
    return float(np.interp(FALSE_POSITIVES, false, sensitivity).mean()) if len(false) else math.nan
