"""Two studies that need the same runs: one trains them, the other waits or takes other work, and nothing is lost."""

import dataclasses
import subprocess
import sys
import threading

import pytest
from make_trial_request import make_trial_request

from d2l_study.study.ledger import claims as claims_module
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.claims import Claims, claim_key, claimed_by_others
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial import trial as trial_module
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune.trial_queue import TrialQueue

ID = "ab" * 10


@pytest.fixture
def ledger(tmp_path):
    return Ledger(LocalStorage(tmp_path))


def leave(ledger, replicate, **values):
    """A claim as another worker would have left it."""
    ledger.storage.put(claim_key(ID, replicate), records.encode({"mark": "other", "study": "theirs"}))
    ledger.storage.put(
        "claims/other.json", records.encode({**heartbeat.new_heartbeat("other", study="theirs"), **values})
    )


def dead_process():
    found = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(found.stdout)


def test_a_run_is_claimed_once_and_free_afterwards(ledger):
    with Claims(ledger, "a") as first, Claims(ledger, "b") as second:
        assert first.take(ID, [0, 1]) == [0, 1]
        assert second.take(ID, [0, 1, 2]) == [2]
        assert claimed_by_others(ledger, ID, 0) and not claimed_by_others(ledger, ID, 3)
    assert not claimed_by_others(ledger, ID, 0) and ledger.storage.list("claims") == []
    assert ledger.storage.list(Ledger.run_key(ID, 0)) == []


def test_of_many_at_once_one_gets_it(ledger):
    barrier, won = threading.Barrier(8), []

    def take(i):
        with Claims(ledger, f"study {i}") as claims:
            barrier.wait()
            won.extend(claims.take(ID, [0]))
            barrier.wait()

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [0]


def test_the_claim_of_a_process_that_ended_is_taken_over(ledger):
    leave(ledger, 0, pid=dead_process())
    assert not claimed_by_others(ledger, ID, 0)
    with Claims(ledger, "mine") as mine, Claims(ledger, "third") as third:
        assert mine.take(ID, [0]) == [0] and third.take(ID, [0]) == []
    assert ledger.storage.list("claims") == []  # of the third, who got nothing, and of the dead neither


