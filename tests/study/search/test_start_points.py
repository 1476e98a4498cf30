"""Start points that a search tries first (`search: {enqueue: [...]}`)."""

from __future__ import annotations

import math

import pytest

from d2l_study.errors import UserError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import check_extension, make_plan
from d2l_study.study.search.fixed_search import write_fixed_search
from d2l_study.study.search.search import Search
from d2l_study.study.space.load import load_space

SPACE = """
description: a search
data: {num_bags: [50, 100]}
teacher: {steps: 900, learning_rate: {low: 1e-4, high: 1e-2, log: true}, batch_bags: {low: 1, high: 3}}
methods:
  none: {}
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}}}
search: {method: tpe, trials: 6, startup: 3}
replicates: 1
"""
POINTS = ", enqueue: [{lambda_adv: 2, learning_rate: 1e-3}, {learning_rate: 0.0012345678}]}"
WITH = SPACE.replace("startup: 3}", f"startup: 3{POINTS}")


@pytest.fixture
def make(tmp_path):
    def search(text=SPACE, root="runs"):
        (tmp_path / "s.yaml").write_text(text)
        return Search(load_space(tmp_path / "s.yaml"), StudyFolder(LocalStorage(tmp_path / root), "s"), "sum")

    return search


def run(search, most=100):
    """Ask, commit and tell one trial after the other."""
    while search.left and most:
        trial = search.ask()
        value = 1 - 0.2 * math.log10(trial.params["teacher.learning_rate"] / 1e-3) ** 2
        search.folder.ledger.commit(trial.config_id, 0, {"status": "done", "val_bag_auc": value}, {})
        search.tell_ended({t.config_id: [0] for t in search.trials})
        most -= 1
    return search


def points(search, number):
    """The params of each search's trials."""
    return [t.params for t in search.trials if t.search == number]


@pytest.mark.parametrize(("method", "trials"), [("tpe", 6), ("gp", 4), ("cmaes", 6)])  # a fit of gp takes a second
def test_they_are_the_first_trials_of_every_search_within_its_budget(make, method, trials):
    search, drawn = (
        run(make(text.replace("tpe", method).replace("trials: 6", f"trials: {trials}"), root=root))
        for text, root in ((WITH, "runs"), (SPACE, "drawn"))
    )
    assert [len(points(search, number)) for number in range(4)] == [trials] * 4
    for number, one in enumerate(search.arm_searches):
        first, second, third, *learned = points(search, number)
        random = points(drawn, number)
        assert first["teacher.learning_rate"] == 1e-3 and first["teacher.batch_bags"] == random[0]["teacher.batch_bags"]
        assert first.get("teacher.lambda_adv") == (2.0 if one.arm == "vat" else None)
        assert second == {**random[1], "teacher.learning_rate": 0.0012345678}
        assert third == random[2]
        # The sampler has learned from them; CMA-ES begins in the middle of the bounds whatever was tried before.
        assert (learned != random[3:]) == (method != "cmaes")


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_a_search_with_them_goes_on_as_if_it_had_not_been_stopped(make, method):
    text = WITH.replace("tpe", method).replace("startup: 3", "startup: 1")  # more start points than random draws
    whole = run(make(text, root="whole"))
    run(make(text), most=3)
    run(make(text), most=8)
    assert [t.params for t in run(make(text)).trials] == [t.params for t in whole.trials]


def test_the_record_has_them_only_if_there_are_some(make):
    assert "enqueue" not in make().definition
    assert make(WITH).definition["enqueue"] == [
        {"teacher.lambda_adv": 2.0, "teacher.learning_rate": 1e-3}, {"teacher.learning_rate": 0.0012345678},
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "now"), [(SPACE, WITH), (WITH, SPACE)])
def test_a_running_search_does_not_change_its_start_points(make, before, now):
    run(make(before), most=2)
    with pytest.raises(UserError, match=r"was started with another search:\n  enqueue: .*->.*") as error:
        make(now)
    assert "--study" in str(error.value) and "(none)" in str(error.value)
    assert len(make(before).trials) == 2


def test_random_draws_begin_with_them_and_the_plan_of_a_running_study_is_kept(tmp_path):
    (tmp_path / "s.yaml").write_text(WITH.replace("tpe", "random"))
    space, folder = load_space(tmp_path / "s.yaml"), StudyFolder(LocalStorage(tmp_path / "runs"), "s")
    plan = make_plan(space, "sum")
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    write_fixed_search(space, folder, "sum")
    document = read_document(folder)
    assert document["definition"]["enqueue"] == list(space.search.enqueue) and len(document["trials"]) == 24
    assert {t["config_id"] for t in document["trials"]} == {c.config_id for c in plan.configurations}
    for number in range(4):
        mine = [t["params"] for t in document["trials"] if t["search"] == number]
        assert [p["teacher.learning_rate"] for p in mine[:2]] == [1e-3, 0.0012345678] and len(mine) == 6
    (tmp_path / "s.yaml").write_text(SPACE.replace("tpe", "random"))
    drawn = make_plan(load_space(tmp_path / "s.yaml"), "sum")
    with pytest.raises(UserError, match="started with another plan"):
        check_extension(folder, drawn.entries())
    new = {c.config_id for c in plan.configurations} - {c.config_id for c in drawn.configurations}
    assert len(new) == 8  # two start points of two arms at two numbers of bags; all others are the same
