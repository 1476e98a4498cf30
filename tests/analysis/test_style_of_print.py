"""What figures, captions and lines of progress must not look like."""

import io

import numpy as np
import pytest
from make_study import make_study
from rich.console import Console

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.figures.figure import figure
from analysis.tables.number_style import styles_of
from analysis.tables.sheet import NO_BREAK, keep_together
from d2l_study.study.commands.progress_display import ProgressDisplay


class Request:
    label, steps, replicates, attempt = "one", 10, (0,), 0


def test_a_validation_auc_that_is_not_defined_is_no_number(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("d2l_study.study.commands.progress_display.PLAIN_SECONDS", -1.0)
    shown = ProgressDisplay(Console(file=out, width=200), {"a": 1.0, "b": 1.0}, 1)
    for key, area in (("a", float("nan")), ("b", 0.75)):
        shown.trial_started(key, Request())
        shown.trial_reported(key, 5, area)
        Console(file=out, width=200).print(shown._table())
        shown.trial_ended(key, Request(), 0, area)
    text = out.getvalue()
    assert text.count("validation AUC undefined") == 2 and "undefined" in text.split("val AUC")[1]
    assert "nan" not in text and shown.best == (0.75, "one")


def test_steps_are_whole_numbers(tmp_path, monkeypatch):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=1)
    curve = [{"step": step, "val_bag_auc": 0.5 + step / 100} for step in (3, 4, 5)]
    monkeypatch.setattr("analysis.figures.learning_curves._curve", lambda *_: curve)
    drawn = figure(analysis.load("made", tmp_path), "learning")
    drawn.draw_without_rendering()
    ticks = drawn.axes[0].get_xticks()
    assert len(ticks) and all(float(tick).is_integer() for tick in ticks)


def test_one_notation_of_intervals_in_one_table(tmp_path):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=4).rows()
    rows["bag_auc"], rows["instance_auc"] = 1.0, np.tile([0.999, 0.95, 0.99, 0.97], 2)
    layout = arrange(rows, ["bag_auc", "instance_auc"], "method", METRICS, None)
    styles = styles_of(layout, [])
    interval_text = {c.metric.name: styles[c.metric.name].interval_text(c.interval) for c in layout.cells.values()}
    assert interval_text["bag_auc"] == "[1.000, 1.000]" and interval_text["instance_auc"].startswith("[")


@pytest.mark.parametrize("text", ["a given split of", "on given folds", "95 % t intervals of", "a corrected t test"])
def test_captions_break_no_term(text):
    kept = keep_together(text)
    for pair in ("given split", "given folds", "t intervals", "t test"):
        assert pair not in kept
    assert kept.replace(NO_BREAK, " ") == text
