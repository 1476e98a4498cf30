"""The effect of VAT over the number of bags n, a row of panels for each bag size K that a record has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from records import matching, named, rows_of

from analysis.cells.arrange import arrange
from analysis.cells.differences import difference_of
from analysis.cells.layout import Cell, Label, Layout
from analysis.figures import style
from analysis.statistics.intervals import Interval

GPU = ("*-gpu-k*", "*-vat-grid-gpu")
"""Records of the slides' experiment, each of one or more K. Of those of the same K the last is drawn, and the others as
other studies."""
CONFIRM = "2026-11-22-distill-confirm"
ROBUST = "*-vat-robust-*confirm"
"""Records of other studies of the same question, the latter on the robust recipe; each of one K."""
PLAIN, VAT, STRONG = "#000000", "#0072B2", "#56B4E9"
Mark = dict[str, Any]
"""How a series is drawn: by shape and filling too, so that series differ in grey."""
OPEN = {"markerfacecolor": "white"}
OTHERS: tuple[Mark, ...] = (
    {"color": "#D55E00", "marker": "D"},
    {"color": "#009E73", "marker": "o", **OPEN},
    {"color": "#CC79A7", "marker": "v"},
    {"color": "#E69F00", "marker": "P"},
)
LEGEND_FROM = 100
"""Training bags from which on a legend lies over a panel: above or below the bars there, where there is more room."""
ARMS: dict[str, tuple[str, Mark]] = {
    "none": ("attention MIL", {"color": PLAIN, "marker": "o"}),
    "adv_low": ("with VAT, λ = 0.5, ε = 4", {"color": VAT, "marker": "s"}),
    "adv_high": ("with VAT, λ = 1, ε = 4", {"color": STRONG, "marker": "^", "linestyle": "--", **OPEN}),
}


@dataclass(frozen=True)
class Part:
    """What a record has of one K: a panel of its layout, and its arms with VAT."""

    record: str
    layout: Layout
    panel: Label
    arms: tuple[str, ...]

    @property
    def count(self) -> int:
        """The replicates of a cell at most."""
        return max(cell.interval.count for arm in self.arms for _, cell in _cells(self, arm))


def draw() -> Figure:
    """Bag AUC of each arm, and their paired differences to the plain one."""
    parts: dict[Any, list[Part]] = {}
    for record in sorted(name for pattern in GPU for name in matching(pattern)):
        for part in with_vat(record):
            parts.setdefault(part.panel.value, []).append(part)
    others = [part for found in parts.values() for part in found[:-1]]
    others += [_teachers(record) for record in (CONFIRM, *matching(ROBUST))]
    shown = [found[-1] for _, found in sorted(parts.items())]
    with style.use("page"):
        figure, axes = style.panels(2 * len(shown), 2.4, around=0.75, most=2)
        for place, part in enumerate(shown):
            left, right = axes[2 * place : 2 * place + 2]
            size = part.panel.value
            _curves(left, part)
            beside = [(number, other) for number, other in enumerate(others) if other.panel.value == size]
            _differences(right, part, beside)
            left.set_title(f"K = {size}: AUC on test bags")
            right.set_title(f"K = {size}: VAT − plain, paired")
        counts = {part.count for part in shown}
        records = list(dict.fromkeys(part.record for part in shown))
        style.footnote(figure, (
            f"Mean and 95 % interval over {' or '.join(map(str, sorted(counts)))} replicates (new bags, new weights), "
            f"1000 test bags each; exploratory: {named(*records)}. Other studies, λ = 0.5 or tuned: "
            + "; ".join(f"{other.record}, {other.count} replicates" for other in others)
            + "."
        ))  # fmt: skip
    return figure


def with_vat(record: str) -> list[Part]:
    """Of a record of the slides' experiment each K that has plain teachers and some with VAT."""
    layout = arrange(rows_of(record), "bag_auc")
    found = []
    for panel in layout.panels:
        there = [row.value for row in layout.rows_of(panel)]
        arms = tuple(arm for arm in ARMS if arm != "none" and arm in there)
        if arms and "none" in there:
            found.append(Part(record, layout, panel, arms))
    return found


def _teachers(record: str) -> Part:
    """The teachers of a record, whatever else is in it."""
    rows = rows_of(record)
    layout = arrange(rows.loc[rows.stage == "teacher"], "bag_auc")
    return Part(record, layout, layout.panels[0], ("vat",))


def _curves(axis: Axes, part: Part) -> None:
    for arm in ("none", *part.arms):
        name, mark = ARMS[arm]
        cells = _cells(part, arm)
        x = [column.value for column, _ in cells]
        found = [cell.interval for _, cell in cells]
        axis.fill_between(x, [i.lower for i in found], [i.upper for i in found], color=mark["color"], alpha=0.15, lw=0)
        axis.plot(x, [i.mean for i in found], **mark, label=name)
    axis.legend(loc="lower right")
    _axis(axis, part)


def _differences(axis: Axes, part: Part, others: list[tuple[int, Part]]) -> None:
    """others: with their places in `OTHERS`; the legend names them, and that of the curves the arms."""
    drawn = [(part, arm, ARMS[arm][1]) for arm in part.arms]
    drawn += [(other, other.arms[0], OTHERS[number]) for number, other in others]
    for place, (one, arm, mark) in enumerate(drawn):
        _bars(axis, one, arm, mark, 1.055 ** (place - (len(drawn) - 1) / 2))
    for number, other in others:
        axis.plot([], [], **OTHERS[number], ms=4, linestyle="", label=other.record)
    if others:
        found = [
            interval for one, arm, _ in drawn for column, interval in effects(one, arm) if column.value >= LEGEND_FROM
        ]
        low, high = axis.get_ylim()
        above = high - max(one.upper for one in found) > min(one.lower for one in found) - low
        axis.legend(loc="upper right" if above else "lower right", title="other studies")
    axis.axhline(0, color=style.GREY, lw=0.9)
    _axis(axis, part)


def effects(part: Part, arm: str) -> list[tuple[Label, Interval]]:
    """An arm's paired difference to the plain one at each n."""
    plain = dict(_cells(part, "none"))
    return [(column, difference_of(cell, plain[column])) for column, cell in _cells(part, arm)]


def _bars(axis: Axes, part: Part, arm: str, mark: Mark, aside: float) -> None:
    for column, found in effects(part, arm):
        shown = {**mark, "linestyle": "-", "ms": 4, "capsize": 1.8, "lw": 1.1}
        axis.errorbar(column.value * aside, found.mean, found.half_width, **shown)


def _cells(part: Part, arm: str) -> list[tuple[Label, Cell]]:
    (row,) = [row for row in part.layout.rows_of(part.panel) if row.value == arm]
    return [(column, part.layout.cells[part.panel, row, column]) for column in part.layout.columns_of(part.panel)]


def _axis(axis: Axes, part: Part) -> None:
    values: list[Any] = [column.value for column in part.layout.columns]
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("training bags n")
