"""The test instances of runs with their stored scores, for metrics whose intervals are over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import RunKey, by_run
from analysis.statistics.weighted_metrics import ScoredInstances
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

NEEDS = {
    "instance_froc": "the places of tiles on a grid, which runs keep since version 0.2",
    "instance_dice_tuned": "a threshold",
    "instance_dice_within_tuned": "a threshold",
}
"""What the predictions of a run have to hold for a metric, beside labels and scores."""


@dataclass(frozen=True)
class RunInstances:
    """The test instances of one run, in the order of bag and instance, each (n,) but xy, (n, 2).

    bag, index: the bag's number in the data set, and the instance's in its pool; label: 0, 1 or −1, unknown; image, xy:
    None where the run did not keep them, or an instance has no place; threshold: NaN where there is none; group:
    that of the bag in the data set, None where the run did not keep it.
    """

    bag: np.ndarray
    index: np.ndarray
    label: np.ndarray
    score: np.ndarray
    image: np.ndarray | None
    xy: np.ndarray | None
    threshold: float
    group: np.ndarray | None = None

    def same_instances(self, other: RunInstances) -> bool:
        """Whether both are of the same instances with the same labels."""
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in ("bag", "index", "label"))

    @property
    def bags(self) -> np.ndarray:
        """The bags that hold an instance of known label, ascending."""
        return np.unique(self.bag[self.label >= 0])


def thresholds_of(rows: pandas.DataFrame) -> dict[RunKey, float]:
    """The threshold of each finished run that has one."""
    if "instance_threshold" not in rows:
        return {}
    found = by_run(rows, rows["instance_threshold"].astype(float).tolist())
    return {run: threshold for run, threshold in found.items() if not math.isnan(threshold)}


def read_instances(folder: StudyFolder, config: str, replicate: int, threshold: float, option: str) -> RunInstances:
    """Those of a finished run. threshold: `instance_threshold` of its row; option: how messages begin. `UserError` if
    it kept no predictions, or they do not say which image an instance is of."""
    frame = run_predictions(folder, config, replicate, split="test", level="instance")
    frame = frame.sort_values(["bag_index", "index"], kind="stable")
    run = f"run {config[:10]} r{replicate:03d}"
    if (frame["bag_index"] < 0).any():
        raise UserError(f"{option}: {run} does not say which image an instance is of (drawn bags have no images)")
    score = frame["logit"].to_numpy(float)
    if not np.isfinite(score).all():
        raise UserError(f"{run} holds predictions that are not finite")
    label = frame["label"].fillna(-1).to_numpy(int)
    image = xy = None
    if {"image", "x", "y"} <= {*frame.columns} and frame[["image", "x", "y"]].notna().all(axis=None):
        image, xy = frame["image"].to_numpy(int), frame[["x", "y"]].to_numpy(float)
    bag, index = frame["bag_index"].to_numpy(int), frame["index"].to_numpy(int)
    return RunInstances(bag, index, label, score, image, xy, threshold, groups_column(frame))


def groups_column(predictions: pandas.DataFrame) -> np.ndarray | None:
    """(n,) int64 the group of each bag, or of the bag of each instance, in the data set; None where the run did not
    keep it."""
    if "group" not in predictions or predictions["group"].isna().any():
        return None
    return predictions["group"].to_numpy(np.int64)


def scored_instances(runs: Sequence[RunInstances], bags: np.ndarray) -> ScoredInstances:
    """The instances of some runs as one, those of the bags alone. bags: (C,) ascending; they are the clusters."""
    kept = [np.isin(run.bag, bags) for run in runs]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(run, name)[own] for run, own in zip(runs, kept, strict=True)])

    placed = all(run.image is not None for run in runs)
    called = None
    if not any(math.isnan(run.threshold) for run in runs):
        called = np.concatenate([(run.score > run.threshold)[own] for run, own in zip(runs, kept, strict=True)])
    return ScoredInstances(
        np.searchsorted(bags, joined("bag")), joined("label"), joined("score"), called,
        joined("image") if placed else None, joined("xy") if placed else None,
    )  # fmt: skip
