"""A study that goes on with a changed space: refused, or extended."""

import copy
import dataclasses

import pytest
from make_study import make_study

from d2l_study.errors import UserError
from d2l_study.study.commands import extend
from d2l_study.study.space.load import load_space


@pytest.fixture
def study(tmp_path):
    folder = make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,), missing=((1, 0), (1, 1)))
    plan = [{**e, "base_seed": 1, "data_checksum": "x", "science_version": 1} for e in folder.plan()]
    space = load_space("smoke", [])
    folder.write(space.text, {"space": space.to_dict()}, plan)
    return folder, plan, space


def changed(plan):
    """The first arm as it was, the second with another, fixed value."""
    now = copy.deepcopy(plan)
    now[1] |= {"config_id": "f" * 20, "values": {**now[1]["values"], "epsilon": 4.0}}
    return now


def test_a_changed_space_is_refused_with_the_difference_or_extended(study):
    folder, plan, space = study
    other = dataclasses.replace(space, description="another")
    extend.check_same_study(folder, plan, space)
    with pytest.raises(UserError, match=r"epsilon: 2 -> 2, 4[\s\S]*--extend"):
        extend.check_same_study(folder, changed(plan), other)
    extend.check_same_study(folder, changed(plan), other, extend=True)


def test_what_is_kept_or_shown_makes_no_other_study(study):
    """Of a study that was extended, whose plan holds more than its space asks for."""
    folder, plan, space = study
    folder.write(space.text, {"space": {**space.to_dict(), "keep_weights": "none"}}, [*plan, changed(plan)[1]])
    extend.check_same_study(folder, plan, space)  # stored when the default was `none`
    asked = load_space("smoke", ["keep_weights=all", "metric=val_bag_auc", "log_images=false"])
    extend.check_same_study(folder, plan, asked)
    with pytest.raises(UserError, match="another plan"):
        extend.check_same_study(folder, plan, load_space("smoke", ["teacher.steps=7"]))


def test_data_that_have_moved_make_no_other_study(study):
    """Of a study that was extended: ids are of content, so that none tells where the data lie."""
    folder, plan, space = study
    there = {**space.to_dict(), "data": {**space.to_dict()["data"], "root": "/once/here", "verify": True}}
    there["methods"] = {name: {**own, "data": {"root": "/once/there"}} for name, own in there["methods"].items()}
    asked = dataclasses.replace(space, methods={name: {**own, "data": {}} for name, own in space.methods.items()})
    folder.write(space.text, {"space": there}, [*plan, changed(plan)[1]])
    extend.check_same_study(folder, plan, asked)


@pytest.mark.parametrize("name", extend.NEVER_MIXED)
def test_what_a_table_would_average_is_not_extended(study, name):
    folder, plan, space = study
    with pytest.raises(UserError, match=f"--extend: .*{name}"):
        extend.check_same_study(folder, [{**e, name: "other"} for e in changed(plan)], space, extend=True)


def test_results_of_before_a_change_are_not_extended(study):
    """Mixup has version 2 since it mixes; what it does not touch goes on."""
    folder, plan, space = study
    extend.check_same_study(folder, changed(plan), space, extend=True)
    mixed = [{**e, "values": {**e["values"], "mixup": 0.2}} for e in plan]
    folder.write(space.text, {"space": space.to_dict()}, mixed)  # of it only `none` has been run
    with pytest.raises(UserError, match=r"results of none that this version would not give.*mixup gives every"):
        extend.check_same_study(folder, changed(plan), space, extend=True)
    with pytest.raises(UserError, match=r"science_version: 1 -> 2 \(mixup gives every bag"):
        extend.check_same_study(folder, [{**e, "science_version": 2, "config_id": "d" * 20} for e in mixed], space)
    folder.write(space.text, {"space": space.to_dict()}, [{**e, "science_version": 2} for e in mixed])
    extend.check_same_study(folder, changed(plan), space, extend=True)


def test_an_extended_study_keeps_what_was_run_and_tells_it_apart(study):
    folder, plan, space = study
    now = [{**changed(plan)[1], "config_id": "e" * 20, "method": "none", "varied": []}]
    entries = extend.merged_plan(folder, now)
    # Of the old configurations the one that was run stays; the one that never was goes.
    assert [e["config_id"] for e in entries] == ["e" * 20, plan[0]["config_id"]]
    assert all("epsilon" in e["varied"] for e in entries)
    folder.write(space.text, {"space": space.to_dict()}, entries)
    extend.check_same_study(folder, now, space)  # the same command again, without --extend
    assert [e["config_id"] for e in extend.merged_plan(folder, now)] == ["e" * 20, plan[0]["config_id"]]
