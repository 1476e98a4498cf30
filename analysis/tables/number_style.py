"""How numbers are written in a table: the same number of decimals throughout, as many as the intervals bear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from analysis.cells.differences import Difference
from analysis.cells.layout import Cell, Layout
from analysis.statistics.intervals import Interval

ASYMMETRY = 1.5
"""An interval is visibly asymmetric where one side of it is longer by this factor."""
NO_INTERVAL = "[–]"
"""In the place of an interval that would say nothing (`intervals.without_void_bounds`)."""
BOUNDS_UP_TO = 5
"""A table of so many columns still has room for both bounds."""


@dataclass(frozen=True)
class NumberStyle:
    """Of one metric in one table."""

    decimals: int
    asymmetric: bool
    bounds: bool
    """Both bounds are shown in place of a half-width: the table is asymmetric, and has room for them."""
    difference_decimals: int
    """Differences to one's own teacher can be far smaller than the spread over replicates."""

    @classmethod
    def of(cls, cells: Sequence[Cell], compared: Iterable[Interval], columns: int) -> NumberStyle:
        """cells: of the metric, those with values; compared: the differences of the metric."""
        intervals = [cell.interval for cell in cells]
        unit = all(cell.metric.unit_interval for cell in cells)
        widths = _widths(intervals)
        largest = max((abs(i.mean) for i in intervals if math.isfinite(i.mean)), default=1.0)
        scale = widths[len(widths) // 2] if widths else largest / 100 or 1.0
        # Two digits of a typical half-width; differences of AUC below 0.0001 are nobody's concern.
        least, most = (3, 4 if widths else 3) if unit else (0, 4)
        decimals = min(max(1 - math.floor(math.log10(scale)), least), most)
        asymmetric = any(_asymmetric(i, decimals) for i in intervals if i.has_bounds)
        between = _widths(compared)
        # Steps of at most a fifth of a typical half-width.
        finer = math.ceil(math.log10(5 / between[len(between) // 2])) if between else decimals
        finer = min(max(finer, decimals), max(most, decimals))
        return cls(decimals, asymmetric, asymmetric and columns <= BOUNDS_UP_TO, finer)

    def mean(self, interval: Interval) -> str:
        """The mean as it is printed."""
        return f"{interval.mean:.{self.decimals}f}".replace("-", "−")

    def rounded(self, interval: Interval) -> float:
        """The mean as it is printed, as a number."""
        return float(f"{interval.mean:.{self.decimals}f}")

    def interval_text(self, interval: Interval) -> str:
        """What follows the mean: the interval, without the count."""
        if not interval.has_bounds:
            return NO_INTERVAL if interval.is_void else ""
        if self.bounds:
            return f"[{interval.lower:.{self.decimals}f}, {interval.upper:.{self.decimals}f}]".replace("-", "−")
        return f"± {interval.half_width:.{self.decimals}f}"

    def text(self, interval: Interval) -> str:
        """The mean and what follows it."""
        return " ".join(filter(None, (self.mean(interval), self.interval_text(interval))))

    def difference(self, interval: Interval) -> tuple[str, str]:
        """The mean with its sign, and what follows it. Its t interval is symmetric, so it always has a half-width."""
        decimals = self.difference_decimals
        half = f"± {interval.half_width:.{decimals}f}" if interval.has_bounds else NO_INTERVAL * interval.is_void
        return f"{interval.mean:+.{decimals}f}".replace("-", "−"), half


BOTH_BOUNDS = NumberStyle(decimals=3, asymmetric=True, bounds=True, difference_decimals=3)
"""Three decimals with both bounds, for numbers that stand in no table of theirs: `0.952 [0.921, 0.971]`."""


def styles_of(layout: Layout, compared: Iterable[Difference]) -> dict[str, NumberStyle]:
    """For each metric of a layout how its numbers are written."""
    cells: dict[str, list[Cell]] = {metric.name: [] for metric in layout.metrics}
    for cell in layout.cells.values():
        if cell.values:
            cells[cell.metric.name].append(cell)
    between: dict[str, list[Interval]] = {metric.name: [] for metric in layout.metrics}
    for difference in compared:
        for column, interval in difference.by_column.items():
            between[layout.metric_of(column).name].append(interval)
    width = max((len(layout.columns_of(panel)) for panel in layout.panels), default=0)
    styles = {name: NumberStyle.of(found, between[name], width) for name, found in cells.items()}
    if any(style.bounds for style in styles.values()):  # one notation in one table
        return {name: replace(style, bounds=True) for name, style in styles.items()}
    return styles


def _widths(intervals: Iterable[Interval]) -> list[float]:
    return sorted(i.half_width for i in intervals if i.has_bounds and i.half_width > 0)


def _asymmetric(interval: Interval, decimals: int) -> bool:
    below, above = interval.mean - interval.lower, interval.upper - interval.mean
    least = 0.5 * 10**-decimals
    end = 1.0 if interval.kind.endswith("t on the logit") else math.inf
    ranged = interval.kind.endswith(("t on the logit", "t on the log"))
    if ranged and not 0 <= interval.mean - interval.half_width <= interval.mean + interval.half_width <= end:
        return True  # ± would leave the range of the metric
    return max(below, above) > ASYMMETRY * max(min(below, above), least) + least
