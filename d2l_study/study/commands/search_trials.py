"""The trials of a search within one `run`: which of them go on, and those that the search asks for meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from d2l_study.study.commands.prepare_study import PreparedStudy, bring_up_to_date
from d2l_study.study.ledger.gc_lock import wait_for_collection
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.cost import training_work
from d2l_study.study.plan.plan import Plan, committed_replicates, keep_replicates
from d2l_study.study.search.trial import SearchTrial
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import WITHOUT_WEIGHTS
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.trial_queue import SearchQueue


def begin_search(study: PreparedStudy) -> None:
    """Before the trials of a search: tell it what has ended since, and open again what is to be trained further."""
    if study.search is None or not study.search.trials:
        return
    bring_up_to_date(study.search, study.plan)
    study.search.save()


def typical_work(study: PreparedStudy) -> float:
    """The predicted work of one trial of a search in training (`cost.training_work`): the mean over random draws of its
    configuration."""
    drawn = [c for c in configurations(study.space, study.checksum) if c.stage == study.space.stage]
    return sum(map(training_work, drawn)) / len(drawn) * study.plan.replicates


def varied_keys(study: PreparedStudy, known: Sequence[str]) -> list[str]:
    """The flat names of the keys that vary; known: those of the plan, which is empty before a search has asked."""
    return list(known) or (list(study.search.varied_keys.varied) if study.search is not None else [])


def search_queue(
    study: PreparedStudy, requests: Sequence[TrialRequest], concurrent: int,
    make_request: Callable[[Configuration, Sequence[int]], TrialRequest],
    add_trials: Callable[[list[dict[str, Any]], list[TrialRequest]], None],
) -> SearchQueue:  # fmt: skip
    """The queue of a search.

    requests: for what was asked for already. make_request: (configuration, replicates) -> the request for one trial.
    add_trials: takes what comes later, new entries of the plan and the requests for them.
    """
    search, folder, plan = study.search, study.folder, study.plan
    assert search is not None
    # What earlier commands ran of others is no part of a trial, which is compared with trials that have none of them.
    replicates = {c.config_id: list(range(plan.replicates)) for c in search.configurations}

    def make_requests(trial: SearchTrial) -> list[TrialRequest]:
        new = [c for c in trial.configurations if (c.method, c.config_id) not in known]
        known.update((c.method, c.config_id) for c in new)
        entries = keep_replicates(folder, Plan(new, plan.replicates).entries())
        if entries:  # one that the plan has already is replaced, so that no run stands in it twice
            folder.write_plan([*{(e["method"], e["config_id"]): e for e in [*folder.plan(), *entries]}.values()])
            wait_for_collection(folder.storage, "")
        requests = []
        for c in new:
            if c.config_id in replicates:  # in another arm, or a teacher of an earlier trial
                continue
            replicates[c.config_id] = list(range(plan.replicates))
            weights = (c.teaches or study.space.keep_weights == "all") and c.stage not in WITHOUT_WEIGHTS
            done = committed_replicates(folder.ledger, c.config_id, weights, fresh_of=folder.fresh_of)
            missing = [r for r in replicates[c.config_id] if r not in done]
            if missing:
                requests.append(make_request(c, missing))
            for replicate in replicates[c.config_id] if c.teaches else ():
                folder.ledger.need_weights(c.config_id, replicate, folder.name)
        add_trials(entries, requests)
        return requests

    known = {(c.method, c.config_id) for c in search.configurations}
    limit = study.options.limit
    left_to_ask = None if limit is None else max(0, limit - len({request.config_id for request in requests}))
    return SearchQueue(search, requests, folder, make_requests, replicates, concurrent, left_to_ask)
