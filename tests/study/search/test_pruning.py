"""Early ends: who is ended, when, compared with whom."""

import pytest

from d2l_study.study.search.pruning import Pruner
from d2l_study.study.space.schedules import earliest_stop


def pruner(rule, others, group="vat", steps=900):
    """Others are curves by name: step -> AUC, of one finished replicate."""
    made = Pruner(rule)
    for name, curve in others.items():
        made.add_trial(name, group, steps)
        made.add_points(name, 0, [{"step": s, "val_bag_auc": v} for s, v in curve.items()], done=True)
    made.add_trial("me", "vat", 900)
    return made


def flat(value, steps=(100, 300, 600, 900)):
    return dict.fromkeys(steps, value)


THREE = {"a": flat(0.9), "b": flat(0.8), "c": flat(0.7)}


def judge(made, step, *values):
    return made.reason_to_stop(
        "me", range(len(values)), step, {r: {"step": step, "val_bag_auc": v} for r, v in enumerate(values)}
    )


@pytest.mark.parametrize(("value", "ended"), [(0.95, False), (0.85, False), (0.75, True), (0.5, True)])
def test_halving_keeps_the_best_third_at_a_rung(value, ended):
    cause = judge(pruner("asha", THREE), 100, value)  # 1/9 of the steps; the best 2 of 4 go on
    assert (cause is not None) == ended
    assert cause is None or ("11%" in cause and "best 2 of 4" in cause)


def test_halving_judges_at_rungs_only_and_each_once():
    made = pruner("asha", THREE)
    assert judge(made, 50, 0.5) is None  # before the first rung
    assert judge(made, 100, 0.95) is None
    assert judge(made, 200, 0.5) is None  # between the rungs; and the best value so far is what counts
    assert judge(made, 300, 0.5) is None  # it was 0.95 once: that snapshot is kept
    assert judge(made, 900, 0.1) is None  # the end


def test_the_mean_over_replicates_is_judged_and_all_must_have_reported():
    made = pruner("asha", THREE)
    assert made.reason_to_stop("me", [0, 1], 100, {0: {"val_bag_auc": 0.2}}) is None  # replicate 1 is further behind
    assert judge(pruner("asha", THREE), 100, 0.7, 1.0) is None  # 0.85
    assert judge(pruner("asha", THREE), 100, 0.7, 0.8) is not None  # 0.75


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_nobody_is_ended_with_few_others_or_by_another_group(rule):
    assert judge(pruner(rule, dict(list(THREE.items())[:2])), 300, 0.1) is None
    assert judge(pruner(rule, THREE, group="vat at another n"), 300, 0.1) is None
    assert judge(pruner(rule, THREE), 300, 0.1) is not None


def test_others_that_have_not_come_as_far_do_not_count():
    short = {name: {100: 0.9} for name in "abc"}
    made = Pruner("asha")
    for name, curve in short.items():
        made.add_trial(name, "vat", 900)
        made.add_points(name, 0, [{"step": s, "val_bag_auc": v} for s, v in curve.items()])  # ended at the first rung
    made.add_trial("me", "vat", 900)
    made.add_points("me", 0, [{"step": 100, "val_bag_auc": 0.95}])
    assert judge(made, 300, 0.2) is None


def test_the_median_is_of_running_averages_and_waits_for_a_third():
    rising = {name: {100: 0.5, 300: 0.9} for name in "abc"}  # running average 0.7
    assert judge(pruner("median", rising), 100, 0.1) is None
    assert judge(pruner("median", rising), 300, 0.71) is None
    assert "below 0.700" in judge(pruner("median", rising), 300, 0.69)


@pytest.mark.parametrize(
    ("rule", "steps", "every", "first"),
    [("asha", 900, 100, 100), ("asha", 1000, 100, 200), ("asha", 20, 5, 10), ("asha", 900, 900, None),
     ("asha", 900, 450, 450), ("median", 900, 100, 300), ("median", 900, 1000, None)],
)  # fmt: skip
def test_the_first_step_at_which_a_trial_can_end(rule, steps, every, first):
    assert earliest_stop(rule, steps, every) == first
