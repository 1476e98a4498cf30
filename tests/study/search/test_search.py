"""Searches: what is asked and told, that a search goes on as if it had not been stopped, and what is refused."""

import json
import math
import re
import tomllib
from pathlib import Path

import pytest

from analysis.cells.search_results import best_trial, pareto_front
from analysis.tables.search_table import search_table
from d2l_study.errors import DamagedError, UserError
from d2l_study.study.commands.plan_table import show_trial_totals
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.search_plan_summary import method_text
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import Plan
from d2l_study.study.search.fixed_search import write_fixed_search
from d2l_study.study.search.samplers import ObservedTrial, Sampler
from d2l_study.study.search.search import Search
from d2l_study.study.search.trial import COMPLETE, FAILED, OPEN, PRUNED, once_complete
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.load import load_space
from d2l_study.study.space.space import study_name
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.trial_queue import SearchQueue

SPACE = """
description: a search
data: {num_bags: 50}
teacher:
  steps: 900
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
methods:
  none: {teacher: {batch_bags: {low: 1, high: 3}}}
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}, epsilon: 2}}
search: {method: tpe, trials: 9, startup: 4}
replicates: 2
"""


@pytest.fixture
def make(tmp_path):
    def search(text=SPACE, overrides=(), root="runs", replicates=None):
        (tmp_path / "s.yaml").write_text(text)
        space = load_space(tmp_path / "s.yaml", overrides, replicates)
        return Search(space, StudyFolder(LocalStorage(tmp_path / root), "s"), "sum")

    return search


def value(trial):
    """The best learning rate is 1e-3, whatever the other keys are."""
    return 1 - 0.2 * math.log10(trial.params["teacher.learning_rate"] / 1e-3) ** 2


def train(search, trial, found=None, status="done"):
    """Commit the trial's runs as a worker would: replicates differ around their mean."""
    found = value(trial) if found is None else found
    for r, shift in enumerate((-0.01, 0.01)):
        row = {"status": status, "cause": "the loss became nan", "val_bag_auc": found + shift, "val_bag_nll": 1 - found,
               "train_seconds": 1.0, "bag_auc": found - 0.1}  # fmt: skip
        search.folder.ledger.commit(trial.config_id, r, row, {})


def settle(search, replicates=(0, 1)):
    return search.tell_ended({t.config_id: list(replicates) for t in search.trials})


def run(search, most=100, at_once=1):
    """Ask and tell `at_once` at a time, at most `most` trials."""
    while most and (search.left or search.open):
        while search.left and len(search.open) < at_once and most:
            search.ask()
            most -= 1
        train(search, search.open[0])
        settle(search)
    return search


def points(search):
    return [(t.arm, t.params, t.values) for t in search.trials]


