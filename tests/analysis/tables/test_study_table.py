"""Tables: what stands in a cell, what is never averaged, what the caption says, and each format."""

import csv
import io
import math
import re

import numpy as np
import pytest
from make_rows import make_rows
from make_study import make_study
from table_lines import table_cells

from analysis.cells.arrange import arrange
from analysis.cells.partitions import metric_interval
from analysis.statistics.intervals import mean_interval
from analysis.tables.study_table import render, table
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    # Configurations 0–2 are none at K=10, 3–5 none at K=50, 6–8 vat at K=10, 9–11 vat at K=50.
    return make_study(
        tmp_path_factory.mktemp("runs"),
        missing=((0, 1), *((4, r) for r in range(5))),
        failed=((7, 2), *((11, r) for r in range(5))),
    ).rows()


def test_a_cell_is_the_mean_interval_and_count_of_its_own_runs(made):
    own = made[(made.method == "vat") & (made.num_bags == 50) & (made.mean_bag_size == 50)]["bag_auc"]
    wanted = mean_interval(own)
    table = list(csv.DictReader(io.StringIO(render(made, format="csv"))))
    place = ("value", "vat", "50", "50")
    (line,) = [t for t in table if (t["kind"], t["method"], t["num_bags"], t["mean_bag_size"]) == place]
    assert float(line["mean"]) == pytest.approx(own.mean())
    assert (float(line["lower"]), float(line["upper"])) == (wanted.lower, wanted.upper)
    assert float(line["half_width"]) == pytest.approx((wanted.upper - wanted.lower) / 2)
    assert (line["count"], line["planned"], line["status"]) == ("5", "5", "done")
    text = render(made)
    assert f"{own.mean():.3f}** ± {wanted.half_width:.3f} (5)" in text or (
        f"[{wanted.lower:.3f}, {wanted.upper:.3f}] (5)" in text
    )


def test_csv_has_one_line_per_cell_with_its_state(made):
    table = [t for t in csv.DictReader(io.StringIO(render(made, format="csv"))) if t["kind"] == "value"]
    assert len(table) == 12
    states = {(t["method"], int(t["mean_bag_size"]), int(t["num_bags"])): t for t in table}
    assert states["none", 50, 100]["status"] == "missing"
    assert states["none", 50, 100]["mean"] == ""
    assert states["vat", 50, 200]["status"] == "failed"
    assert (states["vat", 10, 100]["status"], states["vat", 10, 100]["count"]) == ("partial", "4")


def test_incomplete_cells_say_so(made):
    first, second = render(made).split("K = 50")
    assert table_cells(first)["none"][0].endswith("(4 of 5)")
    assert table_cells(first)["vat"][1].endswith("(4 of 5)")
    assert table_cells(second)["none"][1] == "missing"
    assert table_cells(second)["vat"][2] == "failed"


def test_markdown_lines_up(made):
    for block in render(made).split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert {tuple(m.start() for m in re.finditer(r"\|", line)) for line in lines} == {
                tuple(m.start() for m in re.finditer(r"\|", lines[0]))
            }


def test_configurations_of_an_arm_get_rows_of_their_own():
    rows = make_rows([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "adv", "num_bags": 50, "lambda_adv": 3.0}, [0.70, 0.71, 0.72, 0.73]),
        ({"method": "adv", "num_bags": 50, "lambda_adv": 1.0}, [0.90, 0.91, 0.92, 0.93]),
    ])  # fmt: skip
    table = table_cells(render(rows))
    assert [r for r in table if "−" not in r] == ["none", "adv (lambda_adv=1)", "adv (lambda_adv=3)"]
    assert "0.915" in table["adv (lambda_adv=1)"][0]
    assert "0.715" in table["adv (lambda_adv=3)"][0]
    assert table["adv (lambda_adv=3) − none"][0].startswith("−0.100")


