"""Trials of several configurations whose workers are lost, stopped or at fault: no run takes others with it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from studies import FAULTY, SCIENCE, Place, workers

import analysis
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from training_faults import kind_of

pytestmark = pytest.mark.soak

PACKED = ("--set", "resources.pack=8")
FAULTS = "exit:1 exit:9 memory:9 raise:9"
MANY = "lambda_adv: [0.1, 0.2, 0.3, 0.4, 0.5], epsilon: [1.0, 2.0]"
STEPS = 200


def science(place):
    return analysis.load("few", place.root)[SCIENCE]


def assert_alike(place, other):
    """The same but for rounding, which grows with the steps."""
    mine, expected = science(place), science(other)
    facts = ["config_id", "method", "replicate", "status", "steps_run"]
    assert mine[facts].to_dict("records") == expected[facts].to_dict("records")
    assert mine["bag_auc"].to_numpy() == pytest.approx(expected["bag_auc"].to_numpy(), abs=0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"), steps=STEPS, replicates=2)
    place.run(*PACKED)
    return place


def test_a_killed_worker_is_a_retry_of_all_its_runs_from_their_checkpoints(undisturbed, tmp_path):
    place = Place(tmp_path, steps=STEPS, replicates=2)
    driver = place.start(*PACKED)
    checkpoints = lambda: list((place.root / "results").glob("*/*/*/checkpoint.pt"))  # noqa: E731
    place.until(lambda: len(checkpoints()) >= 4, driver, "checkpoints of several configurations")
    for worker in workers(driver):
        os.kill(worker, signal.SIGKILL)
    assert place.wait(driver) == 0, place.said()
    assert place.said().count("the worker process was lost; attempt 2") >= 2
    assert_alike(place, undisturbed)
    assert 2 in analysis.load("few", place.root)["attempts"].unique()
    assert {run.info.status for run in place.children()[1]} == {"FINISHED"}


def test_a_configuration_at_fault_fails_alone(tmp_path):
    """The last attempt trains each by itself, and an exception never counts as a lost attempt of the others."""
    place = Place(tmp_path, steps=20, replicates=1, retries=2, PYTHONPATH=FAULTY, D2L_FAULTS=FAULTS)
    space = place.folder / "few.yaml"
    space.write_text(space.read_text().replace("lambda_adv: [0.5, 1.0], epsilon: [1.0, 2.0]", MANY))
    place.run(*PACKED, code=1)
    folder, seen = StudyFolder(LocalStorage(place.root), "few"), set()
    for row in analysis.load("few", place.root).to_dict("records"):
        kind, count = kind_of(row["config_id"], FAULTS)
        seen.add((kind, count))
        at_fault = (kind, count) in {("exit", 9), ("raise", 9)}
        assert row["status"] == ("failed" if at_fault else "done"), (kind, count)
        failure = folder.failure(row["config_id"], 0)
        if kind == "raise":
            assert failure["cause"] == "ZeroDivisionError: made to fail"
        elif count == 9 and kind == "exit":
            assert failure["cause"] == "the worker process was lost (3 attempts)"
    assert {("exit", 9), ("raise", 9), ("none", 0)} <= seen, f"a fault was not met: {seen}"
    assert {run.info.status for run in place.children()[0]} == {"FAILED", "FINISHED"}


def test_an_interrupted_study_goes_on_packed_or_by_turns(undisturbed, tmp_path):
    place = Place(tmp_path, steps=STEPS, replicates=2)
    driver = place.start(*PACKED)
    place.until(lambda: list((place.root / "results").glob("*/*/*/checkpoint.pt")), driver, "checkpoint")
    os.kill(driver.pid, signal.SIGINT)
    assert place.wait(driver, 60) == 130, place.said()
    assert not (place.root / "studies" / "few" / "failures").exists()
    assert "resuming" in place.run()
    assert_alike(place, undisturbed)
    assert {run.info.status for run in place.children()[1]} == {"FINISHED"}


def test_fresh_trains_all_again_and_keeps_both(undisturbed, tmp_path):
    place = Place(tmp_path, steps=40, replicates=2)
    place.run(*PACKED)
    before = {path: path.stat().st_mtime_ns for path in place.committed()}
    assert "10 to run now" in place.run("--study", "again", "--fresh", *PACKED)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    again = analysis.load("again", place.root)
    assert again["made_by"].eq("again").all() and again["replaces"].eq("few").all()
    assert again["replaces_difference"].abs().max() < 1e-6
