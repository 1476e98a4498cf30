"""Which cells cannot be told from the best."""

import numpy as np
import pytest
from make_rows import make_rows
from make_study import make_study
from scipy import stats
from table_lines import table_cells

from analysis.cells.arrange import arrange
from analysis.cells.best import best_cells, compare_with_best, is_tied
from analysis.statistics.paired_tests import holm
from analysis.tables.study_table import render, table


def test_what_cannot_be_told_from_the_best_is_marked_from_ten_replicates_on(tmp_path):
    rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), replicates=12, seed=3).rows()
    near = rows["num_bags"] == 100
    noise = np.random.default_rng(0).normal(0, 0.01, len(rows))
    vat = rows["method"] == "vat"
    partner = rows[~vat].set_index(["num_bags", "replicate"])["bag_auc"]
    for i in rows.index[near & vat]:  # at n = 100 the arms differ by noise alone
        rows.loc[i, "bag_auc"] = min(1.0, partner[100, rows.loc[i, "replicate"]] + noise[i])
    made = table(rows)
    tests = {column.value: test for (_, _, column), test in made.tested.items()}
    own = rows.pivot(index="replicate", columns=["num_bags", "method"], values="bag_auc")
    p = [stats.ttest_rel(own[n]["vat"], own[n]["none"]).pvalue for n in (50, 100)]
    assert [tests[n].p for n in (50, 100)] == pytest.approx(p)
    assert [tests[n].p_holm for n in (50, 100)] == pytest.approx(holm(p))
    assert [is_tied(tests[n]) for n in (50, 100)] == [False, True]
    text = render(rows)
    assert "cannot be told from the best" in " ".join(text.split())
    line = next(line for line in text.splitlines() if line.startswith(("| none ", "| vat ")) and " *0." in line)
    assert line.count(" *0.") == 1
    assert r"\underline{0." in render(rows, format="latex")
    assert compare_with_best(arrange(rows[rows["replicate"] < 9])) == {}


def test_the_best_of_a_column_is_bold_and_lower_can_be_better():
    rows = make_rows([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "vat", "num_bags": 50}, [0.90, 0.91, 0.92, 0.93]),
        ({"method": "none", "num_bags": 100}, [0.95, 0.96, 0.95, 0.96]),
        ({"method": "vat", "num_bags": 100}, [0.93, 0.94, 0.93, 0.94]),
    ])  # fmt: skip
    table = table_cells(render(rows))
    assert [c.startswith("**") for c in table["none"]] == [False, True]
    assert [c.startswith("**") for c in table["vat"]] == [True, False]
    rows["bag_nll"] = rows["bag_auc"]
    table = table_cells(render(rows, "bag_nll"))
    assert [c.startswith("**") for c in table["none"]] == [True, False]
    assert "lower is better" in render(rows, "bag_nll")
    # With the methods as columns they are compared along the row.
    turned = table_cells(render(rows, row_key="num_bags", column_key="method"))
    assert [c.startswith("**") for c in turned["n = 50"]] == [False, True]
    assert [c.startswith("**") for c in turned["n = 100"]] == [True, False]


def test_what_was_not_tested_is_not_said_to_be_told_from_the_best():
    rng = np.random.default_rng(0)
    worse, better = 0.6 + 0.01 * rng.random(12), 0.9 + 0.01 * rng.random(12)
    rows = make_rows([({"method": m, "num_bags": n}, [*values]) for n in (50, 100)
                    for m, values in (("none", worse), ("vat", better))], replicates=12)  # fmt: skip
    assert "All others can be told from the best" in " ".join(render(rows).split())
    rows.loc[(rows["num_bags"] == 50) & (rows["method"] == "none") & (rows["replicate"] < 4), "status"] = "failed"
    assert "All others that were tested can be told from the best" in " ".join(render(rows).split())