@pytest.mark.parametrize("key", ["lambda_adv", "seed"])
def test_two_configurations_are_never_averaged_even_if_no_list_says_what_varies(key):
    rows = make_rows(
        [
            ({"method": "adv", "num_bags": 50, key: 2.0}, [0.70] * 4),
            ({"method": "adv", "num_bags": 50, key: 1.0}, [0.90] * 4),
        ],
        varied=(),
    )
    table = table_cells(render(rows))
    assert "0.700" in table[f"adv ({key}=2)"][0]
    assert "0.900" in table[f"adv ({key}=1)"][0]


def test_configurations_that_differ_in_nothing_shown_are_told_apart_by_their_id():
    rows = make_rows([({"method": "a", "num_bags": 50}, [0.7] * 4), ({"method": "a", "num_bags": 50}, [0.9] * 4)])
    assert set(table_cells(render(rows))) >= {"a (trial_id=c0)", "a (trial_id=c1)"}


def test_a_key_that_follows_the_columns_splits_no_row():
    rows = make_rows(
        [
            ({"method": "none", "num_bags": 50, "val_bags": 25}, [0.7] * 4),
            ({"method": "none", "num_bags": 100, "val_bags": 50}, [0.9] * 4),
        ],
        varied=("num_bags", "val_bags"),
    )
    text = render(rows)
    assert len(table_cells(text)["none"]) == 2
    assert "val_bags follows n" in text


def test_stages_are_rows_apart_and_compared_within_a_stage():
    rows = make_rows([
        ({"method": m, "num_bags": 50, "stage": s}, [base, base + 0.01, base + 0.02, base + 0.03])
        for m, s, base in (("none", "teacher", 0.6), ("vat", "teacher", 0.7), ("none", "student", 0.8),
                           ("vat", "student", 0.85))
    ])  # fmt: skip
    table = table_cells(render(rows))
    assert "0.615" in table["none (teacher)"][0]
    assert "0.815" in table["none (student)"][0]
    assert table["vat (student) − none (student)"][0].startswith("+0.050")
    assert "vat (student) − none (teacher)" not in table


def test_without_a_panel_axis_its_key_moves_into_the_labels(made):
    labels = set(table_cells(render(made, panel_key=None)))
    assert {"none (K = 10)", "vat (K = 50)"} <= labels
    assert "vat (K = 50) − none (K = 50)" in labels
    assert "vat (K = 50) − none (K = 10)" not in labels


def test_paired_line_uses_the_common_replicates(made):
    first = table_cells(render(made).split("K = 50")[0])
    own = made[(made.num_bags == 50) & (made.mean_bag_size == 10)].pivot(
        index="replicate", columns="method", values="bag_auc"
    )
    difference = (own["vat"] - own["none"]).dropna()
    assert len(difference) == 4
    assert first["vat − none"][0].startswith(f"{difference.mean():+.3f} ± ")
    assert first["vat − none"][0].endswith("(4)")


def test_no_paired_line_without_the_method_none(made):
    assert "−" not in render(made[made.method == "vat"])


def test_caption_says_what_the_spread_is_and_what_chose_nothing(made):
    text = " ".join(render(made).split())
    for part in ("Mean test bag AUC (0 to 1, higher is better) [its 95 % interval] (count; 5 replicates planned).",
                 "t on the logit",
                 "The spread is over bags and initialisations, not over data sets.",
                 "This study chose nothing on test data."):  # fmt: skip
        assert part in text
    validation = " ".join(render(made, "val_bag_auc").split())
    assert "Mean validation bag AUC (0 to 1" in validation
    assert "This study chose nothing on test data" not in validation
    assert "optimistic" in validation


