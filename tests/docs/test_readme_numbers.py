"""The numbers of the README come out of the records that it names, rounded once."""

import functools
import re
from pathlib import Path

import pytest

import analysis
from analysis.statistics.intervals import paired_difference

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "records"
FOLDS = 8 / 64
"""Test over training bags of the colon studies."""


@functools.cache
def readme():
    return " ".join(re.sub(r"[*|]", " ", (ROOT / "README.md").read_text(encoding="utf-8")).split())


@functools.cache
def rows_of(record):
    return analysis.load(RECORDS / record / "rows.csv")


def values(record, metric, **named):
    """replicate -> value of the runs whose columns have these values."""
    rows = rows_of(record)
    for key, value in named.items():
        rows = rows[rows[key] == value]
    assert not rows["replicate"].duplicated().any() and len(rows)
    return dict(zip(rows["replicate"], rows[metric], strict=True))


def difference(record, metric, first, second, ratio=None, **named):
    found = paired_difference(
        values(record, metric, **named, **first), values(record, metric, **named, **second), test_train_ratio=ratio
    )
    return found.mean, (found.upper - found.lower) / 2


def shown(pair, digits, sign="+"):
    mean, half = pair
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def of_arms(record, metric, first, second, digits=4, sign="+"):
    """n -> the difference of two arms as the README writes it."""
    return {
        n: shown(difference(record, metric, {"method": first}, {"method": second}, num_bags=n), digits, sign)
        for n in sorted(rows_of(record)["num_bags"].unique())
    }


def of_file(file, metric, first, second):
    """n -> the difference of two arms in a file of a record that is not its `rows.csv`, and half its interval."""
    rows, found = analysis.load(RECORDS / file), {}
    for n in (50, 100):
        mine = rows[rows["num_bags"] == n]
        ours, theirs = (mine[mine["method"] == m].set_index("replicate")[metric].to_dict() for m in (first, second))
        assert len(ours) == len(theirs) == 20
        one = paired_difference(ours, theirs)
        found[n] = (one.mean, (one.upper - one.lower) / 2)
    return found


def test_vat_against_none():
    d = of_arms("2026-11-27-vat-robust-confirm", "bag_auc", "vat", "none")
    n50 = shown(
        difference("2026-11-27-vat-robust-confirm", "bag_auc", {"method": "vat"}, {"method": "none"}, num_bags=50), 3
    )
    assert f"bag AUC {d[100]} at n = 100, {d[200]} at n = 200, and {n50}, not confirmed, at n = 50" in readme()


def test_vat_against_plain_training_of_twice_the_length():
    d = of_arms("2026-11-27-vat-equal-computing", "bag_auc", "vat", "twice", sign="")
    assert f"it gains {d[50]} at n = 50 and {d[100]} at n = 100" in readme()


def test_vat_in_bags_of_fifty():
    d = of_arms("2026-11-27-vat-robust-k50-confirm", "bag_auc", "vat", "none", sign="")
    n50 = of_arms("2026-11-27-vat-robust-k50-confirm", "bag_auc", "vat", "none", 3)[50].replace("-", "−")
    assert f"it gains {d[100]} at n = 100, and {n50} at n = 50, where one run of twenty ended near chance" in readme()
    vat = values("2026-11-27-vat-robust-k50-confirm", "bag_auc", method="vat", num_bags=50)
    assert sum(value < 0.6 for value in vat.values()) == 1


@pytest.mark.parametrize(
    ("teacher", "text"),
    [
        ("none", "Over those with the settings of their best trial it was {0} and {1};"),
        ("vat", "of VAT teachers {0}, not confirmed, and {1} ("),
    ],
)
def test_students_against_matched_teachers(teacher, text):
    record = "2026-11-27-distill-robust-confirm"
    d = of_arms(record, "instance_auc", f"{teacher} → student", f"matched of {teacher}")
    assert text.format(d[50], d[100]) in readme()