def test_what_has_no_p_is_not_counted_and_no_verdict_is_said_of_it():
    """At n = 50 all differences are equal, of which a t test says nothing; at n = 100 they are not."""
    plain = 0.8 + 0.01 * np.random.default_rng(0).random(12)
    rows = make_rows([({"method": m, "num_bags": n}, [*values]) for n, far in ((50, plain + 0.125), (100, plain**0.5))
                      for m, values in (("none", plain), ("vat", far))], replicates=12)  # fmt: skip
    rows.loc[rows["num_bags"] == 50, "bag_auc"] = rows["bag_auc"].where(rows["method"] == "vat", 0.75)
    rows.loc[(rows["num_bags"] == 50) & (rows["method"] == "vat"), "bag_auc"] = 0.875
    made = table(rows)
    assert {column.value for _, _, column in made.tested} == {100}
    assert "All others that were tested can be told from the best (paired t tests against it at 0.05, Holm-corrected " \
        "over the 1 of the table" in " ".join(made.text(explain=True).split())  # fmt: skip
    found = made.frame().query("kind == 'value' and method == 'none'").set_index("num_bags")
    assert found["not_told_from_best"].isna().to_dict() == {50: True, 100: False}
    assert "can be told" not in table(rows[rows["num_bags"] == 50]).text(explain=True)


@pytest.mark.parametrize("columns", ["num_bags", "metric", "method"])
def test_another_problem_is_no_rival(columns):
    """Bags with more witnesses are easier, whatever the method."""
    rng = np.random.default_rng(0)
    rows = make_rows([({"method": m, "witness_rate": w, "num_bags": 50}, [*(mean + 0.01 * rng.random(12))])
                      for w, of in ((0.1, (0.6, 0.7)), (0.3, (0.8, 0.9)))
                      for m, mean in zip(("none", "vat"), of, strict=True)], replicates=12)  # fmt: skip
    rows.attrs["varied"] = ["witness_rate"]
    layout = arrange(rows, "bag_auc", "num_bags" if columns == "method" else "method", columns)
    best = best_cells(layout, lambda cell: round(cell.interval.mean, 3))
    assert {dict((*row.keys, *column.keys)).get("witness_rate") for _, row, column in best} == {0.1, 0.3}
    assert {label.value for key in best for label in key if label.key == "method"} == {"vat"}
    tested = compare_with_best(layout)
    assert len(tested) == 2
    for key, test in tested.items():
        assert [dict(label.keys) for label in key] == [dict(label.keys) for label in test.best]
    said = " ".join(render(rows, "bag_auc", row_key=layout.row_key, column_key=columns).split())
    assert f"Bold: best mean of a {'row' if columns == 'method' else 'column'} for each witness_rate (higher" in said


def test_nothing_is_the_best_where_a_mean_of_fewer_values_beats_the_others():
    """One run of the better arm failed: the worse one is not called the best, and nothing is tested against it."""
    rng = np.random.default_rng(1)
    plain = np.clip(0.90 + rng.normal(0, 0.02, 12), 0, 1)
    better, worse = plain + 0.02 + rng.normal(0, 0.002, 12), plain - 0.02 + rng.normal(0, 0.002, 12)

    def made(n, other):
        return [({"method": "none", "num_bags": n}, [*plain]), ({"method": "vat", "num_bags": n}, [*other])]

    rows = make_rows(made(50, better) + made(100, worse) + made(200, better), replicates=12)
    lost = (rows["method"] == "vat") & (rows["replicate"] == 3) & rows["num_bags"].isin([50, 100])
    rows.loc[lost, "status"], rows.loc[lost, "bag_auc"] = "failed", np.nan
    found = table(rows)
    assert {(row.value, column.value) for _, row, column in found.best} == {("none", 100), ("vat", 200)}
    assert {column.value for _, _, column in found.tested} == {100, 200}
    text = " ".join(render(rows).split())
    assert "Nothing is bold in 1 column: the best mean there is of fewer values than others have" in text
    explained = " ".join(found.text(explain=True).split())
    assert "Bold: best mean of a column (higher is better, means of fewer values than others aside)." in explained
    assert "Nothing is bold" not in render(rows[rows["num_bags"] > 50])


def test_a_mean_that_owes_its_lead_to_the_runs_it_lacks_leaves_the_best_as_it_is():
    rows = make_rows([
        ({"method": "none", "num_bags": 50}, [0.6, 0.9, 0.92, 0.94]),
        ({"method": "vat", "num_bags": 50}, [np.nan, 0.89, 0.91, 0.93]),
    ])  # fmt: skip
    found = table(rows)
    assert {row.value for _, row, _ in found.best} == {"none"} and "Nothing is bold" not in found.text()
