"""One notation of intervals in one table, and a sign in the place of those that say nothing."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from make_study import make_study

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.report.report import make_report
from analysis.statistics.intervals import Interval, paired_difference
from analysis.tables.comparison import compare
from analysis.tables.number_style import BOTH_BOUNDS, BOUNDS_UP_TO, NumberStyle, styles_of
from analysis.tables.study_table import table


def test_one_notation_of_intervals_in_one_table(tmp_path):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=4).rows()
    rows["bag_auc"], rows["instance_auc"] = 1.0, np.tile([0.999, 0.95, 0.99, 0.97], 2)
    layout = arrange(rows, ["bag_auc", "instance_auc"], "method", METRICS, None)
    styles = styles_of(layout, [])
    interval_text = {c.metric.name: styles[c.metric.name].interval_text(c.interval) for c in layout.cells.values()}
    assert interval_text["bag_auc"] == "[–]" and interval_text["instance_auc"].startswith("[0.")


def test_the_documentation_has_both_notations_as_tables_print_them(tmp_path):
    page = (Path(__file__).parents[3] / "docs/tables_and_figures.md").read_text(encoding="utf-8")
    even = NumberStyle(decimals=3, asymmetric=False, bounds=False, difference_decimals=3)
    interval = Interval(0.952, 0.931, 0.973, 5, "t")
    assert f"{even.text(interval)} (5)`" in page
    assert f"{BOTH_BOUNDS.text(replace(interval, lower=0.921, upper=0.971))} (5)`" in page
    assert f"tables of up to {BOUNDS_UP_TO} columns" in page
    # Near 1 a table has both bounds as long as it has the room, and its caption says which.
    for sizes, bounds in (((50,), True), ((50, 60, 70, 80, 90, 100), False)):
        rows = make_study(tmp_path / str(len(sizes)), num_bags=sizes, bag_sizes=(10,), replicates=4).rows()
        rows["bag_auc"] = np.tile([0.999, 0.95, 0.99, 0.97], len(rows) // 4)
        text = " ".join(table(rows).text().split())
        assert ("[its 95 % interval] (count" in text) == bounds and (
            "± half its 95 % interval (count" in text
        ) != bounds


def test_a_difference_without_a_telling_interval_is_shown_with_a_sign(labelled):
    rows = analysis.load("made", labelled)
    two = rows[rows["replicate"] < 2].copy()
    two.loc[two["method"] == "none", "bag_auc"] = [0.1, 0.9, 0.5, 0.5]
    two.loc[two["method"] == "vat", "bag_auc"] = [0.9, 0.6, 0.6, 0.7]
    text = table(two).text()
    assert "+0.250 [–] (2)" in text and "+0.150 [–] (2)" in text
    said = "[–]: no interval, since it would cover more than half of all possible values"
    assert said in " ".join(text.split()) and said in " ".join(compare(two).text().split())
    assert "+0.2500 [–] (2)" in compare(two).text()
    (line,) = [one for one in csv.DictReader(io.StringIO(table(two).text("csv")))
               if one["baseline"] and one["num_bags"] == "20"]  # fmt: skip
    assert (line["interval"], line["lower"], line["half_width"]) == ("not estimable", "", "")
    assert "[–]" in make_report(two)
    loss = paired_difference({0: 1.0, 1: 90.0}, {0: 0.0, 1: 0.0})
    assert loss.half_width > 1  # of a metric without bounds it is an interval like any other
