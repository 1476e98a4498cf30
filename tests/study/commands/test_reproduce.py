"""`reproduce`: a trial trained again from its record, and compared."""

from make_trial_request import make_trial_request

from d2l_study import cli
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.trial.trial import run_trial

ID = "ab" * 10


def test_reproduce_trains_again_and_compares(tmp_path, capsys):
    run_trial(make_trial_request(tmp_path, (0, 1)))
    ledger = Ledger(LocalStorage(tmp_path))
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("identical, predictions too") == 2
    record = ledger.read(ID, 1)
    record["row"]["bag_auc"] += 0.25
    ledger.storage.delete(f"{ledger.run_key(ID, 1)}/commit.json")
    ledger.commit(ID, 1, record["row"], {})
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "r000: identical" in out and "r001: metrics differ by at most 0.25" in out and "bag_auc:" in out
    assert cli.main(["reproduce", "abab", "--replicate", "5", "--root", str(tmp_path)]) == 2
    assert "replicate 5 is not committed" in capsys.readouterr().err
