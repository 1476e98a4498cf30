"""Methods against one of them, tested: the table behind `python -m analysis compare`.

Three questions, three tests (`TESTS`):

    paired     would the method be better with new bags and initialisations? Differences by replicate with an
               interval, Student's t and Wilcoxon's test (`paired_tests`). For folds of one data set, which are not
               independent, the corrected resampled t test alone: Wilcoxon's has no such correction.
    delong     do these two trained models differ on the population of bags that one test set was drawn from?
               DeLong's test (`delong`), replicate by replicate, from the stored predictions of the test bags. It says
               nothing of another training.
    clusters   the same for the instances of given bags: images drawn with all their patches (`clusters`),
               since patches of one image are not independent.

Holm's correction is over all comparisons of the table, for each test on its own. The oracle is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.differences import baseline_for, difference_of
from analysis.cells.layout import METRICS, Cell, Label, Layout, default_columns, default_panel, show
from analysis.cells.machines import differing_pairs
from analysis.rows import stages
from analysis.rows.csv_text import to_csv
from analysis.rows.results import folders_of, run_predictions
from analysis.statistics.intervals import Interval, paired_values, unit_values
from analysis.statistics.paired_tests import TestResult, corrected_t, holm, paired_t, wilcoxon
from analysis.tables.comparison_sheet import comparison_sheet, said
from analysis.tables.sheet import Sheet
from analysis.tables.tables import AUTO, NO_TEXT, check_format
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

TESTS = ("paired", "delong", "clusters")
RESAMPLES = 1999
FEW_BAGS = 20
"""Of a class, below which DeLong's normal approximation is poor."""


@dataclass(frozen=True)
class Compared:
    """One comparison: the cell of a row and a column with that of the baseline."""

    panel: Label
    row: Label
    column: Label
    baseline: Label
    mean: float
    baseline_mean: float
    """Over the common replicates; of `delong` and `clusters` the AUCs of the two models."""
    difference: Interval
    tests: tuple[TestResult, ...]
    p_holm: tuple[float, ...]
    """For each of the tests."""
    replicate: int | None = None
    """Of `delong` and `clusters`, which compare two models of one replicate."""
    units: str = ""
    """What the test counted: `500 + 500 bags`."""


