"""Results that a study trains afresh, beside those of other studies."""

import dataclasses
import io
import json

import numpy as np
import pytest
from empty_store import copied_store
from few_digits import digits
from make_study import make_study
from make_trial_request import make_trial_request
from study_runs import run_here

from d2l_study.study.commands.early_stopping import early_stopping_rule
from d2l_study.study.commands.fresh_results import forget_fresh_attempts, unfinished_runs
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.status import show_status
from d2l_study.study.commands.trial_requests import make_trial_request as request_of
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import SCORE_MAPS
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.map_pictures import stored_maps
from d2l_study.study.plan.precision import known_precision
from d2l_study.study.search.fixed_search import write_fixed_search
from d2l_study.study.search.trial import trial_outcome
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune.trial_queue import TrialQueue

ID = "ab" * 10
SPACE = """
description: a space for tests
data: {num_bags: 20, mean_bag_size: 10, val_bags: 20, test_bags: 20}
teacher: {steps: 90, eval_every: 10, patience: 0, lambda_adv: 1.0}
replicates: 1
"""


def prepared(folder, text, fresh=False):
    """The study `s` of a space, once run with `--fresh`, before anything is trained."""
    (folder / "s.yaml").write_text(SPACE + text)
    study = prepare_study(RunOptions(str(folder / "s.yaml"), root=str(folder / "runs"), fresh=fresh))
    study.folder.write(study.space.text, {"fresh": True}, study.plan.entries())
    return study


def commit(study, config, auc, made_by):
    """A run as `made_by` commits it: `s` itself beside the first record."""
    row = {"status": "done", "val_bag_auc": auc, "made_by": made_by, "precision": "float32"}
    files = {"curve.json": json.dumps([{"step": 10, "val_bag_auc": auc}]).encode()}
    study.folder.ledger.commit(config, 0, row, files, fresh_of="s" if made_by == "s" else None)


def test_fresh_trains_what_another_study_made_and_keeps_both_records(tmp_path):
    first = make_trial_request(tmp_path, (0,))
    run_trial(first)
    ledger = Ledger(LocalStorage(tmp_path))
    before = ledger.read(ID, 0)
    twin = dataclasses.replace(first, study="twin")
    run_trial(twin)
    assert ledger.read(ID, 0) == before  # reused
    assert not ledger.has_result(ID, 0, made_by="twin") and ledger.has_result(ID, 0, made_by="s")
    run_trial(dataclasses.replace(twin, fresh=True))
    after = ledger.read(ID, 0, "twin")
    assert after["attempt"] != before["attempt"] and after["row"]["made_by"] == "twin"
    assert after["row"]["replaces"] == "s" and after["row"]["replaces_difference"] == 0
    assert ledger.read(ID, 0) == before and all(ledger.storage.exists(f["key"]) for f in before["files"].values())
    run_trial(dataclasses.replace(twin, fresh=True))
    assert ledger.read(ID, 0, "twin") == after  # its own is not trained twice


def test_a_study_that_was_run_afresh_shows_its_own_results_and_others_the_first(tmp_path):
    first = make_study(tmp_path, replicates=1, num_bags=(50,), bag_sizes=(10,))
    config = first.plan()[0]["config_id"]
    twin = StudyFolder(first.storage, "twin")
    twin.write("", {"fresh": True}, first.plan())
    before = first.rows()
    twin.compact()
    row = {**first.ledger.row(config, 0), "bag_auc": 0.125, "made_by": "twin"}
    twin.ledger.commit(config, 0, row, {"curve.json": b"[]"}, fresh_of="twin")
    assert first.rows().equals(before) and twin.rows()["bag_auc"].tolist()[0] == 0.125
    assert twin.read_file(config, 0, "curve.json") == b"[]" and twin.compact()["bag_auc"].tolist()[0] == 0.125


