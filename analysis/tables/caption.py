"""The sentences under a table: what the numbers are, and what they do not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from analysis.cells import partitions
from analysis.cells.best import TESTED_FROM, BestComparison, is_tied
from analysis.cells.differences import BASELINE, TO_MATCHED, TO_TEACHER, Difference, rows_without_baseline
from analysis.cells.hardware import hardware_differences
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import METRICS, SYMBOL_MEANINGS, Cell, CellKey, Layout
from analysis.rows import stages
from analysis.statistics.paired_tests import LEAST_PAIRS
from analysis.tables.number_style import NumberStyle
from d2l_study.errors import listed

SHARED_PATIENTS = {"colon": "Patients are not identified in the colon data: folds may share some."}


def caption(
    layout: Layout,
    styles: Mapping[str, NumberStyle],
    compared: Iterable[Difference],
    best: set[CellKey],
    tested: Mapping[CellKey, BestComparison],
) -> list[str]:
    """The sentences, in the order in which a reader needs them."""
    cells = [c for c in layout.cells.values() if c.values]
    bounds = any(style.bounds for style in styles.values())
    sentences = [_what(layout, bounds)]
    kinds = interval_kinds(cells)
    if kinds:
        sentences.append(f"Interval: {kinds}.")
    if any(style.asymmetric for style in styles.values()) and not bounds:
        sentences.append("Some intervals are asymmetric about their mean (both bounds: --format csv).")
    if any(c.interval.count == 1 for c in cells):
        one = partitions.unit_noun((c.partition.design for c in cells if c.interval.count == 1), 1)
        sentences.append(f"A single {one} has no interval.")
    sentences += _spread(layout)
    sentences += hardware_differences(layout)
    splits = {metric.split for metric in layout.metrics}
    if "validation" in splits:
        sentences.append("Validation bags also chose the snapshots, so these values are optimistic.")
    else:
        sentences.append("Nothing was chosen on test data.")
    sentences += metric_meanings([metric.name for metric in layout.metrics])
    sentences += _marks(layout, cells, best, tested)
    found = list(compared)
    if found:
        kind = "corrected t" if layout.has_folds else "t"
        designs = layout.designs
        by = " or ".join(filter(None, ["replicate" if designs != ["folds"] else "",
                                       "fold and repeat" if layout.has_folds else ""]))  # fmt: skip
        intervals = [interval for difference in found for interval in difference.by_column.values()]
        around = f", with a {kind} interval on the differences" if any(i.has_bounds for i in intervals) else ""
        sentences.append(f"Differences are paired by {by}{around}.")
        if any(0 < i.count < LEAST_PAIRS for i in intervals):
            sentences.append(f"Fewer than {LEAST_PAIRS} pairs bear no verdict.")
        if any(i.kind == "not estimable" for i in intervals):
            sentences.append(NOT_ESTIMABLE)
    if any(difference.kind == TO_TEACHER for difference in found):
        sentences.append("“Its teacher” is the one whose labels the student learned from (the first of an ensemble).")
    if any(difference.kind == TO_MATCHED for difference in found):
        sentences.append(
            "“Its matched teacher” was trained for as long as student and teacher together, with the student's noise."
        )
    sentences += _equal_training(layout)
    if lost := rows_without_baseline(layout):
        arm = layout.names.arm(BASELINE)
        names = listed((row.text for row in lost), 6)
        sentences.append(f"Not compared with {arm}, since several of its rows answer to them: {names}.")
    if layout.by_study:
        sentences.append("Studies are compared each within itself: best means and differences are those of a study.")
    sentences += _states(layout)
    present = {c.origin.stage for c in layout.cells.values()}
    sentences += [f"{meaning.replace(stage, layout.names.texts.get(stage, stage), 1)}."
                  for stage, meaning in stages.MEANINGS.items() if stage in present]  # fmt: skip
    named = {key for label in (*layout.rows, *layout.panels) for key, _ in label.keys}
    named |= {str(key) for key in (layout.column_key, layout.row_key, layout.panel_key)}
    used = [text for key, text in SYMBOL_MEANINGS.items() if key in named and layout.names.uses_symbol(key)]
    if used:
        sentences.append("; ".join(used) + ".")
    return sentences + labels_used_sentences(layout) + layout.notes


def _equal_training(layout: Layout) -> list[str]:
    """How much training saw, of students and teachers; and whether a teacher of as much is among the rows."""
    visits: dict[str, set[float]] = {stages.TEACHER: set(), stages.STUDENT: set(), stages.MATCHED: set()}
    present = {cell.origin.stage for cell in layout.cells.values()}
    if stages.STUDENT not in present:
        return []
    for cell in layout.cells.values():
        if cell.origin.instance_visits is not None and cell.origin.stage in visits:
            visits[cell.origin.stage].add(round(cell.origin.instance_visits))
    sentences = []
    if all(visits[stage] for stage in visits if stage in present):
        names = {stages.TEACHER: "teachers", stages.STUDENT: "students", stages.MATCHED: "matched teachers"}
        texts = [
            f"{names[stage]} {min(found):,.0f}" + (f" to {max(found):,.0f}" if len(found) > 1 else "")
            for stage, found in visits.items() if found
        ]  # fmt: skip
        sentences.append(f"Instances that training saw, each as often as it was drawn: {', '.join(texts)}.")
    return sentences if stages.MATCHED in present else [*sentences, stages.NO_MATCHED_NOTE]


def _what(layout: Layout, bounds: bool) -> str:
    shown = "[lower, upper bound]" if bounds else "± half-width"
    count = cell_counts_text((c, c.planned) for c in layout.cells.values())
    shown = f"{shown} of the 95 % interval (count)" if _has_intervals(layout) else "(count)"
    splits = {metric.split for metric in layout.metrics}
    only = next(iter(splits)) if len(splits) == 1 else ""
    where = {"test": " on the test split", "validation": " on the validation split"}.get(only, "")
    if layout.column_key == METRICS and len(layout.metrics) > 1:
        where = f"{where.strip()[:1].upper()}{where.strip()[1:]}: mean" if where else "Mean"
        return f"{where} {shown}; {count} planned per cell."
    title = layout.metric.title[:1].upper() + layout.metric.title[1:]
    return f"{title}{where}: mean {shown}; {count} planned per cell."


def metric_meanings(names: Sequence[str]) -> list[str]:
    """Sentences on what the names of metrics do not tell."""
    words = [set(name.split("_")) for name in names]
    found = []
    if any("tuned" in one for one in words):
        found.append("Tuned: at a threshold set on validation bags, by their labels, without instance labels.")
    if any({"dice", "within"} <= one for one in words):
        found.append("Dice within images: the mean over images that hold a positive.")
    if any("froc" in one for one in words):
        found.append(
            "FROC: mean sensitivity to lesions (connected positive tiles) at ¼, ½, 1, 2, 4 and 8 false positives an "
            "image."
        )
    return found


def _has_intervals(layout: Layout) -> bool:
    return any(c.interval.has_bounds for c in layout.cells.values())


def cell_counts_text(counts: Iterable[tuple[Cell, int]]) -> str:
    """Cells with a count of each, in words: `5 replicates`, `3 folds (their repeats averaged)` (`partitions`)."""
    return partitions.unit_counts_text((cell.partition.design, cell.averages_repeats, count) for cell, count in counts)


def interval_kinds(cells: Iterable[Cell]) -> str:
    """How the intervals of the cells were made, in words; empty where none has one."""
    found = {c.interval.kind for c in cells}
    texts = {
        "t": "t",
        "t on the logit": "t on the logit, transformed back",
        "corrected t": "t, corrected for folds",
        "corrected t on the logit": "t on the logit, corrected for folds, transformed back",
        "no spread": "none (zero width) where all replicates are equal",
    }
    return "; ".join(text for kind, text in texts.items() if kind in found)


def _spread(layout: Layout) -> list[str]:
    sentences = []
    if "drawn" in layout.designs or not layout.designs:
        sentences.append("The spread is over bags and initialisations, not over data sets.")
    if layout.has_folds:
        sentences.append(
            "Folds of one data set share training data; the correction (Nadeau and Bengio 2003) takes "
            f"a ratio of test to training bags of {ratios_text(layout)}. The spread is over partitions of one data "
            "set, not over data sets."
        )
        sentences += [REPEATS_AVERAGED] if layout.averages_repeats else []
    if "split" in layout.designs:
        sentences.append(
            "Replicates share the given split: they are new initialisations, tested on the same bags (where the split "
            "names no validation bags, or num_bags takes a part of the training bags, those are drawn anew). The "
            "spread is over these alone, and says nothing of other test bags or of another split."
        )
    return sentences + [text for name, text in SHARED_PATIENTS.items() if name in layout.datasets and layout.has_folds]


NOT_ESTIMABLE = "Not estimable: an interval from so few pairs would be wider than a difference of the metric can be."
REPEATS_AVERAGED = (
    "Repeats that were tested on the same bags are no new partition: they are averaged, and each fold is counted once."
)


def ratios_text(layout: Layout) -> str:
    """The ratios of test to training bags that correct the intervals of the layout's folds."""
    found = sorted({f"{c.test_train_ratio:.3g}" for c in layout.cells.values() if c.test_train_ratio is not None})
    return " and ".join(found) if len(found) < 3 else f"{found[0]} to {found[-1]}"


