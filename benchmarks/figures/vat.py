"""The effect of VAT over the number of bags n, a row of panels for each bag size K that a record has."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from records import matching, named, rows_of

from analysis.cells.arrange import arrange
from analysis.cells.differences import difference_of
from analysis.cells.layout import Cell, Label, Layout
from analysis.figures import style

GPU = "*-gpu-k*"
"""Records of the first panels of the slides, each of one or more K."""
CONFIRM = "2026-11-22-distill-confirm"
ROBUST = "*-vat-robust-confirm"
"""Records of other studies of the same question at K = 10, the latter on the robust recipe."""
PLAIN, VAT = "#000000", "#0072B2"
OTHERS = (("Orange", "#D55E00", "D"), ("Green", "#009E73", "^"))
ARMS = {"none": ("attention MIL", PLAIN, "o"), "adv_low": ("with VAT, λ = 0.5, ε = 4", VAT, "s")}


def draw() -> Figure:
    """Bag AUC of both arms, and their paired difference."""
    records = matching(GPU)
    layouts = [arrange(rows_of(record), "bag_auc") for record in records]
    panels = [(layout, panel) for layout in layouts for panel in layout.panels]
    others = {record: _teachers(record) for record in (CONFIRM, *matching(ROBUST))}
    with style.use("page"):
        figure, axes = style.panels(2 * len(panels), 2.4, around=0.65, most=2)
        for place, (layout, panel) in enumerate(panels):
            left, right = axes[2 * place : 2 * place + 2]
            _curves(left, layout, panel)
            _differences(right, layout, panel, [*others.values()] if panel.value == 10 else [])
            left.set_title(f"K = {panel.value}: AUC on test bags")
            right.set_title(f"K = {panel.value}: VAT − plain, paired")
        counts = {cell.interval.count for layout, _ in panels for cell in layout.cells.values()}
        style.footnote(figure, (
            f"Mean and 95 % interval over {' or '.join(map(str, sorted(counts)))} replicates (new bags, new weights), "
            f"1000 test bags each; exploratory: {named(*records)}. Other studies: "
            + "; ".join(
                f"{colour.lower()} {record}, {_count(other)} replicates"
                for (colour, _, _), (record, other) in zip(OTHERS, others.items(), strict=False)
            )
            + "."
        ))  # fmt: skip
    return figure


def _curves(axis: Axes, layout: Layout, panel: Label) -> None:
    for arm, (name, colour, marker) in ARMS.items():
        cells = _cells(layout, panel, arm)
        x = [column.value for column, _ in cells]
        found = [cell.interval for _, cell in cells]
        axis.fill_between(x, [i.lower for i in found], [i.upper for i in found], color=colour, alpha=0.15, lw=0)
        axis.plot(x, [i.mean for i in found], color=colour, marker=marker, label=name)
    axis.legend(loc="lower right")
    _axis(axis, layout)


def _teachers(record: str) -> Layout:
    """The teachers of a record, whatever else is in it."""
    rows = rows_of(record)
    return arrange(rows.loc[rows.stage == "teacher"], "bag_auc")


def _differences(axis: Axes, layout: Layout, panel: Label, others: list[Layout]) -> None:
    _bars(axis, layout, panel, "adv_low", VAT, "s", 1.0)
    for number, ((_, colour, marker), other) in enumerate(zip(OTHERS, others, strict=False), start=1):
        _bars(axis, other, other.panels[0], "vat", colour, marker, 1 + 0.07 * number)
    axis.axhline(0, color=style.GREY, lw=0.9)
    _axis(axis, layout)


def _bars(axis: Axes, layout: Layout, panel: Label, arm: str, colour: str, marker: str, aside: float) -> None:
    plain = dict(_cells(layout, panel, "none"))
    for column, cell in _cells(layout, panel, arm):
        found = difference_of(cell, plain[column])
        axis.errorbar(column.value * aside, found.mean, found.half_width, color=colour, marker=marker, capsize=2.5)


def _cells(layout: Layout, panel: Label, arm: str) -> list[tuple[Label, Cell]]:
    (row,) = [row for row in layout.rows_of(panel) if row.value == arm]
    return [(column, layout.cells[panel, row, column]) for column in layout.columns_of(panel)]


def _count(layout: Layout) -> int:
    return max(cell.interval.count for cell in layout.cells.values())


def _axis(axis: Axes, layout: Layout) -> None:
    values: list[Any] = [column.value for column in layout.columns]
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("training bags n")
