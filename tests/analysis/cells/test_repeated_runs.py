"""Rows of one run in several studies or files: one stands for equal ones, unlike ones are told apart or refused."""

import io
import re

import pandas as pd
import pytest
from make_folds import make_folds
from make_rows import make_rows

import analysis
from analysis.cells.arrange import arrange
from analysis.rows.exported_files import export
from analysis.rows.repeated_runs import unlike_rows
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

ARMS = [("none", [0.80, 0.82, 0.84, 0.83]), ("vat", [0.85, 0.86, 0.90, 0.84])]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same settings in two studies, whose results are unlike in `new.csv`, and like in `again.csv`."""
    folder = tmp_path_factory.mktemp("files")
    old = make_rows([({"method": m, "num_bags": 50}, aucs) for m, aucs in ARMS]).assign(study="old", train_seconds=1.0)
    export(old, folder / "old.csv")
    export(old.assign(study="again", train_seconds=2.0), folder / "again.csv")
    new = old.assign(study="new", bag_auc=old["bag_auc"] - 0.1)
    export(new, folder / "new.csv")
    export(new.assign(study="old"), folder / "same_name.csv")
    export(pd.concat([old, new.assign(study="old").iloc[[6]]]), folder / "twice.csv")
    export(pd.concat([old, old.iloc[[6]]]), folder / "equal.csv")
    export(pd.concat([old, new.iloc[[6]].assign(study="old", status="failed", bag_auc=None)]), folder / "tried.csv")
    return folder


def means(made):
    return {key[1].text: round(cell.interval.mean, 4) for key, cell in made.layout.cells.items()}


@pytest.mark.parametrize("names", [("old", "new"), ("new", "old")])
def test_studies_with_unlike_results_of_the_same_runs_stand_each_by_itself(files, names):
    rows = analysis.load([files / f"{name}.csv" for name in names])
    made = table(rows)
    assert means(made) == {
        "none (study=old)": 0.8225,
        "vat (study=old)": 0.8625,
        "none (study=new)": 0.7225,
        "vat (study=new)": 0.7625,
    }
    assert "Studies have different results of the same runs, so each stands by itself." in made.text()
    assert {(one.row.study, one.baseline.study) for one in compare(rows).found} == {("old",) * 2, ("new",) * 2}


def test_one_row_stands_for_equal_ones_whatever_time_they_took(files):
    made = table(analysis.load([files / "old.csv", files / "again.csv"]))
    assert means(made) == {"none": 0.8225, "vat": 0.8625}
    for name in ("equal", "tried"):
        assert means(table(analysis.load(files / f"{name}.csv"))) == {"none": 0.8225, "vat": 0.8625}


def test_unlike_rows_that_no_name_tells_apart_are_refused(files):
    with pytest.raises(UserError, match=re.escape(
        f"{files / 'twice.csv'}: line 8 and line 10 are of one run, c1 r002, and differ (bag_auc 0.9 and 0.8); "
        "expected one row for each run of a study"
    )):  # fmt: skip
        analysis.load(files / "twice.csv")
    old, other = files / "old.csv", files / "same_name.csv"
    with pytest.raises(UserError, match=re.escape(
        f"{old} and {other}: rows of run c0 r000 of study 'old' differ (bag_auc 0.8 and 0.7000000000000001); expected "
        "equal rows, or another name of the study in one of them (column study)"
    )):  # fmt: skip
        analysis.load([files / "again.csv", old, other])
    rows = make_rows([({"method": "none", "num_bags": 50}, [0.8])])
    with pytest.raises(UserError, match=r"study 's': run c0 r000 has two rows that differ \(bag_auc 0.8 and 0.9\)"):
        arrange(pd.concat([rows, rows.assign(bag_auc=[0.9, *rows["bag_auc"][1:]])], ignore_index=True))


def test_pooled_folds_of_unlike_studies_are_of_each_of_them(tmp_path):
    """In the second all scores of the first are turned round."""
    made = make_folds(tmp_path / "a", "s", images=24, folds=3, repeats=1)
    other = StudyFolder(LocalStorage(tmp_path / "b"), "s")
    other.write("d\n", made.resolved(), made.plan())
    for entry in made.plan():
        config = entry["config_id"]
        other.ledger.write_config(config, {"values": entry["values"]})
        for r in entry["replicates"]:
            row = made.ledger.read(config, r)["row"]
            turned = pd.read_parquet(io.BytesIO(made.read_file(config, r, "predictions.parquet")))
            data = turned.assign(logit=-turned["logit"]).to_parquet(index=False)
            other.ledger.commit(config, r, {**row, "bag_auc": 1 - row["bag_auc"]}, {"predictions.parquet": data})
    rows = analysis.load([tmp_path / root / "studies/s" for root in "ab"])
    pooled = analysis.pooled_rows(rows).set_index(["study", "method"])["bag_auc"]
    for method in ("none", "vat"):
        assert pooled["a/s", method] > 0.6 and pooled["b/s", method] == pytest.approx(1 - pooled["a/s", method])


def test_a_value_that_one_row_lacks_is_no_difference_and_rounding_is_none():
    rows = make_rows([({"method": "none", "num_bags": 50}, [0.8, 0.9])], replicates=2)
    lacking = rows.assign(bag_auc=[0.8, None], study="t")
    assert unlike_rows(pd.concat([rows, lacking])) is None
    assert unlike_rows(pd.concat([rows, rows.assign(bag_auc=rows["bag_auc"] + 1e-12)])) is None
    infinite = rows.assign(bag_nll=[float("inf"), 1.0])
    assert unlike_rows(pd.concat([infinite, infinite])) is None
    found = unlike_rows(pd.concat([infinite, infinite.assign(bag_nll=[2.0, 1.0])]))
    assert found.metric == "bag_nll" and found.places == (0, 2) and found.values == (float("inf"), 2.0)
