"""Tables: what stands in a cell, what is never averaged, what the caption says, and each format."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from make_study import make_study

from analysis.cells.arrange import arrange
from analysis.statistics.intervals import mean_interval
from analysis.tables.latex import escape_latex
from analysis.tables.study_table import render
from d2l_study.errors import UserError

KEYS = {"study": "s", "dataset": "mnist", "mean_bag_size": 10, "lambda_adv": 0.0, "generation": 0, "seed": 1,
        "stage": "teacher", "fold": None, "status": "done"}  # fmt: skip


def rows_of(configurations, varied=("num_bags", "mean_bag_size", "lambda_adv"), replicates=4):
    """Rows from (values of the keys, AUCs); as many replicates are planned as are given."""
    rows = []
    for i, (values, aucs) in enumerate(configurations):
        for r in range(replicates):
            auc = aucs[r] if r < len(aucs) else None
            row = {**KEYS, "config_id": f"c{i}", "trial_id": f"c{i}", **values, "replicate": r, "bag_auc": auc}
            rows.append({**row, "status": "missing"} if auc is None else row)
    frame = pd.DataFrame(rows)
    frame["bag_auc"] = frame["bag_auc"].astype(float)
    frame.attrs.update(study="s", varied=list(varied))
    return frame


def lines_of(text):
    """The table's lines as {row label: [cells]}."""
    found = {}
    for line in text.splitlines():
        if line.startswith("|"):
            label, *cells = [c.strip() for c in line.strip("|").split(" | ")]
            found[label.strip()] = [c.strip() for c in cells]
    return found


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
    assert lines_of(first)["none"][0].endswith("(4 of 5)")
    assert lines_of(first)["vat"][1].endswith("(4 of 5)")
    assert lines_of(second)["none"][1] == "missing"
    assert lines_of(second)["vat"][2] == "failed"


def test_markdown_lines_up(made):
    for block in render(made).split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert {tuple(m.start() for m in re.finditer(r"\|", line)) for line in lines} == {
                tuple(m.start() for m in re.finditer(r"\|", lines[0]))
            }


def test_the_best_of_a_column_is_bold_and_lower_can_be_better():
    rows = rows_of([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "vat", "num_bags": 50}, [0.90, 0.91, 0.92, 0.93]),
        ({"method": "none", "num_bags": 100}, [0.95, 0.96, 0.95, 0.96]),
        ({"method": "vat", "num_bags": 100}, [0.93, 0.94, 0.93, 0.94]),
    ])  # fmt: skip
    table = lines_of(render(rows))
    assert [c.startswith("**") for c in table["none"]] == [False, True]
    assert [c.startswith("**") for c in table["vat"]] == [True, False]
    rows["bag_nll"] = rows["bag_auc"]
    table = lines_of(render(rows, "bag_nll"))
    assert [c.startswith("**") for c in table["none"]] == [True, False]
    assert "lower is better" in render(rows, "bag_nll")
    # With the methods as columns they are compared along the row.
    turned = lines_of(render(rows, row_key="num_bags", column_key="method"))
    assert [c.startswith("**") for c in turned["n = 50"]] == [False, True]
    assert [c.startswith("**") for c in turned["n = 100"]] == [True, False]


def test_configurations_of_an_arm_get_rows_of_their_own():
    rows = rows_of([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "adv", "num_bags": 50, "lambda_adv": 3.0}, [0.70, 0.71, 0.72, 0.73]),
        ({"method": "adv", "num_bags": 50, "lambda_adv": 1.0}, [0.90, 0.91, 0.92, 0.93]),
    ])  # fmt: skip
    table = lines_of(render(rows))
    assert [r for r in table if "−" not in r][2:] == ["none", "adv (lambda_adv=1)", "adv (lambda_adv=3)"]
    assert "0.915" in table["adv (lambda_adv=1)"][0]
    assert "0.715" in table["adv (lambda_adv=3)"][0]
    assert table["adv (lambda_adv=3) − none"][0].startswith("−0.100")


