"""One notation of intervals in one table, and no half-width beyond any difference."""

import csv
import io

import numpy as np
from make_study import make_study

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.report.report import make_report
from analysis.statistics.intervals import paired_difference
from analysis.tables.comparison import compare
from analysis.tables.number_style import styles_of
from analysis.tables.study_table import table


def test_one_notation_of_intervals_in_one_table(tmp_path):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=4).rows()
    rows["bag_auc"], rows["instance_auc"] = 1.0, np.tile([0.999, 0.95, 0.99, 0.97], 2)
    layout = arrange(rows, ["bag_auc", "instance_auc"], "method", METRICS, None)
    styles = styles_of(layout, [])
    interval_text = {c.metric.name: styles[c.metric.name].interval_text(c.interval) for c in layout.cells.values()}
    assert interval_text["bag_auc"] == "[1.000, 1.000]" and interval_text["instance_auc"].startswith("[")


def test_a_half_width_beyond_any_difference_is_not_printed(labelled):
    rows = analysis.load("made", labelled)
    two = rows[rows["replicate"] < 2].copy()
    two.loc[two["method"] == "none", "bag_auc"] = [0.1, 0.9, 0.5, 0.5]
    two.loc[two["method"] == "vat", "bag_auc"] = [0.9, 0.6, 0.6, 0.7]
    text = table(two).text()
    assert "+0.250 (± not estimable from 2)" in text and "+0.150 ± 0.635 (2)" in text
    assert "Not estimable: an interval from so few pairs" in " ".join(text.split())
    assert "[not estimable]" in compare(two).text()
    (line,) = [one for one in csv.DictReader(io.StringIO(table(two).text("csv")))
               if one["baseline"] and one["num_bags"] == "20"]  # fmt: skip
    assert (line["interval"], line["lower"], line["half_width"]) == ("not estimable", "", "")
    assert "± not estimable from 2" in make_report(two)
    loss = paired_difference({0: 1.0, 1: 90.0}, {0: 0.0, 1: 0.0})
    assert loss.half_width > 1  # of a metric without bounds it is an interval like any other
