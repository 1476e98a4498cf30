"""A key that is a number in one study and a text in another, and lists: one kind of values in a column."""

import numpy as np
import pandas as pd
import pytest
from make_rows import make_rows

import analysis
from analysis.cli import main
from analysis.rows.exported_files import export
from analysis.rows.mixed_columns import without_mixed_columns

AUCS = [0.80, 0.82, 0.84, 0.83]
BETTER = [0.85, 0.86, 0.90, 0.84]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two studies of features, whose positive class is 1 in one and MSI-H in the other, as CSV."""
    folder = tmp_path_factory.mktemp("files")
    found = []
    for study, positive in (("a", "1"), ("b", "MSI-H")):
        arms = [({"method": m, "study": study, "dataset": "features", "mean_bag_size": None, "fold": 0,
                  "positive": positive, "config_id": f"{study}{m}"}, aucs)
                for m, aucs in (("none", AUCS), ("vat", BETTER))]  # fmt: skip
        found.append(folder / f"{study}.csv")
        export(make_rows(arms), found[-1])
    return [str(path) for path in found]


@pytest.mark.parametrize("command", ["tables", "compare", "export"])
def test_studies_with_a_number_and_a_text_are_written_as_parquet(files, command, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    assert main([command, *files, "--out", str(out)]) == 0, capsys.readouterr().err
    assert {*pd.read_parquet(out)["positive"]} == {"1", "MSI-H"}


def test_rows_that_were_joined_by_hand_are_exported_too(tmp_path):
    rows = make_rows([({"method": "none"}, AUCS)]).assign(positive=[1, "MSI-H", None, 2.5])
    again = analysis.load(export(rows, tmp_path / "rows.parquet"))
    assert [*again["positive"][[0, 1, 3]]] == ["1", "MSI-H", "2.5"] and again["positive"].isna().sum() == 1


def test_a_number_of_csv_and_the_same_text_of_parquet_are_one_value(tmp_path):
    paths = []
    for study, method, suffix in (("a", "none", "csv"), ("b", "vat", "parquet"), ("c", "adv", "csv")):
        values = {"method": method, "study": study, "config_id": method, "positive": "x" if study == "c" else "1"}
        paths.append(export(make_rows([(values, AUCS)]), tmp_path / f"{study}.{suffix}"))
    rows = analysis.load(paths)
    assert rows.groupby("study")["positive"].first().to_dict() == {"a": "1", "b": "1", "c": "x"}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_lists_are_read_as_texts(tmp_path, suffix):
    rows = make_rows([({"method": "none"}, AUCS)])
    rows["hidden"] = [[64, 32], [64, 32], None, []]
    rows.to_parquet(tmp_path / "lists.parquet", index=False)
    read = analysis.load(tmp_path / "lists.parquet")
    assert read["hidden"].fillna("–").tolist() == ["[64, 32]", "[64, 32]", "–", "[]"]
    assert "none" in analysis.table(read).text()
    again = analysis.load(export(read, tmp_path / f"again.{suffix}"))
    assert again["hidden"].tolist()[:2] == ["[64, 32]", "[64, 32]"]


def test_columns_of_one_kind_stay_as_they_are():
    frame = pd.DataFrame({
        "number": [1, 2.5, None], "text": ["a", None, "b"], "truth": [True, None, False], "none": [None] * 3,
        "both": pd.Series([1, 2.5, None], dtype=object),
    })  # fmt: skip
    assert without_mixed_columns(frame) is frame
    mixed = frame.assign(text=[True, "a", np.float64(3.0)], truth=[True, 1, np.nan])
    made = without_mixed_columns(mixed)
    assert made["text"].tolist() == ["True", "a", "3"] and made["truth"].fillna("–").tolist() == ["True", "1", "–"]
    assert mixed["text"].tolist() == [True, "a", 3.0]  # the given frame is left alone
