"""Score maps of a trial's test images: made by the worker that trained, kept with the run, drawn for its MLflow page.

The ledger holds maps, not pictures: the tissue is read from the data set when a page is drawn, so that private images
are nowhere but where the user has them, unless `log_images` allows the pictures into MLflow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.data import DATASETS, BagCollection, Replicate
from d2l_study.data.folds import parts_of
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.learning.metrics import auc
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.keys import CLASS_MAPS

if TYPE_CHECKING:
    from d2l_study.inference.dense import Grid
    from d2l_study.inference.dense_label import Truth
    from d2l_study.inference.model_file import StoredModel
    from d2l_study.inference.tissue_image import TissueImage
    from d2l_study.learning.prediction import Compute
    from d2l_study.models import Params

MAPS = "maps.npz"
"""The file of a run: `logits0`, `places0`, `logits1`, … and `meta`, a JSON text."""

STAGES = ("teacher", "student", *CLASS_MAPS)
REPLICATE = 0
"""The one replicate whose maps are kept: the same test images for all arms, and a few pictures per trial."""
IMAGES = 3
MOST_PLACES, MOST_PIXELS = 10_000, 25_000_000
"""Patches of a map, beyond which its stride grows; pixels of an image, beyond which it gets no map in a trial."""
PRIVATE = ("manifest",)
"""Data sets whose images go into MLflow only where the space says `log_images: true`."""
WORDS = {
    "colon": ("epithelial", "other nuclei"),
    "colon_synthetic": ("epithelial", "other nuclei"),
    "breast": ("nuclei of a malignant image", "nuclei of a benign image"),
}


def images_allowed(space: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether pictures of instances and images may go into MLflow. space: as in `resolved.json`; data: the section."""
    allowed = space.get("log_images")
    return data.get("dataset") not in PRIVATE if allowed is None else bool(allowed)


# ---- made by the worker
def shown_images(problem: Replicate) -> list[tuple[int, int]]:
    """(bag, image) of the test images that are shown: at most two of positive bags and one of a negative one, those
    whose known instances are the most mixed first, then in the order of the data set. No result chooses them."""
    pool = problem.pool
    if not isinstance(pool, BagCollection) or not pool.images:
        return []
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


Scores = Callable[["TissueImage", np.ndarray], "tuple[Grid, np.ndarray, np.ndarray]"]
"""(image, xy (k, 2) places in it) -> the grid of its map, the map's logits, and those of the places, (k,)."""


def slid(stored: StoredModel, compute: Compute) -> Scores:
    """The scores of an instance classifier slid over the image."""
    from d2l_study.inference.dense import Grid, default_stride, place_logits, score_map

    def scores(tissue: TissueImage, xy: np.ndarray) -> tuple[Grid, np.ndarray, np.ndarray]:
        patch = stored.model.patch_shape[1:]
        stride = max(default_stride(patch), int(np.ceil((tissue.width * tissue.height / MOST_PLACES) ** 0.5)))
        grid = Grid.over(tissue.width, tissue.height, patch, min(stride, tissue.width, tissue.height))
        return grid, score_map(stored, tissue, grid, compute), place_logits(stored, tissue, xy, compute)

    return scores


def class_mapped(params: Params, problem: Replicate, compute: Compute) -> Scores:
    """The scores of a class map network, which sees the image whole."""
    from d2l_study.inference.dense import Grid
    from d2l_study.learning.class_maps import PIXELS, image_scores

    def scores(tissue: TissueImage, xy: np.ndarray) -> tuple[Grid, np.ndarray, np.ndarray]:
        logits, places = image_scores(params, tissue.rows(0, tissue.height), xy, problem, compute)
        first = (PIXELS - 1) / 2
        _, height, width = problem.pool.shape
        return Grid((height, width), PIXELS, first, first, *logits.shape), logits, places

    return scores


