"""Early ends in studies that go on: what was trained to its end is not ended, and resumed trials are judged as others
are."""

import dataclasses
import json

import pytest
import torch
from torch.optim import Adam

from d2l_study.errors import UserError
from d2l_study.learning.training import Training
from d2l_study.study.commands.early_stopping import early_stopping_rule, report_before
from d2l_study.study.commands.prepare_study import RunOptions, check_same_study, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_request
from d2l_study.study.plan.plan import Plan

SPACE = """
description: a grid with early ends
data: {num_bags: 20, mean_bag_size: 10, val_bags: 20, test_bags: 20}
teacher: {steps: 90, eval_every: 10, patience: 0, lambda_adv: 1.0}
methods: {vat: {teacher: {epsilon: [1, 2, 3, 4, 5]}}}
schedule: asha
"""


@pytest.fixture
def prepared(tmp_path):
    def study(replicates=1, schedule="asha", space=SPACE, write=True, extend=False):
        (tmp_path / "s.yaml").write_text(space.replace("asha", schedule))
        root = str(tmp_path / "runs")
        made = prepare_study(RunOptions(str(tmp_path / "s.yaml"), root=root, replicates=replicates, extend=extend))
        if write:
            made.folder.write(made.space.text, {"space": made.space.to_dict()}, made.plan.entries())
        return made

    return study


def commit(study, config, auc, replicate=0, status="done"):
    curve = [{"step": step, "val_bag_auc": auc} for step in range(10, 91, 10)]
    row = {"status": status, "val_bag_auc": auc, "made_by": "s", "precision": "float32"}
    study.folder.ledger.commit(config, replicate, row, {"curve.json": json.dumps(curve).encode()})


def ended_at(study, rule, configuration, auc, steps=range(10, 90, 10), replicate=0):
    """The step at which the rule ends a run of that validation AUC; None if it does not."""
    request = make_trial_request(study, configuration, (replicate,), "test")
    for step in steps:
        if rule(request, step, {replicate: {"step": step, "val_bag_auc": auc}}):
            return step
    return None


def test_more_replicates_of_a_finished_grid_are_trained_to_their_end(prepared):
    study = prepared()
    for i, c in enumerate(study.plan.configurations):
        commit(study, c.config_id, 0.5 + i / 10, status="failed" if i == 1 else "done")
    study = prepared(replicates=2)
    worst, failed, *_ = study.plan.configurations
    rule = early_stopping_rule(study)
    assert ended_at(study, rule, worst, 0.5, replicate=1) is None
    assert ended_at(study, rule, failed, 0.5, replicate=1) == 10  # it was not complete


def test_more_replicates_of_a_configuration_that_was_ended_early_are_judged(prepared):
    study = prepared(replicates=2)
    worst, *others = study.plan.configurations
    commit(study, worst.config_id, 0.5)
    ended = {"cause": "behind", "step": 10, "value": 0.5, "curve": [{"step": 10, "val_bag_auc": 0.5}]}
    study.folder.ledger.write_pruned(worst.config_id, 1, "s", ended)
    for c in others:
        for replicate in (0, 1):
            commit(study, c.config_id, 0.8, replicate)
    study = prepared(replicates=3)
    assert ended_at(study, early_stopping_rule(study), worst, 0.5, replicate=2) == 10


def test_a_resumed_trial_is_judged_at_no_rung_that_it_had_passed(prepared):
    """It passed both, at steps 10 and 30, while nobody else was there; others are better since."""
    study = prepared()
    first, *others = study.plan.configurations
    assert ended_at(study, early_stopping_rule(study), first, 0.7, range(10, 60, 10)) is None
    for c in others:
        commit(study, c.config_id, 0.8)
    again = prepared()
    assert ended_at(again, early_stopping_rule(again), first, 0.7, range(60, 90, 10)) is None
    assert ended_at(again, early_stopping_rule(again), first, 0.7, range(30, 90, 10)) == 30  # it had passed one only
    assert ended_at(again, early_stopping_rule(again), first, 0.7) == 10  # a trial that begins anew


@pytest.mark.parametrize("schedule", ["asha", "median"])
def test_a_resumed_trial_is_judged_by_its_whole_curve(prepared, schedule):
    study = prepared(schedule=schedule)
    first, *others = study.plan.configurations
    for c in others:
        commit(study, c.config_id, 0.8)
    training = Training({}, Adam([torch.zeros(1)]), 20, curve=[{"step": 10, "val_bag_auc": 0.9}])
    study.folder.ledger.save_checkpoint(first.config_id, 0, training.to_bytes())
    again = prepared(schedule=schedule)
    assert ended_at(again, early_stopping_rule(again), first, 0.7, range(30, 90, 10)) is None
    study.folder.ledger.save_checkpoint(first.config_id, 0, b"not a checkpoint")
    assert ended_at(again, early_stopping_rule(again), first, 0.7, range(30, 90, 10)) == 30


def test_steps_of_generations_are_counted_on(prepared):
    request = make_trial_request(prepared(), prepared().plan.configurations[0], (0,), "test")
    steps = {"steps": 100, "eval_every": 30, "generations": 2}  # reports at 30, 60, 90, 100, 130, …
    request = dataclasses.replace(request, stage="student", sections={"student": steps})
    assert [report_before(request, step) for step in (30, 60, 100, 130, 190, 200)] == [0, 30, 90, 100, 160, 190]


@pytest.mark.parametrize("search", ["", "search: {method: tpe, trials: 3}\n"])
def test_another_schedule_makes_another_study_unless_it_is_extended(prepared, search):
    def study(schedule, **options):
        space = SPACE.replace("[1, 2, 3, 4, 5]", "{low: 1, high: 5}") + search if search else SPACE
        made = prepared(schedule=schedule, space=space, write=False, **options)
        check_same_study(made)
        return made

    begun = study("none")
    entries = begun.search.ask().configurations if search else begun.plan.configurations
    begun.folder.write(begun.space.text, {"space": begun.space.to_dict()}, Plan(entries, 1).entries())
    with pytest.raises(UserError, match=r"schedule: none -> asha\n[\s\S]*--study NEWNAME[\s\S]*--extend"):
        study("asha")
    extended = study("asha", extend=True)
    extended.folder.write(extended.space.text, {"space": extended.space.to_dict()}, Plan(entries, 1).entries())
    study("asha")
    study("none")  # trains to its end what was ended early
    with pytest.raises(UserError, match="schedule: asha -> median"):
        study("median")
