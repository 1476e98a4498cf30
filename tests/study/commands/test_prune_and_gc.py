"""`prune`, `remove` and `gc`: what is not to be there any more goes, with its MLflow pages, and nothing else."""

import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
from whole_root import WholeRoot

import analysis
from d2l_study.errors import UserError
from d2l_study.study.commands import run
from d2l_study.study.commands.find_garbage import YOUNG_SECONDS
from d2l_study.study.commands.prune import prune_study
from d2l_study.study.ledger import gc_lock, heartbeat, records
from d2l_study.study.ledger.claims import Claims
from d2l_study.study.ledger.gc_lock import gc_lock_held
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder

BROKEN = "  broken: {teacher: {learning_rate: 1.0e+30}}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return WholeRoot(tmp_path_factory.mktemp("whole"), ("students", "drawn"))


@pytest.fixture
def whole(made, tmp_path):
    """Of its own, MLflow store and all."""
    folder = tmp_path / "whole"
    shutil.copytree(made.folder, folder)
    copy = object.__new__(WholeRoot)
    copy.__dict__ |= {**made.__dict__, "folder": folder, "root": folder / "runs", "_kept": folder / "kept"}
    return copy


def folder_of(whole, name):
    return StudyFolder(LocalStorage(whole.root), name)


def pages(whole, name, store="mlflow.db"):
    """The arms of a study's child runs in MLflow; None without its experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{whole.root}/{store}")
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return None
    runs = client.search_runs([experiment.experiment_id])
    return sorted(run.data.params["method"] for run in runs if "mlflow.parentRunId" in run.data.tags)


def age(whole, seconds=2 * YOUNG_SECONDS):
    """All results as if they were of long ago."""
    for path in whole.root.rglob("*"):
        if path.is_file() and path.name != "mlflow.db":
            os.utime(path, (time.time() - seconds,) * 2)


def results(whole):
    return {path.relative_to(whole.root) for path in (whole.root / "results").rglob("*") if path.is_file()}


# ---- prune
def test_an_arm_that_the_space_no_longer_has_leaves_tables_exit_code_and_mlflow(whole):
    space = whole.folder / "students.yaml"
    space.write_text(space.read_text().replace(BROKEN, ""))
    said = whole.run("students", "--extend")
    assert said.code == 1 and "broken" in whole.analysis("tables", "students").out
    before = results(whole)
    said = whole.study("prune", "students")
    assert said.code == 0 and "3 configurations (6 runs) of broken, broken → plain, attention of broken" in said.out
    assert "MLflow: 3 runs deleted" in said.out and pages(whole, "students") == [
        "attention of none",
        "none",
        "none → plain",
    ]
    assert "broken" not in whole.analysis("tables", "students").out
    assert set(analysis.load("students", whole.root)["status"]) == {"done"}
    assert whole.run("students").code == 0
    assert whole.study("status", "students").out.count("failed") == 0
    assert {path for path in before if "needed-" not in path.name} <= results(whole)  # the ledger keeps them
    assert "nothing to prune" in whole.study("prune", "students").out


def test_a_named_arm_goes_with_its_students_and_what_failed_goes_as_a_whole(whole):
    assert whole.study("prune", "students", "--arm", "brokn").err.startswith(
        "error: --arm 'brokn': not an arm of study"
    )
    said = whole.study("prune", "students", "--failed")
    assert said.code == 0 and "attention of broken" in said.out and "run --extend" in said.out
    assert not list((whole.root / "studies" / "students" / "failures").iterdir())
    assert {entry["method"] for entry in folder_of(whole, "students").plan()} == {
        "none",
        "none → plain",
        "attention of none",
    }
    refused = whole.run("students")
    assert refused.code == 2 and "--extend" in refused.err
    assert "--failed" not in whole.study("prune", "students", "--failed").err
    left = whole.study("prune", "students", "--arm", "none")
    assert left.code == 2 and "nothing would be left" in left.err and "remove students" in left.err
    assert whole.run("students", "--extend").code == 1  # back again


def test_the_search_of_a_pruned_arm_is_gone_too(whole):
    assert whole.study("prune", "drawn", "--arm", "vat").code == 0
    document = read_document(folder_of(whole, "drawn"))
    assert document["definition"]["arms"] == ["none"] and [t["arm"] for t in document["trials"]] == ["none"]
    space = whole.folder / "drawn.yaml"
    space.write_text(space.read_text().replace("  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}}}\n", ""))


def test_a_space_that_this_version_does_not_understand_is_named_where_it_lies(whole, monkeypatch):
    monkeypatch.setattr(
        StudyFolder, "space_text", lambda self: b"description: x\nmethods: {none: {teacher: {stepz: 3}}}\n"
    )
    with pytest.raises(UserError, match=r"whole/runs/studies/drawn/space\.yaml: .*stepz") as raised:
        prune_study("drawn", str(whole.root), [], False, None)
    assert str(raised.value).count(".yaml") == 1


def test_a_study_at_work_is_neither_pruned_nor_removed(whole):
    with lease(folder_of(whole, "drawn")):
        for words in (["prune", "drawn", "--arm", "vat"], ["remove", "drawn", "--yes"]):
            said = whole.study(*words)
            assert said.code == 2 and "is being run by process" in said.err
    assert whole.study("status", "drawn").code == 0 and pages(whole, "drawn") == ["none", "vat", "vat"]


def test_a_store_that_is_away_is_said_and_synced_later(whole):
    away = ("--tracking-uri", "http://127.0.0.1:9")
    said = whole.study("prune", "students", "--failed", *away)
    assert said.code == 0 and "warning: " in said.out and "sync students" in said.out
    assert len(pages(whole, "students")) == 6
    assert "3 runs deleted that left its plan" in whole.study("sync", "students").out
    assert pages(whole, "students") == ["attention of none", "none", "none → plain"]
    said = whole.study("remove", "students", "--yes", *away)
    assert said.code == 0 and "sync students" in said.out and len(pages(whole, "students")) == 3
    assert "4 runs of students deleted" in whole.study("sync", "students").out and pages(whole, "students") is None
    assert "no study 'students'" in whole.study("sync", "students").err


# ---- remove
def test_a_study_is_removed_when_it_is_said_and_comes_back_from_the_ledger(whole):
    rows = whole.rows("drawn")[0]
    said = whole.study("remove", "drawn")
    assert said.code == 0 and "would remove" in said.out and "--yes" in said.out
    assert whole.rows("drawn")[0] == rows and len(pages(whole, "drawn")) == 3
    said = whole.study("remove", "drawn", "--yes")
    assert said.code == 0 and "MLflow: 4 runs of drawn deleted" in said.out and pages(whole, "drawn") is None
    assert not (whole.root / "studies" / "drawn").exists() and "drawn" not in whole.study("list").out
    assert whole.study("remove", "drawn").code == 2
    said = whole.run("drawn")
    assert said.code == 0 and "6 there already, 0 to run now" in said.out
    assert whole.rows("drawn")[0] == rows and pages(whole, "drawn") == ["none", "vat", "vat"]


def test_the_store_of_a_run_is_found_again(whole):
    other = ("--tracking-uri", f"sqlite:///{whole.root}/other.db")
    assert whole.run("drawn", *other).code == 0
    said = whole.study("prune", "drawn", "--arm", "vat").out
    assert "MLflow: 2 runs deleted" in said and "other.db" in said and pages(whole, "drawn", "other.db") == ["none"]
    assert whole.study("remove", "drawn", "--yes").code == 0
    assert pages(whole, "drawn") is None and pages(whole, "drawn", "other.db") is None


def test_a_removal_that_was_killed_is_taken_up_again(whole, monkeypatch):
    real, count = LocalStorage.delete, []

    def killed(self, key):
        count.append(key)
        if len(count) == 4:
            raise KeyboardInterrupt
        real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", killed)
        assert whole.study("remove", "drawn", "--yes").code == 130
    assert whole.study("list").code == 0
    assert whole.study("remove", "drawn", "--yes").code == 0 and not (whole.root / "studies" / "drawn").exists()


# ---- gc
def test_gc_shows_and_then_deletes_what_no_study_names(whole):
    assert "nothing to collect" in whole.study("gc").out
    assert whole.study("remove", "students", "--yes").code == 0
    shared = {e["config_id"] for e in folder_of(whole, "drawn").plan()}
    before = results(whole)
    said = whole.study("gc")
    assert said.code == 0 and "results that no study names: 6 runs" in said.out and "--delete" in said.out
    assert results(whole) == before
    assert "deleted: " in whole.study("gc", "--delete").out
    assert {path.parts[2] for path in results(whole)} == shared  # one of them was a teacher of the removed study
    assert not list((whole.root / "results").glob("*/*/r*/[!c]*needed*"))
    assert whole.run("drawn").code == 0 and "6 there already" in whole.run("drawn").out
    assert "nothing to collect" in whole.study("gc").out


def test_gc_takes_what_lost_attempts_left_and_not_what_may_be_at_work(whole):
    folder = folder_of(whole, "drawn")
    config = folder.plan()[0]["config_id"]
    run = whole.root / folder.ledger.run_key(config, 0)
    lost = [run / "0badc0de.predictions.parquet", run / "checkpoint.pt", run / "commit.json.0badc0de.part"]
    (run / "notes of mine.txt").write_text("x")
    for path in lost:
        path.write_bytes(b"x" * 1000)
    assert "nothing to collect" in whole.study("gc").out  # somebody may be about to commit them
    age(whole)
    with Claims(folder.ledger, "drawn") as claims:
        assert claims.take(config, [0]) == [0]
        assert "data of attempts" not in whole.study("gc", "--delete").out and lost[0].exists() and lost[1].exists()
    said = whole.study("gc", "--delete").out
    assert "data of attempts that were lost: 1 file" in said and "checkpoints of runs that are done" in said
    assert not any(path.exists() for path in lost) and (run / "notes of mine.txt").exists()
    assert whole.run("drawn").code == 0


def test_gc_refuses_where_it_cannot_be_known_what_a_study_names(whole):
    before = results(whole)
    for path in (whole.root / "studies" / "drawn").rglob("plan.json"):
        path.write_text("garbage")
    said = whole.study("gc", "--delete")
    assert said.code == 2 and "plan.json" in said.err and results(whole) == before
    for path in (whole.root / "studies" / "drawn").rglob("plan.json"):
        path.unlink()
    said = whole.study("gc", "--delete")
    assert said.code == 2 and "has no plan" in said.err and results(whole) == before
    assert whole.run("drawn").code == 0 and whole.study("gc", "--delete").code == 0


def test_a_claimed_run_that_no_study_names_stays(whole):
    folder = folder_of(whole, "drawn")
    config = folder.plan()[-1]["config_id"]
    assert whole.study("remove", "drawn", "--yes").code == 0
    with Claims(folder.ledger, "another") as claims:
        claims.take(config, [1])
        whole.study("gc", "--delete")
        assert folder.ledger.has(config, 1) and not folder.ledger.has(config, 0)
    whole.study("gc", "--delete")
    assert not folder.ledger.has(config, 1)


def test_a_claim_whose_holder_was_lost_keeps_nothing_for_ever(whole):
    folder = folder_of(whole, "drawn")
    config = folder.plan()[0]["config_id"]
    claim = whole.root / folder.ledger.run_key(config, 0) / "claim.json"
    claim.write_bytes(records.encode({"mark": "gone", "study": "drawn"}))
    assert "nothing to collect" in whole.study("gc").out
    age(whole)
    assert "claims of workers that are gone: 1 file" in whole.study("gc", "--delete").out and not claim.exists()
    assert folder.ledger.has(config, 0)


def test_gc_sees_a_study_that_lies_elsewhere(whole):
    place = whole.root / "studies" / "drawn"
    place.rename(whole.folder / "drawn")
    place.symlink_to(whole.folder / "drawn")
    assert "nothing to collect" in whole.study("gc", "--delete").out and whole.run("drawn").code == 0


@pytest.mark.parametrize("over_before_the_study_looks", [False, True])
def test_a_study_that_begins_during_a_collection_looks_again(whole, monkeypatch, over_before_the_study_looks):
    """It had seen results that the collection deletes before it wrote its plan."""
    assert whole.study("remove", "drawn", "--yes").code == 0
    kept = folder_of(whole, "students").plan()[0]["config_id"]
    monkeypatch.setattr(gc_lock, "BEAT_SECONDS", 0.2)
    storage, prepared, looking = LocalStorage(whole.root), threading.Event(), threading.Event()
    (storage.root / gc_lock.KEY).write_bytes(records.encode({"mark": f"earlier{gc_lock.ENDED}"}))

    def collection():
        prepared.wait(60)
        with gc_lock_held(storage):
            if not over_before_the_study_looks:
                looking.wait(60)
            for path in (whole.root / "results").glob("*/*/*/commit.json"):
                if path.parts[-3] != kept:
                    path.unlink()

    thread = threading.Thread(target=collection)
    real = run.prepare_study

    def prepare(options):
        study = real(options)
        prepared.set()
        if over_before_the_study_looks:
            thread.join()
        while "earlier" in gc_lock.last_collection(storage):
            time.sleep(0.01)
        return study

    def wait_a_little(seconds):
        if threading.current_thread() is not thread:
            looking.set()  # the study has seen the collection
        time.sleep(0.01)

    monkeypatch.setattr(run, "prepare_study", prepare)
    monkeypatch.setattr(gc_lock, "time", SimpleNamespace(sleep=wait_a_little))
    thread.start()
    said = whole.run("drawn")
    thread.join()
    assert said.code == 0 and ("waiting for gc" in said.out) != over_before_the_study_looks
    assert set(analysis.load("drawn", whole.root)["status"]) == {"done"}


def test_two_collections_do_not_meet(whole):
    with gc_lock_held(LocalStorage(whole.root)):
        said = whole.study("gc", "--delete")
        assert said.code == 2 and "gc is at work" in said.err
    gone = {**heartbeat.new_heartbeat("0"), "pid": 2**22 + 1, "beat": 1.0}
    (whole.root / gc_lock.KEY).write_bytes(records.encode(gone))
    assert whole.study("gc", "--delete").code == 0
    assert gc_lock.last_collection(LocalStorage(whole.root)).endswith(gc_lock.ENDED)