def _marks(
    layout: Layout, cells: list[Cell], best: set[CellKey], tested: Mapping[CellKey, BestComparison]
) -> list[str]:
    if not best:
        return []
    line = "row" if layout.column_key == "method" else "column"
    marked = f", {stages.ORACLE_MARK} aside" if any(c.origin.stage == stages.ORACLE for c in cells) else ""
    better = {metric.better for metric in layout.metrics}
    which = f"{next(iter(better))} is better" if len(better) == 1 else "lower is better for losses"
    sentences = [f"Bold: best mean of a {line} ({which}{marked})."]
    if tested:
        test = "corrected t tests" if layout.has_folds else "t tests"
        some = any(map(is_tied, tested.values()))
        rivals = sum(c.origin.stage != stages.ORACLE for c in cells) - len({to.best for to in tested.values()})
        others = "All others" if len(tested) >= rivals else "All others that were tested"
        which = "Italic or underlined: cannot be told from the best" if some else f"{others} can be told from the best"
        sentences.append(
            f"{which} (paired {test} against it at 0.05, Holm-corrected over the {len(tested)} of the table, from "
            f"{TESTED_FROM} pairs on; the best was picked by the same data)."
        )
    return sentences


def _states(layout: Layout) -> list[str]:
    present = {c.status for c in layout.cells.values()}
    meanings = {
        "not run": "Not run: its teacher failed.",
        "undefined": "Undefined: the metric is not defined for any of the runs that are done.",
    }
    return [text for status, text in meanings.items() if status in present]