@dataclass
class Comparison:
    layout: Layout
    test: str
    baseline: Mapping[str, str]
    found: list[Compared]
    notes: list[str]
    resamples: int = RESAMPLES
    """Of `clusters`."""

    def sheet(self) -> Sheet:
        return comparison_sheet(self)

    def frame(self) -> pandas.DataFrame:
        """One row per comparison and test, numbers unrounded."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for one in self.found:
            keys: dict[str, Any] = {}
            for label in (one.panel, one.row, one.column):
                keys |= {} if label.key is None or label.key == METRICS else {label.key: label.value}
                keys |= dict(label.keys)
            metric = self.layout.metric_of(one.column)
            for test, p_holm in zip(one.tests, one.p_holm, strict=True):
                rows.append({
                    "study": self.layout.study, "metric": metric.name, **keys, "row": one.row.text,
                    "baseline": one.baseline.text, "replicate": one.replicate, "mean": one.mean,
                    "baseline_mean": one.baseline_mean, "difference": one.difference.mean,
                    "lower": one.difference.lower, "upper": one.difference.upper, "count": one.difference.count,
                    "interval": one.difference.kind, "test": test.name, "statistic": test.statistic, "p": test.p,
                    "p_holm": p_holm, "smallest_p": test.smallest_p, "units": one.units,
                })  # fmt: skip
        if any(stages.ORACLE_SEARCH in note for note in self.layout.notes):
            rows = [row | {"search_oracle": True} for row in rows]
        return pd.DataFrame(rows)

    def text(self, format: str = "markdown") -> str:
        """As text that ends with a newline. UserError for an unknown format, or parquet, which is none."""
        from analysis.tables.html import write_html
        from analysis.tables.latex import write_latex
        from analysis.tables.markdown import write_markdown

        check_format(format)
        if format == "csv":
            return to_csv(self.frame())
        if format == "parquet":
            raise UserError(NO_TEXT)
        return {"markdown": write_markdown, "latex": write_latex, "html": write_html}[format](self.sheet())

    def _repr_html_(self) -> str:
        from analysis.tables.html import STYLE, html_fragment

        return f"<style>{STYLE}</style>{html_fragment(self.sheet())}"


def compare(
    rows: pandas.DataFrame,
    baseline: Mapping[str, str] | None = None,
    metric: str | Sequence[str] | None = None,
    *,
    test: str = "paired",
    column_key: str = AUTO,
    panel_key: str | None = AUTO,
    test_train_ratio: float | None = None,
    replicates: Sequence[int] | None = None,
) -> Comparison:
    """Every method of a study's rows (`analysis.load`) against a baseline, in each column and panel of the table.

    baseline: values of keys that name it, by default {"method": "none"}; where several configurations answer to it, a
        method is compared with the one that agrees with it in every key that both labels name
    metric: by default as in `tables`; of `delong` it is bag_auc, of `clusters` instance_auc
    test: one of `TESTS`; delong and clusters read the stored predictions
    test_train_ratio: of folds; by default that of the bags that the runs tested and trained on
    replicates: of delong and clusters, only these
    UserError for an unknown test, metric, key or replicate, or where there is nothing to compare.
    """
    if test not in TESTS:
        raise UserError(f"--test {test}: not known{nearest(test, TESTS)} (tests: {', '.join(TESTS)})")
    if replicates is not None:
        _check_replicates(rows, test, replicates)
    own = {"delong": "bag_auc", "clusters": "instance_auc"}.get(test)
    if own is not None and metric not in (None, own, [own]):
        raise UserError(f"--test {test}: is about {own}, found --metric {metric}")
    metric = own or metric
    if isinstance(metric, list | tuple) and len(metric) == 1:
        metric = metric[0]
    columns = column_key
    if columns == AUTO:
        several = metric is not None and not isinstance(metric, str)
        columns = METRICS if several else default_columns(rows)
    panel = default_panel(rows) if panel_key == AUTO else panel_key
    layout = arrange(rows, metric, "method", columns, None if panel == columns else panel,
                     test_train_ratio=test_train_ratio)  # fmt: skip
    wanted = dict(baseline or {"method": "none"})
    notes: list[str] = []
    pairs = list(_pairs(layout, wanted, notes))
    if test == "paired" and len({cell.test_train_ratio is None for *_, cell, _ in pairs}) > 1:
        raise UserError(
            f"{layout.study}: the replicates of some are folds of one data set, those of others are not and need "
            "another test; compare them one at a time"
        )
    if not pairs:
        raise UserError(_no_baseline(layout, wanted))
    notes += differing_pairs((f"{row.text} − {own.text}", cell, other) for _, row, _, own, cell, other in pairs)
    if test == "paired":
        found = [_paired(*pair) for pair in pairs]
        if alone := [one for one in found if not one.difference.count]:
            places = dict.fromkeys(
                ", ".join(filter(None, (one.row.text, one.panel.text, one.column.text))) for one in alone
            )
            notes.append(f"No replicate is finished on both sides: {listed(places)}.")
            found = [one for one in found if one.difference.count]
    else:
        found = list(_by_predictions(rows, pairs, test, replicates, notes))
    if not found:
        raise UserError(f"--baseline {said(wanted)}: no replicate is finished both there and in another row")
    return Comparison(layout, test, wanted, _corrected(found), notes)


def _check_replicates(rows: pandas.DataFrame, test: str, wanted: Sequence[int]) -> None:
    text = " ".join(map(str, wanted))
    if test == "paired":
        raise UserError(f"--replicate {text}: is of --test delong and clusters; --test paired is over all replicates")
    there = sorted({int(replicate) for replicate in rows["replicate"]})
    if unknown := [replicate for replicate in wanted if replicate not in there]:
        raise UserError(f"--replicate {unknown[0]}: not in this study (there: {listed(there, 30)})")


def _no_baseline(layout: Layout, wanted: Mapping[str, str]) -> str:
    """Why nothing can be compared with the rows that answer to the baseline."""
    rows = f"rows: {listed(dict.fromkeys(row.plain for row in layout.rows))}"
    known: dict[str, dict[str, None]] = {}
    for row in layout.rows:
        for key, value in _keys_of(row).items():
            known.setdefault(key, {})[show(value)] = None
    for key, value in wanted.items():
        key = next((own for own in known if key in (own, layout.names.key(own))), key)
        if key not in known:
            return (
                f"--baseline {key}={value}: rows have no such key{nearest(key, known)} (keys: {listed(known)}; {rows})"
            )
        if not any(_answers(row, {key: value}) for row in layout.rows):
            return f"--baseline {key}={value}: no row has it{nearest(value, known[key])} (there: {listed(known[key])})"
    answering = [row for row in layout.rows if _answers(row, wanted)]
    if answering and all(row in answering or row.stage == stages.ORACLE for row in layout.rows):
        return f"--baseline {said(wanted)}: all rows answer to it, so that none is left to compare ({rows})"
    return f"--baseline {said(wanted)}: nothing to compare with it ({rows})"


Pair = tuple[Label, Label, Label, Label, Cell, Cell]
"""panel, row, column, the baseline's row; the row's cell and the baseline's."""


