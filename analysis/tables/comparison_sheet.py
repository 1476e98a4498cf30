"""Comparisons as a sheet: a line for each of them, and the caption that says what the tests assume."""

from __future__ import annotations

import math

from analysis.cells.baseline_pairs import CellComparison, baseline_text
from analysis.cells.comparisons import Comparisons
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import Label
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import LEAST_PAIRS, SIGNIFICANCE_LEVEL
from analysis.tables.caption import (
    REPEATS_AVERAGED,
    no_interval_sentences,
    ratios_text,
    validation_sentences,
    what_of_metrics,
)
from analysis.tables.number_style import NO_INTERVAL, styles_of
from analysis.tables.sheet import EMPTY, Caption, Entry, Group, Line, Panel, Sheet, column_head
from d2l_study.errors import counted, listed


def comparison_sheet(made: Comparisons) -> Sheet:
    """A panel of lines for each panel of the layout that has comparisons."""
    layout = made.layout
    styles = styles_of(layout, [])
    panels = []
    for panel in layout.panels:
        lines = []
        for one in made.found:
            if one.panel != panel:
                continue
            column = column_head(panel, one.column)
            where = column if isinstance(column, str) else column.text
            compared_at = ", ".join(filter(None, (where, "" if one.replicate is None else f"r{one.replicate:03d}")))
            style = styles[layout.metric_of(one.column).name]
            decimals = style.decimals + 1
            head = f"{one.row.text} − {one.baseline.text}"
            entries = [
                Entry(compared_at),
                *(Entry(f"{v:.{decimals}f}", value=v) for v in (one.baseline_mean, one.mean)),
            ]
            count = one.difference.count if made.test == "paired" else None
            lines.append(Line(head, [*entries, _difference(one.difference, decimals, count), *_tests(made, one)]))
        if lines:
            panels.append(Panel(panel, _heads(made), [Group("", lines)]))
    names = layout.names
    named = (made.baseline or {}).items()
    text = " ".join(names.arm(value) if key == "method" and names.arm(value) != value else f"{key}={value}"
                    for key, value in named) or "their teachers and controls"  # fmt: skip
    what = layout.metric.heading if len(layout.metrics) == 1 else "metrics"
    title = f"{layout.study}: {what}, compared with {text}"
    against = "controls" if made.baseline is None else baseline_text(made.baseline)
    name = "-".join([layout.study, *(one.name for one in layout.metrics), "compared", made.test, against])
    return Sheet(title, name, panels, _caption(made))


def _heads(made: Comparisons) -> list[Label | str]:
    middle: list[Label | str] = ["", "baseline", "method", "difference"]
    if made.test != "paired":
        return [*middle, "counted", "p", "Holm", "smallest p"]
    if made.layout.has_folds:
        return [*middle, "p (corrected t)", "Holm"]
    return [*middle, "p (t)", "Holm", "p (Wilcoxon)", "Holm", "smallest p"]


def _difference(interval: Interval, decimals: int, count: int | None) -> Entry:
    bounds = ""
    if interval.has_bounds:
        bounds = f"[{interval.lower:+.{decimals}f}, {interval.upper:+.{decimals}f}]".replace("-", "−")
    elif interval.is_void:
        bounds = NO_INTERVAL
    mean = f"{interval.mean:+.{decimals}f}".replace("-", "−")
    return Entry(mean, bounds, "" if count is None else f"({count})", value=interval.mean)


def _tests(made: Comparisons, one: CellComparison) -> list[Entry]:
    entries = [] if made.test == "paired" else [Entry(one.units)]
    for test, corrected in zip(one.tests, one.p_holm, strict=True):
        entries += [_p(test.p), _p(corrected)]
    if made.test != "paired":
        smallest = one.tests[0].smallest_p
        return [*entries, _p(smallest) if smallest else EMPTY]
    return entries if made.layout.has_folds else [*entries, _p(one.tests[1].smallest_p)]


def _p(p: float) -> Entry:
    if math.isnan(p):
        return EMPTY
    return Entry("< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}", value=p)


def _caption(made: Comparisons) -> Caption:
    beside, details = {"delong": _of_two_models, "clusters": _of_two_models}.get(made.test, _of_pairs)(made)
    beside[:0] = validation_sentences(made.layout)
    if made.test == "paired" and any(one.difference.count < LEAST_PAIRS for one in made.found):
        beside.append(f"Fewer than {LEAST_PAIRS} pairs bear no verdict.")
    beside += no_interval_sentences(one.difference for one in made.found)
    beside += ["A large p is no proof of equality: look at the interval.", *labels_used_sentences(made.layout)]
    whole, over = _corrected_over(made)
    details.append(f"Holm: corrected over {'the ' if whole else ''}{over} of this table{'' if whole else NO_P}.")
    return Caption(_cells(made), beside + made.notes, details)


