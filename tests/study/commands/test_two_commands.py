"""Two commands on one study at once: what the second one has read before it holds the lease is read again."""

from collections import Counter

import pytest
from empty_store import copied_store
from few_digits import digits
from study_runs import run_here
from whole_root import command

from d2l_study import cli
from d2l_study.study.commands import run
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import find_study

SEARCH = """
description: a search of a second
data: {num_bags: 6, mean_bag_size: 3, test_bags: 20, root: DIGITS, verify: false}
teacher: {steps: 2, eval_every: 2, feature_width: 8, attention_width: 4}
methods: {none: {}, vat: {teacher: {lambda_adv: {low: 0.1, high: 3}}}}
replicates: 1
search: {method: tpe, trials: 2, startup: 20}
""".replace("DIGITS", str(digits()))
GRID = SEARCH.replace("{low: 0.1, high: 3}", "[0.1, 3]").partition("search:")[0]


@pytest.fixture
def between(tmp_path, tmp_path_factory, monkeypatch):
    """A function: let another command begin and end after the next `run` has read the study, and before it takes the
    lease."""
    monkeypatch.setenv("D2L_REPORT", "no")
    (tmp_path / "runs").mkdir()
    copied_store(tmp_path / "runs", tmp_path_factory)
    tracking_store = run._tracking_store

    def let(action):
        def once(*arguments):
            monkeypatch.setattr(run, "_tracking_store", tracking_store)
            action()
            return tracking_store(*arguments)

        monkeypatch.setattr(run, "_tracking_store", once)

    return let


def test_another_space_is_refused_also_if_the_first_one_came_in_between(tmp_path, between):
    (tmp_path / "few.yaml").write_text(GRID)
    between(lambda: run_here(tmp_path, "--study", "g"))
    run_here(tmp_path, "--study", "g", "--set", "data.mean_bag_size=4", code=2)
    assert {entry["values"]["mean_bag_size"] for entry in find_study("g", str(tmp_path / "runs")).plan()} == {3}


def test_an_arm_that_was_pruned_in_between_is_not_brought_back(tmp_path, between):
    (tmp_path / "few.yaml").write_text(GRID)
    run_here(tmp_path)
    between(lambda: command(cli.main, "prune", "few", "--root", tmp_path / "runs", "--arm", "vat"))
    run_here(tmp_path, code=2)
    assert {entry["method"] for entry in find_study("few", str(tmp_path / "runs")).plan()} == {"none"}


def test_a_search_goes_on_from_what_another_command_has_asked_for_meanwhile(tmp_path, between):
    (tmp_path / "few.yaml").write_text(SEARCH)
    between(lambda: run_here(tmp_path))
    run_here(tmp_path, "--limit", 1)
    folder = find_study("few", str(tmp_path / "runs"))
    asked = Counter((t["arm"], t["state"]) for t in read_document(folder)["trials"])
    assert asked == {("none", "complete"): 1, ("vat", "complete"): 2}
    assert len(folder.plan()) == len(folder.planned()) == 3
