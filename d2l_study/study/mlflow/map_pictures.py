"""Pictures of the score maps that a run holds, drawn over the tissue for its MLflow page and for reports."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from d2l_study.data import DATASETS, holds_vectors, instance_classes
from d2l_study.learning.metrics import auc
from d2l_study.slides.image_files import read_image
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.run_files import SCORE_MAPS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.data_location import located_content

PRIVATE = ("manifest",)
"""Data sets whose images go into MLflow only where the space says `log_images: true`."""


def images_allowed(space: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether pictures of instances and images may go into MLflow. space: as in `resolved.json`; data: the section
    `data`."""
    if holds_vectors(data.get("dataset")):
        return False
    allowed = space.get("log_images")
    return data.get("dataset") not in PRIVATE if allowed is None else bool(allowed)


def content_here(folder: StudyFolder, config_id: str) -> dict[str, Any]:
    """What an id stands for, with the data where the study has them now."""
    space = folder.resolved_or_empty().get("space") or {}
    return located_content(folder.ledger.read_config(config_id), config_id, space, folder.plan_or_empty())


def map_pictures(
    folder: StudyFolder, config_id: str, teacher: str | None, replicate: int
) -> dict[str, Callable[[], bytes]]:
    """Name of the artifact -> a function that draws it as PNG, for each score map that a run holds.

    teacher: the config_id of a student's first teacher, whose maps are drawn beside those of the student if they are
    kept; None if there is none."""
    found = stored_maps(folder, config_id, replicate)
    count = 0 if found is None else len(found[0])
    return {f"overlays/{k + 1}.png": partial(_picture, folder, config_id, teacher, replicate, k) for k in range(count)}


def _picture(folder: StudyFolder, config_id: str, teacher: str | None, replicate: int, k: int) -> bytes:
    from d2l_study.inference.overlay import Panel, Places, overlay_picture
    from d2l_study.inference.sliding_window import Grid

    content = content_here(folder, config_id)
    data = content["sections"]["data"]
    pool = DATASETS[data["dataset"]](**data).load_pool()
    own = stored_maps(folder, config_id, replicate)
    beside = stored_maps(folder, teacher, replicate) if teacher is not None else None
    assert own is not None
    maps = ({"teacher": beside} if beside is not None else {}) | {str(content["stage"]): own}
    thresholds = {name: _threshold(folder, teacher if name == "teacher" and teacher else config_id, replicate)
                  for name in maps}  # fmt: skip
    about = own[0][k]
    path = pool.images[about["image"]]
    xy, label = pool.instances_in_image(about["image"])
    known = label >= 0
    panels = {}
    for name, (metas, arrays) in maps.items():
        area = auc(label[known], arrays[f"places{k}"][known])
        note = "" if np.isnan(area) else f"AUC of the {int(known.sum())} marked: {area:.3f}"
        panels[name] = Panel(arrays[f"logits{k}"], Grid.from_dict(metas[k]["grid"]), note, thresholds[name])
    bag = about["bag"]
    sort = "positive" if pool.bags.label[bag] == 1 else "negative"
    positive, negative = instance_classes(data)
    pixels = read_image(path)
    return overlay_picture(
        pixels, (pixels.shape[1], pixels.shape[0]), panels, places=Places(xy[known], label[known]), positive=positive,
        negative=negative,
        title=f"test image of bag {pool.names[bag]} ({sort}), replicate {replicate}, trial {trial_id(config_id)}",
        white_above=data.get("white_above"),
    )  # fmt: skip


def stored_maps(
    folder: StudyFolder, config_id: str, replicate: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]] | None:
    """The score maps of a run of a study: of each image its bag, number and grid, and the arrays by name; None if it
    holds none."""
    record = folder.ledger.read(config_id, replicate, folder.fresh_of)
    if record is None or SCORE_MAPS not in record["files"]:
        return None
    try:
        with np.load(io.BytesIO(folder.read_file(config_id, replicate, SCORE_MAPS))) as arrays:
            return json.loads(str(arrays["meta"])), {key: arrays[key] for key in arrays if key != "meta"}
    except FileNotFoundError:  # dropped
        return None


def _threshold(folder: StudyFolder, config_id: str, replicate: int) -> float | None:
    record = folder.ledger.read(config_id, replicate, folder.fresh_of)
    value = record["row"].get("instance_threshold") if record is not None else None
    return None if value is None or np.isnan(value) else float(value)
