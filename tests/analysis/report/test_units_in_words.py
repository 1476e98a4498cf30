"""One count and one word for what a mean is over, in tables, figures and the report."""

import re

import pytest
from label_boxes import words_of
from make_folds import make_folds
from make_study import make_distillation
from students import as_students

import analysis
from analysis.figures.figure import figure
from analysis.figures.paired import draw_pairs
from analysis.figures.reliability import Reliability
from analysis.report.report import make_report
from analysis.tables.comparison import compare
from analysis.tables.study_table import table


def test_the_figure_of_pairs_counts_and_draws_folds_whose_repeats_are_averaged_once(given_folds):
    rows = as_students(given_folds)
    drawn = draw_pairs(rows, "bag_accuracy")
    (found,) = compare(rows, {"method": "none"}, "bag_accuracy").found
    assert f"{found.baseline_mean:.4f} → {found.mean:.4f} (3" in words_of(drawn)
    assert "dots: folds (their repeats averaged)" in words_of(drawn)
    (dots,) = [line for line in drawn.axes[0].get_lines() if line.get_marker() == "o" and len(line.get_xdata()) > 1]
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(_by_fold(rows)))


def _by_fold(rows):
    by = rows.pivot(index="replicate", columns="method", values="bag_accuracy")
    return (by["vat"] - by["none"]).groupby(by.index % 3).mean().tolist()


@pytest.mark.slow
def test_one_count_and_one_word_stand_in_the_whole_report(given_folds):
    page = re.sub(r"<svg.*?</svg>|data:[^\"]*|\s+|&nbsp;|\u00a0", " ", make_report(as_students(given_folds)))
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page))
    assert "3 folds" in text and "6 (3 folds (their repeats averaged))" in text
    assert "interval over folds (their repeats averaged), count in brackets" in text
    assert "3 replicates" not in text and "(runs)" not in text and "over replicates" not in text
    best = text[text.index("validation bag AUC") :]
    assert re.match(r"validation bag AUC instance AUC \(test\) folds .*? 3 ", best)
    kinds = (
        (Reliability.of(given_folds).sheet(), "count of folds, their repeats averaged"),
        (table(given_folds).sheet(), "3 folds"),
    )
    for sheet, wanted in kinds:
        assert wanted in sheet.caption.text
    note = words_of(figure(given_folds, "reliability"))
    assert "3 folds (with all their repeats) together" in note
    assert "mean over 3 folds (their repeats averaged)" in words_of(figure(given_folds, "roc"))


def test_replicates_and_trainings_keep_their_words(tmp_path):
    make_folds(tmp_path, dataset="manifest", images=24, folds=3, repeats=1, partition="given split")
    split = analysis.load("folded", tmp_path)
    assert "dots: trainings;" in words_of(draw_pairs(as_students(split), "bag_accuracy"))
    make_distillation(tmp_path, num_bags=(50,), replicates=2)
    assert "dots: replicates;" in words_of(draw_pairs(analysis.load("distilled", tmp_path)))
