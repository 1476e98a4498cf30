"""One count and one word for what a mean is over, in tables, figures and the report; and that machines which differ are
said wherever results are shown."""

import re

import pytest
from make_folds import make_folds
from make_study import make_distillation, make_study

import analysis
from analysis.cells.hardware import hardware_differences_of_rows
from analysis.cli import main
from analysis.figures.figure import figure
from analysis.figures.paired import draw_pairs
from analysis.figures.reliability import Reliability
from analysis.report.report import make_report
from analysis.tables.comparison import compare
from analysis.tables.study_table import table


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Three given folds, twice."""
    root = tmp_path_factory.mktemp("given")
    make_folds(root, dataset="manifest", images=30, folds=3, repeats=2, seed=2, partition="given folds")
    return analysis.load("folded", root)


def taught(rows):
    """The rows with the arm vat as a student of the arm none."""
    made = rows.copy()
    teacher = made.loc[made["method"] == "none", "config_id"].iloc[0]
    student = made["method"] == "vat"
    made["teacher_id"] = made["teacher_id"].astype(object)
    made.loc[student, ["stage", "teacher_id"]] = ["student", teacher]
    made["val_bag_auc"] = made["bag_auc"]
    made.attrs = rows.attrs
    return made


def texts(drawn):
    found = [drawn.get_supxlabel(), *(text.get_text() for axis in drawn.axes for text in axis.texts)]
    return " ".join(" ".join(found).split())


def test_the_figure_of_pairs_counts_and_draws_folds_whose_repeats_are_averaged_once(given):
    rows = taught(given)
    drawn = draw_pairs(rows, "bag_accuracy")
    (found,) = compare(rows, {"method": "none"}, "bag_accuracy").found
    assert f"{found.baseline_mean:.4f} → {found.mean:.4f} (3" in texts(drawn)
    assert "dots: folds (their repeats averaged)" in texts(drawn)
    (dots,) = [line for line in drawn.axes[0].get_lines() if line.get_marker() == "o" and len(line.get_xdata()) > 1]
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(_by_fold(rows)))


def _by_fold(rows):
    by = rows.pivot(index="replicate", columns="method", values="bag_accuracy")
    return (by["vat"] - by["none"]).groupby(by.index % 3).mean().tolist()


def test_one_count_and_one_word_stand_in_the_whole_report(given):
    page = re.sub(r"<svg.*?</svg>|data:[^\"]*|\s+|&nbsp;|\u00a0", " ", make_report(taught(given)))
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page))
    assert "3 folds" in text and "6 (3 folds (their repeats averaged))" in text
    assert "interval over folds (their repeats averaged), count in brackets" in text
    assert "3 replicates" not in text and "(runs)" not in text and "over replicates" not in text
    best = text[text.index("validation bag AUC") :]
    assert re.match(r"validation bag AUC instance AUC \(test\) folds .*? 3 ", best)
    kinds = (
        (Reliability.of(given).sheet(), "count of folds, their repeats averaged"),
        (table(given).sheet(), "3 folds"),
    )
    for sheet, wanted in kinds:
        assert wanted in " ".join(sheet.caption)
    note = texts(figure(given, "reliability"))
    assert "3 folds (with all their repeats) together" in note
    assert "mean over 3 folds (their repeats averaged)" in texts(figure(given, "roc"))


def test_replicates_and_trainings_keep_their_words(tmp_path):
    make_folds(tmp_path, dataset="manifest", images=24, folds=3, repeats=1, partition="given split")
    split = analysis.load("folded", tmp_path)
    assert "dots: trainings;" in texts(draw_pairs(taught(split), "bag_accuracy"))
    make_distillation(tmp_path, num_bags=(50,), replicates=2)
    assert "dots: replicates;" in texts(draw_pairs(analysis.load("distilled", tmp_path)))


def differing(rows, arm):
    made = rows.copy()
    made.attrs = rows.attrs
    made.loc[made["method"] == arm, ["precision", "device"]] = ["bfloat16", "cuda:0"]
    return made


PRECISION = "uns differ in precision, which changes results (bfloat16: vat; float32: none)"


@pytest.mark.parametrize("kind", ["curves", "roc", "pr", "reliability", "pairs"])
def test_figures_say_that_runs_differ_in_precision_or_device(given, kind):
    drawn = figure(differing(taught(given), "vat"), kind)
    assert PRECISION in texts(drawn) and "differ in device, which changes results (cpu: none; cuda: vat)" in texts(
        drawn
    )
    if kind == "pairs":
        assert "in 6 of 6 pairs the two sides differ in precision" in texts(drawn)
    assert "uns differ" not in texts(figure(taught(given), kind))


def test_heat_maps_and_the_report_say_it_too(tmp_path):
    make_study(tmp_path, num_bags=(50, 100), replicates=2)
    rows = analysis.load("made", tmp_path)
    changed = differing(rows, "vat")
    assert PRECISION in texts(figure(changed, "heatmap"))
    report, plain = make_report(changed), make_report(rows)
    summary = report[: report.index("What was studied")]
    assert PRECISION in summary and "differ in precision" not in plain
    assert len(hardware_differences_of_rows(changed)) == 2 and hardware_differences_of_rows(rows) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["tables", "--metric", ","], ["tables", "--metric", ""], ["tables", "--metric", " , ", "--metric", ","],
        ["compare", "--metric", ","], ["compare", "--metric", ",", "--test", "delong"],
        ["figure", "--metric", "", "--out", "f.png"],
        ["figure", "--kind", "learning", "--metric", "", "--out", "f.png"],
        ["tables", "--rows", ""], ["tables", "--columns", ""], ["tables", "--panel", ""], ["compare", "--baseline", ""],
        ["figure", "--where", "", "--out", "f.png"], ["tables", "--label", ""],
        ["figure", "--kind", "heatmap", "--rows", "", "--out", "f.png"],
        ["compare", "--test", "delong", "--replicate", ""], ["compare", "--test", "delong", "--replicate", ","],
    ],
)  # fmt: skip
def test_options_that_name_nothing_are_a_line(made, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([arguments[0], "made", "--root", str(made), *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    option = next(one for one in arguments if one.startswith("--") and one not in ("--kind", "--test"))
    assert option in error


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), replicates=2, with_predictions=True)
    return root


def test_several_metrics_may_be_set_apart_by_spaces(made, capsys):
    assert main(["tables", "made", "--root", str(made), "--metric", "bag_auc, instance_auc,"]) == 0
    assert capsys.readouterr().out.count("level") >= 2
