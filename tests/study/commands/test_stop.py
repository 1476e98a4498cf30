"""`stop`: a driver ends its study when it is asked to, or when another driver has taken it up."""

import threading
import time

import pytest
from few_digits import digits
from make_study import make_study
from whole_root import SPACES, command, without_ray

from d2l_study import cli
from d2l_study.study.ledger import lease as lease_module
from d2l_study.study.ledger import records
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune import run_trials


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


@pytest.mark.parametrize(("options", "code"), [((), 130), (("--limit", "1"), 0)])
def test_a_search_that_is_stopped_between_two_trials_was_stopped(tmp_path, options, code):
    (tmp_path / "search.yaml").write_text(SPACES["search"].format(digits=digits()))

    def stopped_after_one_trial(queue, resources, concurrent, callback, early_stopping, stop):
        (request,) = queue.next()
        run_trial(request)
        queue.trial_ended(request)
        callback.on_trial_end(request)
        assert callback.open_trials == 0
        stop.set()

    with without_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_trials, "run_trials", stopped_after_one_trial)
        said = command(cli.main, "run", "--space", tmp_path / "search.yaml", "--root", tmp_path / "runs", *options)
    assert said.code == code, said.text
    assert ("Stopped: 4 runs left" if code else "Not finished: 4 runs left") in said.out
