"""Score maps of some test images of a trial, made by the worker that trained and kept with the run.

The ledger holds maps, not pictures: `study.mlflow.map_pictures` reads the tissue from the data set when it draws them,
so that private images are nowhere but where the user has them, unless `log_images` allows the pictures into MLflow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from d2l_study.data import BagCollection, Replicate
from d2l_study.slides.image_files import read_image

if TYPE_CHECKING:
    from d2l_study.inference.model_file import StoredModel
    from d2l_study.inference.sliding_window import Grid
    from d2l_study.inference.tissue_image import TissueImage
    from d2l_study.learning.prediction import Compute
    from d2l_study.models import Params

IMAGES = 3
MOST_PLACES, MOST_PIXELS = 10_000, 25_000_000
"""Patches of a map, beyond which its stride grows; pixels of an image, beyond which it gets no map in a trial."""


def select_images(problem: Replicate) -> list[tuple[int, int]]:
    """The test images that get a map, as (bag, image): at most two of positive bags and one of a negative bag.

    Images whose known instances are the most mixed come first, then those that come first in the data set. So the
    results have no part in the choice.
    """
    pool = problem.pool
    if not isinstance(pool, BagCollection) or not pool.images or pool.tile_side is not None:
        return []  # of slides `label` makes the maps: patches are resampled, and there are too many for a trial
    _, height, width = pool.shape
    found: dict[int, list[tuple[int, int, int]]] = {0: [], 1: []}
    for bag in problem.test.number.tolist():
        part = slice(pool.bags.offsets[bag], pool.bags.offsets[bag + 1])
        images, counts = np.unique(pool.image[part], return_counts=True)
        image = int(images[np.argmax(counts)])
        mine = pool.image[part] == image
        if image < 0 or np.isnan(pool.xy[part][mine]).any() or not _has_map(pool.images[image], (height, width)):
            continue
        label = pool.bags.instance_label[part][mine]
        mixed = min(int((label == 0).sum()), int((label == 1).sum()))
        found[int(pool.bags.label[bag])].append((-mixed, int(bag), image))
    chosen = sorted(found[1])[: IMAGES - 1]
    chosen += sorted(found[0])[: IMAGES - len(chosen)]
    return [(bag, image) for _, bag, image in chosen]


def _has_map(path: Path, patch: tuple[int, int]) -> bool:
    """Whether an image is larger than a patch, and not too large for a trial."""
    from d2l_study.inference.tissue_image import image_size

    size = image_size(path, 3)
    return size is not None and patch[0] <= size[1] and patch[1] <= size[0] and size[0] * size[1] <= MOST_PIXELS


ImageScorer = Callable[["TissueImage", np.ndarray], "tuple[Grid, np.ndarray, np.ndarray]"]
"""(image, places in it, xy (k, 2)) -> the grid of its score map, the map's logits, and those of the places, (k,)."""


def sliding_window_scorer(stored: StoredModel, compute: Compute) -> ImageScorer:
    """Scores with an instance classifier that slides over the image."""
    from d2l_study.inference.sliding_window import Grid, default_stride, place_logits, score_map

    def score(tissue: TissueImage, xy: np.ndarray) -> tuple[Grid, np.ndarray, np.ndarray]:
        patch = stored.model.patch_shape[1:]
        stride = max(default_stride(patch), int(np.ceil((tissue.width * tissue.height / MOST_PLACES) ** 0.5)))
        grid = Grid.over(tissue.width, tissue.height, patch, min(stride, tissue.width, tissue.height))
        return grid, score_map(stored, tissue, grid, compute), place_logits(stored, tissue, xy, compute)

    return score


def class_map_scorer(params: Params, problem: Replicate, compute: Compute) -> ImageScorer:
    """Scores with a class map network, which sees the image as a whole."""
    from d2l_study.inference.sliding_window import Grid
    from d2l_study.learning.class_maps import PIXELS, image_scores

    def score(tissue: TissueImage, xy: np.ndarray) -> tuple[Grid, np.ndarray, np.ndarray]:
        logits, places = image_scores(params, tissue.rows(0, tissue.height), xy, problem, compute)
        first = (PIXELS - 1) / 2
        _, height, width = problem.pool.shape
        return Grid((height, width), PIXELS, first, first, *logits.shape), logits, places

    return score


def score_maps_file(problem: Replicate, score: ImageScorer) -> bytes | None:
    """The content of the file `SCORE_MAPS` of a run; None if its data set has no images to be shown."""
    from d2l_study.inference.tissue_image import TissueImage

    images = select_images(problem)
    if not images:
        return None
    pool, arrays, meta = problem.pool, {}, []
    assert isinstance(pool, BagCollection)
    for k, (bag, number) in enumerate(images):
        pixels = read_image(pool.images[number])
        tissue = TissueImage.of_array(str(pool.images[number]), pixels)
        xy, _ = pool.instances_in_image(number)
        grid, arrays[f"logits{k}"], arrays[f"places{k}"] = score(tissue, xy)
        meta.append({"bag": bag, "image": number, "grid": grid.to_dict()})
    out = io.BytesIO()
    np.savez_compressed(out, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]
    return out.getvalue()