def test_of_two_that_take_over_the_same_dead_claim_one_gets_it(ledger, monkeypatch):
    leave(ledger, 0, pid=dead_process())
    barrier, won, delete = threading.Barrier(2, timeout=60), [], ledger.storage.delete

    def meet(key):  # both have found its holder dead
        if key == "claims/other.json":
            barrier.wait()
        delete(key)

    monkeypatch.setattr(ledger.storage, "delete", meet)
    monkeypatch.setattr(claims_module.time, "sleep", lambda seconds: barrier.wait())  # both have put their mark

    def take(study):
        with Claims(ledger, study) as claims:
            won.extend(claims.take(ID, [0]))
            barrier.wait()

    threads = [threading.Thread(target=take, args=(study,)) for study in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [0]


def test_of_many_dead_claims_that_are_taken_over_the_others_are_waited_for_once(ledger, monkeypatch):
    looks = []
    monkeypatch.setattr(claims_module.time, "sleep", looks.append)
    for replicate in range(5):
        leave(ledger, replicate, pid=dead_process())
    with Claims(ledger, "mine") as mine:
        assert mine.take(ID, range(6)) == [0, 1, 2, 3, 4, 5] and mine.take(ID, [7]) == [7]
    assert looks == [claims_module.TAKEOVER_SECONDS]


@pytest.mark.parametrize("content", [b"", b"{", records.encode({"mark": 3}), records.encode({"mark": "../x"})])
def test_a_damaged_claim_is_nobodys(ledger, content):
    ledger.storage.put(claim_key(ID, 0), content)
    with Claims(ledger, "mine") as mine:
        assert mine.take(ID, [0]) == [0]


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_elsewhere_only_a_change_under_our_eyes_is_life(ledger, monkeypatch, hours):
    begun = heartbeat.new_heartbeat("other")["beat"] + hours * 3600
    now = [100.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    leave(ledger, 0, machine="elsewhere", beat=begun)
    with Claims(ledger, "mine") as mine:
        assert mine.take(ID, [0]) == []
        now[0] += claims_module.STALE_SECONDS - 1
        assert mine.take(ID, [0]) == []
        leave(ledger, 0, machine="elsewhere", beat=begun + 1)  # it beats
        now[0] += 2
        assert mine.take(ID, [0]) == []
        now[0] += claims_module.STALE_SECONDS + 1
        assert mine.take(ID, [0]) == [0]


def test_a_trial_waits_for_a_run_that_another_study_trains_and_takes_its_result(tmp_path, monkeypatch):
    ledger = Ledger(LocalStorage(tmp_path))
    trained = []
    fit = trial_module.FIT_FUNCTIONS["teacher"]
    monkeypatch.setitem(trial_module.FIT_FUNCTIONS, "teacher",
                        lambda request, problems, *rest: trained.extend(p.number for p in problems)
                        or fit(request, problems, *rest))  # fmt: skip
    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 2:  # the other has come to its end
            ledger.commit(ID, 0, {"status": "done", "bag_auc": 0.5, "made_by": "theirs"}, {})
            ledger.storage.delete(claim_key(ID, 0))

    monkeypatch.setattr(trial_module.time, "sleep", look)
    leave(ledger, 0, machine="elsewhere")
    assert run_trial(make_trial_request(tmp_path, (0, 1))) == {0: "done", 1: "done"}
    assert trained == [1] and len(looks) == 2 and ledger.row(ID, 0)["made_by"] == "theirs"


def test_a_trial_gives_up_runs_that_failed_before_it_waits_for_others(tmp_path, monkeypatch):
    """The other trial may wait for them, while this one waits for runs that fail there."""
    ledger, trained = Ledger(LocalStorage(tmp_path)), []

    def broken(request, problems, *rest):
        trained.append([p.number for p in problems])
        raise ZeroDivisionError("made to fail in every worker")

    def look(seconds):
        assert trained == [[1]] and not claimed_by_others(ledger, ID, 1)
        ledger.storage.delete(claim_key(ID, 0))  # it failed in the other worker too

    monkeypatch.setitem(trial_module.FIT_FUNCTIONS, "teacher", broken)
    monkeypatch.setattr(trial_module.time, "sleep", look)
    leave(ledger, 0, machine="elsewhere")
    assert run_trial(make_trial_request(tmp_path, (0, 1))) == {0: "failed", 1: "failed"}
    assert trained == [[1], [0]]


def test_a_trial_takes_a_run_whose_worker_died(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    leave(ledger, 0, pid=dead_process())
    assert run_trial(make_trial_request(tmp_path, (0,))) == {0: "done"} and ledger.row(ID, 0)["made_by"] == "s"


def test_a_trial_of_which_another_study_needs_the_weights_keeps_them(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.need_weights(ID, 1, "students")
    run_trial(make_trial_request(tmp_path, (0, 1), keep_weights="none"))
    assert not ledger.has_weights(ID, 0) and ledger.has_weights(ID, 1)


def test_a_run_trained_again_for_its_weights_gains_them_and_stays_what_it_was(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    run_trial(make_trial_request(tmp_path, (0,), keep_weights="none"))
    before = ledger.read(ID, 0)
    run_trial(dataclasses.replace(make_trial_request(tmp_path, (0,), keep_weights="all"), study="students"))
    assert ledger.read(ID, 0) == before and ledger.has_weights(ID, 0)
    run_trial(
        dataclasses.replace(make_trial_request(tmp_path, (0,), keep_weights="all"), study="third")
    )  # nothing to do any more
    names = ledger.storage.list(Ledger.run_key(ID, 0))
    assert len([name for name in names if name.startswith("added-")]) == 1
    assert len([name for name in names if name.endswith("weights.safetensors")]) == 1


def test_the_queue_hands_out_what_nobody_is_training_first(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    first, second = (dataclasses.replace(make_trial_request(tmp_path, (0,)), config_id=c) for c in (ID, "cd" * 10))
    leave(folder.ledger, 0)
    queue = TrialQueue([(first,), (second,)], folder)
    assert [queue.next(), queue.next(), queue.next()] == [(second,), (first,), None]