def run_maps(problem: Replicate, scores: Scores) -> bytes | None:
    """The file `MAPS` of a run; None if its data set has no images to be shown."""
    from d2l_study.inference.tissue_image import TissueImage

    images = shown_images(problem)
    if not images:
        return None
    pool, arrays, meta = problem.pool, {}, []
    assert isinstance(pool, BagCollection)
    for k, (bag, number) in enumerate(images):
        pixels = _read(pool.images[number])
        tissue = TissueImage.of_array(str(pool.images[number]), pixels)
        xy, _ = _instances(pool, number)
        grid, arrays[f"logits{k}"], arrays[f"places{k}"] = scores(tissue, xy)
        meta.append({"bag": bag, "image": number, "grid": grid.to_dict()})
    out = io.BytesIO()
    np.savez_compressed(out, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _read(path: Path) -> np.ndarray:
    """As the loader reads it."""
    from d2l_study.data.image_files import read_image

    return read_image(path)


def _instances(pool: BagCollection, image: int) -> tuple[np.ndarray, np.ndarray]:
    """xy (k, 2) and label (k,) of the instances in an image."""
    mine = pool.image == image
    return pool.xy[mine], pool.bags.instance_label[mine]


# ---- drawn for the page
def map_pictures(
    folder: StudyFolder, config_id: str, teacher: str | None, replicate: int
) -> dict[str, Callable[[], bytes]]:
    """name of the artifact -> a function that draws it, for the maps that a run holds; a student's stand beside those
    of `teacher`, the first it learned from, where they are kept."""
    found = _maps(folder.ledger, config_id, replicate)
    count = 0 if found is None else len(found[0])
    return {f"overlays/{k + 1}.png": partial(_picture, folder, config_id, teacher, replicate, k) for k in range(count)}


def _picture(folder: StudyFolder, config_id: str, teacher: str | None, replicate: int, k: int) -> bytes:
    from d2l_study.inference.dense import Grid
    from d2l_study.inference.overlay import Panel, Places, overlay_picture

    content = folder.ledger.read_config(config_id)
    data = content["sections"]["data"]
    pool = DATASETS[data["dataset"]](**data).load_pool()
    own = _maps(folder.ledger, config_id, replicate)
    beside = _maps(folder.ledger, teacher, replicate) if teacher is not None else None
    assert own is not None
    maps = ({"teacher": beside} if beside is not None else {}) | {str(content["stage"]): own}
    thresholds = {name: _threshold(folder.ledger, teacher if name == "teacher" and teacher else config_id, replicate)
                  for name in maps}  # fmt: skip
    about = own[0][k]
    path = pool.images[about["image"]]
    xy, label = _instances(pool, about["image"])
    known = label >= 0
    panels = {}
    for name, (metas, arrays) in maps.items():
        area = auc(label[known], arrays[f"places{k}"][known])
        note = "" if np.isnan(area) else f"AUC of the {int(known.sum())} marked: {area:.3f}"
        panels[name] = Panel(arrays[f"logits{k}"], Grid.from_dict(metas[k]["grid"]), note, thresholds[name])
    bag = about["bag"]
    sort = "positive" if pool.bags.label[bag] == 1 else "negative"
    positive, negative = WORDS.get(data["dataset"], ("positive", "negative"))
    pixels = _read(path)
    return overlay_picture(
        pixels, (pixels.shape[1], pixels.shape[0]), panels, places=Places(xy[known], label[known]), positive=positive,
        negative=negative,
        title=f"test image of bag {pool.names[bag]} ({sort}), replicate {replicate}, trial {trial_id(config_id)}",
    )  # fmt: skip


def _maps(ledger: Ledger, config_id: str, replicate: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]] | None:
    """What a run holds: of each image its bag, number and grid, and the arrays by name; None if it holds no maps."""
    record = ledger.read(config_id, replicate)
    if record is None or MAPS not in record["files"]:
        return None
    try:
        with np.load(io.BytesIO(ledger.read_file(config_id, replicate, MAPS))) as arrays:
            return json.loads(str(arrays["meta"])), {key: arrays[key] for key in arrays if key != "meta"}
    except FileNotFoundError:  # dropped
        return None


def _threshold(ledger: Ledger, config_id: str, replicate: int) -> float | None:
    record = ledger.read(config_id, replicate)
    value = record["row"].get("instance_threshold") if record is not None else None
    return None if value is None or np.isnan(value) else float(value)


# ---- for `label`
@dataclass(frozen=True)
class KnownImages:
    """What the data set of a stored model knows of images: the truth, and which part of that model's data each was;
    reason: why nothing is known, if so."""

    pool: BagCollection | None
    dataset: str
    part_of: Mapping[int, str]
    reason: str = ""

    @classmethod
    def of_model(cls, ledger: Ledger, config_id: str, replicate: int, root: str | None) -> KnownImages:
        """root: the folder of the data set, None takes the one that the model was trained with, else `D2L_DATA`."""
        content = ledger.read_config(config_id)
        data = dict(content["sections"]["data"])
        name = data["dataset"]
        if "root" in data and root is not None:
            data["root"] = root
        if root is not None and not user_path(root, "--data").is_dir():
            raise UserError(f"--data: {root!r} is not a folder")
        try:
            pool = DATASETS[name](**data).load_pool()
        except UserError as error:
            if root is not None:
                raise UserError(f"--data: {error}") from None
            return cls(None, name, {}, str(error))
        if not isinstance(pool, BagCollection):
            return cls(None, name, {}, f"data set {name} has no images")
        parts: dict[int, str] = {}
        if pool.checksum == content["data_checksum"]:
            found = parts_of(pool, replicate, content["base_seed"], data.get("folds", 3))[:3]
            for word, bags in zip(("training", "validation", "test"), found, strict=True):
                parts |= dict.fromkeys((int(b) for b in bags), word)
        return cls(pool, name, parts)

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        """Of each image of the data set; the first, where a file is there twice."""
        images = self.pool.images if self.pool is not None else ()
        return {image.resolve(): i for i, image in reversed(list(enumerate(images)))}

    def __call__(self, path: Path) -> Truth | None:
        from d2l_study.inference.dense_label import Truth
        from d2l_study.inference.overlay import Places

        if self.pool is None:
            return None
        number = self._numbers.get(path.resolve())
        if number is None:
            return None
        xy, label = _instances(self.pool, number)
        known = label >= 0
        bags = np.unique(self.pool.bags.bag_of[self.pool.image == number])
        words = {self.part_of.get(int(b)) for b in bags} - {None}
        note = f"a {words.pop()} image of this model" if len(words) == 1 else ""
        return Truth(Places(xy[known], label[known]), *WORDS.get(self.dataset, ("positive", "negative")), note)
