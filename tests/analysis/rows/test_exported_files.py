"""Exported files hold the rows as they are; what is no export, or no value of a run, is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.cli import main
from analysis.rows.exported_files import export
from analysis.tables.study_table import render
from d2l_study.errors import UserError


def test_export_keeps_rows_and_values(stored_root, tmp_path):
    rows = analysis.load("made", stored_root)
    for name, read in (("rows.parquet", pd.read_parquet), ("rows.csv", pd.read_csv)):
        back = read(export(rows, tmp_path / name))
        assert list(back.columns) == list(rows.columns)
        assert back["config_id"].tolist() == rows["config_id"].tolist()
        np.testing.assert_array_equal(back["bag_auc"], rows["bag_auc"])
        assert back["status"].tolist() == rows["status"].tolist()


def test_an_exported_file_makes_the_same_table(stored_root, tmp_path):
    from analysis.tables.study_table import render

    rows = analysis.load("made", stored_root)
    for name, read in (("rows.parquet", pd.read_parquet), ("rows.csv", pd.read_csv)):
        assert render(read(export(rows, tmp_path / name))) == render(rows)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "."])
def test_export_to_what_it_cannot_write(stored_root, tmp_path, name):
    with pytest.raises(UserError, match="--out"):
        export(analysis.load("made", stored_root), tmp_path / name)


def test_an_exported_file_is_a_study_and_holds_no_path_of_this_machine(failing_root, tmp_path):
    rows = analysis.load("made", failing_root)
    path = export(rows, tmp_path / "rows.parquet")
    back = analysis.load(path)
    assert render(back) == render(rows)
    assert back.attrs["varied"] == rows.attrs["varied"]
    assert "folders" not in back.attrs and "folders" in rows.attrs
    assert str(failing_root).encode() not in path.read_bytes()
    assert render(analysis.load(export(rows, tmp_path / "rows.csv"))) == render(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.parquet", None, "no such file"),
        ("bad.parquet", b"no parquet", "cannot be read"),
        ("other.csv", b"a,b\n1,2\n", "lacks the columns config_id, stage"),
        ("empty.csv", b"study,config_id,stage,method,replicate,status\n", "holds no rows"),
    ],
)
def test_files_that_hold_no_rows_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        analysis.load(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("bag_auc", "high", "found 'high', expected a number"),
        ("bag_auc", 1.7, "found 1.7, expected a number from 0 to 1"),
        ("bag_brier", 1.7, "found 1.7, expected a number from 0 to 1"),
        ("replicate", None, "found nothing, expected a whole number from 0 on"),
        ("replicate", 0.5, "found 0.5, expected a whole number"),
        ("status", "finished", "found 'finished', expected done or failed or missing or pruned"),
    ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_line_and_column(failing_root, tmp_path, column, value, message):
    frame = analysis.load("made", failing_root)
    frame[column] = frame[column].astype(object)
    frame.loc[2, column] = value
    frame.to_csv(tmp_path / "edited.csv", index=False)
    with pytest.raises(UserError, match=f"edited.csv: line 4, column {column}: {message}"):
        analysis.load(tmp_path / "edited.csv")


RECORD = Path(__file__).resolve().parents[3] / "benchmarks" / "records" / "2026-11-27-colon-features-soft-labels"


def test_a_file_of_chosen_columns_is_read_as_the_study_was(tmp_path):
    """It lacks study, trial_id and the number of folds; folds are corrected for shared bags all the same."""
    rows = analysis.load(RECORD / "rows.csv")
    assert set(rows["study"]) == {RECORD.name} and "folds" not in rows and rows["trial_id"].str.len().eq(10).all()
    said = " ".join(render(rows, "instance_auc_within").split())
    assert "none → near_bags − the same without soft labels | +0.022 ± 0.016 (50) |" in said
    assert main(["report", str(RECORD / "rows.csv"), "--out", str(tmp_path / "report.html")]) == 0
    (tmp_path / "mine.csv").write_bytes((RECORD / "rows.csv").read_bytes())
    assert set(analysis.load(tmp_path / "mine.csv")["study"]) == {"mine"}