def _pairs(layout: Layout, wanted: Mapping[str, str], notes: list[str]) -> Iterator[Pair]:
    unclear, alone = set(), dict[str, None]()
    for panel in layout.panels:
        rows = layout.rows_of(panel)
        baselines = [row for row in rows if _answers(row, wanted)]
        for row in rows:
            if row.stage == stages.ORACLE or row in baselines:
                continue
            own = baseline_for(row, baselines)
            if own is None:
                if any(one.study == row.study for one in baselines):
                    unclear.add(row.text)
                elif baselines:
                    alone[row.text] = None
                continue
            for column in layout.columns_of(panel):
                cell, other = (layout.cells.get((panel, one, column)) for one in (row, own))
                if cell is not None and other is not None and cell.status != "no such metric":
                    yield panel, row, column, own, cell, other
    if unclear:
        notes.append(f"Not compared, since several baselines answer to them: {listed(sorted(unclear))}.")
    if alone:
        notes.append(f"Not compared, since no baseline of their own study answers to them: {listed(alone)}.")


def _keys_of(row: Label) -> dict[str, Any]:
    """What a baseline can name of a row, by the names of the space; those for print are taken too (`_answers`)."""
    return {str(row.key): row.value, "stage": row.stage, **dict(row.keys)}


def _answers(row: Label, wanted: Mapping[str, str]) -> bool:
    shown = {name: row.names.shown(key, show(value)) for key, value in _keys_of(row).items()
             for name in (row.names.key(key), key)}  # fmt: skip
    return all(value in shown.get(key, ()) for key, value in wanted.items())


def _paired(panel: Label, row: Label, column: Label, own: Label, cell: Cell, other: Cell) -> Compared:
    both = cell.values.keys() & other.values.keys()
    d = paired_values(cell.values, other.values, cell.units)
    ratio = cell.test_train_ratio
    tests = (paired_t(d), wilcoxon(d)) if ratio is None else (corrected_t(d, ratio),)
    ours, theirs = (
        float(np.mean(unit_values({r: one.values[r] for r in sorted(both)}, cell.units))) if both else math.nan
        for one in (cell, other)
    )
    return Compared(panel, row, column, own, ours, theirs, difference_of(cell, other), tests, ())


