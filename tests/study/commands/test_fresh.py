"""Results that a study trains afresh, beside those of other studies."""

import dataclasses

from make_study import make_study
from make_trial_request import make_trial_request

from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial import run_trial

ID = "ab" * 10


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


def test_fresh_does_not_go_on_from_a_checkpoint_of_another_study(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.save_checkpoint(ID, 0, b"theirs")
    assert ledger.load_checkpoint(ID, 0, "twin") is None and ledger.load_checkpoint(ID, 0) == b"theirs"
    ledger.save_checkpoint(ID, 0, b"mine", "twin")
    ledger.drop_checkpoint(ID, 0, "twin")
    assert ledger.load_checkpoint(ID, 0, "twin") is None and ledger.load_checkpoint(ID, 0) == b"theirs"
