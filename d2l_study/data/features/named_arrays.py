"""What files whose arrays have names share: HDF5, `.npz`, and dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.damaged_files import reading_errors
from d2l_study.data.features.feature_file import FeatureFile, places_of, truth_of
from d2l_study.errors import UserError, listed, nearest

FEATURES = ("features", "feats")
PLACES = ("coords", "coordinates")
TRUTHS = ("patch_labels", "instance_labels", "instance_label", "inst_labels")
"""Names under which a label of each instance stands beside the vectors."""


@dataclass(frozen=True)
class NamedArraysFile(FeatureFile):
    """coords, labels: names of the arrays of places and of instance labels, empty where there is none."""

    coords: str = ""
    labels: str = ""

    def load(self, name: str) -> np.ndarray:
        """The whole array of that name."""
        raise NotImplementedError(f"{type(self).__name__}.load")

    def places(self) -> np.ndarray:
        if not self.coords:
            return super().places()
        with reading_errors(self.path):
            return places_of(self.path, self.coords, self.load(self.coords), self.count)

    def truth(self) -> np.ndarray:
        if not self.labels:
            return super().truth()
        with reading_errors(self.path):
            return truth_of(self.path, self.labels, self.load(self.labels), self.count)


def first_known(names: Collection[str], known: Sequence[str]) -> str:
    """The first of the `known` names that is among `names`; empty if none is."""
    return next((name for name in known if name in names), "")


def name_of_labels(path: Path, names: Collection[str], truth: str | None, kind: str) -> str:
    """The name of the array of instance labels, empty if there is none.

    truth: the one that the user names, if so; kind: what such a file calls an array. `UserError` if it is not there.
    """
    if truth and truth not in names:
        raise UserError(f"{path}: no {kind} {truth!r}{nearest(truth, names)} (data.truth; found: {listed(names)})")
    return first_known(names, TRUTHS) if truth is None else truth
