"""What an unfinished study has no result of yet: whole panels and columns, which are named and not shown empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from analysis.cells.layout import METRICS, Cell, Label, Layout, axis_text, value_text

NOT_THERE = {"missing", "no such metric"}


@dataclass(frozen=True)
class Unfinished:
    """panels: those in which no run has ended; columns: of each other panel those in which none has."""

    panels: Sequence[Label] = ()
    columns: dict[Label, tuple[Label, ...]] = field(default_factory=dict)

    def sentence(self) -> str:
        """`No results yet: K = 50, 100; n = 300, 400 at K = 10.` Empty where all panels and columns have some."""
        parts = [_values(self.panels)] if self.panels else []
        at: dict[tuple[Label, ...], list[Label]] = {}
        for panel, columns in self.columns.items():
            if columns:
                at.setdefault(columns, []).append(panel)
        for columns, panels in at.items():
            where = "" if len(panels) == len(self.columns) and not self.panels else _values(panels)
            parts.append(_values(columns) + (f" at {where}" if where else ""))
        return f"No results yet: {'; '.join(parts)}." if parts else ""


def unfinished(layout: Layout) -> Unfinished:
    """The panels and columns whose runs are all still missing; what failed is a result. None of them where no run has
    ended at all: then there is nothing to show instead."""
    waiting = [panel for panel in layout.panels if _waits(c for (p, _, _), c in layout.cells.items() if p == panel)]
    if len(waiting) == len(layout.panels):
        return Unfinished()
    columns = {}
    for panel in layout.panels:
        if panel not in waiting and layout.column_key != METRICS:
            there = layout.columns_of(panel)
            cells = {c: [cell for r in layout.rows if (cell := layout.cells.get((panel, r, c)))] for c in there}
            columns[panel] = tuple(column for column in there if _waits(cells[column]))
    return Unfinished(waiting, columns)


def without_waiting_panels(layout: Layout) -> Layout:
    """The layout without the panels in which no run has ended."""
    waiting = set(unfinished(layout).panels)
    return replace(
        layout,
        panels=[panel for panel in layout.panels if panel not in waiting],
        cells={key: cell for key, cell in layout.cells.items() if key[0] not in waiting},
    )


def _waits(cells: Iterable[Cell]) -> bool:
    """Whether there are cells, and all of them are still to come."""
    found = {cell.status for cell in cells}
    return "missing" in found and found <= NOT_THERE


def _values(labels: Sequence[Label]) -> str:
    """`K = 50, 100`: the key once, where labels are values of one key."""
    first, *others = labels
    plain = all(one.key == first.key and one.text == axis_text(one.key, one.value, one.names) for one in labels)
    if not others or not plain or " = " not in first.text:
        return ", ".join(label.text for label in labels)
    return ", ".join([first.text, *(value_text(one.value) for one in others)])
