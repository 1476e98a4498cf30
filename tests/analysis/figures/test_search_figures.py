"""Figures of a search: they hold what the document says, and refuse what they cannot show."""

import numpy as np
import pytest
from label_boxes import misplaced

from analysis import cli
from analysis.figures.search import draw_document, png_of
from analysis.figures.search_importances import importances
from analysis.figures.sizes import SIZES
from d2l_study.errors import UserError


def document(count=20, metrics=("val_bag_auc",), goals=("max",), oracle=False):
    """One arm whose value depends on x alone; trial 3 failed, trial 5 was ended early."""
    rng = np.random.default_rng(0)
    trials = []
    for k in range(count):
        params = {"teacher.x": float(rng.uniform()), "teacher.y": float(rng.uniform(1, 8)), "teacher.kind": "ab"[k % 2]}
        state = {3: "failed", 5: "pruned"}.get(k, "complete")
        values = [0.6 + 0.3 * params["teacher.x"], params["teacher.y"]][: len(metrics)] if state == "complete" else None
        trials.append({"number": k, "search": 0, "trial": k, "arm": "vat", "at": {}, "params": params, "state": state,
                       "values": values, "config_id": f"{k:020d}", "trial_id": f"{k:010d}"})  # fmt: skip
    ways = {"teacher.x": {"low": 0, "high": 1, "log": False}, "teacher.y": {"low": 1, "high": 8, "log": True},
            "teacher.kind": {"choices": ["a", "b"]}}  # fmt: skip
    searches = [{"arm": "vat", "at": {}, "distributions": ways, "fixed": {}}]
    definition = {"metrics": list(metrics), "goals": list(goals), "startup": 5, "oracle": oracle, "searches": searches}
    return {"definition": definition, "trials": trials}


def test_the_key_that_matters_has_the_importance():
    ((name, count, shares),) = importances(document(40))
    assert (name, count) == ("vat", 38) and sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "teacher.x" and shares["teacher.x"] > 0.6


def test_the_best_so_far_never_falls_and_ends_at_the_best():
    made = document()
    (axis,) = draw_document(made, "best", "s").axes
    (curve,) = [line for line in axis.lines if line.get_label() == "best so far"]
    y = curve.get_ydata()
    assert np.all(np.diff(y) >= 0) and y[-1] == max(t["values"][0] for t in made["trials"] if t["values"])
    assert {"failed", "ended early"} <= {line.get_label() for line in axis.lines}
    assert "18 complete, 1 ended early, 1 failed" in axis.get_title()


def test_several_objectives_show_their_front_and_an_oracle_is_marked():
    figure = draw_document(document(metrics=("val_bag_auc", "train_seconds"), goals=("max", "min")), "best", "s")
    assert "front of" in figure.axes[0].get_legend().get_texts()[0].get_text()
    assert not figure.texts
    (mark,) = draw_document(document(oracle=True), "parallel", "s").texts
    assert "ORACLE" in mark.get_text()


def test_every_complete_trial_is_a_line_over_its_keys():
    (axis,) = draw_document(document(), "parallel", "s").axes
    lines = [line for line in axis.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 18 + 1  # and the best again
    assert all(0 <= y <= 1 for line in lines for y in line.get_ydata())


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("kind", ["best", "importances", "parallel"])
def test_labels_do_not_overlap_in_any_size(kind, size):
    """With two arms, one of a long name, and as many keys as `vat_search` has."""
    made = document(20)
    names = ("learning_rate", "weight_decay", "epsilon", "lambda_adv", "lambda_noise", "lambda_ent")
    (search,) = made["definition"]["searches"]
    search["distributions"] |= {f"teacher.{name}": {"low": 0.1, "high": 9, "log": True} for name in names}
    for trial in made["trials"]:
        trial["params"] |= {f"teacher.{name}": 1.0 + trial["number"] / 10 for name in names}
    made["definition"]["searches"].append({**search, "arm": "a much longer name of an arm"})
    made["trials"] += [{**trial, "search": 1, "arm": "a much longer name of an arm"} for trial in made["trials"]]
    figure = draw_document(made, kind, "s", size)
    assert figure.get_figwidth() <= SIZES[size].width * SIZES[size].scale + 0.01
    assert misplaced(figure) == []


def test_too_few_trials_have_no_importances_and_the_page_says_so():
    with pytest.raises(UserError, match=r"importances.*8 complete"):
        draw_document(document(6), "importances", "s")
    assert png_of(document(6), "importances", "s").startswith(b"\x89PNG")
    empty = document(0)
    with pytest.raises(UserError, match="no complete trial"):
        draw_document(empty, "best", "s")


def test_a_study_that_is_no_search_is_answered(tmp_path, capsys):
    from make_study import make_study

    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,))
    arguments = ["figure", "made", "--root", str(tmp_path), "--kind", "parallel", "--out", str(tmp_path / "a.png")]
    assert cli.main(arguments) == 2
    assert "is no search" in capsys.readouterr().err


@pytest.mark.parametrize(("ties", "label"), [(3, "tie as the best"), (1, "the best")])
def test_trials_that_tie_are_not_the_best_and_a_note_stands_above(ties, label):
    made = document(8)
    for trial in made["trials"][:ties]:
        trial["values"] = [0.99]
    drawn = draw_document(made, "best", "s", note="Runs differ in device, which changes results.")
    assert label in [text.get_text() for text in drawn.legends[0].get_texts()]
    assert drawn.get_suptitle() == "Runs differ in device, which changes results."
