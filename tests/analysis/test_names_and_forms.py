"""Names for print in every format, texts that no spreadsheet runs, and what captions and cells must not look like."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from make_study import make_distillation, make_study

import analysis
from analysis.cli import main
from analysis.figures.reliability import Reliability
from analysis.report.report import make_report
from analysis.rows.csv_text import guarded, unguarded
from analysis.rows.display_names import Names, with_labels
from analysis.rows.exported_files import export
from analysis.statistics.intervals import paired_difference
from analysis.tables.comparison import compare
from analysis.tables.sheet import NO_BREAK, keep_together
from analysis.tables.study_table import table
from d2l_study.errors import UserError

NAMED = {"none": "Attention MIL", "vat": "VAT", "lambda_adv": "λ", "bag_auc": "AUROC"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folder = make_study(root, num_bags=(20, 50), bag_sizes=(10,))
    labels = {"none": "Attention MIL", "teacher.lambda_adv": "λ"}
    folder.write("description: d\n", {"space": {"description": "d", "labels": labels}}, folder.plan())
    make_distillation(root, num_bags=(50,), replicates=3)
    return root


def test_names_of_the_space_stand_in_every_format_and_programs_keep_the_plain_ones(root):
    rows = analysis.load("made", root)
    made = table(rows)
    for format in ("markdown", "latex", "html"):
        text = made.text(format)
        assert "Attention MIL" in text and not re.search(r"\bnone\b(?! of)", text.replace("vat − none", ""))
        assert "Attention MIL" in compare(rows).text(format)
    lines = list(csv.DictReader(io.StringIO(made.text("csv"))))
    assert {line["method"] for line in lines} == {"none", "vat"}
    assert set(export(rows, root / "rows.csv").read_text().splitlines()[0].split(",")) == set(rows.columns)
    page = make_report(rows)
    assert "Attention MIL" in page and "<td>none</td>" not in page


def test_names_can_be_given_for_arms_keys_and_metrics(root, capsys):
    at = ["tables", "made", "--root", str(root), "--label", "none=Plain", "vat=With = sign", "--label", "bag_auc=AUROC"]
    assert main(at) == 0
    shown = capsys.readouterr().out
    assert "| Plain " in shown and "| With = sign " in shown and "made: AUROC (test)" in shown
    rows = analysis.load("made", root, labels={"lambda_adv": "λ"})
    assert "vat (λ = 1)" in table(_varied(rows), column_key="num_bags").text()
    assert compare(rows, {"method": "none"}).found  # what is typed is the name of the space
    for wrong, message in (("nome=X", "--label nome=X: no arm, key or metric is called so; did you mean 'none'"),
                           ("none=vat", "the arms none and vat would both be called 'vat'")):  # fmt: skip
        assert main(["tables", "made", "--root", str(root), "--label", wrong]) == 2
        assert message in capsys.readouterr().err


def _varied(rows):
    more = rows[rows["method"] == "vat"].assign(lambda_adv=2.0)
    more["config_id"] += "2"
    made = pd.concat([rows, more], ignore_index=True)
    made.attrs = rows.attrs
    return made


def test_arms_that_are_made_of_others_are_called_by_theirs(root):
    rows = with_labels(analysis.load("distilled", root), {"none": "MIL", "plain": "distilled"})
    text = table(rows).text()
    assert "MIL → distilled" in text and "attention of MIL" in text and "vat → noisy" in text
    names = Names({"vat → noisy": "ours", "noisy": "N"})
    assert (names.arm("vat → noisy"), names.arm("none → noisy")) == ("ours", "none → N")
    assert "no row has it; did you mean 'none'" in _error(lambda: compare(rows, {"method": "nome"}))
    assert "rows: none, vat" in _error(lambda: compare(rows, {"metod": "none"}))


def _error(function):
    with pytest.raises(UserError) as caught:
        function()
    return str(caught.value)


def test_bag_counts_are_n_in_every_format(root):
    rows = analysis.load("made", root)
    for column_key in ("num_bags", "mean_bag_size"):
        made = table(rows, column_key=column_key, panel_key=None)
        for format, wanted in (("markdown", "n = 20"), ("html", "n = 20"), ("latex", "$n = 20$")):
            text = made.text(format)
            assert wanted in text and "num_bags" not in text
            assert wanted in compare(rows).text(format)
        assert "n: training bags" in " ".join(made.text().split())


def test_a_half_width_beyond_any_difference_is_not_printed(root):
    rows = analysis.load("made", root)
    two = rows[rows["replicate"] < 2].copy()
    two.loc[two["method"] == "none", "bag_auc"] = [0.1, 0.9, 0.5, 0.5]
    two.loc[two["method"] == "vat", "bag_auc"] = [0.9, 0.6, 0.6, 0.7]
    text = table(two).text()
    assert "+0.250 (± not estimable from 2)" in text and "+0.150 ± 0.635 (2)" in text
    assert "Not estimable: an interval from so few pairs" in " ".join(text.split())
    assert "[not estimable]" in compare(two).text()
    (line,) = [one for one in csv.DictReader(io.StringIO(table(two).text("csv")))
               if one["baseline"] and one["num_bags"] == "20"]  # fmt: skip
    assert (line["interval"], line["lower"], line["half_width"]) == ("not estimable", "", "")
    assert "± not estimable from 2" in make_report(two)
    loss = paired_difference({0: 1.0, 1: 90.0}, {0: 0.0, 1: 0.0})
    assert loss.half_width > 1  # of a metric without bounds it is an interval like any other


def test_a_temperature_is_no_wider_than_it_can_be(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2, with_predictions=True)
    made = Reliability.of(analysis.load("made", tmp_path))
    own = made.frame().query("row == 'vat'")["temperature"]
    (entry,) = [line.entries[0] for line in made.sheet().panels[0].groups[0].lines if line.head.text == "vat"]
    assert entry.mean == f"{np.exp(np.log(own).mean()):.2f}"
    half = 12.706 * np.log(own).std() / np.sqrt(2)
    beyond = np.exp(np.log(own).mean() - half) < 0.05 and np.exp(np.log(own).mean() + half) > 20
    assert (entry.interval_text == "[not estimable]") == beyond and "e+" not in entry.interval_text


def test_captions_keep_a_number_and_its_noun_together(root):
    rows = analysis.load("made", root)
    wide = " ".join(table(rows).sheet().caption)
    assert "5 replicates planned" in wide
    for width in range(20, 120):
        import textwrap

        for line in textwrap.fill(keep_together(wide), width).splitlines():
            assert not re.search(r"(\b\d+|%|=)$", line)
    latex, html = (table(rows).text(format) for format in ("latex", "html"))
    assert r"95~\%~interval" in latex and "5~replicates" in latex
    assert f"5{NO_BREAK}replicates" in html and NO_BREAK not in table(rows).text()
    assert keep_together("K = 10, n = 50: from 2 pairs (2003) of it") == (
        f"K{NO_BREAK}={NO_BREAK}10, n{NO_BREAK}={NO_BREAK}50: from 2{NO_BREAK}pairs (2003) of it"
    )


ARMS = ["=1+1", "+2", "-3", "@SUM(A1)", "'=x", "''+y", "'quoted", "plain", "\tTab", "−minus", "a=b"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_guarded_text_begins_with_no_sign_and_comes_back(arm):
    assert guarded(arm)[0] not in "=+-@\t\r\n"
    assert unguarded(guarded(arm)) == arm
    assert unguarded(arm) == arm or arm.startswith("'")
    assert guarded(-1.5) == -1.5


def test_no_cell_of_a_csv_file_is_a_formula_and_numbers_stay_numbers(root, tmp_path):
    rows = analysis.load("made", root)
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
