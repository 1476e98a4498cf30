"""The names by which people know the trials of a study: the arm, and the values that tell it from others of the arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from d2l_study.options import value_text
from d2l_study.study.space.idle_values import without_idle_values


def trial_labels(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """config_id -> `vat num_bags=50 epsilon=2`, in the order of the plan. A configuration that several arms share has
    the names of all: `none; plain`. entries: of the plan (`StudyFolder.plan`)."""
    read = [(entry, without_idle_values(entry["values"])) for entry in entries]
    within: dict[tuple[str, str], dict[str, set[str]]] = {}
    for entry, values in read:
        told = within.setdefault((entry["stage"], entry["method"]), {})
        for key in entry["varied"]:
            told.setdefault(key, set()).add(value_text(values.get(key)))
    found: dict[str, list[str]] = {}
    for entry, values in read:
        told = within[entry["stage"], entry["method"]]
        own = (f"{key}={value_text(values[key])}" for key in entry["varied"] if key in values and len(told[key]) > 1)
        found.setdefault(entry["config_id"], []).append(" ".join([entry["method"], *own]))
    return {config: "; ".join(dict.fromkeys(labels)) for config, labels in found.items()}
