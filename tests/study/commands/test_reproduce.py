"""`reproduce`: a trial trained again from its record, and compared."""

import io

import numpy as np
import pandas as pd
import pytest
from make_trial_request import make_trial_request

from d2l_study import cli
from d2l_study.study.commands import reproduce as reproduce_module
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import PREDICTIONS
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


def reproduce_as(tmp_path, monkeypatch, row, files):
    """Exit code of `reproduce` where training again gives this row and these files."""
    monkeypatch.setattr(reproduce_module, "compute_runs", lambda *given: iter([(0, row, files)]))
    return cli.main(["reproduce", "abab", "--root", str(tmp_path)])


def test_a_run_that_fails_now_is_different_and_its_cause_is_said(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    capsys.readouterr()
    row = {"status": "failed", "cause": "the training loss is nan"}
    assert reproduce_as(tmp_path, monkeypatch, row, {"curve.json": b"[]"}) == 1
    assert "  r000: done then, failed now: the training loss is nan\n" in capsys.readouterr().out


def test_a_run_that_failed_and_is_done_now_is_different_too(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    ledger = Ledger(LocalStorage(tmp_path))
    row = ledger.row(ID, 0)
    ledger.storage.delete(f"{ledger.run_key(ID, 0)}/commit.json")
    ledger.commit(ID, 0, {**row, "status": "failed", "cause": "lost"}, {})
    capsys.readouterr()
    assert reproduce_as(tmp_path, monkeypatch, row, {}) == 1
    assert "  r000: failed then: lost, done now\n" in capsys.readouterr().out


@pytest.mark.parametrize(("then", "now", "expected"), [
    ([1.0, 2.0], [1.0, 2.5], 0.5), ([1.0, np.nan], [1.0, np.nan], 0.0), ([np.inf], [np.inf], 0.0),
    ([1.0, np.nan], [1.0, 2.0], np.inf), ([1.0], [1.0, 2.0], np.inf), ([1.0], None, np.inf),
])  # fmt: skip
def test_logits_differ_where_only_one_is_a_number(tmp_path, then, now, expected):
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.commit(ID, 0, {"status": "failed"}, {PREDICTIONS: logits_file(then)})
    files = {} if now is None else {PREDICTIONS: logits_file(now)}
    assert reproduce_module._logit_difference(ledger, ID, 0, files) == expected


def logits_file(logit):
    buffer = io.BytesIO()
    pd.DataFrame({"logit": logit}).to_parquet(buffer)
    return buffer.getvalue()
