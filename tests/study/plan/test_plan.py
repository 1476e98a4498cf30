"""Identities, labels and what is missing: the plan decides what is trained, and that nothing is trained twice."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from make_space import EXAMPLE, load_text

from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.study.ledger.ledger import WEIGHTS, Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.plan import Plan, check_extension, keep_replicates, make_plan
from d2l_study.study.search.restore_configurations import config_content
from d2l_study.study.space.space import Space


@pytest.fixture
def load(tmp_path: Path) -> Any:
    return partial(load_text, tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(LocalStorage(tmp_path / "runs"))


def ids(space: Space, checksum: Any = "data") -> list[str]:
    return [c.config_id for c in configurations(space, checksum)]


def test_labels_and_varied_keys_tell_configurations_apart(load: Any) -> None:
    found = configurations(load(), "data")
    assert [c.label for c in found] == [
        "none n=50", "none n=100",
        "vat n=50 epsilon=1", "vat n=50 epsilon=2", "vat n=100 epsilon=1", "vat n=100 epsilon=2",
    ]  # fmt: skip
    assert {c.varied for c in found} == {("num_bags", "lambda_adv", "epsilon")}
    both = configurations(load(EXAMPLE.replace("mean_bag_size: 10", "mean_bag_size: [10, 50]")), "data")
    assert both[-1].label == "vat n=100 K=50 epsilon=2"


def test_flat_values_are_the_resolved_scientific_ones(load: Any) -> None:
    values = configurations(load(EXAMPLE, "data.root=/somewhere"), "data")[-1].values
    assert (values["num_bags"], values["val_bags"], values["lambda_adv"]) == (100, 50, 1.0)
    assert not {"root", "verify"} & set(values)


def test_an_id_covers_what_is_computed_and_nothing_else(load: Any) -> None:
    first = ids(load())
    assert len(set(first)) == 6
    assert ids(load(EXAMPLE, "replicates=9", "threads=2", "precision=bfloat16", "data.root=/elsewhere")) == first
    assert ids(load(EXAMPLE.replace("vat:", "other_name:"))) == first
    assert ids(load(EXAMPLE.replace("steps: 100", "steps: 100, batch_bags: 1"))) == first  # a default, written out
    for changed in ("steps=101", "base_seed=2"):
        assert not set(ids(load(EXAMPLE, changed))) & set(first)
    assert not set(ids(load(), "other data")) & set(first)


def test_the_data_checksum_may_depend_on_the_data_set(load: Any) -> None:
    assert ids(load(), {"mnist": "data"}) == ids(load())
    assert ids(load(), lambda data: f"{data.to_dict()['dataset']}!") == ids(load(), "mnist!")


def test_points_that_resolve_to_the_same_are_kept_once(load: Any) -> None:
    text = EXAMPLE.replace("num_bags: [50, 100]", "num_bags: 100, val_bags: [null, 50, 60]")
    found = configurations(load(text), "data")
    assert [(c.method, c.values["val_bags"]) for c in found if c.method == "none"] == [("none", 50), ("none", 60)]


def test_a_configuration_can_be_built_again_from_what_is_kept(load: Any) -> None:
    found = configurations(load(), "data")[-1]
    kept = json.loads(json.dumps(config_content(found, "mine")))
    assert TeacherConfig.from_mapping(kept["sections"]["teacher"]) == found.sections["teacher"]
    assert (kept["data_checksum"], kept["base_seed"], kept["stage"]) == ("data", 1, "teacher")


def test_only_what_the_ledger_lacks_is_to_be_done(load: Any, ledger: Ledger) -> None:
    first = make_plan(load(), "data", ledger)
    assert (first.runs_total, first.runs_done, first.trials_total, first.trials_done) == (18, 0, 6, 0)
    partly, whole = first.configurations[0], first.configurations[1]
    ledger.commit(partly.config_id, 1, {"status": "done", "bag_auc": 0.9}, {})
    ledger.save_checkpoint(partly.config_id, 2, b"not committed")
    for replicate in range(3):
        ledger.commit(whole.config_id, replicate, {"status": "done", "bag_auc": 0.9}, {})
    plan = make_plan(load(), "data", ledger)
    assert (plan.missing(partly), plan.missing(whole)) == ((0, 2), ())
    assert (plan.runs_done, plan.trials_done, len(plan.trials())) == (4, 1, 5)
    assert [t.configuration.label for t in plan.trials(limit=2)] == ["none n=50", "vat n=50 epsilon=1"]
    more = make_plan(load(replicates=5), "data", ledger)
    assert more.missing(whole) == (3, 4)
    assert more.runs_total - more.runs_done == 30 - 4


def test_fewer_replicates_than_are_there_count_only_those_asked_for(load: Any, ledger: Ledger) -> None:
    for c in make_plan(load(), "data").configurations:
        for replicate in range(3):
            ledger.commit(c.config_id, replicate, {"status": "done"}, {})
    plan = make_plan(load(replicates=2), "data", ledger)
    assert (plan.runs_total, plan.runs_done, plan.trials()) == (12, 12, [])


def test_a_configuration_of_two_arms_is_trained_once(load: Any) -> None:
    plan = make_plan(load(EXAMPLE.replace("  none: {}", "  none: {}\n  plain: {teacher: {lambda_adv: 0}}")), "data")
    assert [c.method for c in plan.configurations][:4] == ["none", "none", "plain", "plain"]
    assert (len(plan.configurations), plan.trials_total, len(plan.trials()), plan.runs_total) == (8, 6, 6, 18)


def test_entries_are_what_the_study_folder_reads(load: Any, ledger: Ledger) -> None:
    plan = make_plan(load(), "data", ledger)
    folder = StudyFolder(ledger.storage, "mine")
    folder.write(EXAMPLE, {"space": load().to_dict()}, plan.entries())
    rows = folder.rows()
    assert len(rows) == plan.runs_total
    assert list(rows.attrs["varied"]) == ["epsilon", "lambda_adv", "num_bags"]
    assert set(rows["status"]) == {"missing"}
    assert folder.plan() == plan.entries()


# ---- continuing a study


def started(ledger: Ledger, plan: Plan) -> StudyFolder:
    folder = StudyFolder(ledger.storage, "mine")
    check_extension(folder, plan.entries())  # nothing there yet
    folder.write(EXAMPLE, {}, plan.entries())
    return folder


def test_the_same_plan_and_more_or_fewer_replicates_continue_a_study(load: Any, ledger: Ledger) -> None:
    plan = make_plan(load(), "data")
    folder = started(ledger, plan)
    for c in plan.configurations:
        for replicate in range(3):
            ledger.commit(c.config_id, replicate, {"status": "done"}, {})
    for replicates in (3, 20, 1):
        entries = make_plan(load(replicates=replicates), "data").entries()
        check_extension(folder, entries)
        assert {len(e["replicates"]) for e in keep_replicates(folder, entries)} == {max(3, replicates)}


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("num_bags=[50, 100, 200]", ["num_bags: 50, 100 -> 50, 100, 200", "3 of 9 configurations are new"]),
        ("num_bags=50", ["num_bags: 50, 100 -> 50", "3 of 6 are gone"]),
        ("steps=200", ["steps: 100 -> 200", "6 of 6 configurations are new"]),
        ("base_seed=5", ["base_seed: 1 -> 5"]),
    ],
)
def test_another_plan_under_the_same_name_is_refused(
    load: Any, ledger: Ledger, override: str, shown: list[str]
) -> None:
    folder = started(ledger, make_plan(load(), "data"))
    with pytest.raises(UserError) as error:
        check_extension(folder, make_plan(load(EXAMPLE, override), "data").entries())
    message = str(error.value)
    assert all(part in message for part in ("'mine'", "--study NEWNAME", *shown)), message
    assert len(message.splitlines()) <= 12


def test_changed_data_and_renamed_arms_are_shown(load: Any, ledger: Ledger) -> None:
    folder = started(ledger, make_plan(load(), "data"))
    with pytest.raises(UserError, match="data_checksum: data -> other"):
        check_extension(folder, make_plan(load(), "other").entries())
    with pytest.raises(UserError, match="method: none, vat -> none, adv"):
        check_extension(folder, make_plan(load(EXAMPLE.replace("vat:", "adv:")), "data").entries())


def test_the_same_values_in_other_combinations_are_shown(load: Any, ledger: Ledger) -> None:
    crossed = "description: x\nmethods:\n  a: {data: {num_bags: %d}}\n  b: {data: {num_bags: %d}}\n"
    folder = started(ledger, make_plan(load(crossed % (50, 100)), "data"))
    with pytest.raises(UserError, match="method a: 1 -> 1 configurations, with other combinations"):
        check_extension(folder, make_plan(load(crossed % (100, 50)), "data").entries())


STUDENTS = """
description: students of two teachers, and their matched teachers
data: {num_bags: 50}
teacher: {steps: 10}
student: {steps: 10}
teachers: {none: {}, vat: {teacher: {lambda_adv: 1}}}
methods: {plain: {}}
references: [pooled, no_teacher]
replicates: 3
"""


def test_a_teacher_without_weights_is_trained_again_for_those_alone_who_still_learn_from_it(
    load: Any, ledger: Ledger
) -> None:
    space = load(STUDENTS)
    by_label = {c.label: c for c in configurations(space, "data")}

    def commit(label: str, *replicates: int, weights: bool = False) -> None:
        for r in replicates:
            files = {WEIGHTS: b"weights"} if weights else {}
            ledger.commit(by_label[label].config_id, r, {"status": "done"}, files)

    def missing() -> dict[str, tuple[int, ...]]:
        plan = make_plan(space, "data", ledger)
        return {c.label: plan.missing(c) for c in plan.configurations if plan.missing(c)}

    learners = [label for label, c in by_label.items() if by_label["none"].config_id in c.teachers]
    assert sorted(learners) == ["none → plain", "pooled of none"]
    for label in by_label:
        commit(label, *range(2 if label == "none → plain" else 3), weights=label == "vat")
    assert missing() == {"none": (2,), "none → plain": (2,)}  # of replicates 0 and 1 everything is there
    commit("none → plain", 2)
    assert missing() == {}
    plan = make_plan(load(STUDENTS, "replicates=4"), "data", ledger)
    assert {plan.missing(c) for c in plan.configurations} == {(3,)}  # further replicates train no old teacher again


def test_where_all_weights_are_to_be_kept_those_that_are_gone_are_made_again(load: Any, ledger: Ledger) -> None:
    space = load(STUDENTS, "keep_weights=all")
    for c in configurations(space, "data"):
        for r in range(3):
            ledger.commit(c.config_id, r, {"status": "done"}, {})
    plan = make_plan(space, "data", ledger)
    assert {c.stage for c in plan.configurations if plan.missing(c)} == {"teacher", "student", "no_teacher"}
