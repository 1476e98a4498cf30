"""Sentences about runs that were computed at different precision or on different devices, which changes results.

Neither is part of a configuration's identity. So one study may hold several, and so may the two sides of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from analysis.cells.layout import Cell, Layout
from analysis.rows.display_names import Names
from d2l_study.errors import listed

if TYPE_CHECKING:
    import pandas

KEYS = ("precision", "device")


def hardware_differences(layout: Layout, *, by_panel: bool = False) -> list[str]:
    """A sentence for each of precision and device in which the runs behind the cells differ; it names the rows.
    by_panel: it names the panels instead, where those are the arms."""
    sentences = []
    for i, name in enumerate(KEYS):
        rows: dict[str, dict[str, None]] = {}
        for (panel, row, _), cell in layout.cells.items():
            for replicate in cell.values.keys() & cell.hardware.keys():
                rows.setdefault(cell.hardware[replicate][i], {})[(panel if by_panel else row).text] = None
        sentences += _sentence(name, rows)
    return sentences


def hardware_differences_of_rows(rows: pandas.DataFrame) -> list[str]:
    """The same of the finished runs among the rows of `analysis.load`; a sentence names the arms."""
    sentences, names = [], Names.of(rows)
    done = rows[rows["status"] == "done"]
    for name in KEYS:
        if name not in done:
            continue
        by_value: dict[str, dict[str, None]] = {}
        for value, method in done.loc[done[name].notna(), [name, "method"]].drop_duplicates().itertuples(index=False):
            by_value.setdefault(str(value).split(":")[0], {})[names.arm(str(method))] = None
        sentences += _sentence(name, by_value)
    return sentences


def note_suffix(sentences: Iterable[str]) -> str:
    """Sentences as the end of a figure's note, whose parts are set off by semicolons."""
    return "".join(f"; {text[:1].lower()}{text[1:].removesuffix('.')}" for text in sentences)


def _sentence(name: str, rows: Mapping[str, Iterable[str]]) -> list[str]:
    """The sentence of precision or device; none for a single value. rows: value -> names of the rows that have it."""
    if len(rows) < 2:
        return []
    each = "; ".join(f"{value}: {listed(mine, 6)}" for value, mine in sorted(rows.items()))
    return [f"Runs differ in {name}, which changes results ({each})."]


def hardware_differences_of_pairs(pairs: Iterable[tuple[str, Cell, Cell]]) -> list[str]:
    """A sentence for each of precision and device in which the two sides of pairs of replicates differ.

    pairs: what is compared, and the two cells, paired by replicate.
    """
    sentences = []
    shown = [*pairs]
    for i, name in enumerate(KEYS):
        names: dict[str, None] = {}
        values: dict[str, None] = {}
        paired, differing = set(), set()  # a pair stands in a table once for each of its metrics
        for text, one, other in shown:
            for replicate in sorted(one.values.keys() & other.values.keys()):
                pair = (one.origin.config_id, other.origin.config_id, replicate)
                paired.add(pair)
                sides = [cell.hardware[replicate][i] for cell in (one, other) if replicate in cell.hardware]
                if len(set(sides)) > 1:
                    differing.add(pair)
                    names[text] = None
                    values |= dict.fromkeys(sides)
        if differing:
            sentences.append(
                f"In {len(differing)} of {len(paired)} pairs the two sides differ in {name} "
                f"({listed(sorted(values))}), which changes results: {listed(names, 6)}."
            )
    return sentences