def test_students_of_plain_teachers_with_the_settings_of_the_recipe():
    d = of_arms("2026-11-29-plain-settings", "instance_auc", "as_vat → student", "matched of as_vat")
    assert f"it is not confirmed: instance AUC {d[50]} at n = 50 and {d[100]} at n = 100 (" in readme()


def test_vat_where_both_arms_have_its_settings():
    found = of_file("2026-11-27-regularizers-robust/vat_again.csv", "bag_auc", "vat", "none")
    assert f"bag AUC: {shown(found[50], 3)}, not confirmed, and {shown(found[100], 4)}, [record](" in readme()


@pytest.mark.parametrize("metric", ["bag_auc", "instance_auc"])
def test_vat_against_plain_teachers_that_differ_by_vat_alone(metric):
    pairs = of_file("2026-11-29-plain-settings/vat_rows.csv", metric, "vat", "as_vat")
    found = {n: shown(pair, 4) for n, pair in pairs.items()}
    said = {"bag_auc": f"bag AUC {found[50]} at n = 50 and {found[100]} at n = 100", "instance_auc":
            f"instance AUC {found[50]} and {found[100]} ("}  # fmt: skip
    assert said[metric] in readme()


def test_students_with_and_without_soft_labels():
    d = of_arms("2026-11-27-soft-labels", "instance_auc", "none → without", "none → soft", sign="")
    said = f"without them the same student is better, by {d[50]} (not seen again) and {d[100]} (seen again; [record]("
    assert said in readme()


def test_students_of_features():
    record, metric = "2026-11-27-colon-features-control", "instance_auc_within"
    student, matched = {"method": "none → near"}, {"method": "matched of none"}
    mean = shown(difference(record, metric, student, matched, FOLDS), 3)
    ours, theirs = values(record, metric, **student), values(record, metric, **matched)
    ahead = sum(ours[r] > theirs[r] for r in ours)
    assert len(ours) == 50 and f"{mean} above a teacher trained as long, higher in {ahead} folds" in readme()
    smoothed, alone = (
        shown(difference(record, metric, student, {"method": other}, FOLDS), 3)
        for other in ("smoothed of none", "no_teacher")
    )
    assert f"it is {smoothed} above the teacher's own scores averaged likewise" in readme()
    assert f"and {alone} above a student without a teacher, neither confirmed" in readme()

    record = "2026-11-27-colon-features-soft-labels"
    student = rows_of(record)[rows_of(record)["method"] == "none → near_bags"]
    (without,) = student["no_soft_labels_id"].unique()
    pair = difference(record, metric, {"method": "none → near_bags"}, {"config_id": without}, FOLDS)
    assert f"One that reads bag labels, too, gains {shown(pair, 3)} by soft labels (" in readme()


def test_students_of_patches():
    record, metric, student = "2026-11-28-colon-patches", "instance_auc_within", {"method": "none → near"}
    matched, without = (
        shown(difference(record, metric, student, {"method": other}, FOLDS), 3)
        for other in ("matched of none", "no_soft_labels of none")
    )
    assert len(values(record, metric, **student)) == 50
    said = f"a student is {matched} above a teacher trained as long, not confirmed, and soft labels add {without} ("
    assert said in readme()


def test_the_first_study():
    record, metric = "2026-11-27-first-study", "instance_auc"
    for method in ("none", "matched of none", "none → student"):
        means = [
            sum(v.values()) / len(v) for v in (values(record, metric, method=method, num_bags=n) for n in (50, 100))
        ]
        assert " ".join([method, *(f"{mean:.3f} (5)" for mean in means)]) in readme()
    for other, name in (("matched of none", "its matched teacher"), ("none", "its teacher")):
        d = of_arms(record, metric, "none → student", other, 3)
        assert f"none → student − {name} {d[50]} (5) {d[100]} (5)" in readme()