@pytest.mark.parametrize("key", ["lambda_adv", "seed"])
def test_two_configurations_are_never_averaged_even_if_no_list_says_what_varies(key):
    rows = rows_of(
        [
            ({"method": "adv", "num_bags": 50, key: 2.0}, [0.70] * 4),
            ({"method": "adv", "num_bags": 50, key: 1.0}, [0.90] * 4),
        ],
        varied=(),
    )
    table = lines_of(render(rows))
    assert "0.700" in table[f"adv ({key}=2)"][0]
    assert "0.900" in table[f"adv ({key}=1)"][0]


def test_configurations_that_differ_in_nothing_shown_are_told_apart_by_their_id():
    rows = rows_of([({"method": "a", "num_bags": 50}, [0.7] * 4), ({"method": "a", "num_bags": 50}, [0.9] * 4)])
    assert set(lines_of(render(rows))) >= {"a (trial_id=c0)", "a (trial_id=c1)"}


def test_a_key_that_follows_the_columns_splits_no_row():
    rows = rows_of(
        [
            ({"method": "none", "num_bags": 50, "val_bags": 25}, [0.7] * 4),
            ({"method": "none", "num_bags": 100, "val_bags": 50}, [0.9] * 4),
        ],
        varied=("num_bags", "val_bags"),
    )
    text = render(rows)
    assert len(lines_of(text)["none"]) == 2
    assert "val_bags follows n" in text


def test_stages_are_rows_apart_and_compared_within_a_stage():
    rows = rows_of([
        ({"method": m, "num_bags": 50, "stage": s}, [base, base + 0.01, base + 0.02, base + 0.03])
        for m, s, base in (("none", "teacher", 0.6), ("vat", "teacher", 0.7), ("none", "student", 0.8),
                           ("vat", "student", 0.85))
    ])  # fmt: skip
    table = lines_of(render(rows))
    assert "0.615" in table["none (teacher)"][0]
    assert "0.815" in table["none (student)"][0]
    assert table["vat (student) − none (student)"][0].startswith("+0.050")
    assert "vat (student) − none (teacher)" not in table


def test_without_a_panel_axis_its_key_moves_into_the_labels(made):
    labels = set(lines_of(render(made, panel_key=None)))
    assert {"none (K = 10)", "vat (K = 50)"} <= labels
    assert "vat (K = 50) − none (K = 50)" in labels
    assert "vat (K = 50) − none (K = 10)" not in labels


def test_paired_line_uses_the_common_replicates(made):
    first = lines_of(render(made).split("K = 50")[0])
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
    for part in ("on the test split", "95 % interval", "t on the logit", "5 replicates planned per cell",
                 "The spread is over bags and initialisations, not over data sets.",
                 "Nothing was chosen on test data."):  # fmt: skip
        assert part in text
    validation = " ".join(render(made, "val_bag_auc").split())
    assert "on the validation split" in validation
    assert "Nothing was chosen on test data" not in validation
    assert "optimistic" in validation


def test_asymmetric_intervals_show_both_bounds():
    narrow = rows_of([({"method": "a", "num_bags": 50}, [0.80, 0.81, 0.80, 0.81])])
    wide = rows_of([({"method": "a", "num_bags": 50}, [0.999, 0.95, 0.99, 0.97])])
    assert "±" in lines_of(render(narrow))["a"][0]
    bounds = mean_interval([0.999, 0.95, 0.99, 0.97])
    assert lines_of(render(wide))["a"][0] == f"0.977 [{bounds.lower:.3f}, {bounds.upper:.3f}] (4)"
    assert "[lower, upper bound]" in render(wide)


def test_a_metric_that_is_nan_everywhere_is_undefined_not_missing():
    rows = rows_of([({"method": "a", "num_bags": 50}, [0.8] * 4), ({"method": "b", "num_bags": 50}, [np.nan] * 4)])
    assert lines_of(render(rows))["b"] == ["undefined"]