def test_a_printed_table_says_what_its_cells_are_and_keeps_what_guards_against_misreading(made):
    """Without the details: one line on the cells, a list of what must be read with them, and where the rest is."""
    partial = made.copy()
    partial.loc[(partial["method"] == "vat") & (partial["replicate"] == 0), "status"] = "failed"
    short, whole = (table(partial, "val_bag_auc").text(explain=explain) for explain in (False, True))
    _, _, caption = short.rpartition("|\n\n")
    listed, _, rest = caption.partition("\n\n")
    cells, *beside = listed.split("\n- ")
    assert " ".join(cells.split()) == (
        "Mean validation bag AUC (0 to 1, higher is better) [its 95 % interval] (count; 5 replicates planned)."
    )
    assert beside and rest.startswith("(--explain ")
    assert "\n" not in table(partial, "bag_auc").text().rpartition("|\n\n")[2].partition("\n- ")[0]
    for guard in ("Validation bags also chose", "6 cells are means of fewer runs than planned", "Fewer than 5 pairs"):
        assert guard in caption
    for detail in ("t on the logit", "The spread is over", "Bold: "):
        assert detail in whole and detail not in caption
    assert whole.startswith(short.rpartition("\n\n")[0]) and "--explain" not in whole


def test_metrics_say_their_range_and_what_is_better(made):
    text = table(made, ["bag_auc", "bag_nll", "train_seconds"]).sheet().caption.cells
    assert "bag AUC: 0 to 1, higher is better" in text and "time (s): lower is better" in text
    assert "bag negative log likelihood: nats, lower is better" in text


@pytest.mark.parametrize(("metric", "kind", "upper"), [
    ("bag_brier", "t on the logit", 1.0), ("bag_ece", "t on the logit", 1.0), ("bag_nll", "t on the log", math.inf),
    ("instance_nll_calibrated", "t on the log", math.inf), ("train_seconds", "t on the log", math.inf),
])  # fmt: skip
def test_errors_losses_and_times_have_intervals_within_their_range(metric, kind, upper):
    """Of few and unequal ones a t interval would go below 0."""
    values = [0.01, 0.02, 0.12, 0.03]
    rows = make_rows([({"method": "a", "num_bags": 50}, [0.9] * 4)])
    rows[metric] = values
    assert mean_interval(values, unit_interval=False).lower < 0
    (cell,) = table(rows, metric).layout.cells.values()
    assert cell.interval.kind == kind and 0 < cell.interval.lower < np.mean(values) < cell.interval.upper < upper
    assert cell.interval == metric_interval(rows, metric)
    assert f"Interval: {kind}, transformed back." in " ".join(table(rows, metric).text().split())
    assert "±" not in table_cells(render(rows, metric))["a"][0]  # which would go below 0


def test_asymmetric_intervals_show_both_bounds():
    narrow = make_rows([({"method": "a", "num_bags": 50}, [0.80, 0.81, 0.80, 0.81])])
    wide = make_rows([({"method": "a", "num_bags": 50}, [0.999, 0.95, 0.99, 0.97])])
    assert "±" in table_cells(render(narrow))["a"][0]
    bounds = mean_interval([0.999, 0.95, 0.99, 0.97])
    assert table_cells(render(wide))["a"][0] == f"0.977 [{bounds.lower:.3f}, {bounds.upper:.3f}] (4)"
    assert "[its 95 % interval]" in render(wide) and "± half its 95 % interval" in render(narrow)


def test_a_metric_that_is_nan_everywhere_is_undefined_not_missing():
    rows = make_rows([({"method": "a", "num_bags": 50}, [0.8] * 4), ({"method": "b", "num_bags": 50}, [np.nan] * 4)])
    assert table_cells(render(rows))["b"] == ["undefined"]


def test_pruned_configurations_enter_no_table():
    rows = make_rows([({"method": "a", "num_bags": 50}, [0.8] * 4), ({"method": "b", "num_bags": 50}, [0.99] * 4)])
    rows.loc[rows.method == "b", "status"] = "pruned"
    text = render(rows)
    assert "b" not in table_cells(text)
    assert "1 pruned configuration is left out." in " ".join(text.split())
    rows.loc[(rows.method == "b") & (rows.replicate < 2), "status"] = "done"
    text = render(rows)
    assert table_cells(text)["b"][0].endswith("(2)")
    assert "left out" not in text and "Of 1 configuration some replicates were pruned" in " ".join(text.split())


