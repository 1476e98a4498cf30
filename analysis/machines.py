"""What is said where runs were computed at different precision or on different devices, which changes results.

Neither is part of a configuration's identity: the same study may hold both, and so may the two sides of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable

from analysis.layout import Cell, Layout
from d2l_study.errors import listed

NAMES = ("precision", "device")


def differing_machines(layout: Layout) -> list[str]:
    """A sentence for each of precision and device in which the runs behind the cells differ, with the rows."""
    sentences = []
    for i, name in enumerate(NAMES):
        rows: dict[str, dict[str, None]] = {}
        for (_, row, _), cell in layout.cells.items():
            for replicate in cell.values.keys() & cell.machines.keys():
                rows.setdefault(cell.machines[replicate][i], {})[row.text] = None
        if len(rows) > 1:
            each = "; ".join(f"{value}: {listed(mine, 6)}" for value, mine in sorted(rows.items()))
            sentences.append(f"Runs differ in {name}, which changes results ({each}).")
    return sentences


def differing_pairs(pairs: Iterable[tuple[str, Cell, Cell]]) -> list[str]:
    """A sentence for each of precision and device in which the two sides of pairs of replicates differ.

    pairs: what is compared, and the two cells, paired by replicate.
    """
    sentences = []
    shown = [*pairs]
    for i, name in enumerate(NAMES):
        names: dict[str, None] = {}
        values: dict[str, None] = {}
        paired, differing = set(), set()  # a pair stands in a table once for each of its metrics
        for text, one, other in shown:
            for replicate in sorted(one.values.keys() & other.values.keys()):
                pair = (one.origin.config_id, other.origin.config_id, replicate)
                paired.add(pair)
                sides = [cell.machines[replicate][i] for cell in (one, other) if replicate in cell.machines]
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
