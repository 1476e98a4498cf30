"""No cell of a CSV file is a formula, and texts and numbers come back."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.rows.csv_text import guarded, unguarded
from analysis.rows.exported_files import export
from analysis.tables.comparison import compare
from analysis.tables.study_table import table

ARMS = ["=1+1", "+2", "-3", "@SUM(A1)", "'=x", "''+y", "'quoted", "plain", "\tTab", "−minus", "a=b"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_guarded_text_begins_with_no_sign_and_comes_back(arm):
    assert guarded(arm)[0] not in "=+-@\t\r\n"
    assert unguarded(guarded(arm)) == arm
    assert unguarded(arm) == arm or arm.startswith("'")
    assert guarded(-1.5) == -1.5


def test_no_cell_of_a_csv_file_is_a_formula_and_numbers_stay_numbers(labelled, tmp_path):
    rows = analysis.load("made", labelled)
    made = []
    for i, arm in enumerate(ARMS):
        part = rows[rows["method"] == "none"].assign(method=arm, student_method=arm)
        made.append(part.assign(config_id=part["config_id"] + str(i)))
    frame = pd.concat([*made, rows], ignore_index=True)
    frame["note"] = "=HYPERLINK()"
    frame["bag_nll"] = -frame["bag_nll"]
    frame.attrs = {"study": "made", "varied": ["num_bags"]}
    path = export(frame, tmp_path / "rows.csv")
    for text in (path.read_text(), table(frame).text("csv"), compare(frame).text("csv")):
        cells = [(name, cell) for line in csv.DictReader(io.StringIO(text)) for name, cell in line.items()]
        dangerous = [(name, cell) for name, cell in cells if cell[:1] in "=+-@\t\r" and cell]
        assert all(re.fullmatch(r"-\d[\d.e+-]*", cell) for _, cell in dangerous), dangerous[:3]
        assert any(cell.startswith("-") for _, cell in cells)
    again = analysis.load(path)
    assert again["method"].tolist() == frame["method"].tolist()
    assert again["note"].tolist() == frame["note"].tolist()
    assert np.allclose(again["bag_nll"], frame["bag_nll"])
    columns = list(csv.DictReader(io.StringIO(table(frame).text("csv"))))
    assert {unguarded(line["method"]) for line in columns} == {*ARMS, "none", "vat"}
