"""A study ended before its end, in every way a person or a batch system has, goes on with the same command."""

import os
import signal
import time

import pytest
from studies import FAULTY, Place

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"), steps=400, replicates=2)
    place.run()
    return place


def by_stop(place, driver):
    out = place.call("stop", "few")
    assert "asking process" in out and "few: stopped, " in out and "to go on: python -m d2l_study run" in out


def by_interrupt(place, driver):
    os.kill(driver.pid, signal.SIGINT)


def by_interrupt_of_all(place, driver):
    """What Ctrl-C does in a terminal: the whole foreground group hears of it."""
    os.killpg(driver.pid, signal.SIGINT)


def by_sigterm(place, driver):
    os.kill(driver.pid, signal.SIGTERM)


@pytest.mark.parametrize("end", [by_stop, by_interrupt, by_interrupt_of_all, by_sigterm])
def test_a_study_ends_cleanly_and_goes_on(end, undisturbed, tmp_path):
    place = Place(tmp_path, steps=400, replicates=2)
    driver = place.start()
    place.until(lambda: len(place.committed()) >= 2, driver, "two runs")
    status = place.call("status", "few")
    assert "is at work on it" in status and "running" in status and "5 trials: " in status
    begun = time.monotonic()
    end(place, driver)
    assert place.wait(driver, 60) == 130, place.said()
    assert time.monotonic() - begun < 60
    said = place.said()
    assert "Stopped" in said and "left; the same command goes on from here." in said and "Traceback" not in said
    assert 0 < len(place.committed()) < 10
    assert not (place.root / "studies" / "few" / "lease.json").exists()
    assert not (place.root / "studies" / "few" / "failures").exists()
    assert {run.info.status for run in place.children()[1]} <= {"KILLED", "FINISHED"}
    assert "nobody is at work on it" in place.call("status", "few")
    assert "nobody is at work on it" in place.call("stop", "few")
    assert "resuming" in place.run()
    assert place.rows() == undisturbed.rows()
    assert {run.info.status for run in place.children()[1]} == {"FINISHED"}


def test_fail_fast_ends_the_study_at_the_first_failure(tmp_path):
    faulty = {"PYTHONPATH": FAULTY, "D2L_FAULTS": "raise:9 raise:9 raise:9"}
    place = Place(tmp_path, steps=200, replicates=2, **faulty)
    out = place.run("--fail-fast", "--max-concurrent", 1, code=1)
    assert "Stopped (--fail-fast, after a run of" in out and "ZeroDivisionError: made to fail" in out
    states = [row["status"] for row in place.rows()]
    assert states.count("failed") == 2 and "missing" in states
