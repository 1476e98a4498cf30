"""Ten kills of the driver at random moments, and two drivers at once: nothing lost, nothing done twice."""

import contextlib
import os
import random
import signal
import time

import pytest
from studies import Place, end_session

pytestmark = pytest.mark.soak

KILLS = 10
SEED = 7
STEPS = 600
"""Of a run; a checkpoint is written every 20. Ten kills must leave some to do on a machine that is fast, too."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"), steps=STEPS, replicates=2)
    place.run()
    return place


def test_ten_kills_leave_the_table_of_an_undisturbed_study(undisturbed, tmp_path):
    place, moments = Place(tmp_path / "killed", steps=STEPS, replicates=2), random.Random(SEED)
    kills = restarts = 0
    kept: dict = {}
    while kills < KILLS:
        driver = place.start()
        # While it plans, takes the lease and starts Ray; or well into training, counted in checkpoints, so that a
        # busy machine only takes longer.
        early, delay = moments.random() < 0.4, moments.uniform(0.2, 5)
        if early:
            moment = f"{delay:.1f} s"
            time.sleep(delay)
        else:
            count = moments.randint(6, 14)  # in all enough to finish some runs, and too few for all
            moment = f"{count} checkpoints and {delay / 50:.2f} s"
            wait_for_checkpoints(place, driver, count)
            time.sleep(delay / 50)  # at another point between two checkpoints
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
        print(f"kill {kills} after {moment}: {len(kept)} runs committed", flush=True)
    assert 0 < len(kept) < 10
    out = place.run()
    assert "trials done" in out and "resuming" in out
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert place.rows() == undisturbed.rows() and len(place.rows()) == 10
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


def wait_for_checkpoints(place, driver, count, timeout=400):
    """Until so many more checkpoints of one run have been written, whichever run gets there first."""
    seen: dict = {}
    deadline = time.monotonic() + timeout
    while max(map(len, seen.values()), default=0) <= count:
        assert driver.poll() is None and time.monotonic() < deadline, place.said()
        for path in (place.root / "results").glob("*/*/*/checkpoint.pt"):
            with contextlib.suppress(FileNotFoundError):
                seen.setdefault(path, set()).add(path.stat().st_mtime_ns)
        time.sleep(0.02)


def _curve(place, run):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    points = {(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "curve/val_bag_auc/r001")}
    assert len(points) == STEPS // 20
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
