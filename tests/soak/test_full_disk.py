"""A disk that is full or becomes read-only in the middle of a study: a clear stop, and then the same command."""

import contextlib
import os
import subprocess
import time

import pytest
from studies import Place

pytestmark = pytest.mark.soak


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own (tmpfs), where the rights of this process allow it."""
    point = tmp_path / "disk"
    point.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(point)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"no right to mount a tmpfs here: {made.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=False)


def remount(point, options):
    for _ in range(200):
        done = subprocess.run(["mount", "-o", f"remount,{options}", str(point)], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.05)  # a file is being written
    raise AssertionError(done.stderr)


def test_a_full_disk_stops_the_study_clearly_and_it_goes_on_with_more_room(disk, tmp_path):
    place = Place(tmp_path / "study", steps=100, replicates=4, whole=True)
    place.root = disk / "runs"
    store = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    out = place.run(*store, code=1)
    assert "No space left on device" in out and "what was committed is safe" in out
    assert "left; the same command goes on from here." in out
    kept = {path: path.stat().st_mtime_ns for path in place.committed()}
    assert 0 < len(kept) < 20
    assert "failed" not in place.call("status", "few")
    remount(disk, "size=200m")
    assert "resuming" in place.run(*store)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    whole = Place(tmp_path / "whole", steps=100, replicates=4, whole=True)
    whole.run()
    assert place.rows() == whole.rows()
    assert {run.info.status for run in place.children(store[1])[1]} == {"FINISHED"}


def test_a_disk_full_from_the_start_is_said_in_a_line(disk, tmp_path):
    place = Place(tmp_path / "study", steps=100, replicates=2, whole=True)
    place.root = disk / "runs"
    with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
        while True:
            filler.write(os.urandom(4096))
            filler.flush()
    out = place.call("run", "--space", place.folder / "few.yaml", code=2)
    assert "cannot write there: No space left on device" in out


def test_a_root_that_becomes_read_only_stops_the_study_and_it_goes_on_later(disk, tmp_path):
    remount(disk, "size=200m")
    place = Place(tmp_path / "study", steps=400, replicates=2, whole=True)
    place.root = disk / "runs"
    store = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    driver = place.start(*store)
    place.until(lambda: len(place.committed()) >= 2, driver, "two runs")
    remount(disk, "ro")
    assert place.wait(driver, 120) == 1, place.said()
    assert "Read-only file system" in place.said() and "what was committed is safe" in place.said()
    assert "cannot write there" in place.call("run", "--space", place.folder / "few.yaml", code=2)
    remount(disk, "rw")
    place.run(*store)
    assert {row["status"] for row in place.rows()} == {"done"} and len(place.rows()) == 10
