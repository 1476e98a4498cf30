"""Ten kills of the driver at random moments, and two drivers at once: nothing lost, nothing done twice."""

import os
import random
import signal
import time

import pytest
from studies import Place, end_session

pytestmark = pytest.mark.soak

KILLS = 10
SEED = 7


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"), steps=600)
    place.run()
    return place


def test_ten_kills_leave_the_table_of_an_undisturbed_study(undisturbed, tmp_path):
    place, moments = Place(tmp_path / "killed", steps=600), random.Random(SEED)
    kills = restarts = 0
    kept: dict = {}
    while kills < KILLS:
        driver = place.start()
        begun = time.monotonic()
        # From the first milliseconds (plan, lease, Ray) until well into training.
        moment = moments.choice([moments.uniform(0.5, 8), moments.uniform(8, 20)])
        while driver.poll() is None and time.monotonic() < begun + moment:
            time.sleep(0.02)
        restarts += 1
        assert restarts < 4 * KILLS
        if driver.poll() is not None:
            raise AssertionError(f"complete after {kills} kills: the study is too short\n" + place.said())
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        end_session(driver, moments.uniform(0, 3))
        kills += 1
        for path, at in kept.items():
            assert path.stat().st_mtime_ns == at, f"{path} was made twice"
        kept = {path: path.stat().st_mtime_ns for path in place.committed()}
        print(f"kill {kills} after {moment:.1f} s: {len(kept)} runs committed", flush=True)
    assert 0 < len(kept) < 20
    out = place.run()
    assert "trials done" in out and "resuming" in out
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert place.rows() == undisturbed.rows() and len(place.rows()) == 20
    mine, runs = place.children()
    ids = [run.data.tags["d2l.config_id"] for run in mine]
    assert len(ids) == len(set(ids)) == 5 and len(runs) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    # The page of a configuration that was killed says what that of an undisturbed one says, curves included.
    theirs, _ = undisturbed.children()
    by_id = {run.data.tags["d2l.config_id"]: run for run in theirs}
    for run in mine:
        other = by_id[run.data.tags["d2l.config_id"]]
        assert run.data.params == other.data.params
        timed = [k for k in run.data.metrics if "seconds" in k]
        assert {k: v for k, v in run.data.metrics.items() if k not in timed} == {
            k: v for k, v in other.data.metrics.items() if k not in timed
        }
        assert _curve(place, run) == _curve(undisturbed, other)


def _curve(place, run):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    points = {(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "curve/val_bag_auc/r001")}
    assert len(points) == 30
    return points


def test_of_two_drivers_started_at_once_one_is_refused(tmp_path):
    place = Place(tmp_path, steps=100, replicates=2)
    first = place.start()
    (tmp_path / "log").rename(tmp_path / "first")
    second = place.start()
    try:
        codes = {driver.wait(300): driver for driver in (first, second)}
    finally:
        end_session(first)
        end_session(second)
    assert set(codes) == {0, 2}
    refused = place.said() if codes[2] is second else (tmp_path / "first").read_text()
    assert "is being run by process" in refused or "taken up by another driver at this moment" in refused
    assert len(place.rows()) == 10 and {row["status"] for row in place.rows()} == {"done"}
    assert len(place.children()[0]) == 5
