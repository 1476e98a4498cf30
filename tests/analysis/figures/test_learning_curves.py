"""Learning curves are the stored ones and their mean."""

import json

import pytest
from make_study import make_study

import analysis
from analysis.figures import learning_curves
from analysis.figures.figure import figure
from d2l_study.errors import UserError


def with_curves(root, curves):
    """A study of one arm whose replicates have these curves."""
    folder = make_study(root, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=0)
    entry = folder.plan()[0] | {"replicates": list(range(len(curves)))}
    folder.write_plan([entry])
    for r, points in enumerate(curves):
        row = {"status": "done", "bag_auc": 0.9, "val_bag_auc": 0.9, "best_step": 200}
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
