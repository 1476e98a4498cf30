"""Which weights stay with `keep_weights: best`: those of the best by validation, and what another study needs."""

import pytest
from make_study import make_study

from d2l_study.study.ledger.best_weights import BestWeights, best_of_arms
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.search_document import write_document
from d2l_study.study.ledger.study_folder import StudyFolder


def commit(folder, entry, areas, made_by="made", **more):
    """Runs of a configuration with weights, in the place of what is there; areas: validation AUC by replicate."""
    ledger = folder.ledger
    for r, area in enumerate(areas):
        row = {"status": "done", "val_bag_auc": area, "made_by": made_by, **more}
        ledger.storage.delete(f"{ledger.run_key(entry['config_id'], r)}/commit.json")
        ledger.commit(entry["config_id"], r, row, {WEIGHTS: b"w"})


def kept(folder):
    """(arm, n) of the configurations whose weights are there, all replicates or none."""
    found = set()
    for entry in folder.plan():
        there = {folder.ledger.has_weights(entry["config_id"], r) for r in entry["replicates"]}
        assert len(there) == 1
        if there == {True}:
            found.add((entry["method"], entry["values"]["num_bags"]))
    return found


@pytest.fixture
def study(tmp_path):
    """Arms none and vat at n = 50, 100, 200 (in this order better), two replicates, with weights."""
    folder = make_study(tmp_path, bag_sizes=(10,), replicates=2)
    for i, entry in enumerate(folder.plan()):
        commit(folder, entry, [0.5 + i / 100, 0.5 + i / 100])
    return folder


def test_only_the_best_of_each_arm_stay(study):
    first = study.plan()[0]
    commit(study, first, [0.1, 0.1], made_by="elsewhere")
    BestWeights(study).study_ended(study.rows())
    assert kept(study) == {("none", 50), ("none", 200), ("vat", 200)}  # the first was made by another study


def test_weights_are_dropped_as_soon_as_a_better_configuration_has_ended(study):
    weights = BestWeights(study)
    for entry, left in zip(study.plan()[:3], (6, 5, 4), strict=True):
        weights.configuration_ended(entry["config_id"], study.rows_of(entry))
        assert len(kept(study)) == left
    assert kept(study) == {("none", 200), ("vat", 50), ("vat", 100), ("vat", 200)}
    commit(study, study.plan()[5], [0.4, 0.4])  # worse than those before it
    for entry in study.plan()[4:]:
        weights.configuration_ended(entry["config_id"], study.rows_of(entry))
    assert kept(study) == {("none", 200), ("vat", 50), ("vat", 100)}  # the one at 50 was never heard of
    BestWeights(study).study_ended(study.rows())
    assert kept(study) == {("none", 200), ("vat", 100)}


def test_of_equal_ones_the_first_of_the_plan_stays_whichever_ended_first(study):
    for entry in study.plan()[:3]:
        commit(study, entry, [0.7, 0.6])
    weights = BestWeights(study)
    for entry in reversed(study.plan()):
        weights.configuration_ended(entry["config_id"], study.rows_of(entry))
    BestWeights(study).study_ended(study.rows())
    assert kept(study) == {("none", 50), ("vat", 200)}


def test_what_has_not_ended_is_not_judged(study):
    entry = study.plan()[0]
    study.write_plan([{**e, "replicates": [0, 1, 2]} if e is entry else e for e in [entry, *study.plan()[1:]]])
    BestWeights(study).study_ended(study.rows())
    assert study.ledger.has_weights(entry["config_id"], 0) and study.ledger.has_weights(entry["config_id"], 1)


def test_a_search_keeps_its_best_by_its_own_metrics(study):
    plan = study.plan()
    for entry, loss, seconds in zip(plan, (0.3, 0.1, 0.2, 0.3, 0.2, 0.1), (1, 2, 3, 2, 2, 2), strict=True):
        commit(study, entry, [0.5, 0.5], val_bag_nll=loss, train_seconds=float(seconds))
    trials = [
        {"config_id": e["config_id"], "search": i // 3, "arm": e["method"], "state": "complete"}
        for i, e in enumerate(plan)
    ]
    write_document(study, {"metrics": ["val_bag_nll", "train_seconds"], "goals": ["min", "min"]}, trials)
    weights = BestWeights(study)
    for entry in plan:
        weights.configuration_ended(entry["config_id"], study.rows_of(entry))
    assert kept(study) == {("none", 50), ("none", 100), ("vat", 200)}  # two fronts
    write_document(study, {"metrics": ["val_bag_nll"], "goals": ["min"]}, trials)
    BestWeights(study).study_ended(study.rows())
    assert kept(study) == {("none", 100), ("vat", 200)}


@pytest.mark.parametrize(
    ("keep_weights", "as_teacher", "stays"),
    [("none", False, False), ("none", True, True), ("all", False, True), ("best", False, True)],
)
def test_what_another_study_needs_stays(study, keep_weights, as_teacher, stays):
    low = study.plan()[0]
    other = StudyFolder(study.storage, "other")
    entry = {**low, "method": "mine"}
    if as_teacher:
        entry |= {"config_id": "5" * 20, "teacher_id": f"{'6' * 20},{low['config_id']}"}
    other.write("", {"space": {"keep_weights": keep_weights}}, [entry])
    BestWeights(study).study_ended(study.rows())
    assert study.ledger.has_weights(low["config_id"], 0) is stays
    for name in ("plan.json", "copies/plan.json"):  # what it needs is not known any more
        (study.storage.root / "studies/other" / name).write_text("{")
    commit(study, low, [0.1, 0.1])
    BestWeights(study).study_ended(study.rows())
    assert study.ledger.has_weights(low["config_id"], 0)


def test_teachers_of_its_own_students_stay(study):
    plan = study.plan()
    plan[3]["teacher_id"] = plan[0]["config_id"]
    study.write_plan(plan)
    BestWeights(study).study_ended(study.rows())
    assert kept(study) == {("none", 50), ("none", 200), ("vat", 200)}


def test_a_study_stopped_before_its_first_result_has_no_weights_to_choose_from(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    entry = {"config_id": "ab" * 10, "stage": "teacher", "method": "none", "values": {}, "varied": [],
             "replicates": [0]}  # fmt: skip
    folder.write("", {}, [entry])
    BestWeights(folder).study_ended(folder.rows())
    assert list(folder.rows()["status"]) == ["missing"]


def test_replicates_that_are_not_asked_for_any_more_choose_no_best(study):
    """Others of the arm were never trained in them."""
    first, second, third = study.plan()[:3]
    commit(study, first, [0.6, 0.95])
    commit(study, second, [0.7, 0.7])
    commit(study, third, [0.5, 0.5])
    study.write_document("resolved.json", {"space": {"replicates": 1}})
    folder = StudyFolder(study.storage, study.name)
    rows = folder.rows()
    assert best_of_arms(folder, rows.to_dict("records"))["none"] == second["config_id"]
    weights = BestWeights(folder)
    for entry in (second, first):
        weights.configuration_ended(entry["config_id"], folder.rows_of(entry))
    weights.study_ended(rows)
    assert kept(folder) == {("none", 100), ("vat", 200)}