def test_single_replicate_has_no_interval():
    text = render(make_rows([({"method": "a", "num_bags": 50}, [0.8])], replicates=1))
    assert table_cells(text)["a"] == ["0.800 (1)"]
    caption = " ".join(text.split())
    assert "A single replicate has no interval." in caption
    assert "Mean test bag AUC (0 to 1, higher is better) (count; 1 replicate planned)." in caption
    assert "±" not in caption


def test_unplanned_combinations_and_empty_panels():
    rows = make_rows([
        ({"method": "a", "num_bags": 50, "mean_bag_size": 10}, [0.8] * 4),
        ({"method": "b", "num_bags": 100, "mean_bag_size": 10}, [0.9] * 4),
        ({"method": "b", "num_bags": 100, "mean_bag_size": 50}, [0.9] * 4),
    ])  # fmt: skip
    first, second = render(rows).split("K = 50")
    assert table_cells(first)["a"][1] == "–"
    assert set(table_cells(second)) & {"a", "b"} == {"b"}


def test_a_study_without_bag_counts_or_sizes_still_makes_a_table():
    rows = make_rows([({"method": "a", "num_bags": np.nan, "pooling": "max"}, [0.8] * 4),
                    ({"method": "a", "num_bags": np.nan, "pooling": "attention"}, [0.9] * 4)])  # fmt: skip
    rows["mean_bag_size"] = np.nan
    text = render(rows, column_key="pooling")
    assert "0.800" in table_cells(text)["a"][0]
    assert "0.900" in table_cells(text)["a"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "bag_acu"}, "did you mean 'bag_auc'"),
        ({"metric": "epsilon"}, "not in this study"),
        ({"row_key": "metod"}, "did you mean 'method'"),
        ({"column_key": "replicate"}, "--columns replicate: the study has no such key"),
        ({"column_key": "metrc"}, "--columns metrc: the study has no such key; did you mean 'metric'?"),
        ({"column_key": "method"}, "two axes"),
        (
            {"format": "htlm"},
            "^format 'htlm': not known; did you mean 'html'.*formats: markdown, csv, latex, html, parquet",
        ),
        ({"format": "parquet"}, r"^format 'parquet': is no text; write it with \.frame\(\)\.to_parquet"),
    ],
)
def test_what_cannot_be_asked_for(made, arguments, message):
    with pytest.raises(UserError, match=message):
        render(made, **arguments)


def test_layout_keeps_the_order_of_the_plan_and_sorts_numbers(made):
    layout = arrange(made.iloc[::-1])
    assert [c.value for c in layout.columns] == [50, 100, 200]
    assert [r.text for r in layout.rows] == ["vat", "none"]
    assert [p.value for p in layout.panels] == [10, 50]


def test_a_notebook_shows_a_table_as_html_and_where_it_shows_text_only_as_markdown(made):
    found = table(made)
    shown = found._repr_mimebundle_(include=None, exclude=None)
    assert shown["text/plain"] == found.text()
    assert "<table" in shown["text/html"]


def test_an_infinite_mean_is_in_the_csv_too():
    arms = [({"method": name, "num_bags": 50}, [0.3, 0.4]) for name in ("none", "vat")]
    rows = make_rows(arms, replicates=2)
    rows["bag_nll"] = rows["bag_auc"].mask((rows["method"] == "vat") & (rows["replicate"] == 1), math.inf)
    lines = list(csv.DictReader(io.StringIO(table(rows, "bag_nll").text("csv"))))
    (infinite,) = [line for line in lines if line["row"] == "vat" and line["kind"] == "value"]
    assert infinite["mean"] == "inf" and infinite["lower"] == infinite["upper"] == ""
