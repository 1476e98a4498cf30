"""Lengths of training in steps: how many the `epochs` of a point of a space are, with its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2l_study.errors import UserError
from d2l_study.learning.training_options import TrainingOptions
from d2l_study.options import Options

LENGTH_KEYS = ("epochs", "min_steps")
"""The keys that say in another way what `steps` says."""
FOLLOW_STEPS = ("eval_every", *LENGTH_KEYS)
"""Keys that differ where the steps do, as between teachers matched to two students: steps tell these apart."""


def sections_in_steps(sections: dict[str, Options]) -> dict[str, Options]:
    """The sections of a point with every length in steps (`TrainingOptions.in_steps`); the same if none is in epochs.

    Loads the data set if it is given rather than drawn and a length is in epochs. `UserError` if it is too long.
    """
    if not any(isinstance(s, TrainingOptions) and s.epochs is not None for s in sections.values()):
        return sections
    data: Any = sections["data"]
    bags = data.epoch_bags()
    found: dict[str, Options] = {}
    for name, section in sections.items():
        try:
            found[name] = section.in_steps(bags) if isinstance(section, TrainingOptions) else section
        except UserError as error:
            epochs = getattr(section, "epochs", None)
            raise UserError(f"{name}.epochs: {epochs} of {bags} training bags are too many: {error}") from None
    return found


def asked_lengths(sections: Mapping[str, Options]) -> dict[tuple[str, str], Any]:
    """(section, key) -> value of `LENGTH_KEYS`, of the sections whose length is in epochs."""
    return {
        (name, key): getattr(section, key)
        for name, section in sections.items()
        if isinstance(section, TrainingOptions) and section.epochs is not None
        for key in LENGTH_KEYS
    }
