"""Learning curves are the stored ones and their mean."""

import json
import math

import pytest
from make_study import make_study

import analysis
from analysis.figures import learning_curves
from analysis.figures.figure import figure
from d2l_study.errors import UserError


def with_curves(root, curves, undefined=()):
    """A study of one arm whose replicates have these curves. undefined: replicates without a validation AUC."""
    folder = make_study(root, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=0)
    entry = folder.plan()[0] | {"replicates": list(range(len(curves)))}
    folder.write_plan([entry])
    for r, points in enumerate(curves):
        row = {"status": "done", "bag_auc": 0.9, "val_bag_auc": math.nan if r in undefined else 0.9, "best_step": 200}
        files = {} if points is None else {"curve.json": json.dumps(points).encode()}
        folder.ledger.commit(entry["config_id"], r, row, files)
    return analysis.load("made", root)


def test_learning_curves_are_the_stored_ones_and_their_mean(tmp_path):
    steps = [{100: 0.5, 200: 0.7, 300: 0.6}, {100: 0.6, 200: 0.9}]
    made = with_curves(tmp_path, [[{"step": s, "val_bag_auc": v} for s, v in one.items()] for one in steps])
    (axis,) = learning_curves.draw_learning(made).axes
    drawn = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.get_lines()]
    assert [(s, v) for s, v in steps[0].items()] in drawn
    assert drawn[-1] == [(100, pytest.approx(0.55)), (200, pytest.approx(0.8))]  # where both still are
    assert [(200, 0.7)] in drawn  # the snapshot
    with pytest.raises(UserError, match=r"--metric val_bag_acu: no curve has it.*val_bag_auc"):
        learning_curves.draw_learning(made, "val_bag_acu")


def test_steps_are_whole_numbers(tmp_path, monkeypatch):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=1)
    curve = [{"step": step, "val_bag_auc": 0.5 + step / 100} for step in (3, 4, 5)]
    monkeypatch.setattr("analysis.figures.learning_curves._curve", lambda *_: curve)
    drawn = figure(analysis.load("made", tmp_path), "learning")
    drawn.draw_without_rendering()
    ticks = drawn.axes[0].get_xticks()
    assert len(ticks) and all(float(tick).is_integer() for tick in ticks)


def test_runs_without_a_validation_auc_are_left_out_of_that_alone_and_counted(tmp_path):
    """Validation bags of one class have no AUC; the training loss is there all the same."""

    def curve(auc):
        return [{"step": step, "train_loss": 1 / step, "val_bag_auc": auc} for step in (100, 200)]

    some = with_curves(tmp_path / "some", [curve(math.nan), curve(math.nan), curve(0.8)], undefined=(0, 1))
    drawn = learning_curves.draw_learning(some, "train_loss")
    (axis,) = drawn.axes
    assert axis.get_ylabel() == "training loss"
    assert len(axis.get_lines()) == 3 * 2 + 1  # each with its snapshot, and the mean
    assert "without" not in drawn.get_supxlabel()
    note = " ".join(learning_curves.draw_learning(some).get_supxlabel().split())
    assert "without 2 of 3 runs, whose curves are not there or undefined" in note
    none = with_curves(tmp_path / "none", [curve(math.nan)], undefined=(0,))
    assert len(learning_curves.draw_learning(none, "train_loss").axes[0].get_lines()) == 3
    with pytest.raises(UserError, match=r"val_bag_auc: it is undefined in every curve \(curves: train_loss, val_bag"):
        learning_curves.draw_learning(none)
    bare = with_curves(tmp_path / "bare", [None, curve(0.7)])
    assert "without 1 of 2 runs," in " ".join(learning_curves.draw_learning(bare).get_supxlabel().split())


def test_values_that_no_line_can_show_are_said_to_be_gaps(tmp_path):
    losses = [{100: 0.5, 200: math.inf, 300: 0.2}, {100: 0.6, 200: 0.4, 300: 0.3}]
    made = with_curves(tmp_path, [[{"step": s, "train_loss": v} for s, v in one.items()] for one in losses])
    note = " ".join(learning_curves.draw_learning(made, "train_loss").get_supxlabel().split())
    assert "; gaps in 1 run, and in their means: infinite or undefined values" in note
    whole = with_curves(tmp_path / "whole", [[{"step": s, "train_loss": v} for s, v in losses[1].items()]])
    assert "gaps" not in learning_curves.draw_learning(whole, "train_loss").get_supxlabel()
