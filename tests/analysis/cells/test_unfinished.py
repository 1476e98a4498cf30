"""What an unfinished study has no result of is named in one line; its tables and figures show what is there."""

import csv
import io

import pytest
from make_rows import make_rows
from make_study import make_study
from table_lines import table_cells

from analysis.cells.arrange import arrange
from analysis.cells.unfinished import unfinished, without_waiting_panels
from analysis.figures.metric_curves import draw_metric_curves
from analysis.tables.study_table import render, table

SIZES, BAGS, ARMS = (10, 50, 100), (50, 100, 200, 300), ("none", "vat")


@pytest.fixture
def stopped(tmp_path):
    """Only K = 10 was begun, and there n = 50 and, of one arm, n = 100; one run of n = 200 failed."""
    places = [(arm, size, n) for arm in ARMS for size in SIZES for n in BAGS]
    there = [("none", 10, 50), ("vat", 10, 50), ("none", 10, 100), ("none", 10, 200)]
    missing = [(i, r) for i, place in enumerate(places) if place not in there for r in range(2)]
    failed = [(places.index(("none", 10, 200)), r) for r in range(2)]
    return make_study(tmp_path, num_bags=BAGS, bag_sizes=SIZES, methods=ARMS, replicates=2, missing=tuple(missing),
                      failed=tuple(failed)).rows()  # fmt: skip


def test_panels_and_columns_without_a_result_are_named_in_one_line(stopped):
    text = render(stopped)
    assert text.count("No results yet") == 1
    assert "- No results yet: K = 50, 100; n = 300 at K = 10.\n" in text
    assert "K = 10\n" in text and "\nK = 50\n" not in text and "\nK = 100\n" not in text
    head = next(line for line in text.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == ["n = 50", "n = 100", "n = 200"]
    cells = table_cells(text)
    assert cells["vat"][1:] == ["missing", "missing"]  # beside results of the other arm
    assert cells["none"][2] == "failed"  # which is a result


@pytest.mark.parametrize("format", ["latex", "html"])
def test_every_format_leaves_them_out(stopped, format):
    text = render(stopped, format=format)
    assert "No results yet" in text
    assert text.count("missing") == 2  # of vat, at n = 100 and 200


def test_the_long_form_keeps_every_planned_cell(stopped):
    lines = [line for line in csv.DictReader(io.StringIO(render(stopped, format="csv"))) if line["kind"] == "value"]
    assert len(lines) == len(ARMS) * len(SIZES) * len(BAGS)


def test_the_same_columns_of_several_panels_are_named_once():
    place = [({"method": m, "num_bags": n, "mean_bag_size": k}, [0.9, 0.8] if n == 50 else [])
             for m in ARMS for k in (10, 50) for n in (50, 100, 200)]  # fmt: skip
    made = table(make_rows(place, replicates=2))
    assert unfinished(made.layout).sentence() == "No results yet: n = 100, 200."
    assert [len(panel.columns) for panel in made.sheet().panels] == [1, 1]


def test_columns_that_only_one_panel_lacks_name_it():
    place = [({"method": m, "num_bags": n, "mean_bag_size": k}, [] if (n, k) == (100, 50) else [0.9, 0.8])
             for m in ARMS for k in (10, 50) for n in (50, 100)]  # fmt: skip
    assert unfinished(arrange(make_rows(place, replicates=2))).sentence() == "No results yet: n = 100 at K = 50."


def test_a_finished_study_says_nothing_of_it(tmp_path):
    rows = make_study(tmp_path, replicates=2, missing=((0, 1), (3, 0))).rows()
    assert "No results yet" not in render(rows)
    layout = arrange(rows)
    assert without_waiting_panels(layout) == layout


def test_a_study_without_any_result_is_shown_as_planned():
    place = [({"method": m, "num_bags": n}, []) for m in ARMS for n in (50, 100)]
    text = render(make_rows(place, replicates=2))
    assert "No results yet" not in text and table_cells(text)["vat"] == ["missing", "missing"]


def test_failed_panels_stay():
    place = [({"method": m, "num_bags": 50, "mean_bag_size": k}, [0.9, 0.8] if k == 10 else [])
             for m in ARMS for k in (10, 50)]  # fmt: skip
    rows = make_rows(place, replicates=2)
    rows.loc[(rows["mean_bag_size"] == 50) & (rows["method"] == "vat"), "status"] = "failed"
    text = render(rows)
    assert "No results yet" not in text and table_cells(text.split("K = 50")[1])["vat"] == ["failed"]


def test_a_figure_has_the_panels_that_have_results_and_names_the_others(stopped):
    figure = draw_metric_curves(stopped)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["K = 10"]
    said = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "no results yet: K = 50, 100; n = 300 at K = 10" in said


def test_a_report_of_a_stopped_study_can_be_made(stopped, tmp_path):
    from analysis.report.report import make_report

    text = make_report(stopped, root=str(tmp_path), uri=None)
    assert "No results yet: K" in text.replace("\u00a0", " ")