def _cells(made: Comparisons) -> str:
    """What stands in the columns."""
    metrics = made.layout.metrics
    title = f"{metrics[0].title} " if len(metrics) == 1 else ""
    units = f"{title}({what_of_metrics(metrics)})"
    _, of = _corrected_over(made)
    if made.test != "paired":
        return f"{units[:1].upper()}{units[1:]}: two models, difference [95 % interval], p, and p after Holm over {of}."
    return f"{units[:1].upper()}{units[1:]}: means, difference [95 % interval] (pairs), p, and p after Holm over {of}."


NO_P = "; the others have no p"


def _p_counts(made: Comparisons) -> list[int]:
    """Of each test how many comparisons have a p, which Holm's correction counts. Equal differences have none."""
    columns = zip(*(one.tests for one in made.found), strict=True)
    return [sum(not math.isnan(test.p) for test in column) for column in columns]


def _corrected_over(made: Comparisons) -> tuple[bool, str]:
    """Whether all comparisons have a p of each test, and how many have: `3 comparisons`, `2 of 3 comparisons`."""
    counts, of = _p_counts(made), counted(len(made.found), "comparison")
    if {*counts} <= {len(made.found)}:
        return True, of
    if len({*counts}) == 1:
        return False, f"{counts[0]} of {of}"
    each = " and ".join(f"{count} ({test.name})" for count, test in zip(counts, made.found[0].tests, strict=True))
    return False, f"{each} of {of}"


def _of_two_models(made: Comparisons) -> tuple[list[str], list[str]]:
    """What stands beside the tests of two models on one test set, and how they are made."""
    beside = ["Two trained models: trainings are not varied. For a claim about methods compare replicates."]
    if made.test == "delong":
        return beside, [
            "DeLong's test of two trained models on the test bags of one replicate, with the normal interval of the "
            "difference of their AUCs; bags are independent, or groups of bags where the data name some (Obuchowski "
            "1997). It is an approximation for many bags and has no smallest p.",
        ]  # fmt: skip
    return beside, [
        "Two trained models on the instances of the test images of one replicate; "
        f"{made.resamples} bootstrap samples of whole images, percentile interval. Smallest p: 2 / (samples + 1), or "
        "2^(1 − images) where that is more; of groups of images that of their number.",
    ]


def _of_pairs(made: Comparisons) -> tuple[list[str], list[str]]:
    """What stands beside the tests of methods, paired by replicate or by fold, and how they are made."""
    layout = made.layout
    if layout.has_folds:
        return ["Nothing is said of another data set."], [
            "Difference by fold and repeat. Folds share training data: interval and test are corrected (Nadeau and "
            f"Bengio 2003; test / training bags {ratios_text(layout)}), and Wilcoxon's test, which cannot be, is left "
            "out. The corrected t test has no smallest p.",
            *([REPEATS_AVERAGED] if layout.averages_repeats else []),
        ]
    smallest: dict[int, float] = {}  # ties and equal pairs raise it
    for test in sorted((one.tests[1] for one in made.found), key=lambda test: test.count):
        smallest[test.count] = min(test.smallest_p, smallest.get(test.count, math.inf))
    least = listed(f"{p:.3g} at {n}" for n, p in smallest.items()) + (" pair" if [*smallest] == [1] else " pairs")
    tested = _p_counts(made)[1]
    reached = min((one.tests[1].smallest_p * tested for one in made.found if not math.isnan(one.tests[1].p)),
                  default=math.nan)  # fmt: skip
    split = layout.designs == ["split"]
    new = "new initialisations on one given split" if split else "new bags and initialisations"
    beside = ["Nothing is said of other test bags or of another split."] if split else []
    if reached >= SIGNIFICANCE_LEVEL:
        beside.append("Wilcoxon's test can reject nothing here at 0.05, whatever the data: there are too few pairs.")
    return beside, [
        f"Difference by replicate ({new}), with a t interval. The t test takes the differences for normal and has no "
        "smallest p; Wilcoxon's is exact where it can be, its "
        f"smallest two-sided p is {least}, after Holm over this table {min(1.0, reached):.3g}.",
    ]
