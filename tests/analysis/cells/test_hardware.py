"""Runs that differ in precision or device are named wherever results are shown."""

import pytest
from label_boxes import words_of
from make_study import make_study
from students import as_students

import analysis
from analysis.cells.hardware import hardware_differences_of_rows
from analysis.figures.figure import figure
from analysis.report.report import make_report


def differing(rows, arm):
    made = rows.copy()
    made.attrs = rows.attrs
    made.loc[made["method"] == arm, ["precision", "device"]] = ["bfloat16", "cuda:0"]
    return made


PRECISION = "uns differ in precision, which changes results (bfloat16: vat; float32: none)"


@pytest.mark.parametrize("kind", ["curves", "roc", "pr", "reliability", "pairs"])
def test_figures_say_that_runs_differ_in_precision_or_device(given_folds, kind):
    drawn = figure(differing(as_students(given_folds), "vat"), kind)
    words = words_of(drawn)
    assert PRECISION in words and "differ in device, which changes results (cpu: none; cuda: vat)" in words
    if kind == "pairs":
        assert "in 6 of 6 pairs the two sides differ in precision" in words_of(drawn)
    assert "uns differ" not in words_of(figure(as_students(given_folds), kind))


@pytest.mark.slow
def test_heat_maps_and_the_report_say_it_too(tmp_path):
    make_study(tmp_path, num_bags=(50, 100), replicates=2)
    rows = analysis.load("made", tmp_path)
    changed = differing(rows, "vat")
    assert PRECISION in words_of(figure(changed, "heatmap"))
    report, plain = make_report(changed), make_report(rows)
    summary = report[: report.index("What was studied")]
    assert PRECISION in summary and "differ in precision" not in plain
    assert len(hardware_differences_of_rows(changed)) == 2 and hardware_differences_of_rows(rows) == []