def _by_predictions(
    rows: pandas.DataFrame, pairs: list[Pair], test: str, replicates: Sequence[int] | None, notes: list[str]
) -> Iterator[Compared]:
    folders = folders_of(rows)
    own = rows.drop_duplicates("config_id")
    where = {str(c): folders[str(s)] for c, s in zip(own["config_id"], own["study"], strict=True)}
    stored: dict[tuple[str, int], tuple[np.ndarray, ...]] = {}

    def read(cell: Cell, replicate: int) -> tuple[np.ndarray, ...]:
        key = (cell.origin.config_id, replicate)
        if key not in stored:
            stored[key] = _scores(where[key[0]], *key, "bag" if test == "delong" else "instance")
        return stored[key]

    lost = few = 0
    for panel, row, column, against, cell, other in pairs:
        for replicate in sorted(cell.values.keys() & other.values.keys()):
            if replicates is not None and replicate not in replicates:
                continue
            ours, theirs = read(cell, replicate), read(other, replicate)
            if len(ours[0]) != len(theirs[0]) or any((a != b).any() for a, b in zip(ours[:2], theirs[:2], strict=True)):
                lost += 1
                continue
            few += test == "delong" and min(np.bincount(ours[2], minlength=2)) < FEW_BAGS
            made = _delong(ours, theirs) if test == "delong" else _clusters(ours, theirs)
            first, second, interval, result, units = made
            yield Compared(panel, row, column, against, first, second, interval, (result,), (), replicate, units)
    if few:
        notes.append(f"In {few} of them a class has fewer than {FEW_BAGS} bags: too few for the approximation.")
    if lost:
        notes.append(f"{lost} pairs were left out: their predictions are of different bags.")


def _scores(folder: StudyFolder, config: str, replicate: int, level: str) -> tuple[np.ndarray, ...]:
    """(bag, index, label, logit) of the test predictions whose label is known, in the order of bag and index."""
    frame = run_predictions(folder, config, replicate, split="test", level=level)
    frame = frame[frame["label"].notna()].sort_values(["bag_index", "index"], kind="stable")
    if level == "instance" and (frame["bag_index"] < 0).any():
        raise UserError(
            f"--test clusters: run {config[:10]} r{replicate:03d} does not say which image an instance is of "
            "(drawn bags have no images)"
        )
    if not np.isfinite(frame["logit"]).all():
        raise UserError(f"run {config[:10]} r{replicate:03d} holds predictions that are not finite")
    return tuple(frame[c].to_numpy(t) for c, t in
                 (("bag_index", int), ("index", int), ("label", int), ("logit", float)))  # fmt: skip


_Made = tuple[float, float, Interval, TestResult, str]


def _delong(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> _Made:
    from analysis.statistics.delong import delong_test

    test = delong_test(ours[2], ours[3], theirs[3])
    interval = Interval(test.difference, test.lower, test.upper, test.positives + test.negatives, "t")
    result = TestResult("DeLong", test.z, test.p, 0.0, test.positives + test.negatives)
    return test.first, test.second, interval, result, f"{test.positives} + {test.negatives} bags"


def _clusters(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> _Made:
    from analysis.statistics.cluster_bootstrap import cluster_bootstrap

    test = cluster_bootstrap(ours[2], ours[3], theirs[3], ours[0], resamples=RESAMPLES)
    interval = Interval(test.difference, test.lower, test.upper, test.clusters, "t")
    result = TestResult("cluster bootstrap", math.nan, test.p, test.smallest_p, test.clusters)
    return test.first, test.second, interval, result, f"{test.clusters} images, {test.instances} instances"


def _corrected(found: list[Compared]) -> list[Compared]:
    kinds = max((len(one.tests) for one in found), default=0)
    columns = [holm([one.tests[i].p for one in found]) for i in range(kinds)]
    return [replace(one, p_holm=tuple(column[j] for column in columns)) for j, one in enumerate(found)]
