"""The caption of a study's table: what its cells are, what must be read with them, and how they were made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from analysis.cells import partitions
from analysis.cells.best import TESTED_FROM, BestComparison, is_tied, lines_without_best, task_keys
from analysis.cells.differences import (
    BASELINE,
    TO_TEACHER,
    Difference,
    rows_without_baseline,
)
from analysis.cells.hardware import hardware_differences
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import METRICS, SYMBOL_MEANINGS, Cell, CellKey, Layout
from analysis.cells.other_bags import other_bags_sentences
from analysis.rows import stages
from analysis.rows.metrics import Metric
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import LEAST_PAIRS
from analysis.tables.number_style import NO_INTERVAL, NumberStyle
from analysis.tables.sheet import Caption
from d2l_study.errors import counted, listed
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS

SAID_BESIDE = (stages.MATCHED, stages.ORACLE)
"""Stages whose meaning no reader may miss."""
SHARED_PATIENTS = {"colon": "Patients are not identified in the colon data: folds may share some."}


def caption(
    layout: Layout,
    styles: Mapping[str, NumberStyle],
    compared: Iterable[Difference],
    best: set[CellKey],
    tested: Mapping[CellKey, BestComparison],
) -> Caption:
    """The caption of a study's table."""
    cells = [c for c in layout.cells.values() if c.values]
    bounds = any(style.bounds for style in styles.values())
    found = list(compared)
    beside = [
        *_rows_of_differences(found),
        *_runs_not_there(layout),
        *validation_sentences(layout),
        *hardware_differences(layout),
        *_tie_mark(tested),
        *_without_best(layout),
        *_few_units(cells, found),
        *_at_half(layout.metrics),
        *_kinds_of_bags(layout),
        *_unmatched(layout, found),
        *other_bags_sentences(layout),
        *_arms_apart(layout),
        *_states(layout),
        *_symbols(layout),
        *labels_used_sentences(layout),
        *layout.notes,
    ]
    details = []
    if kinds := interval_kinds(cells):
        details.append(f"Interval: {kinds}.")
    if any(style.asymmetric for style in styles.values()) and not bounds:
        details.append("Some intervals are asymmetric about their mean (both bounds: --format csv).")
    details += _spread(layout)
    if not any(metric.split == "validation" for metric in layout.metrics):
        details.append("This study chose nothing on test data.")
    details += metric_meanings([metric.name for metric in layout.metrics])
    details += _marks(layout, cells, best, tested)
    details += _differences(layout, found)
    details += _training_seen(layout)
    details += _stage_meanings(layout)
    return Caption(_cells(layout, bounds), beside, details)


def _rows_of_differences(found: Sequence[Difference]) -> list[str]:
    """What stands in the rows of differences."""
    if not found:
        return []
    around = ", ± half its 95 % interval" if _with_bounds(found) else ""
    return [f"Rows “a − b”: mean difference of a and b, paired{around} (pairs)."]


def _with_bounds(found: Iterable[Difference]) -> bool:
    return any(interval.has_bounds for difference in found for interval in difference.by_column.values())


def _runs_not_there(layout: Layout) -> list[str]:
    """Where means are of fewer runs than planned."""
    partial = sum(cell.status == "partial" for cell in layout.cells.values())
    if not partial:
        return []
    verb = "is a mean" if partial == 1 else "are means"
    why = "the others failed, are missing, or have no such value"
    return [f"{counted(partial, 'cell')} {verb} of fewer runs than planned (“m of n” in it): {why}."]


def validation_sentences(layout: Layout) -> list[str]:
    """What validation metrics are good for, where validation bags chose the snapshots too (or that is not known)."""
    shown = any(metric.split == "validation" for metric in layout.metrics)
    return [VALIDATION_CHOSE] if shown and layout.snapshots_chosen is not False else []


def _tie_mark(tested: Mapping[CellKey, BestComparison]) -> list[str]:
    tied = any(map(is_tied, tested.values()))
    return ["Italic or underlined: cannot be told from the best (bold) by a test."] if tied else []


def _without_best(layout: Layout) -> list[str]:
    """Where nothing is marked, and why."""
    count = lines_without_best(layout)
    if not count:
        return []
    where = counted(count, "row" if layout.column_key == "method" else "column")
    return [
        f"Nothing is bold in {where}: the best mean there is of fewer values than others have, and better than theirs "
        "over those that both have."
    ]


def _few_units(cells: Sequence[Cell], found: Sequence[Difference]) -> list[str]:
    """What a small number of replicates, folds or pairs does not allow."""
    sentences = []
    if any(c.interval.count == 1 for c in cells):
        one = partitions.unit_noun((c.partition.design for c in cells if c.interval.count == 1), 1)
        sentences.append(f"A single {one} has no interval.")
    intervals = [interval for difference in found for interval in difference.by_column.values()]
    if any(0 < i.count < LEAST_PAIRS for i in intervals):
        sentences.append(f"Fewer than {LEAST_PAIRS} pairs bear no verdict.")
    return sentences + no_interval_sentences([*(c.interval for c in cells), *intervals])


