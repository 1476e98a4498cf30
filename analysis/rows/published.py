"""Published figures to stand beside ours: only those read at their source, and never without their differences.

`published.csv` holds them. The published spreads are standard errors and not all were noted, so none is shown.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DIFFERENCE = (
    "5 repeats with other splits and another implementation; their spreads, standard errors and not all noted, are "
    "left out: a landmark, not a comparison"
)


@dataclass(frozen=True)
class Published:
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


def figures(datasets: Iterable[str]) -> list[Published]:
    """The published figures of these data sets; none for one that has none."""
    wanted = set(datasets)
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        found = [
            Published(one["dataset"], one["level"], one["method"], one["metric"], float(one["value"]), one["source"])
            for one in csv.DictReader(file)
        ]
    return [one for one in found if one.dataset in wanted]


def caption(there: Sequence[Published]) -> list[str]:
    if not there:
        return []
    return [f"Published: {' and '.join(dict.fromkeys(one.source for one in there))}, {DIFFERENCE}."]
