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

from analysis import stages
from analysis.differences import baseline_for, difference_of
from analysis.intervals import Interval, paired_values
from analysis.layout import METRICS, Cell, Label, Layout, arrange, default_columns, default_panel, show
from analysis.number_style import styles_of
from analysis.paired_tests import TestResult, corrected_t, holm, paired_t, smallest_wilcoxon, wilcoxon
from analysis.results import folders_of, run_predictions
from analysis.sheet import NOTHING, Entry, Group, Line, Panel, Sheet
from analysis.tables import AUTO, check_format, column_head
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.folder import StudyFolder

TESTS = ("paired", "delong", "clusters")
RESAMPLES = 1999


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

    def sheet(self) -> Sheet:
        return _sheet(self)

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
        return pd.DataFrame(rows)

    def text(self, format: str = "markdown") -> str:
        """As text that ends with a newline. UserError for an unknown format, or parquet, which is none."""
        from analysis.write_html import write_html
        from analysis.write_latex import write_latex
        from analysis.write_markdown import write_markdown

        check_format(format)
        if format == "csv":
            return self.frame().to_csv(index=False)
        if format == "parquet":
            raise UserError("--format parquet: is no text and cannot be printed; name a file with --out")
        return {"markdown": write_markdown, "latex": write_latex, "html": write_html}[format](self.sheet())

    def _repr_html_(self) -> str:
        from analysis.write_html import STYLE, html_fragment

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
    test_train_ratio: of folds; by default 1 / (folds − 2)
    replicates: of delong and clusters, only these
    UserError for an unknown test, metric or key, or where nothing answers to the baseline.
    """
    if test not in TESTS:
        raise UserError(f"--test {test}: not known{nearest(test, TESTS)} (tests: {', '.join(TESTS)})")
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
    if not pairs:
        names = listed(dict.fromkeys(row.text for row in layout.rows))
        text = " ".join(f"{key}={value}" for key, value in wanted.items())
        raise UserError(f"--baseline {text}: nothing to compare with it (rows: {names})")
    if test == "paired":
        found = [_paired(*pair) for pair in pairs]
    else:
        found = list(_by_predictions(rows, pairs, test, replicates, notes))
    return Comparison(layout, test, wanted, _corrected([one for one in found if one.difference.count]), notes)


Pair = tuple[Label, Label, Label, Label, Cell, Cell]
"""panel, row, column, the baseline's row; the row's cell and the baseline's."""


def _pairs(layout: Layout, wanted: Mapping[str, str], notes: list[str]) -> Iterator[Pair]:
    unclear = set()
    for panel in layout.panels:
        rows = layout.rows_of(panel)
        baselines = [row for row in rows if _answers(row, wanted)]
        for row in rows:
            if row.stage == stages.ORACLE or row in baselines:
                continue
            own = baseline_for(row, baselines)
            if own is None:
                unclear |= {row.text} if baselines else set()
                continue
            for column in layout.columns_of(panel):
                cell, other = (layout.cells.get((panel, one, column)) for one in (row, own))
                if cell is not None and other is not None and cell.status != "no such metric":
                    yield panel, row, column, own, cell, other
    if unclear:
        notes.append(f"Not compared, since several baselines answer to them: {listed(sorted(unclear))}.")


def _answers(row: Label, wanted: Mapping[str, str]) -> bool:
    keys: dict[str | None, Any] = {row.key: row.value, "stage": row.stage}
    keys.update(row.keys)
    return all(key in keys and show(keys[key]) == value for key, value in wanted.items())


def _paired(panel: Label, row: Label, column: Label, own: Label, cell: Cell, other: Cell) -> Compared:
    both = cell.values.keys() & other.values.keys()
    d = paired_values(cell.values, other.values)
    ratio = cell.test_train_ratio
    tests = (paired_t(d), wilcoxon(d)) if ratio is None else (corrected_t(d, ratio),)
    ours, theirs = (float(np.mean([one.values[r] for r in both])) if both else math.nan for one in (cell, other))
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

    lost = 0
    for panel, row, column, against, cell, other in pairs:
        for replicate in sorted(cell.values.keys() & other.values.keys()):
            if replicates is not None and replicate not in replicates:
                continue
            ours, theirs = read(cell, replicate), read(other, replicate)
            if len(ours[0]) != len(theirs[0]) or any((a != b).any() for a, b in zip(ours[:2], theirs[:2], strict=True)):
                lost += 1
                continue
            made = _delong(ours, theirs) if test == "delong" else _clusters(ours, theirs)
            first, second, interval, result, units = made
            yield Compared(panel, row, column, against, first, second, interval, (result,), (), replicate, units)
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
    from analysis.delong import delong_test

    test = delong_test(ours[2], ours[3], theirs[3])
    interval = Interval(test.difference, test.lower, test.upper, test.positives + test.negatives, "t")
    result = TestResult("DeLong", test.z, test.p, 0.0, test.positives + test.negatives)
    return test.first, test.second, interval, result, f"{test.positives} + {test.negatives} bags"


