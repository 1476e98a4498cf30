"""A changed space under the same name, results trained afresh, `stop` and `reproduce`."""

import copy
import dataclasses
import threading
import time

import pytest
from make_study import make_study
from make_trial_request import make_trial_request

from d2l_study import cli
from d2l_study.errors import UserError
from d2l_study.study.commands import extend
from d2l_study.study.ledger import lease as lease_module
from d2l_study.study.ledger import records
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.load import load_space
from d2l_study.study.trial.trial import run_trial

ID = "ab" * 10


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


def test_reproduce_trains_again_and_compares(tmp_path, capsys):
    run_trial(make_trial_request(tmp_path, (0, 1)))
    ledger = Ledger(LocalStorage(tmp_path))
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("identical, predictions too") == 2
    record = ledger.read(ID, 1)
    record["row"]["bag_auc"] += 0.25
    ledger.storage.delete(f"{ledger.run_key(ID, 1)}/commit.json")
    ledger.commit(ID, 1, record["row"], {})
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "r000: identical" in out and "r001: metrics differ by at most 0.25" in out and "bag_auc:" in out
    assert cli.main(["reproduce", "abab", "--replicate", "5", "--root", str(tmp_path)]) == 2
    assert "replicate 5 is not committed" in capsys.readouterr().err


def test_stop_reaches_the_driver_through_the_study_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    folder = make_study(tmp_path, replicates=1, num_bags=(50,), bag_sizes=(10,), missing=((1, 0),))
    reasons = []

    def driver():
        with lease(folder) as held:
            held.progress = lambda: {"running": [{"label": "vat", "step": 5, "steps": 9, "replicates": 1}], "left": 7.0}
            held.ending.wait(20)
            reasons.append(held.reason)

    thread = threading.Thread(target=driver)
    thread.start()
    deadline = time.monotonic() + 20
    while not (lease_module.holder(folder) or {}).get("progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 trials: 1 done, 1 running" in out and "vat: step 5 of 9" in out
    assert cli.main(["stop", "made", "--root", str(tmp_path)]) == 0
    thread.join(20)
    assert reasons and "`stop` was said on" in reasons[0]
    assert "made: stopped, 1 of 2 runs done" in capsys.readouterr().out
    assert folder.storage.list("studies/made") == ["copies", "plan.json", "resolved.json", "space.yaml"]
    assert cli.main(["stop", "made", "--root", str(tmp_path)]) == 0
    assert "nobody is at work on it" in capsys.readouterr().out


def test_a_driver_whose_study_was_taken_up_by_another_ends(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    with lease(folder) as held:
        theirs = records.encode({**records.decode(held.content()), "mark": "theirs"})
        folder.storage.put("studies/s/lease.json", theirs)
        held.beat()
        assert held.ending.is_set() and "another driver" in held.reason
        assert folder.storage.read("studies/s/lease.json") == theirs
