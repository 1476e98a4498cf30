"""From the stored results of studies to tables, tests, intervals and figures. Reads results, never trains.

    import analysis
    rows = analysis.load("vat_quick")                  # one row per run, as a DataFrame; several studies: a list
    rows = analysis.load("vat_quick", tracking_uri="http://127.0.0.1:5000")   # from MLflow alone
    rows = analysis.load("rows.parquet")               # from an exported file
    analysis.table(rows, "instance_auc")               # shows itself in a notebook; .text("latex"), .frame()
    analysis.image_table(rows)                         # metrics of instances, with intervals over images
    analysis.compare(rows, {"method": "none"})         # paired tests; .frame() has the p-values
    analysis.figure(rows, "roc")                       # a matplotlib Figure; kinds as of the command
    rows = analysis.load("vat_quick", labels={"none": "Attention MIL"})   # names for print
    scores = analysis.load_predictions("vat_quick", method="vat", split="test", level="bag")

Behind them: `mean_interval`, `paired_difference`, `delong_test`, `cluster_bootstrap`, `corrected_t`, `paired_t`,
`wilcoxon`, `holm`, `pooled_rows`. The commands are in `python -m analysis --help`. Nothing heavy is imported here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from analysis.rows.loading import load
from analysis.rows.stored_predictions import load_predictions

if TYPE_CHECKING:
    from analysis.cells.out_of_fold import pooled_rows
    from analysis.figures.figure import figure
    from analysis.statistics.cluster_bootstrap import cluster_bootstrap
    from analysis.statistics.delong import delong_test
    from analysis.statistics.intervals import mean_interval, paired_difference
    from analysis.statistics.paired_tests import corrected_t, holm, paired_t, wilcoxon
    from analysis.tables.comparison import compare
    from analysis.tables.image_table import image_table
    from analysis.tables.study_table import render, table

_LAZY = {
    "cluster_bootstrap": "statistics.cluster_bootstrap",
    "compare": "tables.comparison",
    "delong_test": "statistics.delong",
    "figure": "figures.figure",
    "image_table": "tables.image_table",
    "mean_interval": "statistics.intervals",
    "paired_difference": "statistics.intervals",
    "pooled_rows": "cells.out_of_fold",
    "corrected_t": "statistics.paired_tests",
    "holm": "statistics.paired_tests",
    "paired_t": "statistics.paired_tests",
    "wilcoxon": "statistics.paired_tests",
    "render": "tables.study_table",
    "table": "tables.study_table",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(f"analysis.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")


__all__ = [
    "cluster_bootstrap", "compare", "corrected_t", "delong_test", "figure", "holm", "image_table", "load",
    "load_predictions", "mean_interval", "paired_difference", "paired_t", "pooled_rows", "render", "table", "wilcoxon",
]  # fmt: skip
