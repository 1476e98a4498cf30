"""The rows of a layout against a baseline, tested.

Three questions, three tests:

    paired     would the method be better with new bags and initialisations? Differences by replicate with an
               interval, Student's t and Wilcoxon's test (`statistics.paired_tests`). For folds of one data set, which
               are not independent, the corrected resampled t test alone: Wilcoxon's has no such correction.
    delong     do these two trained models differ on the population of bags that one test set was drawn from?
               DeLong's test (`statistics.delong`), replicate by replicate, from the stored predictions of the test
               bags. It says nothing of another training.
    clusters   the same for the instances of given bags: images drawn with all their patches
               (`statistics.cluster_bootstrap`), since patches of one image are not independent.

Holm's correction is over all comparisons, for each test on its own. The oracle is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.baseline_pairs import (
    CellComparison,
    Pair,
    baseline_pairs,
    baseline_text,
    control_pairs,
    why_no_pairs,
)
from analysis.cells.differences import difference_of
from analysis.cells.hardware import hardware_differences_of_pairs
from analysis.cells.layout import Layout, why_no_values
from analysis.cells.other_bags import difference_text
from analysis.cells.prediction_tests import RESAMPLES, compare_predictions
from analysis.statistics.intervals import paired_values, unit_values
from analysis.statistics.paired_tests import corrected_t, holm, paired_t, wilcoxon
from d2l_study.errors import UserError, listed

if TYPE_CHECKING:
    import pandas


@dataclass
class Comparisons:
    """All comparisons of a layout with one baseline."""

    layout: Layout
    test: str
    baseline: Mapping[str, str] | None
    """None for students against their own teachers and controls."""
    found: list[CellComparison]
    notes: list[str]
    resamples: int = RESAMPLES
    """Of `clusters`."""


def compare_cells(
    rows: pandas.DataFrame,
    layout: Layout,
    baseline: Mapping[str, str] | None,
    test: str,
    replicates: Sequence[int] | None,
    by_default: bool = False,
) -> Comparisons:
    """Every row of a layout against the baseline, in each column and panel.

    rows: those that the layout was arranged from, for their stored predictions; baseline: values of keys that name it,
    None for students against their own teachers and controls; by_default: whether nobody named it;
    test: `paired`, `delong` or `clusters`; replicates: of delong and clusters, only these.
    UserError where there is nothing to compare, or folds and independent replicates would share one test.
    """
    notes: list[str] = []
    pairs = list(control_pairs(layout) if baseline is None else baseline_pairs(layout, baseline, notes))
    if test == "paired" and len({pair.cell.test_train_ratio is None for pair in pairs}) > 1:
        raise UserError(
            f"{layout.study}: the replicates of some are folds of one data set, those of others are not and need "
            "another test; compare them one at a time"
        )
    if not pairs:
        if baseline is None:
            raise UserError(f"--controls: no student of study {layout.study!r} stands beside its teacher or a control")
        raise UserError(why_no_pairs(layout, baseline) + (_other_choices(layout) if by_default else ""))
    notes += hardware_differences_of_pairs(
        (f"{p.row.text} − {p.baseline.text}", p.cell, p.baseline_cell) for p in pairs
    )
    other_bags = 0
    if test == "paired":
        pairs = _on_same_bags(pairs, baseline, notes)
        found = [_paired(pair) for pair in pairs]
        if without := [one for one in found if not one.difference.count]:
            names = dict.fromkeys(
                ", ".join(filter(None, (one.row.text, one.panel.text, one.column.text))) for one in without
            )
            notes.append(f"No replicate is finished on both sides: {listed(names)}.")
            found = [one for one in found if one.difference.count]
    else:
        found, other_bags = compare_predictions(rows, pairs, test, replicates, notes)
    if not found:
        if why := why_no_values(layout):
            raise UserError(f"study {layout.study!r} has no {layout.metrics[0].name} to compare{why}")
        text = "--controls" if baseline is None else f"--baseline {baseline_text(baseline)}"
        if other_bags:
            raise UserError(f"{text} --test {test}: no row was tested on the same bags as its baseline")
        raise UserError(f"{text}: no replicate is finished both there and in another row")
    return Comparisons(layout, test, baseline, _holm_corrected(found), notes)


def _on_same_bags(pairs: Sequence[Pair], baseline: Mapping[str, str] | None, notes: list[str]) -> list[Pair]:
    """The pairs whose two sides were tested on the same bags; the notes name the others, and by what they differ.
    UserError where no pair is left."""
    kept, texts = list[Pair](), dict[str, None]()
    for pair in pairs:
        if found := pair.cell.source.differences(pair.baseline_cell.source):
            texts[f"{pair.row.text} − {pair.baseline.text}: {difference_text(found)}"] = None
        else:
            kept.append(pair)
    if texts and not kept:
        text = "--controls" if baseline is None else f"--baseline {baseline_text(baseline)}"
        raise UserError(f"{text}: no row was tested on the same bags as its baseline ({'; '.join(texts)})")
    if texts:
        notes.append(f"Not compared, since the two sides were tested on different bags ({'; '.join(texts)}).")
    return kept


def _other_choices(layout: Layout) -> str:
    """What can be typed instead of the baseline that was taken since none was given."""
    students = any(control_pairs(layout))
    return "; it was taken since no --baseline was given" + (
        " (--controls compares students with their teachers and controls)" if students else ""
    )


def _paired(pair: Pair) -> CellComparison:
    cell, other = pair.cell, pair.baseline_cell
    both = sorted(cell.values.keys() & other.values.keys())
    d = paired_values(cell.values, other.values, cell.units)
    ratio = cell.test_train_ratio
    tests = (paired_t(d), wilcoxon(d)) if ratio is None else (corrected_t(d, ratio),)
    ours, theirs = (
        float(np.mean(unit_values({r: one.values[r] for r in both}, cell.units))) if both else math.nan
        for one in (cell, other)
    )
    return CellComparison(
        pair.panel, pair.row, pair.column, pair.baseline, ours, theirs, difference_of(cell, other), tests,
        config_id=cell.origin.config_id, baseline_config_id=other.origin.config_id,
    )  # fmt: skip


def _holm_corrected(found: list[CellComparison]) -> list[CellComparison]:
    """Each test corrected over all comparisons."""
    kinds = max((len(one.tests) for one in found), default=0)
    columns = [holm([one.tests[i].p for one in found]) for i in range(kinds)]
    return [replace(one, p_holm=tuple(column[j] for column in columns)) for j, one in enumerate(found)]
