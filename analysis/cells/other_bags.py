"""Which cells of a layout were tested on the same bags, and sentences on those that were not, which are neither paired
nor ranked against each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.cells.layout import Cell, CellKey, Label, Layout, setting_value_text, study_of
from analysis.rows import stages
from d2l_study.errors import listed

MOST = 8
"""Rows, and kinds of bags, that a sentence names."""


def on_same_bags(cells: Mapping[CellKey, Cell]) -> list[dict[CellKey, Cell]]:
    """The cells in groups of those that were tested on the same bags, in order of appearance."""
    groups: list[dict[CellKey, Cell]] = []
    for cell_key, cell in cells.items():
        own = next((one for one in groups if not next(iter(one.values())).source.differences(cell.source)), None)
        if own is None:
            groups.append({cell_key: cell})
        else:
            own[cell_key] = cell
    return groups


def share_bags(layout: Layout, panel: Label, one: Label, other: Label) -> bool:
    """Whether two rows were tested on the same bags in some column of a panel, or have no column in common."""
    columns = [(layout.cells.get((panel, one, column)), layout.cells.get((panel, other, column)))
               for column in layout.columns_of(panel)]  # fmt: skip
    pairs = [(a, b) for a, b in columns if a is not None and b is not None and a.values and b.values]
    return not pairs or any(not a.source.differences(b.source) for a, b in pairs)


def difference_text(found: Mapping[str, tuple[Any, Any]]) -> str:
    """What `BagSource.differences` found, in words: `seed 2 against 1, test_bags 80 against 60`."""
    each = (f"{name} {setting_value_text(a)} against {setting_value_text(b)}" for name, (a, b) in found.items())
    return ", ".join(each)


def other_bags_sentences(layout: Layout) -> list[str]:
    """A sentence that names rows which were tested on other bags than others of their column, and by what these differ;
    none where their labels say it, and of two studies that are not compared anyway."""
    across = layout.column_key == "method"
    lines: dict[tuple[Any, ...], dict[CellKey, Cell]] = {}
    for cell_key, cell in layout.cells.items():
        if cell.values and cell.origin.stage != stages.ORACLE:
            line = cell_key[0], cell_key[1] if across else cell_key[2], study_of(cell_key)
            lines.setdefault(line, {})[cell_key] = cell
    rows: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for cells in lines.values():
        groups = on_same_bags(cells)
        values: list[dict[str, str]] = [{} for _ in groups]
        for i, j in itertools.combinations(range(len(groups)), 2):
            untold = _untold(groups[i], groups[j])
            values[i] |= {name: setting_value_text(a) for name, (a, _) in untold.items()}
            values[j] |= {name: setting_value_text(b) for name, (_, b) in untold.items()}
        for group, own in zip(groups, values, strict=True):
            if own:
                names = dict.fromkeys(cell_key[2 if across else 1].text for cell_key in group)
                rows.setdefault(tuple(own.items()), {}).update(names)
    if not rows:
        return []
    each = (f"{', '.join(f'{layout.names.key(k)} = {v}' for k, v in own)}: {listed(names, MOST)}"
            for own, names in rows.items())  # fmt: skip
    return [f"Tested on different bags, and so neither paired nor ranked against each other ({_joined(each)})."]


def _untold(one: Mapping[CellKey, Cell], other: Mapping[CellKey, Cell]) -> dict[str, tuple[Any, Any]]:
    """What tells the bags of two groups apart; nothing where the labels of all their cells name one of the keys."""
    found = next(iter(one.values())).source.differences(next(iter(other.values())).source)
    told = [{key for label in cell_key for key in (label.key, *dict(label.keys))} for cell_key in (*one, *other)]
    return {} if any(all(key in named for named in told) for key in found) else found


def _joined(texts: Iterable[str]) -> str:
    found = [*texts]
    more = [f"{len(found) - MOST} more kinds of bags"] if len(found) > MOST else []
    return "; ".join(found[:MOST] + more)
