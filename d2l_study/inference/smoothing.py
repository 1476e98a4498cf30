"""Logits averaged over neighbours in the image (`label --smooth`, `predict --smooth`): of vectors, tiles, and maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2l_study.data.features.opening import places
from d2l_study.data.neighbours import nearest_means
from d2l_study.errors import UserError
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.patch_bags import ArrayPatches, ImagePatches, PatchBag
from d2l_study.inference.prediction_file import PredictedBag
from d2l_study.inference.score_checkpoint import ScoreCheckpoint


def smoothed_text(neighbours: int) -> str:
    """What a user should know who compares averaged logits with the model's threshold."""
    return f"logits are averaged over {neighbours} neighbours, while the threshold was set on logits that are not"


def about_smoothing(neighbours: int) -> dict[str, Any]:
    """What the metadata of scores say of it; nothing for 0 neighbours."""
    return {"smooth": neighbours, "smooth_meaning": smoothed_text(neighbours)} if neighbours else {}


_BAND = 1_000_000
"""Elements of a map that are smoothed at a time, beside those above and below that they need."""


def check_places_of_inputs(inputs: Sequence[FeatureInput]) -> None:
    """`UserError` for a feature file that does not say where its vectors are."""
    for file in (file for entry in inputs for file in entry.files):
        if not np.isfinite(places(file)).all():
            raise UserError(
                f"--smooth: {file.path}: does not say where its vectors are (coords), so they have no neighbours"
            )


def check_places_of_patches(bags: Sequence[PatchBag]) -> None:
    """`UserError` for patches that lie nowhere: those of an array, and images that are a patch each."""
    for file in (file for bag in bags for file in bag.files):
        if isinstance(file, ArrayPatches) or (isinstance(file, ImagePatches) and file.cut == "whole"):
            raise UserError(f"--smooth: {file.source}: holds patches without places, which have no neighbours")


def smoothed_bag(bag: PredictedBag, neighbours: int) -> PredictedBag:
    """The bag with each instance's logit averaged over its neighbours in its file; its own logit stays. `UserError` if
    one has no place."""
    if not np.isfinite(bag.xy).all():
        raise UserError(f"--smooth: bag {bag.name!r} holds instances without places, which have no neighbours")
    logits = np.array(bag.instance_logits)
    for source in np.unique(bag.source_of):
        own = np.flatnonzero(bag.source_of == source)
        logits[own] = nearest_means(bag.instance_logits[own], bag.xy[own], neighbours)
    return dataclasses.replace(bag, instance_logits=logits)


def smoothed_vectors(entry: FeatureInput, logits: np.ndarray, neighbours: int) -> np.ndarray:
    """(count,) the logits of an input's vectors, each averaged over its neighbours in its slide."""
    begins = np.concatenate([[0], np.cumsum([file.count for file in entry.files])])
    found = np.array(logits)
    for f, positions in entry.slide_positions():
        own = begins[f] + positions
        found[own] = nearest_means(logits[own], places(entry.files[f])[positions], neighbours)
    return found


def smoothed_map(logits: np.ndarray, neighbours: int) -> np.ndarray:
    """(rows, columns) a map, each element averaged over its neighbours on the grid. Beside a band of rows `neighbours`
    more are looked at: the nearest ones of an element are never further, since a column alone has as many."""
    rows, columns = logits.shape
    found = np.empty_like(logits, subok=False)
    height = max(1, _BAND // columns)
    for first in range(0, rows, height):
        last = min(rows, first + height)
        low, high = max(0, first - neighbours), min(rows, last + neighbours)
        xy = np.stack(np.divmod(np.arange((high - low) * columns), columns), axis=1)
        at = np.arange((first - low) * columns, (last - low) * columns)
        means = nearest_means(np.asarray(logits[low:high]).reshape(-1), xy, neighbours, at)
        found[first:last] = means.reshape(last - first, columns)
    return found


def smooth_checkpoint(kept: ScoreCheckpoint, neighbours: int) -> None:
    """Smooth a map that is scored, once: `pixels` says that it is. A process that is killed meanwhile scores anew."""
    if kept.pixels:
        return
    smoothed = smoothed_map(kept.logits, neighbours)
    kept.begin_again()
    kept.save()
    kept.logits[...] = smoothed
    kept.pixels = 1
    kept.reached(kept.logits.size)
