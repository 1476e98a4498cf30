"""CMA-ES after results were told again, since more replicates or lost runs were trained: each value belongs to the
point of its trial, and what the search had learned stays."""

import math
import random
from dataclasses import replace

import pytest

from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.search.samplers import ObservedTrial, Sampler
from d2l_study.study.search.search import Search
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.load import load_space

SPACE = """
description: a search
data: {num_bags: 50}
teacher: {steps: 900}
methods:
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}, epsilon: {low: 1, high: 8}}}
search: {method: cmaes, trials: 24, startup: 4}
"""
BOUNDS = {"a.x": Distribution(1e-3, 10, log=True), "a.y": Distribution(-5, 5)}


@pytest.fixture
def make(tmp_path):
    def search(trials, replicates=1, root="runs"):
        (tmp_path / "s.yaml").write_text(SPACE.replace("24", str(trials)))
        space = load_space(tmp_path / "s.yaml", replicates=replicates)
        return Search(space, StudyFolder(LocalStorage(tmp_path / root), "s"), "sum")

    return search


def train(search, replicates=1):
    """Train what is open and what is still to be asked for, one trial after another."""
    while search.open or search.left:
        trial = search.open[0] if search.open else search.ask()
        found = 1 - abs(trial.params["teacher.epsilon"] - 3) / 8 - abs(trial.params["teacher.lambda_adv"] - 1) / 3
        for replicate in range(replicates):
            search.folder.ledger.commit(trial.config_id, replicate, {"status": "done", "val_bag_auc": found}, {})
        search.tell_ended({t.config_id: range(replicates) for t in search.trials})
    return search


def points(search):
    return [trial.params for trial in search.trials]


def test_results_that_come_out_the_same_again_change_no_later_point(make):
    train(make(20))
    undisturbed = train(make(24, root="undisturbed"))
    more = make(20, replicates=2)
    more.reopen([t.config_id for t in more.trials])
    assert len(more.open) == 20
    train(more, replicates=2)
    assert points(train(make(24, replicates=2), replicates=2)) == points(undisturbed)


def test_a_command_that_asks_while_a_trial_is_trained_again_goes_on_as_the_next_one_does(make):
    train(make(20))
    search = make(24)
    search.reopen([search.trials[8].config_id])
    assert search.ask().trial == 20
    search.tell_ended({t.config_id: range(1) for t in search.trials})
    assert [t.trial for t in search.open] == [20]
    next_command = make(24)
    assert search.ask().params == next_command.ask().params


def searched(count, told_at=lambda number: 2 * number + 1, seed=0):
    """A search by CMA-ES, one trial at a time. told_at: number -> where its value was told, by the record."""
    sampler, trials, draws = Sampler("cmaes", BOUNDS, ["max"], 4, seed, "arm"), [], random.Random(seed)
    for k in range(count):
        p = sampler.propose(k, trials)
        value = -(math.log(p["a.x"] / 0.3) ** 2) - (p["a.y"] - 2) ** 2 + draws.gauss(0, 0.1)
        trials.append(ObservedTrial(k, p, "complete", [value], 2 * k, 2 * k + 1))
    return [replace(t, told_at=told_at(t.number)) for t in trials]


@pytest.mark.parametrize("told_at", [
    lambda number: 100 + number,  # all were told again at the end, by a version that counted this as another event
    lambda number: 100 if number == 6 else 2 * number + 1,
])  # fmt: skip
def test_each_value_is_told_with_the_point_of_its_trial(told_at):
    trials = searched(20, told_at)
    sampler = Sampler("cmaes", BOUNDS, ["max"], 4, 0, "arm")
    sampler.propose(20, trials)
    known = {t.values[0]: t.params for t in sampler._replay._study.trials if t.values}
    assert len(known) == 20
    for trial in trials:
        assert sampler.rounded(known[trial.values[0]]) == trial.params


def test_trials_whose_values_changed_stay_in_their_generations():
    """Else CMA-ES would begin anew in the middle of the bounds."""
    trials = searched(60)
    changed = [replace(t, values=[-t.values[0]]) for t in trials]
    of_trials = []
    for known in (trials, changed):
        sampler = Sampler("cmaes", BOUNDS, ["max"], 4, 0, "arm")
        sampler.propose(60, known)
        told = {t.values[0]: t for t in sampler._replay._study.trials if t.values}
        of_trials.append([told[t.values[0]].system_attrs.get("cma:generation") for t in known])
        assert all(sampler.rounded(told[t.values[0]].params) == t.params for t in known)
    assert of_trials[0] == of_trials[1] and of_trials[0][-1] >= 5
