"""Logits averaged over neighbours in the image (`label --smooth`): those of vectors, of tiles, and of maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2l_study.data.features.opening import places
from d2l_study.data.neighbours import nearest_means
from d2l_study.errors import UserError
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.score_checkpoint import ScoreCheckpoint

_BAND = 1_000_000
"""Elements of a map that are smoothed at a time, beside those above and below that they need."""


def check_places_of_inputs(inputs: Sequence[FeatureInput]) -> None:
    """`UserError` for a feature file that does not say where its vectors are."""
    for file in (file for entry in inputs for file in entry.files):
        if not np.isfinite(places(file)).all():
            raise UserError(
                f"--smooth: {file.path}: does not say where its vectors are (coords), so they have no neighbours"
            )


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
