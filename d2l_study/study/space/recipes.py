"""Recipes: named sets of values that keys of `teacher` and `student` have where a space does not give them.

`defaults` is what `d2l keys` shows, the settings of version 1. `robust` lets nearly every run converge
at every number of bags, and no validation label chooses a snapshot. It has He's weights, classes by turns,
augmentation, warm-up and decay, averaged weights, four bags a step, and a length in epochs with a floor. Its frame
comes from `benchmarks/plain_loop.py`. Length, step size and weight decay on MNIST come from `recipe_tuning`, where
plain training and VAT had the same number of trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2l_study.study.space.keys import DEFAULT_DATASET, dataset_defaults

_SCHEDULE: dict[str, Any] = {"decay": "cosine", "weight_average": 0.99, "select": "last"}
_TEACHER: dict[str, Any] = {"batch_bags": 4, "bag_order": "alternating", "epochs": 24, "warmup_steps": 30, **_SCHEDULE}
_TUNED_ON_MNIST: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 1e-3, "min_steps": 1800}
_LENGTH = ("steps", "epochs", "min_steps")
_WITH_HE = ("lenet", "lenet_wide", "lenet_histology")

_AUGMENT = {
    "mnist": "affine", "colon": "histology", "colon_synthetic": "histology", "breast": "histology",
    "manifest": "dihedral",
}  # fmt: skip
"""Data set -> its augmentation; vectors of features have none, and images of a manifest may be grey."""


def recipe_text() -> str:
    """The values of the recipe `robust`, in words."""

    def listed(values: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )

    augmented: dict[str, list[str]] = {}
    for dataset, kind in _AUGMENT.items():
        augmented.setdefault(kind, []).append(dataset)
    kinds = ", ".join(f"{kind} for {' and '.join(names)}" for kind, names in augmented.items())
    return (
        f"recipe robust: teacher: initial_weights he (of LeNets), {listed(_TEACHER)}; on {DEFAULT_DATASET} also "
        f"{listed(_TUNED_ON_MNIST)}; student: {listed(_SCHEDULE)}; both: augment {kinds}. A key that the space "
        "gives has the space's value. Where it gives steps or epochs, epochs and min_steps are not the recipe's"
    )


def recipe_values(recipe: str, section: str, dataset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a recipe gives to keys of a section, at a point of a space.

    dataset: that of the point, None for MNIST; given: key -> value, of the keys of the section that the space gives.
    A recipe overrides none of them, and leaves out what they make void: its length where the space gives one, He's
    weights where the network is not a LeNet.
    """
    if recipe == "defaults" or section not in ("teacher", "student"):
        return {}
    dataset = dataset or DEFAULT_DATASET
    values = dict(_TEACHER if section == "teacher" else _SCHEDULE)
    if section == "teacher" and dataset == DEFAULT_DATASET:
        values |= _TUNED_ON_MNIST
    if {"steps", "epochs"} & given.keys():
        values = {key: value for key, value in values.items() if key not in _LENGTH}
    if section == "teacher":
        network = {"extractor": "lenet", **dataset_defaults(section, dataset), **given}["extractor"]
        values |= {"initial_weights": "he"} if network in _WITH_HE else {}
    values |= {"augment": _AUGMENT[dataset]} if dataset in _AUGMENT else {}
    return {key: value for key, value in values.items() if key not in given}
