"""Rows come back as stored, by name and by folder; what is no study is named."""

import pandas as pd
import pytest

import analysis
from analysis.rows.exported_files import export
from analysis.tables.study_table import render
from d2l_study.errors import UserError
from d2l_study.study.ledger.study_folder import LEADING_COLUMNS


def test_by_name_and_by_folder(stored_root):
    by_name = analysis.load("made", stored_root)
    by_folder = analysis.load(stored_root / "studies" / "made")
    pd.testing.assert_frame_equal(by_name, by_folder)
    assert len(by_name) == 2 * 2 * 3
    assert list(by_name.columns[: len(LEADING_COLUMNS)]) == list(LEADING_COLUMNS)
    assert by_name.attrs["varied"] == ["lambda_adv", "mean_bag_size", "num_bags"]


def test_an_unknown_study_names_the_nearest(stored_root):
    with pytest.raises(UserError, match="did you mean 'made'"):
        analysis.load("mad", stored_root)


def test_a_study_shown_beside_itself_counts_each_run_once(failing_root, tmp_path):
    path = export(analysis.load("made", failing_root), tmp_path / "rows.parquet")
    assert render(analysis.load(["made", path], failing_root)).splitlines()[4:] == render(
        analysis.load("made", failing_root)).splitlines()[4:]  # fmt: skip


def test_a_folder_that_is_no_study_is_told_from_a_root_of_studies(failing_root, tmp_path):
    with pytest.raises(UserError, match=r"this folder is no study, it holds no plan\.json; .*--root .*distilled, made"):
        analysis.load(failing_root)
    with pytest.raises(UserError, match=r"no plan\.json$"):
        analysis.load(tmp_path)


def test_what_notebooks_use_is_there():
    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        _ = analysis.tabel
