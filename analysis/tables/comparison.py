"""Methods against one of them, tested: the table behind `d2l compare`. What the tests ask and assume is
in `cells.comparisons`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.cells.arrange import arrange
from analysis.cells.comparisons import Comparisons, compare_cells
from analysis.cells.differences import BASELINE, plain_arm
from analysis.cells.layout import METRICS, default_columns, default_panel
from analysis.rows import stages
from analysis.rows.csv_text import to_csv
from analysis.statistics.weighted_metrics import WEIGHTED_METRICS
from analysis.tables.comparison_sheet import comparison_sheet
from analysis.tables.formatted import FormattedTable
from analysis.tables.options import AUTO, TESTS
from analysis.tables.sheet import Sheet
from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.ledger.ledger import trial_id

if TYPE_CHECKING:
    import pandas

METRICS_OF_TEST = {"delong": ("bag_auc",), "clusters": tuple(WEIGHTED_METRICS)}
"""Those that a test of two models can be about; the first by default."""


class Comparison(Comparisons, FormattedTable):
    """The table of all comparisons; shows itself in a notebook."""

    def sheet(self) -> Sheet:
        """A line per comparison, and what the tests say and assume."""
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
                    "baseline": one.baseline.text, "trial_id": trial_id(one.config_id),
                    "baseline_trial_id": trial_id(one.baseline_config_id), "replicate": one.replicate, "mean": one.mean,
                    "baseline_mean": one.baseline_mean, "difference": one.difference.mean,
                    "lower": one.difference.lower, "upper": one.difference.upper, "count": one.difference.count,
                    "interval": one.difference.kind, "test": test.name, "statistic": test.statistic, "p": test.p,
                    "p_holm": p_holm, "smallest_p": test.smallest_p, "units": one.units,
                })  # fmt: skip
        if any(stages.ORACLE_SEARCH_NOTE in note for note in self.layout.notes):
            rows = [row | {"search_oracle": True} for row in rows]
        return pd.DataFrame(rows)

    def csv(self) -> str:
        """`frame` as CSV."""
        return to_csv(self.frame())


def compare(
    rows: pandas.DataFrame,
    baseline: Mapping[str, str] | None = None,
    metric: str | Sequence[str] | None = None,
    *,
    controls: bool = False,
    test: str = "paired",
    column_key: str = AUTO,
    panel_key: str | None = AUTO,
    test_train_ratio: float | None = None,
    replicates: Sequence[int] | None = None,
) -> Comparison:
    """Every method of a study's rows (`analysis.load`) against a baseline, in each column and panel of the table.

    baseline: values of keys that name it, by default the method none, or the first one where none is called so; where
        several configurations answer to it, a method is compared with the one that agrees with it in every key that
        both labels name
    controls: students against their own teachers and controls, instead of a baseline
    metric: by default as in `table`; of `delong` it is bag_auc, of `clusters` instance_auc or another one that is
        resampled by image (`WEIGHTED_METRICS`)
    test: one of `TESTS`; delong and clusters read the stored predictions
    test_train_ratio: of folds; by default that of the bags that the runs tested and trained on
    replicates: of delong and clusters, only these
    UserError for an unknown test, metric, key or replicate, or where there is nothing to compare.
    """
    if controls and baseline:
        raise UserError("--controls: not beside --baseline; students are compared with their own teachers and controls")
    if test not in TESTS:
        raise UserError(f"--test {test}: not known{nearest(test, TESTS)} (tests: {', '.join(TESTS)})")
    if replicates is not None:
        _check_replicates(rows, test, replicates)
    own = METRICS_OF_TEST.get(test)
    if own is not None:
        metric = own[0] if metric is None else metric
        for name in [metric] if isinstance(metric, str) else metric:
            if name not in own:
                raise UserError(f"--test {test}: is about {listed(own)}, found --metric {name}")
    if isinstance(metric, list | tuple) and len(metric) == 1:
        metric = metric[0]
    columns = column_key
    if columns == AUTO:
        several = metric is not None and not isinstance(metric, str)
        columns = METRICS if several else default_columns(rows)
    panel = default_panel(rows) if panel_key == AUTO else panel_key
    layout = arrange(rows, metric, "method", columns, None if panel == columns else panel,
                     test_train_ratio=test_train_ratio)  # fmt: skip
    named = None if controls else dict(baseline or {"method": plain_arm(layout) or BASELINE})
    compared = compare_cells(rows, layout, named, test, replicates, by_default=not (controls or baseline))
    return Comparison(**vars(compared))


def _check_replicates(rows: pandas.DataFrame, test: str, wanted: Sequence[int]) -> None:
    text = " ".join(map(str, wanted))
    if test == "paired":
        raise UserError(f"--replicate {text}: is of --test delong and clusters; --test paired is over all replicates")
    there = sorted({int(replicate) for replicate in rows["replicate"]})
    if unknown := [replicate for replicate in wanted if replicate not in there]:
        raise UserError(f"--replicate {unknown[0]}: not in this study (there: {listed(there, 30)})")