def _clusters(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> _Made:
    from analysis.clusters import cluster_bootstrap

    test = cluster_bootstrap(ours[2], ours[3], theirs[3], ours[0], resamples=RESAMPLES)
    interval = Interval(test.difference, test.lower, test.upper, test.clusters, "t")
    result = TestResult("cluster bootstrap", math.nan, test.p, test.smallest_p, test.clusters)
    return test.first, test.second, interval, result, f"{test.clusters} images, {test.instances} instances"


def _corrected(found: list[Compared]) -> list[Compared]:
    kinds = max((len(one.tests) for one in found), default=0)
    columns = [holm([one.tests[i].p for one in found]) for i in range(kinds)]
    return [replace(one, p_holm=tuple(column[j] for column in columns)) for j, one in enumerate(found)]


# ---- as a sheet
def _sheet(made: Comparison) -> Sheet:
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
            place = ", ".join(filter(None, (where, "" if one.replicate is None else f"r{one.replicate:03d}")))
            style = styles[layout.metric_of(one.column).name]
            decimals = style.decimals + 1
            head = f"{one.row.text} − {one.baseline.text}"
            entries = [Entry(place), *(Entry(f"{v:.{decimals}f}", value=v) for v in (one.baseline_mean, one.mean))]
            count = one.difference.count if made.test == "paired" else None
            lines.append(Line(head, [*entries, _difference(one.difference, decimals, count), *_tests(made, one)]))
        if lines:
            panels.append(Panel(panel, _heads(made), [Group("", lines)]))
    text = " ".join(f"{key}={value}" for key, value in made.baseline.items())
    what = layout.metric.heading if len(layout.metrics) == 1 else "metrics"
    title = f"{layout.study}: {what}, compared with {text}"
    return Sheet(title, f"{layout.study}-compared-{made.test}", panels, _caption(made))


def _heads(made: Comparison) -> list[Label | str]:
    middle: list[Label | str] = ["", "baseline", "method", "difference"]
    if made.test != "paired":
        return [*middle, "counted", "p", "Holm", "smallest p"]
    if made.layout.folds:
        return [*middle, "p (corrected t)", "Holm"]
    return [*middle, "p (t)", "Holm", "p (Wilcoxon)", "Holm", "smallest p"]


def _difference(interval: Interval, decimals: int, count: int | None) -> Entry:
    bounds = ""
    if interval.has_bounds:
        bounds = f"[{interval.lower:+.{decimals}f}, {interval.upper:+.{decimals}f}]".replace("-", "−")
    mean = f"{interval.mean:+.{decimals}f}".replace("-", "−")
    return Entry(mean, bounds, "" if count is None else f"({count})", value=interval.mean)


def _tests(made: Comparison, one: Compared) -> list[Entry]:
    entries = [] if made.test == "paired" else [Entry(one.units)]
    for test, corrected in zip(one.tests, one.p_holm, strict=True):
        entries += [_p(test.p), _p(corrected)]
    if made.test != "paired":
        smallest = one.tests[0].smallest_p
        return [*entries, _p(smallest) if smallest else NOTHING]
    return entries if made.layout.folds else [*entries, _p(one.tests[1].smallest_p)]


def _p(p: float) -> Entry:
    if math.isnan(p):
        return NOTHING
    return Entry("< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}", value=p)


def _caption(made: Comparison) -> list[str]:
    metrics = made.layout.metrics
    count = len(made.found)
    sentences = []
    if any(metric.split == "validation" for metric in metrics):
        sentences.append("Validation bags also chose the snapshots, so these values are optimistic.")
    holm_text = f"Holm: corrected over the {count} comparison{'s' if count != 1 else ''} of this table."
    if made.test == "delong":
        sentences += [
            "DeLong's test of two trained models on the test bags of one replicate, with the normal interval of the "
            "difference of their AUCs; bags are independent, trainings are not varied: for a claim about methods "
            "compare replicates. It is an approximation for many bags and has no smallest p.",
        ]
    elif made.test == "clusters":
        sentences += [
            f"Two trained models on the instances of the test images of one replicate; {RESAMPLES} bootstrap samples "
            "of whole images, percentile interval, too narrow below about 20 images; trainings are not varied. "
            "Smallest p: 2 / (samples + 1).",
        ]
    elif made.layout.folds:
        ratios = sorted({one.test_train_ratio for one in made.layout.cells.values() if one.test_train_ratio})
        sentences += [
            "Difference by fold and repeat: mean [95 % interval] (count). Folds share training data: interval and "
            f"test are corrected (Nadeau and Bengio 2003; test / training bags {listed(f'{r:.3g}' for r in ratios)}), "
            "and Wilcoxon's test, which cannot be, is left out. The corrected t test has no smallest p. Nothing is "
            "said of another data set.",
        ]
    else:
        counts = sorted({one.tests[1].count for one in made.found})
        least = listed(f"{smallest_wilcoxon(n):.3g} at {n}" for n in counts)
        reached = min((one.tests[1].smallest_p * count for one in made.found), default=math.nan)
        sentences += [
            "Difference by replicate (new bags and initialisations): mean [95 % t interval] (pairs). The t test takes "
            "the differences for normal and has no smallest p; Wilcoxon's is exact where it can be, its smallest "
            f"two-sided p is {least} pairs, after Holm over this table {min(1.0, reached):.3g}.",
        ]
        if reached >= 0.05:
            sentences.append("So Wilcoxon's test can reject nothing here at 0.05, whatever the data.")
    sentences.append(holm_text)
    sentences.append("A large p is no proof of equality: look at the interval.")
    return sentences + made.notes
