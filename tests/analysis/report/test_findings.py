"""Headlines: ties are ties, verdicts follow the corrected test, and few pairs bear none."""

import re

import numpy as np
import pytest
from make_study import make_distillation, make_study
from scipy import stats

from analysis.cells.model_selection import ranked_by_validation, ties_for_first
from analysis.report.findings import findings, verdict
from analysis.report.mlflow_links import MlflowLinks
from analysis.report.report import make_report
from analysis.report.sections import best_trials
from analysis.statistics.paired_tests import holm
from analysis.tables.comparison import compare
from analysis.tables.study_table import table


def lines_of(rows, metric=None):
    return findings(table(rows, metric), rows, compare(rows, metric=metric))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("runs"), num_bags=(50, 100), bag_sizes=(10,), replicates=8).rows()


def test_equal_validation_is_said_to_be_a_tie(rows):
    tied = rows.copy()
    tied.loc[tied["num_bags"] == 50, "val_bag_auc"] = 1.0
    first, second = lines_of(tied)[:2]
    assert first.startswith("K = 10, n = 50: all 2 tie at the highest validation AUC (1.000), so that it chooses none")
    means = tied[tied["num_bags"] == 50].groupby("method")["bag_auc"].mean()
    assert all(f"{method} {mean:.3f}" in first for method, mean in means.items())
    assert re.match(r"K = 10, n = 100: (none|vat) has the highest validation AUC of 2; its bag AUC", second)
    page = "".join(best_trials(tied, MlflowLinks()))
    assert "Up to 2 tie at the highest validation AUC in 1 of 2 tasks" in page
    assert " tie at " not in "".join(best_trials(rows, MlflowLinks()))


def test_the_only_arm_has_beaten_nobody(rows):
    alone = rows[(rows["method"] == "vat") & (rows["num_bags"] == 50)]
    (line,) = findings(table(alone), alone)
    assert line.startswith("K = 10, n = 50: vat: bag AUC (test) 0.") and "highest" not in line


def test_a_mean_over_fewer_replicates_ties_with_none(rows):
    tied = rows.assign(val_bag_auc=0.9)
    tied.loc[(tied["method"] == "vat") & (tied["replicate"] == 0), "status"] = "failed"
    order = ranked_by_validation(tied)
    assert ties_for_first(order[order["num_bags"] == 50]) == 1


def test_verdicts_are_those_of_holms_correction_and_not_of_the_interval(rows):
    made = rows.copy()
    none = made[made["method"] == "none"].set_index(["num_bags", "replicate"])["bag_auc"]
    # Two comparisons with p of about 0.03: each interval leaves out 0, and neither survives the correction.
    d = np.array([2.6, 0.3, 1.9, -1.0, 2.2, 0.2, 1.6, 0.9])
    for n in (50, 100):
        for r in range(8):
            at = (made["method"] == "vat") & (made["num_bags"] == n) & (made["replicate"] == r)
            made.loc[at, "bag_auc"] = none[n, r] + 0.004 * (d[r] - 0.05)
    own = made.pivot(index="replicate", columns=["num_bags", "method"], values="bag_auc")
    p = [stats.ttest_rel(own[n]["vat"], own[n]["none"]).pvalue for n in (50, 100)]
    assert max(p) < 0.05 <= min(holm(p))
    lines = [line for line in lines_of(made) if "vat − none" in line]
    assert len(lines) == 2
    assert all(line.endswith(f"(8 pairs); not told apart (p = {max(p) * 2:.2g} after Holm).") for line in lines)
    assert "leaves out 0" not in make_report(made)


def test_students_are_corrected_over_all_students(tmp_path):
    rows = make_distillation(tmp_path, num_bags=(50, 100), replicates=6).rows()
    lines = [line for line in _all(rows) if "its teacher" in line]
    own = rows.pivot_table(index="replicate", columns=["num_bags", "method"], values="instance_auc")
    p = [stats.ttest_rel(own[n][f"{t} → {s}"], own[n][t]).pvalue for t in ("none", "vat") for s in ("plain", "noisy")
         for n in (50, 100)]  # fmt: skip
    assert len(lines) == len(p) == 8
    for line, value in zip(lines, holm(p), strict=True):
        assert line.endswith(f"(6 pairs); {verdict(value, 6)}.")


def _all(rows):
    import analysis.report.findings as module

    before, module.MOST_FINDINGS = module.MOST_FINDINGS, 1000
    try:
        return lines_of(rows)
    finally:
        module.MOST_FINDINGS = before


def test_below_five_pairs_there_is_no_verdict_in_report_or_table(rows):
    few = rows[rows["replicate"] < 2].copy()
    assert [line for line in lines_of(few) if "vat − none" in line and line.endswith("fewer than 5 pairs, no verdict.")]
    assert not any("told apart" in line for line in lines_of(few))
    for text in (table(few).text(), compare(few).text()):
        assert "Fewer than 5 pairs bear no verdict." in " ".join(text.split())
    assert "bear no verdict" not in table(rows).text()
    assert verdict(0.001, 4) == "fewer than 5 pairs, no verdict"
    assert verdict(0.05, 5) == "not told apart (p = 0.05 after Holm)"
    assert verdict(0.0001, 5) == "told apart (p < 0.001 after Holm)"
    assert verdict(float("nan"), 5).startswith("no verdict")


def test_teachers_of_a_study_of_given_bags_have_a_verdict(tmp_path):
    """Its table has metrics as columns and a panel for each of their levels; the comparison has none."""
    rows = make_distillation(tmp_path, num_bags=(50,), replicates=8).rows()
    folds = {"fold": rows["replicate"], "repeat": 0, "fold_count": 8, "partition": "dealt folds"}
    rows = rows.assign(**folds, train_bags=40, test_bags=8, test_set=[f"t{r}" for r in rows["replicate"]])
    made = table(rows)
    found = [line for line in findings(made, rows, compare(rows, metric="instance_auc")) if "vat − none" in line]
    assert len(found) == 1 and "told apart (p" in found[0]