@pytest.mark.parametrize(("metric", "words"), [
    ("metric: val_bag_auc", "multivariate"), ("objectives: [val_bag_auc, val_bag_nll]", "each key for itself"),
])  # fmt: skip
def test_every_optuna_that_may_be_installed_searches_as_plan_says(make, metric, words):
    """Before Optuna 5 no search was multivariate by default, and no trial at work counted as bad."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (least,) = [int(found[1]) for one in project["dependencies"] if (found := re.match(r"optuna>=(\d+)", one))]
    options = make(SPACE.replace("startup: 4", f"startup: 4, {metric}")).options
    assert least >= 5 and f"Parzen estimator, {words}, trials at work counted as bad" in method_text(options)
    sampler = Sampler("tpe", {}, options.goals, 4, 0, "arm")
    made = sampler.sampler(9)
    assert made._is_multivariate(sampler.study(made)) == (words == "multivariate") and made._constant_liar


@pytest.mark.parametrize("method", ["tpe", "gp", "cmaes"])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(make, method):
    text = SPACE.replace("method: tpe", f"method: {method}").replace("trials: 9", "trials: 7")
    whole = run(make(text, root="whole"))
    run(make(text), most=9).ask()  # a kill: one is asked and not told, the sampler is gone
    taken_up = make(text)
    assert [t.state for t in taken_up.trials] == [COMPLETE] * 9 + [OPEN]
    assert points(run(taken_up)) == points(whole)
    assert len(whole.trials) == 14 and {t.state for t in taken_up.trials} == {COMPLETE}


def test_both_arms_get_the_same_trials_and_share_their_start_up_draws(make):
    search = run(make())
    arms = {arm: [t for t in search.trials if t.arm == arm] for arm in ("none", "vat")}
    assert [len(trials) for trials in arms.values()] == [9, 9]
    rates = [[t.params["teacher.learning_rate"] for t in trials] for trials in arms.values()]
    assert rates[0][:4] == rates[1][:4] and rates[0][4:] != rates[1][4:]
    drawn = [Distribution(1e-4, 1e-2, log=True).draw("teacher.learning_rate", 1, k) for k in range(4)]
    assert rates[0][:4] == drawn
    told = [t.values[0] for t in search.trials]
    assert told == pytest.approx([value(t) for t in search.trials])  # the mean over replicates


def test_many_trials_are_summed_up_by_arm(make, capsys):
    search = run(make())
    show_trial_totals(search)
    best = [max(t.values[0] for t in search.trials if t.arm == arm) for arm in ("none", "vat")]
    assert capsys.readouterr().out.splitlines() == [
        f"    none: 9 complete; best val_bag_auc {best[0]:.4g}",
        f"    vat: 9 complete; best val_bag_auc {best[1]:.4g}",
        "    --list lists all 18 trials so far",
    ]


def test_the_samplers_find_what_random_draws_do_not():
    ways = {"a.x": Distribution(1e-3, 10, log=True), "a.y": Distribution(-5, 5)}

    def best(method, seed):
        sampler, trials = Sampler(method, ways, ["max"], 30 if method == "none" else 8, seed, "arm"), []
        for k in range(30):
            p = sampler.propose(k, trials)
            told = -(math.log(p["a.x"] / 0.3) ** 2) - (p["a.y"] - 2) ** 2
            trials.append(ObservedTrial(k, p, "complete", [told], 2 * k, 2 * k + 1))
        return max(t.values[0] for t in trials)

    drawn = sum(best("none", seed) for seed in range(10)) / 10
    for method in ("tpe", "cmaes"):
        assert sum(best(method, seed) for seed in range(10)) / 10 > drawn / 2  # half as far from the best value, 0


def test_trials_at_work_are_known_to_the_sampler(make):
    search = run(make(), most=12)
    together = [search.ask() for _ in range(4)]
    mine = [t.params["teacher.learning_rate"] for t in together if t.arm == "vat"]
    assert len(set(mine)) == len(mine) and len(search.open) == 4


def test_a_trial_fails_if_one_of_its_replicates_does_and_counts(make):
    search = make()
    first = search.ask()
    search.folder.ledger.commit(first.config_id, 0, {"status": "done", "val_bag_auc": 0.9}, {})
    assert settle(search) == []  # the other replicate is missing
    search.folder.write_failure(first.config_id, 1, {"cause": "the worker process was lost"})
    assert settle(search) == [first]
    assert (first.state, first.values, first.cause) == (FAILED, None, "r001: the worker process was lost")
    run(search)
    assert len(search.trials) == 18 and search.left == 0
    assert best_trial([t.to_dict() for t in search.trials], ["max"])["number"] != first.number


def test_a_run_ended_early_is_told_as_pruned_and_a_sampler_hears_where(make):
    search = make()
    first = search.ask()
    for r in (0, 1):
        search.folder.ledger.write_pruned(first.config_id, r, "s", {"cause": "behind", "step": 300, "value": 0.6})
    settle(search)
    assert (first.state, first.partial, first.values) == (PRUNED, [300, 0.6], None)
    run(search)
    assert read_document(search.folder)["trials"][0]["state"] == PRUNED


def test_more_trials_and_replicates_extend_a_search_and_another_one_is_refused(make):
    run(make(), most=6)
    assert make(overrides=["search.trials=12"]).left == 18
    more = make(replicates=3)
    more.reopen([t.config_id for t in more.trials])
    assert len(more.open) == 6
    changes = [("high: 3}", "high: 5}"), ("epsilon: 2", "epsilon: 4"), ("tpe", "gp")]
    for change in (*changes, ("description: a", "base_seed: 7\ndescription: a")):
        with pytest.raises(UserError, match="was started with another search") as error:
            make(SPACE.replace(*change))
        assert "->" in str(error.value) and "--study" in str(error.value)


def requests_of(search, trial):
    def make(t):
        return [TrialRequest(
            root=str(search.folder.storage.root), study="s", config_id=t.config_id, label=t.label, stage="teacher",
            sections={}, replicates=(0, 1), base_seed=1, data_checksum="sum", resources={}, keep_weights="none",
            code_version="test",
        )]  # fmt: skip

    return make(trial)


def queue_of(search, concurrent=2, limit=None):
    planned = {}

    def make(trial):
        if trial.config_id in planned:
            return []
        planned[trial.config_id] = [0, 1]
        return [] if search.folder.ledger.has(trial.config_id, 0) else requests_of(search, trial)

    return SearchQueue(search, [], search.folder, make, planned, concurrent, limit)


def test_the_queue_asks_as_many_as_there_are_places_and_ends_with_the_budget(make):
    search = make()
    queue, handed = queue_of(search), []
    while not queue.idle:
        while (given := queue.next()) is not None:
            handed += given
        assert len(search.open) <= 2
        if search.open:
            trial = search.open[0]
            train(search, trial)
            queue.trial_ended(next(r for r in handed if r.config_id == trial.config_id))
    assert len(search.trials) == 18 == len(handed) and not search.open
    assert queue.next() is None


def test_a_duplicate_is_told_and_never_trained_twice(make):
    text = SPACE.replace("{low: 1e-4, high: 1e-2, log: true}", "{choices: [1e-4, 1e-3]}")
    text = text.replace("{low: 1, high: 3}", "{choices: [1, 2]}").replace("{low: 0.1, high: 3}", "{choices: [1, 2]}")
    search = make(text)
    queue, trained = queue_of(search), []
    while not queue.idle:
        given = queue.next()
        if given is not None:
            (request,) = given
            trained.append(request.config_id)
            train(search, next(t for t in search.trials if t.config_id == request.config_id))
            queue.trial_ended(request)
    assert len(search.trials) == 18 and {t.state for t in search.trials} == {COMPLETE}
    assert len(trained) == len(set(trained)) <= 8
    for trial in search.trials:
        twins = {tuple(t.values) for t in search.trials if t.config_id == trial.config_id}
        assert len(twins) == 1


def test_a_limit_bounds_what_is_asked_this_time(make):
    search = make()
    queue = queue_of(search, limit=3)
    while (given := queue.next()) is not None:
        train(search, search.open[0])
        queue.trial_ended(*given)
    assert len(search.trials) == 3 and search.left == 15 and queue.idle


def test_the_summary_names_the_best_by_validation_and_its_test_figure_once(make):
    search = run(make())
    search.folder.write("text", {}, Plan(search.configurations, 2).entries())
    text = search_table(search.folder, search.folder.rows())
    for arm in ("none", "vat"):
        mine = [t for t in search.trials if t.arm == arm]
        best = max(mine, key=lambda t: t.values[0])
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {arm}")]
        assert best.config_id[:10] in line and f"{best.values[0]:.3f}" in line
        assert f"{best.values[0] - 0.1:.3f}" in line.split("|")[-2]
        assert not any(t.config_id[:10] in text for t in mine if t is not best)
    assert "Trials of vat: 9 complete." in text and "ORACLE" not in text


def test_several_objectives_have_a_front():
    def trial(number, *values):
        return {"number": number, "state": COMPLETE, "values": list(values)}

    trials = [trial(0, 0.9, 30), trial(1, 0.8, 10), trial(2, 0.8, 20), trial(3, 0.95, 40), trial(4, 0.7, 10)]
    trials.append({"number": 5, "state": FAILED, "values": None})
    assert [t["number"] for t in pareto_front(trials, ["max", "min"])] == [3, 0, 1]


def test_several_objectives_are_told_in_their_order(make):
    text = SPACE.replace("startup: 4", "startup: 4, objectives: [val_bag_auc, train_seconds]")
    search = run(make(text))
    assert {len(t.values) for t in search.trials} == {2} and {t.values[1] for t in search.trials} == {1.0}


def test_the_document_says_what_it_holds(make):
    search = run(make(), most=2)
    document = json.loads(search.folder.storage.read("studies/s/search.json"))
    assert document["definition"]["searches"][1]["arm"] == "vat"
    assert document["definition"]["searches"][1]["distributions"]["teacher.lambda_adv"] == {
        "low": 0.1, "high": 3.0, "log": False,
    }  # fmt: skip
    entry = document["trials"][0]
    assert {"number", "arm", "params", "values", "state", "config_id", "trial_id", "cause"} <= set(entry)


def test_what_names_another_study(make, tmp_path):
    make()
    names = {
        study_name(load_space(tmp_path / "s.yaml", [change] if change else []))
        for change in ("", "search.trials=30", "search.method=gp", "search.metric=val_bag_nll")
    }
    assert len(names) == 3  # more trials extend the study


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tpe", "tpa", ["search.method", "did you mean 'tpe'"]),
        ("trials: 9", "trials: 0", ["search.trials", "≥ 1"]),
        ("trials: 9", "goal: most", ["search.goal", "max, min"]),
        ("trials: 9", "goal: min", ["search.goal", "more is better", "expected max"]),
        ("trials: 9", "metric: val_bag_acu", ["search.metric", "did you mean 'val_bag_auc'"]),
        ("trials: 9", "metric: instance_auc", ["search.metric", "oracle: true"]),
        ("trials: 9", "metric: val_distill_loss", ["val_distill_loss", "students"]),
        ("trials: 9", "objectives: val_bag_auc", ["search.objectives", "expected a list"]),
        ("trials: 9", "objectives: [val_bag_auc]", ["objectives", "expected several"]),
        ("trials: 9", "objectives: [val_bag_auc, instance_auc]", ["objectives", "oracle: true"]),
        ("trials: 9", "objectives: [val_bag_auc, val_bag_null]", ["entry 2 of 2", "did you mean 'val_bag_nll'"]),
        ("method: tpe", "method: cmaes, objectives: [val_bag_auc, val_bag_nll]", ["objectives", "cmaes", "tpe or gp"]),
        ("method: tpe, trials: 9, startup: 4", "method: grid", ["teacher.learning_rate", "grid", "list"]),
        ("{batch_bags: {low: 1, high: 3}}", "{pooling: [attention, gated_attention]}", ["tuned equally", "choices"]),
        ("replicates: 2", "replicates: 2\nschedule: ascha", ["schedule", "did you mean 'asha'"]),
        ("steps: 900", "steps: 900\n  eval_every: 900", []),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, old, new, words):
    assert old in SPACE
    text = SPACE.replace(old, new)
    if "eval_every" in new:
        text, words = text.replace("replicates: 2", "replicates: 2\nschedule: asha"), ["eval_every", "≤ 300"]
    with pytest.raises(UserError) as error:
        make(text)
    assert all(word in str(error.value) for word in ["s.yaml", *words]), error.value


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{low: 1, high: 3}", "{choices: [1, 2]}", ["teacher.batch_bags", "cmaes", "choices"]),
        ("{teacher: {batch_bags: {low: 1, high: 3}}}", "{}", ["cmaes", "at least two", "none"]),
    ],
)
def test_cmaes_searches_several_numbers(make, old, new, words):
    with pytest.raises(UserError) as error:
        make(SPACE.replace("tpe", "cmaes").replace(old, new))
    assert all(word in str(error.value) for word in words), error.value


def test_a_trial_that_was_complete_is_not_ended_early_when_its_runs_are_lost(make):
    """With all others known by then it would be judged more hardly than it was."""
    text = SPACE.replace("replicates: 2", "replicates: 2\nschedule: asha")
    search = run(make(text), most=6)
    lost = min((t for t in search.trials if t.arm == "vat"), key=value)
    for replicate in (0, 1):
        search.folder.storage.delete(f"{search.folder.ledger.run_key(lost.config_id, replicate)}/commit.json")
    again = make(text)
    again.reopen([lost.config_id])
    again.save()
    kept = make(text)  # as the next command reads it
    assert once_complete(kept.folder) == {t.config_id for t in search.trials}
    assert [t.config_id for t in kept.open] == [lost.config_id]


def test_a_search_whose_document_is_lost_is_refused_and_none_of_its_trials_is_asked_twice(make):
    search = run(make(), most=4)
    entries = [{"config_id": t.config_id, "stage": "teacher", "method": t.arm, "values": {}, "varied": [],
                "replicates": [0, 1]} for t in search.trials]  # fmt: skip
    search.folder.write("", {}, entries)
    search.folder.storage.delete("studies/s/search.json")
    assert [t.config_id for t in make().trials] == [t.config_id for t in search.trials]  # its copy is there
    search.folder.storage.delete("studies/s/copies/search.json")
    with pytest.raises(DamagedError, match=r"search\.json: missing, though .*its runs are safe.*--study NEWNAME"):
        make()


def test_a_search_has_the_science_version_of_what_it_may_draw(make):
    assert make().definition["science_version"] == 1
    mixed = SPACE.replace("lambda_adv: {low: 0.1, high: 3}, epsilon: 2", "batch_bags: 2, mixup: {low: 0.1, high: 1}")
    assert make(mixed).definition["science_version"] == 2  # learned from before, it would learn of another mixup


def prepared(tmp_path, text, **options):
    (tmp_path / "s.yaml").write_text(text)
    return prepare_study(RunOptions(str(tmp_path / "s.yaml"), root=str(tmp_path / "runs"), **options))


GRID = """
description: no search yet
data: {num_bags: 50}
teacher: {steps: 900}
methods: {vat: {teacher: {lambda_adv: 1.0, epsilon: [1, 2]}}}
"""


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("{method: random, trials: 3}", "{low: 1, high: 2}", r"another search:\n  method: random -> tpe"),
        ("{method: grid}", "[1, 2]", r"another search:\n  method: grid -> tpe"),
        (None, "[1, 2]", r"another plan:\n  search.method: \(none\) -> tpe"),
    ],
)
def test_a_study_of_known_points_does_not_become_a_search_that_learns(tmp_path, before, now, said, extend):
    first = GRID.replace("[1, 2]", now)
    study = prepared(tmp_path, first if before is None else f"{first}search: {before}\n")
    study.folder.write(study.space.text, {"space": study.space.to_dict()}, study.plan.entries())
    if before is not None:
        write_fixed_search(study.space, study.folder, study.checksum)
    searched = GRID.replace("[1, 2]", "{low: 1, high: 2}") + "search: {method: tpe, trials: 3}\n"
    with pytest.raises(UserError, match=said + r"\n[\s\S]*--study NEWNAME"):
        prepared(tmp_path, searched, extend=extend)


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize(("values", "method"), [("[1, 2]", "grid"), ("{low: 1, high: 2}", "random")])
def test_the_record_of_a_search_that_learns_is_not_written_over(tmp_path, values, method, extend):
    searched = GRID.replace("[1, 2]", "{low: 1, high: 2}") + "search: {method: tpe, trials: 3}\n"
    study = prepared(tmp_path, searched)
    study.folder.write(study.space.text, {"space": study.space.to_dict()}, study.plan.entries())
    study.search.save()
    other = GRID.replace("[1, 2]", values) + f"search: {{method: {method}, trials: 3}}\n"
    with pytest.raises(UserError, match=rf"another search:\n  method: tpe -> {method}\n[\s\S]*--study NEWNAME"):
        prepared(tmp_path, other.replace(", trials: 3", "") if method == "grid" else other, extend=extend)
