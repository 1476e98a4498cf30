"""Published results to stand beside ours: only those read at their source, and never without what differs in protocol.

`published_results.csv` holds them. The published spreads are standard errors and not all were noted, so none is shown.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROTOCOL_DIFFERENCE = (
    "5 repeats with other splits and another implementation; their spreads, standard errors and not all noted, are "
    "left out: a landmark, not a comparison"
)


@dataclass(frozen=True)
class PublishedResult:
    """The mean of one metric as a paper printed it."""

    dataset: str
    level: str
    method: str
    """As its source names it."""
    metric: str
    value: float
    source: str

    @property
    def column(self) -> str:
        """The metric's name among the columns of our rows."""
        return f"{self.level}_{self.metric}"


def published_results(datasets: Iterable[str]) -> list[PublishedResult]:
    """The published results of these data sets; none for one that has none."""
    wanted = set(datasets)
    with (Path(__file__).parent / "published_results.csv").open(encoding="utf-8", newline="") as file:
        found = [
            PublishedResult(
                one["dataset"], one["level"], one["method"], one["metric"], float(one["value"]), one["source"]
            )
            for one in csv.DictReader(file)
        ]
    return [one for one in found if one.dataset in wanted]


def published_caption(results: Sequence[PublishedResult]) -> list[str]:
    """The sentence that says where they are from and how they differ from ours; none without results."""
    if not results:
        return []
    return [f"Published: {' and '.join(dict.fromkeys(one.source for one in results))}, {PROTOCOL_DIFFERENCE}."]
