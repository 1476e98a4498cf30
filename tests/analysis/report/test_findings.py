"""Headlines: ties are ties, verdicts follow the corrected test, and few pairs bear none."""

import math
from html import unescape

import numpy as np
import pandas
import pytest
from make_study import make_distillation, make_study
from scipy import stats

from analysis.cells.model_selection import ranked_by_validation, selected_rows, ties_for_first
from analysis.report.findings import findings, verdict, verdict_note
from analysis.report.mlflow_links import MlflowLinks
from analysis.report.report import make_report
from analysis.report.sections import best_trials, study_facts
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import holm
from analysis.tables.comparison import compare
from analysis.tables.study_table import table


def lines_of(rows, metric=None):
    return findings(table(rows, metric), rows, compare(rows, metric=metric))


def pairs(count, mean=0.1):
    return Interval(mean, math.nan, math.nan, count, "none")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("runs"), num_bags=(50, 100), bag_sizes=(10,), replicates=8).rows()


def with_settings(rows, epsilons=(1.0, 2.0, 4.0)):
    """The rows with the arm `vat` trained with several values of epsilon, the larger the better on validation."""
    vat = rows["method"] == "vat"
    parts = [rows[~vat]]
    for k, epsilon in enumerate(epsilons):
        ids = rows.loc[vat, "config_id"].str.slice(0, -1) + str(k)
        parts.append(
            rows[vat].assign(
                config_id=ids,
                trial_id=[f"t{k}{one[:4]}" for one in ids],
                epsilon=epsilon,
                val_bag_auc=0.8 + 0.01 * k,
                bag_auc=rows.loc[vat, "bag_auc"] - 0.01 * k,
            )
        )
    made = pandas.concat(parts, ignore_index=True)
    made.attrs = {**rows.attrs, "varied": [*rows.attrs["varied"], "epsilon"]}
    return made


def test_arms_are_not_ranked_by_validation(rows):
    assert not [line for line in lines_of(rows) if "validation" in line]
    assert lines_of(rows)[0].startswith("K = 10, n = 50: vat − none: ")


def test_settings_of_one_arm_are_ranked_by_validation(rows):
    several = with_settings(rows)
    chosen = [line for line in lines_of(several) if "validation" in line]
    assert len(chosen) == 2
    for n, line in zip((50, 100), chosen, strict=True):
        mean = several[(several["num_bags"] == n) & (several["epsilon"] == 4.0)]["bag_auc"].mean()
        best = "of the 3 settings of vat, vat (epsilon=4) has the highest validation AUC; its bag AUC (test): "
        assert line.startswith(f"K = 10, n = {n}: {best}{mean:.3f}")
        assert line.endswith("(8 replicates).")


def test_equal_validation_is_said_to_be_a_tie(rows):
    several = with_settings(rows)
    tied = several.copy()
    tied.loc[(tied["num_bags"] == 50) & (tied["method"] == "vat"), "val_bag_auc"] = 1.0
    first, second = [line for line in lines_of(tied) if "validation" in line]
    start = "K = 10, n = 50: all 3 settings of vat tie at the highest validation AUC (1.000), so that it chooses none"
    assert first.startswith(start)
    means = tied[(tied["num_bags"] == 50) & (tied["method"] == "vat")].groupby("epsilon")["bag_auc"].mean()
    assert all(f"vat (epsilon={epsilon:g}) {mean:.3f}" in first for epsilon, mean in means.items())
    assert second.startswith("K = 10, n = 100: of the 3 settings of vat, vat (epsilon=4) has the highest")
    page = "".join(best_trials(tied, MlflowLinks()))
    assert "Up to 3 tie at the highest validation AUC in 1 of 2 tasks" in page
    assert " tie at " not in "".join(best_trials(several, MlflowLinks()))


def test_a_large_study_names_the_trial_that_validation_chose(rows):
    several = with_settings(rows)
    lines = findings(table(selected_rows(several)), several)
    best = several[(several["num_bags"] == 50) & (several["epsilon"] == 4.0)]["trial_id"].iloc[0]
    assert lines[0].startswith(f"K = 10, n = 50: of the 3 settings of vat, trial {best} has the highest validation AUC")
    tied = several.assign(val_bag_auc=0.9)
    tied.attrs = several.attrs
    line = findings(table(selected_rows(tied)), tied)[0]
    assert "all 3 settings of vat tie" in line and "the first planned is shown, trial t0" in line


def test_a_setting_with_fewer_runs_is_not_said_to_be_the_lowest(rows):
    several = with_settings(rows)
    several.loc[(several["epsilon"] == 4.0) & (several["replicate"] == 0), "status"] = "failed"
    line = next(line for line in lines_of(several) if "validation" in line)
    assert "vat (epsilon=2) has the highest validation AUC of those with all their runs; its" in line