def no_interval_sentences(intervals: Iterable[Interval]) -> list[str]:
    """Why some have the sign `NO_INTERVAL` in the place of an interval; empty where none has."""
    reasons = why_no_interval(intervals)
    return [f"{NO_INTERVAL}: no interval, since {reasons}."] if reasons else []


def why_no_interval(intervals: Iterable[Interval]) -> str:
    """Why some of several values have no interval (`Interval.is_void`); empty where all have one."""
    kinds = {interval.kind for interval in intervals}
    reasons = []
    if "not estimable" in kinds:
        reasons.append("it would cover more than half of all possible values")
    if "no spread" in kinds:
        reasons.append("all values are equal and do not tell how much others would differ")
    if "seldom defined" in kinds:
        reasons.append("the metric is defined in fewer than half of the bootstrap samples")
    return ", or ".join(reasons)


def without_interval_note(cells: Sequence[Cell], shown_as: str) -> str:
    """The part of a figure's note that says why cells have no interval; empty where all have one.
    shown_as: what is missing."""
    reasons = why_no_interval(cell.interval for cell in cells)
    single = [cell.partition.design for cell in cells if cell.interval.count == 1]
    found = f"; no {shown_as}: no interval, since {reasons}" if reasons else ""
    return found + (f"; a single {partitions.unit_noun(single, 1)} has no interval" if single else "")


def infinite_means_note(cells: Mapping[CellKey, Cell], shown_as: str) -> str:
    """The part of a figure's note that counts and names the infinite means, as of a loss that ran away in one run;
    empty for none. shown_as: how the figure has them."""
    names = []
    for labels, cell in cells.items():
        if cell.values and math.isinf(cell.interval.mean):
            axes = [label for label in labels if label.key not in (None, METRICS)]
            arm = "".join(f"{label.text} at " for label in axes if label.key == "method")
            where = " and ".join(label.text for label in axes if label.key != "method")
            names.append((arm + where).removesuffix(" at "))
    return f"; {shown_as}: {counted(len(names), 'infinite mean')} ({listed(names, 6)})" if names else ""


def _kinds_of_bags(layout: Layout) -> list[str]:
    """What the test bags are, where replicates do not draw their own."""
    sentences = [GIVEN_SPLIT] if "split" in layout.designs else []
    return sentences + [text for name, text in SHARED_PATIENTS.items() if name in layout.datasets and layout.has_folds]


def _unmatched(layout: Layout, found: Iterable[Difference]) -> list[str]:
    """Of students that are compared with their teachers, and with none that was trained as long."""
    present = {cell.origin.stage for cell in layout.cells.values()}
    compared = any(difference.kind == TO_TEACHER for difference in found)
    return [stages.NO_MATCHED_NOTE] if compared and stages.MATCHED not in present else []


def _arms_apart(layout: Layout) -> list[str]:
    """Which rows are compared with no other, or only some."""
    sentences = []
    if lost := rows_without_baseline(layout):
        arm = layout.names.arm(BASELINE)
        names = listed((row.text for row in lost), 6)
        sentences.append(f"Not compared with {arm}, since several of its rows answer to them: {names}.")
    if layout.by_study:
        sentences.append("Studies are compared each within itself: best means and differences are those of a study.")
    present = {c.origin.stage for c in layout.cells.values()}
    return sentences + [_stage_meaning(layout, stage) for stage in SAID_BESIDE if stage in present]


def _symbols(layout: Layout) -> list[str]:
    keys = {pair for label in (*layout.rows, *layout.panels) for pair in label.keys}
    named = {key for key, _ in keys}
    named |= {str(key) for key in (layout.column_key, layout.row_key, layout.panel_key)}
    used = [text + (" (null: all that a fold or split leaves)" if (key, None) in keys else "")
            for key, text in SYMBOL_MEANINGS.items() if key in named and layout.names.uses_symbol(key)]  # fmt: skip
    return ["; ".join(used) + "."] if used else []


def _differences(layout: Layout, found: Sequence[Difference]) -> list[str]:
    """How the differences are paired and bounded. What controls are is said of their rows (`stages.MEANINGS`)."""
    sentences = []
    if found:
        kind = "corrected t" if layout.has_folds else "t"
        by = " or ".join(filter(None, ["replicate" if layout.designs != ["folds"] else "",
                                       "fold and repeat" if layout.has_folds else ""]))  # fmt: skip
        around = f", with a {kind} interval on the differences" if _with_bounds(found) else ""
        sentences.append(f"Differences are paired by {by}{around}.")
    if any(difference.kind == TO_TEACHER for difference in found):
        sentences.append("“Its teacher” is the one whose labels the student learned from (the first of an ensemble).")
    return sentences


