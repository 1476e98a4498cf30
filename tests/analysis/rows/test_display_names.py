"""Names for print stand in every format, and programs keep those of the space."""

import csv
import io
import re

import pandas as pd
import pytest

import analysis
from analysis.cli import main
from analysis.report.report import make_report
from analysis.rows.display_names import Names, with_labels
from analysis.rows.exported_files import export
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError


def test_names_of_the_space_stand_in_every_format_and_programs_keep_the_plain_ones(labelled):
    rows = analysis.load("made", labelled)
    made = table(rows)
    for format in ("markdown", "latex", "html"):
        text = made.text(format)
        assert "Attention MIL" in text and not re.search(r"\bnone\b(?! of)", text.replace("vat − none", ""))
        assert "Attention MIL" in compare(rows).text(format)
    lines = list(csv.DictReader(io.StringIO(made.text("csv"))))
    assert {line["method"] for line in lines} == {"none", "vat"}
    assert set(export(rows, labelled / "rows.csv").read_text().splitlines()[0].split(",")) == set(rows.columns)
    page = make_report(rows)
    assert "Attention MIL" in page and "<td>none</td>" not in page


def test_names_can_be_given_for_arms_keys_and_metrics(labelled, capsys):
    at = [
        "tables",
        "made",
        "--root",
        str(labelled),
        "--label",
        "none=Plain",
        "vat=With = sign",
        "--label",
        "bag_auc=AUROC",
    ]
    assert main(at) == 0
    shown = capsys.readouterr().out
    assert "| Plain " in shown and "| With = sign " in shown and "made: AUROC (test)" in shown
    rows = analysis.load("made", labelled, labels={"lambda_adv": "λ"})
    assert "vat (λ = 1)" in table(_varied(rows), column_key="num_bags").text()
    assert compare(rows, {"method": "none"}).found  # what is typed is the name of the space
    for wrong, message in (("nome=X", "--label nome=X: no arm, key or metric is called so; did you mean 'none'"),
                           ("none=vat", "the arms none and vat would both be called 'vat'")):  # fmt: skip
        assert main(["tables", "made", "--root", str(labelled), "--label", wrong]) == 2
        assert message in capsys.readouterr().err


def _varied(rows):
    more = rows[rows["method"] == "vat"].assign(lambda_adv=2.0)
    more["config_id"] += "2"
    made = pd.concat([rows, more], ignore_index=True)
    made.attrs = rows.attrs
    return made


def test_arms_that_are_made_of_others_are_called_by_theirs(labelled):
    rows = with_labels(analysis.load("distilled", labelled), {"none": "MIL", "plain": "distilled"})
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


def test_bag_counts_are_n_in_every_format(labelled):
    rows = analysis.load("made", labelled)
    for column_key in ("num_bags", "mean_bag_size"):
        made = table(rows, column_key=column_key, panel_key=None)
        for format, wanted in (("markdown", "n = 20"), ("html", "n = 20"), ("latex", "$n = 20$")):
            text = made.text(format)
            assert wanted in text and "num_bags" not in text
            assert wanted in compare(rows).text(format)
        assert "n: training bags" in " ".join(made.text().split())
