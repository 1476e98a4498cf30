"""A study that goes on with fewer replicates: what was run of the others stays, and nobody waits for what was not."""

import pytest

from d2l_study.study.commands.extend import merged_plan
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.search_trials import begin_search, search_queue
from d2l_study.study.commands.trial_requests import make_trial_request, make_trial_requests

SPACE = """
description: a space for tests
data: {num_bags: 20, mean_bag_size: 10, val_bags: 20, test_bags: 20}
teacher: {steps: 20, eval_every: 10, lambda_adv: 1.0, epsilon: AXIS}
methods: {vat: {}}
replicates: 3
"""
GRID = SPACE.replace("AXIS", "[1, 2]")
SEARCH = SPACE.replace("AXIS", "{low: 1, high: 4}") + "search: {method: tpe, trials: 3, startup: 2}\n"
ROW = {"status": "done", "val_bag_auc": 0.8, "made_by": "s", "precision": "float32"}


@pytest.fixture
def start(tmp_path):
    """A function that begins a study as `run` does, before anything is trained."""

    def started(text, replicates=None):
        (tmp_path / "s.yaml").write_text(text)
        options = RunOptions(str(tmp_path / "s.yaml"), root=str(tmp_path / "runs"), replicates=replicates)
        study = prepare_study(options)
        entries = merged_plan(study.folder, study.plan.entries())
        study.folder.write(study.space.text, {"space": study.space.to_dict()}, entries)
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
    assert [entry["replicates"] for entry in study.folder.plan()] == [[0, 2], [0, 1]]
    assert "missing" not in set(study.folder.rows()["status"])
    study = start(GRID)  # with all of them again: what is missing is trained
    assert [trial.replicates for trial in study.plan.trials()] == [(1,), (1, 2)]
    assert [entry["replicates"] for entry in study.folder.plan()] == [[0, 1, 2], [0, 1, 2]]
