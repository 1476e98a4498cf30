"""A study that goes on with fewer replicates, or more: what was run of the others stays, and nobody waits for what was
not, or is judged by it."""

import dataclasses

import pytest

import analysis
from analysis.tables.search_table import search_table
from d2l_study.study.commands.early_stopping import forget_pruned
from d2l_study.study.commands.extend import merged_plan
from d2l_study.study.commands.plan_summary import show_plan
from d2l_study.study.commands.plan_table import Listing
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.run import _write_study
from d2l_study.study.commands.search_trials import begin_search, search_queue
from d2l_study.study.commands.trial_requests import make_trial_request, make_trial_requests
from d2l_study.study.ledger.search_document import read_document, write_document
from d2l_study.study.search.fixed_search import write_fixed_search

SPACE = """
description: a space for tests
data: {num_bags: 20, mean_bag_size: 10, val_bags: 20, test_bags: 20}
teacher: {steps: 20, eval_every: 10, lambda_adv: 1.0, epsilon: AXIS}
methods: {vat: {}}
replicates: 3
"""
GRID = SPACE.replace("AXIS", "[1, 2]")
SEARCH = SPACE.replace("AXIS", "{low: 1, high: 4}") + "search: {method: tpe, trials: 3, startup: 2}\n"
RANDOM = SEARCH.replace("tpe", "random").replace(", startup: 2", "")
ROW = {"status": "done", "val_bag_auc": 0.8, "made_by": "s", "precision": "float32"}


@pytest.fixture
def start(tmp_path):
    """A function that begins a study as `run` does, before anything is trained."""

    def started(text, replicates=None, begin=lambda study: None):
        (tmp_path / "s.yaml").write_text(text)
        options = RunOptions(str(tmp_path / "s.yaml"), root=str(tmp_path / "runs"), replicates=replicates)
        study = prepare_study(options)
        begin(study)
        entries = merged_plan(study.folder, study.plan.entries())
        _write_study(study, entries, {})
        begin_search(study)
        return study

    return started


def queue_of(study):
    requests, _ = make_trial_requests(study, 1, "test")
    return search_queue(
        study, requests, 1, lambda c, replicates: make_trial_request(study, c, replicates, "test"), lambda *_: None
    )


def test_an_interrupted_search_goes_on_with_fewer_replicates(start):
    study = start(SEARCH)
    (request,) = queue_of(study).next()
    assert request.replicates == (0, 1, 2)
    study.folder.ledger.commit(request.config_id, 0, ROW, {})  # stopped here
    study = start(SEARCH, replicates=1)
    assert [trial.state for trial in study.search.trials] == ["complete"]
    queue = queue_of(study)
    for _ in range(2):
        (request,) = queue.next()
        assert request.replicates == (0,)
        study.folder.ledger.commit(request.config_id, 0, ROW, {})
        queue.trial_ended(request)
    assert queue.next() is None and queue.idle and not study.search.open


def test_replicates_that_were_run_stay_in_the_plan_and_the_others_leave_it(start):
    study = start(GRID)
    first, second = study.plan.configurations
    for config, replicate in ((first.config_id, 0), (first.config_id, 2), (second.config_id, 0)):
        study.folder.ledger.commit(config, replicate, ROW, {})
    study.folder.write_failure(second.config_id, 1, {"cause": "ValueError", "log": ""})
    study = start(GRID, replicates=1)
    assert not study.plan.trials()
    assert [entry["replicates"] for entry in study.folder.plan()] == [[0, 2], [0]]  # no failure of one not asked for
    assert set(study.folder.rows()["status"]) == {"done"}
    study = start(GRID)  # with all of them again: what is missing is trained
    assert [trial.replicates for trial in study.plan.trials()] == [(1,), (1, 2)]
    assert [entry["replicates"] for entry in study.folder.plan()] == [[0, 1, 2], [0, 1, 2]]


def commit(study, config, replicate, auc):
    study.folder.ledger.commit(config, replicate, {**ROW, "val_bag_auc": auc}, {})


