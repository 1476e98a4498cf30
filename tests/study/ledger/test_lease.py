"""One driver per study."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from d2l_study.errors import UserError
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger import lease as lease_module
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(LocalStorage(tmp_path), "s")


def leave(folder, **values):
    """A lease as another driver would have left it."""
    content = {**heartbeat.new_heartbeat("other"), **values}
    folder.storage.put("studies/s/lease.json", records.encode(content))


def test_a_second_driver_is_refused_and_the_next_is_welcome(folder):
    with lease(folder):
        with pytest.raises(UserError, match=f"being run by process {os.getpid()} on"), lease(folder):
            raise AssertionError("two drivers on one study")
        assert folder.storage.exists("studies/s/lease.json")  # the refused one has not taken it away
    assert not folder.storage.exists("studies/s/lease.json")
    with lease(folder):
        pass


def test_the_lease_of_a_dead_process_is_taken_over(folder):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    leave(folder, pid=int(dead.stdout))
    with lease(folder):
        assert json.loads(folder.storage.read("studies/s/lease.json"))["mark"] != "other"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of a process is read from /proc")
def test_the_lease_of_a_process_that_nobody_has_waited_for_is_taken_over(folder):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        while Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        os.kill(dead.pid, 0)  # it still has its number
        leave(folder, pid=dead.pid)
        with lease(folder):
            assert json.loads(folder.storage.read("studies/s/lease.json"))["mark"] != "other"


@pytest.mark.parametrize("machine", ["elsewhere", heartbeat.machine()])
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lease_without_a_beat_is_taken_over_whatever_its_clock_says(folder, machine, hours, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    leave(folder, machine=machine, beat=time.time() + hours * 3600)
    with lease(folder):
        pass


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lease_that_beats_is_respected_whatever_its_clock_says(folder, hours, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.2)
    over, begun = threading.Event(), time.time()

    def beat():
        while not over.wait(0.1):
            leave(folder, host="elsewhere", machine="elsewhere", beat=time.time() + hours * 3600)

    leave(folder, host="elsewhere", machine="elsewhere", beat=begun + hours * 3600)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="on elsewhere"), lease(folder):
            pass
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("seconds", [-86400, -60, 8])
def test_a_driver_whose_clock_is_another_is_at_work_while_it_beats(folder, seconds, monkeypatch, capsys):
    begun = time.time() + seconds
    leave(folder, host="node7", machine="elsewhere", beat=begun)
    monkeypatch.setattr(
        heartbeat.time, "sleep", lambda _: leave(folder, host="node7", machine="elsewhere", beat=begun + 3)
    )
    assert lease_module.holder(folder)["beat"] == begun + 3
    assert "on node7 gave its last sign" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [-60, 8])
def test_a_driver_that_does_not_beat_is_not_at_work_whatever_its_clock_says(folder, seconds, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.02)
    leave(folder, machine="elsewhere", beat=time.time() + seconds)
    assert lease_module.holders([folder, folder]) == [None, None]


def test_a_driver_that_is_known_to_have_ended_or_is_recent_is_not_watched(folder, monkeypatch, capsys):
    def never(seconds):
        raise AssertionError("watched")

    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    monkeypatch.setattr(heartbeat.time, "sleep", never)
    assert lease_module.holder(folder) is None
    leave(folder, pid=int(dead.stdout), beat=time.time() - 60)
    assert lease_module.holder(folder) is None
    leave(folder, machine="elsewhere")
    assert lease_module.holder(folder)["mark"] == "other" and not capsys.readouterr().out


@pytest.mark.parametrize("seconds", [-60, 8])
def test_the_end_of_a_driver_whose_clock_is_another_is_waited_for(folder, seconds, monkeypatch):
    beats = [time.time() + seconds + 3 * k for k in range(4)]
    leave(folder, machine="elsewhere", beat=beats[0])
    driver = records.decode(folder.storage.read("studies/s/lease.json"))

    def sleep(_):
        beats.pop(0)
        leave(folder, machine="elsewhere", beat=beats[0]) if beats else folder.storage.delete("studies/s/lease.json")

    monkeypatch.setattr(lease_module.time, "sleep", sleep)
    assert lease_module.ask_to_stop(folder, driver, 60.0) and not beats


def test_a_beating_lease_of_another_host_is_respected(folder):
    leave(folder, host="elsewhere", machine="elsewhere", pid=1)
    with pytest.raises(UserError, match="on elsewhere"), lease(folder):
        pass


def test_the_lease_beats(folder, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    with lease(folder):
        first = json.loads(folder.storage.read("studies/s/lease.json"))["beat"]
        deadline = time.monotonic() + 10
        while json.loads(folder.storage.read("studies/s/lease.json"))["beat"] == first:
            assert time.monotonic() < deadline, "the lease does not beat"
            time.sleep(0.02)


WRONG = [{"pid": "1"}, {"beat": "now"}, {"beat": math.inf}, {"mark": 3}, {"begun": []}, {"progress": [1]}]


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", *({**heartbeat.new_heartbeat("other"), **w} for w in WRONG)])
def test_a_damaged_lease_is_nobodys(folder, content):
    folder.storage.put("studies/s/lease.json", content if isinstance(content, bytes) else records.encode(content))
    assert lease_module.holder(folder) is None
    with lease(folder):
        pass
