"""`stop`: a driver ends its study when it is asked to, or when another driver has taken it up."""

import threading
import time

from make_study import make_study

from d2l_study import cli
from d2l_study.study.ledger import lease as lease_module
from d2l_study.study.ledger import records
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder


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