def test_controls_are_not_chosen_by_validation(tmp_path):
    """Two teachers matched to two students differ in their length, and neither was chosen."""
    rows = make_distillation(tmp_path, num_bags=(50,), teachers=("none",), replicates=3).rows()
    vat = rows[rows["stage"] == "teacher"]
    controls = [vat.assign(stage="matched", method="matched of none", config_id=f"m{k}", trial_id=f"m{k}",
                           steps=float(k), teacher_method="none") for k in (1, 2)]  # fmt: skip
    made = pandas.concat([rows, *controls], ignore_index=True)
    made.attrs = {**rows.attrs, "varied": [*rows.attrs["varied"], "steps"]}
    assert not [line for line in findings(table(made), made) if "validation" in line]


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
    lines = [line for line in _all(rows) if "− its teacher" in line]
    own = rows.pivot_table(index="replicate", columns=["num_bags", "method"], values="instance_auc")
    p = [stats.ttest_rel(own[n][f"{t} → {s}"], own[n][t]).pvalue for t in ("none", "vat") for s in ("plain", "noisy")
         for n in (50, 100)]  # fmt: skip
    assert len(lines) == len(p) == 8
    for line, value in zip(lines, holm(p), strict=True):
        assert line.endswith(f"(6 pairs); {verdict(value, pairs(6))}.")


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
    assert verdict(0.001, pairs(4)) == "fewer than 5 pairs, no verdict"
    assert verdict(0.05, pairs(5)) == "not told apart (p = 0.05 after Holm)"
    assert verdict(0.0001, pairs(5)) == "told apart (p < 0.001 after Holm)"


def test_why_there_is_no_verdict_is_told_as_it_is():
    assert verdict(math.nan, pairs(5)) == "no verdict, since the pairs have no spread"
    assert verdict(math.nan, pairs(5, math.inf)) == "no verdict, since a value is not finite"
    assert verdict(None, pairs(5)) == "no verdict, since it is not among the tests"


def test_teachers_of_a_study_of_given_bags_have_a_verdict(tmp_path):
    """Its table has metrics as columns and a panel for each of their levels; the comparison has none."""
    rows = make_distillation(tmp_path, num_bags=(50,), replicates=8).rows()
    folds = {"fold": rows["replicate"], "repeat": 0, "fold_count": 8, "partition": "dealt folds"}
    rows = rows.assign(**folds, train_bags=40, test_bags=8, test_set=[f"t{r}" for r in rows["replicate"]])
    made = table(rows)
    found = [line for line in findings(made, rows, compare(rows, metric="instance_auc")) if "vat − none" in line]
    assert len(found) == 1 and "told apart (p" in found[0]
    page = unescape(make_report(rows))  # whose comparison is in the metric of the verdict
    (one,) = compare(rows[rows["stage"] == "teacher"], metric="instance_auc").found
    assert f"instance AUC (8 pairs); {verdict(one.p_holm[0], pairs(8))}." in page and "no verdict, since" not in page
    assert "instance AUC (test), compared with method=none" in page


def test_many_students_leave_room_for_every_kind_of_comparison(tmp_path):
    rows = make_distillation(tmp_path, num_bags=(50, 100, 200), students=("a", "b", "c"), replicates=5).rows()
    lines = [line for line in lines_of(rows) if " − " in line]
    assert sum("vat − none" in line for line in lines) == 3
    assert sum("its teacher" in line for line in lines) == 5 and len(lines) == 8
    assert "… and 13 more comparisons in the tables below." in lines_of(rows)


def test_a_study_without_a_plain_arm_tells_the_comparison_with_its_first(rows):
    renamed = rows.assign(method=rows["method"].replace({"none": "twice"}))
    renamed.attrs = rows.attrs
    made, compared = table(renamed), compare(renamed, {"method": "twice"})
    lines = findings(made, renamed, compared)
    assert [line.partition(": +")[0].partition(": −")[0] for line in lines] == [
        "K = 10, n = 50: vat − twice", "K = 10, n = 100: vat − twice",
    ]  # fmt: skip
    for line, one in zip(lines, compared.found, strict=True):
        assert line.endswith(verdict(one.p_holm[0], pairs(8)) + ".")
    assert lines[0] in unescape(make_report(renamed))


def test_the_note_on_verdicts_names_the_tests_that_are_told(rows, tmp_path):
    distilled = make_distillation(tmp_path, num_bags=(50,), replicates=6).rows()
    arms, students = "all comparisons of arms", "all comparisons of students"
    students_alone = distilled[distilled["method"] != "vat"]
    for mine, told in ((rows, [arms]), (distilled, [arms, students]), (students_alone, [students])):
        mine.attrs = distilled.attrs if mine is not rows else rows.attrs
        said = " ".join(verdict_note(table(mine)))
        assert [text for text in (arms, students) if text in said] == told
    alone = rows[rows["method"] == "vat"]
    assert verdict_note(table(alone)) == []


def test_labels_of_validation_are_said_to_be_used_where_they_are(rows):
    def fact(mine):
        return dict(study_facts(mine))["labels used"]

    drawn = rows.assign(labels_used=rows["num_bags"])
    folds = rows.drop(columns="num_bags").assign(train_bags=64, labels_used=64)
    assert "those of training bags alone" in fact(drawn) and "those of training bags alone" in fact(folds)
    assert "training and validation" in fact(folds.assign(labels_used=72))
    assert "training and validation" in fact(drawn.assign(labels_used=rows["num_bags"] + 10))
