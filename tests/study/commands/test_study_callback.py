"""When MLflow may lack a part of a curve, so that it is read from the ledger at the end."""

import dataclasses
from types import SimpleNamespace

import pytest
from make_trial_request import make_trial_request

from d2l_study.study.commands.study_callback import StudyCallback


class Told:
    """Stands for tracker, display and lease: remembers what it was told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **keys: self.calls.append((name, args, keys))

    problems = None

    def named(self, name):
        return [(args, keys) for called, args, keys in self.calls if called == name]


def callback_of(tmp_path, *requests, replicates=(0, 1)):
    study = SimpleNamespace(
        folder=SimpleNamespace(name="s"), options=SimpleNamespace(fail_fast=False), search=None,
        space=SimpleNamespace(keep_weights="none"),
    )  # fmt: skip
    entry = {"config_id": requests[0].config_id, "method": "m", "stage": "teacher", "values": {}, "varied": [],
             "replicates": list(replicates)}  # fmt: skip
    tracker = Told()
    return StudyCallback(study, [entry], requests, tracker, Told(), {}, Told()), tracker


def reports(*steps):
    return {replicate: {"step": float(step), "val_bag_auc": 0.5} for replicate, step in enumerate(steps)}


@pytest.mark.parametrize(
    ("first", "lacks"),
    [((2, 2), False), ((4, 4), True), ((2, 6), True)],
)
def test_a_curve_that_begins_late_lacks_its_beginning(tmp_path, first, lacks):
    """The trial validates every 2 steps: a first report of a later step comes from a checkpoint of another driver."""
    mine = make_trial_request(tmp_path)
    assert mine.interval == 2
    callback, tracker = callback_of(tmp_path, mine)
    callback.on_trial_start(mine)
    callback.on_trial_report(mine, max(first), reports(*first))
    assert bool(tracker.named("mark_incomplete")) == lacks
    callback.on_trial_report(mine, max(first) + 2, reports(*(step + 2 for step in first)))
    assert len(tracker.named("mark_incomplete")) == lacks and len(tracker.named("report")) == 2


def test_replicates_that_were_there_report_nothing(tmp_path):
    """The mean curve is of all replicates of the plan, and the ones that were there come from the ledger."""
    mine = dataclasses.replace(make_trial_request(tmp_path), replicates=(1,))
    callback, tracker = callback_of(tmp_path, mine)
    callback.on_trial_start(mine)
    ((_, keys),) = tracker.named("begin")
    assert keys["replicates"] == [0, 1]
    assert tracker.named("mark_incomplete") == [((mine.config_id,), {})]


def test_an_interval_longer_than_the_training_ends_with_it(tmp_path):
    assert make_trial_request(tmp_path, steps=3, eval_every=50).interval == 3
