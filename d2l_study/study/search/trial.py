"""A trial of a search: a point that was asked for, and how its runs ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.configuration import Configuration

OPEN, COMPLETE, FAILED, PRUNED = "asked", "complete", "failed", "pruned"

Outcome = tuple[str, list[float] | None, str | None, list[float] | None]
"""State, values, cause and partial of a trial that has ended (`SearchTrial`)."""


@dataclass
class SearchTrial:
    """One trial of a search. The fields are those of `search.json` (see `study.search.search`)."""

    number: int
    search: int
    trial: int
    arm: str
    at: dict[str, Any]
    params: dict[str, Any]
    config_id: str
    label: str
    asked: int
    state: str = OPEN
    values: list[float] | None = None
    cause: str | None = None
    partial: list[float] | None = None
    told: int | None = None
    replicates: int | None = None
    """Of how many `values` are means; None unless complete, and in documents of versions before it was kept."""
    once_complete: bool = False
    """It was complete before some of its runs were lost or more replicates were asked for. These are not ended
    early."""
    configurations: list[Configuration] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The entry of the document."""
        found = {k: v for k, v in vars(self).items() if k != "configurations"}
        return {**found, "trial_id": trial_id(self.config_id)}


def trial_outcome(
    folder: StudyFolder, config: str, replicates: Sequence[int], metrics: Sequence[str]
) -> Outcome | None:
    """State, values, cause and (step, validation AUC) of a configuration from its runs; None while one is missing.

    replicates: those that are asked for now, so that the values of all trials are means over the same ones. The value
    of a metric is their mean. A trial of which one replicate failed has failed: a mean over those that are left would
    favour settings that fail.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    failures, pruned, missing = [], [], False
    for replicate in replicates:
        record = folder.record(config, replicate)
        if record is None and (ended := folder.ledger.pruned(config, replicate, folder.name)) is not None:
            pruned.append(ended)
        elif record is None and (failure := folder.failure(config, replicate)) is not None:
            failures.append(f"r{replicate:03d}: {failure['cause']}")
        elif record is None:
            missing = True
        elif record["row"]["status"] != "done":
            failures.append(f"r{replicate:03d}: {record['row'].get('cause') or record['row']['status']}")
        else:
            for name in metrics:
                value = record["row"].get(name)
                values[name].append(math.nan if value is None else float(value))
    if missing:
        return None
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return FAILED, None, failures[0] + more, None
    if pruned:
        first = pruned[0]
        return PRUNED, None, first["cause"], [first["step"], first["value"]]
    means = [sum(values[name]) / len(values[name]) for name in metrics]
    for name, mean in zip(metrics, means, strict=True):
        if not math.isfinite(mean):
            return FAILED, None, f"{name} is not defined in every replicate", None
    return COMPLETE, means, None, None


def once_complete(folder: StudyFolder) -> set[str]:
    """The config_ids of a study's search whose trials were complete once. Some of their runs may be lost since."""
    document = read_document(folder) or {"trials": []}
    return {t["config_id"] for t in document["trials"] if t.get("once_complete") or t["state"] == COMPLETE}