def test_all_trials_of_a_search_are_means_over_the_replicates_that_are_asked_for_now(start, tmp_path):
    study = start(SEARCH, replicates=2)
    (request,) = queue_of(study).next()
    for replicate, auc in enumerate((0.7, 0.9)):
        commit(study, request.config_id, replicate, auc)
    assert [(t.values, t.replicates) for t in start(SEARCH, replicates=2).search.trials] == [([0.8], 2)]
    study = start(SEARCH, replicates=1)
    assert study.folder.plan()[0]["replicates"] == [0, 1]  # the other run stays, and is no part of the trial
    queue = queue_of(study)
    (request,) = queue.next()
    commit(study, request.config_id, 0, 0.8)
    queue.trial_ended(request)
    (first, second) = read_document(study.folder)["trials"]
    assert [(t["values"], t["replicates"]) for t in (first, second)] == [([0.7], 1), ([0.8], 1)]
    rows = analysis.load("s", str(tmp_path / "runs"))
    assert "means of 1;" in search_table(study.folder, rows)
    del first["replicates"], second["replicates"]  # as versions before wrote it, of all runs that were there
    write_document(study.folder, read_document(study.folder)["definition"], [first, second])
    assert "means of 1 to 2;" in search_table(study.folder, rows)
    assert [t.values for t in start(SEARCH, replicates=1).search.trials] == [[0.7], [0.8]]


@pytest.mark.parametrize("text", [SEARCH, RANDOM])
def test_a_replicate_that_failed_and_is_not_asked_for_fails_no_trial(start, text):
    study = start(text)
    if study.search is not None:
        queue_of(study).next()
    (config, *_) = start(text).folder.plan()
    for replicate in (0, 1):
        commit(study, config["config_id"], replicate, 0.8)
    study.folder.write_failure(config["config_id"], 2, {"cause": "ValueError", "log": ""})
    for replicates, state in ((3, "failed"), (2, "complete")):
        study = start(text, replicates)
        if study.search is None:
            write_fixed_search(study.space, study.folder, study.checksum)
        elif replicates == 3:  # as after the last attempt
            study.search.judge(replicates)
            study.search.save()
        assert read_document(study.folder)["trials"][0]["state"] == state
    assert "failed" not in set(study.folder.rows()["status"])
    assert study.folder.failure(config["config_id"], 2) is None  # asked for again, it begins anew


def test_what_an_earlier_command_ended_early_does_not_outlast_its_schedule(start):
    study = start(GRID + "schedule: asha\n")
    (first, second) = study.plan.configurations
    for c in (first, second):
        for replicate in range(3):
            ended = {"cause": "behind", "step": 10, "value": 0.5, "curve": []}
            study.folder.ledger.write_pruned(c.config_id, replicate, "s", ended)
    study = start(GRID, replicates=2, begin=forget_pruned)
    assert [trial.replicates for trial in study.plan.trials()] == [(0, 1), (0, 1)]
    start(GRID)  # the third replicate is missing again, and not ended early
    assert set(study.folder.rows()["status"]) == {"missing"}


def test_plan_of_a_search_says_what_more_replicates_train(start, capsys):
    study = start(SEARCH, replicates=2)
    queue = queue_of(study)
    for _ in range(3):
        (request,) = queue.next()
        for replicate in (0, 1):
            commit(study, request.config_id, replicate, 0.8)
        queue.trial_ended(request)
    before = read_document(study.folder)
    again = prepare_study(dataclasses.replace(study.options, replicates=3))
    show_plan(again, Listing.ALL)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 trials × 3 replicates = 9 runs: 0 trials told, 3 to go on with (3 runs), 0 to ask" in said
    assert said.count("asked and 1 of 3 replicates to run") == 3
    assert read_document(study.folder) == before
    fewer = dataclasses.replace(study.options, replicates=1, overrides=("search.trials=2",))
    show_plan(prepare_study(fewer), Listing.ALL)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 trials × 1 replicate = 3 runs: 3 trials told, 0 to go on with, 0 to ask" in said
    assert "the mean of 1 replicate " in said and "to run" not in said


def test_what_a_search_asks_for_stands_in_the_plan_once(start):
    study = start(SEARCH)
    queue_of(study).next()
    plan = study.folder.plan()
    for place in ("", "copies/"):
        study.folder.storage.delete(f"{study.folder.key}/{place}search.json")
    study.folder.write_plan([])
    study = start(SEARCH)
    study.folder.write_plan(plan)  # as another command would leave it
    queue_of(study).next()
    assert study.folder.plan() == plan
