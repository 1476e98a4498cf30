"""Distill-to-Label studies: weak bag labels to instance labels, with statistics one can trust.

Rooms, each importing only those before it: `data` (bags), `models` (pure functions of parameters and
inputs), `learning` (teacher, regularizers, metrics), `inference`, `study` (Ray Tune, ledger, MLflow), `cli`.
Nothing heavy is imported here.

    model = d2l_study.load("models/colon-student")     # a folder that `d2l export` wrote
    model.predict_bags([patches_of_bag_1, patches_of_bag_2])
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d2l_study.inference.loaded_model import LoadedModel

__version__ = "2.0.0.dev0"

SCIENCE_VERSION = 3
"""The latest of `learning.science_version.CHANGES`. A configuration's own version, part of its identity, is that of
the last change that touched its results."""

__all__ = ["SCIENCE_VERSION", "__version__", "load"]


def load(
    model: str | os.PathLike[str],
    root: str | os.PathLike[str] = "runs",
    device: str = "cpu",
    replicate: int | None = None,
) -> LoadedModel:
    """A trained model, ready to score: `model.predict_bags(…)`, `model.predict_instances(…)` (`LoadedModel`).

    model: the folder of an exported model, or the id of a trial under `root`; replicate: of the trial, by default the
    one with the best validation bag AUC; device: `cpu`, or `cuda`. Neither Ray nor MLflow is needed. `UserError` (a
    `ValueError`) if there is no such model, or its files were altered after saving.
    """
    # By name: every room imports this file, and none of them depends on the rooms that read models.
    return importlib.import_module("d2l_study.loading").load_model(model, root, device, replicate)