def test_the_maps_of_a_study_that_was_run_afresh_are_its_own(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    for made_by, image in (("other", 1), ("s", 2)):
        file = io.BytesIO()
        np.savez(file, meta=json.dumps([{"bag": 0, "image": image}]))
        row, owner = {"status": "done", "made_by": made_by}, "s" if made_by == "s" else None
        folder.ledger.commit(ID, 0, row, {SCORE_MAPS: file.getvalue()}, fresh_of=owner)
    folder.write("", {"fresh": False}, [])
    assert stored_maps(folder, ID, 0)[0][0]["image"] == 1
    folder.write("", {"fresh": True}, [])
    assert stored_maps(folder, ID, 0)[0][0]["image"] == 2


def test_fresh_does_not_go_on_from_a_checkpoint_of_another_study(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.save_checkpoint(ID, 0, b"theirs")
    assert ledger.load_checkpoint(ID, 0, "twin") is None and ledger.load_checkpoint(ID, 0) == b"theirs"
    ledger.save_checkpoint(ID, 0, b"mine", "twin")
    ledger.drop_checkpoint(ID, 0, "twin")
    assert ledger.load_checkpoint(ID, 0, "twin") is None and ledger.load_checkpoint(ID, 0) == b"theirs"


def test_a_search_that_was_run_afresh_chooses_by_its_own_results(tmp_path):
    study = prepared(
        tmp_path,
        "methods: {vat: {teacher: {epsilon: {low: 1, high: 4}}}}\nsearch: {method: random, trials: 3}\n",
        fresh=True,
    )
    for i, c in enumerate(study.plan.configurations):
        commit(study, c.config_id, 0.5 + i / 10, "other")
        commit(study, c.config_id, 0.9 - i / 10, "s")
    write_fixed_search(study.space, study.folder, study.checksum)
    told = {trial["config_id"]: trial["values"] for trial in read_document(study.folder)["trials"]}
    rows = study.folder.rows()
    assert told == {config: [auc] for config, auc in zip(rows["config_id"], rows["val_bag_auc"], strict=True)}
    assert max(told, key=told.get) == study.plan.configurations[0].config_id
    assert known_precision(study.folder) == "float32"


@pytest.mark.parametrize("again", [False, True])
def test_a_schedule_compares_with_the_results_of_the_study_itself(tmp_path, again):
    text = "methods: {vat: {teacher: {epsilon: [1, 2, 3, 4]}}}\nschedule: asha\n"
    study = prepared(tmp_path, text)
    *others, last = study.plan.configurations
    for c in others:
        commit(study, c.config_id, 0.9, "other")
        if not again:
            commit(study, c.config_id, 0.5, "s")
    study = prepared(tmp_path, text, fresh=again)
    # Better than its own others; or, with --fresh, than none that has come as far.
    assert not early_stopping_rule(study)(request_of(study, last, (0,), "test"), 10, {0: {"val_bag_auc": 0.7}})


GRID = "methods: {vat: {teacher: {epsilon: [1, 2]}}}\n"


def test_what_is_of_other_studies_is_left_to_be_trained_afresh(tmp_path, capsys):
    study = prepared(tmp_path, GRID)
    first, second = study.plan.configurations
    for c in (first, second):
        commit(study, c.config_id, 0.9, "other")
    commit(study, first.config_id, 0.5, "s")
    assert unfinished_runs(prepared(tmp_path, GRID, fresh=True), study.folder.rows()) == 1
    assert unfinished_runs(prepared(tmp_path, GRID), study.folder.rows()) == 0
    show_status("s", str(tmp_path / "runs"))
    assert "1 run is of other studies (other), which `run --fresh` trains again" in capsys.readouterr().out
    commit(study, second.config_id, 0.5, "s")
    assert unfinished_runs(prepared(tmp_path, GRID, fresh=True), study.folder.rows()) == 0
    show_status("s", str(tmp_path / "runs"))
    assert "other" not in capsys.readouterr().out


@pytest.mark.parametrize("ended", ["failed", "pruned"])
def test_a_result_of_another_study_does_not_stand_for_a_run_that_failed_afresh(tmp_path, ended):
    study = prepared(tmp_path, GRID, fresh=True)
    first, second = (c.config_id for c in study.plan.configurations)
    for config in (first, second):
        commit(study, config, 0.9, "other")
    study.folder.compact()
    if ended == "failed":
        study.folder.write_failure(first, 0, {"cause": "ValueError: no", "log": ""})
    else:
        study.folder.ledger.write_pruned(first, 0, "s", {"cause": "behind", "step": 10, "value": 0.5, "curve": []})
    rows = study.folder.rows()
    assert rows["status"].tolist() == [ended, "done"] and unfinished_runs(study, rows) == 1
    assert trial_outcome(study.folder, first, [0], ["val_bag_auc"])[0] == ended
    student = dataclasses.replace(request_of(study, study.plan.configurations[1], (0,), "test"), teachers=(first,))
    queue = TrialQueue([(student,)], study.folder)
    assert queue.next() is None and queue.blocked == [student]  # it does not learn from the teacher of another study
    study.folder.clear_failure(second, 0)
    forget_fresh_attempts(prepared(tmp_path, GRID))  # `run` without --fresh
    assert study.folder.rows()["status"].tolist() == ["done", "done"]


def test_a_study_that_is_not_all_afresh_yet_is_not_finished(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("D2L_REPORT", "no")
    data = f"{{num_bags: 6, mean_bag_size: 3, test_bags: 20, root: {digits()}, verify: false}}"
    teacher = "{steps: 2, eval_every: 2, feature_width: 8, attention_width: 4, epsilon: [1, 2], lambda_adv: 1}"
    space = f"description: of a second\ndata: {data}\nteacher: {teacher}\nmethods: {{vat: {{}}}}\nreplicates: 1\n"
    (tmp_path / "few.yaml").write_text(space)
    (tmp_path / "runs").mkdir()
    copied_store(tmp_path / "runs", tmp_path_factory)
    run_here(tmp_path)
    said = run_here(tmp_path, "--study", "again", "--fresh", "--limit", 1)
    assert "Not finished: 1 run left;" in said
    assert "1 run is of other studies (few), which `run --fresh` trains again" in " ".join(said.split())