def test_pruned_configurations_enter_no_table():
    rows = rows_of([({"method": "a", "num_bags": 50}, [0.8] * 4), ({"method": "b", "num_bags": 50}, [0.99] * 4)])
    rows.loc[rows.method == "b", "status"] = "pruned"
    text = render(rows)
    assert "b" not in lines_of(text)
    assert "1 pruned configurations are left out" in " ".join(text.split())


def test_single_replicate_has_no_interval():
    text = render(rows_of([({"method": "a", "num_bags": 50}, [0.8])], replicates=1))
    assert lines_of(text)["a"] == ["0.800 (1)"]
    caption = " ".join(text.split())
    assert "A single replicate has no interval." in caption
    assert "mean (count); 1 replicate planned" in caption and "±" not in caption


def test_what_was_not_tested_is_not_said_to_be_told_from_the_best():
    rng = np.random.default_rng(0)
    worse, better = 0.6 + 0.01 * rng.random(12), 0.9 + 0.01 * rng.random(12)
    rows = rows_of([({"method": m, "num_bags": n}, [*values]) for n in (50, 100)
                    for m, values in (("none", worse), ("vat", better))], replicates=12)  # fmt: skip
    assert "All others can be told from the best" in " ".join(render(rows).split())
    rows.loc[(rows["num_bags"] == 50) & (rows["method"] == "none") & (rows["replicate"] < 4), "status"] = "failed"
    assert "All others that were tested can be told from the best" in " ".join(render(rows).split())


def test_unplanned_combinations_and_empty_panels():
    rows = rows_of([
        ({"method": "a", "num_bags": 50, "mean_bag_size": 10}, [0.8] * 4),
        ({"method": "b", "num_bags": 100, "mean_bag_size": 10}, [0.9] * 4),
        ({"method": "b", "num_bags": 100, "mean_bag_size": 50}, [0.9] * 4),
    ])  # fmt: skip
    first, second = render(rows).split("K = 50")
    assert lines_of(first)["a"][1] == "–"
    assert set(lines_of(second)) & {"a", "b"} == {"b"}


def test_a_study_without_bag_counts_or_sizes_still_makes_a_table():
    rows = rows_of([({"method": "a", "num_bags": np.nan, "pooling": "max"}, [0.8] * 4),
                    ({"method": "a", "num_bags": np.nan, "pooling": "attention"}, [0.9] * 4)])  # fmt: skip
    rows["mean_bag_size"] = np.nan
    text = render(rows, column_key="pooling")
    assert "0.800" in lines_of(text)["a"][0]
    assert "0.900" in lines_of(text)["a"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "bag_acu"}, "did you mean 'bag_auc'"),
        ({"metric": "epsilon"}, "not in this study"),
        ({"row_key": "metod"}, "did you mean 'method'"),
        ({"column_key": "replicate"}, "--columns replicate: the study has no such key"),
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


def test_latex_is_escaped_and_balanced():
    rows = rows_of([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "a_b & 50% {x}~^\\#$", "num_bags": 50}, [0.90, 0.91, 0.92, 0.93]),
        ({"method": "none", "num_bags": 100, "mean_bag_size": 50}, [0.95]),
    ])  # fmt: skip
    text = render(rows, format="latex")
    body = text[text.index(r"\begin{tabular}") :]
    bare = re.sub(r"\\[\\&%$#_{}]", "", body)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for line in body.splitlines():
        if line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2
    assert r"\multicolumn{3}{l}{$K = 50$}" in body
    assert r"a\_b \& 50\% \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\#\$" in body
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{0.915}", r"$\pm$", "(1 of 4)"):
        assert command in body
    assert text.isascii()


def test_escape_latex_leaves_words_alone():
    assert escape_latex("plain words, 0.95") == "plain words, 0.95"
    assert escape_latex("95 %") == r"95 \%"


def test_layout_keeps_the_order_of_the_plan_and_sorts_numbers(made):
    layout = arrange(made.iloc[::-1])
    assert [c.value for c in layout.columns] == [50, 100, 200]
    assert [r.text for r in layout.rows] == ["vat", "none"]
    assert [p.value for p in layout.panels] == [10, 50]
