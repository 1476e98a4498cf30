"""Loading and exporting: rows come back as stored, predictions belong to the runs asked for."""

import numpy as np
import pandas as pd
import pytest
from make_study import make_study
from scipy.special import expit

import analysis
from analysis.rows.exported_files import export
from d2l_study.errors import UserError
from d2l_study.study.ledger.study_folder import LEADING_COLUMNS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), replicates=3, missing=((0, 1),), with_predictions=True)
    make_study(root, "bare", num_bags=(50,), bag_sizes=(10,), replicates=2, seed=9)
    return root


def test_by_name_and_by_folder(root):
    by_name = analysis.load("made", root)
    by_folder = analysis.load(root / "studies" / "made")
    pd.testing.assert_frame_equal(by_name, by_folder)
    assert len(by_name) == 2 * 2 * 3
    assert list(by_name.columns[: len(LEADING_COLUMNS)]) == list(LEADING_COLUMNS)
    assert by_name.attrs["varied"] == ["lambda_adv", "mean_bag_size", "num_bags"]


def test_an_unknown_study_names_the_nearest(root):
    with pytest.raises(UserError, match="did you mean 'made'"):
        analysis.load("mad", root)


def test_predictions_of_one_run_and_of_a_cell(root):
    run = analysis.load_predictions("made", root, method="vat", num_bags=50, replicate=2, split="test", level="bag")
    assert len(run) == 200
    assert set(run["replicate"]) == {2}
    assert set(run["method"]) == {"vat"}
    cell = analysis.load_predictions("made", root, method="none", num_bags=50)
    assert sorted(cell["replicate"].unique()) == [0, 2]  # replicate 1 is missing
    assert set(cell["split"]) == {"val", "test"}
    assert set(cell["level"]) == {"bag", "instance"}
    assert cell["config_id"].nunique() == 1
    rows = analysis.load("made", root)
    assert cell["config_id"][0] == rows[(rows["method"] == "none") & (rows["num_bags"] == 50)]["config_id"].iloc[0]


def test_predictions_are_logits_that_go_with_their_labels(root):
    bags = analysis.load_predictions("made", root, split="test", level="bag")
    probability = expit(bags["logit"].to_numpy())
    assert probability[bags["label"] == 1].mean() > 0.7 > 0.3 > probability[bags["label"] == 0].mean()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"metod": "vat"}, "did you mean 'method'"),
        ({"method": "dropout"}, "no finished run with method=dropout"),
        ({"split": "train"}, "expected val or test"),
    ],
)
def test_predictions_that_cannot_be(root, where, message):
    with pytest.raises(UserError, match=message):
        analysis.load_predictions("made", root, **where)


def test_a_run_without_predictions_is_named(root):
    with pytest.raises(UserError, match=r"r000 kept no predictions\.parquet"):
        analysis.load_predictions("bare", root)


def test_export_keeps_rows_and_values(root, tmp_path):
    rows = analysis.load("made", root)
    for name, read in (("rows.parquet", pd.read_parquet), ("rows.csv", pd.read_csv)):
        back = read(export(rows, tmp_path / name))
        assert list(back.columns) == list(rows.columns)
        assert back["config_id"].tolist() == rows["config_id"].tolist()
        np.testing.assert_array_equal(back["bag_auc"], rows["bag_auc"])
        assert back["status"].tolist() == rows["status"].tolist()


def test_an_exported_file_makes_the_same_table(root, tmp_path):
    from analysis.tables.study_table import render

    rows = analysis.load("made", root)
    for name, read in (("rows.parquet", pd.read_parquet), ("rows.csv", pd.read_csv)):
        assert render(read(export(rows, tmp_path / name))) == render(rows)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "."])
def test_export_to_what_it_cannot_write(root, tmp_path, name):
    with pytest.raises(UserError, match="--out"):
        export(analysis.load("made", root), tmp_path / name)