def _stage_meanings(layout: Layout) -> list[str]:
    """What the reference rows are; of some it is said beside the table."""
    present = {c.origin.stage for c in layout.cells.values()} - {*SAID_BESIDE}
    return [_stage_meaning(layout, stage) for stage in stages.MEANINGS if stage in present]


def _stage_meaning(layout: Layout, stage: str) -> str:
    return f"{stages.MEANINGS[stage].replace(stage, layout.names.texts.get(stage, stage), 1)}."


def _training_seen(layout: Layout) -> list[str]:
    """How much training saw, of students and teachers."""
    visits: dict[str, set[float]] = {stages.TEACHER: set(), stages.STUDENT: set(), stages.MATCHED: set()}
    present = {cell.origin.stage for cell in layout.cells.values()}
    if stages.STUDENT not in present:
        return []
    for cell in layout.cells.values():
        if cell.origin.instance_visits is not None and cell.origin.stage in visits:
            visits[cell.origin.stage].add(round(cell.origin.instance_visits))
    if not all(visits[stage] for stage in visits if stage in present):
        return []
    names = {stages.TEACHER: "teachers", stages.STUDENT: "students", stages.MATCHED: "matched teachers"}
    texts = [
        f"{names[stage]} {min(found):,.0f}" + (f" to {max(found):,.0f}" if len(found) > 1 else "")
        for stage, found in visits.items() if found
    ]  # fmt: skip
    return [f"Instances that training saw, each as often as it was drawn: {', '.join(texts)}."]


def _cells(layout: Layout, bounds: bool) -> str:
    """What a cell is: metric, split, range, interval and count."""
    around = (" [its 95 % interval]" if bounds else " ± half its 95 % interval") if _has_intervals(layout) else ""
    count = cell_counts_text((c, c.planned) for c in layout.cells.values())
    shown = f"({what_of_metrics(layout.metrics)}){around} (count; {count} planned)."
    splits = {metric.split for metric in layout.metrics}
    where = next(iter(splits)) if len(splits) == 1 else ""
    if layout.column_key == METRICS and len(layout.metrics) > 1:
        return f"Mean{f' on {where} data' if where else ''} {shown}"
    return f"Mean {where} {layout.metric.title} {shown}".replace("  ", " ")


def what_of_metrics(metrics: Sequence[Metric]) -> str:
    """Range or unit of metrics, and the direction that is better; where they differ, of each kind."""
    by_scale: dict[str, list[str]] = {}
    for metric in metrics:
        by_scale.setdefault(metric.scale, []).append(metric.title)
    if len(by_scale) == 1:
        return next(iter(by_scale))
    return "; ".join(f"{listed(titles, 3)}: {scale}" for scale, titles in by_scale.items())


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


def _at_half(metrics: Sequence[Metric]) -> list[str]:
    """Which metrics take a score of 0.5 for the border, where a model need not have it."""
    words = ((one.title, {*one.name.split("_")}) for one in metrics)
    found = [title for title, of in words if of & {"accuracy", "precision", "recall", "f1"} and "tuned" not in of]
    shown = dict.fromkeys(title.removeprefix("bag ").removeprefix("instance ") for title in found)
    return [f"At a score of 0.5, not at a model's own threshold: {listed(shown, 10)}."] if found else []


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
        "t on the log": "t on the log, transformed back",
        "corrected t": "t, corrected for folds",
        "corrected t on the logit": "t on the logit, corrected for folds, transformed back",
        "corrected t on the log": "t on the log, corrected for folds, transformed back",
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
            "Replicates are new initialisations; where the split names no validation bags, or num_bags takes a part of "
            "the training bags, those are drawn anew."
        )
    return sentences


VALIDATION_CHOSE = "Validation bags also chose the snapshots, so these values are optimistic."
GIVEN_SPLIT = "Replicates share the given split: nothing is said of other test bags or of another split."
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
    aside = [stages.ORACLE_MARK] if any(c.origin.stage == stages.ORACLE for c in cells) else []
    aside += ["means of fewer values than others"] if any(c.status == "partial" for c in cells) else []
    marked = f", {' and '.join(aside)} aside" if aside else ""
    better = {metric.better for metric in layout.metrics}
    which = f"{next(iter(better))} is better" if len(better) == 1 else "lower is better for losses"
    apart = listed(map(layout.names.key, task_keys(layout)))
    sentences = [f"Bold: best mean of a {line}{f' for each {apart}' if apart else ''} ({which}{marked})."]
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
        NO_INSTANCE_LABELS: "No instance labels: the data have none, so that nothing of instances can be measured.",
    }
    return [text for status, text in meanings.items() if status in present]
